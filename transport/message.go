package transport

import (
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// Message is what one write carries from one worker to another. The receiver handles the fields in this order.
type Message struct {
	From       determinant.WorkerID
	Generation determinant.Generation // number of global rollbacks that the sender knows of
	// Have is how much of each task's determinant log the sender holds; nil if it does not say. A writer sends no frames on a
	// new link before it has got one.
	Have          []determinant.LogOffset
	Subscriptions []Subscription
	Credits       []Credit
	// Delta is the determinants that the receiver must hold before it takes any of Frames.
	Delta  []byte
	Frames []Frame
}

// Subscription asks the producer of a channel for everything from a position on.
type Subscription struct {
	Channel determinant.ChannelID
	// Number is chosen by the consumer and echoed in frames, so that frames that answer an older subscription are told apart.
	Number   uint64
	Producer determinant.Incarnation // of the producing task, as the consumer knows it
	Consumer determinant.Incarnation
	Cursor   determinant.Cursor // of the next element that the consumer expects
	// Adopt: in at-least-once mode, the consumer takes whatever the new incarnation of the producer has, from its start.
	Adopt bool
}

// Credit says that the consumer has taken all elements below Taken, so that as many bytes more may be sent.
type Credit struct {
	Channel  determinant.ChannelID
	Number   uint64 // of the subscription
	Consumer determinant.Incarnation
	Taken    determinant.Seq
}

// Frame is one batch of one channel. The batch is immutable and may be shared.
type Frame struct {
	Channel  determinant.ChannelID
	Number   uint64
	Producer determinant.Incarnation
	Consumer determinant.Incarnation
	Batch    *inflightlog.Batch
}

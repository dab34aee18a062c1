package transport

import (
	"time"

	"github.com/understudy-stream/understudy/determinant"
)

// PurposeLink is the purpose of the connections between workers.
const PurposeLink = "link"

// Bounds of a mesh. Each is the default of the option of that name.
const (
	DefaultKeepalive   = time.Second
	DefaultDialTimeout = 2 * time.Second
	DefaultMinBackoff  = 5 * time.Millisecond
	DefaultMaxBackoff  = 250 * time.Millisecond
)

// Endpoint is a worker, as its links see it. No method is called with a lock of the mesh held, so each may call Wake, Send,
// SetPeers, Cut and Backlog; none may call Close. For one peer, Write is called from one goroutine at a time, and so is Receive;
// Relink is called while neither runs.
type Endpoint interface {
	// Write makes the next message for peer; nil: nothing now. It is called after Wake(peer), and after each message until nil.
	// The message and all that it refers to must not change any more.
	Write(peer determinant.WorkerID) *Message
	// Receive takes a message. It and all that it refers to belong to the endpoint.
	Receive(m *Message)
	// Relink says that a new stream to and from peer begins, on both ends. It is called after the last Write and Receive of the
	// former stream and before the first of the new one. A message of the former stream that was not received by then is lost.
	// It is called for the first stream too, and may be called for one that breaks before it carries anything.
	Relink(peer determinant.WorkerID)
	// Control takes an item that the peer gave to Send: each once, and in order among those that are bulk and among those that
	// are not. The two kinds come from one goroutine each. The item belongs to the endpoint.
	Control(from determinant.WorkerID, item []byte)
	// Linked says that the data stream with a peer is up (after Relink), or that it broke (after the last Receive), or that
	// another attempt to make it failed; cause says why.
	Linked(peer determinant.WorkerID, up bool, cause error)
}

// Peer is a worker to be linked with.
type Peer struct {
	ID   determinant.WorkerID
	Addr string // host:port
}

// MeshOptions are a mesh's.
type MeshOptions struct {
	Self     determinant.WorkerID
	Cluster  string
	Instance string // names this start of the process, in handshakes
	Security Security
	Endpoint Endpoint
	Limits   Limits

	Keepalive              time.Duration // a link that is silent for three times as long is cut
	DialTimeout            time.Duration // of one attempt, handshake included
	MinBackoff, MaxBackoff time.Duration // between attempts

	Hooks MeshHooks
}

// MeshHooks are told what happens, for metrics. Each may be nil, may be called from several goroutines at once, and must not
// block.
type MeshHooks struct {
	Sent     func(peer determinant.WorkerID, frames, bytes int) // after each write on a data stream
	Received func(peer determinant.WorkerID, frames, bytes int) // for each message that came on one
	Connect  func(peer determinant.WorkerID, err error)         // after each attempt to make a connection of either kind; nil: it is made
}

// Mesh is all links of one worker: with each peer a connection for messages and one for control items. The worker with the
// greater id dials. All methods except Close return at once, and may be called from any goroutine, from within the Endpoint too.
type Mesh struct{}

// NewMesh returns a mesh without peers.
func NewMesh(o MeshOptions) *Mesh { return &Mesh{} }

// SetPeers says with whom to be linked. Links with those who are gone are cut and forgotten; calls of the Endpoint for them that
// are under way may return later, but none begins. A peer equal to Self is ignored. A peer whose address changed is
// dialled there from the next attempt on.
func (m *Mesh) SetPeers(ps []Peer) {}

// Accept is a Server's Handle for connections with PurposeLink.
func (m *Mesh) Accept(h Hello) (Hello, func(*Conn), error) { return Hello{}, nil, ErrClosed }

// Wake says that Endpoint.Write may have a message for peer. With peer equal to Self, what Write gives is handed to Receive
// as it is. Unknown peers are ignored: a new stream begins with a call of Write anyway.
func (m *Mesh) Wake(peer determinant.WorkerID) {}

// Send has the item handed to the peer's Endpoint.Control, once, across broken connections, as long as SetPeers names the peer.
// Items of bulk go when no others are to be sent. The item must not change any more. An unknown peer's item is dropped and
// false returned. What waits is kept in memory: see Backlog.
func (m *Mesh) Send(to determinant.WorkerID, item []byte, bulk bool) bool { return false }

// Backlog is how many bytes of items the peer has not taken yet. Whoever sends images to a standby holds back by it.
func (m *Mesh) Backlog(peer determinant.WorkerID, bulk bool) int64 { return 0 }

// Cut closes the connections with a peer as if the network had. They are made again.
func (m *Mesh) Cut(peer determinant.WorkerID) {}

// Close cuts all links and returns when no call of the Endpoint is under way.
func (m *Mesh) Close() error { return nil }

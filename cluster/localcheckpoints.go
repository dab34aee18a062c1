package cluster

import (
	"time"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
)

// Checkpointed is a completed checkpoint.
type Checkpointed struct {
	Epoch determinant.Epoch
	Bytes int64         // of the images, primaries only
	Took  time.Duration // from its start to its completion
}

// checkpointSizes adds up the images of the checkpoint under way. It belongs to the coordinator's goroutine.
type checkpointSizes struct {
	times  checkpointTimes
	epoch  determinant.Epoch            // under way
	images map[determinant.TaskID]int64 // acknowledged by who runs the task; the last one counts
}

func (c *checkpointSizes) ack(a *checkpoint.Ack) {
	if a.Primary && a.Epoch == c.epoch {
		c.images[a.Task] = a.Bytes
	}
}

// entry follows the ledger, and tells of a checkpoint when it is complete.
func (c *checkpointSizes) entry(e *Entry, now time.Time) (Checkpointed, bool) {
	c.times.entry(e, now)
	switch {
	case e.Start != nil:
		c.epoch, c.images = e.Start.Epoch, map[determinant.TaskID]int64{}
	case e.Complete != nil && e.Complete.Epoch == c.epoch:
		taken := Checkpointed{Epoch: c.epoch, Took: c.times.took}
		for _, bytes := range c.images { //lint:sorted only added up
			taken.Bytes += bytes
		}
		return taken, true
	}
	return Checkpointed{}, false
}

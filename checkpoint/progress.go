package checkpoint

import (
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// Missing lists the tasks of which the checkpoint under way lacks an acknowledgement, of the task itself or of a standby.
func (c *Coordinator) Missing() []determinant.TaskID {
	var missing []determinant.TaskID
	if !c.state.Open {
		return nil
	}
	for t := range c.acks {
		lacks := c.primary(t) == nil || slices.ContainsFunc(c.standbys[t], func(w determinant.WorkerID) bool {
			return !slices.ContainsFunc(c.acks[t], func(a Ack) bool { return a.Worker == w && c.counts(t, &a) })
		})
		if lacks {
			missing = append(missing, determinant.TaskID(t))
		}
	}
	return missing
}

// Bytes is the size of the primaries' images of the checkpoint under way, as far as they have been acknowledged.
func (c *Coordinator) Bytes() (total int64) {
	for t := range c.acks {
		if p := c.primary(t); p != nil {
			total += p.Bytes
		}
	}
	return total
}

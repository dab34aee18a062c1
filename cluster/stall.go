package cluster

import (
	"fmt"

	"github.com/understudy-stream/understudy/standby"
)

// stall notices that a job does not get on. A task that dies replays what came since the last checkpoint, and a checkpoint completes
// only when every present life has passed its barrier: when tasks fail faster than they recover, none does, and what there is to
// replay does not get less. pace cannot help then; people can, if they are told.
type stall struct {
	failures    int    // since a checkpoint was completed
	first, last int64  // milliseconds; when the first and the last of them were
	said        string // empty: it gets on
}

const (
	stallAfter    = 10_000 // milliseconds with failures and without a checkpoint
	stallFailures = 3      // the least that make a stall: a checkpoint may just be slow
)

func (s *stall) failed(now int64) {
	if s.failures++; s.failures == 1 {
		s.first = now
	}
	s.last = now
}

// why says what is wrong, in steps of some seconds; empty when checkpoints are completed, or failures are over.
func (s *stall) why(now int64) string {
	if s.failures < stallFailures || now-s.first < stallAfter || now-s.last > stallAfter {
		return ""
	}
	return fmt.Sprintf("no checkpoint was completed for %d s: tasks fail faster than they recover", (now-s.first)/stallAfter*(stallAfter/1000))
}

// failedLife tells whether a placement that has changed follows a failure: neither the first life of a task does, nor a hand-over.
func failedLife(p *standby.Placement) bool { return p.Incarnation > 1 && p.From == 0 }

// failedNow notes a failure. What the job's former processes left behind when they ended is none of this run's.
func (c *Coordinator) failedNow() {
	if c.now == 0 {
		return // no Tick yet
	}
	c.pace.failed(c.now)
	c.stall.failed(c.now)
}

// watch looks whether the job gets on. What is said already about something more particular stays.
func (c *Coordinator) watch() {
	was := c.stall.said
	if c.stall.said = c.stall.why(c.now); c.stall.said != was && c.said == was {
		c.waiting("")
	}
}

// waiting says why something does not go on, once; empty when it goes on, unless the job as a whole does not.
func (c *Coordinator) waiting(why string) {
	if why == "" {
		why = c.stall.said
	}
	if why != c.said {
		c.said = why
		c.env.Waiting(why)
	}
}

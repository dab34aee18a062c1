package kafka

import (
	"sync"

	"github.com/understudy-stream/understudy/operator"
)

// calls are those under way of what one source or sink has open. The client tries to connect for as long as it takes and lets calls wait
// meanwhile, so that a connection that cannot be made is a reason for all of them.
//
// Invariant: a call that is not under way says nothing.
type calls struct {
	mu   sync.Mutex
	open map[*operator.Wait]struct{}
}

// call is one of them. A nil call is nobody's, and has nobody to tell.
type call struct {
	of   *calls
	wait *operator.Wait
}

// begin notes a call of what has w.
func (c *calls) begin(w *operator.Waits) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[*operator.Wait]struct{}{}
	}
	begun := &call{of: c, wait: w.Call()}
	c.open[begun.wait] = struct{}{}
	return begun
}

// unreachable says why all calls wait.
func (c *calls) unreachable(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for wait := range c.open { //lint:sorted each hears the same
		wait.Say(err.Error())
	}
}

// say says why the call waits.
func (c *call) say(err error) {
	if c == nil {
		return
	}
	c.wait.Say(err.Error())
}

// end notes that the call is over.
func (c *call) end() {
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	delete(c.of.open, c.wait)
	c.wait.Say("")
}

package operator

import (
	"fmt"
	"slices"
	"sync"
)

// Waiter is implemented by a CausalStore, TransactionalStore or Reader that can tell why it waits for its external system. What
// it says is shown by status, beside the task, and makes the metric understudy_task_waiting 1.
type Waiter interface {
	// Waiting tells, for people and on one line, why nothing goes on, such as "connection refused by h:5432, since 12:00:05"; empty
	// if nothing waits. It holds no secret. It is called from any goroutine several times a second, also while another call of the
	// store or reader waits, and after Close. It must not block: a worker that waits for it counts as dead. So it must not take a
	// lock that is held during a call of the external system.
	Waiting() string
}

// Waits keeps why calls of a store or reader wait. It makes a Waiter of what embeds it. The zero value is ready; all methods may be
// called from any goroutine.
type Waits struct {
	mu    sync.Mutex
	calls []*Wait // those that wait, the first to wait first
}

// Wait is one call that may come to wait.
type Wait struct {
	of  *Waits
	why string
}

// Waiting implements Waiter: why the call waits that has waited for longest.
func (w *Waits) Waiting() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) == 0 {
		return ""
	}
	return w.calls[0].why
}

// Call returns a call that does not wait yet. It must Say "" in the end.
func (w *Waits) Call() *Wait { return &Wait{of: w} }

// Say says why the call waits, on one line; empty if it does not, or no longer.
func (c *Wait) Say(why string) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	switch {
	case c.why == "" && why != "":
		c.of.calls = append(c.of.calls, c)
	case c.why != "" && why == "":
		c.of.calls = slices.DeleteFunc(c.of.calls, func(other *Wait) bool { return other == c })
	}
	c.why = why
}

// waiters are the open readers of a source that can tell why they wait. The task's goroutine adds and removes them, anybody asks.
type waiters struct {
	mu   sync.Mutex
	open []splitWaiter
}

type splitWaiter struct {
	split  string
	waiter Waiter
}

// add takes in the reader of a split, if it is a Waiter.
func (w *waiters) add(split string, reader any) {
	if waiter, ok := reader.(Waiter); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open = append(w.open, splitWaiter{split, waiter})
	}
}

// remove forgets the reader of a split.
func (w *waiters) remove(split string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = slices.DeleteFunc(w.open, func(s splitWaiter) bool { return s.split == split })
}

// why is what the first reader says that waits, and how many others do; empty if none does.
func (w *waiters) why() string {
	w.mu.Lock()
	asked := slices.Clone(w.open)
	w.mu.Unlock()
	first, others := "", 0
	for _, s := range asked {
		switch why := s.waiter.Waiting(); {
		case why == "":
		case first == "":
			first = fmt.Sprintf("split %s: %s", s.split, why)
		default:
			others++
		}
	}
	if others > 0 {
		return fmt.Sprintf("%d splits, of which %s", others+1, first)
	}
	return first
}

package cluster

import (
	"runtime"
	"sync"
	"time"
)

// turns lets as many tasks compute at once as there are processors for them.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting [2][]chan struct{} // urgent, others
	given   int                // in a row to the urgent while others waited
}

func newTurns(n int) *turns { return &turns{free: n} }

var theTurns = newTurns(runtime.NumCPU())

const (
	turn      = 500 * time.Microsecond
	urgentRow = 3
)

func (t *turns) take(urgent bool, own chan struct{}) {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return
	}
	k := 1
	if urgent {
		k = 0
	}
	t.waiting[k] = append(t.waiting[k], own)
	t.mu.Unlock()
	<-own
}

func (t *turns) pop() chan struct{} {
	k := 0
	if len(t.waiting[0]) == 0 || len(t.waiting[1]) > 0 && t.given >= urgentRow {
		k = 1
	}
	if len(t.waiting[k]) == 0 {
		return nil
	}
	if k == 0 {
		t.given++
	} else {
		t.given = 0
	}
	c := t.waiting[k][0]
	t.waiting[k] = t.waiting[k][1:]
	return c
}

// pass gives the turn to another who waits; false: nobody does.
func (t *turns) give() {
	t.mu.Lock()
	c := t.pop()
	if c == nil {
		t.free++
	}
	t.mu.Unlock()
	if c != nil {
		c <- struct{}{}
	}
}

func (t *turns) contended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting[0])+len(t.waiting[1]) > 0
}

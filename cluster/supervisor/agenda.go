package supervisor

import (
	"slices"
	"time"
)

// idle is how long to wait where nothing is due.
const idle = time.Hour

// agenda is what is to be done when. Invariant: sorted by time; what is due at the same time stays in the order of adding.
type agenda struct {
	items []appointment
}

type appointment struct {
	at time.Time
	do func()
}

func (a *agenda) add(at time.Time, do func()) {
	i := len(a.items)
	for i > 0 && a.items[i-1].at.After(at) {
		i--
	}
	a.items = slices.Insert(a.items, i, appointment{at, do})
}

// wait is how long it is until something is due.
func (a *agenda) wait(now time.Time) time.Duration {
	if len(a.items) == 0 {
		return idle
	}
	return max(0, a.items[0].at.Sub(now))
}

// run does what is due.
func (a *agenda) run(now time.Time) {
	for len(a.items) > 0 && !a.items[0].at.After(now) {
		do := a.items[0].do
		a.items = slices.Delete(a.items, 0, 1)
		do()
	}
}

package nexmark

import "time"

// pace holds events back until they are due. How many are due when a task looks is chance; the task's log says how many it
// took.
type pace struct {
	split   split
	clock   func() time.Time
	reached uint64 // events below this are due
	ready   chan struct{}
	timer   *time.Timer
}

// finest is the least time to wait: a task that takes events in twos and threes spends its time on waking up.
const finest = time.Millisecond

func newPace(s split, clock func() time.Time) *pace {
	return &pace{split: s, clock: clock, ready: make(chan struct{}, 1)}
}

// due tells whether event n is due. If not, ready gets a value when it is. The clock is read only when what was due is used
// up.
func (p *pace) due(n uint64) bool {
	if n < p.reached {
		return true
	}
	since := p.clock().Sub(time.UnixMilli(p.split.Start))
	p.reached = p.split.dueBy(int64(since))
	if n < p.reached {
		return true
	}
	wait := max(time.Duration(p.split.due(n))-since, finest)
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.wake)
	} else {
		p.timer.Reset(wait)
	}
	return false
}

func (p *pace) wake() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

func (p *pace) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

package cluster

import (
	"math"

	"github.com/understudy-stream/understudy/checkpoint"
)

// pace shortens the checkpoint interval while failures are frequent. A task replays what came since the last checkpoint, and
// a checkpoint completes only when every task has passed its barrier in its present life: with failures closer together
// than a replay takes, none would ever complete, and replays would grow without end.
//
// The interval is the one that loses the least work to checkpoints and replays together: the square root of twice the mean
// time between failures times the cost of a checkpoint (Young, CACM 17(9), 1974; Daly, FGCS 22(3), 2006). The cost is the work that is lost to it,
// and that is a part of the time that it takes: state is encoded and stored beside the records.
type pace struct {
	failures  int
	lastFail  int64   // milliseconds; those at once after it do not count
	newest    int64   // when the last came, counted or not
	burst     int     // how many came with the last that counted, itself included
	gap       float64 // smoothed time between failures, milliseconds
	started   int64   // when the checkpoint under way began; 0: none
	lastStart int64
	cost      float64 // smoothed time from start to completion, milliseconds
}

const (
	smoothing       = 0.25
	startingCost    = 20 // milliseconds, before one was measured
	leastInterval   = 20 // milliseconds
	enoughFailures  = 2
	forgetAfterGaps = 10
	recoveryShare   = 4
	lostShare       = 0.3  // of the time that a checkpoint takes, for records
	left            = 1000 // milliseconds of the time between failures that a recovery does not get
	mostCost        = 1000
	soonEnough      = 500 // milliseconds
)

// failed notes a failure. Those at once are one, which says nothing of when the next will be; if it comes, the time until then is shared among them.
func (p *pace) failed(now int64) {
	p.newest = now
	if p.failures > 0 && checkpoint.Together(p.lastFail, now) {
		p.burst++
		return
	}
	if p.failures++; p.failures > 1 {
		gap := float64(max(1, now-p.lastFail)) / float64(p.burst)
		if p.failures == enoughFailures {
			p.gap = gap
		}
		p.gap += smoothing * (gap - p.gap)
	}
	p.lastFail, p.burst = now, 1
}

func (p *pace) start(now int64) { p.started, p.lastStart = now, now }

// complete measures a checkpoint that no failure has prolonged.
func (p *pace) complete(now int64) {
	if p.started > p.newest {
		cost := min(mostCost, float64(now-p.started))
		if p.cost == 0 {
			p.cost = cost
		}
		p.cost += smoothing * (cost - p.cost)
	}
	p.started = 0
}

// due tells whether a checkpoint should begin before its regular time. A recovery is left a part of the time that there is between
// failures, or all of it but a second, and no more: see checkpoint.Coordinator.
func (p *pace) due(now int64, recovering bool) bool {
	if p.started != 0 || recovering && float64(now-p.lastFail) < max(p.gap/recoveryShare, p.gap-left) {
		return false
	}
	interval, frequent := p.interval(now)
	return frequent && float64(now-p.lastStart) >= interval
}

// soon tells whether due comes so often that nobody need ask for a checkpoint.
func (p *pace) soon(now int64) bool {
	interval, frequent := p.interval(now)
	return frequent && interval <= soonEnough
}

// interval is how often checkpoints should begin, in milliseconds, if failures are frequent.
func (p *pace) interval(now int64) (interval float64, frequent bool) {
	if p.failures < enoughFailures {
		return 0, false
	}
	gap := max(p.gap, float64(now-p.lastFail))
	if gap > forgetAfterGaps*p.gap {
		p.failures = 0
		return 0, false
	}
	cost := p.cost
	if cost == 0 {
		cost = startingCost
	}
	return max(leastInterval, math.Sqrt(2*gap*lostShare*cost)), true
}

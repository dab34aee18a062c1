package checkpoint

// A checkpoint may be late because tasks recover: by so many intervals after a death that stands alone, and by so much of an interval
// otherwise. Recoveries repeat what came since the last checkpoint: if it waited for all of them, each might begin before the one before is
// over.
const (
	lateAlone = 5
	lateElse  = 0.5
)

// AtOnce is how long after a death others count as one with it, in milliseconds: processes that die together are noticed one after the other.
const AtOnce = 100

// Together tells whether a death counts as one with the first, which came before. A clock that has stepped back tells nothing.
func Together(first, now int64) bool { return now >= first && now-first < AtOnce }

// apart is how many times as long as a recovery takes the time between two deaths must be, an interval aside, for the second to stand alone.
// Whoever dies then has the time to replay up to a barrier that was put off for the first.
const apart = 3

// mostCatchingUp: sources get time to catch up only after a recovery of at most this part of an interval.
const mostCatchingUp = 4

// deaths is what a leader has seen of tasks that die.
type deaths struct {
	since    int   // the last complete checkpoint; those at once count as one
	alone    bool  // the last stands alone
	last     int64 // when that was, the first of those at once, or the reign began, in milliseconds
	recovery int64 // how long the last recovery took, or an interval, in milliseconds
	ended    int64 // when that was over
}

// came notes that tasks have died, while others recovered or not.
func (d *deaths) came(now int64, recovering bool, interval int64) {
	if d.since > 0 && Together(d.last, now) {
		return
	}
	d.alone = !recovering && now-d.last >= apart*d.recovery+interval
	d.last = now
	d.since++
}

// over notes that nobody recovers any more.
func (d *deaths) over(now int64) {
	if d.since > 0 {
		d.recovery, d.ended = now-d.last, now
	}
}

// single tells whether the last death stands alone, and no other came since the last complete checkpoint.
func (d *deaths) single() bool { return d.since == 1 && d.alone }

// catchingUp tells whether sources still have to make up for a recovery that is over, after a death that stands alone: they held back
// while others replayed (cluster/giveway.go), and what they give now, as fast as they can, would be in front of a barrier for some time. It takes
// them about as long as the recovery took. After a long one nothing waits: the next death would find as much to replay.
func (d *deaths) catchingUp(now, interval int64) bool {
	return d.single() && d.recovery <= interval/mostCatchingUp && now-d.ended < d.recovery
}

// late is by how many intervals a checkpoint may be late while a task recovers.
func (d *deaths) late() float64 {
	if d.single() {
		return lateAlone
	}
	return lateElse
}

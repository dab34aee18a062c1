package bench

import (
	"fmt"
	"time"
)

// lateness is how late lines were, over time: a histogram for each step of it. It takes as much memory for any number of lines.
type lateness struct {
	step  int64 // microseconds
	zero  int64 // when the first step begins, microseconds
	steps []lateCounts

	now    *lateCounts // the step of the last line; nil: there was none
	begins int64       // when that step does
}

// lateCounts is a histogram with the buckets of type histogram, as long as the latest has it.
type lateCounts []uint32

func newLateness(step time.Duration, zero int64) *lateness {
	return &lateness{step: step.Microseconds(), zero: zero}
}

// mostSteps bounds what a line with a time that cannot be right would take.
const mostSteps = 1 << 20

// add counts a line, at some time since zero.
func (l *lateness) add(at, late int64) error {
	if d := at - l.begins; l.now == nil || d < 0 || d >= l.step { // dividing is most of the work, and most lines come in the step of the one before
		i := (at - l.zero) / l.step
		if at < l.zero || i >= mostSteps {
			return fmt.Errorf("a time of %d s since the first record was due", (at-l.zero)/1e6)
		}
		for int(i) >= len(l.steps) {
			l.steps = append(l.steps, nil)
		}
		l.now, l.begins = &l.steps[i], l.zero+i*l.step
	}
	l.now.add(late)
	return nil
}

func (c *lateCounts) add(late int64) {
	bucket := bucketOf(min(uint64(max(0, late)), 1<<longestTime-1))
	if bucket >= len(*c) {
		*c = append(*c, make(lateCounts, bucket+1-len(*c))...)
	}
	(*c)[bucket]++
}

// merge adds what another has counted.
func (c *lateCounts) merge(o lateCounts) {
	if len(o) > len(*c) {
		*c = append(*c, make(lateCounts, len(o)-len(*c))...)
	}
	for i, n := range o {
		(*c)[i] += n
	}
}

// between is what was counted in all steps that lie in [from, until) as a whole.
func (l *lateness) between(from, until int64) (all lateCounts) {
	first := max(0, (from-l.zero+l.step-1)/l.step)
	last := min(int64(len(l.steps)), (until-l.zero)/l.step)
	for i := first; i < last; i++ {
		all.merge(l.steps[i])
	}
	return all
}

// end is when the last step ends.
func (l *lateness) end() int64 { return l.zero + int64(len(l.steps))*l.step }

// millis is the q-quantile, in milliseconds; -1 if nothing was counted.
func (c lateCounts) millis(q float64) float64 {
	n := uint64(0)
	for _, k := range c {
		n += uint64(k)
	}
	if n == 0 {
		return -1
	}
	rank := min(uint64(q*float64(n)), n-1)
	for i, k := range c {
		if rank < uint64(k) {
			return middle(i) / 1000
		}
		rank -= uint64(k)
	}
	panic("bench: assertion: a histogram shrank")
}

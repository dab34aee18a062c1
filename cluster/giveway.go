package cluster

import (
	"math"

	"github.com/understudy-stream/understudy/standby"
)

// A task that is lost replays what came since the last checkpoint, and nothing new of its partitions is seen before it is through. What the
// other partitions get meanwhile costs computing that the replay needs. So for a short time sources give less of it: they do not stand
// still, they are some tenths of a second late when it is over, and then they go as fast as they can.
const (
	giveWayShare  = 0.2 // of what the source gave before, at first
	givingAtFirst = 80  // milliseconds; most replays are nearly over then, and nobody has missed much
	giveWayLater  = 0.5 // the share from then on
	giveWayMillis = 400 // since the worker has heard of the loss; a recovery that takes longer waits for something else
	giveWayRate   = 10  // records per millisecond of the source below which it makes no difference
	ratePeriod    = 200 // milliseconds over which a rate is measured
	rateSmoothing = 0.5 // weight of the newest
	leastAllowed  = 16  // records that a step is worth
)

// sourcePace is how a source gives way. It belongs to the task's goroutine.
type sourcePace struct {
	measured int64   // when the rate was last measured, in milliseconds; 0: never
	seen     uint64  // records then
	rate     float64 // records per millisecond while nothing was lost
	loss     int64   // the loss that the source gives way to, by the time when it was heard of; 0: none
	start    uint64  // records when it began to
}

// allow is how many records the source may give now, limit of them at most, if it has given taken so far in its life. lost is when a
// worker heard that a task was lost that is not back yet; 0: none is.
func (p *sourcePace) allow(now, lost int64, taken uint64, limit int) int {
	if lost == 0 || now < lost || now-lost >= giveWayMillis {
		p.measure(now, taken)
		return limit
	}
	if p.loss != lost {
		p.loss, p.start = lost, taken
	}
	p.measured = 0 // what it gives now says nothing
	rate := p.rate
	switch {
	case rate == 0: // it has only begun: its partitions' output may go on by others' records
		rate = giveWayRate
	case rate < giveWayRate:
		return limit
	}
	since := float64(now - lost)
	allowed := math.Floor(rate*(giveWayShare*min(since, givingAtFirst)+giveWayLater*max(0, since-givingAtFirst))) - float64(taken-p.start)
	if allowed < leastAllowed {
		return 0
	}
	return int(min(float64(limit), allowed))
}

func (p *sourcePace) measure(now int64, taken uint64) {
	switch since := now - p.measured; {
	case p.measured == 0 || since < 0:
	case since < ratePeriod:
		return
	default:
		rate := float64(taken-p.seen) / float64(since)
		if p.rate == 0 {
			p.rate = rate
		}
		p.rate += rateSmoothing * (rate - p.rate)
	}
	p.measured, p.seen = now, taken
}

// noteLosses notes since when a task is lost. w.mu is held.
func (w *Worker) noteLosses() {
	if !standby.AnyLost(w.mu.view.Places) {
		w.lost.Store(0)
		return
	}
	w.lost.CompareAndSwap(0, w.opts.Clock())
}

// allow is how many records a source may give now, limit of them at most; 0: it is stepped again soon. Task's goroutine.
func (h *hosted) allow(limit int) int {
	now := h.w.opts.Clock()
	if h.drift.waits(now, h.w.alignment.Load()) {
		return 0
	}
	return h.pace.allow(now, h.w.lost.Load(), h.task.Records(), limit)
}

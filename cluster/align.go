package cluster

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// Sources whose Timestamps have MaxDrift stay together in event time (watermark alignment; Flink's FLIP-182). Each worker tells with its
// heartbeats how far such tasks are; the coordinator tells all workers with its own how far the slowest is; and a task that is too far
// ahead gives nothing for now, as one does that gives way to a recovery. When a task reads on is no choice that is logged: only what it then
// reads is. So this touches no replay, and what was heard may be old or lost.

// alignmentHolds is for how long, in milliseconds, what was heard of the slowest counts in one process. Among several it is as long as
// a worker waits for a word of its coordinator: sources go on without one.
const alignmentHolds = 1000

// driftShown is how long, in milliseconds, a task has waited for others before that is worth telling: short waits are what MaxDrift is for.
const driftShown = 2000

// slowestSource is how far the slowest source is.
type slowestSource struct {
	at    int64 // event time in milliseconds; MaxTime: there is none to wait for
	heard int64 // when the worker heard of it, in milliseconds
	until int64 // then it does not count any more
}

// drift keeps a source's task from getting too far ahead. One that may be any number ahead does nothing.
type drift struct {
	most    int64        // milliseconds of event time ahead of the slowest; 0: any number
	reached atomic.Int64 // event time in milliseconds; MaxTime: it holds back nobody
	since   atomic.Int64 // when it began to wait, in milliseconds; 0: it does not
}

func (d *drift) begin(most int64) {
	d.most = most
	d.reached.Store(operator.MaxTime)
}

// look notes how far the task is, after a step. One that replays is behind because it was lost, and holds back nobody: the others' output goes
// on meanwhile. One that waits here may look idle for it: it still is as far as it was. Task's goroutine.
func (d *drift) look(t *task.Task) {
	if d.most > 0 {
		wm, ok := t.Reached()
		d.note(wm, ok && !t.Replaying())
	}
}

func (d *drift) note(wm int64, ok bool) {
	switch {
	case ok:
		d.reached.Store(wm)
	case d.since.Load() == 0:
		d.reached.Store(operator.MaxTime)
	}
}

// waits tells whether the task is too far ahead to read on. Task's goroutine.
func (d *drift) waits(now int64, s *slowestSource) bool {
	if d.most == 0 {
		return false
	}
	ahead := s != nil && now >= s.heard && now < s.until && d.tooFar(s.at)
	switch {
	case !ahead:
		d.since.Store(0)
	case d.since.Load() == 0:
		d.since.Store(now)
	}
	return ahead
}

// tooFar compares without overflow: event times may be any.
func (d *drift) tooFar(slowest int64) bool {
	reached := d.reached.Load()
	return reached < operator.MaxTime && reached > slowest && uint64(reached)-uint64(slowest) > uint64(d.most)
}

// eventTime is how far the task is; nil if nobody need wait for it. Any goroutine.
func (d *drift) eventTime() *int64 {
	if d.most == 0 {
		return nil
	}
	if reached := d.reached.Load(); reached < operator.MaxTime {
		return &reached
	}
	return nil
}

// why tells people what the task waits for, if it has waited for long. Any goroutine.
func (d *drift) why(now int64) string {
	if since := d.since.Load(); since == 0 || now-since < driftShown {
		return ""
	}
	return fmt.Sprintf("source: it is more than %v of event time ahead of the slowest source (MaxDrift)", time.Duration(d.most)*time.Millisecond)
}

// Align tells the worker how far the slowest source is, in milliseconds of event time; MaxTime if none is to be waited for. That counts for so
// many milliseconds. Any goroutine.
func (w *Worker) Align(slowest, holds int64) {
	now := w.opts.Clock()
	w.alignment.Store(&slowestSource{at: slowest, heard: now, until: now + holds})
}

// slowest is the least event time of the sources that others wait for; MaxTime if there is none. It counts only lives that run and do not
// recover.
func (n *coordinatorNode) slowest() int64 {
	least := int64(operator.MaxTime)
	for _, s := range n.sessions { //lint:sorted a minimum
		for t, m := range s.tasks { //lint:sorted a minimum
			if m.EventTime != nil && n.waits(s, m) && !n.rep.coord.view.Places[t].Recovering {
				least = min(least, *m.EventTime)
			}
		}
	}
	return least
}

// align tells the workers of this process how far the slowest source is. On the events goroutine.
func (l *Local) align() {
	if !l.drifts {
		return
	}
	least := int64(operator.MaxTime)
	for _, w := range l.workers() {
		if w == nil {
			continue
		}
		for t, p := range l.coord.view.Places {
			if h := w.worker.tasks[t].Load(); h != nil && h.inc == p.Incarnation && !p.Recovering {
				if at := h.drift.eventTime(); at != nil {
					least = min(least, *at)
				}
			}
		}
	}
	for _, w := range l.workers() {
		if w != nil {
			w.worker.Align(least, alignmentHolds)
		}
	}
}

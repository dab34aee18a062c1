package sim

import (
	"github.com/understudy-stream/understudy/determinant"
)

// A script's state is per run: the helpers below make one for each world that they meet.

// settled tells whether the job is in full swing: it shows output, nothing recovers, and not everything has ended.
func settled(w *World) bool {
	lines := 0
	for _, s := range w.stores {
		if s != nil {
			lines += len(s.lines)
		}
	}
	return lines >= 5 && lines%3 == 0 && busy(w)
}

// busy tells whether every task runs, none recovers and none has ended.
func busy(w *World) bool {
	for t, place := range w.metadata.places {
		p := w.process(place.Worker)
		if place.Recovering || p == nil {
			return false
		}
		if h := p.worker.Task(determinant.TaskID(t)); h == nil || h.Incarnation() != place.Incarnation || h.Ended() {
			return false
		}
	}
	return true
}

// together kills tasks in one step, their workers live.
func together(tasks ...determinant.TaskID) func(*World) bool {
	return func(w *World) bool {
		if !settled(w) {
			return false
		}
		for _, t := range tasks {
			w.killTask(t)
		}
		return true
	}
}

// workersOf kills the workers of tasks.
func workersOf(tasks ...determinant.TaskID) func(*World) bool {
	return func(w *World) bool {
		if !settled(w) {
			return false
		}
		for _, t := range tasks {
			w.kill(w.process(w.metadata.places[t].Worker))
		}
		return true
	}
}

// withStandby kills the worker of a task and those of its standbys.
func withStandby(t determinant.TaskID) func(*World) bool {
	return func(w *World) bool {
		place := w.metadata.places[t]
		if !settled(w) || len(place.Standbys) == 0 {
			return false
		}
		for _, id := range append(place.Standbys, place.Worker) {
			if p := w.process(id); p != nil {
				w.kill(p)
			}
		}
		return true
	}
}

// everyone kills all workers.
func everyone(w *World) bool {
	if !settled(w) {
		return false
	}
	for _, p := range w.faults.sound() {
		w.kill(p)
	}
	return true
}

// twice does a deed again when the job has settled from the first, or is in the middle of recovering.
func twice(act func(*World) bool) func(*World) bool {
	done := map[*World]int{}
	return func(w *World) bool {
		switch at := done[w]; {
		case at == 0:
			if act(w) {
				done[w] = w.step
			}
			return false
		case w.step < at+1500:
			return false
		}
		for _, p := range w.faults.sound() {
			w.kill(p)
		}
		return true
	}
}

// duringReplay kills a task, and another, or the same again, while the first replays.
func duringReplay(tasks ...determinant.TaskID) func(*World) bool {
	killed := map[*World]bool{}
	return func(w *World) bool {
		if !killed[w] {
			killed[w] = settled(w) && w.killTask(tasks[0])
			return false
		}
		place := w.metadata.places[tasks[0]]
		p := w.process(place.Worker)
		if !place.Recovering || p == nil {
			return false
		}
		h := p.worker.Task(tasks[0])
		if h == nil || h.Incarnation() != place.Incarnation || !h.Replaying() {
			return false
		}
		return w.killTask(tasks[len(tasks)-1])
	}
}

// whileSaving waits for a checkpoint to be under way.
func whileSaving(act func(*World) bool) func(*World) bool {
	return func(w *World) bool { return w.metadata.saving && act(w) }
}

// zombie has the worker of a task declared dead while it goes on.
func zombie(t determinant.TaskID) func(*World) bool {
	return func(w *World) bool {
		if !settled(w) {
			return false
		}
		w.suspect(w.process(w.metadata.places[t].Worker))
		return true
	}
}

// formerDies kills a worker that has handed over at least n tasks, before they have caught up elsewhere.
func formerDies(n int) func(*World) bool {
	return func(w *World) bool {
		for _, p := range w.faults.sound() {
			given := 0
			for _, place := range w.metadata.places {
				if place.From == p.id {
					given++
				}
			}
			if given >= n {
				w.kill(p)
				return true
			}
		}
		return len(w.drains.due)+len(w.drains.open) == 0
	}
}

// newDies kills a worker that has made choices of its own in a task that was handed over to it and counts as recovering
// still, when somebody else, or a store, depends on them and nobody else knows them.
func newDies(w *World) bool {
	for t, place := range w.metadata.places {
		if p := w.process(place.Worker); place.From != 0 && p != nil && w.aloneKnows(p, determinant.TaskID(t)) {
			w.kill(p)
			return true
		}
	}
	return len(w.drains.due)+len(w.drains.open) == 0
}

// aloneKnows tells whether others depend on determinants of a task that one process alone holds.
func (w *World) aloneKnows(p *process, t determinant.TaskID) bool {
	known, needed := w.metadata.committed[t], determinant.LogOffset(0)
	for _, q := range w.faults.sound() {
		if q == p {
			continue
		}
		known = max(known, q.worker.Logs().Log(t).End())
		for u := range w.job.Tasks {
			if l := w.history.lives[q.worker.Task(determinant.TaskID(u))]; l != nil {
				needed = max(needed, l.depends[t], l.delivered[t])
			}
		}
	}
	for _, s := range w.stores {
		if s != nil {
			known, needed = max(known, s.logs.Log(t).End()), max(needed, s.at().depends[t])
		}
	}
	return needed > known
}

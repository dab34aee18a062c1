package cluster

import (
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// Members lists the other workers' processes that are not dead.
func (w *Worker) Members() []Admit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.mu.view.Members), func(m Admit) bool { return m.Worker == w.id })
}

// DeclaredDead tells whether the ledger says that this worker is dead.
func (w *Worker) DeclaredDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.view.dead(w.id)
}

// Measure says how the tasks that run here do. It goes through the worker's lock: a worker that hangs measures nothing.
func (w *Worker) Measure() []TaskMetrics {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []TaskMetrics
	for t := range w.tasks {
		h := w.tasks[t].Load()
		if h == nil {
			continue
		}
		id := determinant.TaskID(t)
		m := TaskMetrics{
			Task: id, Incarnation: h.inc, Records: h.task.Records(), Log: w.mu.logs.Log(id).End().Bytes(),
			Backpressure: h.task.Held(), BusyMillis: h.busy(w.opts.Clock()), Replaying: h.task.Replaying(), Source: w.job.Plan.Vertices[w.job.Tasks[t].Vertex].Source != nil,
		}
		if h.sink != nil {
			m.Written = h.sink.shown
		}
		all = append(all, m)
	}
	return all
}

// StandbyLags tells, of each task that this worker is a standby of, how many checkpoints its copy is behind the committed one.
func (w *Worker) StandbyLags() map[determinant.TaskID]uint64 {
	w.mu.Lock()
	committed := w.mu.view.committed()
	var mine []determinant.TaskID
	for t, p := range w.mu.view.Places {
		if slices.Contains(p.Standbys, w.id) {
			mine = append(mine, determinant.TaskID(t))
		}
	}
	w.mu.Unlock()
	lags := make(map[determinant.TaskID]uint64, len(mine))
	for _, t := range mine {
		held := w.opts.State.Held(t)
		lags[t] = uint64(committed - min(held, committed))
	}
	return lags
}

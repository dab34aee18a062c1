package cluster

import (
	"slices"
	"strings"
	"unicode"

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

// Measure says how the tasks that run here do, and why those that are about to run wait, if they do. It goes through the worker's
// lock: a worker that hangs measures nothing.
func (w *Worker) Measure() []TaskMetrics {
	waiting := make([]string, len(w.tasks))
	for t := range w.tasks { // without the lock: connectors answer
		waiting[t] = w.waiting(determinant.TaskID(t))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []TaskMetrics
	for t := range w.tasks {
		id, source := determinant.TaskID(t), w.job.Plan.Vertices[w.job.Tasks[t].Vertex].Source != nil
		h := w.tasks[t].Load()
		if h == nil {
			if pr := w.mu.promos[t]; pr != nil && (waiting[t] != "" || pr.waited) {
				pr.waited = waiting[t] != ""
				all = append(all, TaskMetrics{Task: id, Incarnation: pr.inc, Source: source, Waiting: waiting[t]})
			}
			continue
		}
		m := TaskMetrics{
			Task: id, Incarnation: h.inc, Records: h.task.Records(), Log: w.mu.logs.Log(id).End().Bytes(),
			Backpressure: h.task.Held(), BusyMillis: h.busy(w.opts.Clock()), Replaying: h.task.Replaying(), Source: source, Waiting: waiting[t],
			EventTime: h.drift.eventTime(),
		}
		if h.sink != nil {
			m.Written = h.sink.shown
		}
		all = append(all, m)
	}
	return all
}

// waiting tells why task t waits for an external system, its source or its store, which may be fenced before the task runs, or for slower sources.
func (w *Worker) waiting(t determinant.TaskID) string {
	var all []string
	if h := w.tasks[t].Load(); h != nil {
		if why := h.task.Waiting(); why != "" {
			all = append(all, "source: "+why)
		}
		if why := h.drift.why(w.opts.Clock()); why != "" {
			all = append(all, why)
		}
	}
	if s := w.outside[t].Load(); s != nil {
		if why := (*s).Waiting(); why != "" {
			all = append(all, "sink: "+why)
		}
	}
	return oneLine(strings.Join(all, "; "))
}

// maxWords bounds what is shown of why a task waits, in bytes. It goes with every heartbeat.
const maxWords = 400

// oneLine makes what a connector says fit for a line of a terminal.
func oneLine(text string) string {
	if len(text) > maxWords {
		text = text[:maxWords] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
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

package cluster

import (
	"log/slog"
	"sync"

	"github.com/understudy-stream/understudy/determinant"
)

// outside are the tasks that wait, mostly sources and sinks for an external system, and why. It logs when such a wait begins and when
// it is over, and not each time that its reason, which may tell times, has other words.
type outside struct {
	mu  sync.Mutex
	why map[determinant.TaskID]string
}

// note takes in what was measured of a task.
func (o *outside) note(log *slog.Logger, job *Job, m TaskMetrics) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.why[m.Task]
	if m.Waiting == "" {
		delete(o.why, m.Task)
	} else {
		if o.why == nil {
			o.why = map[determinant.TaskID]string{}
		}
		o.why[m.Task] = m.Waiting
	}
	switch {
	case was == "" && m.Waiting != "":
		log.Warn("a task waits", "task", nameOf(job, m.Task), "why", m.Waiting)
	case was != "" && m.Waiting == "":
		log.Info("a task waits no longer", "task", nameOf(job, m.Task))
	}
}

// reasons lists why tasks wait, by task.
func (o *outside) reasons(job *Job) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []string
	for t := range job.Tasks {
		if why := o.why[determinant.TaskID(t)]; why != "" {
			all = append(all, waitsFor(job, determinant.TaskID(t), why))
		}
	}
	return all
}

func waitsFor(job *Job, t determinant.TaskID, why string) string {
	return nameOf(job, t) + " waits, " + why
}

// lookOutside finds the tasks of a job in this process that wait. A task that runs nowhere does not.
func (l *Local) lookOutside() {
	measured := make([]TaskMetrics, len(l.job.Tasks))
	for t := range measured {
		measured[t].Task = determinant.TaskID(t)
	}
	for _, w := range l.workers() {
		if w == nil {
			continue
		}
		for _, m := range w.worker.Measure() {
			if m.Incarnation >= measured[m.Task].Incarnation {
				measured[m.Task] = m
			}
		}
	}
	for i := range measured {
		l.outside.note(l.opts.Logger, l.job, measured[i])
	}
}

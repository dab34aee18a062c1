package cluster

import (
	"sync"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/standby"
)

// said is what a worker has told the coordinator about the lives of its tasks, by task: the newest of each kind. What it told
// a leader that is gone may be in no ledger.
type said struct {
	mu    sync.Mutex
	tasks []lastWords
}

type lastWords struct {
	failed   *TaskFailure
	rollback *standby.RollbackWanted
	caught   *standby.CaughtUp
	ended    *Ended
	shown    *Shown
	kept     *checkpoint.Ack    // of the newest image that the worker keeps as a standby
	unkept   *checkpoint.Failed // the newest image that it could not keep, until it has said so twice
}

// report tells the coordinator something, and keeps what a later one must hear too. A worker that has been closed says
// nothing: what fails in it then fails because of that.
func (w *Worker) report(r Report) {
	if w.ended.Load() {
		return
	}
	w.said.mu.Lock()
	switch {
	case r.Failed != nil:
		w.said.tasks[r.Failed.Task].failed = r.Failed
	case r.Rollback != nil:
		w.said.tasks[r.Rollback.Task].rollback = r.Rollback
	case r.CaughtUp != nil:
		w.said.tasks[r.CaughtUp.Task].caught = r.CaughtUp
	case r.Ended != nil:
		w.said.tasks[r.Ended.Task].ended = r.Ended
	case r.Shown != nil:
		if last := w.said.tasks[r.Shown.Task].shown; last == nil || last.Epoch < r.Shown.Epoch {
			w.said.tasks[r.Shown.Task].shown = r.Shown
		}
	case r.Ack != nil && !r.Ack.Primary:
		if last := w.said.tasks[r.Ack.Task].kept; last == nil || !older(r.Ack, last) {
			w.said.tasks[r.Ack.Task].kept = r.Ack // images are stored side by side, and not always in their order
		}
	case r.AckFailed != nil:
		if last := w.said.tasks[r.AckFailed.Task].unkept; last == nil || last.Epoch <= r.AckFailed.Epoch {
			w.said.tasks[r.AckFailed.Task].unkept = r.AckFailed
		}
	}
	w.said.mu.Unlock()
	w.env.Report(r)
}

// older tells whether a is of an image that came before b's.
func older(a, b *checkpoint.Ack) bool {
	return a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Incarnation < b.Incarnation
}

// Register tells a coordinator that begins to lead what it cannot know from the ledger: failures, recoveries that have
// ended, rollbacks that are called for, tasks that have no more input, transactions that were committed, images that are kept here or could not be. It returns
// what the worker holds. What the ledger has settled meanwhile names a former life and changes nothing.
func (w *Worker) Register() []standby.Held {
	w.said.mu.Lock()
	words := append([]lastWords(nil), w.said.tasks...)
	for t := range w.said.tasks {
		w.said.tasks[t].unkept = nil // a coordinator counts them
	}
	w.said.mu.Unlock()
	if w.opts.Mutations.Has(mutation.RegisterRepeatsNothing) {
		words = nil
	}
	for _, l := range words {
		if l.failed != nil {
			w.env.Report(Report{Failed: l.failed})
		}
		if l.rollback != nil {
			w.env.Report(Report{Rollback: l.rollback})
		}
		if l.caught != nil {
			w.env.Report(Report{CaughtUp: l.caught})
		}
		if l.ended != nil {
			w.env.Report(Report{Ended: l.ended})
		}
		if l.shown != nil {
			w.env.Report(Report{Shown: l.shown})
		}
		if l.kept != nil {
			w.env.Report(Report{Ack: l.kept}) // a primary's own are asked for by a poll
		}
		if l.unkept != nil {
			w.env.Report(Report{AckFailed: l.unkept})
		}
	}
	w.asked.Store(0)
	return w.Holdings()
}

package supervisor

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
)

// poll asks how the job is, again and again.
func (s *supervisor) poll() {
	if s.asking || s.over {
		return
	}
	s.asking = true
	s.ask(func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, pollTimeout)
		defer cancel()
		st, err := s.client.Status(ctx)
		return func() {
			s.asking = false
			s.after(pollInterval, s.poll)
			if err == nil {
				s.learn(&st)
			}
		}
	})
}

// learn takes in a status.
func (s *supervisor) learn(st *cluster.Status) {
	s.status = *st
	s.record.take(st)
	if s.opts.Status != nil {
		s.opts.Status(*st)
	}
	if now := time.Now(); s.opts.Progress != nil && now.Sub(s.shown) > progressInterval {
		s.shown = now
		s.opts.Progress(s.progress())
	}
	switch st.State {
	case cluster.JobFinished:
		s.done(nil)
	case cluster.JobFailed:
		// A job that failed in an earlier run goes on; a coordinator that has just started may not have got so far yet.
		if s.ran || time.Since(s.started) > staleTimeout {
			s.done(&JobError{Reason: st.Err})
		}
	case cluster.JobForming, cluster.JobStopping:
	case cluster.JobRunning:
		s.ran = true
		if s.opts.Chaos != nil && s.chaos == nil && settled(st) {
			s.startChaos()
		}
	}
}

func (s *supervisor) progress() cluster.Progress {
	sum := s.counts()
	p := cluster.Progress{
		Seconds: sum.Seconds, RecordsIn: sum.RecordsIn, RecordsOut: sum.RecordsOut, Checkpoints: sum.Checkpoints, Kills: sum.Kills,
		Rollbacks: sum.Rollbacks, Waiting: strings.Join(s.status.Waiting, "; "),
	}
	for i := range s.status.Tasks {
		if s.status.Tasks[i].Recovering {
			p.Recovering++
		}
	}
	return p
}

// JobError says why a job failed.
type JobError struct {
	Reason string
}

// Error is the reason.
func (e *JobError) Error() string { return e.Reason }

// ErrJobFailed is what every JobError is.
var ErrJobFailed = errors.New("supervisor: the job failed")

// Is makes errors.Is find ErrJobFailed.
func (e *JobError) Is(target error) bool { return target == ErrJobFailed }

// settled reports whether every task runs.
func settled(st *cluster.Status) bool {
	for i := range st.Tasks {
		if t := &st.Tasks[i]; t.Worker == 0 || t.Recovering {
			return false
		}
	}
	return len(st.Tasks) > 0
}

// workerOf finds the worker that a process is, 0 if it is not known.
func (s *supervisor) workerOf(p *slot) determinant.WorkerID {
	if p.proc == nil {
		return 0
	}
	for i := range s.status.Workers {
		if w := &s.status.Workers[i]; w.Process == p.proc.pid() {
			return w.Worker
		}
	}
	return 0
}

// slotOf finds the process that a worker is.
func (s *supervisor) slotOf(id determinant.WorkerID) *slot {
	for _, p := range s.slots {
		if id != 0 && s.workerOf(p) == id {
			return p
		}
	}
	return nil
}

func isWorker(name string) bool { return strings.HasPrefix(name, string(Worker)) }

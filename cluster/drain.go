package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// Errors of a drain.
var (
	ErrNoWorker = errors.New("cluster: no such worker is alive")
	ErrOver     = errors.New("cluster: the job is over")
)

// Drain asks that a worker is freed of all that it does, so that it may be stopped: its tasks are handed over to their standbys,
// and its standbys are replaced. No other task is touched. Drains tells how far this has come. It may be asked for again, and must
// be, by whoever wants it, after a change of leader, unless Drains lists the worker. The errors are ErrNoWorker and ErrOver.
func (c *Coordinator) Drain(w determinant.WorkerID) error {
	if c.finished {
		return ErrOver
	}
	if !slices.Contains(c.decider.Live(), w) {
		return fmt.Errorf("%w: worker %d", ErrNoWorker, w)
	}
	c.recovery(standby.Drain{Worker: w})
	return nil
}

// Undrain takes a drain back: the worker may be used again. What it has handed over stays where it is. The errors are those of
// Drain.
func (c *Coordinator) Undrain(w determinant.WorkerID) error {
	if c.finished {
		return ErrOver
	}
	if !slices.Contains(c.decider.Live(), w) {
		return fmt.Errorf("%w: worker %d", ErrNoWorker, w)
	}
	c.recovery(standby.Drain{Worker: w, Off: true})
	return nil
}

// Drains lists the workers that are drained, or being drained, by id.
func (c *Coordinator) Drains() []standby.DrainStatus { return slices.Clone(c.decider.Drains()) }

// freed tells whether a worker is being drained and has neither task nor standby any more, so that it may leave at any moment. The ledger says that much to any
// leader; that all is Done a leader hears from those who hold the state now.
func (c *Coordinator) freed(w determinant.WorkerID) bool {
	state := c.decider.State()
	return slices.ContainsFunc(state.Draining, func(d standby.Draining) bool { return d.Worker == w }) &&
		!slices.ContainsFunc(state.Tasks, func(p standby.Placement) bool {
			return p.Worker == w || p.From == w || slices.Contains(p.Standbys, w)
		})
}

// dismiss sends workers away that are drained. What is lost on the way is said again when the worker is back.
func (n *coordinatorNode) dismiss() {
	for _, d := range n.rep.coord.Drains() {
		if s := n.sessions[d.Worker]; s != nil && d.Done {
			s.send(encode(&down{Leave: &leave{Drained: true}}))
			s.out.finish()
		}
	}
}

// DrainWorker hands over all that the worker on a state directory does, stops it, and starts another in its place. It returns
// when the new one has joined, or with an error of ctx, ErrNoWorker or ErrOver.
func (l *Local) DrainWorker(ctx context.Context, dir int) error {
	workers := l.workers()
	if dir >= len(workers) || workers[dir] == nil {
		return fmt.Errorf("%w: directory %d", ErrNoWorker, dir)
	}
	w := workers[dir]
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		done, err := l.drained(w.worker.ID())
		if err != nil {
			return err
		}
		if done {
			if !l.replace(w) {
				return ErrOver
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// drained asks for a drain and tells whether it is done.
func (l *Local) drained(w determinant.WorkerID) (done bool, err error) {
	if !l.call(func() {
		for _, s := range l.coord.Drains() {
			done = done || s.Worker == w && s.Done
		}
		if !done {
			err = l.coord.Drain(w)
		}
	}) {
		err = ErrOver
	}
	return done, err
}

// call runs f on the coordinator's goroutine and waits for it; false if nothing is run there any more.
func (l *Local) call(f func()) bool {
	done := make(chan struct{})
	l.do(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
		return true
	case <-l.finished: // after a ledger that broke no job is run any more
	case <-l.events.done:
	}
	return false
}

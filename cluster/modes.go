package cluster

import (
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/standby"
)

// ErrMode says that a job cannot be asked to go on in that mode.
var ErrMode = errors.New("cluster: no such mode")

// Modes say how a job records. A mode belongs to an epoch, and tasks pass from one epoch to the next at moments of their own.
type Modes struct {
	Newest standby.EpochMode // of the newest epoch that was started; some tasks may not have got there yet
	// Recovery is what a failure now costs: the weakest mode and the least sharing depth of all epochs since the last completed
	// checkpoint.
	Recovery standby.EpochMode
	Wanted   standby.EpochMode // of the epochs to come; equal to Newest when no change is under way
}

// Modes tells how the job records, as of the last entry.
func (c *Coordinator) Modes() Modes {
	s := c.points.State()
	var m Modes
	m.Newest.Mode, m.Newest.Depth = s.Boundary()
	m.Recovery.Mode, m.Recovery.Depth = s.Recovery()
	m.Wanted.Mode, m.Wanted.Depth = s.Goal()
	return m
}

// SwitchMode asks that the job goes on in another mode, and at another sharing depth unless that is 0, from the next epoch on,
// which begins as soon as it can: while a task recovers, nothing changes. The wish is safe when Modes().Wanted shows it; before
// that, a change of leader may lose it. The error is ErrMode.
func (c *Coordinator) SwitchMode(mode determinant.Mode, depth determinant.Depth) error {
	if mode > determinant.GlobalRollback {
		return fmt.Errorf("%w: %v", ErrMode, mode)
	}
	c.checkpoints(checkpoint.SwitchMode{Mode: mode, Depth: depth})
	return nil
}

// Configure says which mode and depth the coordinator's process was started with. That is a wish if the start before was
// another: what was asked of the running job meanwhile outlives the restart of a process. It tells whether it is one.
func (c *Coordinator) Configure(with standby.EpochMode) bool {
	if with == c.view.Configured {
		return false
	}
	c.ledger.Propose(Entry{Configure: &with})
	return true
}

func (c *Coordinator) configured(with standby.EpochMode) {
	if with != c.view.Configured {
		c.view.Configured = with
		c.checkpoints(checkpoint.Committed{Command: checkpoint.Switch{Mode: with.Mode, Depth: with.Depth}})
	}
}

// since lists mode and depth of each epoch after the last completed checkpoint, for whoever decides how to recover.
func (c *Coordinator) since(s *checkpoint.State) []standby.EpochMode {
	epochs := []standby.EpochMode{{Mode: s.Mode, Depth: s.Depth}}
	for _, a := range s.Since {
		epochs = append(epochs, standby.EpochMode{Mode: a.Mode, Depth: a.Depth})
	}
	if c.opts.Mutations.Has(mutation.NewestModeCounts) {
		return epochs[len(epochs)-1:]
	}
	return epochs
}

// Modes tells how the job records now; zero when the run is over.
func (l *Local) Modes() Modes {
	var m Modes
	if !l.ask(func() { m = l.coord.Modes() }) {
		return Modes{}
	}
	return m
}

// SwitchMode asks that the job goes on in another mode, as Coordinator.SwitchMode does. When it returns, the ledger has it, or
// the run is over.
func (l *Local) SwitchMode(mode determinant.Mode, depth determinant.Depth) error {
	var err error
	if !l.ask(func() { err = l.coord.SwitchMode(mode, depth) }) {
		return nil
	}
	l.ask(func() {}) // behind what the first one proposed
	return err
}

// ask runs f on the coordinator's goroutine and waits for it. It is false if the run is over; f may still run then.
func (l *Local) ask(f func()) bool {
	done := make(chan struct{})
	l.do(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
		return true
	case <-l.finished:
	case <-l.events.done:
	}
	return false
}

// configure tells the ledger what mode and depth this process was started with, if that is new. A job goes on as its last
// epochs were recorded and then switches.
func (n *coordinatorNode) configure() {
	view := &n.rep.coord.view
	if n.rep.state.Finished != nil {
		return
	}
	with := standby.EpochMode{Mode: n.opts.Mode, Depth: n.opts.Depth}
	if n.opts.Auto {
		with.Depth = view.Configured.Depth
	}
	if n.rep.coord.Configure(with) {
		is := n.rep.coord.Modes()
		n.opts.Logger.Info(inAnotherMode, "is", is.Newest.String(), "recovers as", is.Recovery.String(), "wanted", with.String())
	}
}

const inAnotherMode = "the job ran in another mode: it goes on in that one and switches with the next checkpoint"

// goOn switches a job that ran before to the mode and depth of this run's options. Until then it goes on as it was: its last
// epochs were recorded so, and that is how they are recovered.
func (l *Local) goOn() error {
	is := l.coord.Modes()
	want := standby.EpochMode{Mode: l.opts.Mode, Depth: l.opts.Depth}
	if l.opts.Auto && l.resumed {
		want.Depth = is.Wanted.Depth
	}
	if want == is.Wanted {
		return nil
	}
	l.opts.Logger.Info(inAnotherMode, "is", is.Newest.String(), "recovers as", is.Recovery.String(), "wanted", want.String())
	return l.coord.SwitchMode(want.Mode, want.Depth)
}

// started takes the start of a checkpoint: the epoch behind its barrier has this mode and depth.
func (v *View) started(s *checkpoint.Start) {
	v.Opened = append(slices.Clone(v.Opened), standby.EpochMode{Mode: s.Mode, Depth: s.Depth})
}

// newest is the last checkpoint that was started: some task may have passed its barrier.
func (v *View) newest() determinant.Epoch { return v.committed() + determinant.Epoch(len(v.Opened)) }

// completed takes a completed checkpoint, which is the last that was started.
func (v *View) completed(c *checkpoint.Complete) {
	if n := len(v.Opened); n > 0 {
		v.Base = v.Opened[n-1]
	}
	v.Complete, v.Opened = c, nil
	v.settle()
}

// parted notes the tasks that a decision has begin anew at the last completed checkpoint, without the choices that their
// former lives have made since. What was known of their input by its position is known by its content only from then on.
func (v *View) parted(d *standby.Decision, changed []determinant.TaskID) {
	for _, t := range changed {
		if p := &d.Tasks[t]; p.Incarnation == 1 || p.Recovering && d.Collect {
			continue
		}
		v.Anew = append(slices.Clone(v.Anew), make([]determinant.Incarnation, max(0, len(v.Places)-len(v.Anew)))...)
		v.Anew[t] = d.Tasks[t].Incarnation
		v.Asides = slices.Clone(v.Asides)
		for i := range v.Asides {
			if a := &v.Asides[i]; a.Task == t {
				a.ByRecord = !a.Source
			}
		}
	}
}

// setAside takes a record that is to be set aside. One whose position was named by a life that another history of the task
// has replaced meanwhile is known by its content.
func (v *View) setAside(a Aside) {
	if int(a.Task) < len(v.Anew) && a.Incarnation < v.Anew[a.Task] {
		a.ByRecord = !a.Source
	}
	v.Asides = append(slices.Clone(v.Asides), a)
}

// sharing is how deep determinants must be shared by what the ledger says: for a recovery after the next completed
// checkpoint the depth of the newest epoch may count, whatever came before.
func (v *View) sharing() determinant.Depth {
	depth := v.Base.Depth
	for _, e := range v.Opened {
		depth = max(depth, e.Depth)
	}
	return depth
}

// sharing is how deep this worker shares determinants. A task may have passed into an epoch of a greater depth before the
// worker hears of it from the ledger. w.mu is held.
func (w *Worker) sharing() determinant.Depth {
	depth := w.mu.view.sharing()
	if w.opts.Mutations.Has(mutation.DepthRaisedLate) {
		depth = w.mu.view.Base.Depth
		for _, e := range w.mu.view.Opened {
			depth = min(depth, e.Depth)
		}
		return depth
	}
	for t := range w.tasks {
		if h := w.tasks[t].Load(); h != nil {
			depth = max(depth, h.task.Depth())
		}
	}
	return depth
}

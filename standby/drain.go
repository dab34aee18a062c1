package standby

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// patience is how long a drain waits for a checkpoint, in milliseconds. After that the tasks move all the same, and replay more.
const patience = 10_000

// DrainStatus is how far the drain of a worker has come.
type DrainStatus struct {
	Worker determinant.WorkerID
	Done   bool   // nothing depends on the worker any more
	Why    string // what it waits for; empty if Done

	began int64 // when this leader first saw it
}

// String gives the status in one line.
func (s DrainStatus) String() string {
	if s.Done {
		return Drained{Worker: s.Worker}.String()
	}
	return DrainWaits{Worker: s.Worker, Why: s.Why}.String()
}

// handOver is a task that moves although nothing has failed.
type handOver struct {
	task determinant.TaskID
	to   determinant.WorkerID // 0: to the standby that has least to do
	why  string
}

func taskIDs(list []handOver) []determinant.TaskID {
	tasks := make([]determinant.TaskID, 0, len(list))
	for _, h := range list {
		tasks = append(tasks, h.task)
	}
	return tasks
}

// Drains lists the workers that are drained or being drained, by id. The caller must not change it.
func (d *Decider) Drains() []DrainStatus { return d.drains }

// onDrain notes a wish. It is kept until the ledger has it, or the worker is dead.
func (d *Decider) onDrain(ev Drain) {
	at, found := slices.BinarySearchFunc(d.wishes, ev.Worker, func(w Drain, id determinant.WorkerID) int { return cmp.Compare(w.Worker, id) })
	if !found {
		d.wishes = slices.Insert(d.wishes, at, ev)
	}
	d.wishes[at] = ev
}

// proposeDraining proposes what was wished for and is not so. A wish about a worker that does not live is forgotten.
func (d *Decider) proposeDraining() []Effect {
	live := d.Live()
	d.wishes = slices.DeleteFunc(d.wishes, func(w Drain) bool {
		return d.state.drains(w.Worker) != w.Off || !slices.Contains(live, w.Worker)
	})
	var out []Effect
	for _, w := range d.wishes {
		out = append(out, d.propose(SetDraining{Worker: w.Worker, On: !w.Off})...)
	}
	return out
}

// usable lists the live workers that may be given something to do.
func (d *Decider) usable() []determinant.WorkerID { return slices.DeleteFunc(d.Live(), d.state.drains) }

// lasting lists the standbys of a task that are not to go.
func (d *Decider) lasting(p Placement) []determinant.WorkerID {
	return slices.DeleteFunc(slices.Clone(p.Standbys), d.state.drains)
}

// standbysOf is how many lasting standbys a task should have. One that is to leave its worker needs at least one, to go to.
func (d *Decider) standbysOf(p Placement) int {
	if d.state.drains(p.Worker) {
		return max(d.config.Standbys, 1)
	}
	return d.config.Standbys
}

// ready lists the lasting standbys of a task that hold its committed state, and can store the next.
func (d *Decider) ready(p Placement) []determinant.WorkerID {
	return slices.DeleteFunc(d.lasting(p), func(w determinant.WorkerID) bool { return !d.holds(w, p.Task) || !d.keeps(w, p.Task) })
}

// covered tells whether a task has as many lasting standbys with its committed state as it can have: nobody else's copy
// matters then.
func (d *Decider) covered(p Placement, usable []determinant.WorkerID) bool {
	others := len(usable)
	if slices.Contains(usable, p.Worker) {
		others--
	}
	return p.Worker != 0 && len(d.ready(p)) >= min(d.standbysOf(p), others)
}

// proposeReleases takes standbys away that are on draining workers, when others are in place, and in calm times those that
// are too many since a drain or a move was called off, or another was put in their place. Where there is nobody to be in their place, they stay to the last.
//
// Invariant: it takes none away that proposeStandbys would put back. Both count only standbys that can store the state.
func (d *Decider) proposeReleases() []Effect {
	var out []Effect
	if len(d.state.Draining) == 0 && !d.calm() {
		return nil
	}
	usable := d.usable()
	for _, p := range d.state.Tasks {
		if d.balance.move != nil && d.balance.move.task == p.Task {
			continue
		}
		wanted := d.standbysOf(p)
		if len(d.state.Draining) == 0 && len(p.Standbys) <= wanted {
			continue
		}
		ready, covered := d.ready(p), d.covered(p, usable)
		gone := slices.DeleteFunc(slices.Clone(p.Standbys), func(w determinant.WorkerID) bool {
			return !d.state.drains(w) || !covered || len(ready) < wanted && d.gives(w)
		})
		if d.calm() && len(ready) > wanted && len(gone) == 0 && !d.releases(p.Task) {
			gone = append(gone, d.spread().worst(p, d.dispensable(p, ready)))
		}
		for _, w := range gone {
			out = append(out, d.propose(ReleaseStandby{Task: p.Task, Incarnation: p.Incarnation, Worker: w})...)
		}
	}
	return out
}

// dispensable lists the lasting standbys of a task of which one can go when too many are ready: those that cannot store its state, or
// else the ready ones.
func (d *Decider) dispensable(p Placement, ready []determinant.WorkerID) []determinant.WorkerID {
	idle := slices.DeleteFunc(d.lasting(p), func(w determinant.WorkerID) bool { return d.keeps(w, p.Task) })
	if len(idle) > 0 {
		return idle
	}
	return ready
}

// releases tells whether a standby of a task is about to go.
func (d *Decider) releases(t determinant.TaskID) bool {
	return slices.ContainsFunc(d.inFlight, func(c Command) bool {
		r, ok := c.(ReleaseStandby)
		return ok && r.Task == t
	})
}

// gives tells whether a worker runs tasks, or has handed over some that have not caught up.
func (d *Decider) gives(w determinant.WorkerID) bool {
	return slices.ContainsFunc(d.state.Tasks, func(p Placement) bool { return p.Worker == w || p.From == w })
}

// handOvers lists the tasks that can move now: all of one draining worker, or one for balance. Failures come first.
func (d *Decider) handOvers() []handOver {
	if len(d.suspects) > 0 || len(d.failed) > 0 || d.wanted != nil {
		return nil
	}
	for _, l := range d.state.Draining {
		if list, why := d.leaving(l); why == "" && len(list) > 0 {
			return list
		}
	}
	return d.balance.due(d)
}

// leaving lists the tasks of a draining worker, and why they cannot move now.
func (d *Decider) leaving(l Draining) (list []handOver, why string) {
	for _, p := range d.state.Tasks {
		if p.Worker == l.Worker {
			list = append(list, handOver{task: p.Task, why: "it is drained"})
		}
	}
	if len(list) == 0 {
		return nil, ""
	}
	for _, p := range d.state.Tasks {
		if p.Recovering && p.Worker != 0 {
			return list, fmt.Sprintf("task %d recovers on worker %d", p.Task, p.Worker)
		}
	}
	usable := d.usable()
	if len(usable) == 0 {
		return list, "there is no other worker"
	}
	if d.state.Checkpoint <= l.Since && !d.impatient(l.Worker) {
		return list, "a checkpoint is taken first"
	}
	for _, h := range list {
		if !slices.ContainsFunc(usable, func(w determinant.WorkerID) bool { return d.holds(w, h.task) }) {
			return list, fmt.Sprintf("no other worker has the state of task %d yet", h.task)
		}
	}
	return list, ""
}

// impatient tells whether a drain has waited long enough for a checkpoint.
func (d *Decider) impatient(w determinant.WorkerID) bool {
	i := slices.IndexFunc(d.drains, func(s DrainStatus) bool { return s.Worker == w })
	return i >= 0 && d.drains[i].began > 0 && d.time.now-d.drains[i].began >= patience
}

// move takes the tasks that move from their workers. Each is fenced as if it had failed, and is answered for by the worker
// that ran it.
func (d *Decider) move(next *Decision) []handOver {
	list := d.handOvers()
	for _, h := range list {
		p := &next.Tasks[h.task]
		if next.Collect {
			p.From = p.Worker
		}
		p.Incarnation++
		p.Recovering = true
		p.Worker = h.to
	}
	return list
}

// watchDrains follows each drain and says what has changed.
func (d *Decider) watchDrains() []Effect {
	var out []Effect
	var now []DrainStatus
	for _, l := range d.state.Draining {
		s := DrainStatus{Worker: l.Worker}
		i := slices.IndexFunc(d.drains, func(s DrainStatus) bool { return s.Worker == l.Worker })
		if i >= 0 {
			s = d.drains[i]
		}
		if s.began == 0 {
			s.began = d.time.now
		}
		before := s
		s.Why = d.missing(l)
		s.Done = s.Why == ""
		switch {
		case s.Done && !before.Done:
			out = append(out, Drained{Worker: l.Worker})
		case s.Why != before.Why:
			out = append(out, DrainWaits{Worker: l.Worker, Why: s.Why})
		}
		now = append(now, s)
		if d.state.Checkpoint <= l.Since && slices.ContainsFunc(d.state.Tasks, func(p Placement) bool { return p.Worker == l.Worker }) {
			out = append(out, d.wantCheckpoint()...)
		}
	}
	d.drains = now
	return out
}

// missing says what still depends on a draining worker, empty if nothing does. Consumers may still need what its tasks had
// sent: their successors make it again, and have done so when they are Recovered.
func (d *Decider) missing(l Draining) string {
	list, why := d.leaving(l)
	if why != "" {
		return why
	}
	if len(list) > 0 {
		return "its tasks are handed over"
	}
	for _, p := range d.state.Tasks {
		if p.From == l.Worker {
			return fmt.Sprintf("task %d has not caught up on worker %d yet", p.Task, p.Worker)
		}
	}
	usable := d.usable()
	for _, p := range d.state.Tasks {
		switch {
		case p.Incarnation > 0 && d.holds(l.Worker, p.Task) && !d.covered(p, usable):
			return fmt.Sprintf("task %d has no other standby with its state yet", p.Task)
		case slices.Contains(p.Standbys, l.Worker):
			return fmt.Sprintf("it is a standby of task %d", p.Task)
		}
	}
	return ""
}

// wantCheckpoint asks for a checkpoint, once until one is committed.
func (d *Decider) wantCheckpoint() []Effect {
	if d.wanting == d.state.Checkpoint+1 {
		return nil
	}
	d.wanting = d.state.Checkpoint + 1
	return []Effect{WantCheckpoint{}}
}

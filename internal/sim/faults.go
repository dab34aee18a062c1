package sim

import (
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// FaultKind is a set of kinds of faults.
type FaultKind uint64

// The kinds of faults.
const (
	KillWorker          FaultKind = 1 << iota // one process dies
	KillSeveral                               // two or three at once
	KillAll                                   // all workers
	KillTask                                  // one task dies and its worker lives
	KillRecovering                            // the worker of a task that recovers
	KillSaving                                // a worker, while a checkpoint is under way: one that has prepared a transaction for it, if there is one
	Suspect                                   // a worker is declared dead and goes on for a while
	Pause                                     // a worker does nothing for a while
	BreakLink                                 // the connection of two workers breaks
	FailDisk                                  // images cannot be written
	SlowDisk                                  // nothing is written for a while
	BreakStore                                // a sink's store is interrupted in the middle of a write
	ChangeLeader                              // another coordinator takes over
	CutLink                                   // what one worker sends another gets lost for a while
	LoseLink                                  // two workers do not reach each other until one of them is declared dead
	Freeze                                    // a worker pauses for so long that it is declared dead, and wakes up
	KillLeader                                // the coordinator that leads dies
	KillCoordinator                           // any coordinator dies
	PauseLeader                               // the coordinator that leads pauses, loses its reign and wakes up
	ChangeWhileDeciding                       // the leader goes while a decision is in flight
	BreakSession                              // a worker loses its coordinator for a while
	Join                                      // a worker joins with an empty directory; another's directory is away for long
	KillCluster                               // every process dies, coordinators too
	FailCode                                  // user code fails, once
	endOfKinds
	Poison   FaultKind = 1 << 63 // user code fails on some records, each time: in some worlds, from the start
	AllKinds           = endOfKinds - 1 | Poison
)

// linkFaults need connections that can break.
const linkFaults = BreakLink | CutLink | LoseLink

// maxDirs bounds the directories, and so the workers that may join.
const maxDirs = 9

// faults makes trouble at steps that the seed chose.
type faults struct {
	world    *World
	due      []int // steps, rising
	last     int   // step of the last trouble
	saving   bool  // kill when a checkpoint is next under way
	restarts []restart
	revivals []revival
	store    int // so many store writes will break off
}

// restart starts a new process on a directory.
type restart struct {
	dir *dir
	at  int
}

// revival starts a coordinator again.
type revival struct {
	replica *replica
	at      int
}

func newFaults(w *World) faults {
	f := faults{world: w}
	n := w.opts.Faults
	if n == 0 {
		n = w.rng.IntN(8)
	}
	span := 800 + w.rng.IntN(6000)
	for range max(n, 0) {
		at := 300 + w.rng.IntN(span)
		if len(f.due) > 0 && w.chance(3) {
			at = f.due[len(f.due)-1] + w.rng.IntN(150) // soon after another
		}
		f.due = append(f.due, at)
	}
	slices.Sort(f.due)
	return f
}

// quiet is how many steps ago the last trouble was; 0 while more is to come.
func (f *faults) quiet() int {
	if f.active() {
		f.last = f.world.step
	}
	return f.world.step - f.last
}

// active tells whether trouble is under way or to come.
func (f *faults) active() bool {
	w := f.world
	if len(f.due)+len(f.restarts)+len(f.revivals)+len(w.unsettled) > 0 || f.saving || w.opts.Script != nil && w.step < w.opts.Patience {
		return true
	}
	return slices.ContainsFunc(w.processes, func(p *process) bool {
		return p.alive && (p.suspected || p.pausedUntil > w.step || p.cutOffUntil > w.step)
	})
}

func (f *faults) breakWrite() bool {
	if f.store == 0 || !f.world.chance(3) {
		return false
	}
	f.store--
	return true
}

// tick carries out what is due.
func (f *faults) tick() {
	w := f.world
	for len(f.due) > 0 && f.due[0] <= w.step {
		f.due = f.due[1:]
		f.strike()
	}
	if f.saving && w.metadata.saving {
		f.saving = !f.killSaving()
	}
	if w.opts.Script != nil && w.opts.Script(w) {
		w.opts.Script = nil
		f.last = w.step
	}
	f.recover()
	w.mend()
}

// recover starts processes again.
func (f *faults) recover() {
	w := f.world
	f.restarts = slices.DeleteFunc(f.restarts, func(r restart) bool {
		if r.at > w.step {
			return false
		}
		w.startProcess(r.dir)
		return true
	})
	f.revivals = slices.DeleteFunc(f.revivals, func(r revival) bool {
		if r.at > w.step {
			return false
		}
		r.replica.revive()
		return true
	})
}

// allowed tells whether there may be faults of a kind.
func (w *World) allowed(k FaultKind) bool {
	return w.opts.Faults >= 0 && (w.opts.Kinds == 0 || w.opts.Kinds&k != 0)
}

// strike makes one fault of a kind that the seed picks among those allowed.
func (f *faults) strike() {
	w := f.world
	var choice []FaultKind
	for k := KillWorker; k < endOfKinds; k <<= 1 {
		if w.allowed(k) {
			choice = append(choice, k)
		}
	}
	w.result.Faults++
	f.last = w.step
	f.do(choice[w.rng.IntN(len(choice))])
}

// killTask kills one task whose worker lives.
func (w *World) killTask(t determinant.TaskID) bool {
	p := w.process(w.metadata.places[t].Worker)
	if p == nil || !p.sound() {
		return false
	}
	if h := p.worker.Task(t); h == nil || h.Incarnation() != w.metadata.places[t].Incarnation {
		return false
	}
	w.trace("task %d #%d dies on worker %d", t, w.metadata.places[t].Incarnation, p.id)
	w.faults.last = w.step
	return p.worker.Kill(t, "sim")
}

// suspect has a worker declared dead while it goes on for a while.
func (w *World) suspect(p *process) {
	p.suspected = true
	p.detectAt = w.step + w.rng.IntN(40)
	p.cutOffUntil = p.detectAt + w.rng.IntN(1500)
	p.hangUp()
	w.faults.last = w.step
	w.trace("worker %d is suspected, and reaches no coordinator until %d", p.id, p.cutOffUntil)
}

// kill ends a process as kill -9 does, and has another started on its directory some time later.
func (w *World) kill(p *process) {
	if !p.alive {
		return
	}
	w.trace("worker %d dies", p.id)
	if !p.suspected {
		p.detectAt = w.step + w.tail()
	}
	w.faults.last = w.step
	p.dir.crash()
	p.shut()
	w.lose(p.id)
	w.faults.restarts = append(w.faults.restarts, restart{p.dir, w.step + w.tail()})
}

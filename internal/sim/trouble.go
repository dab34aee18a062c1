package sim

import (
	"github.com/understudy-stream/understudy/determinant"
)

// do makes one fault.
func (f *faults) do(k FaultKind) {
	w := f.world
	switch k {
	case ChangeLeader, KillLeader, KillCoordinator, PauseLeader, ChangeWhileDeciding:
		f.troubleCoordinators(k)
		return
	case KillCluster:
		f.killCluster()
		return
	case FailCode:
		w.flaky = max(w.flaky, 1) // two failures at one place would end the job
		return
	}
	sound := f.sound()
	if len(sound) == 0 {
		return
	}
	p := sound[w.rng.IntN(len(sound))]
	if k&linkFaults != 0 {
		f.troubleLink(k, p, sound[w.rng.IntN(len(sound))])
		return
	}
	f.troubleWorker(k, p, sound)
}

func (f *faults) troubleWorker(k FaultKind, p *process, sound []*process) {
	w := f.world
	switch k {
	case KillWorker:
		w.kill(p)
	case KillSeveral:
		for range 2 + w.rng.IntN(2) {
			f.killOne()
		}
	case KillAll:
		for _, p := range sound {
			w.kill(p)
		}
	case KillTask:
		f.killTask()
	case KillRecovering:
		f.killRecovering()
	case KillSaving:
		f.saving = true
	case Suspect:
		w.suspect(p)
	case Pause:
		p.pausedUntil = w.step + w.rng.IntN(1500)
		w.trace("worker %d pauses until %d", p.id, p.pausedUntil)
	case Freeze:
		w.suspect(p)
		p.pausedUntil = p.detectAt + w.rng.IntN(2500)
		p.cutOffUntil = p.pausedUntil + w.rng.IntN(300)
		w.trace("worker %d is frozen until %d", p.id, p.pausedUntil)
	case FailDisk:
		p.dir.failing = 1 + w.rng.IntN(3)
		w.trace("directory %d takes no images, %d times", p.dir.number, p.dir.failing)
	case SlowDisk:
		p.diskUntil = w.step + w.rng.IntN(2000)
		w.trace("the disk of worker %d is slow until %d", p.id, p.diskUntil)
	case BreakStore:
		f.store = 1 + w.rng.IntN(2)
	case BreakSession:
		p.cutOffUntil = w.step + w.rng.IntN(600)
		w.trace("worker %d reaches no coordinator until %d", p.id, p.cutOffUntil)
		p.hangUp()
	case Join:
		f.join(p)
	}
}

// troubleLink breaks the connection of two workers. BreakLink: both directions at once, by a fault that lasts a while.
// CutLink: one direction alone. LoseLink: it is not made again before one of the two was declared dead, which lives.
func (f *faults) troubleLink(k FaultKind, a, b *process) {
	w := f.world
	if a == b || !w.plan.mesh {
		return
	}
	c := w.connection(a.id, b.id)
	c.until = w.step + w.rng.IntN(300)
	switch k {
	case BreakLink:
		w.breakLink(c, -1)
	case CutLink:
		w.breakLink(c, w.rng.IntN(2))
	case LoseLink:
		w.breakLink(c, w.rng.IntN(3)-1)
		c.until = w.step + 5000
		a.suspected = true // although its session is whole
		a.detectAt = w.step + 100 + w.rng.IntN(600)
	}
	w.trace("the link of workers %d and %d breaks until %d", a.id, b.id, c.until)
}

// troubleCoordinators has the coordinator that leads, or any, die, pause, or lead no more.
func (f *faults) troubleCoordinators(k FaultKind) {
	w, m := f.world, f.world.metadata
	r := m.leader()
	if k == KillCoordinator {
		r = m.replicas[w.rng.IntN(len(m.replicas))]
	}
	if r == nil || r.down {
		return
	}
	switch k {
	case ChangeLeader:
		m.depose()
	case KillLeader, KillCoordinator:
		r.die()
	case PauseLeader:
		r.pausedUntil = w.step + 100 + w.rng.IntN(600)
		r.staleUntil = r.pausedUntil + w.rng.IntN(200)
		m.electAt = w.step + w.rng.IntN(150)
		m.endReign()
		w.trace("coordinator %d pauses until %d", r.number, r.pausedUntil)
	case ChangeWhileDeciding:
		m.deciding = true
	}
}

// killCluster kills everything at once. What is on disks remains.
func (f *faults) killCluster() {
	w := f.world
	w.trace("the whole cluster dies")
	for _, p := range w.processes {
		w.kill(p)
	}
	for _, r := range w.metadata.replicas {
		if !r.down {
			r.die()
		}
	}
}

// join has a worker join with an empty directory. Sometimes a worker dies and its directory is back much later only: with
// an old state, or the only one.
func (f *faults) join(p *process) {
	w := f.world
	if w.chance(2) {
		w.kill(p)
		last := &f.restarts[len(f.restarts)-1]
		last.at += w.rng.IntN(4000)
	}
	if len(w.dirs) < maxDirs {
		w.dirs = append(w.dirs, newDir(w, len(w.dirs)))
		f.restarts = append(f.restarts, restart{w.dirs[len(w.dirs)-1], w.step + w.tail()})
	}
}

// sound lists the workers that are neither dead nor thought so.
func (f *faults) sound() []*process {
	var list []*process
	for _, p := range f.world.processes {
		if p.sound() && !p.suspected {
			list = append(list, p)
		}
	}
	return list
}

func (f *faults) killOne() {
	if sound := f.sound(); len(sound) > 0 {
		f.world.kill(sound[f.world.rng.IntN(len(sound))])
	}
}

// killSaving kills a worker while a checkpoint is under way: soon, when one has prepared a transaction, and otherwise any at some time.
func (f *faults) killSaving() bool {
	w := f.world
	patience := 30
	for t, s := range w.held {
		if s == nil {
			continue
		}
		if patience = 300; len(s.undecided()) == 0 {
			continue
		}
		if p := w.process(w.metadata.places[t].Worker); p != nil && p.sound() && !p.suspected && w.chance(4) {
			w.trace("task %d has prepared something", t)
			w.kill(p)
			return true
		}
	}
	if !w.chance(patience) {
		return false
	}
	f.killOne()
	return true
}

func (f *faults) killTask() {
	for range 10 {
		t := determinant.TaskID(f.world.rng.IntN(len(f.world.job.Tasks)))
		if f.world.killTask(t) {
			return
		}
	}
}

func (f *faults) killRecovering() {
	w := f.world
	for _, place := range w.metadata.places {
		if p := w.process(place.Worker); place.Recovering && p != nil && p.sound() && w.chance(2) {
			w.trace("of task %d, which recovers", place.Task)
			w.kill(p)
			return
		}
	}
	f.killOne()
}

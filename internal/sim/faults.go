package sim

import (
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// FaultKind is a set of kinds of faults.
type FaultKind uint32

// The kinds of faults.
const (
	KillWorker     FaultKind = 1 << iota // one process dies
	KillSeveral                          // two or three at once
	KillAll                              // all of them
	KillTask                             // one task dies and its worker lives
	KillRecovering                       // the worker of a task that recovers
	KillSaving                           // a worker, while a checkpoint is under way
	Suspect                              // a worker is declared dead and goes on for a while
	Pause                                // a worker does nothing for a while
	BreakLink                            // the stream between two workers breaks
	FailDisk                             // images cannot be written
	SlowDisk                             // nothing is written for a while
	BreakStore                           // a sink's store is interrupted in the middle of a write
	ChangeLeader                         // another coordinator takes over, with what the ledger says
	endOfKinds
	AllKinds = endOfKinds - 1
)

// faults makes trouble at steps that the seed chose.
type faults struct {
	world    *World
	due      []int // steps, rising
	last     int   // step of the last trouble
	saving   bool  // kill when a checkpoint is next under way
	restarts []restart
	relinks  []relink
	down     map[pair]int // no message is written before this step
	ends     map[*process]int
	store    int // so many store writes will break off
}

// restart starts a new process on a directory.
type restart struct {
	dir *dir
	at  int
}

// relink tells one end of a broken stream that it is whole again.
type relink struct {
	process *process
	peer    determinant.WorkerID
	at      int
}

func newFaults(w *World) faults {
	f := faults{world: w, down: map[pair]int{}, ends: map[*process]int{}}
	n := w.opts.Faults
	if n == 0 {
		n = w.rng.IntN(7)
	}
	span := 500 + w.rng.IntN(6000)
	for range max(n, 0) {
		at := 100 + w.rng.IntN(span)
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
		return 0
	}
	return f.world.step - f.last
}

// active tells whether trouble is under way or to come.
func (f *faults) active() bool {
	return len(f.due)+len(f.restarts)+len(f.relinks)+len(f.ends) > 0 || f.saving || f.world.opts.Script != nil
}

func (f *faults) isDown(a, b determinant.WorkerID) bool { return f.down[pair{a, b}] > f.world.step }

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
	if f.saving && w.metadata.saving && w.chance(30) {
		f.saving = false
		f.killOne()
	}
	if w.opts.Script != nil && w.opts.Script(w) {
		w.opts.Script = nil
		f.last = w.step
	}
	f.recover()
}

// recover restarts processes, re-makes links and ends zombies.
func (f *faults) recover() {
	w := f.world
	for i := 0; i < len(f.restarts); i++ {
		if r := f.restarts[i]; r.at <= w.step {
			f.restarts = slices.Delete(f.restarts, i, i+1)
			i--
			f.last = w.step
			if p := w.startProcess(r.dir); p != nil {
				w.metadata.coordinator.Join(p.id, p.worker.Holdings())
			}
		}
	}
	for i := 0; i < len(f.relinks); i++ {
		r := f.relinks[i]
		if r.at > w.step {
			continue
		}
		f.relinks = slices.Delete(f.relinks, i, i+1)
		i--
		f.last = w.step
		delete(r.process.unlinked, r.peer)
		if r.process.alive {
			r.process.worker.Relink(r.peer)
		}
	}
	for _, p := range w.processes {
		if end, ok := f.ends[p]; ok && (end <= w.step || !p.alive) {
			delete(f.ends, p)
			w.kill(p)
		}
	}
}

// strike makes one fault of a kind that the seed picks among those allowed.
func (f *faults) strike() {
	w := f.world
	kinds := w.opts.Kinds
	if kinds == 0 {
		kinds = AllKinds
	}
	var choice []FaultKind
	for k := KillWorker; k < endOfKinds; k <<= 1 {
		if kinds&k != 0 {
			choice = append(choice, k)
		}
	}
	w.result.Faults++
	f.last = w.step
	f.do(choice[w.rng.IntN(len(choice))])
}

func (f *faults) do(k FaultKind) {
	w := f.world
	sound := f.sound()
	if len(sound) == 0 {
		return
	}
	p := sound[w.rng.IntN(len(sound))]
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
	case BreakLink:
		f.breakLink(p, sound[w.rng.IntN(len(sound))])
	case FailDisk:
		p.dir.failing = 1 + w.rng.IntN(3)
		w.trace("directory %d takes no images, %d times", p.dir.number, p.dir.failing)
	case SlowDisk:
		p.diskUntil = w.step + w.rng.IntN(2000)
		w.trace("the disk of worker %d is slow until %d", p.id, p.diskUntil)
	case ChangeLeader:
		w.metadata.changeLeader()
	case BreakStore:
		f.store = 1 + w.rng.IntN(2)
	}
}

// sound lists the processes that are neither dead nor thought so.
func (f *faults) sound() []*process {
	var list []*process
	for _, p := range f.world.processes {
		if p.sound() {
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

// breakLink loses what is under way between two workers in both directions. Each end learns of it, and of the new stream, in
// its own time.
func (f *faults) breakLink(a, b *process) {
	w := f.world
	if a == b {
		return
	}
	until := w.step + w.rng.IntN(300)
	w.trace("the link of workers %d and %d breaks until %d", a.id, b.id, until)
	f.relinks = slices.DeleteFunc(f.relinks, func(r relink) bool {
		return r.process == a && r.peer == b.id || r.process == b && r.peer == a.id
	})
	for _, end := range [][2]*process{{a, b}, {b, a}} {
		at := pair{end[0].id, end[1].id}
		w.link(at).queue = nil
		f.down[at] = until
		end[0].unlinked[end[1].id] = true
		f.relinks = append(f.relinks, relink{end[0], end[1].id, until + w.rng.IntN(40)})
	}
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
	w.faults.ends[p] = p.detectAt + w.rng.IntN(1500)
	w.faults.last = w.step
	w.trace("worker %d is suspected, and goes on until %d", p.id, w.faults.ends[p])
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

package sim

import (
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// process is one start of a worker. It is the worker's Environment: it queues what the worker wants done, and the scheduler
// does it when the seed says so.
type process struct {
	world    *World
	id       determinant.WorkerID // 0 until the ledger has admitted it
	instance string
	dir      *dir
	worker   *cluster.Worker // nil until it has been welcomed
	state    *checkpoint.Store
	session  *session // nil: it looks for a leader
	skew     int64    // of its clock, milliseconds

	alive       bool
	suspected   bool // is to be declared dead although it is alive
	detectAt    int  // step at which its death, or silence, is noticed
	cutOffUntil int  // it reaches no coordinator before this step
	pausedUntil int
	diskUntil   int
	diskBusy    bool // a disk job is under way: the world goes on in the middle of it

	inbox []arrival // entries of the ledger, in order
	disk  []diskJob // run in order, except for neighbours that may be run beside one another
	jobs  []func()  // run in any order
	calls []call

	index      uint64 // of the last entry applied
	generation determinant.Generation
	dead       []determinant.WorkerID // as of that entry
	planted    *plantedPair
}

// call is an external call under way.
type call struct {
	do   task.Call
	done func([]byte, error)
}

// startProcess starts a worker's process on a directory. It asks a coordinator for a place.
func (w *World) startProcess(d *dir) *process {
	w.started++
	p := &process{world: w, instance: fmt.Sprintf("process %d", w.started), dir: d, alive: true, skew: w.rng.Int64N(200)}
	d.user = p
	w.processes = append(w.processes, p)
	return p
}

// open builds the worker on what the ledger says. It knows everything up to now and is sent every entry from now on.
func (p *process) open(id determinant.WorkerID, view cluster.View) bool {
	w, d := p.world, p.dir
	var err error
	p.state, err = checkpoint.OpenStore("worker", checkpoint.StoreOptions{FS: d.open(), Identity: "sim", Mutations: w.opts.Mutations})
	if err != nil {
		w.violate("store-open", "directory %d: %v", d.number, err)
		return false
	}
	mutations := w.opts.Mutations
	if id%3 != 1 {
		mutations &^= mutation.FenceMissingAtWorker // missing at one, here and there
	}
	p.id, p.index, p.generation, p.dead = id, view.Index, view.Generation, view.Dead
	p.worker = cluster.NewWorker(id, w.job, view, p, cluster.Options{
		Clock: func() int64 { return w.now + p.skew }, Entropy: w.rng.Uint64, State: p.state,
		Calls:  func(determinant.TaskID) task.Calls { return p },
		Budget: w.newBudget(), LogBudget: w.plan.logBudget, DeadLetter: w.deadLetter(), OpenSink: w.openSink,
		OpenTransactions: p.openTransactions,
		Window:           w.plan.window, MaxElements: w.plan.elements, MaxUnsent: w.plan.unsent, Slice: w.plan.slice,
		StandbyMemory: w.standbyMemory(), AllWarm: true, Cleaning: w.cleaning(),
		Pick: w.rng.IntN, Probe: &probe{p}, Mutations: mutations,
	})
	if w.opts.Interleave {
		p.worker.Logs().Between = p.plant
	}
	w.trace("worker %d starts as %s on directory %d at entry %d, holds %v", id, p.instance, d.number, p.index, p.worker.Holdings())
	for _, q := range w.ready() {
		w.connection(p.id, q.id)
	}
	return true
}

// cleaning has tasks write again what does not change, however little there is: in four of eight runs, and in all in which much is cold.
func (w *World) cleaning() operator.Cleaning {
	switch {
	case w.opts.Cold:
		return operator.Cleaning{From: 1, To: 1}
	case w.opts.Seed/4%2 == 1:
		return operator.Cleaning{From: 1}
	}
	return operator.Cleaning{}
}

// standbyMemory has standbys hold all state ready in every other run, in half of those with little room.
func (w *World) standbyMemory() int64 { return []int64{0, 1 << 30, 0, 1500}[w.opts.Seed%4] }

func (w *World) openSink(t determinant.TaskID) (operator.CausalStore, error) { return w.stores[t], nil }

// Start implements task.Calls: the call runs, and is answered, in a later step.
func (p *process) Start(do task.Call, done func([]byte, error)) {
	p.calls = append(p.calls, call{do, done})
}

// WakeTask, WakeLink and WakeSink implement cluster.Environment. The scheduler tries everything anyway.
func (p *process) WakeTask(determinant.TaskID) {}

// WakeLink is part of cluster.Environment.
func (p *process) WakeLink(determinant.WorkerID) {}

// WakeSink is part of cluster.Environment.
func (p *process) WakeSink(determinant.TaskID) {}

// Hold is part of cluster.Environment.
func (p *process) Hold(determinant.TaskID) bool { return p.world.chance(4) }

// Tell is part of cluster.Environment.
func (p *process) Tell(to determinant.WorkerID, c cluster.Control) {
	p.world.letters = append(p.world.letters, &letter{p.id, to, c, p.world.step + p.world.tail()})
}

// Report is part of cluster.Environment.
func (p *process) Report(r cluster.Report) {
	p.world.checkReport(p, &r)
	p.tellLeader(&notice{report: r})
}

// Disk is part of cluster.Environment.
func (p *process) Disk(job func()) { p.disk = append(p.disk, diskJob{run: job}) }

// DiskBeside is part of cluster.Environment.
func (p *process) DiskBeside(job func()) { p.disk = append(p.disk, diskJob{run: job, beside: true}) }

// Background is part of cluster.Environment.
func (p *process) Background(job func()) { p.jobs = append(p.jobs, job) }

// Observe is part of cluster.Environment.
func (p *process) Observe(o cluster.Observation) {
	if o.Phase != cluster.Written && o.Phase != cluster.Suppressed {
		p.world.trace("worker %d: task %d #%d %v, %d bytes", p.id, o.Task, o.Incarnation, o.Phase, o.Bytes)
	}
	if o.Phase == cluster.Restored {
		p.world.history.restored(p, o.Task, o.Incarnation)
		if o.Bytes > 0 {
			p.world.result.Warm++
		}
	}
}

// applyNext hands the worker the next entry that has arrived.
func (p *process) applyNext() {
	w := p.world
	if p.worker == nil && w.chance(100) {
		p.hangUp() // it has waited long enough
	}
	if p.worker == nil || len(p.inbox) == 0 || p.inbox[0].ready > w.step {
		return
	}
	e := carry(w, p.inbox[0].entry)
	p.inbox = p.inbox[1:]
	if e.Index <= p.index {
		return // told by a former coordinator
	}
	if e.Index != p.index+1 {
		w.violate("session", "worker %d has applied %d entries and is sent entry %d", p.id, p.index, e.Index)
		return
	}
	if e.Decision != nil && slices.Contains(e.Decision.Dead, p.id) {
		w.trace("worker %d learns that it was declared dead", p.id)
		w.kill(p)
		return
	}
	p.worker.Apply(e)
	p.index = e.Index
	if e.Decision != nil {
		p.generation, p.dead = e.Decision.Generation, e.Decision.Dead
	}
}

// declared tells whether the ledger says that the process is dead.
func (p *process) declared() bool { return p.id != 0 && slices.Contains(p.world.metadata.dead, p.id) }

// sound tells whether what the process does counts: it lives, and the ledger does not say otherwise.
func (p *process) sound() bool { return p.alive && p.worker != nil && !p.declared() }

// shut closes what a test must not leak.
func (p *process) shut() {
	if p.alive {
		p.alive = false
		p.hangUp()
		if p.worker == nil {
			return
		}
		if err := p.worker.Close(); err != nil {
			panic(err)
		}
	}
	if p.state != nil {
		if err := p.state.Close(); err != nil {
			p.world.trace("closing the store of worker %d: %v", p.id, err)
		}
		p.state = nil
	}
}

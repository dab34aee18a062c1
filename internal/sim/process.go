package sim

import (
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// process is one start of a worker. It is the worker's Environment: it queues what the worker wants done, and the scheduler
// does it when the seed says so.
type process struct {
	world  *World
	id     determinant.WorkerID
	dir    *dir
	worker *cluster.Worker
	state  *checkpoint.Store
	skew   int64 // of its clock, milliseconds

	alive       bool
	suspected   bool // cut off from the coordinator, which will declare it dead
	pausedUntil int
	diskUntil   int
	detectAt    int // step at which its death, or silence, is noticed

	inbox []arrival // entries of the ledger, in order
	disk  []func()  // run in order
	jobs  []func()  // run in any order
	calls []call

	index      uint64 // of the last entry applied
	generation determinant.Generation
	planted    *plantedPair
	unlinked   map[determinant.WorkerID]bool // peers to which the stream broke, until Relink
}

// arrival is an entry on its way.
type arrival struct {
	entry cluster.Entry
	ready int
}

// call is an external call under way.
type call struct {
	do   task.Call
	done func([]byte, error)
}

// startProcess starts a worker on a directory. It knows everything up to now and will be sent every entry from now on.
func (w *World) startProcess(d *dir) *process {
	state, err := checkpoint.OpenStore("worker", checkpoint.StoreOptions{FS: d.open(), Identity: "sim", Mutations: w.opts.Mutations})
	if err != nil {
		w.violate("store-open", "directory %d: %v", d.number, err)
		return nil
	}
	w.metadata.lastWorker++
	p := &process{
		world: w, id: w.metadata.lastWorker, dir: d, state: state, alive: true, skew: w.rng.Int64N(200),
		unlinked: map[determinant.WorkerID]bool{},
	}
	d.user = p
	mutations := w.opts.Mutations
	if p.id%3 != 1 {
		mutations &^= mutation.FenceMissingAtWorker // missing at one, here and there
	}
	view := w.metadata.coordinator.View()
	p.index, p.generation = view.Index, view.Generation
	p.worker = cluster.NewWorker(p.id, w.job, view, p, cluster.Options{
		Clock: func() int64 { return w.now + p.skew }, Entropy: w.rng.Uint64, State: state,
		Calls:  func(determinant.TaskID) task.Calls { return p },
		Budget: inflightlog.NewBudget(1<<30, 0, 1<<30, nil), OpenSink: w.openSink,
		Window: w.plan.window, MaxElements: w.plan.elements, MaxUnsent: w.plan.unsent, Slice: w.plan.slice,
		Pick: w.rng.IntN, Probe: &probe{p}, Mutations: mutations,
	})
	if w.opts.Interleave {
		p.worker.Logs().Between = p.plant
	}
	w.processes = append(w.processes, p)
	w.trace("worker %d starts on directory %d, holds %v", p.id, d.number, p.worker.Holdings())
	return p
}

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

// Tell is part of cluster.Environment.
func (p *process) Tell(to determinant.WorkerID, m cluster.Control) {
	p.world.control = append(p.world.control, &letter{from: p.id, to: to, control: m, ready: p.world.step + p.world.tail()})
}

// Report is part of cluster.Environment.
func (p *process) Report(r cluster.Report) {
	p.world.checkReport(p, &r)
	p.world.reports = append(p.world.reports, &letter{from: p.id, report: r, ready: p.world.step + p.world.tail()})
}

// Disk is part of cluster.Environment.
func (p *process) Disk(job func()) { p.disk = append(p.disk, job) }

// Background is part of cluster.Environment.
func (p *process) Background(job func()) { p.jobs = append(p.jobs, job) }

// Observe is part of cluster.Environment.
func (p *process) Observe(o cluster.Observation) {
	if o.Phase != cluster.Written && o.Phase != cluster.Suppressed {
		p.world.trace("worker %d: task %d #%d %v, %d bytes", p.id, o.Task, o.Incarnation, o.Phase, o.Bytes)
	}
	if o.Phase == cluster.Restored {
		p.world.history.restored(p, o.Task, o.Incarnation)
	}
}

// applyNext hands the worker the next entry that has arrived.
func (p *process) applyNext() {
	if len(p.inbox) == 0 || p.inbox[0].ready > p.world.step {
		return
	}
	e := p.inbox[0].entry
	p.inbox = p.inbox[1:]
	if e.Decision != nil && slices.Contains(e.Decision.Dead, p.id) {
		p.world.trace("worker %d learns that it was declared dead", p.id)
		p.world.kill(p)
		return
	}
	p.worker.Apply(e)
	p.index = e.Index
	if e.Decision != nil {
		p.generation = e.Decision.Generation
	}
}

// declared tells whether the ledger says that the process is dead.
func (p *process) declared() bool { return slices.Contains(p.world.metadata.dead, p.id) }

// sound tells whether what the process does counts: it lives, and nobody thinks otherwise.
func (p *process) sound() bool { return p.alive && !p.suspected && !p.declared() }

// shut closes what a test must not leak.
func (p *process) shut() {
	if p.alive {
		p.alive = false
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

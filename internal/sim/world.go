package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// Options say which run it is. The zero value, but for the seed, is an exactly-once job with faults.
type Options struct {
	Seed     uint64
	Shape    string // a job's name; empty: the seed chooses
	Mode     determinant.Mode
	Depth    determinant.Depth // 0: full
	Workers  int               // 0: the seed chooses
	Standbys int               // per task; 0: the seed chooses
	Faults   int               // 0: the seed chooses; negative: none
	Kinds    FaultKind         // which faults; 0: all
	Switches int               // changes of mode and depth that are asked for
	Drains   int               // workers that are drained for maintenance
	Balance  int64             // after so many virtual milliseconds without failures tasks move to even them out; 0: never
	// Transactional is how many in a hundred sinks are transactional.
	Transactional int
	// Growing is how many in a hundred sources get splits while the job runs.
	Growing int
	// Cold has many keys and many checkpoints, so that little of the state changes from one to the next, and the rest is written again.
	Cold      bool
	Mutations mutation.Set
	Trace     io.Writer // nil: no trace
	// Script, if set, runs after every step instead of the seed's faults, until it returns true.
	Script func(w *World) (done bool)
	// NoCheckpoints leaves out the periodic checkpoints. The job cannot end; the run ends when the script is done and Settle
	// steps have passed.
	NoCheckpoints bool
	// Patience is how many steps a job may take to end after the last fault. 0: a great many.
	Patience int
	Settle   int
	// Interleave plants determinants between the captures of a delta: see plant. The run ends with the first message that
	// they were planted for.
	Interleave bool
}

// Result is what a run did.
type Result struct {
	Shape       string
	Steps       int
	Faults      int
	Decisions   int
	Rollbacks   int
	Checkpoints int
	Elections   int // of coordinators
	Relinks     int // streams that an end began
	Zombies     int // messages of workers that were declared dead, at workers that knew
	Refused     int // writes of such workers' tasks to a store
	Asides      int // records set aside
	Spills      int // files of spilled batches
	Gates       int // checkpoints that workers asked for to free memory
	Lines       int // visible records at the end
	Drained     int // workers that were drained
	Moved       int // tasks that were handed over without a failure
	Warm        int // tasks that took over state that was held ready
	Released    int // standbys that were taken away from tasks that had others
	Switches    int // epochs of another mode or depth than the one before
	Loose       int // tasks that were recovered without determinants
	Committed   int // transactions that became visible
	Aborted     int // transactions that were dropped
	Grown       int // splits that appeared while the job ran
	Violation   *Violation
}

func (r *Result) add(o Result) {
	r.Steps += o.Steps
	r.Faults += o.Faults
	r.Decisions += o.Decisions
	r.Rollbacks += o.Rollbacks
	r.Checkpoints += o.Checkpoints
	r.Elections += o.Elections
	r.Relinks += o.Relinks
	r.Zombies += o.Zombies
	r.Refused += o.Refused
	r.Asides += o.Asides
	r.Spills += o.Spills
	r.Gates += o.Gates
	r.Lines += o.Lines
	r.Drained += o.Drained
	r.Moved += o.Moved
	r.Warm += o.Warm
	r.Released += o.Released
	r.Switches += o.Switches
	r.Loose += o.Loose
	r.Committed += o.Committed
	r.Aborted += o.Aborted
	r.Grown += o.Grown
}

// String gives the counts.
func (r Result) String() string {
	return fmt.Sprintf("%d steps, %d faults, %d decisions, %d rollbacks, %d checkpoints, %d elections, %d streams begun anew, "+
		"%d messages and %d writes of zombies, %d records set aside, %d files spilled, %d checkpoints for memory, "+
		"%d transactions committed, %d aborted, %d splits added, %d tasks took over state held ready, %d visible records",
		r.Steps, r.Faults, r.Decisions, r.Rollbacks, r.Checkpoints, r.Elections, r.Relinks, r.Zombies, r.Refused, r.Asides, r.Spills, r.Gates,
		r.Committed, r.Aborted, r.Grown, r.Warm, r.Lines)
}

// Violation is a broken promise.
type Violation struct {
	Checker string // which one saw it
	Step    int
	Text    string
}

// Error says what was broken.
func (v *Violation) Error() string {
	return fmt.Sprintf("%s at step %d: %s", v.Checker, v.Step, v.Text)
}

// plan is what the seed fixed before the run began.
type plan struct {
	records  int   // about so many per source task
	dry      int   // a reader has a record in one of so many attempts
	interval int64 // of checkpoints, virtual milliseconds
	timeout  int64
	standbys int
	elements int
	unsent   int
	window   int
	slice    int
	haste    int // of the network: messages are delayed in one of so many cases
	disk     int // weight of disk jobs: low is a slow disk

	coordinators int
	mesh         bool  // workers have connections that are made, and can break
	encoded      bool  // what crosses a process's border is encoded
	memory       int64 // bytes of sent output kept in memory, the rest is spilled; 0: no bound
	spill        int64 // bytes of it kept on disk
	logBudget    int64 // bytes of determinants; 0: no bound
	poison       int   // user code fails on one of so many records; 0: on none
}

// World is one run.
type World struct {
	opts Options
	plan plan
	rng  *rand.Rand
	step int
	now  int64

	job    *cluster.Job
	want   []uint64     // ids that must be visible
	stores []*store     // by task; nil where there is no causal sink
	held   []*heldStore // by task; nil where there is no transactional sink

	processes   []*process // by the order of their start
	started     int        // processes so far
	dirs        []*dir
	connections map[pair]*connection
	pairs       []pair        // the keys of connections, in the order of their making
	unsettled   []*connection // that are about to be noticed as broken, or made again
	letters     []*letter     // between workers
	orders      []*order      // from coordinators to workers
	notices     []*notice     // from workers to coordinators
	metadata    *metadata
	faults      faults
	drains      *drains
	modes       *modes
	growth      *growth
	history     *history
	checks      checks
	aside       []uint64 // ids of records that were set aside
	flaky       int      // 1: the next call of user code that can fail does; 2: it did

	writing *process // whose sink is being written
	inside  bool     // a store's Write lets the world go on
	over    bool
	result  Result
	err     error // of the job
}

// Run runs one world to its end.
func Run(o Options) Result {
	w := newWorld(o)
	defer w.close()
	w.run()
	w.result.Steps = w.step
	if w.result.Violation == nil && !o.NoCheckpoints {
		w.checkEnd()
	}
	for t := range w.job.Tasks {
		w.result.Lines += len(w.visible(t))
	}
	return w.result
}

// run makes steps until the job is over or something is broken. A panic in the engine is an assertion that fails.
func (w *World) run() {
	defer func() {
		if r := recover(); r != nil {
			w.violate("panic", "%v\n%s", r, debug.Stack())
			for _, p := range w.processes {
				p.alive = false // it may have died with a lock held: it cannot even be closed
			}
		}
	}()
	w.start()
	for !w.over && w.result.Violation == nil {
		w.tick()
	}
}

func newWorld(o Options) *World {
	if o.Depth == 0 {
		o.Depth = determinant.Full
	}
	if o.Patience == 0 {
		o.Patience = patience
	}
	w := &World{opts: o, rng: rand.New(rand.NewPCG(o.Seed, 20240711)), now: epoch, connections: map[pair]*connection{}}
	w.plan = w.makePlan()
	w.makeCluster()
	if o.Standbys != 0 {
		w.plan.standbys = o.Standbys
	}
	s := shapes[w.rng.IntN(len(shapes))]
	if o.Shape != "" {
		s = shapeOf(o.Shape)
	}
	w.result.Shape = s.name
	w.growth = newGrowth(w)
	b := &jobBuilder{world: w, job: operator.NewJob(s.name), transactions: w.stream("transactions")}
	s.build(b)
	plan, err := b.job.Plan(1)
	if err != nil {
		panic(err)
	}
	if w.job, err = cluster.Layout(plan); err != nil {
		panic(err)
	}
	w.want = b.want
	w.stores = make([]*store, len(w.job.Tasks))
	for _, t := range w.job.Topology.Sinks {
		w.stores[t] = newStore(w, w.job.Tasks[t].Info.Vertex, t)
	}
	w.held = newHeldStores(w)
	w.history = newHistory(w)
	w.checks = newChecks(w)
	w.modes = newModes(w)
	w.metadata = newMetadata(w)
	return w
}

func (w *World) makePlan() plan {
	r := w.rng
	pick := func(n ...int) int { return n[r.IntN(len(n))] }
	p := plan{
		records: 20 + r.IntN(60), dry: pick(3, 10, 30),
		interval: int64(pick(5, 15, 40)), timeout: int64(pick(300, 3000)),
		standbys: pick(1, 1, 1, 2, -1),
		elements: pick(1, 2, 4, 8, 4096), unsent: pick(1, 40, 400, 1<<20), window: pick(1, 60, 600, 1<<20),
		slice: pick(0, 1, 1, 2, 3), haste: pick(2, 4, 20), disk: pick(4, 8, 16),
	}
	if w.opts.Cold {
		p.interval, p.records, p.disk = 2, 2*p.records, 16
	}
	return p
}

// keys is how many keys the records have.
func (w *World) keys() uint64 {
	if w.opts.Cold {
		return 40
	}
	return 8
}

// makeCluster fixes what kind of cluster it is, by a stream of its own.
func (w *World) makeCluster() {
	r := w.stream("cluster")
	pick := func(n ...int) int { return n[r.IntN(len(n))] }
	p := &w.plan
	p.coordinators = pick(1, 3, 3)
	p.mesh = r.IntN(4) > 0
	p.encoded = r.IntN(4) == 0
	if r.IntN(4) == 0 {
		p.memory, p.spill = int64(pick(1, 500, 2000)), int64(pick(10_000, 1<<30))
	}
	if r.IntN(6) == 0 {
		p.logBudget = int64(pick(1000, 3000))
	}
	if r.IntN(6) == 0 && w.allowed(Poison) {
		p.poison = 41
	}
}

// stream gives random numbers that depend on the seed and on what they are for alone: what is new in the simulator draws
// from one of its own, and seeds go on doing what they did.
func (w *World) stream(name string) *rand.Rand {
	return rand.New(rand.NewPCG(w.opts.Seed, xxhash.Sum64String(name)))
}

// start opens the first workers. The job is deployed when they have joined.
func (w *World) start() {
	n := w.opts.Workers
	if n == 0 {
		n = 3 + w.rng.IntN(3)
	}
	w.metadata.workers = n
	for range n {
		w.dirs = append(w.dirs, newDir(w, len(w.dirs)))
	}
	w.faults = newFaults(w)
	w.drains = newDrains(w)
	for _, d := range w.dirs {
		w.startProcess(d)
	}
}

func (w *World) close() {
	for _, p := range w.processes {
		p.shut()
	}
}

// chance is true once in n times.
func (w *World) chance(n int) bool { return w.rng.IntN(n) == 0 }

// tail is a delay in steps: mostly none, sometimes long.
func (w *World) tail() int {
	switch {
	case !w.chance(w.plan.haste):
		return 0
	case !w.chance(6):
		return w.rng.IntN(60)
	}
	return w.rng.IntN(800)
}

func (w *World) mutated(m mutation.Set) bool { return w.opts.Mutations.Has(m) }

// causal tells whether the job logs determinants, at least in some of its epochs.
func (w *World) causal() bool { return w.opts.Mode == determinant.ExactlyOnce || w.opts.Switches > 0 }

// strict tells whether the job must not roll back now.
func (w *World) strict() bool { return w.modes.strict() }

func (w *World) trace(format string, args ...any) {
	if w.opts.Trace != nil {
		fmt.Fprintf(w.opts.Trace, "%6d %5d  %s\n", w.step, w.now-epoch, fmt.Sprintf(format, args...))
	}
}

// violate notes the first broken promise; the run ends there.
func (w *World) violate(checker, format string, args ...any) {
	if w.result.Violation == nil {
		w.result.Violation = &Violation{Checker: checker, Step: w.step, Text: fmt.Sprintf(format, args...)}
		w.trace("VIOLATION %v", w.result.Violation)
	}
}

func (w *World) storeOf(name string, index int) *store {
	for t, s := range w.stores {
		if s != nil && s.name == name && w.job.Tasks[t].Info.Index == index {
			return s
		}
	}
	panic(fmt.Sprintf("sim: no store %s[%d]", name, index))
}

// process finds a live worker by its id; nil if it is gone.
func (w *World) process(id determinant.WorkerID) *process {
	i := slices.IndexFunc(w.processes, func(p *process) bool { return p.id == id && p.alive && p.worker != nil })
	if i < 0 {
		return nil
	}
	return w.processes[i]
}

// ready lists the workers that live, those that pause among them.
func (w *World) ready() []*process {
	var list []*process
	for _, p := range w.processes {
		if p.alive && p.worker != nil {
			list = append(list, p)
		}
	}
	return list
}

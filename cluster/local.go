package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

// Defaults of LocalOptions.
const (
	DefaultWorkers            = 3
	DefaultCheckpointInterval = time.Second
	DefaultInflightMemory     = 256 << 20
	DefaultInflightDisk       = 4 << 30
	DefaultInflightReserve    = 64 << 20
	DefaultLogBudget          = 64 << 20
	tick                      = 10 * time.Millisecond
)

// LocalOptions are those of a job that runs in one process, on workers that share nothing but the process.
type LocalOptions struct {
	Workers            int
	Mode               determinant.Mode
	Depth              determinant.Depth // 0: full
	Auto               bool              // choose the least depth that covers the loss of one worker
	Standbys           int               // per task; 0: one; negative: none
	CheckpointInterval time.Duration
	CheckpointTimeout  time.Duration
	BalanceAfter       time.Duration // without trouble, before tasks move to workers that have fewer; 0: standby.DefaultBalanceAfter; negative: never
	StateDir           string        // empty: in memory, gone with the process
	InflightMemory     int64         // bytes per worker of output kept for replay in memory
	InflightDisk       int64         // bytes per worker of it spilled to disk
	InflightReserve    int64         // bytes beyond both, for what is under way when the sources stop
	LogBudget          int64         // bytes per worker of determinants
	StandbyMemory      int64         // bytes per worker of state held ready for other workers' tasks; negative: none
	PoisonTries        int
	DeadLetter         func(task.Poison) error
	Clock              func() int64
	Logger             *slog.Logger
	Chaos              *Chaos
	Progress           func(Progress)
	Started            func(*Local)       // called when every worker has joined, with the run that goes on meanwhile
	Checkpointed       func(Checkpointed) // called with each checkpoint that is completed; must not block
	Mutations          mutation.Set
}

func (o *LocalOptions) ensureDefaults() {
	if o.Workers == 0 {
		o.Workers = DefaultWorkers
	}
	if o.Depth == 0 {
		o.Depth = determinant.Full
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = DefaultCheckpointInterval
	}
	if o.CheckpointTimeout == 0 {
		o.CheckpointTimeout = max(30*time.Second, 10*o.CheckpointInterval)
	}
	if o.BalanceAfter < 0 {
		o.BalanceAfter = -time.Millisecond // the Decider counts in milliseconds
	}
	o.StandbyMemory = standbyMemory(o.StandbyMemory)
	if o.InflightMemory == 0 {
		o.InflightMemory = DefaultInflightMemory
	}
	if o.InflightDisk == 0 {
		o.InflightDisk = DefaultInflightDisk
	}
	if o.InflightReserve == 0 {
		o.InflightReserve = DefaultInflightReserve
	}
	if o.LogBudget == 0 {
		o.LogBudget = DefaultLogBudget
	}
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixMilli() }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Local runs a job in this process.
type Local struct {
	job    *Job
	opts   LocalOptions
	ledger *localLedger
	coord  *Coordinator // only on the events goroutine
	sizes  checkpointSizes
	events *mailbox
	stats  *stats
	fs     checkpoint.FS

	finished chan struct{}
	once     sync.Once
	result   error
	resumed  bool
	complete bool         // when it was opened
	drifts   bool         // sources are to stay together in event time
	waiting  atomic.Value // string
	outside  outside

	ctx          context.Context // ends when the run does
	cancel       context.CancelFunc
	listing      sync.WaitGroup           // of splits
	undiscovered atomic.Pointer[[]string] // which sources cannot tell whether they have new splits

	mu struct {
		sync.RWMutex
		workers []*localWorker // by directory
		nextID  determinant.WorkerID
	}
}

// RunLocal runs a job until all its input is processed, it fails, or ctx ends. A job that was stopped goes on from its state
// directory when it is run again.
func RunLocal(ctx context.Context, plan *operator.Plan, o LocalOptions) (Summary, error) {
	o.ensureDefaults()
	job, err := Layout(plan)
	if err != nil {
		return Summary{}, err
	}
	l := &Local{job: job, opts: o, finished: make(chan struct{}), stats: newStats(len(job.Tasks))}
	l.drifts = slices.ContainsFunc(plan.Vertices, func(v operator.Vertex) bool { return v.MaxDrift > 0 })
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if err := l.open(ctx); err != nil {
		return Summary{}, errors.Join(err, l.close())
	}
	if !l.complete {
		if o.Started != nil {
			o.Started(l)
		}
		err = l.run(ctx)
	}
	if cerr := l.close(); err == nil {
		err = cerr
	}
	sum := l.stats.summary(l.job)
	sum.Resumed, sum.Complete = l.resumed, l.complete
	return sum, err
}

// open reads or makes the ledger, and starts coordinator and workers.
func (l *Local) open(ctx context.Context) error {
	l.fs = checkpoint.OSFS()
	if l.opts.StateDir == "" {
		l.fs = checkpoint.MemoryFS()
	}
	if l.opts.Auto {
		l.opts.Depth = autoDepth(l.job, l.opts.Standbys, l.opts.Workers)
	}
	var err error
	l.ledger, err = openLedger(ctx, l.fs, l.opts.StateDir, l.job, l.opts.Mode, l.opts.Depth)
	if err != nil {
		return err
	}
	for i := range l.job.Plan.Vertices {
		if identify := l.job.Plan.Vertices[i].Identify; identify != nil {
			if err := identify(l.ledger.state.name()); err != nil {
				return err
			}
		}
	}
	l.events = newMailbox()
	l.ledger.committed = func(e Entry) { l.coord.Committed(e) }
	s := &l.ledger.state
	l.resumed = s.View.Index > 0
	if s.Finished != nil {
		if err := checkInput(ctx, l.job, s.View.Splits); err != nil {
			return err
		}
		l.complete = true
		l.finish(nil)
		return nil
	}
	if l.resumed {
		warnOfInput(ctx, l.job, s.View.Splits, l.opts.Logger)
	}
	c := NewCoordinator(l.job, s.View, s.Recovery, s.Points, l.ledger, (*localCoordinator)(l), CoordinatorOptions{
		Mode: s.View.Mode, Depth: s.View.Depth, Standbys: l.opts.Standbys,
		Interval: l.opts.CheckpointInterval.Milliseconds(), Timeout: l.opts.CheckpointTimeout.Milliseconds(),
		BalanceAfter: l.opts.BalanceAfter.Milliseconds(),
		PoisonTries:  l.opts.PoisonTries, SetAside: l.opts.DeadLetter != nil, Mutations: l.opts.Mutations,
	})
	l.coord = c
	l.ledger.current = func() ledgerState {
		now := *s
		now.View, now.Recovery, now.Points = c.View(), c.decider.State(), c.points.State()
		if c.finished && !c.failed {
			now.Finished = &Finish{Epoch: now.Points.Committed}
		}
		return now
	}
	l.mu.nextID = s.lastWorker() + 1
	former := c.decider.Live()
	l.mu.workers = make([]*localWorker, l.opts.Workers)
	started := make(chan error, 1)
	l.do(func() { started <- l.deploy(former) })
	return <-started
}

// autoDepth is the least depth that covers the loss of any one of n workers where the tasks are first placed. Later placements
// may need more; then the job rolls back.
func autoDepth(job *Job, standbys, n int) determinant.Depth {
	d := standby.NewDecider(standby.Config{Topology: job.Topology, Standbys: standbys}, standby.State{})
	for i := range n {
		d.Step(standby.Joined{Worker: determinant.WorkerID(i + 1)})
	}
	d.Step(standby.Leader{})
	place := make([]determinant.WorkerID, len(job.Tasks))
	for _, effect := range d.Step(standby.Deploy{}) {
		if p, ok := effect.(standby.Propose); ok {
			if decision, ok := p.Command.(standby.Decision); ok {
				for t, placement := range decision.Tasks {
					place[t] = placement.Worker
				}
			}
		}
	}
	return standby.AutoDepth(job.Topology, place, 1)
}

// deploy starts the workers and, of a job that ran before, declares its former ones dead.
func (l *Local) deploy(former []determinant.WorkerID) error {
	for dir := range l.mu.workers {
		if _, err := l.startWorker(dir); err != nil {
			return err
		}
	}
	l.coord.Lead()
	if err := l.goOn(); err != nil {
		return err
	}
	for _, w := range l.mu.workers {
		l.coord.Join(w.worker.ID(), w.worker.Holdings())
	}
	if len(former) > 0 {
		l.coord.Dead(former...)
	} else {
		l.coord.Deploy()
	}
	return nil
}

// do runs f on the coordinator's goroutine, and then commits what it proposed.
func (l *Local) do(f func()) {
	l.events.post(func() {
		if l.ledger.broken != nil {
			return // the job is over
		}
		f()
		if err := l.ledger.flush(); err != nil {
			l.finish(fmt.Errorf("cluster: ledger: %w", err))
		}
	})
}

func (l *Local) report(from determinant.WorkerID, r Report) {
	if r.Failed != nil {
		l.stats.noticed(r.Failed.Task, time.Now())
		if !errors.Is(r.Failed.Err, ErrKilled) {
			l.opts.Logger.Warn("a task failed", "task", r.Failed.Task, "worker", from, "error", r.Failed.Err)
		}
	}
	if r.AckFailed != nil {
		l.opts.Logger.Warn("a checkpoint cannot be stored", "task", r.AckFailed.Task, "epoch", r.AckFailed.Epoch, "worker", from, "error", r.AckFailed.Err)
	}
	if r.Rollback != nil {
		l.opts.Logger.Warn("a rollback is needed", "task", r.Rollback.Task, "worker", from, "cause", r.Rollback.Cause)
	}
	l.do(func() {
		if r.Ack != nil {
			l.sizes.ack(r.Ack)
		}
		l.coord.Report(r)
	})
}

func (l *Local) log(what string, err error) { l.opts.Logger.Warn(what, "error", err) }

// InflightBytes is what the workers keep of sent output, in memory and spilled to disk; the greatest of all workers.
func (l *Local) InflightBytes() (memory, disk int64) {
	for _, w := range l.workers() {
		if w != nil {
			m, d := w.worker.opts.Budget.Used()
			memory, disk = max(memory, m), max(disk, d)
		}
	}
	return memory, disk
}

// Checkpoint asks for a checkpoint now. Of one that is under way, it asks for another behind it; it does not wait.
func (l *Local) Checkpoint() { l.do(func() { l.coord.Report(Report{Checkpoint: true}) }) }

// LogBytes is what the workers hold of determinant logs; the greatest of all workers.
func (l *Local) LogBytes() (most int64) {
	for _, w := range l.workers() {
		if w != nil {
			most = max(most, w.worker.Logs().Bytes())
		}
	}
	return most
}

// worker finds a live worker.
func (l *Local) worker(id determinant.WorkerID) *localWorker {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, w := range l.mu.workers {
		if w != nil && w.worker.ID() == id {
			return w
		}
	}
	return nil
}

func (l *Local) workers() []*localWorker {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Clone(l.mu.workers)
}

// startWorker starts a new worker on a state directory. It runs on the coordinator's goroutine, so that the worker misses no
// entry.
func (l *Local) startWorker(dir int) (*localWorker, error) {
	path := filepath.Join(l.opts.StateDir, fmt.Sprintf("worker-%d", dir))
	state, err := checkpoint.OpenStore(path, checkpoint.StoreOptions{
		FS: l.fs, Identity: l.ledger.state.name(), Mutations: l.opts.Mutations,
	})
	if err != nil {
		return nil, err
	}
	budget := inflightlog.NewBudget(l.opts.InflightMemory, 0, l.opts.InflightReserve, nil)
	if l.opts.StateDir != "" {
		files, err := inflightlog.OSFiles(filepath.Join(path, "inflight"))
		if err != nil {
			return nil, errors.Join(err, state.Close())
		}
		budget = inflightlog.NewBudget(l.opts.InflightMemory, l.opts.InflightDisk, l.opts.InflightReserve, files)
	}
	lw := &localWorker{driver: newDriver(len(l.job.Tasks), l.opts.Clock, l.log), local: l, dir: dir}
	lw.links.wake = map[determinant.WorkerID]chan struct{}{}
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.mu.nextID
	l.mu.nextID++
	lw.worker = NewWorker(id, l.job, l.coord.View(), lw, Options{
		Context: lw.ctx, Clock: l.opts.Clock, Entropy: entropy, State: state, Budget: budget, DeadLetter: l.opts.DeadLetter,
		Calls:    func(t determinant.TaskID) task.Calls { return &calls{driver: lw.driver, task: t} },
		OpenSink: l.job.openSink, OpenTransactions: l.job.openTransactions, LogBudget: l.opts.LogBudget,
		StandbyMemory: l.opts.StandbyMemory, Mutations: l.opts.Mutations,
	})
	l.mu.workers[dir] = lw
	return lw, nil
}

// run ticks until the job is over or ctx ends.
func (l *Local) run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	stopChaos := l.startChaos(ctx)
	defer stopChaos()
	var shown time.Time
	for {
		select {
		case <-l.finished:
			return l.result
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-ticker.C:
			l.do(l.tick)
			if now.Sub(shown) <= 250*time.Millisecond {
				continue
			}
			shown = now
			l.lookOutside()
			if l.opts.Progress != nil {
				l.opts.Progress(l.stats.progress(l))
			}
		}
	}
}

// tick lets the coordinator see the time.
func (l *Local) tick() {
	l.coord.Tick(l.opts.Clock())
	l.align()
	why := l.coord.Undiscovered()
	l.undiscovered.Store(&why)
}

func (l *Local) finish(err error) {
	l.once.Do(func() {
		l.result = err
		close(l.finished)
	})
}

// close stops everything. The ledger and the state directories stay as they are, so that the job can go on from there.
func (l *Local) close() error {
	l.cancel()
	if l.ledger == nil {
		return nil // it was never opened
	}
	l.stats.freeze(l)
	if l.events != nil {
		l.events.close()
	}
	l.listing.Wait()
	var errs []error
	for _, w := range l.workers() {
		if w != nil {
			errs = append(errs, w.kill())
		}
	}
	return errors.Join(append(errs, l.ledger.close())...)
}

// localCoordinator is the coordinator's environment in one process.
type localCoordinator Local

// Broadcast delivers an entry to every worker, in order.
func (lc *localCoordinator) Broadcast(e Entry) {
	l := (*Local)(lc)
	now := time.Now()
	l.stats.entry(&e, now)
	if taken, ok := l.sizes.entry(&e, now); ok && l.opts.Checkpointed != nil {
		l.opts.Checkpointed(taken)
	}
	if e.Decision != nil {
		l.opts.Logger.Info("decision", "what", e.Decision.String())
	}
	if e.Grow != nil {
		l.opts.Logger.Info("new splits", "what", e.Grow.String())
	}
	for _, w := range l.workers() {
		if w != nil {
			w.control.post(func() { w.worker.Apply(e) })
		}
	}
}

// Tell delivers a control message.
func (lc *localCoordinator) Tell(to determinant.WorkerID, m Control) {
	l := (*Local)(lc)
	if w := l.worker(to); w != nil {
		w.control.post(func() { w.worker.Control(m) })
	}
}

// Finished ends the run.
func (lc *localCoordinator) Finished(err error) { (*Local)(lc).finish(err) }

// Waiting notes why something does not go on.
func (lc *localCoordinator) Waiting(why string) {
	l := (*Local)(lc)
	l.waiting.Store(why)
	if why == "" {
		return
	}
	l.opts.Logger.Warn("waiting", "why", why)
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
	"github.com/understudy-stream/understudy/transport"
)

// Bounds of a worker. Each is the default of the option of that name.
const (
	DefaultWindow  = 128 << 10 // bytes that may be sent on a channel and not yet taken
	framesPerWrite = 64
	bytesPerWrite  = 1 << 20
	bytesPerStore  = 256 << 10
	maxEarly       = 4096 // messages of a generation that this worker has not reached yet
)

// Environment is the world that a worker lives in. Its methods do not block and may be called with the worker locked.
type Environment interface {
	// WakeTask, WakeLink and WakeSink say that the task may have something to do, that a message to peer may be ready, and that
	// the sink task's store may be written.
	WakeTask(t determinant.TaskID)
	WakeLink(peer determinant.WorkerID)
	WakeSink(t determinant.TaskID)
	// Hold is asked when a task has nothing to do but to seal what it has put out: whether it keeps that for a moment, and is stepped
	// again then, since more may come.
	Hold(t determinant.TaskID) bool
	// Tell delivers a control message to a worker that may be this one, once, in any order, unless either dies.
	Tell(to determinant.WorkerID, m Control)
	// Report delivers an event to the coordinator.
	Report(e Report)
	// Disk runs jobs that read and write the worker's state directory, one after the other in order. DiskBeside runs one in that order
	// too, except that several which follow one another may run at once, and in any order. Background runs a job at any time.
	Disk(job func())
	DiskBeside(job func())
	Background(job func())
	// Observe is told what happens, for metrics, logs and tests.
	Observe(o Observation)
}

// Options are a worker's.
type Options struct {
	Context          context.Context // of synchronous external calls; nil: never ends
	Clock            func() int64    // milliseconds since the Unix epoch
	Entropy          func() uint64   // seeds for user randomness
	Calls            func(t determinant.TaskID) task.Calls
	State            *checkpoint.Store
	Budget           *inflightlog.Budget
	DeadLetter       func(task.Poison) error // nil: no record is ever set aside
	OpenSink         func(t determinant.TaskID) (operator.CausalStore, error)
	OpenTransactions func(t determinant.TaskID) (operator.TransactionalStore, error) // may be nil if no sink is transactional
	Window           int
	MaxElements      int
	MaxUnsent        int
	LogBudget        int64             // bytes of determinants beyond which sources stop; 0 means no bound
	StandbyMemory    int64             // bytes of state that is held ready for tasks that this worker is a standby of; 0: none is
	Cleaning         operator.Cleaning // only the simulator sets it
	AllWarm          bool              // it holds all state ready, also what is not worth it. Only the simulator sets it
	Slice            int
	Pick             func(n int) int
	Probe            task.Probe // nil outside the simulator
	Mutations        mutation.Set

	refused *refusals // counted over all lives of a process; nil: of this worker alone
}

// Worker hosts tasks and standbys. Its methods may be called from any goroutine.
type Worker struct {
	id   determinant.WorkerID
	job  *Job
	env  Environment
	opts Options

	tasks    []atomic.Pointer[hosted] // by task; what runs here
	places   []atomic.Uint64          // by task; the worker that runs it, for wake-ups
	consumer []atomic.Uint64          // by channel; the worker that has subscribed to it

	ended     atomic.Bool                   // it was closed
	committed atomic.Uint64                 // epoch of the last completed checkpoint
	asked     atomic.Uint64                 // epoch whose checkpoint was asked for to free memory
	lost      atomic.Int64                  // when it heard that a task was lost that is not back yet, in milliseconds; 0: none is
	alignment atomic.Pointer[slowestSource] // nil: it has heard of none
	said      said
	refused   *refusals

	stores struct { // taken before mu
		sync.Mutex
		closed bool
		open   map[determinant.TaskID]operator.CausalStore
		held   map[determinant.TaskID]operator.TransactionalStore
	}
	warm    warmStates                        // taken after mu
	folded  determinant.Epoch                 // the last checkpoint that fold has committed. Of the disk jobs that run alone
	owed    []owing                           // likewise
	outside []atomic.Pointer[operator.Waiter] // by task; its store, once that is open, if it can tell why it waits

	mu struct {
		sync.Mutex
		closed    bool
		view      View
		logs      *causal.Store
		conns     map[determinant.WorkerID]*conn
		subs      []subscription                // by channel whose producer is here
		promos    []*promotion                  // by task
		fallen    []determinant.Incarnation     // by task; the last that died here. Invariant: it is never started again
		early     []*transport.Message          // of a generation that this worker has not reached yet
		answers   []*Answer                     // of rounds that this worker has not reached yet
		asked     map[determinant.TaskID]asking // what this worker has asked for, as a standby, and not got yet
		untold    map[determinant.TaskID]bool   // tasks that this worker is to stand by for and has not yet reported the state of
		waiting   [][]byte                      // images whose base has not been committed here yet
		abandoned determinant.Epoch             // the last checkpoint that was, as far as known here
		startedAt int64                         // when the newest checkpoint was started, as far as known here; milliseconds
		images    []Control                     // likewise, of a generation that this worker has not reached yet
		postpone  [][]byte                      // deltas that the mutation DeltaMergedLate holds back
	}
}

// conn is the link to one peer, as the writing end sees it.
type conn struct {
	ready  bool                     // the peer has said what it holds
	cursor []determinant.LogOffset  // by task: what the peer holds or was sent
	subs   []transport.Subscription // to be sent
	report bool                     // say with the next message what this worker holds
	order  []determinant.TaskID     // logs that the peer's tasks may depend on, downstream first
	depth  determinant.Depth        // within so many hops
	stale  bool                     // order must be computed again
}

// refusals count what fences kept out.
type refusals struct {
	messages, frames atomic.Uint64 // of dead workers or former generations; of former lives or subscriptions
	writes           atomic.Uint64 // to a sink whose store others have fenced meanwhile
	connections      atomic.Uint64 // of dead workers; counted by the process
}

// buried tells whether a worker was declared dead.
func (w *Worker) buried(id determinant.WorkerID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.view.dead(id)
}

// subscription is a consumer's wish for a channel that is produced here.
type subscription struct {
	active             bool
	attached           bool // the producing task is here and its log knows of the consumer
	worker             determinant.WorkerID
	number             uint64
	producer, consumer determinant.Incarnation
	cursor             determinant.Cursor
	adopt              bool
}

// NewWorker returns a worker that knows the job and what the ledger says so far. The caller then feeds it every further
// entry, in order, through Apply.
func NewWorker(id determinant.WorkerID, job *Job, v View, env Environment, o Options) *Worker {
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	if o.refused == nil {
		o.refused = &refusals{}
	}
	n := len(job.Tasks)
	w := &Worker{
		id: id, job: job, env: env, opts: o, refused: o.refused,
		tasks: make([]atomic.Pointer[hosted], n), outside: make([]atomic.Pointer[operator.Waiter], n), places: make([]atomic.Uint64, n),
		consumer: make([]atomic.Uint64, len(job.Channels)), said: said{tasks: make([]lastWords, n)},
	}
	w.warm.states, w.warm.refused = map[determinant.TaskID]*warmState{}, map[determinant.TaskID]warmRefusal{}
	w.mu.view = v.clone()
	w.mu.logs = causal.NewStore(n)
	w.mu.conns = map[determinant.WorkerID]*conn{}
	w.mu.subs = make([]subscription, len(job.Channels))
	w.mu.promos = make([]*promotion, n)
	w.mu.asked, w.mu.untold = map[determinant.TaskID]asking{}, map[determinant.TaskID]bool{}
	w.folded = v.committed()
	w.mu.fallen = make([]determinant.Incarnation, n)
	w.stores.open = map[determinant.TaskID]operator.CausalStore{}
	w.stores.held = map[determinant.TaskID]operator.TransactionalStore{}
	w.committed.Store(uint64(w.mu.view.committed()))
	if v.Complete != nil {
		for _, t := range v.Complete.Tasks {
			w.mu.logs.Reset(t.Task, t.Log)
		}
	}
	for t, p := range w.mu.view.Places {
		w.places[t].Store(uint64(p.Worker))
	}
	return w
}

// ID is the worker's id.
func (w *Worker) ID() determinant.WorkerID { return w.id }

// Holdings lists the committed state that the worker's directory holds, for its report when it joins. A checkpoint that was
// completed while nobody had the directory open is folded first: its images may be here and nowhere else.
func (w *Worker) Holdings() []standby.Held {
	w.mu.Lock()
	complete := w.mu.view.Complete
	w.mu.Unlock()
	if complete != nil {
		if err := w.opts.State.Commit(complete.Epoch, livesOf(complete)); err != nil {
			w.diskFailed(err) // what is listed is what is held
		}
	}
	var held []standby.Held
	for _, h := range w.opts.State.Holdings() {
		held = append(held, standby.Held{Task: h.Task, Epoch: h.Epoch})
	}
	return held
}

// Close drops everything that the worker hosts. Nothing that it has under way becomes visible any more.
func (w *Worker) Close() error {
	w.ended.Store(true)
	w.mu.Lock()
	w.mu.closed = true
	for t := range w.tasks {
		w.evict(determinant.TaskID(t))
	}
	w.mu.Unlock()
	w.stores.Lock()
	open, held := w.stores.open, w.stores.held
	w.stores.open, w.stores.held, w.stores.closed = nil, nil, true
	w.stores.Unlock()
	var errs []error
	for _, s := range open { //lint:sorted closing order does not matter
		errs = append(errs, s.Close())
	}
	for _, s := range held { //lint:sorted closing order does not matter
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Kill drops one task as if it had died alone, and says so to the coordinator. It returns false if the task is not here.
func (w *Worker) Kill(t determinant.TaskID, cause string) bool {
	w.mu.Lock()
	h := w.tasks[t].Load()
	if h != nil {
		w.evict(t)
	}
	w.mu.Unlock()
	if h == nil {
		return false
	}
	w.report(Report{Failed: &TaskFailure{Task: t, Incarnation: h.inc, Worker: w.id, Err: fmt.Errorf("%w: %s", ErrKilled, cause)}})
	return true
}

// Task is the task t if it runs here. Tests and drivers look at it; only Step may step it.
func (w *Worker) Task(t determinant.TaskID) *task.Task {
	if h := w.tasks[t].Load(); h != nil {
		return h.task
	}
	return nil
}

// Logs is what the worker knows of all determinant logs.
func (w *Worker) Logs() *causal.Store { return w.mu.logs }

// conn is the link to a peer; nil if the peer is dead. w.mu is held.
func (w *Worker) conn(peer determinant.WorkerID) *conn {
	if w.mu.view.dead(peer) {
		return nil
	}
	c := w.mu.conns[peer]
	if c == nil {
		c = &conn{ready: peer == w.id, stale: true}
		w.mu.conns[peer] = c
	}
	return c
}

// Relink says that the stream to and from peer broke and is whole again: what was under way is lost. The consumer's side
// subscribes again where it stands, the producer's side waits to hear what the peer holds.
func (w *Worker) Relink(peer determinant.WorkerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed || w.mu.view.dead(peer) || peer == w.id {
		return
	}
	former := w.mu.conns[peer]
	delete(w.mu.conns, peer)
	if former != nil && w.opts.Mutations.Has(mutation.RelinkKeepsCursor) {
		w.mu.conns[peer] = &conn{ready: former.ready, cursor: former.cursor, stale: true}
	}
	for c := range w.mu.subs {
		if s := &w.mu.subs[c]; s.active && s.worker == peer {
			w.unsubscribe(determinant.ChannelID(c))
		}
	}
	for t := range w.tasks {
		h := w.tasks[t].Load()
		if h == nil {
			continue
		}
		for i := range h.in {
			if w.mu.view.Places[w.job.Channels[h.in[i].channel].From].Worker == peer {
				w.subscribe(h, i, false)
			}
		}
	}
	if c := w.conn(peer); c != nil {
		c.report = true
	}
	w.env.WakeLink(peer)
}

// gated tells whether sources must wait because what is kept until the next checkpoint has outgrown its budget. It asks for
// that checkpoint, once.
func (w *Worker) gated() bool {
	over := w.opts.LogBudget > 0 && w.mu.logs.Bytes() > w.opts.LogBudget
	if !over && (w.opts.Budget == nil || !w.opts.Budget.Full()) {
		return false
	}
	if next := w.committed.Load() + 1; w.asked.Swap(next) != next {
		w.report(Report{Checkpoint: true})
	}
	return true
}

package task

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// Bounds on what one step may take and what may wait to be sent. Each is a default for the Config field of that name.
const (
	DefaultMaxElements = 4096
	DefaultMaxUnsent   = 256 << 10
	// joined is from how many elements on a step takes no further batch. What a step puts out is mostly sealed at its end, and timers and
	// answers wait for that: it must not take long where user code does.
	joined = 256
	// sealEvery is how many steps an output may hold elements back while the task has other things to do.
	sealEvery = 16
)

// Input describes one input channel of a task.
type Input struct {
	Channel determinant.ChannelID
	Logical int // logical input of the chain
}

// Config is what a worker gives a task to live on.
type Config struct {
	ID          determinant.TaskID
	Incarnation determinant.Incarnation
	Info        operator.TaskInfo
	Inputs      []Input
	Edges       [][]determinant.ChannelID // per outgoing edge, its channels
	External    bool                      // has a sink: one more output channel, the last
	ExternalID  determinant.ChannelID
	New         func(operator.Runtime) (operator.Chain, error)
	Splits      Splits // of a source

	Mode  determinant.Mode  // of the epoch after the restored checkpoint
	Depth determinant.Depth // likewise
	Meta  checkpoint.Meta   // the restored checkpoint; epoch 0 for a first start
	Load  func(load func(table string, key, value []byte) error) error
	State *operator.Resident // what Load would load, in its place; nil: it is loaded. The task has it from then on
	// Log is the task's own log in the worker's store. It already holds Replay. That of a life which begins without the
	// determinants of the former one is empty and begins beyond Meta.Log (determinant.LogOffset.Anew).
	Log *causal.Log
	// Passed is the last epoch that others may have passed because of a former life whose choices this one does not repeat. Up
	// to there no backlog of a consumer holds the task: the consumer may wait for a barrier that this task has yet to repeat.
	Passed determinant.Epoch
	Replay []byte   // the merged log from Meta.Log on; empty for a first start, after a rollback and without determinants
	SkipAt []Poison // records to set aside, by the poison policy

	Context     context.Context // of synchronous external calls; ends when nothing that the task does counts any more
	Clock       func() int64    // milliseconds since the Unix epoch
	Entropy     func() uint64   // seeds
	Calls       Calls
	Budget      *inflightlog.Budget // may be nil
	Hold        func() bool         // a task with nothing else to do keeps what it has put out, for now: it is stepped again soon; may be nil
	Gated       func() bool         // sources wait while it is true: what is kept has outgrown its budget; may be nil
	Allow       func(limit int) int // how many records a source may give now; 0: it is stepped again soon; nil: limit
	Host        Host
	MaxElements int
	MaxUnsent   int
	Cleaning    operator.Cleaning
	// Slice bounds how many elements one call of Step processes; 0 means no bound. Only the simulator sets it.
	Slice int
	// Pick chooses among n ready inputs; nil means round robin.
	Pick      func(n int) int
	Probe     Probe // nil outside the simulator
	Mutations mutation.Set
}

// Host is the worker, as a task sees it. Its methods are called on the task's goroutine and must not wait for a peer.
type Host interface {
	// Snapshot takes over the task's state at a barrier.
	Snapshot(t *Task, s Snapshot)
	// Sealed says that output channel c has a batch to send.
	Sealed(c determinant.ChannelID, b *inflightlog.Batch)
	// Taken says that the task has taken all elements of input channel c below next, with so many bytes since it said so last.
	Taken(c determinant.ChannelID, next determinant.Seq, bytes int)
	// Replayed says that the replayed log has ended and the task makes its own choices again.
	Replayed(t *Task)
	// SetAside stores a poisoned record; the task goes on only when it returns nil.
	SetAside(t *Task, p Poison) error
}

// Calls runs external calls outside the task's goroutine.
type Calls interface {
	// Start runs do and then calls done, on any goroutine. It must not call done before it returns.
	Start(do Call, done func(result []byte, err error))
}

// Snapshot is a task's state at a barrier. The frozen tables may be encoded on any goroutine.
type Snapshot struct {
	Meta checkpoint.Meta
	operator.Freezes
}

// Errors of Step that a worker branches on. After any error the task is dead: Step must not be called again.
var (
	// ErrOrphan means that a consumer has seen output whose determinants were lost (the orphan rule).
	ErrOrphan = errors.New("task: a consumer is ahead of what the replayed log explains")
	// ErrUnskippable means that a poisoned record cannot be set aside because others already depend on its choices.
	ErrUnskippable = errors.New("task: the poisoned record cannot be set aside")
	// ErrReopened means that a producer starts again although the task has ended: in at-least-once mode the task must, too.
	ErrReopened = errors.New("task: a producer starts again after the end of all inputs")
	// ErrExhausted means that even the reserve of the in-flight log's budget is used up.
	ErrExhausted = errors.New("task: the in-flight log's reserve is used up")
)

// Task is one life of one parallel instance of a vertex.
type Task struct {
	cfg     Config
	chain   operator.Chain
	source  operator.SourceHead
	splits  atomic.Pointer[Splits] // of a source. What it points to does not change
	tables  []operator.Table
	freezer *operator.Freezer

	in       []*input
	foreseen [][]byte           // payloads of the records that the chain knows of
	usable   uint64             // how many records it is worth to foresee; see foresight
	outs     []*inflightlog.Log // channels of all edges in order, then the external one
	outputs  []*output
	ext      *output

	recorder causal.Choices   // nil while replaying. Invariant: a causal.Recorder in an epoch that logs, else a causal.Unlogged
	replayer *causal.Replayer // nil when recording. Invariant: nil in an epoch that does not log

	epoch    determinant.Epoch // Invariant: rises by one at each barrier or skip
	mode     determinant.Mode
	depth    determinant.Depth
	lastTime int64 // Invariant: never falls
	inWM     int64
	idle     bool
	rand     *rand.Rand // of this epoch; nil until first used
	step     step
	steps    uint64
	robin    int
	unsealed int // steps since the outputs were last sealed
	sealed   bool
	slowed   bool // a source that may give nothing now
	ending   bool
	ended    bool
	done     bool // after a fatal error

	triggers  triggers
	abandoned atomic.Uint64 // the last epoch of which the task was told that its checkpoint is
	completed atomic.Uint64 // the last checkpoint of which the task was told that it is complete
	async     async
	makeTime  func() determinant.Determinant
	makeSeed  func() determinant.Determinant
	through   func() bool // committed

	taken    uint64        // records, since the job's start
	records  atomic.Uint64 // taken, a few elements ago, readable from anywhere
	replays  atomic.Bool
	progress atomic.Uint64 // step count, readable from anywhere
	sharing  atomic.Uint32 // depth, readable from anywhere
}

// step is the step under way.
type step struct {
	kind   determinant.Kind
	active bool
	input  int
	left   uint64
	now    int64
	hasNow bool
	aside  bool // the next record of the source is set aside
}

// New builds a task from a restored checkpoint. It does not run anything that needs a choice.
func New(cfg Config) (*Task, error) {
	if cfg.MaxElements == 0 {
		cfg.MaxElements = DefaultMaxElements
	}
	if cfg.Context == nil {
		cfg.Context = context.Background()
	}
	if cfg.MaxUnsent == 0 {
		cfg.MaxUnsent = DefaultMaxUnsent
	}
	t := &Task{
		cfg: cfg, epoch: cfg.Meta.Epoch + 1, mode: cfg.Mode, depth: cfg.Depth,
		lastTime: cfg.Meta.Time, inWM: operator.MinTime, ended: cfg.Meta.Ended,
	}
	t.makeTime = t.chooseTime
	t.makeSeed = t.chooseSeed
	t.through = t.committed
	t.taken = cfg.Meta.Records
	t.records.Store(t.taken)
	t.sharing.Store(uint32(cfg.Depth))
	t.splits.Store(&t.cfg.Splits)
	if cfg.Meta.Epoch > 0 {
		t.inWM = cfg.Meta.Watermark
	}
	t.openInputs()
	t.openOutputs()
	t.openChoices()
	if err := t.openChain(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Task) openChoices() {
	if !t.logs(t.mode) {
		t.recorder = &causal.Unlogged{At: t.cfg.Log.End()}
		return
	}
	r := causal.NewReplayer(t.cfg.Log.End()-determinant.LogOffset(len(t.cfg.Replay)), t.cfg.Replay)
	if !r.Done() {
		t.replayer = r
		t.replays.Store(true)
		return
	}
	t.recorder = t.newRecorder(r)
}

func (t *Task) openChain() error {
	chain, err := t.cfg.New(t)
	if err != nil {
		return fmt.Errorf("task: %s: %w", t, err)
	}
	t.chain, t.source, t.tables = chain, chain.Source(), chain.Tables()
	if err := t.restore(); err != nil {
		return err
	}
	if err := chain.Restored(); err != nil {
		return fmt.Errorf("task: %s: %w", t, err)
	}
	t.freezer = operator.NewFreezer(t.tables, t.cfg.Cleaning)
	if t.source != nil && t.cfg.Meta.Epoch > 0 {
		t.idle = t.cfg.Splits.Grows && t.source.Open() == 0 // as was said before the barrier
	}
	return nil
}

// restore gives the tables what the checkpoint has.
func (t *Task) restore() error {
	byID := make(map[string]operator.Table, len(t.tables))
	for _, table := range t.tables {
		byID[table.ID()] = table
	}
	find := func(id string) (operator.Table, error) {
		if table := byID[id]; table != nil {
			return table, nil
		}
		return nil, fmt.Errorf("task: %s: the checkpoint has state %q, which the job does not define", t, id)
	}
	if state := t.cfg.State; state != nil {
		t.cfg.State = nil
		for _, id := range state.Tables() {
			table, err := find(id)
			if err == nil {
				err = state.Restore(table)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if t.cfg.Load == nil {
		return nil
	}
	return t.cfg.Load(func(id string, key, value []byte) error {
		table, err := find(id)
		if err != nil {
			return err
		}
		return table.Load(key, value)
	})
}

// String names the task as "vertex[index]".
func (t *Task) String() string { return fmt.Sprintf("%s[%d]", t.cfg.Info.Vertex, t.cfg.Info.Index) }

// ID is the task's id.
func (t *Task) ID() determinant.TaskID { return t.cfg.ID }

// Incarnation is which life of the task this is.
func (t *Task) Incarnation() determinant.Incarnation { return t.cfg.Incarnation }

// Records is how many records the task has taken since the job's start. Any goroutine.
func (t *Task) Records() uint64 { return t.records.Load() }

// Replaying tells whether the task still replays. Any goroutine.
func (t *Task) Replaying() bool { return t.replays.Load() }

// Reached is the least watermark that the task's Timestamps with MaxDrift make; ok is false if none does now. Task's goroutine.
func (t *Task) Reached() (wm int64, ok bool) { return t.chain.Reached() }

// Waiting tells why the task's source waits for its external system; empty if it does not, or is no source. Any goroutine.
func (t *Task) Waiting() string {
	if t.source == nil {
		return ""
	}
	return t.source.Waiting()
}

// Offset is where the task is in its determinant log. Task's goroutine.
func (t *Task) Offset() determinant.LogOffset { return t.current().Offset() }

// Depth is how deep the determinants of the task's present epoch are shared. Any goroutine; it is set before anything of the
// epoch can leave the task.
func (t *Task) Depth() determinant.Depth { return determinant.Depth(t.sharing.Load()) }

// Outputs are the task's output channels, those of each edge in order, then the external one.
func (t *Task) Outputs() []*inflightlog.Log { return t.outs }

// Ahead tells whether a consumer expects more than the task has produced. Task's goroutine or, while it is parked, any.
func (t *Task) Ahead() bool {
	for _, o := range t.outs {
		if o.Ahead() {
			return true
		}
	}
	return false
}

// Ended tells whether the task has ended all its outputs.
func (t *Task) Ended() bool { return t.ended }

// NextTimer is when the task wants to be stepped although nothing arrives; false while it could not fire a timer that is
// due, since it replays, is in the middle of a step or has no room for output. Task's goroutine.
func (t *Task) NextTimer() (int64, bool) {
	if t.step.active || t.replayer != nil && !t.replayer.Done() || t.overBound() {
		return 0, false
	}
	return t.chain.NextTimer()
}

// Ready is a channel that wakes a source which found nothing to read; nil if there is none.
func (t *Task) Ready() <-chan struct{} {
	if t.source == nil {
		return nil
	}
	return t.source.Ready()
}

// Close frees what the task holds outside its memory.
func (t *Task) Close() error {
	var errs []error
	if t.source != nil {
		errs = append(errs, t.source.Close())
	}
	for _, o := range t.outs {
		errs = append(errs, o.Close())
	}
	return errors.Join(errs...)
}

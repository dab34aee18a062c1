package operator

import (
	"context"
	"math"
	"math/rand/v2"
)

// MinTime and MaxTime bound event time, in milliseconds since the Unix epoch. A watermark of MaxTime says that no record
// will come.
const (
	MinTime = math.MinInt64
	MaxTime = math.MaxInt64
)

// Chain is one task's instance of a vertex: operators that call one another directly. The step loop in package task owns
// it; everything runs on the task's goroutine. An error from any method fails the task.
type Chain interface {
	// Record runs one record that arrived on logical input in. payload is valid until Record returns.
	Record(in int, payload []byte, ts int64, hasTime bool) error
	// Foresight is how many records the chain would like to know before they run on logical input in; 0: it makes no difference, or,
	// unless always, not enough.
	Foresight(in int, always bool) int
	// Foresee says which records will run next, on logical input in, no more than Foresight. What it said of that input before holds no more.
	// The payloads stay as they are until the records have run, or until Foresee is called with none, which says that they may not come.
	// Nothing that it does can be seen, except in how fast they run.
	Foresee(in int, payloads [][]byte)
	// Watermark says that the least watermark over all of the task's input channels has risen to wm.
	Watermark(wm int64) error
	// Idle says that all (or no longer all) of the task's input channels are idle.
	Idle(idle bool) error
	// Reached is the least watermark that the chain's Timestamps with MaxDrift make; ok is false if none does now.
	Reached() (wm int64, ok bool)
	// NextTimer is the time of the earliest processing-time timer.
	NextTimer() (t int64, ok bool)
	// ProcessingTime fires every processing-time timer due at or before now, operator by operator, each in (time,
	// registration) order. A timer registered meanwhile waits for a later call.
	ProcessingTime(now int64) error
	// AsyncDone hands the k-th outstanding external call its result. The call is no longer outstanding afterwards.
	AsyncDone(k int, result []byte, failed bool) error
	// Room is how many records the chain can take before an external call completes; -1 means any number.
	Room() int
	// StepEnd is called after the last element of every step, and may emit (a watermark that has risen).
	StepEnd() error
	// Rewind forgets what the present element has left in the chain to be emitted at the step's end: the element has failed, and is set
	// aside.
	Rewind()
	// End says that no record will come on any input. The chain flushes what is open: a watermark of MaxTime, and panes of
	// processing-time windows. Drained then tells when nothing is outstanding, and the task ends its outputs.
	End() error
	Drained() bool
	// Source is the head of a source vertex, otherwise nil.
	Source() SourceHead
	// Tables lists all state of the chain, keyed state, timers, source offsets and operator state alike, in a fixed order.
	Tables() []Table
	// Restored is called once, after every Table has been loaded and before the first element: it rebuilds what is derived
	// and issues outstanding external calls through Runtime.Issue again, in order.
	Restored() error
}

// Table is one named piece of state of one operator: a map from key bytes to value bytes, held typed in memory.
type Table interface {
	// ID is unique within the chain and stable from build to build.
	ID() string
	// Freeze returns what has changed since the last Freeze, or a little more, and goes on at once; it must not cost much more than the
	// changes.
	Freeze() Frozen
	// Load puts one entry back before the task starts. The table must not keep key or value.
	Load(key, value []byte) error
}

// Frozen is the changed part of a Table at a barrier.
type Frozen interface {
	Table() string
	// Whole tells whether its entries are all that the table had at the barrier.
	Whole() bool
	// Entries encodes the entries, off the task's goroutine. key and value are valid until yield returns.
	Entries(yield func(key, value []byte, deleted bool) error) error
}

// Runtime is what the step loop lends to a chain. All methods are for the task's goroutine.
//
// Now, Rand and Call record a determinant, or replay it. When that fails (a divergence, or the task must stop before a new
// choice), they end the step by panicking with a value that only the step loop recovers; operators must not recover it.
type Runtime interface {
	// Task names the task for messages: vertex, index and parallelism.
	Task() TaskInfo
	// Now is the processing time of this step, in milliseconds since the Unix epoch. It never goes back.
	Now() int64
	// Rand is this epoch's generator.
	Rand() *rand.Rand
	// Call makes a synchronous external call and records its answer. While replaying, do is not called.
	Call(requestHash uint64, do func(context.Context) ([]byte, error)) ([]byte, error)
	// Issue starts an external call whose completion arrives through Chain.AsyncDone. While replaying it is only noted, and
	// made when the replayed log has ended without its completion.
	Issue(requestHash uint64, do func(context.Context) ([]byte, error))
	// Output is the i-th outgoing edge of the vertex, in the order of Plan.Edges.
	Output(i int) Output
	// External is the channel to the vertex's sink; nil if it has none.
	External() Output
}

// TaskInfo names a task.
type TaskInfo struct {
	Vertex      string
	Index       int
	Parallelism int
}

// Output is an outgoing edge: one channel to each task of the vertex downstream.
type Output interface {
	// Fanout is the number of channels.
	Fanout() int
	// Record appends a record to channel c, 0 <= c < Fanout. The payload is copied.
	Record(c int, ts int64, hasTime bool, payload []byte)
	// Watermark and Idle go to all channels.
	Watermark(wm int64)
	Idle(idle bool)
}

// SourceHead is the head of a source chain. The step loop decides when it reads; what it read becomes a determinant before
// any of it is emitted.
type SourceHead interface {
	// Add opens the next split from its start; its index is the number of splits added before it. On restore, splits come
	// back with their offsets through Tables instead.
	Add(identity string) error
	// Remove drops a split that has reached its end.
	Remove(split uint32) error
	// Poll looks for records to take and holds them: up to max records of one split. n == 0 and done means that the split is at
	// its end; n == 0 otherwise means that no split has a record now. Polling again without Begin returns the same records.
	Poll(max int) (split uint32, n int, offset uint64, done bool, err error)
	// Begin starts a Source step: the next n records of split up to offset, which were polled, or, while replaying, are read
	// again. An impossible range (the split gives other records than before) is an error.
	Begin(split uint32, n int, offset uint64) error
	// Emit runs the next records of the step through the chain, n of them at most, which must not be more than are left. It calls through
	// after each, stops when that returns false, and returns how many ran. When none did because a replayed record can't be
	// read yet, it returns ErrNotReady. A record that failed is still the next.
	Emit(n int, through func() bool) (ran int, err error)
	// Position is the split and offset of the record that Emit would run next, for error messages and poison records.
	Position() (split uint32, offset uint64)
	// Discard passes over the record that Emit would run next.
	Discard() error
	// Show is the record that Emit would run next, for people to read. It is empty if it is not held.
	Show() []byte
	// Splits is how many splits were added so far, Open how many of them are not removed.
	Splits() int
	Open() int
	// Ready returns a channel that gets a value when records may have arrived for a Poll that found none, or nil if the source is
	// always either ready or done. It may be polled from any goroutine.
	Ready() <-chan struct{}
	// Waiting is what the source's readers say that are Waiters; empty if none waits. It may be called from any goroutine.
	Waiting() string
	Close() error
}

package inflightlog

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// Options say how a log works. The zero value retains nothing and has no limit.
type Options struct {
	// Channel names the channel in errors and file names.
	Channel determinant.ChannelID
	// Retain keeps batches after they were sent, until Truncate. It holds from the start on; Log.Retain changes it.
	Retain bool
	// Budget bounds what is retained, together with all logs that share it. nil means memory without limit.
	Budget *Budget
	// SealBytes is the size at which a batch is sealed. Default 32 KiB.
	SealBytes int
	// SegmentBytes is the size at which a segment file is complete. Default 8 MiB.
	SegmentBytes int64
	// ReadAhead is how many bytes of spilled batches are read at a time, budget permitting. Default 256 KiB.
	ReadAhead int
	// Tag, if set, is called with each batch before anyone else sees it and gives its Tag.
	Tag func(*Log, *Batch) any
	// OnSeal, if set, is called with each batch after Next can return it, on the task's goroutine: the place to wake the
	// consumer's side. It must not append.
	OnSeal func(*Log, *Batch)
	// Mutations switches rules off, in tests.
	Mutations mutation.Set
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.SealBytes == 0 {
		o.SealBytes = 32 << 10
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 8 << 20
	}
	if o.ReadAhead == 0 {
		o.ReadAhead = 256 << 10
	}
	if o.Budget == nil {
		o.Budget = unlimited()
	}
}

// Validate tells what is wrong with the options.
func (o *Options) Validate() error {
	if o.SealBytes < 0 || o.SegmentBytes < 0 || o.ReadAhead < 0 {
		return fmt.Errorf("inflightlog: negative option: seal %d, segment %d, read-ahead %d bytes", o.SealBytes, o.SegmentBytes, o.ReadAhead)
	}
	return nil
}

// BatchOverhead is what a batch costs in memory beside its payload, as the budget counts it.
const BatchOverhead = 256

// Log is one output channel. See the package comment for who may call what.
type Log struct {
	o    Options
	open open // owned by the task's goroutine
	disk writer

	expected   atomic.Uint64 // the consumer's position while it is ahead of what is sealed, else 0
	unsent     atomic.Int64  // what Unsent gives
	excess     atomic.Int64  // what Excess gives
	subscribed atomic.Bool

	mu struct {
		sync.Mutex
		held   entries            // Invariant: the newest ends at end
		end    determinant.Cursor // after the last sealed element
		total  uint64             // bytes sealed since the log was made
		memory int64              // bytes taken from the budget
		disk   int64
		sub    subscription
		dead   []*segment // to be removed once the mutex is free
		closed bool
	}
}

// NewLog makes the log of a channel whose producer starts at that position: Origin, or the channel's output position in the
// checkpoint that the producer was restored from. It panics on options that do not validate and on epoch 0.
func NewLog(start determinant.Cursor, o Options) *Log {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		panic(err)
	}
	assert(start.Epoch > 0, "channel %d starts in epoch 0: the first epoch is 1", o.Channel)
	l := &Log{o: o, open: open{at: start, first: start, retain: o.Retain}}
	l.mu.end = start
	return l
}

// publish makes a sealed batch part of the log.
func (l *Log) publish(b *Batch, retain bool) {
	l.mu.Lock()
	assert(!l.mu.closed, "channel %d: append to a closed log", l.o.Channel)
	assert(b.Start == l.mu.end, "channel %d: batch at %v appended at %v", l.o.Channel, b.Start, l.mu.end)
	l.mu.held.push(entry{batch: b, bytes: len(b.Payload), at: l.mu.total, retain: retain})
	l.mu.total += uint64(len(b.Payload))
	l.mu.end = b.End
	l.mu.sub.debt -= min(l.mu.sub.debt, uint64(len(b.Payload)/debtShare))
	l.meet(b)
	l.dropSent()
	l.countUnsent()
	l.unlock()
	if l.o.OnSeal != nil {
		l.o.OnSeal(l, b)
	}
	l.charge(b)
}

// Sealed gives the position after the last sealed element: the end of what Next can return.
func (l *Log) Sealed() determinant.Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.end
}

// Truncate forgets the batches of epochs up to e, which the caller knows to be covered by a committed checkpoint. Batches
// that were handed out stay valid.
func (l *Log) Truncate(e determinant.Epoch) {
	l.mu.Lock()
	defer l.unlock()
	for l.mu.held.len() > 0 && l.mu.held.get(0).batch.Epoch <= e {
		l.drop()
	}
	l.dropSent()
}

// Retained gives the bytes that the log takes from its budget.
func (l *Log) Retained() (memory, disk int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.memory, l.mu.disk
}

// Close forgets everything, deletes the log's files and gives its budget back. The task must have stopped appending. Further
// calls of Next and Subscribe return ErrClosed. Close never fails for a file that cannot be deleted: it is scratch, and is
// cleared at the next start.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.unlock()
	l.unsubscribe()
	for l.mu.held.len() > 0 {
		l.drop()
	}
	l.mu.closed = true
	return nil
}

// base gives the position of the oldest element held. The mutex is held.
func (l *Log) base() determinant.Cursor {
	if l.mu.held.len() == 0 {
		return l.mu.end
	}
	return l.mu.held.get(0).batch.Start
}

// drop forgets the oldest batch. The mutex is held.
func (l *Log) drop() {
	e := l.mu.held.pop()
	l.uncharge(e.charged)
	if e.segment != nil {
		e.segment.live--
		l.retire(e.segment)
	}
}

// dropSent forgets batches that were sent and need not be retained, as long as none that must be is older. The mutex is held.
func (l *Log) dropSent() {
	for l.mu.sub.active && l.mu.held.len() > 0 {
		if e := l.mu.held.get(0); e.retain || e.batch.End.Next > l.mu.sub.next.Next {
			return
		}
		l.drop()
	}
}

// uncharge gives memory back to the budget. The mutex is held.
func (l *Log) uncharge(n int64) {
	if n != 0 {
		l.mu.memory -= n
		l.o.Budget.freeMemory(n)
	}
}

// unlock gives up the mutex and then removes the segment files that nobody needs any more.
func (l *Log) unlock() {
	dead := l.mu.dead
	l.mu.dead = nil
	l.mu.Unlock()
	for _, s := range dead {
		l.o.Budget.remove(s)
	}
}

package operator

import (
	"context"
	"errors"

	"github.com/understudy-stream/understudy/determinant"
)

// ErrFenced is returned by a CausalStore or TransactionalStore to a writer whose incarnation has been replaced.
var ErrFenced = errors.New("operator: the writer was fenced off by a later incarnation")

// ErrContradiction is returned by a CausalStore when what it is asked to write differs from what it already shows.
var ErrContradiction = errors.New("operator: the sink already shows other output at this position")

// ErrPermanent is in the chain of an error of a sink that no other try can mend: the job stops at once.
var ErrPermanent = errors.New("operator: another try cannot mend this")

// LineSink is a CausalSink that shows text: its records are encoded by JSON unless WithCodec says otherwise.
type LineSink interface {
	CausalSink
	// Lines is never called.
	Lines()
}

// CausalSink is an external system that takes output with the determinants that it depends on, and so shows each record
// exactly once within milliseconds and without waiting for a checkpoint. docs/connectors/own.md tells how to write one, and
// connector/connectortest tests what is promised here.
type CausalSink interface {
	// Open opens the store of one of n parallel sink tasks, from 0 on; each has output, fence and determinants of its own. Every
	// worker of the job may open it, also several times, to write or to read what is stored.
	Open(ctx context.Context, task, n int) (CausalStore, error)
}

// SinkIdentifier is implemented by a CausalSink or TransactionalSink that keeps two jobs from writing to one place.
type SinkIdentifier interface {
	// Identify is called once in every process of the job, before the sink is opened. The identity is that of one run of the job's program
	// from its first start to its end, however often it is stopped and goes on.
	Identify(job string) error
}

// CausalStore is the external neighbour of one sink task. Methods may be called from several goroutines, and stores of the same
// task in several processes. A process may die at any moment, or be stopped and go on much later.
//
// A call whose context is cancelled fails with the context's error in the chain, or does its work. After any error but ErrFenced
// the caller does not know what a Write has done: it calls Fence, as the same incarnation or a later one, and goes on from
// Stored.Cursor. Nothing of a call may come to pass after the Fence that follows it.
//
// Invariant: output that a reader can see never goes beyond the determinants stored with it.
type CausalStore interface {
	// Fence makes every later Write of an incarnation below f.Incarnation fail, applies f.Cut if its generation is newer than
	// any the store has seen, and only then returns what the store holds. It must not wait for ever for a writer that was stopped
	// in the middle of a Write.
	//
	// Raising a fence to one it already has is no error, from whichever process: it only reads, also beside the incarnation that
	// writes. A fence below the one it has is ErrFenced and changes nothing.
	Fence(ctx context.Context, f Fence) (Stored, error)
	// Write makes w visible, in order: w.Delta is durable before w.Records can be seen. It must return ErrFenced, and show
	// nothing, if the incarnation was replaced, also when that happens during the call. When it returns nil, an outside reader
	// sees all of w.
	//
	// The caller has raised the fence to this incarnation by this store before, and makes one call at a time. w begins where the
	// output ends: a w.Start with another Next is an error, one with the same Next and other Bytes or CRC is ErrContradiction. So
	// are records that differ from the first part of a write that was cut short and can be seen.
	Write(ctx context.Context, incarnation determinant.Incarnation, w StoreWrite) error
	// Truncate says that checkpoint e is committed at these log offsets, one per task: what is stored of each log below its
	// offset, and cursors of epochs up to e, are no longer needed. It may come late, twice, and from any process. A delta stored
	// in epoch e may hold determinants of later ones: a store that does not look into deltas may forget those stored in
	// epochs up to the checkpoint that was committed before e, and no more.
	Truncate(ctx context.Context, e determinant.Epoch, offsets []determinant.LogOffset) error
	// Close lets go of what Open took. It is not called in a process that dies. Other stores of the task live on.
	Close() error
}

// Fence is who may write to a store from now on, and where a global rollback has cut it.
type Fence struct {
	Incarnation determinant.Incarnation
	Generation  determinant.Generation
	// Cut is the rollback that began Generation: the output is cut back to Cursor, and stored logs to Logs. Nil in
	// generation 0. It comes with every Fence of the generation and is applied once. What is below Logs is in the checkpoint, so
	// that a store may forget all deltas.
	Cut *Cut
	// Restart, in at-least-once mode, says that this incarnation numbers its output from here, although more may be shown
	// already: what is shown stays, a torn last record is removed, stored deltas are forgotten, and the next Write begins at
	// Restart. Where it is set, Cut is not applied.
	Restart *determinant.Cursor
}

// Cut is a point of a global rollback: a committed checkpoint. A write has ended at Cursor, or it is the start: {Epoch: 1}.
type Cut struct {
	Cursor determinant.Cursor      // of the external channel
	Logs   []determinant.LogOffset // one per task
}

// Stored is what a store holds.
type Stored struct {
	// Cursor is the position after the last write of which every byte is visible; zero, or {Epoch: 1}, before the first. What is
	// visible beyond it, the first part of a write that was cut short, the store compares with what is written next instead of
	// showing it again.
	Cursor determinant.Cursor
	// Deltas are the stored determinants, as given to Write, in order. They may be ahead of what is visible. Owned by the caller.
	Deltas [][]byte
	// Shown is how many records beyond Cut.Cursor a store that cannot truncate will show again, in the answer to the Fence that
	// applies the Cut; 0 normally.
	Shown uint64
}

// StoreWrite is one batch of output. Sequence numbers count records and the barrier that ends each epoch, so that a write may go
// from one to the next without any record. It never goes beyond the end of an epoch.
type StoreWrite struct {
	Start, End determinant.Cursor
	Records    [][]byte // encoded by the sink's codec; owned by the caller, valid during the call
	// Delta is what the store has not been given yet of every log that the records may depend on; may be empty. After an outage it
	// may be megabytes where Records are not. Owned by the caller, valid during the call.
	Delta []byte
}

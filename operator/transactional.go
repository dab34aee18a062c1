package operator

import (
	"context"

	"github.com/understudy-stream/understudy/determinant"
)

// TransactionalSink is an external system that can hold output back in transactions, and cannot store determinants beside it. What
// an epoch has put out becomes visible when its checkpoint is committed, so that its latency is the checkpoint interval. This
// is the two-phase commit of Carbone et al., "State Management in Apache Flink", VLDB 2017. A sink that keeps two jobs from
// writing to one place implements [SinkIdentifier] too.
type TransactionalSink interface {
	// OpenTransactions opens the transactions of one of n parallel sink tasks. Every worker of the job may open them.
	OpenTransactions(ctx context.Context, task, n int) (TransactionalStore, error)
}

// TransactionalStore holds the transactions of one sink task. Methods may be called from several goroutines, but Write and
// Prepare of an incarnation are called one after the other, and so are its Commits. A Commit may overlap with a Write or Prepare
// of a later epoch.
//
// A life of the task begins with Fence. Before its first Write it commits the transactions that the last checkpoint names and
// aborts all others that Fence has listed. Then each epoch has its Writes, maybe none, and one Prepare; each transaction is
// committed when a checkpoint that names it is committed in the job's ledger, in the order of epochs.
//
// Invariant: no record can be seen before the transaction that it is in is committed, and then all of them can, in the order in
// which they were written, behind those of all epochs before.
type TransactionalStore interface {
	// Fence makes every later Write, Prepare, Commit and Abort of an incarnation below this one fail with ErrFenced, also one
	// that is under way and has not taken effect. It undoes what such incarnations have written and not prepared, and lists
	// what is prepared and neither committed nor aborted, by epoch. A store that cannot tell whether something was prepared
	// may list it instead of undoing it. Raising a fence to one it already has is no error, and undoes what this incarnation
	// has written and not prepared. A fence below the one there is fails with ErrFenced.
	Fence(ctx context.Context, incarnation determinant.Incarnation) ([]Transaction, error)
	// Write adds records to what the incarnation has open. They are owned by the caller and valid during the call.
	Write(ctx context.Context, incarnation determinant.Incarnation, records [][]byte) error
	// Prepare ends what was written since the last Prepare or Fence: when it returns, a Commit of the transaction succeeds
	// however often this process and the external system die before. An epoch without records may have an empty transaction.
	Prepare(ctx context.Context, incarnation determinant.Incarnation, e determinant.Epoch) (Transaction, error)
	// Commit makes a prepared transaction visible. One that was committed before is no error, however much was written and
	// committed since; one that was aborted, or that the external system has dropped, is an error with ErrPermanent in its
	// chain, since its output is lost.
	Commit(ctx context.Context, incarnation determinant.Incarnation, t Transaction) error
	// Abort drops a prepared transaction. One that is not there, or was committed, is left as it is and is no error.
	Abort(ctx context.Context, incarnation determinant.Incarnation, t Transaction) error
	Close() error
}

// Transaction names a prepared transaction. It is kept with the checkpoint, and given back to Commit or Abort by whichever process has
// the sink task then.
type Transaction struct {
	Epoch determinant.Epoch
	// Handle is what the store needs to find it again. It must be the same in every process and must never name another
	// transaction: it may come back to Commit after later ones were committed. That of an empty transaction may be empty.
	Handle string
}

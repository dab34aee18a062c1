package operator

import (
	"context"
	"errors"
	"time"
)

// ErrNotReady is returned by a Reader that has no record now but may have one later.
var ErrNotReady = errors.New("operator: no record is ready")

// Source is a set of splits that can be read again from any offset it has given. Its methods may be called from several
// goroutines. docs/connectors/own.md tells how to write one, and connector/connectortest tests what is promised here.
type Source[T any] interface {
	// Splits lists the identities of the splits, in an order that is the same in every process. It is called once in a job's
	// life; the answer is kept with the job's metadata. No two are the same. A source whose splits become more is Growing.
	Splits(ctx context.Context) ([]string, error)
	// Open reads a split from an offset: 0 for its start, or one that a Reader of this split returned. It must give the same
	// records with the same offsets every time, in every process, whatever other readers there are. A split that there is not, and an
	// offset that no Reader can have returned, are errors, of Open or of the first Next; so is a split whose records are no longer
	// what they were, as far as that can be told. The reader may be used until ctx ends.
	Open(ctx context.Context, split string, offset uint64) (Reader[T], error)
}

// Growing is a Source that may get new splits while the job runs: a topic gets partitions, a directory gets files.
//
// The splits that the job has keep their order and their tasks for ever, and new ones are put behind them. They are read from the next
// epoch on, by all tasks of the source, in every life that a task has. Such a source has no end of its own: a task
// that has read its splits to their ends waits for more, until Discover says that all are there. One that has no split to read is
// idle (see IdleAfter): it holds back no watermark.
type Growing interface {
	// DiscoveryInterval is the time between two calls of Discover. 0 or less: never; the source does not grow, and ends when the
	// splits of Splits do. It is the same in every process.
	DiscoveryInterval() time.Duration
	// Discover lists the splits that there are now. known are those that the job has, in its order; they may be in the answer or
	// not, and one that is gone is no error. What is in the answer and not among them the job takes in, in the order of the answer:
	// so no part of the input may ever be in two splits. The first call comes at least an interval after Splits. all says that no
	// split will come any more, beyond those of the answer; it is not asked again then. An error is shown to people, and
	// the next call comes after another interval. It must return when ctx ends.
	Discover(ctx context.Context, known []string) (splits []string, all bool, err error)
}

// InputNamer is a Source that can tell one input from another. A job that has processed all its input asks such a source whether
// there is other input now, and fails if so; without it the job says that there is nothing to do. One that goes on asks too, and warns.
type InputNamer interface {
	// InputOf names, for people, what a split is of. The same input has the same names whenever its splits are listed.
	InputOf(split string) string
}

// Reader reads one split. It is used by one goroutine.
type Reader[T any] interface {
	// Next returns the next record and the offset after it, which is no other record's and not 0. Instead of waiting for a record to
	// come it returns ErrNotReady, and at the end io.EOF, again and again: both as they are, not wrapped.
	Next() (v T, next uint64, err error)
	// Ready gets a value when Next may have a record after ErrNotReady, also if the record came before anybody waits. A value too
	// many does no harm. It is one channel for the life of the reader, and may be nil if Next never returns ErrNotReady.
	Ready() <-chan struct{}
	Close() error
}

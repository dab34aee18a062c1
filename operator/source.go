package operator

import (
	"context"
	"errors"
)

// ErrNotReady is returned by a Reader that has no record now but may have one later.
var ErrNotReady = errors.New("operator: no record is ready")

// Source is a set of splits that can be read again from any offset it has given. Its methods may be called from several
// goroutines. docs/connectors/own.md tells how to write one, and connector/connectortest tests what is promised here.
type Source[T any] interface {
	// Splits lists the identities of the splits, in an order that is the same in every process. It is called once in a job's
	// life; the answer is kept with the job's metadata. No two are the same.
	Splits(ctx context.Context) ([]string, error)
	// Open reads a split from an offset: 0 for its start, or one that a Reader of this split returned. It must give the same
	// records with the same offsets every time, in every process, whatever other readers there are. A split that there is not, and an
	// offset that no Reader can have returned, are errors, of Open or of the first Next; so is a split whose records are no longer
	// what they were, as far as that can be told. The reader may be used until ctx ends.
	Open(ctx context.Context, split string, offset uint64) (Reader[T], error)
}

// InputNamer is a Source that can tell one input from another. A job that has processed all its input asks such a source whether
// there is other input now, and says so; without it the job says that there is nothing to do.
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

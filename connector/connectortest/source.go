package connectortest

import (
	"testing"

	"github.com/understudy-stream/understudy/operator"
)

// SourceInput is one input of a source.
type SourceInput[T any] struct {
	// Source makes the source as a process of the job does that was just started. Two processes share the input and nothing else.
	// Required.
	Source func() operator.Source[T]
	// Records is what is in the input: the records of its splits one after the other, in the order of Splits. Required.
	Records []T
	// Add puts one more record at the end of the last split and returns it. It may be called from any goroutine. Nil for an input
	// that has an end: then every split must end with io.EOF. With Add no split may end.
	Add func() T
	// BadSplits are more names of splits that Open must refuse: those of a split that is gone, say.
	BadSplits []string
	// BadOffsets are more offsets of the first split that Open must refuse: those between two records, say.
	BadOffsets []uint64
}

// Source tests an implementation of operator.Source and operator.Reader. input makes the input of one test, and takes down with
// t.Cleanup what it set up.
func Source[T any](t *testing.T, input func(t testing.TB) SourceInput[T]) {
	for _, c := range sourceCases[T]() {
		t.Run(c.name, func(t *testing.T) { c.run(t, input(t)) })
	}
}

// sourceCase is one rule.
type sourceCase[T any] struct {
	name string
	run  func(t testing.TB, in SourceInput[T])
}

func sourceCases[T any]() []sourceCase[T] { return nil }

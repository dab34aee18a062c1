package connectortest

import (
	"testing"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// SourceInput is one input of a source.
type SourceInput[T any] struct {
	// Source makes the source as a process of the job does that was just started. Two processes share the input and nothing else.
	// Required.
	Source func() operator.Source[T]
	// Records is what is in the input: the records of its splits one after the other, in the order of Splits. At least two, and a
	// hundred are plenty. Required.
	Records []T
	// Add puts one more record at the end of the last split and returns it. It may be called from any goroutine. Nil for an input
	// that has an end: then every split must end with io.EOF. With Add no split may end.
	Add func() T
	// Grow adds one split, or several, to an input whose source is operator.Growing, and returns the records of each. Nil for one whose
	// source is not, or whose DiscoveryInterval is 0.
	Grow func() [][]T
	// BadSplits are more names of splits that must be refused: that of a split that is gone, say.
	BadSplits []string
	// BadOffsets are more offsets of the first split that must be refused: one between two records, say.
	BadOffsets []uint64
}

// Source tests an implementation of operator.Source and operator.Reader. input makes an input for one test, and takes down with
// t.Cleanup what it set up. Records are compared by reflect.DeepEqual.
func Source[T any](t *testing.T, input func(t testing.TB) SourceInput[T]) {
	for _, c := range sourceCases[T]() {
		t.Run(c.name, func(t *testing.T) {
			in := input(t)
			if c.grows && in.Add == nil {
				t.Skip("the input has no Add: all of it is there from the start")
			}
			if c.splits && in.Grow == nil {
				t.Skip("the input has no Grow: no split is added to it")
			}
			c.run(&sourceRun[T]{t: t, in: in, patience: patience})
		})
	}
}

// sourceCase is one rule.
type sourceCase[T any] struct {
	name   string
	grows  bool // needs SourceInput.Add
	splits bool // needs SourceInput.Grow
	run    func(r *sourceRun[T])
}

// sourceRun is one case with its input.
type sourceRun[T any] struct {
	t        testing.TB
	in       SourceInput[T]
	patience time.Duration
	waiting  bool // Next has returned ErrNotReady, and Ready must have a value when there is more
}

func sourceCases[T any]() []sourceCase[T] {
	return []sourceCase[T]{
		{name: "splits", run: (*sourceRun[T]).splits},
		{name: "read", run: (*sourceRun[T]).read},
		{name: "read again", run: (*sourceRun[T]).readAgain},
		{name: "at a time", run: (*sourceRun[T]).atATime},
		{name: "close", run: (*sourceRun[T]).close},
		{name: "refused", run: (*sourceRun[T]).refused},
		{name: "cancelled", run: (*sourceRun[T]).cancelled},
		{name: "added", grows: true, run: (*sourceRun[T]).added},
		{name: "added while waiting", grows: true, run: (*sourceRun[T]).addedWhileWaiting},
		{name: "nothing new", splits: true, run: (*sourceRun[T]).nothingNew},
		{name: "new splits", splits: true, run: (*sourceRun[T]).newSplits},
		{name: "new splits elsewhere", splits: true, run: (*sourceRun[T]).newSplitsElsewhere},
		{name: "listing cancelled", splits: true, run: (*sourceRun[T]).listingCancelled},
	}
}

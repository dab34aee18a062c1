package nexmark

import (
	"math"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// showChanges ends a query whose rows replace one another: it shows them all, or, if only the result is wanted, the last row
// of each key when the stream has ended. The rows of a key come from one task.
func showChanges[K comparable, T row](rows operator.Stream[T], key func(T) K, o *Options) {
	if o.Final {
		rows = operator.Process(operator.KeyBy(rows, key), "result", func() operator.Processor[K, T, T] { return &last[K, T]{} })
	}
	show(rows, o)
}

// endOfTime is when all event-time timers have fired that will.
var endOfTime = time.UnixMilli(math.MaxInt64)

// last keeps the last row of each key until the end.
type last[K comparable, T row] struct {
	row *operator.Value[T]
}

// Open implements operator.Processor.
func (l *last[K, T]) Open(s *operator.States) error {
	l.row = operator.NewValue[T](s, "row")
	return nil
}

// Process implements operator.Processor.
func (l *last[K, T]) Process(ctx operator.KeyedContext[K], v T, _ func(T)) error {
	if _, known := l.row.Get(); !known {
		ctx.RegisterEventTimer(endOfTime, "")
	}
	l.row.Set(v)
	return nil
}

// Timer implements operator.Processor.
func (l *last[K, T]) Timer(_ operator.KeyedContext[K], _ operator.Timer, emit func(T)) error {
	if v, ok := l.row.Get(); ok {
		emit(v)
	}
	return nil
}

package sim

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// epoch is where virtual time starts, in milliseconds since the Unix epoch.
const epoch = int64(1_700_000_000_000)

// enrich is a user function without state: some records ask the clock, the generator or the world outside.
func (w *World) enrich(ctx operator.Context, r record) (record, error) {
	h := mix(r.ID, r.Value)
	if h&3 == 0 {
		r.Value = small(mix(r.Value, uint64(ctx.Now().UnixMilli())))
	}
	if h>>2&3 == 0 {
		r.Value = small(mix(r.Value, ctx.Rand().Uint64()))
	}
	if h>>4&3 == 0 {
		request := binary.AppendUvarint(nil, r.ID)
		answer, err := ctx.Call(request, func(context.Context, []byte) ([]byte, error) {
			return binary.AppendUvarint(nil, w.rng.Uint64N(1<<20)), nil
		})
		if err != nil {
			return r, err
		}
		v, _ := binary.Uvarint(answer)
		r.Value, r.Key = small(mix(r.Value, v)), v%8
	}
	return r, w.fails(r.ID)
}

// lookup is a call to the outside, for AsyncMap.
func (w *World) lookup(_ context.Context, r record) (record, error) {
	v := w.rng.Uint64N(1 << 20)
	r.Value, r.Key = small(mix(r.Value, v)), v%8
	return r, nil
}

// counter is a keyed operator with state and timers: it numbers the records of a key, and speaks up of itself at times.
type counter struct {
	pace  int64 // of its timers, milliseconds
	count *operator.Value[uint64]
	last  *operator.Value[uint64]
}

// Open implements operator.Processor.
func (c *counter) Open(s *operator.States) error {
	c.count = operator.NewValue[uint64](s, "count")
	c.last = operator.NewValue[uint64](s, "last")
	return nil
}

// Process implements operator.Processor.
func (c *counter) Process(ctx operator.KeyedContext[uint64], r record, emit func(record)) error {
	n, _ := c.count.Get()
	c.count.Set(n + 1)
	r.Value = small(mix(r.Value, n+1))
	if r.Value%8 == 0 {
		last, _ := c.last.Get()
		r.Value = small(mix(r.Value, last))
		c.last.Clear()
	} else {
		c.last.Set(r.Value)
	}
	if n%3 == 0 {
		ctx.RegisterProcessingTimer(ctx.Now().Add(time.Duration(c.pace)*time.Millisecond), "beat")
	}
	emit(r)
	if r.Value%16 == 1 {
		emit(record{ID: derived, Key: r.Key, Value: r.Value})
	}
	return nil
}

// Timer implements operator.Processor.
func (c *counter) Timer(ctx operator.KeyedContext[uint64], t operator.Timer, emit func(record)) error {
	n, _ := c.count.Get()
	emit(record{ID: derived, Key: ctx.Key(), Value: small(mix(n, uint64(t.Time.UnixMilli())))})
	if n%4 == 1 {
		ctx.RegisterProcessingTimer(ctx.Now().Add(time.Duration(c.pace)*time.Millisecond), "again")
	}
	return nil
}

// join is a keyed operator on two streams: each record meets what the other side had last.
type join struct {
	left, right *operator.Value[uint64]
}

// Open implements operator.CoProcessor.
func (j *join) Open(s *operator.States) error {
	j.left = operator.NewValue[uint64](s, "left")
	j.right = operator.NewValue[uint64](s, "right")
	return nil
}

// Left implements operator.CoProcessor.
func (j *join) Left(_ operator.KeyedContext[uint64], r record, emit func(record)) error {
	other, _ := j.right.Get()
	r.Value = small(mix(r.Value, other))
	j.left.Set(r.Value)
	emit(r)
	return nil
}

// Right implements operator.CoProcessor.
func (j *join) Right(_ operator.KeyedContext[uint64], r record, emit func(record)) error {
	other, _ := j.left.Get()
	r.Value = small(mix(r.Value, other))
	j.right.Set(r.Value)
	emit(r)
	return nil
}

// Timer implements operator.CoProcessor.
func (j *join) Timer(operator.KeyedContext[uint64], operator.Timer, func(record)) error { return nil }

// sum adds up the records of a window.
func sum() operator.Aggregator[uint64, record, uint64, record] {
	return operator.Aggregator[uint64, record, uint64, record]{
		Add:   func(acc uint64, r record) (uint64, error) { return small(mix(acc, r.Value)), nil },
		Merge: func(a, b uint64) (uint64, error) { return small(mix(a, b)), nil },
		Emit: func(_ operator.Context, key uint64, win operator.WindowInfo, acc uint64, emit func(record)) error {
			emit(record{ID: derived, Key: key, Value: small(mix(acc, uint64(win.Start.UnixMilli())))})
			return nil
		},
	}
}

// eventTime spreads records over event time, somewhat out of order.
func eventTime(r record) time.Time {
	return time.UnixMilli(epoch + int64(r.ID%1000)*4 + int64(mix(r.ID, 3)%12))
}

package operator

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/understudy-stream/understudy/timers"
)

// Timestamps gives records their event time, in milliseconds, and makes the stream's watermark: the greatest timestamp so
// far, less outOfOrder, less one. It replaces what timestamps and watermarks there were. [IdleAfter] keeps a stream that has
// fallen silent from holding back others. [MaxDrift] keeps sources from getting far ahead of each other.
func Timestamps[T any](s Stream[T], name string, ts func(T) time.Time, outOfOrder time.Duration, o ...Option) Stream[T] {
	j, opts := jobOf(s, "Timestamps", name), collect(o)
	j.require(ts != nil, "Timestamps", name, "its function")
	if outOfOrder < 0 {
		j.fail(fmt.Errorf("operator: Timestamps %q: outOfOrder is %v", name, outOfOrder))
	}
	idle, given := opts.takeIdle()
	if given && idle < time.Millisecond {
		j.fail(fmt.Errorf("operator: Timestamps %q: IdleAfter(%v): want at least 1ms", name, idle))
	}
	drift, given := opts.takeDrift()
	if given && drift < time.Millisecond {
		j.fail(fmt.Errorf("operator: Timestamps %q: MaxDrift(%v): want at least 1ms", name, drift))
	}
	n := j.add(&node{
		kind: "Timestamps", name: name, inputs: []input{inputOf(s)}, ports: ports(1), drift: drift.Milliseconds(),
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[T](outs, 0)
			op := &timestamps[T]{pass: pass{at, out}, ts: ts, out: out, bound: outOfOrder.Milliseconds(), greatest: MinTime,
				drifts: given, idleAfter: idle.Milliseconds(), timer: newTimerTable(name + "/idle timer")}
			return built{op: op, entries: []any{op}, state: []Table{op, op.timer}}, err
		},
	}, opts)
	return Stream[T]{node: n, codec: s.codec}
}

type timestamps[T any] struct {
	pass
	ts        func(T) time.Time
	out       collector[T]
	bound     int64
	drifts    bool  // MaxDrift was given
	idleAfter int64 // 0: never
	timer     *timerTable

	greatest int64
	quiet    bool   // no record since the idle timer fired last
	own      bool   // idle because of that
	upstream bool   // all input channels are idle
	told     bool   // what was said downstream
	woke     uint64 // the last element that had it say that the stream is idle no longer; 0: none has
}

func (t *timestamps[T]) record(v T, ts int64, hasTime bool) error {
	t.begin(ts, hasTime)
	ts = t.ts(v).UnixMilli()
	t.greatest = max(t.greatest, ts)
	t.quiet = false
	if t.told {
		t.own, t.upstream, t.woke = false, false, t.chain.element
		if err := t.tell(); err != nil {
			return err
		}
	}
	return t.out.record(v, ts, true)
}

// reached implements reacher.
func (t *timestamps[T]) reached() (wm int64, ok bool) {
	return t.wm, t.drifts && !t.told && t.wm > MinTime && t.wm < MaxTime
}

// rewind implements rewinder: what the present element had it say is not said. The next record says it.
func (t *timestamps[T]) rewind() {
	if t.woke > 0 && t.woke == t.chain.element && !t.told {
		t.told = true
	}
}

// watermark lets only the end of time pass; the others were made from other timestamps.
func (t *timestamps[T]) watermark(wm int64) error {
	if wm < MaxTime {
		return nil
	}
	t.own, t.upstream = false, false
	if err := t.tell(); err != nil {
		return err
	}
	t.wm = MaxTime
	return t.down.watermark(MaxTime)
}

// stepEnd makes the watermark rise.
func (t *timestamps[T]) stepEnd() error {
	if t.greatest < MinTime+t.bound+2 {
		return nil
	}
	if wm := t.greatest - t.bound - 1; wm > t.wm {
		t.wm = wm
		return t.down.watermark(wm)
	}
	return nil
}

func (t *timestamps[T]) idle(idle bool) error {
	t.upstream = idle
	return t.tell()
}

// tell says downstream whether the stream is idle, if that has changed.
func (t *timestamps[T]) tell() error {
	if idle := t.own || t.upstream; idle != t.told {
		t.told = idle
		return t.down.idle(idle)
	}
	return nil
}

func (t *timestamps[T]) nextTimer() (int64, bool) { return t.timer.queue.Next() }
func (t *timestamps[T]) mark() uint64             { return t.timer.queue.Mark() }

// processingTime looks whether a record has come since it looked last. No record reads the clock for this.
func (t *timestamps[T]) processingTime(now int64, before uint64) error {
	return due(t.timer.queue, now, before, func(timers.Timer) error {
		t.timer.queue.Register(later(now, t.idleAfter), "", "")
		t.own = t.quiet
		t.quiet = true
		return t.tell()
	})
}

func (t *timestamps[T]) end() error {
	t.idleAfter = 0
	_ = due(t.timer.queue, MaxTime, noMark, func(timers.Timer) error { return nil })
	return t.down.end()
}

// restored implements restorer. In a new chain the timer is due at once, and so gets to know the time.
func (t *timestamps[T]) restored() error {
	if t.idleAfter > 0 && t.timer.queue.Len() == 0 && !t.chain.last.ended {
		t.quiet = false
		t.timer.queue.Register(MinTime, "", "")
	}
	return nil
}

// ID implements Table.
func (t *timestamps[T]) ID() string { return t.name + "/greatest" }

// Freeze implements Table.
func (t *timestamps[T]) Freeze() Frozen {
	var flags byte
	for i, set := range []bool{t.quiet, t.own, t.upstream, t.told} {
		if set {
			flags |= 1 << i
		}
	}
	value := binary.AppendVarint([]byte{flags}, t.greatest)
	return frozenValue(t.ID(), "greatest", value)
}

// Load implements Table.
func (t *timestamps[T]) Load(_, value []byte) error {
	if len(value) < 2 {
		return fmt.Errorf("%w: greatest timestamp %x", ErrEncoding, value)
	}
	greatest, n := binary.Varint(value[1:])
	if n <= 0 {
		return fmt.Errorf("%w: greatest timestamp %x", ErrEncoding, value)
	}
	t.greatest = greatest
	t.quiet, t.own = value[0]&1 != 0, value[0]&2 != 0
	t.upstream, t.told = value[0]&4 != 0, value[0]&8 != 0
	return nil
}

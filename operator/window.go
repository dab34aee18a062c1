package operator

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Windows says how records are put together by time. See [Tumbling], [Sliding] and [Session].
type Windows struct {
	kind       string
	size       int64 // ms; of a session the gap
	slide      int64
	processing bool
	err        error
}

// Tumbling makes windows of one size that follow one another, beginning at the Unix epoch.
func Tumbling(size time.Duration) Windows { return fixed("tumbling", size, size) }

// Sliding makes windows of one size that begin every slide, so that a record is in size/slide of them.
func Sliding(size, slide time.Duration) Windows { return fixed("sliding", size, slide) }

func fixed(kind string, size, slide time.Duration) Windows {
	w := Windows{kind: kind, size: size.Milliseconds(), slide: slide.Milliseconds()}
	if w.size < 1 || w.slide < 1 || w.slide > w.size {
		w.err = fmt.Errorf("%s windows of %v every %v: want at least 1ms, and no gaps", kind, size, slide)
	}
	return w
}

// Session makes windows that end when no record of the key has come for gap. Sessions that turn out to touch are merged.
func Session(gap time.Duration) Windows {
	w := Windows{kind: "session", size: gap.Milliseconds()}
	if w.size < 1 {
		w.err = fmt.Errorf("session windows with a gap of %v: want at least 1ms", gap)
	}
	return w
}

// EventTime assigns windows by the records' timestamps, which they have from [Timestamps]. It is the default.
func (w Windows) EventTime() Windows {
	w.processing = false
	return w
}

// ProcessingTime assigns windows by the time at which the task processes a record.
func (w Windows) ProcessingTime() Windows {
	w.processing = true
	return w
}

// WindowInfo is a window's bounds: from Start up to, and without, End.
type WindowInfo struct {
	Start, End time.Time
}

// Aggregator says what is done with the records of a window. Its functions must not change an accumulator but return
// another.
type Aggregator[K comparable, I, A, O any] struct {
	// Init makes the accumulator of a new window; nil stands for the zero A.
	Init func() A
	// Add takes a record in.
	Add func(acc A, v I) (A, error)
	// Merge joins two accumulators, that of the earlier records first, to what Add would have made of all of them. Session
	// windows need it, to join sessions. Sliding windows are cheaper with it: records are then added to one accumulator for each
	// slide instead of one for each window.
	Merge func(a, b A) (A, error)
	// Emit is called when the window fires: when the watermark passes its end and at each late record that is still allowed, or
	// when processing time reaches its end. What it emits is stamped with the last millisecond of an event-time window. The keys
	// of a window come in an order that is the same in every replay.
	Emit func(ctx Context, key K, w WindowInfo, acc A, emit func(O)) error
}

// Window aggregates the records of each key by window. The second stream has the records that came too late for all of their
// event-time windows; it may be left alone, and is empty for processing time. When the input ends, every open window fires.
func Window[K comparable, I, A, O any](ks KeyedStream[K, I], name string, w Windows, a Aggregator[K, I, A, O],
	o ...Option) (Stream[O], Stream[I]) {
	j, opts := jobOf(ks.stream, "Window", name), collect(o)
	j.require(a.Add != nil, "Window", name, "Aggregator.Add")
	j.require(a.Emit != nil, "Window", name, "Aggregator.Emit")
	j.require(a.Merge != nil || w.slide > 0, "Window", name, "Aggregator.Merge, which sessions need,")
	lateness := w.lateness(j, name, opts)
	codec, state := codecFor(opts, defaultCodec[O]), codecFor(opts, defaultCodec[A])
	var n *node
	if opts.takeCombined() {
		j.require(a.Merge != nil, "Window", name, "Aggregator.Merge, which Combined needs,")
		if w.slide == 0 || lateness > 0 {
			j.fail(fmt.Errorf("operator: Window %q: Combined is for tumbling and sliding windows without AllowedLateness", name))
		}
		joined := Aggregator[K, partial[K, A], A, O]{Merge: a.Merge, Emit: a.Emit}
		n = windowNode(combine(ks, name, w, a, state), name, w, lateness, joined, joinPartial[K](a.Merge), state)
		n.checks = append(n.checks, func() error {
			if len(n.ports[1].consumers) > 0 {
				return errors.New("windows that are Combined have no stream of late records")
			}
			return nil
		})
	} else {
		n = windowNode(ks, name, w, lateness, a, a.take, state)
	}
	j.add(n, opts)
	return Stream[O]{node: n, codec: codec}, Stream[I]{node: n, port: 1, codec: ks.stream.codec}
}

// take adds a record to an accumulator, or begins one.
func (a *Aggregator[K, I, A, O]) take(acc A, known bool, v I) (A, error) {
	if !known && a.Init != nil {
		acc = a.Init()
	}
	return a.Add(acc, v)
}

// windowNode makes the operator. fold takes a record of its input into an accumulator; known is false for a new one.
func windowNode[K comparable, I, A, O any](ks KeyedStream[K, I], name string, w Windows, lateness int64, a Aggregator[K, I, A, O],
	fold func(acc A, known bool, v I) (A, error), state codecRef[A]) *node {
	return &node{
		kind: "Window", detail: w.kind, name: name, inputs: []input{keyedInputOf(ks, ks.codec)},
		ports: []port{{}, {optional: true}}, head: true,
		checks: []func() error{ks.codec.check(), state.check()},
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[O](outs, 0)
			late, err2 := portOf[I](outs, 1)
			if err = errors.Join(err, err2); err != nil {
				return built{}, err
			}
			base := window[K, I, A, O]{pass: pass{at, both{out, late}}, windows: w, agg: a, fold: fold, lateness: lateness, key: ks.key,
				late: late, emitter: newEmitter(at, out)}
			base.scope.codec = ks.codec.codec
			if w.slide == 0 {
				op := newSessionWindow(base, name, state.codec)
				return built{op: op, entries: []any{op}, state: append(op.clocks.tables(), op.panes)}, nil
			}
			op := newFixedWindow(base, name, state.codec)
			return built{op: op, entries: []any{op}, state: []Table{op.panes, op.fired}}, nil
		},
	}
}

// lateness takes the option and checks the rest of what was asked for.
func (w Windows) lateness(j *Job, name string, opts *options) int64 {
	var late time.Duration
	if !w.processing {
		late, _ = opts.takeLateness()
	}
	switch {
	case w.err != nil:
		j.fail(fmt.Errorf("operator: Window %q: %w", name, w.err))
	case w.kind == "":
		j.fail(fmt.Errorf("operator: Window %q: the zero Windows: use Tumbling, Sliding or Session", name))
	case late < 0:
		j.fail(fmt.Errorf("operator: Window %q: AllowedLateness(%v) is negative", name, late))
	}
	return late.Milliseconds()
}

// span is a window's bounds in milliseconds, without the end.
type span struct{ start, end int64 }

func (s span) info() WindowInfo {
	return WindowInfo{Start: time.UnixMilli(s.start).UTC(), End: time.UnixMilli(s.end).UTC()}
}

// window is what the operators for all kinds of windows have in common.
type window[K comparable, I, A, O any] struct {
	pass
	windows  Windows
	agg      Aggregator[K, I, A, O]
	fold     func(acc A, known bool, v I) (A, error)
	lateness int64
	key      func(I) K
	scope    keyScope[K]
	late     collector[I]
	emitter  *emitter[O]
}

// enterRecord begins the work on a record and gives the time by which it is in windows.
func (w *window[K, I, A, O]) enterRecord(v I, ts int64, hasTime bool) (at int64, err error) {
	w.begin(ts, hasTime)
	at = ts
	switch {
	case w.windows.processing:
		at = w.rt.Now()
	case !hasTime:
		return 0, w.failed("assigning a window", errNoTimestamp)
	}
	if err := enterKeyOf(&w.scope, w.key, v); err != nil {
		return 0, w.failed("encoding a key", err)
	}
	return at, nil
}

var errNoTimestamp = errors.New("a record has no timestamp: put Timestamps before event-time windows")

// last is the latest window that a time falls into.
func (w Windows) last(at int64) span {
	start := at - mod(at, w.slide)
	if start > at { // below MinTime
		start = MinTime
	}
	return span{start, later(start, w.size)}
}

func (s span) before(slide int64) span { return span{s.start - slide, s.end - slide} }

func mod(a, n int64) int64 {
	if m := a % n; m >= 0 {
		return m
	}
	return a%n + n
}

// later adds a duration to a time; what is beyond the end of time is its end.
func later(t, d int64) int64 {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}

// fires is the time at which a window fires, its last millisecond in event time; expires that at which it is gone.
func (w *window[K, I, A, O]) fires(s span) int64 {
	if w.windows.processing {
		return s.end
	}
	return s.end - 1
}

func (w *window[K, I, A, O]) expires(s span) int64 { return later(w.fires(s), w.lateness) }

// gone tells whether a window does not exist any more.
func (w *window[K, I, A, O]) gone(s span) bool { return !w.windows.processing && w.expires(s) <= w.wm }

// tooLate hands a record to the late stream.
func (w *window[K, I, A, O]) tooLate(v I, ts int64) error { return w.late.record(v, ts, true) }

// overdue tells whether the watermark is past the end of a window, so that a record that comes is late.
func (w *window[K, I, A, O]) overdue(s span) bool { return !w.windows.processing && w.fires(s) <= w.wm }

// fire emits what a key has in a window.
func (w *window[K, I, A, O]) fire(key K, s span, info WindowInfo, acc A) error {
	w.begin(s.end-1, !w.windows.processing)
	return w.emitter.done(w.agg.Emit(w.site, key, info, acc, w.emitter.emit))
}

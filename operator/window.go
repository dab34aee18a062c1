package operator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/understudy-stream/understudy/timers"
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
	// when processing time reaches its end. What it emits is stamped with the last millisecond of an event-time window.
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
			if err != nil {
				return built{}, err
			}
			late, err := portOf[I](outs, 1)
			op := &window[K, I, A, O]{pass: pass{at, both{out, late}}, windows: w, agg: a, fold: fold, lateness: lateness, key: ks.key,
				late: late, emitter: newEmitter(at, out)}
			op.scope.codec = ks.codec.codec
			op.clocks = newClocks(name)
			op.panes = newTable(name+"/panes", state.codec)
			op.sessions = map[string][]span{}
			op.slice = op.slicing()
			return built{op: op, entries: []any{op}, state: append(op.clocks.tables(), op.panes)}, err
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

// window is the operator. A pane is the accumulator of one key and span. It fires at its last millisecond in event time
// (or its end in processing time) and is removed lateness after that; each has a timer with the span as its tag.
type window[K comparable, I, A, O any] struct {
	pass
	windows  Windows
	agg      Aggregator[K, I, A, O]
	fold     func(acc A, known bool, v I) (A, error)
	lateness int64
	key      func(I) K
	scope    keyScope[K]
	clocks   clocks
	panes    *table[A] // by length of the key, key, start and end
	late     collector[I]
	emitter  *emitter[O]
	buf      []byte
	slice    int64 // ms: panes are slices of windows of this length; 0: whole windows
	// sessions lists the panes of each key in order. Derived from panes; empty for other kinds.
	sessions map[string][]span
}

func (w *window[K, I, A, O]) record(v I, ts int64, hasTime bool) error {
	w.begin(ts, hasTime)
	at := ts
	switch {
	case w.windows.processing:
		at = w.rt.Now()
	case !hasTime:
		return w.failed("assigning a window", errNoTimestamp)
	}
	if err := w.scope.enterKey(w.key(v)); err != nil {
		return w.failed("encoding a key", err)
	}
	if w.windows.slide == 0 {
		return w.session(v, at)
	}
	if w.slice > 0 {
		return w.sliced(v, at, ts)
	}
	taken := false
	for s := w.windows.last(at); s.end > at; s = s.before(w.windows.slide) {
		if w.gone(s) {
			break // earlier ones are gone too
		}
		taken = true
		if err := w.add(v, s); err != nil {
			return err
		}
		if s.start < MinTime+w.windows.slide {
			break
		}
	}
	if !taken {
		return w.tooLate(v, ts)
	}
	return nil
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

// fires is the time of the timer at which a pane fires, expires that at which it is removed.
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

// add takes a record into the pane of the key at hand and fires it if it should have fired already.
func (w *window[K, I, A, O]) add(v I, s span) error {
	w.locate(w.scope.bytes, s)
	acc, known := w.panes.get(w.buf)
	acc, err := w.fold(acc, known, v)
	if err != nil {
		return w.user(err)
	}
	full := w.panes.set(w.buf, acc)
	if !known {
		w.await(full, s)
	}
	return w.refire(s, acc)
}

// refire fires a pane at once if the watermark is past its end: its record was late but allowed.
func (w *window[K, I, A, O]) refire(s span, acc A) error {
	if w.windows.processing || w.fires(s) > w.wm {
		return nil
	}
	at, has := w.ts, w.hasTime
	err := w.fire(s, acc)
	w.begin(at, has)
	return err
}

// fire emits a pane of the key at hand.
func (w *window[K, I, A, O]) fire(s span, acc A) error {
	w.begin(s.end-1, !w.windows.processing)
	return w.emitter.done(w.agg.Emit(w.site, w.scope.key, s.info(), acc, w.emitter.emit))
}

// locate makes the key of a pane.
func (w *window[K, I, A, O]) locate(key []byte, s span) {
	w.buf = append(binary.AppendUvarint(w.buf[:0], uint64(len(key))), key...)
	w.buf = s.appendTo(w.buf)
}

const spanBytes = 16

func (s span) appendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.start)^signBit)
	return binary.BigEndian.AppendUint64(dst, uint64(s.end)^signBit)
}

func readSpan(b string) (span, bool) {
	if len(b) != spanBytes {
		return span{}, false
	}
	return span{
		start: int64(binary.BigEndian.Uint64([]byte(b[:8])) ^ signBit),
		end:   int64(binary.BigEndian.Uint64([]byte(b[8:])) ^ signBit),
	}, true
}

// await registers the timers of a new pane; its key and tag are cut out of the pane's key.
func (w *window[K, I, A, O]) await(full string, s span) {
	tag, key := full[len(full)-spanBytes:], w.keyIn(full)
	if w.windows.processing {
		w.clocks.processing.queue.Register(w.fires(s), key, tag)
		return
	}
	if w.fires(s) > w.wm {
		w.clocks.event.queue.Register(w.fires(s), key, tag)
	}
	if w.lateness > 0 {
		w.clocks.event.queue.Register(w.expires(s), key, tag)
	}
}

// keyIn cuts the key at hand out of the key of one of its panes.
func (w *window[K, I, A, O]) keyIn(full string) string {
	return full[len(full)-spanBytes-len(w.scope.bytes) : len(full)-spanBytes]
}

// queue has the timers of all panes.
func (w *window[K, I, A, O]) queue() *timers.Queue {
	if w.windows.processing {
		return w.clocks.processing.queue
	}
	return w.clocks.event.queue
}

// forget removes a pane of the key at hand with its timers.
func (w *window[K, I, A, O]) forget(s span) {
	w.locate(w.scope.bytes, s)
	w.panes.clear(w.buf)
	key, tag := string(w.scope.bytes), string(w.buf[len(w.buf)-spanBytes:])
	q := w.queue()
	q.Delete(w.fires(s), key, tag)
	q.Delete(w.expires(s), key, tag)
}

// timer fires or removes a pane.
func (w *window[K, I, A, O]) timer(t timers.Timer) error {
	s, ok := readSpan(t.Tag)
	if !ok {
		return w.failed("firing a window", fmt.Errorf("%w: a timer's tag %x", ErrEncoding, t.Tag))
	}
	w.begin(t.Time, false)
	if err := w.scope.enterBytes(t.Key); err != nil {
		return w.failed("decoding the key of a timer", err)
	}
	if w.slice > 0 {
		return w.fireSlices(t.Key, s)
	}
	w.locate(w.scope.bytes, s)
	acc, ok := w.panes.get(w.buf)
	if !ok {
		return nil
	}
	if t.Time == w.expires(s) {
		w.panes.clear(w.buf)
		w.dropSession(s)
	}
	if t.Time == w.fires(s) {
		return w.fire(s, acc)
	}
	return nil
}

func (w *window[K, I, A, O]) watermark(wm int64) error {
	w.wm = wm
	if err := due(w.clocks.event.queue, wm, noMark, w.timer); err != nil {
		return err
	}
	return w.down.watermark(wm)
}

func (w *window[K, I, A, O]) nextTimer() (int64, bool) { return w.clocks.nextTimer() }
func (w *window[K, I, A, O]) mark() uint64             { return w.clocks.mark() }

func (w *window[K, I, A, O]) processingTime(now int64, before uint64) error {
	return due(w.clocks.processing.queue, now, before, w.timer)
}

// end fires the panes of processing time that are open, in the order of their ends.
func (w *window[K, I, A, O]) end() error {
	if err := due(w.clocks.processing.queue, MaxTime, noMark, w.timer); err != nil {
		return err
	}
	return w.down.end()
}

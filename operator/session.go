package operator

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/timers"
)

// sessionWindow is the operator for sessions. A pane is the accumulator of one key and span. It fires at its last millisecond in event
// time (or its end in processing time) and is removed lateness after that; each has a timer with the span as its tag.
type sessionWindow[K comparable, I, A, O any] struct {
	window[K, I, A, O]
	clocks clocks
	panes  *table[A] // by length of the key, key, start and end
	buf    keyBytes
	// sessions lists the panes of each key in order. Derived from panes.
	sessions map[string][]span
}

func newSessionWindow[K comparable, I, A, O any](base window[K, I, A, O], name string, state Codec[A]) *sessionWindow[K, I, A, O] {
	return &sessionWindow[K, I, A, O]{
		window: base, clocks: newClocks(name), panes: newTable(name+"/panes", state), sessions: map[string][]span{},
	}
}

func (w *sessionWindow[K, I, A, O]) record(v I, ts int64, hasTime bool) error {
	at, err := w.enterRecord(v, ts, hasTime)
	if err != nil {
		return err
	}
	return w.session(v, at)
}

// add takes a record into the pane of the key at hand and fires it if it should have fired already.
func (w *sessionWindow[K, I, A, O]) add(v I, s span) error {
	w.locate(s)
	acc, known := w.panes.get(&w.buf)
	acc, err := w.fold(acc, known, v)
	if err != nil {
		return w.user(err)
	}
	w.panes.set(&w.buf, acc)
	return w.refire(s, acc)
}

// refire fires a pane at once if the watermark is past its end: its record was late but allowed.
func (w *sessionWindow[K, I, A, O]) refire(s span, acc A) error {
	if !w.overdue(s) {
		return nil
	}
	at, has := w.ts, w.hasTime
	err := w.fire(w.scope.key, s, s.info(), acc)
	w.begin(at, has)
	return err
}

// locate makes the key of a pane of the key at hand.
func (w *sessionWindow[K, I, A, O]) locate(s span) {
	w.buf.bytes = append(binary.AppendUvarint(w.buf.bytes[:0], uint64(len(w.scope.bytes))), w.scope.bytes...)
	w.buf.bytes = s.appendTo(w.buf.bytes)
	w.buf.sum()
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
func (w *sessionWindow[K, I, A, O]) await(full string, s span) {
	tag, key := full[len(full)-spanBytes:], full[len(full)-spanBytes-len(w.scope.bytes):len(full)-spanBytes]
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

// queue has the timers of all panes.
func (w *sessionWindow[K, I, A, O]) queue() *timers.Queue {
	if w.windows.processing {
		return w.clocks.processing.queue
	}
	return w.clocks.event.queue
}

// forget removes a pane of the key at hand with its timers.
func (w *sessionWindow[K, I, A, O]) forget(s span) {
	w.locate(s)
	w.panes.clear(&w.buf)
	key, tag := string(w.scope.bytes), string(w.buf.bytes[len(w.buf.bytes)-spanBytes:])
	q := w.queue()
	q.Delete(w.fires(s), key, tag)
	q.Delete(w.expires(s), key, tag)
}

// timer fires or removes a pane.
func (w *sessionWindow[K, I, A, O]) timer(t timers.Timer) error {
	s, ok := readSpan(t.Tag)
	if !ok {
		return w.failed("firing a window", fmt.Errorf("%w: a timer's tag %x", ErrEncoding, t.Tag))
	}
	w.begin(t.Time, false)
	if err := w.scope.enterBytes(t.Key); err != nil {
		return w.failed("decoding the key of a timer", err)
	}
	w.locate(s)
	acc, ok := w.panes.get(&w.buf)
	if !ok {
		return nil
	}
	if t.Time == w.expires(s) {
		w.panes.clear(&w.buf)
		w.dropSession(s)
	}
	if t.Time == w.fires(s) {
		return w.fire(w.scope.key, s, s.info(), acc)
	}
	return nil
}

func (w *sessionWindow[K, I, A, O]) watermark(wm int64) error {
	w.wm = wm
	if err := due(w.clocks.event.queue, wm, noMark, w.timer); err != nil {
		return err
	}
	return w.down.watermark(wm)
}

func (w *sessionWindow[K, I, A, O]) nextTimer() (int64, bool) { return w.clocks.nextTimer() }
func (w *sessionWindow[K, I, A, O]) mark() uint64             { return w.clocks.mark() }

func (w *sessionWindow[K, I, A, O]) processingTime(now int64, before uint64) error {
	return due(w.clocks.processing.queue, now, before, w.timer)
}

// end fires the panes of processing time that are open, in the order of their ends.
func (w *sessionWindow[K, I, A, O]) end() error {
	if err := due(w.clocks.processing.queue, MaxTime, noMark, w.timer); err != nil {
		return err
	}
	return w.down.end()
}

// session takes a record into a session of the key at hand: alone it would be a session of its own, which is merged with
// all that it touches.
func (w *sessionWindow[K, I, A, O]) session(v I, at int64) error {
	mine := span{at, later(at, w.windows.size)}
	open := w.sessions[string(w.scope.bytes)]
	first, last, merged := touching(open, mine)
	if w.gone(merged) {
		return w.tooLate(v, w.ts)
	}
	if last-first == 1 && open[first] == merged {
		return w.add(v, merged)
	}
	var acc A
	if first == last && w.agg.Init != nil {
		acc = w.agg.Init()
	}
	for i, s := range open[first:last] {
		w.locate(s)
		part, ok := w.panes.get(&w.buf)
		if !ok {
			return w.failed("merging sessions", fmt.Errorf("assertion: no pane for %v", s.info()))
		}
		w.forget(s)
		if i == 0 {
			acc = part
			continue
		}
		var err error
		if acc, err = w.agg.Merge(acc, part); err != nil {
			return w.user(err)
		}
	}
	acc, err := w.agg.Add(acc, v)
	if err != nil {
		return w.user(err)
	}
	w.locate(merged)
	w.await(w.panes.set(&w.buf, acc).key, merged)
	w.sessions[string(w.scope.bytes)] = slices.Replace(open, first, last, merged)
	return w.refire(merged, acc)
}

// touching finds the sessions that overlap a new one or meet it, as open[first:last], and what they make together. Sessions
// of a key are apart from one another, in order.
func touching(open []span, s span) (first, last int, merged span) {
	first, _ = slices.BinarySearchFunc(open, s.start, func(o span, start int64) int { return cmp.Compare(o.end, start) })
	merged = s
	for last = first; last < len(open) && open[last].start <= s.end; last++ {
		merged.start = min(merged.start, open[last].start)
		merged.end = max(merged.end, open[last].end)
	}
	return first, last, merged
}

// dropSession takes a pane out of the list of its key.
func (w *sessionWindow[K, I, A, O]) dropSession(s span) {
	open := w.sessions[string(w.scope.bytes)]
	i := slices.Index(open, s)
	if i < 0 {
		return
	}
	if len(open) == 1 {
		delete(w.sessions, string(w.scope.bytes))
		return
	}
	w.sessions[string(w.scope.bytes)] = slices.Delete(open, i, i+1)
}

// restored implements restorer: it finds which sessions are open.
func (w *sessionWindow[K, I, A, O]) restored() error {
	clear(w.sessions)
	for _, full := range w.panes.keys() { // in the order of key and start
		key, rest, err := cutSized([]byte(full))
		s, ok := readSpan(string(rest))
		if err != nil || !ok {
			return w.failed("reading back panes", fmt.Errorf("%w: %x", ErrEncoding, full))
		}
		w.sessions[string(key)] = append(w.sessions[string(key)], s)
	}
	return nil
}

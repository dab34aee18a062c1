package operator

import (
	"cmp"
	"fmt"
	"slices"
)

// session takes a record into a session of the key at hand: alone it would be a session of its own, which is merged with
// all that it touches.
func (w *window[K, I, A, O]) session(v I, at int64) error {
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
		w.locate(w.scope.bytes, s)
		part, ok := w.panes.get(w.buf)
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
	w.locate(w.scope.bytes, merged)
	w.await(w.panes.set(w.buf, acc), merged)
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
func (w *window[K, I, A, O]) dropSession(s span) {
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
func (w *window[K, I, A, O]) restored() error {
	clear(w.sessions)
	if w.windows.slide > 0 {
		return nil
	}
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

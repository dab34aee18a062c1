package operator

// Sliding windows whose accumulators can be merged are cut into slices, as in Li et al., "No Pane, No Gain" (SIGMOD Record 34(1),
// 2005): a record is added to the one slice that it falls into, and a window that fires merges the slices that it is made of.
//
// Invariant: of each slice, the next of its windows that is not over has a timer, or an earlier window of the same key has one, which
// will set it.

// slicing is the length of the slices that panes are, in milliseconds; 0 if panes are whole windows: where there is nothing to share, or a
// window may fire again for late records.
func (w *window[K, I, A, O]) slicing() int64 {
	slide := w.windows.slide
	if w.agg.Merge == nil || w.lateness > 0 || slide == 0 || slide == w.windows.size {
		return 0
	}
	return w.windows.slice()
}

// slice is the longest span, in milliseconds, of which all windows are made up. It is for tumbling and sliding windows.
func (w Windows) slice() int64 {
	a, b := w.size, w.slide
	for b > 0 {
		a, b = b, a%b
	}
	return a
}

// sliced takes a record into its slice.
func (w *window[K, I, A, O]) sliced(v I, at, ts int64) error {
	last := w.windows.last(at)
	if last.end <= at || w.gone(last) {
		return w.tooLate(v, ts)
	}
	w.locate(w.scope.bytes, w.sliceAt(sliceOf(at, w.slice)))
	acc, known := w.panes.get(w.buf)
	acc, err := w.fold(acc, known, v)
	if err != nil {
		return w.user(err)
	}
	full := w.panes.set(w.buf, acc)
	if !known {
		w.awaitWindow(w.keyIn(full), w.firstOpen(last, at))
	}
	return nil
}

// sliceOf is where the slice begins that a time falls into.
func sliceOf(at, slice int64) int64 {
	start := at - mod(at, slice)
	if start > at { // below MinTime
		return MinTime
	}
	return start
}

// sliceAt is the slice that begins there. All but one at the beginning of time begin at a multiple of their length.
func (w *window[K, I, A, O]) sliceAt(start int64) span {
	return span{start, later(start, w.slice-mod(start, w.slice))}
}

// firstOpen is the earliest window that a time falls into and that is not over, given the last.
func (w *window[K, I, A, O]) firstOpen(last span, at int64) span {
	first := last
	for first.start >= MinTime+w.windows.slide {
		s := first.before(w.windows.slide)
		if s.end <= at || w.gone(s) {
			break
		}
		first = s
	}
	return first
}

// awaitWindow sets the timer of a window.
func (w *window[K, I, A, O]) awaitWindow(key string, s span) {
	w.buf = s.appendTo(w.buf[:0])
	w.queue().Register(w.fires(s), key, string(w.buf))
}

// fireSlices emits a window of the key at hand, drops the slices that are in no later one, and waits for the next window if that
// has a slice of this one.
func (w *window[K, I, A, O]) fireSlices(key string, s span) error {
	var acc A
	found, kept := false, false
	next := later(s.start, w.windows.slide)
	for part := w.sliceAt(s.start); part.start < s.end; part = w.sliceAt(part.end) {
		w.locate(w.scope.bytes, part)
		more, ok := w.panes.get(w.buf)
		if !ok {
			continue
		}
		if found {
			var err error
			if more, err = w.agg.Merge(acc, more); err != nil {
				return w.user(err)
			}
		}
		acc, found = more, true
		if part.start < next {
			w.panes.clear(w.buf)
		} else {
			kept = true
		}
	}
	if kept {
		w.awaitWindow(key, span{next, later(s.end, w.windows.slide)})
	}
	if !found {
		return nil
	}
	return w.fire(s, acc)
}

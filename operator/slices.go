package operator

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// fixedWindow is the operator for tumbling and sliding windows. A window fires as a whole: when the time is up, all its keys in turn, in the
// order in which they came into it. So there is one thing to wait for at a time, and no timer per key.
//
// Sliding windows whose accumulators can be merged are cut into slices, as in Li et al., "No Pane, No Gain" (SIGMOD Record 34(1),
// 2005): a record is added to the one slice that it falls into, and a window that fires merges the slices that it is made of. A pane is
// a slice then, and otherwise a window. It is dropped, with its keys, when its last window expires.
type fixedWindow[K comparable, I, A, O any] struct {
	window[K, I, A, O]
	slice int64 // ms: panes are slices of windows of this length; 0: whole windows
	place place // of the record before
	last  span  // the last window that it falls into
	panes *panes[K, A]
	fired *firedTable

	// Invariant: if known, next is the window that fires next; none if there is none.
	next  span
	none  bool
	known bool
	round uint64 // counts firings
}

func newFixedWindow[K comparable, I, A, O any](base window[K, I, A, O], name string, state Codec[A]) *fixedWindow[K, I, A, O] {
	w := &fixedWindow[K, I, A, O]{window: base, fired: &firedTable{id: name + "/fired", until: MinTime}}
	w.panes = newPanes(name+"/panes", base.scope.codec, state)
	w.slice, w.place.slice = w.slicing(), w.windows.slice()
	return w
}

// slicing is the length of the slices that panes are, in milliseconds; 0 if panes are whole windows: where there is nothing to share, or a
// window may fire again for late records.
func (w *fixedWindow[K, I, A, O]) slicing() int64 {
	slide := w.windows.slide
	if w.agg.Merge == nil || w.lateness > 0 || slide == w.windows.size {
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

// sliceOf is where the slice begins that a time falls into.
func sliceOf(at, slice int64) int64 {
	start := at - mod(at, slice)
	if start > at { // below MinTime
		return MinTime
	}
	return start
}

// place is a slice, all times in which fall into the same windows.
type place struct {
	slice      int64 // how long slices are, ms
	start, end int64 // of the one at hand
}

// move goes to the slice that a time falls into, and tells whether that is another one.
func (p *place) move(at int64) bool {
	if at >= p.start && at < p.end {
		return false
	}
	p.start = sliceOf(at, p.slice)
	p.end = later(p.start, p.slice-mod(p.start, p.slice))
	return true
}

func (w *fixedWindow[K, I, A, O]) foresight() foreseer[I] {
	return &keysAhead[K, I]{scope: &w.scope, key: w.key, state: []foreseeable{w.panes}}
}

func (w *fixedWindow[K, I, A, O]) record(v I, ts int64, hasTime bool) error {
	at, err := w.enterRecord(v, ts, hasTime)
	if err != nil {
		return err
	}
	if w.place.move(at) {
		w.last = w.windows.last(at)
	}
	last := w.last
	if last.end <= at || w.gone(last) {
		return w.tooLate(v, ts) // earlier ones are gone too
	}
	k := w.panes.index.find(&w.scope.keyBytes)
	if w.slice > 0 {
		_, err := w.add(v, k, w.place.start, last)
		return err
	}
	for s := last; s.end > at && !w.gone(s); s = s.before(w.windows.slide) {
		if k, err = w.add(v, k, s.start, s); err != nil {
			return err
		}
		if s.start < MinTime+w.windows.slide {
			break
		}
	}
	return nil
}

// add takes a record into the pane that begins at start, whose last window is s, and fires that if it should have fired already. k is what
// there is of the key at hand.
func (w *fixedWindow[K, I, A, O]) add(v I, k *keyPanes[K, A], start int64, s span) (*keyPanes[K, A], error) {
	var acc A
	var part *part[A]
	if k != nil {
		if part = k.part(start); part != nil {
			acc = part.acc
		}
	}
	acc, err := w.fold(acc, part != nil, v)
	if err != nil {
		return k, w.user(err)
	}
	if part != nil {
		w.panes.set(k, part, acc)
	} else if k, err = w.begun(k, start, s, acc); err != nil {
		return k, err
	}
	if !w.overdue(s) {
		return k, nil
	}
	at, has := w.ts, w.hasTime
	err = w.fire(k.key, s, s.info(), acc)
	w.begin(at, has)
	return k, err
}

// begun makes a part.
func (w *fixedWindow[K, I, A, O]) begun(k *keyPanes[K, A], start int64, s span, acc A) (_ *keyPanes[K, A], err error) {
	if k == nil {
		if k, err = w.panes.enter(&w.scope.keyBytes); err != nil {
			return nil, w.failed("decoding a key", err)
		}
	}
	in, made := w.panes.pane(start, w.expires(s))
	w.known = w.known && !made
	w.panes.add(k, in, acc)
	return k, nil
}

// lastOf is the last window that has a pane.
func (w *fixedWindow[K, I, A, O]) lastOf(start int64) span {
	if w.slice > 0 {
		return w.windows.last(start)
	}
	return span{start, later(start, w.windows.size)}
}

// await finds the window that fires next: the first that has not fired of the first pane that has one.
func (w *fixedWindow[K, I, A, O]) await() {
	w.known = true
	list := w.panes.panes
	i := sort.Search(len(list), func(i int) bool { return w.fires(w.lastOf(list[i].start)) > w.fired.until })
	if w.none = i == len(list); w.none {
		return
	}
	start := list[i].start
	w.next = w.lastOf(start)
	for w.slice > 0 && w.next.start >= MinTime+w.windows.slide {
		s := w.next.before(w.windows.slide)
		if s.end <= start || w.fires(s) <= w.fired.until {
			break
		}
		w.next = s
	}
}

// due fires what fires until a time and drops what expires.
func (w *fixedWindow[K, I, A, O]) due(until int64) error {
	for {
		if !w.known {
			w.await()
		}
		if w.none || w.fires(w.next) > until {
			break
		}
		if err := w.fireAll(w.next); err != nil {
			return err
		}
		w.passed(w.fires(w.next))
		w.known = false
	}
	w.passed(until)
	return nil
}

// passed notes that all has fired that fires until then.
func (w *fixedWindow[K, I, A, O]) passed(until int64) {
	w.fired.until = max(w.fired.until, until)
	for len(w.panes.panes) > 0 && w.panes.panes[0].expires <= w.fired.until {
		w.panes.drop()
	}
}

// fireAll emits a window: of each slice those keys that no earlier one has.
func (w *fixedWindow[K, I, A, O]) fireAll(s span) error {
	w.round++
	info, end := s.info(), s.end
	if w.slice == 0 {
		end = s.start + 1
	}
	for _, p := range w.panes.panes[w.panes.at(s.start):] {
		if p.start >= end {
			break
		}
		for _, k := range p.keys {
			if k.round == w.round {
				continue
			}
			k.round = w.round
			acc, err := w.merged(k, s.start, end)
			if err == nil {
				err = w.fire(k.key, s, info, acc)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// merged is what a key has between two times: at least one part.
func (w *fixedWindow[K, I, A, O]) merged(k *keyPanes[K, A], start, end int64) (acc A, err error) {
	found := false
	for i := range k.parts {
		t := &k.parts[i]
		if t.start < start {
			continue
		}
		if t.start >= end {
			break
		}
		if !found {
			acc, found = t.acc, true
			continue
		}
		w.enter()
		if acc, err = w.agg.Merge(acc, t.acc); err != nil {
			return acc, w.user(err)
		}
	}
	return acc, nil
}

func (w *fixedWindow[K, I, A, O]) watermark(wm int64) error {
	w.wm = wm
	if !w.windows.processing {
		if err := w.due(wm); err != nil {
			return err
		}
	}
	return w.down.watermark(wm)
}

func (w *fixedWindow[K, I, A, O]) nextTimer() (int64, bool) {
	if !w.windows.processing {
		return 0, false
	}
	if !w.known {
		w.await()
	}
	return w.fires(w.next), !w.none
}

// mark is about timers that are registered while others fire. A window that fires opens none.
func (w *fixedWindow[K, I, A, O]) mark() uint64 { return noMark }

func (w *fixedWindow[K, I, A, O]) processingTime(now int64, _ uint64) error {
	if !w.windows.processing {
		return nil
	}
	return w.due(now)
}

// end fires the windows of processing time that are open, in the order of their ends.
func (w *fixedWindow[K, I, A, O]) end() error {
	if err := w.due(MaxTime); err != nil {
		return err
	}
	return w.down.end()
}

// restored implements restorer.
func (w *fixedWindow[K, I, A, O]) restored() error {
	w.panes.restored(func(start int64) int64 { return w.expires(w.lastOf(start)) })
	return nil
}

// firedTable is the state of how far windows have fired.
type firedTable struct {
	id    string
	until int64 // Invariant: every window that fires until then has fired
}

// ID implements Table.
func (t *firedTable) ID() string { return t.id }

// Freeze implements Table.
func (t *firedTable) Freeze() Frozen {
	return frozenValue(t.id, "until", binary.AppendVarint(nil, t.until))
}

// Load implements Table.
func (t *firedTable) Load(_, value []byte) error {
	v, n := binary.Varint(value)
	if n <= 0 || n != len(value) {
		return fmt.Errorf("%w: how far windows have fired, %x", ErrEncoding, value)
	}
	t.until = v
	return nil
}

package timers

import "fmt"

// Timer is one timer that is set.
type Timer struct {
	Time int64  // milliseconds since the Unix epoch
	Key  string // encoded key
	Tag  string // namespace that the operator chose: a window's bounds, a name
	Reg  uint64 // registration number, unique in its queue
}

// Change is one difference between two freezes of a queue. Of each (time, key, tag) there is at most one.
type Change struct {
	Timer
	Removed bool // the timer fired or was deleted; otherwise it was registered
}

// entry is a timer in its slot.
type entry struct {
	Timer
	hash          uint64 // see index
	chained       int32  // the next in its list there
	bunch         int32  // the one it is in
	ahead, behind int32  // its neighbours there
	// Invariant: fresh >= 0 exactly if the next Freeze reports this timer as set; then it is the position in Queue.fresh.
	fresh   int32
	kept    bool   // it was restored, or reported by a Freeze
	written uint64 // the Freeze that reported it last, by its number; 0 if it was restored, or none has
}

// gone is a timer that is not set any more.
type gone struct {
	Timer
	hash, written uint64
	again         bool // it was to be reported again
}

// Queue is a set of timers in firing order. Use NewQueue.
type Queue struct {
	slots []entry
	free  []int32
	index index // of those in use

	at      map[int64]int32 // bunch of each time that has one
	bunches []bunch
	spare   []int32

	// Invariant: each bunch is in exactly one of the two heaps; the timers of those in held have Reg >= before.
	ready  heap
	held   heap
	before uint64 // the bound of the Pops since held was empty

	fresh   []int32 // slots of the timers set since the last Freeze, and of those to be reported again
	removed []gone  // timers that were reported, or restored, and are gone
	next    uint64  // the next registration number
}

// NewQueue returns an empty queue.
func NewQueue() *Queue {
	return &Queue{at: make(map[int64]int32)}
}

// Register sets a timer. It returns false, changing nothing, if the same (t, key, tag) is set already.
func (q *Queue) Register(t int64, key, tag string) bool {
	h := hash(t, key, tag)
	if _, ok := q.index.find(q.slots, h, t, key, tag); ok {
		return false
	}
	q.report(q.insert(Timer{Time: t, Key: key, Tag: tag, Reg: q.next}, h))
	q.next++
	return true
}

// Restore sets a timer from a checkpoint: it keeps its registration number, later registrations get higher ones, and the
// next Freeze does not report it. Restoring a timer that is set already is a bug of the caller: Restore panics.
func (q *Queue) Restore(t Timer) {
	h := hash(t.Time, t.Key, t.Tag)
	if _, ok := q.index.find(q.slots, h, t.Time, t.Key, t.Tag); ok {
		panic(fmt.Sprintf("timers: assertion: restored twice: %+v", t))
	}
	q.release()
	slot := q.insert(t, h)
	q.slots[slot].fresh, q.slots[slot].kept = -1, true
	q.next = max(q.next, t.Reg+1)
}

// report has the next Freeze report a timer as set.
func (q *Queue) report(slot int32) {
	q.slots[slot].fresh = int32(len(q.fresh))
	q.fresh = append(q.fresh, slot)
}

func (q *Queue) insert(t Timer, h uint64) int32 {
	slot := take(&q.slots, &q.free)
	e := &q.slots[slot]
	e.Timer, e.hash = t, h
	q.index.put(q.slots, slot)
	q.join(slot)
	return slot
}

// Delete removes a timer. It returns false if it is not set.
func (q *Queue) Delete(t int64, key, tag string) bool {
	slot, ok := q.index.find(q.slots, hash(t, key, tag), t, key, tag)
	if ok {
		q.remove(slot)
	}
	return ok
}

// remove takes a timer out of everything and notes the change for the next Freeze.
func (q *Queue) remove(slot int32) Timer {
	e := &q.slots[slot]
	t := e.Timer
	q.leave(slot)
	q.index.remove(q.slots, slot)
	if e.kept {
		q.removed = append(q.removed, gone{t, e.hash, e.written, e.fresh >= 0})
	}
	if e.fresh >= 0 {
		last := len(q.fresh) - 1
		moved := q.fresh[last]
		q.fresh[e.fresh] = moved
		q.slots[moved].fresh = e.fresh
		q.fresh = q.fresh[:last]
	}
	*e = entry{} // drops the strings
	q.free = append(q.free, slot)
	return t
}

// Next returns the time of the first timer in firing order, whenever it was registered.
func (q *Queue) Next() (t int64, ok bool) {
	if b, some := q.ready.min(); some {
		t, ok = q.bunches[b].time, true
	}
	if b, some := q.held.min(); some && (!ok || q.bunches[b].time < t) {
		t, ok = q.bunches[b].time, true
	}
	return t, ok
}

// Pop removes and returns the first timer, in the order (time, registration), that is due at until and whose
// registration number is below the bound. With the bound that Mark gave when a firing began, timers registered during the
// firing wait for a later one.
func (q *Queue) Pop(until int64, before uint64) (Timer, bool) {
	if before != q.before {
		q.release()
		q.before = before
	}
	for {
		b, ok := q.ready.min()
		if !ok || q.bunches[b].time > until {
			return Timer{}, false
		}
		if first := q.inOrder(b).first; q.slots[first].Reg < before {
			return q.remove(first), true
		}
		q.ready.remove(q.bunches, 0)
		q.held.push(q.bunches, b)
	}
}

// release puts the timers that a former bound held back where they can fire.
func (q *Queue) release() {
	for _, b := range q.held.order {
		q.ready.push(q.bunches, b)
	}
	q.held.order = q.held.order[:0]
}

// Mark returns the registration number that the next Register will give.
func (q *Queue) Mark() uint64 { return q.next }

// Len returns how many timers are set.
func (q *Queue) Len() int { return q.index.count }

// Changed is how many timers the next Freeze is going to report as set, and how many as removed, but for those that were set again.
func (q *Queue) Changed() (set, removed int) { return len(q.fresh), len(q.removed) }

// Again looks at so many places, each with something to report for two, from at on, for timers that no Freeze has reported since the one of number
// until, and has the next one report them as if they had been set. It returns where to go on, or 0 at the end. It calls replaced for each, with the
// number of the Freeze that reported it last.
func (q *Queue) Again(at, places int, until uint64, replaced func(written uint64)) (next int) {
	for ; places > 0 && at < len(q.slots); places-- {
		if e := &q.slots[at]; e.kept && e.fresh < 0 && e.written <= until {
			replaced(e.written)
			q.report(int32(at))
			places--
		}
		at++
	}
	if at >= len(q.slots) {
		return 0
	}
	return at
}

// Freeze returns what changed since the last Freeze (or since the queue was made and restored), in no order, and starts anew. A timer that
// came and went in between is not mentioned. It takes time for the changes only. The caller owns the result.
//
// number is the number of this Freeze. replaced is called for each timer that was restored or reported by an earlier one, with that one's number, and is
// gone, unless Again has called it.
func (q *Queue) Freeze(number uint64, replaced func(written uint64)) []Change {
	changes := make([]Change, 0, len(q.fresh)+len(q.removed))
	for _, slot := range q.fresh {
		e := &q.slots[slot]
		e.fresh, e.written, e.kept = -1, number, true
		changes = append(changes, Change{Timer: e.Timer})
	}
	for i := range q.removed {
		t := &q.removed[i]
		if !t.again {
			replaced(t.written)
		}
		if _, again := q.index.find(q.slots, t.hash, t.Time, t.Key, t.Tag); !again {
			changes = append(changes, Change{Timer: t.Timer, Removed: true})
		}
	}
	q.fresh, q.removed = nil, nil // a burst's memory is not kept
	return changes
}

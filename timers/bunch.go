package timers

import (
	"cmp"
	"slices"
)

// bunch is all timers of one time, as a list in the order of their registration. Windows that end together set a timer for each of
// their keys: a list costs the same however many there are, where a heap of timers would compare its way through all of them.
//
// Invariant: a bunch in use has a timer, is in q.at, and is in exactly one heap.
type bunch struct {
	time        int64
	first, last int32 // slots
	heap        *heap
	pos         int32 // there
	mixed       bool  // the list may be in another order
}

// none ends a list.
const none = -1

// join puts a timer at the end of its time's bunch.
func (q *Queue) join(slot int32) {
	e := &q.slots[slot]
	b, ok := q.at[e.Time]
	if !ok {
		b = take(&q.bunches, &q.spare)
		q.bunches[b] = bunch{time: e.Time, first: none, last: none}
		q.at[e.Time] = b
		q.ready.push(q.bunches, b)
	}
	l := &q.bunches[b]
	e.bunch, e.behind, e.ahead = b, none, l.last
	if l.last == none {
		l.first = slot
	} else {
		last := &q.slots[l.last]
		last.behind = slot
		l.mixed = l.mixed || last.Reg > e.Reg
	}
	l.last = slot
}

// leave takes a timer out of its bunch, which goes with its last one.
func (q *Queue) leave(slot int32) {
	e := &q.slots[slot]
	l := &q.bunches[e.bunch]
	if e.ahead == none {
		l.first = e.behind
	} else {
		q.slots[e.ahead].behind = e.behind
	}
	if e.behind == none {
		l.last = e.ahead
	} else {
		q.slots[e.behind].ahead = e.ahead
	}
	if l.first == none {
		l.heap.remove(q.bunches, l.pos)
		delete(q.at, l.time)
		q.spare = append(q.spare, e.bunch)
	}
}

// inOrder gives a bunch in the order of registration: timers of a checkpoint come in any.
func (q *Queue) inOrder(b int32) *bunch {
	l := &q.bunches[b]
	if !l.mixed {
		return l
	}
	var slots []int32
	for s := l.first; s != none; s = q.slots[s].behind {
		slots = append(slots, s)
	}
	slices.SortFunc(slots, func(a, b int32) int { return cmp.Compare(q.slots[a].Reg, q.slots[b].Reg) })
	l.first, l.last, l.mixed = none, none, false
	for _, s := range slots {
		q.join(s)
	}
	return l
}

// take gives a free place of all, whose list is free.
func take[T any](all *[]T, free *[]int32) int32 {
	if n := len(*free); n > 0 {
		i := (*free)[n-1]
		*free = (*free)[:n-1]
		return i
	}
	var zero T
	*all = append(*all, zero)
	return int32(len(*all) - 1)
}

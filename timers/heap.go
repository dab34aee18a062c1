package timers

import "strings"

// heap is a binary heap of slots in firing order, in which each entry knows its position, so that any of them can be
// removed.
type heap struct{ order []int32 }

// less is the firing order. Registration numbers are unique, so it is total.
func less(a, b *entry) bool {
	if a.Time != b.Time {
		return a.Time < b.Time
	}
	if c := strings.Compare(a.Key, b.Key); c != 0 {
		return c < 0
	}
	return a.Reg < b.Reg
}

func (h *heap) min() (slot int32, ok bool) {
	if len(h.order) == 0 {
		return 0, false
	}
	return h.order[0], true
}

func (h *heap) push(slots []entry, slot int32) {
	h.order = append(h.order, slot)
	slots[slot].heap = h
	h.up(slots, len(h.order)-1)
}

// remove takes out the entry at position pos.
func (h *heap) remove(slots []entry, pos int32) {
	last := len(h.order) - 1
	moved := h.order[last]
	h.order = h.order[:last]
	if int(pos) == last {
		return
	}
	h.order[pos] = moved
	if h.down(slots, int(pos)) == int(pos) {
		h.up(slots, int(pos))
	}
}

// up moves the entry at position i towards the front until it is in order.
func (h *heap) up(slots []entry, i int) {
	slot := h.order[i]
	for i > 0 {
		parent := (i - 1) / 2
		if !less(&slots[slot], &slots[h.order[parent]]) {
			break
		}
		h.put(slots, i, h.order[parent])
		i = parent
	}
	h.put(slots, i, slot)
}

// down moves the entry at position i towards the back until it is in order and returns where it came to rest.
func (h *heap) down(slots []entry, i int) int {
	slot := h.order[i]
	for {
		child := 2*i + 1
		if child >= len(h.order) {
			break
		}
		if right := child + 1; right < len(h.order) && less(&slots[h.order[right]], &slots[h.order[child]]) {
			child = right
		}
		if !less(&slots[h.order[child]], &slots[slot]) {
			break
		}
		h.put(slots, i, h.order[child])
		i = child
	}
	h.put(slots, i, slot)
	return i
}

func (h *heap) put(slots []entry, i int, slot int32) {
	h.order[i] = slot
	slots[slot].pos = int32(i)
}

package timers

// heap is a binary heap of bunches by their times, in which each bunch knows its position, so that any of them can be removed. No two
// bunches in a heap have the same time.
type heap struct{ order []int32 }

func (h *heap) min() (bunch int32, ok bool) {
	if len(h.order) == 0 {
		return 0, false
	}
	return h.order[0], true
}

func (h *heap) push(bunches []bunch, b int32) {
	h.order = append(h.order, b)
	bunches[b].heap = h
	h.up(bunches, len(h.order)-1)
}

// remove takes out the bunch at position pos.
func (h *heap) remove(bunches []bunch, pos int32) {
	last := len(h.order) - 1
	moved := h.order[last]
	h.order = h.order[:last]
	if int(pos) == last {
		return
	}
	h.order[pos] = moved
	if h.down(bunches, int(pos)) == int(pos) {
		h.up(bunches, int(pos))
	}
}

// up moves the bunch at position i towards the front until it is in order.
func (h *heap) up(bunches []bunch, i int) {
	b := h.order[i]
	for i > 0 {
		parent := (i - 1) / 2
		if bunches[b].time >= bunches[h.order[parent]].time {
			break
		}
		h.put(bunches, i, h.order[parent])
		i = parent
	}
	h.put(bunches, i, b)
}

// down moves the bunch at position i towards the back until it is in order and returns where it came to rest.
func (h *heap) down(bunches []bunch, i int) int {
	b := h.order[i]
	for {
		child := 2*i + 1
		if child >= len(h.order) {
			break
		}
		if right := child + 1; right < len(h.order) && bunches[h.order[right]].time < bunches[h.order[child]].time {
			child = right
		}
		if bunches[h.order[child]].time >= bunches[b].time {
			break
		}
		h.put(bunches, i, h.order[child])
		i = child
	}
	h.put(bunches, i, b)
	return i
}

func (h *heap) put(bunches []bunch, i int, b int32) {
	h.order[i] = b
	bunches[b].pos = int32(i)
}

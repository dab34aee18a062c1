package timers

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// index finds timers by what each is kept once for, (time, key, tag): a hash table of lists (Knuth, The Art of Computer Programming 3,
// 6.4, algorithm C), whose links are in the slots, which have the hash too. A timer that fires is taken out by that, without looking at its
// key; a map would hash and compare it again, which was a third of what it cost to fire.
//
// Invariant: each timer that is set is in the list of its hash, once.
type index struct {
	heads []int32 // a power of two, or none; none is none
	count int
}

const leastHeads = 16

func hash(time int64, key, tag string) uint64 {
	h := xxhash.Sum64String(key) + uint64(time)*0x9e3779b97f4a7c15 // so that a key's timers differ in all bits
	if tag != "" {
		h ^= bits.RotateLeft64(xxhash.Sum64String(tag), 1) // so that a key as its own tag does not cancel itself
	}
	return h ^ h>>32
}

func (x *index) find(slots []entry, h uint64, time int64, key, tag string) (slot int32, ok bool) {
	if len(x.heads) == 0 {
		return none, false
	}
	for s := x.heads[h&uint64(len(x.heads)-1)]; s != none; s = slots[s].chained {
		if e := &slots[s]; e.hash == h && e.Time == time && e.Key == key && e.Tag == tag {
			return s, true
		}
	}
	return none, false
}

// put enters a slot that has its timer and hash, and is not there yet.
func (x *index) put(slots []entry, slot int32) {
	if x.count >= len(x.heads) {
		x.grow(slots)
	}
	x.count++
	x.link(slots, slot)
}

func (x *index) link(slots []entry, slot int32) {
	head := &x.heads[slots[slot].hash&uint64(len(x.heads)-1)]
	slots[slot].chained, *head = *head, slot
}

func (x *index) remove(slots []entry, slot int32) {
	at := &x.heads[slots[slot].hash&uint64(len(x.heads)-1)]
	for *at != slot {
		if *at == none {
			panic("timers: assertion: a timer that is set is not in its index")
		}
		at = &slots[*at].chained
	}
	*at = slots[slot].chained
	x.count--
}

func (x *index) grow(slots []entry) {
	old := x.heads
	x.heads = make([]int32, max(leastHeads, 2*len(old)))
	for i := range x.heads {
		x.heads[i] = none
	}
	for _, s := range old {
		for s != none {
			next := slots[s].chained
			x.link(slots, s)
			s = next
		}
	}
}

package operator

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// keyBytes is an encoded key with its hash, which is worked out once for all that is looked up by it. Only the owner may look at it:
// the next key takes its memory.
type keyBytes struct {
	bytes []byte
	hash  uint64
}

// sum works out the hash of what is in bytes.
func (k *keyBytes) sum() { k.hash = hashKey(k.bytes) }

// hashKey is for tables in memory. It has the halves of the hash by which records go to tasks in the other order: of that, the keys of a task
// all have the same lowest bits.
func hashKey(b []byte) uint64 { return bits.RotateLeft64(xxhash.Sum64(b), 32) }

// keyIndex finds things by encoded key: a hash table with linear probing (Knuth, The Art of Computer Programming 3, 6.4, algorithms L
// and R). It beats a map because its caller has the hash already, and because a slot has the key beside it.
//
// Invariant: between the slot that a key's hash points to and the key's own there is no empty one; at most three of four are taken.
type keyIndex[E any] struct {
	slots []indexSlot[E] // a power of two, or none
	count int
}

type indexSlot[E any] struct {
	hash uint64
	key  string
	at   *E // nil if the slot is empty
}

const leastSlots = 16

// find gives what is there for a key, nil if there is nothing.
func (x *keyIndex[E]) find(k *keyBytes) *E {
	if len(x.slots) == 0 {
		return nil
	}
	mask := uint64(len(x.slots) - 1)
	for i := k.hash & mask; ; i = (i + 1) & mask {
		s := &x.slots[i]
		if s.at == nil {
			return nil
		}
		if s.hash == k.hash && s.key == string(k.bytes) {
			return s.at
		}
	}
}

// put enters something for a key, in the place of what was there. key must have the bytes and hash of a keyBytes.
func (x *keyIndex[E]) put(hash uint64, key string, e *E) {
	if 4*(x.count+1) > 3*len(x.slots) {
		x.resize(max(leastSlots, 2*len(x.slots)))
	}
	mask := uint64(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &x.slots[i]
		if s.at == nil {
			*s = indexSlot[E]{hash, key, e}
			x.count++
			return
		}
		if s.hash == hash && s.key == key {
			s.at = e
			return
		}
	}
}

// remove takes out a key, which must be there.
func (x *keyIndex[E]) remove(hash uint64, key string) {
	mask := uint64(len(x.slots) - 1)
	i := hash & mask
	for x.slots[i].hash != hash || x.slots[i].key != key || x.slots[i].at == nil {
		if x.slots[i].at == nil {
			panic("operator: assertion: a key that is to be removed is not in its index")
		}
		i = (i + 1) & mask
	}
	x.count--
	for j := i; ; {
		j = (j + 1) & mask
		s := &x.slots[j]
		if s.at == nil {
			break
		}
		if (j-s.hash)&mask >= (j-i)&mask { // its way passes the hole
			x.slots[i] = *s
			i = j
		}
	}
	x.slots[i] = indexSlot[E]{}
	if len(x.slots) > leastSlots && 8*x.count < len(x.slots) {
		x.resize(len(x.slots) / 2) // a burst's memory is not kept
	}
}

func (x *keyIndex[E]) resize(n int) {
	old := x.slots
	x.slots = make([]indexSlot[E], n)
	mask := uint64(n - 1)
	for i := range old {
		if old[i].at == nil {
			continue
		}
		j := old[i].hash & mask
		for x.slots[j].at != nil {
			j = (j + 1) & mask
		}
		x.slots[j] = old[i]
	}
}

package operator

import (
	"encoding/binary"
	"iter"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// keyBytes is an encoded key with its hash, which is worked out once for all that is looked up by it. Only the owner may look at it:
// the next key takes its memory.
type keyBytes struct {
	bytes []byte
	hash  uint64
	short shortKey
}

// sum works out the rest from what is in bytes.
func (k *keyBytes) sum() { k.hash, k.short = hashKey(k.bytes), shorten(k.bytes) }

// hashKey is for tables in memory. It has the halves of the hash by which records go to tasks in the other order: of that, the keys of a task
// all have the same lowest bits.
func hashKey(b []byte) uint64 { return bits.RotateLeft64(xxhash.Sum64(b), 32) }

// shortKey is a key of at most 15 bytes, all of it, with the length in the highest byte. All longer ones are the same.
type shortKey [2]uint64

// longKey has a length that is none.
var longKey = shortKey{0, 0xff << 56}

// shorten fits a key in two words, by words that overlap.
func shorten(b []byte) shortKey {
	n := len(b)
	switch size := uint64(n) << 56; {
	case n > 15:
		return longKey
	case n >= 8:
		return shortKey{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])>>(8*(16-n)) | size}
	case n >= 4:
		return shortKey{uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<(8*(n-4)), size}
	case n > 0:
		return shortKey{uint64(b[0]) | uint64(b[n/2])<<(8*(n/2)) | uint64(b[n-1])<<(8*(n-1)), size}
	}
	return shortKey{}
}

// indexed is what a keyIndex may hold.
type indexed[E any] interface {
	*E
	// name is the encoded key and its hash. They do not change.
	name() (key string, hash uint64)
}

// keyIndex finds things by encoded key: a hash table with linear probing (Knuth, The Art of Computer Programming 3, 6.4, algorithms L
// and R). It beats a map because its caller has the hash already, and because a slot has a short key beside it: memory that is looked at
// for nothing but to see that it is the right one costs as much as all else.
//
// Invariant: between the slot that a key's hash points to and the key's own there is no empty one; at most three of four are taken.
type keyIndex[E any, P indexed[E]] struct {
	slots []indexSlot[E] // a power of two, or none
	count int
}

type indexSlot[E any] struct {
	hash  uint64
	short shortKey
	at    *E // nil if the slot is empty
}

const leastSlots = 16

// find gives what is there for a key, nil if there is nothing.
func (x *keyIndex[E, P]) find(k *keyBytes) *E {
	if len(x.slots) == 0 {
		return nil
	}
	mask := uint64(len(x.slots) - 1)
	for i := k.hash & mask; ; i = (i + 1) & mask {
		s := &x.slots[i]
		if s.at == nil {
			return nil
		}
		if s.hash == k.hash && s.short == k.short && (s.short != longKey || x.isOf(s.at, k.bytes)) {
			return s.at
		}
	}
}

// isOf tells whether a key is e's.
func (x *keyIndex[E, P]) isOf(e *E, key []byte) bool {
	k, _ := P(e).name()
	return k == string(key)
}

// all goes through what is there, in no order. Nothing may be put or removed meanwhile.
func (x *keyIndex[E, P]) all() iter.Seq[*E] {
	return func(yield func(*E) bool) {
		for i := range x.slots {
			if e := x.slots[i].at; e != nil && !yield(e) {
				return
			}
		}
	}
}

// put enters something by its name, in the place of what was there.
func (x *keyIndex[E, P]) put(e *E) {
	key, hash := P(e).name()
	short := shorten([]byte(key))
	if 4*(x.count+1) > 3*len(x.slots) {
		x.resize(max(leastSlots, 2*len(x.slots)))
	}
	mask := uint64(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &x.slots[i]
		if s.at == nil {
			*s = indexSlot[E]{hash, short, e}
			x.count++
			return
		}
		if s.hash == hash && s.short == short && (short != longKey || x.isOf(s.at, []byte(key))) {
			s.at = e
			return
		}
	}
}

// remove takes out what is found by the name of e, which must be there.
func (x *keyIndex[E, P]) remove(e *E) {
	key, hash := P(e).name()
	short := shorten([]byte(key))
	mask := uint64(len(x.slots) - 1)
	i := hash & mask
	for s := &x.slots[i]; s.at == nil || s.hash != hash || s.short != short || short == longKey && !x.isOf(s.at, []byte(key)); s = &x.slots[i] {
		if s.at == nil {
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

func (x *keyIndex[E, P]) resize(n int) {
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

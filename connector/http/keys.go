package http

import "crypto/sha256"

// keyHash stands for an idempotency key: 128 bits, so that two keys are never taken for one.
type keyHash [16]byte

func hashKey(key string) keyHash {
	full := sha256.Sum256([]byte(key))
	return keyHash(full[:16])
}

// taken is what is known of a request that is in a log.
type taken struct {
	position uint64 // of its record
	first    uint64
	lines    uint64
	sum      uint64 // record.sum
}

// keyIndex has the newest keys of a log. It is a function of the records that the log holds, so that a restart, or the keeper of a copy,
// has the same.
//
// Invariant: order has the keys of byKey, and positions rise.
type keyIndex struct {
	most  int
	byKey map[keyHash]taken
	order []keyHash
	head  int // of order; what is before it is gone
}

func newKeyIndex(most int) keyIndex { return keyIndex{most: most, byKey: make(map[keyHash]taken)} }

func (x *keyIndex) find(key string) (taken, bool) {
	t, ok := x.byKey[hashKey(key)]
	return t, ok
}

// add takes in the record at a position. A key that is there already is of a request that came again after it was forgotten and
// remembered: the log holds both, the newer counts.
func (x *keyIndex) add(position uint64, r *record) {
	if r.Key == "" {
		return
	}
	h := hashKey(r.Key)
	if _, known := x.byKey[h]; known {
		x.remove(h)
	}
	x.byKey[h] = taken{position: position, first: r.First, lines: r.Lines, sum: r.sum()}
	x.order = append(x.order, h)
	for len(x.byKey) > x.most {
		x.dropOldest()
	}
}

// remove takes one key out of the middle. It happens once per key that is used again after it was forgotten by a crash, so it may be
// slow.
func (x *keyIndex) remove(h keyHash) {
	delete(x.byKey, h)
	for i := x.head; i < len(x.order); i++ {
		if x.order[i] == h {
			x.order = append(x.order[:i], x.order[i+1:]...)
			return
		}
	}
}

func (x *keyIndex) dropOldest() {
	delete(x.byKey, x.order[x.head])
	x.head++
	if x.head > len(x.order)/2 && x.head > 1024 {
		x.order = append([]keyHash(nil), x.order[x.head:]...)
		x.head = 0
	}
}

// below forgets the keys of records below a position.
func (x *keyIndex) below(position uint64) {
	for x.head < len(x.order) && x.byKey[x.order[x.head]].position < position {
		x.dropOldest()
	}
}

// from forgets the keys of records from a position on.
func (x *keyIndex) from(position uint64) {
	for n := len(x.order); n > x.head && x.byKey[x.order[n-1]].position >= position; n = len(x.order) {
		delete(x.byKey, x.order[n-1])
		x.order = x.order[:n-1]
	}
}

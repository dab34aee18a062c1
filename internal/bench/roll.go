package bench

import (
	"fmt"
	"math/bits"
)

// roll is which of the records that are expected were seen.
type roll struct {
	expect     uint64   // their numbers are below
	seen       []uint64 // a bit per record
	count      uint64   // different ones
	duplicates uint64
	strange    uint64 // that nobody sent
}

func newRoll(expect uint64) roll { return roll{expect: expect, seen: make([]uint64, expect/64+1)} }

// call notes a record. It tells whether it is one that is expected, the first time or not.
func (r *roll) call(n uint64) bool {
	if n >= r.expect {
		r.strange++
		return false
	}
	if bit := uint64(1) << (n % 64); r.seen[n/64]&bit != 0 {
		r.duplicates++
	} else {
		r.seen[n/64] |= bit
		r.count++
	}
	return true
}

// end says that only so many records were sent: whatever was seen beyond is strange.
func (r *roll) end(sent uint64) {
	if sent > r.expect {
		panic(fmt.Sprintf("bench: assertion: %d records were sent, %d at most were expected", sent, r.expect))
	}
	for n := sent; n < r.expect; n++ {
		if r.seen[n/64] == 0 {
			n |= 63 // the rest of the word
			continue
		}
		if bit := uint64(1) << (n % 64); r.seen[n/64]&bit != 0 {
			r.seen[n/64] &^= bit
			r.count--
			r.strange++
		}
	}
	r.expect = sent
}

// lost is how many records were never seen.
func (r *roll) lost() uint64 {
	seen := 0
	for _, word := range r.seen {
		seen += bits.OnesCount64(word)
	}
	return r.expect - uint64(seen)
}

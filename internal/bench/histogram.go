package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts times in microseconds. Buckets are as wide as a time's highest 7 bits tell apart: it errs by 1% at most. It takes no memory
// while it is filled, so that measuring many records makes no garbage. Any goroutine may add; the zero histogram is empty.
type histogram struct {
	counts [fineBuckets * (longestTime - fineBits + 1)]atomic.Uint64
}

const (
	fineBits    = 6
	fineBuckets = 1 << fineBits
	longestTime = 40 // bits of microseconds: 12 days
)

// add counts a time. What is below 0 or beyond the longest counts as those.
func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(min(uint64(max(0, d.Microseconds())), 1<<longestTime-1))].Add(1)
}

func bucketOf(v uint64) int {
	shift := max(0, bits.Len64(v)-fineBits-1)
	return fineBuckets*shift + int(v>>shift)
}

// middle is the middle of a bucket, in microseconds.
func middle(bucket int) float64 {
	shift := max(0, bucket/fineBuckets-1)
	return (float64(bucket-fineBuckets*shift) + 0.5) * float64(uint64(1)<<shift)
}

// count is how many times were added.
func (h *histogram) count() (n uint64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// millis is the q-quantile, in milliseconds; -1 if nothing was added.
func (h *histogram) millis(q float64) float64 {
	n := h.count()
	if n == 0 {
		return -1
	}
	rank := min(uint64(q*float64(n)), n-1)
	for i := range h.counts {
		c := h.counts[i].Load()
		if rank < c {
			return middle(i) / 1000
		}
		rank -= c
	}
	panic("bench: assertion: a histogram shrank")
}

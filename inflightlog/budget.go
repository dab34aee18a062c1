package inflightlog

import (
	"math"
	"sync"
	"sync/atomic"
)

// Budget bounds what all logs of a worker retain, in memory and on disk. It is safe for concurrent use.
//
// A sealed batch that does not fit into memory makes its log spill its oldest batches. What fits neither in memory nor on
// disk is kept all the same, within the reserve and if need be beyond it: a batch is never dropped. The owner of the worker
// stops sources while Full, so that only what is already under way uses the reserve: barriers get through, a checkpoint
// completes and truncation frees space. If the worker is Exhausted it must ask for a global rollback, which frees all logs.
type Budget struct {
	memory, disk, reserve int64 // limits, bytes
	files                 Files // nil: nowhere to spill

	usedMemory, usedDisk atomic.Int64
	named                atomic.Uint64 // files created so far; makes their names unique

	mu struct {
		sync.Mutex
		err      error
		failures uint64
	}
}

// NewBudget gives a budget of that many bytes in memory, on disk, and in reserve beyond the two. Without files nothing
// spills.
func NewBudget(memory, disk, reserve int64, files Files) *Budget {
	return &Budget{memory: memory, disk: disk, reserve: reserve, files: files}
}

// unlimited is the budget of a log that was given none.
func unlimited() *Budget { return NewBudget(math.MaxInt64, 0, 0, nil) }

// over gives how much of the reserve is in use.
func (b *Budget) over() int64 {
	return max(0, b.usedMemory.Load()-b.memory) + max(0, b.usedDisk.Load()-b.disk)
}

// Full tells that the reserve is in use: sources must not take new input until it no longer is. A failed write shows here as
// soon as it pushes memory over its limit.
func (b *Budget) Full() bool { return b.over() > 0 }

// Exhausted tells that more than the reserve is in use.
func (b *Budget) Exhausted() bool { return b.over() > b.reserve }

// Used gives the bytes in use. Memory counts sealed payloads plus BatchOverhead each, and what was read ahead; disk counts
// the sizes of the segment files.
func (b *Budget) Used() (memory, disk int64) { return b.usedMemory.Load(), b.usedDisk.Load() }

// Err gives the error of the latest write to a segment file, nil if it succeeded. What could not be written stayed in memory.
func (b *Budget) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.err
}

// Failures counts the writes that failed.
func (b *Budget) Failures() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.failures
}

// wrote notes how a write ended.
func (b *Budget) wrote(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.err = err
	if err != nil {
		b.mu.failures++
	}
}

// takeMemory takes n bytes if they are within the limit.
func (b *Budget) takeMemory(n int64) bool { return take(&b.usedMemory, n, b.memory) }

// forceMemory takes n bytes whatever the limit.
func (b *Budget) forceMemory(n int64) { b.usedMemory.Add(n) }

// takeDisk takes n bytes if they are within limit and reserve.
func (b *Budget) takeDisk(n int64) bool {
	return take(&b.usedDisk, n, b.disk+min(b.reserve, math.MaxInt64-b.disk))
}

func (b *Budget) freeMemory(n int64) {
	assert(b.usedMemory.Add(-n) >= 0, "freed %d bytes of memory that were not taken", n)
}

func (b *Budget) freeDisk(n int64) {
	assert(b.usedDisk.Add(-n) >= 0, "freed %d bytes of disk that were not taken", n)
}

func take(used *atomic.Int64, n, limit int64) bool {
	for {
		u := used.Load()
		if u+n > limit {
			return false
		}
		if used.CompareAndSwap(u, u+n) {
			return true
		}
	}
}

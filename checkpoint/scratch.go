package checkpoint

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
)

// scratch has the buffers in which images are built: one that grows is copied again and again, and new memory is slow to write to. A sync.Pool
// forgets what two garbage collections have not seen in use; with much state there are more of those than checkpoints.
var scratch buffers

// buffers keeps some buffers for the next user, as many as can be in use at once without waiting for a processor.
type buffers struct {
	mu   sync.Mutex
	free [][]byte
}

const (
	maxScratch  = 64 << 20       // bounds each buffer that is kept,
	keptScratch = 2 * maxScratch // and all together
)

// take gives an empty buffer.
func (b *buffers) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.free)
	if n == 0 {
		return nil
	}
	buf := b.free[n-1]
	b.free = slices.Delete(b.free, n-1, n)
	return buf[:0]
}

// give takes a buffer back that nobody uses any more. The greatest ones are kept, and taken first.
func (b *buffers) give(buf []byte) {
	if cap(buf) == 0 || cap(buf) > maxScratch {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	at, _ := slices.BinarySearchFunc(b.free, cap(buf), func(kept []byte, size int) int { return cmp.Compare(cap(kept), size) })
	b.free = slices.Insert(b.free, at, buf)
	kept := 0
	for _, buf := range b.free {
		kept += cap(buf)
	}
	for len(b.free) > runtime.GOMAXPROCS(0) || kept > keptScratch {
		kept -= cap(b.free[0])
		b.free = slices.Delete(b.free, 0, 1)
	}
}

package checkpoint

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Buffers that are given back are given out again, the greatest first, each to one user, whatever the garbage collector does meanwhile.
func TestScratchKeepsTheGreatestBuffers(t *testing.T) {
	var b buffers
	require.Nil(t, b.take())
	n := runtime.GOMAXPROCS(0)
	for i := range n + 3 {
		b.give(make([]byte, 5, 1000*(i+1)))
	}
	b.give(nil)
	b.give(make([]byte, 0, maxScratch+1))
	runtime.GC()
	runtime.GC()
	for i := range n {
		buf := b.take()
		require.Empty(t, buf)
		require.Equal(t, 1000*(n+3-i), cap(buf))
	}
	require.Nil(t, b.take(), "no buffer has two users")
}

package determinant

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Histories that go on from the same checkpoint do not overlap, whatever each of them logs before the next.
func TestHistoriesAreApart(t *testing.T) {
	checkpoint := LogOffset(123_456)
	first, ok := checkpoint.Anew(1)
	require.True(t, ok)
	second, ok := checkpoint.Anew(2)
	require.True(t, ok)
	logged := LogOffset(64 << 30) // more than a worker's memory is likely to hold
	require.Less(t, checkpoint+logged, first)
	require.Less(t, first+logged, second)
	require.True(t, first.Beyond(checkpoint+logged))
	require.True(t, second.Beyond(first+logged))
	require.False(t, (checkpoint + logged).Beyond(checkpoint))
	require.False(t, checkpoint.Beyond(first))
	require.EqualValues(t, 123_456+64<<30, (second + logged).Bytes())

	later, ok := (second + logged).Anew(1)
	require.True(t, ok)
	require.True(t, later.Beyond(second+2*logged))
	require.EqualValues(t, 123_456+64<<30, later.Bytes())
}

func TestOffsetsMayBeUsedUp(t *testing.T) {
	last, ok := LogOffset(5).Anew(math.MaxUint64 / uint64(historyGap))
	require.True(t, ok)
	_, ok = last.Anew(1)
	require.False(t, ok)
	_, ok = LogOffset(0).Anew(math.MaxUint64)
	require.False(t, ok)
}

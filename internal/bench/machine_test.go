package bench

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProcessorTime(t *testing.T) {
	before, after := processorTime{all: 1000, idle: 700, stolen: 10}, processorTime{all: 1400, idle: 800, stolen: 30}
	busy, stolen := after.since(before)
	require.InDelta(t, 70, busy, 1e-9)
	require.InDelta(t, 5, stolen, 1e-9)
	busy, stolen = processorTime{}.since(processorTime{})
	require.Equal(t, []float64{-1, -1}, []float64{busy, stolen}, "a system that does not tell")
	if now := processors(); now.all > 0 {
		require.Positive(t, now.idle)
		require.LessOrEqual(t, now.idle+now.stolen, now.all)
	}
}

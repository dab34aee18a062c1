package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPaceFollowsFailures(t *testing.T) {
	var p pace
	require.False(t, p.due(1000), "no failure, no haste")
	for now := int64(1000); now <= 2000; now += 100 {
		p.failed(now)
	}
	p.start(2010)
	require.False(t, p.due(2500), "one is under way")
	p.complete(2030) // 20 ms: sqrt(2*100*20) is 63 ms
	require.InDelta(t, 20, p.cost, 0.1)
	require.False(t, p.due(2070))
	require.True(t, p.due(2080))
	require.False(t, p.due(2000+forgetAfterGaps*200), "failures that are long ago are forgotten")
	require.False(t, p.due(2080), "and stay so until there are new ones")
}

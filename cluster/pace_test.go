package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
)

func TestPaceFollowsFailures(t *testing.T) {
	var p pace
	require.False(t, p.due(1000, false), "no failure, no haste")
	for now := int64(1000); now <= 2000; now += 100 {
		p.failed(now)
	}
	p.start(2010)
	require.False(t, p.due(2500, false), "one is under way")
	p.complete(2030) // 20 ms, 6 of which are lost: sqrt(2*100*6) is 35 ms
	require.InDelta(t, 20, p.cost, 0.1)
	require.False(t, p.due(2040, false))
	require.True(t, p.due(2050, false))
	require.True(t, p.soon(2050))
	require.False(t, p.due(2000+forgetAfterGaps*200, false), "failures that are long ago are forgotten")
	require.False(t, p.due(2080, false), "and stay so until there are new ones")
	require.False(t, p.soon(2080))
	for range 9 {
		p.failed(2080)
		p.failed(2080 + soonEnough*soonEnough)
	}
	p.cost = soonEnough
	require.False(t, p.soon(2080+soonEnough*soonEnough), "they are so far apart that the next checkpoint is, too")
}

// Workers that die together are one failure: nothing says that the next is near.
func TestFailuresAtOnceAreOne(t *testing.T) {
	var p pace
	for _, now := range []int64{1000, 1005, 1050, 1000 + checkpoint.AtOnce - 1} {
		p.failed(now)
	}
	require.False(t, p.due(1200, false))
	p.failed(2000)
	require.True(t, p.due(2400, false))
	require.InDelta(t, 1000/4, p.gap, 0.1, "four came in a second")

	var frequent pace // those that go on are no burst
	for now := int64(1000); now < 11_000; now += 30 {
		frequent.failed(now)
	}
	require.InDelta(t, 30, frequent.gap, 1)
	frequent.start(11_000)
	frequent.failed(11_010)
	frequent.failed(11_050)
	frequent.complete(12_000)
	require.Zero(t, frequent.cost, "failures have prolonged it, whether they count or not")
}

// A checkpoint that begins while a task recovers holds up the tasks behind it. A recovery gets a part of the time between failures for itself.
func TestPaceLeavesARecoveryItsTime(t *testing.T) {
	var p pace
	var now int64
	for range 5 {
		now += 1000
		p.failed(now)
	}
	p.start(now - 900)
	p.complete(now - 880)
	require.True(t, p.due(now+200, false))
	require.False(t, p.due(now+200, true))
	require.True(t, p.due(now+250, true), "the next failure may come before this recovery is over")
	for range 30 {
		now += 4000
		p.failed(now)
	}
	require.False(t, p.due(now+2990, true))
	require.True(t, p.due(now+3010, true), "a second is left for the checkpoint")
}

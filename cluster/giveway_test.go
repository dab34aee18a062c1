package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// gives has a source give what it may for some milliseconds, of what comes due at a rate, and returns how much that was.
func gives(p *sourcePace, from, to, lost int64, rate float64, taken uint64) uint64 {
	began, due := taken, float64(taken)
	for now := from; now < to; now++ {
		due += rate
		taken += uint64(p.allow(now, lost, taken, max(0, int(due-float64(taken)))))
	}
	return taken - began
}

func TestASourceGivesWayToARecovery(t *testing.T) {
	const rate, lost = 100, 5000
	var p sourcePace
	n := gives(&p, 1000, lost, 0, rate, 0)
	require.EqualValues(t, 4000*rate, n, "all that is due while nothing is lost")
	for at := int64(lost); at < lost+giveWayMillis; at += 40 { // evenly: nobody behind it is without records
		share := giveWayLater
		if at < lost+givingAtFirst {
			share = giveWayShare
		}
		given := gives(&p, at, at+40, lost, rate, n)
		require.InDelta(t, 40*rate*share, given, 2*leastAllowed, "at %d", at)
		n += given
	}
	require.Equal(t, 1000, p.allow(lost+giveWayMillis, lost, n, 1000), "not for ever")
	p.allow(6000, 6000, n, 1000)
	require.Equal(t, 1000, p.allow(6001, 0, n, 1000), "not when it is over")
}

func TestASlowSourceGivesWayToNothing(t *testing.T) {
	var p sourcePace
	n := gives(&p, 1000, 5000, 0, giveWayRate/2, 0)
	require.EqualValues(t, 50*giveWayRate/2, gives(&p, 5000, 5050, 5000, giveWayRate/2, n))
	var fresh sourcePace
	require.InDelta(t, 80*giveWayRate*giveWayShare, gives(&fresh, 5000, 5080, 5000, 100*giveWayRate, 0), leastAllowed, "one that has only begun gives little")
}

// TestPaceIsWithinItsLimits gives a source any history: what it may give is never negative, never more than asked for, and all of that
// once nothing is lost, or long enough after a loss, or if the clock goes back.
func TestPaceIsWithinItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p sourcePace
		now, taken, lost := int64(1000), uint64(0), int64(0)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now += rapid.Int64Range(-100, 1000).Draw(t, "passed")
			if rapid.Bool().Draw(t, "changes") {
				lost = rapid.SampledFrom([]int64{0, max(1, now), max(1, now-giveWayMillis)}).Draw(t, "lost")
			}
			limit := rapid.IntRange(1, 100_000).Draw(t, "limit")
			n := p.allow(now, lost, taken, limit)
			require.True(t, n >= 0 && n <= limit, "%d of %d", n, limit)
			if lost == 0 || now < lost || now >= lost+giveWayMillis {
				require.Equal(t, limit, n)
			}
			taken += uint64(n)
		}
	})
}

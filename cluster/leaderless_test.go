package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNoLeaderIsSaidNowAndThen(t *testing.T) {
	var l leaderless
	begin := time.Now()
	var said []time.Duration
	for at := time.Duration(0); at < 2*time.Minute+10*time.Second; at += 100 * time.Millisecond {
		if l.due(false, begin.Add(at)) {
			said = append(said, at)
		}
	}
	require.Equal(t, []time.Duration{noLeaderNotice, noLeaderNotice + noLeaderAgain, noLeaderNotice + 2*noLeaderAgain}, said)
	later := begin.Add(time.Hour)
	require.False(t, l.due(true, later))
	require.False(t, l.due(false, later), "a new outage is said after its own first seconds")
	require.True(t, l.due(false, later.Add(noLeaderNotice)))
}

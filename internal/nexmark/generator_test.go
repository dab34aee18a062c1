package nexmark

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// stream gives n events from a number on, in calls of the given size.
func stream(t testing.TB, c Config, first uint64, n, size int) []Event {
	t.Helper()
	g, err := NewGenerator(c)
	require.NoError(t, err)
	var events []Event
	for done := 0; done < n; done += size {
		events = append(events, g.Append(nil, first+uint64(done), min(size, n-done))...)
	}
	return events
}

func digest(events []Event) string {
	h := md5.New()
	var line []byte
	for i := range events {
		line = AppendTSV(line[:0], &events[i])
		h.Write(line)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// The streams of Beam's own generator.
func TestStreamIsBeams(t *testing.T) {
	for n, want := range map[int]string{
		5000:   "4539f174393c45a09eccffb1e8b04b0d",
		100000: "21aea36ebbb50fd9464125799630ea71",
	} {
		for _, size := range []int{50, 777, n} {
			require.Equal(t, want, digest(stream(t, Config{}, 0, n, size)), "%d events, %d per call", n, size)
		}
	}
}

// Far from its beginning the stream is as it was there, up to the last event whose time fits.
func TestFarEvents(t *testing.T) {
	for _, c := range []Config{{Rate: 1}, {}, {Rate: maxRate, Group: 10}, {Rate: maxRate, Group: 1<<31 - 1}} {
		most := c.Most()
		for _, e := range stream(t, c, most-200, 200, 50) {
			require.Greater(t, e.Time(), int64(DefaultBase), "%+v", c)
			if e.Kind == AuctionKind {
				require.Greater(t, e.Auction.Expires, e.Auction.Time, "%+v", c)
			}
		}
		o := SourceOptions{Events: most, EventRate: c.Rate, Group: c.Group}
		require.NoError(t, o.Validate())
		o.Events++
		require.ErrorContains(t, o.Validate(), "fit")
	}
	lines := func(group, first uint64) (all []string) {
		for _, e := range stream(t, Config{Rate: maxRate, Group: group}, first, 100, 100) {
			all = append(all, string(AppendTSV(nil, &e)))
		}
		return all
	}
	const far = 1 << 62 / 100 * 100 // its product with the step of groups does not fit
	require.ElementsMatch(t, lines(1, far), lines(100, far))
	require.NotEqual(t, lines(1, far), lines(100, far))
}

func BenchmarkGenerator(b *testing.B) {
	for _, size := range []int{EpochEvents, 1000} {
		b.Run(fmt.Sprintf("%d per call", size), func(b *testing.B) {
			g, err := NewGenerator(Config{})
			require.NoError(b, err)
			var events []Event
			b.ReportAllocs()
			for i := 0; i < b.N; i += size {
				events = g.Append(events[:0], uint64(i), size)
			}
		})
	}
}

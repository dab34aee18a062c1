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

package nats

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// BenchmarkSink writes records of 100 bytes to a server process, in writes of so many and with a determinant each.
func BenchmarkSink(b *testing.B) {
	for _, records := range []int{1, 100, 2000} {
		b.Run(fmt.Sprintf("%d-records-a-write", records), func(b *testing.B) {
			p := newProcess(b)
			s := newBench(b, p.address()).open()
			_, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
			require.NoError(b, err)
			w := operator.StoreWrite{Delta: bytes.Repeat([]byte{1}, 4*records)}
			for range records {
				w.Records = append(w.Records, bytes.Repeat([]byte{'x'}, 100))
			}
			var took []time.Duration
			at := determinant.Cursor{Epoch: 1}
			b.ResetTimer()
			for b.Loop() {
				w.Start, w.End = at, determinant.Cursor{Next: at.Next + determinant.Seq(records), Epoch: 1, Bytes: 1}
				began := time.Now()
				require.NoError(b, s.Write(ctx, 1, w))
				took = append(took, time.Since(began))
				at = w.End
			}
			slices.Sort(took)
			b.ReportMetric(float64(records*b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
		})
	}
}

// BenchmarkSource reads messages of 100 bytes from a server process.
func BenchmarkSource(b *testing.B) {
	p := newProcess(b)
	js := plain(b, p.address())
	const n = 50_000
	input(b, js, "in", 0)
	for range n {
		_, err := js.PublishAsync("in.0", bytes.Repeat([]byte{'x'}, 100))
		require.NoError(b, err)
	}
	<-js.PublishAsyncComplete()
	o := sourceOptions(p.address(), "in")
	o.Bounded = true
	s := Messages(o)
	split := splitsOf(b, s)[0]
	b.ResetTimer()
	for b.Loop() {
		r, err := s.Open(ctx, split, 0)
		require.NoError(b, err)
		all, _, _ := take(b, r, -1)
		require.Len(b, all, n)
		require.NoError(b, r.Close())
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkFence reads back what a store holds after so many writes.
func BenchmarkFence(b *testing.B) {
	p := newProcess(b)
	s := newBench(b, p.address()).open()
	_, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
	require.NoError(b, err)
	const writes = 1000
	for i := range writes {
		require.NoError(b, s.Write(ctx, 1, output{}.write(10*i, 10*i+10)))
	}
	b.ResetTimer()
	for b.Loop() {
		stored, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
		require.NoError(b, err)
		require.Len(b, stored.Deltas, writes)
	}
}

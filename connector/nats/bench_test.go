package nats

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
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

// BenchmarkFence reads back what a store holds after so many writes: in batches, and of a stream that does not allow them.
func BenchmarkFence(b *testing.B) {
	for _, writes := range []int{1000, 5000} {
		for _, direct := range []bool{true, false} {
			b.Run(fmt.Sprintf("writes=%d/batches=%v", writes, direct), func(b *testing.B) {
				bench := newBench(b, newProcess(b).address())
				s := bench.open()
				_, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
				require.NoError(b, err)
				for i := range writes {
					require.NoError(b, s.Write(ctx, 1, output{}.write(10*i, 10*i+10)))
				}
				allowDirect(b, bench.js, direct)
				conn, _, err := s.(*store).part.link.get()
				require.NoError(b, err)
				before := conn.Stats().OutMsgs
				b.ResetTimer()
				for b.Loop() {
					stored, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
					require.NoError(b, err)
					require.Len(b, stored.Deltas, writes)
				}
				b.ReportMetric(float64(conn.Stats().OutMsgs-before)/float64(b.N), "requests/op")
			})
		}
	}
}

// BenchmarkLatency measures, at 10,000 records/s through a job from stream to stream, how long after a record was due a plain
// subscriber sees it.
func BenchmarkLatency(b *testing.B) {
	const rate = 10_000
	p := newProcess(b)
	js := plain(b, p.address())
	makeStream(b, js, jetstream.StreamConfig{Name: "in", Subjects: []string{"in.*"}})
	job := operator.NewJob("latency")
	all := operator.From(job, "in", Decoded(Messages(sourceOptions(p.address(), "in")), func(m Message) (int64, error) {
		return strconv.ParseInt(string(m.Data), 10, 64)
	}))
	drawn := operator.Map(operator.Rebalanced(all), "draw", func(ctx operator.Context, due int64) (int64, error) {
		ctx.Rand().Uint64()
		return due, nil
	})
	operator.To(drawn, "out", NewSink(SinkOptions{Connection: Connection{Servers: []string{p.address()}}, Stream: "OUT", Subject: "out"}))
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	state := b.TempDir()
	go func() {
		_, err := understudy.Run(running, job, understudy.Options{StateDir: state, Parallelism: outputs})
		done <- err
	}()
	b.ResetTimer()
	var took []time.Duration
	for b.Loop() {
		took = append(took, latencies(b, js, rate, 5*rate)...)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-max")
	cancel()
	require.ErrorIs(b, <-done, context.Canceled)
}

// latencies publishes n records at a rate and sees them come out.
func latencies(b *testing.B, js jetstream.JetStream, rate, n int) []time.Duration {
	seen := make(chan time.Duration, n)
	sub, err := js.Conn().Subscribe("out.*", func(m *client.Msg) {
		due, err := strconv.ParseInt(string(m.Data), 10, 64)
		if err == nil {
			seen <- time.Since(time.Unix(0, due))
		}
	})
	require.NoError(b, err)
	defer sub.Unsubscribe()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	began := time.Now()
	for i := 0; i < n; <-ticker.C {
		for ; i < n && time.Since(began) >= time.Duration(i)*time.Second/time.Duration(rate); i++ {
			due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
			require.NoError(b, js.Conn().Publish("in.0", strconv.AppendInt(nil, due.UnixNano(), 10)))
		}
	}
	var took []time.Duration
	for range n {
		took = append(took, <-seen)
	}
	return took
}

package kafka

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// server is a Kafka: a real one if the variable KAFKA names it, else franz-go's, in this process.
type server struct {
	addrs []string
	fake  *kfake.Cluster // nil if it is real
}

// serve gives a Kafka for a test.
func serve(t testing.TB, opts ...kfake.Opt) *server {
	if addrs := os.Getenv("KAFKA"); addrs != "" {
		return &server{addrs: strings.Split(addrs, ",")}
	}
	return fake(t, opts...)
}

// fake gives franz-go's, for what cannot be asked of a real one.
func fake(t testing.TB, opts ...kfake.Opt) *server {
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return &server{addrs: c.ListenAddrs(), fake: c}
}

var topics atomic.Int64

// topic makes a topic that no other test has.
func (s *server) topic(t testing.TB, partitions int32, configs map[string]string) string {
	name := fmt.Sprintf("test-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), topics.Add(1))
	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	require.NoError(t, persist(t.Context(), nil, nil, func() error { return b.create(t.Context(), name, partitions, 0, configs) }))
	return name
}

func (s *server) client() ClientOptions {
	return ClientOptions{Brokers: s.addrs, metadataAge: 10 * time.Millisecond}
}

// sink gives options of a sink for tests: nothing waits for long.
func (s *server) sink() SinkOptions {
	return SinkOptions{Client: s.client(), Identity: "job", Interval: time.Nanosecond, Patience: 200 * time.Millisecond}
}

// consume reads a topic with a plain client until it has all that is committed now, by partition, in order.
func (s *server) consume(t testing.TB, topic string) map[int32][]*kgo.Record {
	out := make(map[int32][]*kgo.Record)
	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	_, n, err := b.topic(ctx, topic)
	require.NoError(t, err)
	left := make(map[int32]int64)
	for p := range int32(n) {
		end, err := b.offset(ctx, place{topic, p}, atEnd, true)
		require.NoError(t, err)
		if start, err := b.offset(ctx, place{topic, p}, atStart, true); end > start {
			require.NoError(t, err)
			left[p] = end
		}
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(s.addrs...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.DisableClientMetrics(), kgo.FetchMaxWait(50*time.Millisecond))
	require.NoError(t, err)
	defer c.Close()
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for len(left) > 0 {
		fetches := c.PollFetches(wait)
		require.NoError(t, wait.Err(), "still to come: %v", left)
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out[r.Partition] = append(out[r.Partition], r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// values gives the values of a partition.
func (s *server) values(t testing.TB, topic string, partition int32) []string {
	var out []string
	for _, r := range s.consume(t, topic)[partition] {
		out = append(out, string(r.Value))
	}
	return out
}

const epochRecords = 10 // an epoch of the tests' stream

// cursorAt is the cursor of the tests' stream before record n: epochs of ten records, no barriers counted.
func cursorAt(n int) determinant.Cursor {
	return determinant.Cursor{
		Next: determinant.Seq(n), Epoch: determinant.Epoch(1 + n/epochRecords), Bytes: uint64(n % epochRecords),
		CRC: uint32(n % epochRecords * 7),
	}
}

// stream is output as a generation makes it: a rollback to record n changes what comes from n on.
type stream []int

func (s stream) record(n int) []byte {
	generation := 0
	for g, from := range s {
		if n >= from {
			generation = g + 1
		}
	}
	return fmt.Appendf(nil, `{"n":%d,"g":%d,"x":"%s"}`, n, generation, strings.Repeat("x", n%7))
}

// text is the records from..to.
func (s stream) text(from, to int) []string {
	var out []string
	for n := from; n < to; n++ {
		out = append(out, string(s.record(n)))
	}
	return out
}

// write is the write of records from..to, with a delta that says so.
func (s stream) write(from, to int) operator.StoreWrite {
	w := operator.StoreWrite{Start: cursorAt(from), End: cursorAt(to), Delta: fmt.Appendf(nil, "%d %d", from, to)}
	for n := from; n < to; n++ {
		w.Records = append(w.Records, s.record(n))
	}
	return w
}

// covers checks that the deltas tell of every record in from..to.
func covers(t require.TestingT, deltas [][]byte, from, to int) {
	told := make(map[int]bool)
	for _, d := range deltas {
		var a, b int
		_, err := fmt.Sscanf(string(d), "%d %d", &a, &b)
		require.NoError(t, err)
		for n := a; n < b; n++ {
			told[n] = true
		}
	}
	for n := from; n < to; n++ {
		require.True(t, told[n], "record %d is visible without determinants in %q", n, deltas)
	}
}

func open(t testing.TB, sink operator.CausalSink) operator.CausalStore {
	st, err := sink.Open(t.Context(), 0, 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return st
}

func fence(t testing.TB, s operator.CausalStore, i determinant.Incarnation) operator.Stored {
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: i})
	require.NoError(t, err)
	return stored
}

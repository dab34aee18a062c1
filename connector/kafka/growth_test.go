package kafka

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// addPartition adds a partition to a topic and puts these values into it.
func (s *server) addPartition(t testing.TB, topic string, values ...string) {
	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	_, had, err := b.topic(ctx, topic)
	require.NoError(t, err)
	req, add := kmsg.NewPtrCreatePartitionsRequest(), kmsg.NewCreatePartitionsRequestTopic()
	add.Topic, add.Count = topic, int32(had+1)
	req.Topics, req.TimeoutMillis = append(req.Topics, add), 10_000
	resp, err := req.RequestWith(ctx, b.client)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(resp.Topics[0].ErrorCode))
	c, err := kgo.NewClient(kgo.SeedBrokers(s.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics(),
		kgo.MetadataMinAge(10*time.Millisecond), kgo.UnknownTopicRetries(-1))
	require.NoError(t, err)
	defer c.Close()
	for _, v := range values {
		r := &kgo.Record{Topic: topic, Partition: int32(had), Value: []byte(v)}
		require.NoError(t, persist(ctx, nil, nil, func() error { return c.ProduceSync(ctx, r).FirstErr() }))
	}
}

// New partitions are found once, from their first record on, whatever else the source begins with.
func TestSourceDiscovers(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 2, nil)
	s.produce(t, topic, "before")
	for name, o := range map[string]SourceOptions{"earliest": {}, "latest": {Latest: true}, "since": {Since: time.Now().Add(time.Hour)}} {
		o.Client = s.client()
		src := Records(o, topic)
		require.Equal(t, 30*time.Second, src.DiscoveryInterval())
		known, err := src.Splits(ctx)
		require.NoError(t, err)
		found, all, err := src.Discover(ctx, known)
		require.NoError(t, err)
		require.Empty(t, found)
		require.False(t, all)
		s.addPartition(t, topic, "one of "+name, "two")
		found, _, err = src.Discover(ctx, known)
		require.NoError(t, err)
		require.Len(t, found, 1)
		r, err := src.Open(ctx, found[0], 0)
		require.NoError(t, err)
		got, _, err := drain(t, r, 2, value)
		require.NoError(t, err)
		require.Equal(t, []string{"one of " + name, "two"}, got)
		require.NoError(t, r.Close())
		found, _, err = src.Discover(ctx, append(known, found...))
		require.NoError(t, err)
		require.Empty(t, found)
	}
	_, _, err := Records(SourceOptions{Client: s.client()}, "not-there").Discover(ctx, nil)
	require.ErrorIs(t, err, ErrNoTopic)
	_, _, err = Records(SourceOptions{Client: s.client()}, topic).Discover(ctx, []string{"x"})
	require.ErrorIs(t, err, ErrSplit)
}

func TestWhoDiscovers(t *testing.T) {
	require.Zero(t, Records(SourceOptions{Bounded: true}).DiscoveryInterval())
	require.Zero(t, Records(SourceOptions{DiscoveryInterval: -1}).DiscoveryInterval())
	_, err := Records(SourceOptions{Client: ClientOptions{Brokers: []string{"a:1"}}, Bounded: true, DiscoveryInterval: 1}, "t").Splits(ctx)
	require.ErrorContains(t, err, "does not look for new partitions")
	for text, want := range map[string]time.Duration{"": 0, "?discover=5s": 5 * time.Second, "?discover=never": -1} {
		_, o, err := SourceFromURL("kafka://a:1/t" + text)
		require.NoError(t, err)
		require.Equal(t, want, o.DiscoveryInterval)
	}
	for _, bad := range []string{"?discover=0s", "?discover=soon", "?discover=1s&until=end"} {
		_, _, err := SourceFromURL("kafka://a:1/t" + bad)
		require.Error(t, err, bad)
	}
}

// Partitions are added to the input while the job's tasks and workers are killed. The output has each record once.
func TestJobWhoseTopicGrows(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for name, transactional := range map[string]bool{"causal": false, "transactional": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, out := s.topic(t, jobPartitions, nil), s.topic(t, jobPartitions, nil)
			o := s.sink()
			o.Identity, o.Message, o.Interval = "", JSONKey("Key"), 0
			src := Records(SourceOptions{Client: s.client(), DiscoveryInterval: 5 * time.Millisecond}, in)
			job := drawnJob(src, func(d operator.Stream[drawn]) {
				if transactional {
					operator.ToTransactional(d, "out", Transactional(out, o))
				} else {
					operator.To(d, "out", Sink(out, o))
				}
			})
			total := runDrawn(t, s, job, determinant.ExactlyOnce, in, out, func(round int) int {
				if round%3 != 0 {
					return 0
				}
				var values []string
				for i := range 20 {
					values = append(values, fmt.Sprintf("key %d", i%jobKeys))
				}
				s.addPartition(t, in, values...)
				return len(values)
			})
			checkDrawn(t, s, out, total)
			added := map[string]bool{}
			for _, records := range s.consume(t, out) {
				for _, r := range records {
					var d drawn
					require.NoError(t, json.Unmarshal(r.Value, &d))
					added[d.ID[:2]] = true
				}
			}
			require.Len(t, added, jobPartitions+4)
		})
	}
}

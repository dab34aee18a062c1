package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/understudy-stream/understudy/operator"
)

// produce writes records to partition 0 of a topic: plain ones, or, for +x and -x, ones of a transaction that is committed or aborted.
func (s *server) produce(t testing.TB, topic string, values ...string) {
	plain, err := kgo.NewClient(kgo.SeedBrokers(s.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics())
	require.NoError(t, err)
	defer plain.Close()
	tx, err := kgo.NewClient(kgo.SeedBrokers(s.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics(),
		kgo.TransactionalID("producer of "+topic))
	require.NoError(t, err)
	defer tx.Close()
	for _, v := range values {
		r := &kgo.Record{Topic: topic, Value: []byte(v), Key: []byte("key of " + v)}
		if v[0] != '+' && v[0] != '-' {
			require.NoError(t, plain.ProduceSync(ctx, r).FirstErr())
			continue
		}
		require.NoError(t, tx.BeginTransaction())
		require.NoError(t, tx.ProduceSync(ctx, r).FirstErr())
		require.NoError(t, settled(ctx, tx, r))
		require.NoError(t, tx.EndTransaction(ctx, kgo.TransactionEndTry(v[0] == '+')))
	}
}

// drain reads until the split ends, or, if want is above 0, until so many records were read, and gives values and offsets.
func drain[T any](t testing.TB, r operator.Reader[T], want int, show func(T) string) (values []string, offsets []uint64, err error) {
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for want <= 0 || len(values) < want {
		v, next, err := r.Next()
		if errors.Is(err, operator.ErrNotReady) {
			select {
			case <-r.Ready():
			case <-deadline.C:
				require.FailNow(t, "nothing comes", "after %q", values)
			}
			continue
		}
		if err != nil {
			return values, offsets, err
		}
		values, offsets = append(values, show(v)), append(offsets, next)
	}
	return values, offsets, nil
}

func value(r Record) string { return string(r.Value) }

func TestSourceReadsWhatIsCommittedAndAgainFromAnyOffset(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 2, nil)
	s.produce(t, topic, "a", "+b", "-c", "d", "-e", "+f", "-g", "-h")
	src := Records(SourceOptions{Client: s.client(), Bounded: true}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	require.Len(t, splits, 2)
	again, err := src.Splits(ctx)
	require.NoError(t, err)
	require.Equal(t, splits, again)
	s.produce(t, topic, "late")

	want := []string{"a", "+b", "d", "+f"}
	r, err := src.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	got, offsets, err := drain(t, r, 0, value)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, want, got, "neither what was aborted nor what came later")
	require.NoError(t, r.Close())
	for i, offset := range offsets {
		r, err := src.Open(ctx, splits[0], offset)
		require.NoError(t, err)
		got, rest, err := drain(t, r, 0, value)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, want[i+1:], append([]string{}, got...))
		require.Equal(t, offsets[i+1:], append([]uint64{}, rest...))
		require.NoError(t, r.Close())
	}
	empty, err := src.Open(ctx, splits[1], 0)
	require.NoError(t, err)
	_, _, err = drain(t, empty, 0, value)
	require.ErrorIs(t, err, io.EOF, "an empty partition")
	require.NoError(t, empty.Close())
	require.Contains(t, src.InputOf(splits[0]), topic+"/0, offsets 0 to ")
}

func TestSourceFollows(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	s.produce(t, topic, "before")
	src := Records(SourceOptions{Client: s.client(), Latest: true, BufferBytes: 1000}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	r, err := src.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	_, _, err = r.Next()
	require.ErrorIs(t, err, operator.ErrNotReady)
	var want []string
	for i := range 50 { // more than is read ahead
		want = append(want, fmt.Sprintf("%03d", i))
	}
	s.produce(t, topic, want...)
	got, _, err := drain(t, r, len(want), value)
	require.NoError(t, err)
	require.Equal(t, want, got)
	second, err := src.Open(ctx, splits[0], 0) // while the first is open, as when a task is replaced
	require.NoError(t, err)
	got, _, err = drain(t, second, len(want), value)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	require.NoError(t, second.Close())
}

func TestSourceRecordsAreWhole(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	at := time.UnixMilli(1700000000123).UTC()
	c, err := kgo.NewClient(kgo.SeedBrokers(s.addrs...), kgo.DisableClientMetrics())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.ProduceSync(ctx,
		&kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte(`{"n":1}`), Timestamp: at, Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}},
		&kgo.Record{Topic: topic, Key: []byte("k"), Timestamp: at.Add(time.Second)},
		&kgo.Record{Topic: topic, Value: []byte(`{`), Timestamp: at.Add(2 * time.Second)},
		&kgo.Record{Topic: topic, Value: []byte(`{"n":2}`), Timestamp: at.Add(3 * time.Second)},
	).FirstErr())
	src := Records(SourceOptions{Client: s.client(), Bounded: true}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	r, err := src.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	var all []Record
	_, _, err = drain(t, r, 0, func(k Record) string { all = append(all, k); return "" })
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, r.Close())
	require.Equal(t, Record{Topic: topic, Key: []byte("k"), Value: []byte(`{"n":1}`), Time: at, Headers: []Header{{"h", []byte("v")}}}, all[0])
	require.Nil(t, all[1].Value)

	type number struct{ N int }
	j, err := JSON[number](src).Open(ctx, splits[0], 0)
	require.NoError(t, err)
	got, _, err := drain(t, j, 1, func(n number) string { return fmt.Sprint(n.N) })
	require.NoError(t, err)
	require.Equal(t, []string{"1"}, got)
	_, next, err := j.Next()
	var bad *DecodeError
	require.ErrorAs(t, err, &bad)
	require.EqualValues(t, 2, bad.Offset)
	require.EqualValues(t, 3, next)
	got, _, err = drain(t, j, 0, func(n number) string { return fmt.Sprint(n.N) })
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, []string{"2"}, got, "reading goes on behind it")
	require.NoError(t, j.Close())

	since := Records(SourceOptions{Client: s.client(), Bounded: true, Since: at.Add(1500 * time.Millisecond)}, topic)
	splits, err = since.Splits(ctx)
	require.NoError(t, err)
	require.Contains(t, splits[0], " from 2 until 4")
}

// TestSourceRefuses has everything that must not be passed over in silence.
func TestSourceRefuses(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	_, err := Records(SourceOptions{Client: s.client()}, topic+"-not").Splits(ctx)
	require.ErrorIs(t, err, ErrNoTopic)
	s.produce(t, topic, "a", "b", "c", "d", "e")
	src := Records(SourceOptions{Client: s.client(), Bounded: true}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	for _, bad := range []string{"", "x", splits[0] + " ", strings.Replace(splits[0], topic, "other", 1)} {
		_, err := src.Open(ctx, bad, 0)
		require.ErrorIs(t, err, ErrSplit, bad)
	}
	_, err = src.Open(ctx, splits[0], 6)
	require.ErrorIs(t, err, ErrSplit)

	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	require.NoError(t, b.remove(ctx, place{topic, 0}, 3))
	for offset, want := range map[uint64]string{0: "", 1: "", 2: "", 3: "d", 4: "e"} {
		r, err := src.Open(ctx, splits[0], offset)
		require.NoError(t, err)
		got, _, err := drain(t, r, 1, value)
		if want == "" {
			require.ErrorIs(t, err, ErrRetention, "offset %d", offset)
			require.ErrorIs(t, err, operator.ErrPermanent)
			require.ErrorContains(t, err, fmt.Sprintf("begins at offset 3 now, %d is to be read", offset))
		} else {
			require.NoError(t, err)
			require.Equal(t, []string{want}, got)
		}
		require.NoError(t, r.Close())
	}
}

// TestRetentionOvertakesAReader removes records that a reader is about to read.
func TestRetentionOvertakesAReader(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	big := make([]byte, 100<<10)
	_, err := rand.NewChaCha8([32]byte{}).Read(big) // what cannot be compressed
	require.NoError(t, err)
	for range 12 {
		s.produce(t, topic, string(big))
	}
	src := Records(SourceOptions{Client: s.client(), BufferBytes: 64 << 10}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	r, err := src.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	_, _, err = drain(t, r, 1, value)
	require.NoError(t, err)
	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	require.NoError(t, b.remove(ctx, place{topic, 0}, 11))
	got, offsets, err := drain(t, r, 11, value)
	require.ErrorIs(t, err, ErrRetention)
	for i := range got {
		require.EqualValues(t, i+2, offsets[i], "no hole before the error")
	}
	require.NoError(t, r.Close())
}

func TestARecreatedTopicIsNotTheSame(t *testing.T) {
	s := fake(t)
	topic := s.topic(t, 1, nil)
	s.produce(t, topic, "a", "b")
	src := Records(SourceOptions{Client: s.client()}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	require.NoError(t, s.fake.DeleteTopic(topic))
	require.NoError(t, s.fake.CreateTopic(topic, 1, nil))
	s.produce(t, topic, "c", "d")
	r, err := src.Open(ctx, splits[0], 1)
	require.NoError(t, err)
	_, _, err = drain(t, r, 1, value)
	require.ErrorIs(t, err, ErrRecreated)
	require.NoError(t, r.Close())
}

// TestCompactedTopic reads a topic whose records were compacted away in the middle and at the end.
func TestCompactedTopic(t *testing.T) {
	s := fake(t, kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "3600000"}))
	topic := s.topic(t, 1, map[string]string{"cleanup.policy": "compact", "min.compaction.lag.ms": "0", "delete.retention.ms": "0",
		"segment.bytes": "1024", "min.cleanable.dirty.ratio": "0"})
	c, err := kgo.NewClient(kgo.SeedBrokers(s.addrs...), kgo.DisableClientMetrics())
	require.NoError(t, err)
	defer c.Close()
	put := func(key, v string) {
		require.NoError(t, c.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(v)}).FirstErr())
	}
	for i := range 40 {
		put(fmt.Sprint(i%4), fmt.Sprintf("%02d%s", i, strings.Repeat("x", 100)))
	}
	s.fake.Compact()
	src := Records(SourceOptions{Client: s.client(), Bounded: true}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	r, err := src.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	got, _, err := drain(t, r, 0, value)
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, r.Close())
	require.Less(t, len(got), 40, "something was compacted away")
	require.True(t, strings.HasPrefix(got[len(got)-1], "39"))
}

// TestHoleAtTheEnd has the last offsets of a compacted topic hold nothing, as when tombstones were removed that came last. franz-go's
// broker keeps the last batch; so its answers are changed.
func TestHoleAtTheEnd(t *testing.T) {
	s := fake(t)
	topic := s.topic(t, 1, nil)
	s.produce(t, topic, "a", "b", "c", "d")
	src := Records(SourceOptions{Client: s.client(), Bounded: true}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	s.fake.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		s.fake.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		for i := range req.Topics {
			for k := range req.Topics[i].Partitions {
				if req.Topics[i].Partitions[k].FetchOffset < 2 {
					return nil, nil, false
				}
			}
		}
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		for i := range req.Topics {
			rt := kmsg.NewFetchResponseTopic()
			rt.Topic, rt.TopicID = req.Topics[i].Topic, req.Topics[i].TopicID
			for _, p := range req.Topics[i].Partitions {
				rp := kmsg.NewFetchResponseTopicPartition()
				rp.Partition, rp.HighWatermark, rp.LastStableOffset = p.Partition, 4, 4
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	r, err := src.Open(ctx, splits[0], 2)
	require.NoError(t, err)
	got, _, err := drain(t, r, 0, value)
	require.ErrorIs(t, err, io.EOF)
	require.Empty(t, got)
	require.NoError(t, r.Close())
}

// TestABoundedSplitEndsWhereNothingIsLeft bounds a split at an offset behind which, and before which, no record is: a plain client
// waits there for ever.
func TestABoundedSplitEndsWhereNothingIsLeft(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	s.produce(t, topic, "a", "-b", "-c", "-d")
	src := Records(SourceOptions{Client: s.client(), Bounded: true}, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	sp, err := parseSplit(splits[0])
	require.NoError(t, err)
	for until := int64(1); until <= sp.until; until++ { // also in the middle of what was aborted
		sp.until = until
		r, err := src.Open(ctx, sp.String(), 0)
		require.NoError(t, err)
		got, _, err := drain(t, r, 0, value)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, []string{"a"}, got)
		require.NoError(t, r.Close())
	}
}

// TestSourceOutage cuts the network while a topic is read, and mends it.
func TestSourceOutage(t *testing.T) {
	s := serve(t)
	topic := s.topic(t, 1, nil)
	var told sync.Map
	n := newNetwork(t)
	o := SourceOptions{Client: s.client(), Waiting: func(split string, err error) { told.Store("why", err) }}
	o.Client.dial = n.dial
	src := Records(o, topic)
	splits, err := src.Splits(ctx)
	require.NoError(t, err)
	r, err := src.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	s.produce(t, topic, "a", "b")
	got, _, err := drain(t, r, 2, value)
	require.NoError(t, err)
	n.down()
	s.produce(t, topic, "c", "d")
	require.Eventually(t, func() bool { _, ok := told.Load("why"); return ok }, 20*time.Second, time.Millisecond, "it says why it waits")
	_, _, err = r.Next()
	require.ErrorIs(t, err, operator.ErrNotReady)
	late, err := src.Open(ctx, splits[0], 1) // one that is opened meanwhile waits too
	require.NoError(t, err)
	n.up()
	more, _, err := drain(t, r, 2, value)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c", "d"}, append(got, more...))
	got, _, err = drain(t, late, 3, value)
	require.NoError(t, err)
	require.Equal(t, []string{"b", "c", "d"}, got)
	require.NoError(t, late.Close())
	require.NoError(t, r.Close())
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	n.down()
	_, err = src.Splits(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func FuzzSplit(f *testing.F) {
	f.Add(split{place: place{"a b", 3}, from: 7, until: 9}.String())
	f.Add(split{place: place{"until", 0}, until: -1}.String())
	f.Fuzz(func(t *testing.T, identity string) {
		s, err := parseSplit(identity)
		if err == nil && s.String() != identity {
			t.Fatal(s, identity)
		}
	})
}

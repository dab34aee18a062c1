package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// drawn is what the tests' job puts out for a record: how many its key has had, and a number that no two lives draw alike.
type drawn struct {
	ID    string
	Key   string
	Count int
	Draw  uint64
}

const (
	jobPartitions = 3
	jobKeys       = 7
)

// feed adds n records to the input, round the partitions.
func (s *server) feed(t testing.TB, topic string, n int) {
	c, err := kgo.NewClient(kgo.SeedBrokers(s.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics())
	require.NoError(t, err)
	defer c.Close()
	var rs []*kgo.Record
	for i := range n {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: int32(i % jobPartitions), Value: fmt.Appendf(nil, "key %d", i%jobKeys)})
	}
	require.NoError(t, c.ProduceSync(ctx, rs...).FirstErr())
}

// drawnJob draws a number for each record and counts them by key. end ends it in a sink.
func drawnJob(src *Source, end func(operator.Stream[drawn])) *operator.Job {
	job := operator.NewJob("drawn")
	in := operator.From(job, "in", src)
	draws := operator.Map(in, "draw", func(ctx operator.Context, r Record) (drawn, error) {
		return drawn{ID: fmt.Sprintf("%d/%d", r.Partition, r.Offset), Key: string(r.Value), Draw: ctx.Rand().Uint64()}, nil
	})
	byKey := operator.KeyBy(draws, func(d drawn) string { return d.Key })
	end(operator.Aggregate(byKey, "count", func(acc, d drawn) (drawn, error) {
		d.Count = acc.Count + 1
		return d, nil
	}))
	return job
}

// checkDrawn reads the output with a plain client: no record is missing, none is there twice, and those of a key are in order.
func checkDrawn(t testing.TB, s *server, topic string, n int) {
	ids, counts := make(map[string]bool), make(map[string]int)
	for _, records := range s.consume(t, topic) {
		for _, r := range records {
			var d drawn
			require.NoError(t, json.Unmarshal(r.Value, &d))
			require.False(t, ids[d.ID], "%s is there twice", d.ID)
			ids[d.ID] = true
			counts[d.Key]++
			require.Equal(t, counts[d.Key], d.Count, "order of %s", d.Key)
			require.Equal(t, d.Key, string(r.Key))
		}
	}
	require.Len(t, ids, n, "records are missing")
}

// runDrawn runs a job that follows its input while that grows, and tasks and workers are killed. between is called when the output
// has all that the input had.
func runDrawn(t *testing.T, s *server, job *operator.Job, in, out string, between func(round int)) (int, understudy.Summary) {
	const rounds, each = 4, 150
	reader, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer reader.close()
	running, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the job is too slow"))
	defer cancel()
	var sum understudy.Summary
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		sum, failed = understudy.Run(running, job, understudy.Options{
			StateDir: t.TempDir(), Parallelism: 2, CheckpointInterval: 20 * time.Millisecond,
			Chaos: &understudy.Chaos{Kill: 40 * time.Millisecond, Target: "task+worker", Seed: 1},
		})
		cancel()
	})
	total := 0
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for round := range rounds {
		s.feed(t, in, each)
		total += each
		for seen := 0; seen < total && running.Err() == nil; {
			<-tick.C
			seen = 0
			for p := range int32(jobPartitions) {
				seen += len(readCommitted(t, reader, place{out, p}))
			}
		}
		between(round)
	}
	cause := context.Cause(running)
	cancel()
	wg.Wait()
	require.ErrorIs(t, failed, context.Canceled, "%v", cause)
	require.Positive(t, sum.Kills)
	return total, sum
}

// remembering is a causal sink that remembers what each of its lives was about to write.
type remembering struct {
	*Topic
	mu    sync.Mutex
	lives map[determinant.Incarnation]remembered
}

type remembered struct {
	task  int
	write operator.StoreWrite
}

type rememberingStore struct {
	operator.CausalStore
	sink *remembering
	task int
}

func (r *remembering) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	st, err := r.Topic.Open(ctx, task, n)
	return &rememberingStore{st, r, task}, err
}

func (r *rememberingStore) Write(ctx context.Context, i determinant.Incarnation, w operator.StoreWrite) error {
	r.sink.mu.Lock()
	r.sink.lives[i] = remembered{r.task, operator.StoreWrite{Start: w.Start, End: w.End, Records: [][]byte{[]byte(`{"Key":"zombie"}`)}}}
	r.sink.mu.Unlock()
	return r.CausalStore.Write(ctx, i, w)
}

// TestJob runs a job that depends on chance from one topic to another, kills its tasks and workers, and revives writers of earlier
// lives.
func TestJob(t *testing.T) {
	s := serve(t)
	in, out := s.topic(t, jobPartitions, nil), s.topic(t, jobPartitions, nil)
	o := s.sink()
	o.Identity, o.Message, o.Interval = "", JSONKey("Key"), 0
	sink := &remembering{Topic: Sink(out, o), lives: make(map[determinant.Incarnation]remembered)}
	job := drawnJob(Records(SourceOptions{Client: s.client()}, in), func(d operator.Stream[drawn]) { operator.To(d, "out", sink) })
	total, sum := runDrawn(t, s, job, in, out, func(int) {})
	t.Log(sum, sum.Kills, "kills", sum.Rollbacks, "rollbacks")
	checkDrawn(t, s, out, total)

	newest := make(map[int]determinant.Incarnation)
	for i, l := range sink.lives {
		newest[l.task] = max(newest[l.task], i)
	}
	require.NotEmpty(t, newest)
	o.Identity = sink.identityNow()
	for i, l := range sink.lives {
		zombie, err := Sink(out, o).Open(ctx, l.task, 2) // as it stands, its process had been stopped
		require.NoError(t, err)
		if i < newest[l.task] {
			require.ErrorIs(t, zombie.Write(ctx, i, l.write), operator.ErrFenced)
		}
		require.NoError(t, zombie.Close())
	}
	checkDrawn(t, s, out, total)
}

// TestTransactionalJob is TestJob with the other sink.
func TestTransactionalJob(t *testing.T) {
	s := serve(t)
	in, out := s.topic(t, jobPartitions, nil), s.topic(t, jobPartitions, nil)
	o := s.sink()
	o.Identity, o.Message = "", JSONKey("Key")
	job := drawnJob(Records(SourceOptions{Client: s.client()}, in), func(d operator.Stream[drawn]) {
		operator.ToTransactional(d, "out", Transactional(out, o))
	})
	total, sum := runDrawn(t, s, job, in, out, func(int) {})
	t.Log(sum, sum.Kills, "kills", sum.Rollbacks, "rollbacks")
	checkDrawn(t, s, out, total)
}

// TestJobOutage cuts the job off the brokers for longer than their transactions may last.
func TestJobOutage(t *testing.T) {
	s := serve(t)
	in, out := s.topic(t, jobPartitions, nil), s.topic(t, jobPartitions, nil)
	n := newNetwork(t)
	o := s.sink()
	o.Identity, o.Message, o.JournalTimeout = "", JSONKey("Key"), time.Second
	o.Client.dial = n.dial
	src := SourceOptions{Client: s.client()}
	src.Client.dial = n.dial
	job := drawnJob(Records(src, in), func(d operator.Stream[drawn]) { operator.To(d, "out", Sink(out, o)) })
	b, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer b.close()
	total, _ := runDrawn(t, s, job, in, out, func(round int) {
		if round == 2 {
			n.down()
			s.feed(t, in, 3)
			over := time.NewTimer(1500 * time.Millisecond) // what is measured here is the brokers' patience
			<-over.C
			n.up()
		}
	})
	checkDrawn(t, s, out, total+3)
}

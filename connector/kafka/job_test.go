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

	"github.com/understudy-stream/understudy/cluster"
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

// killings are what is killed in each round of runDrawn while the output is on its way: tasks, or, below 0, workers. In the last
// round nothing is: what that one adds comes after all that was shown again.
var killings = [][]int{{}, {0}, {1}, {2}, {3}, {0, 2}, {2, 3}, {0, 1, 2, 3}, {-1}, {-2, -3}, {}}

// runDrawn runs a job that follows its input while that grows, and kills its tasks and workers. between is called when the output has
// all that the input had, and tells how many records it has fed itself, which the output must have too.
func runDrawn(t *testing.T, s *server, job *operator.Job, mode determinant.Mode, in, out string, between func(round int) (fed int)) (total int) {
	const each = 60
	reader, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
	require.NoError(t, err)
	defer reader.close()
	running, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the job is too slow"))
	defer cancel()
	plan, err := job.Plan(2)
	require.NoError(t, err)
	started := make(chan *cluster.Local, 1)
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		_, failed = cluster.RunLocal(running, plan, cluster.LocalOptions{
			Mode: mode, CheckpointInterval: 20 * time.Millisecond, Started: func(l *cluster.Local) { started <- l },
		})
	})
	var local *cluster.Local
	select {
	case local = <-started:
	case <-running.Done():
		wg.Wait()
		require.NoError(t, failed)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	until := func(cond func() bool) {
		for running.Err() == nil && !cond() {
			<-tick.C
		}
	}
	for round, kills := range killings {
		s.feed(t, in, each)
		total += each
		for _, k := range kills {
			if k < 0 {
				local.KillWorker(-k - 1)
			} else {
				until(func() bool { return local.KillTask(determinant.TaskID(k)) })
			}
		}
		until(func() bool {
			ids := make(map[string]bool)
			for p := range int32(jobPartitions) {
				for _, v := range readCommitted(t, reader, place{out, p}) {
					var d drawn
					require.NoError(t, json.Unmarshal([]byte(v), &d))
					ids[d.ID] = true
				}
			}
			return len(ids) >= total
		})
		total += between(round)
	}
	cause := context.Cause(running)
	cancel()
	wg.Wait()
	require.ErrorIs(t, failed, context.Canceled, "%v", cause)
	require.NoError(t, cause)
	return total
}

// remembering is a causal sink that remembers what each of its lives was about to write.
type remembering struct {
	*Topic
	mu    sync.Mutex
	lives map[determinant.Incarnation]remembered
	shown map[string]uint64 // what was shown again, by task and generation
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

func (r *rememberingStore) Fence(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	stored, err := r.CausalStore.Fence(ctx, f)
	if err == nil && f.Cut != nil {
		r.sink.mu.Lock()
		defer r.sink.mu.Unlock()
		if r.sink.shown == nil {
			r.sink.shown = make(map[string]uint64)
		}
		r.sink.shown[fmt.Sprint(r.task, " ", f.Generation)] = stored.Shown
	}
	return stored, err
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
	t.Parallel()
	s := serve(t)
	in, out := s.topic(t, jobPartitions, nil), s.topic(t, jobPartitions, nil)
	o := s.sink()
	o.Identity, o.Message, o.Interval = "", JSONKey("Key"), 0
	sink := &remembering{Topic: Sink(out, o), lives: make(map[determinant.Incarnation]remembered)}
	job := drawnJob(Records(SourceOptions{Client: s.client()}, in), func(d operator.Stream[drawn]) { operator.To(d, "out", sink) })
	total := runDrawn(t, s, job, determinant.ExactlyOnce, in, out, func(int) int { return 0 })
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

// TestJobThatRollsBack counts what is shown again because the topic cannot be cut: just as much as the store says.
func TestJobThatRollsBack(t *testing.T) {
	t.Parallel()
	s := serve(t)
	in, out := s.topic(t, jobPartitions, nil), s.topic(t, jobPartitions, nil)
	o := s.sink()
	o.Identity, o.Message = "", JSONKey("Key")
	sink := &remembering{Topic: Sink(out, o), lives: make(map[determinant.Incarnation]remembered)}
	job := drawnJob(Records(SourceOptions{Client: s.client()}, in), func(d operator.Stream[drawn]) { operator.To(d, "out", sink) })
	total := runDrawn(t, s, job, determinant.GlobalRollback, in, out, func(int) int { return 0 })
	seen, all := make(map[string]bool), 0
	for _, records := range s.consume(t, out) {
		for _, r := range records {
			var d drawn
			require.NoError(t, json.Unmarshal(r.Value, &d))
			seen[d.ID] = true
			all++
		}
	}
	require.Len(t, seen, total, "nothing is missing")
	again := uint64(0)
	for _, shown := range sink.shown {
		again += shown
	}
	require.EqualValues(t, all-total, again)
}

// TestTransactionalJob is TestJob with the other sink.
func TestTransactionalJob(t *testing.T) {
	t.Parallel()
	s := serve(t)
	in, out := s.topic(t, jobPartitions, nil), s.topic(t, jobPartitions, nil)
	o := s.sink()
	o.Identity, o.Message = "", JSONKey("Key")
	job := drawnJob(Records(SourceOptions{Client: s.client()}, in), func(d operator.Stream[drawn]) {
		operator.ToTransactional(d, "out", Transactional(out, o))
	})
	total := runDrawn(t, s, job, determinant.ExactlyOnce, in, out, func(int) int { return 0 })
	checkDrawn(t, s, out, total)
}

// TestJobOutage cuts the job off the brokers for longer than their transactions may last.
func TestJobOutage(t *testing.T) {
	t.Parallel()
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
	total := runDrawn(t, s, job, determinant.ExactlyOnce, in, out, func(round int) int {
		if round != 2 {
			return 0
		}
		n.down()
		s.feed(t, in, 3)
		over := time.NewTimer(1500 * time.Millisecond) // what is measured here is the brokers' patience
		<-over.C
		n.up()
		return 3
	})
	checkDrawn(t, s, out, total)
}

package nexmark

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// circle is a source of one split without an end, which gives the same events again and again and allocates nothing.
type circle struct {
	events []Event
	at     uint64
}

func (c *circle) Splits(context.Context) ([]string, error) { return []string{"0"}, nil }
func (c *circle) Open(_ context.Context, _ string, offset uint64) (operator.Reader[Event], error) {
	return &circle{c.events, offset}, nil
}
func (c *circle) Next() (Event, uint64, error) {
	e := c.events[c.at%uint64(len(c.events))]
	c.at++
	return e, c.at, nil
}
func (c *circle) Ready() <-chan struct{} { return nil }
func (c *circle) Close() error           { return nil }

// nowhere is a sink that is never opened.
type nowhere struct{}

func (nowhere) Open(context.Context, int, int) (operator.CausalStore, error) {
	panic("a task alone has no store")
}

// alone is a host that keeps nothing.
type alone struct{}

func (alone) Snapshot(*task.Task, task.Snapshot)                {}
func (alone) Sealed(determinant.ChannelID, *inflightlog.Batch)  {}
func (alone) Taken(determinant.ChannelID, determinant.Seq, int) {}
func (alone) Replayed(*task.Task)                               {}
func (alone) SetAside(*task.Task, task.Poison) error            { return nil }

// q0Task is the whole of q0 in one task, with everything that exactly once asks of it: it records what it chooses, and its output goes
// into an in-flight log, from where it is taken.
type q0Task struct {
	task *task.Task
	log  *causal.Log
	rows int
}

func newQ0Task(t testing.TB) *q0Task {
	g, err := NewGenerator(Config{})
	require.NoError(t, err)
	job := operator.NewJob("q0")
	source := &circle{events: g.Append(nil, 0, 1000)}
	events := operator.From(job, "events", operator.Source[Event](source), operator.WithCodec[Event](EventCodec{}))
	q0(events, &Options{Sink: nowhere{}})
	plan, err := job.Plan(1)
	require.NoError(t, err)
	require.Len(t, plan.Vertices, 1, "q0 is one chain")
	q := &q0Task{log: causal.NewLog(0)}
	q.task, err = task.New(task.Config{
		Incarnation: 1, Info: operator.TaskInfo{Vertex: plan.Vertices[0].Name, Parallelism: 1}, New: plan.Vertices[0].New,
		External: true, Splits: task.FixedSplits("0"), Mode: determinant.ExactlyOnce, Depth: determinant.Full, Log: q.log, Host: alone{},
		Clock: func() int64 { return 0 }, Entropy: func() uint64 { return 0 },
	})
	require.NoError(t, err)
	require.NoError(t, q.task.Outputs()[0].Subscribe(inflightlog.Origin))
	return q
}

// take has the task take at least n more events, and takes what it shows.
func (q *q0Task) take(n int) error {
	out := q.task.Outputs()[0]
	for end := q.task.Records() + uint64(n); q.task.Records() < end; {
		if _, err := q.task.Step(); err != nil {
			return err
		}
		for {
			b, err := out.Next(-1)
			if err != nil {
				return err
			}
			if b == nil {
				break
			}
			q.rows += int(b.Count)
			out.Grant(b.End.Next)
		}
	}
	return nil
}

// allocsPerRecord counts allocations. Those that come with every step and every batch of output are spread over their records.
func (q *q0Task) allocsPerRecord() float64 {
	const records = 50_000
	return testing.AllocsPerRun(3, func() {
		if err := q.take(records); err != nil {
			panic(err)
		}
	}) / records
}

// fewAllocs leaves room for those of a batch, about seven for 140 rows. One in ten records would be found out.
const fewAllocs = 0.1

// The engine's work on a record of q0 allocates nothing.
func TestQ0DoesNotAllocatePerRecord(t *testing.T) {
	q := newQ0Task(t)
	require.NoError(t, q.take(100_000))
	require.Greater(t, q.rows, 80_000, "most events are bids")
	require.Less(t, q.allocsPerRecord(), fewAllocs)
}

// BenchmarkQ0Engine is what an event of q0 costs without source and sink. It fails if it allocates.
func BenchmarkQ0Engine(b *testing.B) {
	q := newQ0Task(b)
	require.NoError(b, q.take(100_000))
	b.ReportAllocs()
	b.ResetTimer()
	require.NoError(b, q.take(b.N))
	b.StopTimer()
	require.Less(b, q.allocsPerRecord(), fewAllocs)
}

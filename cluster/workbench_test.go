package cluster

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
	"github.com/understudy-stream/understudy/transport"
)

// bench is one worker that nobody drives but the test.
type bench struct {
	t        testing.TB
	w        *Worker
	now      int64
	jobs     []func() // of its disk, and in the background
	reports  []Report
	tells    []telling
	observed []Observation
	store    map[determinant.TaskID]*memoryStore
}

type telling struct {
	to determinant.WorkerID
	m  Control
}

func (b *bench) WakeTask(determinant.TaskID)   {}
func (b *bench) WakeLink(determinant.WorkerID) {}
func (b *bench) WakeSink(determinant.TaskID)   {}
func (b *bench) Hold(determinant.TaskID) bool  { return false }
func (b *bench) Tell(to determinant.WorkerID, m Control) {
	b.tells = append(b.tells, telling{to, m})
}
func (b *bench) Report(r Report)                      { b.reports = append(b.reports, r) }
func (b *bench) Disk(job func())                      { b.jobs = append(b.jobs, job) }
func (b *bench) DiskBeside(job func())                { b.jobs = append(b.jobs, job) }
func (b *bench) Background(job func())                { b.jobs = append(b.jobs, job) }
func (b *bench) Observe(o Observation)                { b.observed = append(b.observed, o) }
func (b *bench) Start(task.Call, func([]byte, error)) {}

// newBench is worker id of the job, which knows no entry yet.
func newBench(t testing.TB, job *Job, id determinant.WorkerID, mode determinant.Mode) *bench {
	t.Helper()
	state, err := checkpoint.OpenStore("state", checkpoint.StoreOptions{FS: checkpoint.MemoryFS(), Identity: "test"})
	require.NoError(t, err)
	b := &bench{t: t, now: 1000, store: map[determinant.TaskID]*memoryStore{}}
	splits := make([][]string, len(job.Plan.Vertices))
	for v := range splits {
		if list := job.Plan.Vertices[v].Source; list != nil {
			splits[v], err = list(context.Background())
			require.NoError(t, err)
		}
	}
	seeds := uint64(id) << 32
	b.w = NewWorker(id, job, NewView(job, splits, mode, determinant.Full), b, Options{
		Clock: func() int64 { return b.now }, Entropy: func() uint64 { seeds++; return seeds },
		Calls: func(determinant.TaskID) task.Calls { return b }, State: state,
		OpenSink: func(id determinant.TaskID) (operator.CausalStore, error) {
			if b.store[id] == nil {
				b.store[id] = &memoryStore{}
			}
			return b.store[id], nil
		},
		OpenTransactions: job.openTransactions,
	})
	t.Cleanup(func() {
		require.NoError(t, b.w.Close())
		require.NoError(t, state.Close())
	})
	return b
}

// work does what the worker has put in line for its disk.
func (b *bench) work() {
	for len(b.jobs) > 0 {
		job := b.jobs[0]
		b.jobs = b.jobs[1:]
		job()
	}
}

func (b *bench) apply(e Entry) {
	b.w.Apply(e)
	b.work()
}

// step runs every task here until none has anything to do.
func (b *bench) step() {
	for t := range b.w.tasks {
		if running := b.w.Task(determinant.TaskID(t)); running != nil {
			for b.w.Step(running) {
				continue
			}
		}
	}
	b.work()
}

// rollbacks lists why rollbacks were asked for.
func (b *bench) rollbacks() (causes []string) {
	for _, r := range b.reports {
		if r.Rollback != nil {
			causes = append(causes, r.Rollback.Cause)
		}
	}
	return causes
}

// received is how many elements the worker has received for an input of a task.
func (b *bench) received(t determinant.TaskID, input int) determinant.Seq {
	return b.w.tasks[t].Load().in[input].received.Next
}

// memoryStore is a causal store that only keeps what it is given.
type memoryStore struct {
	fence   operator.Fence
	stored  operator.Stored
	records [][]byte
	fail    error
}

func (s *memoryStore) Fence(_ context.Context, f operator.Fence) (operator.Stored, error) {
	if f.Incarnation < s.fence.Incarnation {
		return operator.Stored{}, operator.ErrFenced
	}
	s.fence = f
	return s.stored, nil
}

func (s *memoryStore) Write(_ context.Context, inc determinant.Incarnation, w operator.StoreWrite) error {
	if s.fail != nil {
		return s.fail
	}
	if inc < s.fence.Incarnation {
		return operator.ErrFenced
	}
	for _, r := range w.Records {
		s.records = append(s.records, slices.Clone(r))
	}
	s.stored.Cursor = w.End
	if len(w.Delta) > 0 {
		s.stored.Deltas = append(s.stored.Deltas, slices.Clone(w.Delta))
	}
	return nil
}

func (s *memoryStore) Truncate(context.Context, determinant.Epoch, []determinant.LogOffset) error {
	return nil
}
func (s *memoryStore) Close() error { return nil }

// couple is two workers of the small job: 1 has the sources, tasks 0 and 1, and 2 has the sinks, 2 and 3.
type couple struct {
	t    testing.TB
	up   *bench
	down *bench
	last standby.Decision
}

func newCouple(t testing.TB) *couple { return coupleOf(t, determinant.ExactlyOnce) }

func coupleOf(t testing.TB, mode determinant.Mode) *couple { return coupleWith(t, small(t), mode) }

func coupleWith(t testing.TB, job *Job, mode determinant.Mode) *couple {
	t.Helper()
	c := &couple{t: t, up: newBench(t, job, 1, mode), down: newBench(t, job, 2, mode)}
	c.last = standby.Decision{Hear: []determinant.WorkerID{1, 2}, Mode: mode, Depth: determinant.Full, Collect: mode.Logs()}
	for id := range job.Tasks {
		w := determinant.WorkerID(1 + id/2)
		c.last.Tasks = append(c.last.Tasks, standby.Placement{Task: determinant.TaskID(id), Incarnation: 1, Worker: w})
	}
	c.decide(func(*standby.Decision) {})
	return c
}

// next is the decision that follows the last one, changed.
func (c *couple) next(change func(d *standby.Decision)) Entry {
	d := c.last
	d.Round++
	d.Tasks = slices.Clone(d.Tasks)
	change(&d)
	c.last = d
	return Entry{Decision: &d}
}

// decide has both workers apply the next decision.
func (c *couple) decide(change func(d *standby.Decision)) {
	e := c.next(change)
	for _, b := range []*bench{c.up, c.down} {
		b.apply(e)
		b.now += giveWayMillis // sources give all that they have again
	}
}

// recovering gives a task a new life.
func recovering(t determinant.TaskID) func(d *standby.Decision) {
	return func(d *standby.Decision) {
		d.Tasks[t].Incarnation++
		d.Tasks[t].Recovering = true
	}
}

// subscribe brings the consumers' subscriptions to the producers.
func (c *couple) subscribe() {
	c.t.Helper()
	m := c.down.w.Write(1, nil)
	require.NotNil(c.t, m)
	require.NotEmpty(c.t, m.Subscriptions)
	c.up.w.Receive(m)
}

// flow carries messages until there are no more. Deltas are written over when they have been received.
func (c *couple) flow() {
	var buf []byte
	carry := func(m *transport.Message, to *Worker) {
		if m != nil {
			to.Receive(m)
			buf = spoiled(m.Delta)
		}
	}
	for range 1000 {
		c.up.step()
		c.down.step()
		m := c.up.w.Write(2, buf)
		carry(m, c.down.w)
		back := c.down.w.Write(1, buf)
		carry(back, c.up.w)
		if m == nil && back == nil {
			return
		}
	}
	require.Fail(c.t, "the workers do not come to rest")
}

// spoiled writes over p.
func spoiled(p []byte) []byte {
	for i := range p {
		p[i] = 0xee
	}
	return p
}

// sends gives the next message with frames from up to down.
func (c *couple) sends() *transport.Message {
	c.t.Helper()
	c.up.step()
	m := c.up.w.Write(2, nil)
	require.NotNil(c.t, m)
	require.NotEmpty(c.t, m.Frames)
	return m
}

// shown is how many records are visible in the sinks' stores.
func (c *couple) shown() (n int) {
	for id := range c.down.w.tasks {
		for wrote := true; wrote; {
			var err error
			wrote, err = c.down.w.WriteSink(context.Background(), determinant.TaskID(id))
			require.NoError(c.t, err)
		}
		if s := c.down.store[determinant.TaskID(id)]; s != nil {
			n += len(s.records)
		}
	}
	return n
}

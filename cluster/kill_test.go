package cluster

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
)

// valve is a source of numbers, in two splits and those that were added, that gives out as many as it was opened for.
type valve struct {
	mu struct {
		sync.Mutex
		limit   uint64
		waiting []chan struct{}
		added   int
		all     bool  // no split will be added
		fault   error // of listing splits again
	}
	n     uint64        // per split
	every time.Duration // splits are listed again; 0: none is added
}

func (v *valve) Splits(context.Context) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.splits(), nil
}

func (v *valve) splits() (names []string) {
	for i := range 2 + v.mu.added {
		names = append(names, strconv.Itoa(i))
	}
	return names
}

func (v *valve) DiscoveryInterval() time.Duration { return v.every }

// Discover lists new splits first, and not all that are known.
func (v *valve) Discover(context.Context, []string) ([]string, bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	names := v.splits()
	slices.Reverse(names)
	return names[:len(names)-1], v.mu.all, v.mu.fault
}

// grow adds splits.
func (v *valve) grow(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.added += n
}

// last says that no split is added any more.
func (v *valve) last() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.all = true
}

func (v *valve) breakListing(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.fault = err
}

func (v *valve) Open(_ context.Context, split string, offset uint64) (operator.Reader[uint64], error) {
	number, err := strconv.ParseUint(split, 10, 64)
	if err != nil {
		return nil, err
	}
	r := &valveReader{valve: v, at: offset, first: number * v.n, ready: make(chan struct{}, 1)}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.waiting = append(v.mu.waiting, r.ready)
	return r, nil
}

// open lets the numbers below limit of each split through.
func (v *valve) open(limit uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.limit = min(limit, v.n)
	for _, ready := range v.mu.waiting {
		notify(ready)
	}
}

type valveReader struct {
	valve     *valve
	first, at uint64
	ready     chan struct{}
}

func (r *valveReader) Next() (uint64, uint64, error) {
	r.valve.mu.Lock()
	limit := r.valve.mu.limit
	r.valve.mu.Unlock()
	switch {
	case r.at == r.valve.n:
		return 0, 0, io.EOF
	case r.at >= limit:
		return 0, 0, operator.ErrNotReady
	}
	r.at++
	return r.first + r.at - 1, r.at, nil
}

func (r *valveReader) Ready() <-chan struct{} { return r.ready }
func (r *valveReader) Close() error           { return nil }

// drawn is a number with what was drawn for it at random, and the order and sum of all that was drawn for its key so far.
type drawn struct {
	N, Time, Draw, Order, Sum int64
}

func drawnKey(d drawn) int64 { return d.N % 7 }

type summing struct {
	last *operator.Value[drawn]
}

func (p *summing) Open(s *operator.States) error {
	p.last = operator.NewValue[drawn](s, "last")
	return nil
}

func (p *summing) Process(_ operator.KeyedContext[int64], d drawn, emit func(drawn)) error {
	last, _ := p.last.Get()
	d.Order, d.Sum = last.Order+1, last.Sum+d.Draw
	p.last.Set(d)
	emit(d)
	return nil
}

func (p *summing) Timer(operator.KeyedContext[int64], operator.Timer, func(drawn)) error { return nil }

// The tasks of drawnPlan.
const (
	sources = determinant.TaskID(0) // and 1
	drawers = determinant.TaskID(2) // and 3
	summers = determinant.TaskID(4) // and 5; they are the sink's tasks too
	tasks   = 6
)

func drawnPlan(t *testing.T, v *valve, out string) *operator.Plan {
	t.Helper()
	return drawnTo(t, v, func(sums operator.Stream[drawn]) {
		operator.To(sums, "output", file.Sink(out, file.SinkOptions{}), operator.WithCodec(operator.JSON[drawn]()))
	})
}

// drawnTo is the job with another end.
func drawnTo(t *testing.T, v *valve, end func(sums operator.Stream[drawn])) *operator.Plan {
	t.Helper()
	job := operator.NewJob("drawn")
	draws := operator.Map(operator.Rebalanced(operator.From(job, "numbers", operator.Source[uint64](v))), "draw",
		func(ctx operator.Context, n uint64) (drawn, error) {
			return drawn{N: int64(n), Time: ctx.Now().UnixMilli(), Draw: ctx.Rand().Int64N(1000)}, nil
		})
	sums := operator.Process(operator.KeyBy(draws, drawnKey), "sum", func() operator.Processor[int64, drawn, drawn] { return &summing{} })
	end(sums)
	plan, err := job.Plan(2)
	require.NoError(t, err)
	return plan
}

// requireExact checks that every number is there once and that the sums follow from the draws that are visible.
func requireExact(t *testing.T, out string, n int) {
	t.Helper()
	seen, last := map[int64]bool{}, map[int64]drawn{}
	parts, err := filepath.Glob(filepath.Join(out, "part-*"))
	require.NoError(t, err)
	for _, part := range parts {
		text, err := os.ReadFile(part)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			var d drawn
			require.NoError(t, json.Unmarshal([]byte(line), &d))
			require.False(t, seen[d.N], "%d is seen twice", d.N)
			seen[d.N] = true
			before := last[drawnKey(d)]
			require.Equal(t, before.Order+1, d.Order, "%+v follows %+v", d, before)
			require.Equal(t, before.Sum+d.Draw, d.Sum, "%+v follows %+v", d, before)
			last[drawnKey(d)] = d
		}
	}
	require.Len(t, seen, n)
}

// killer drives a run of drawnPlan.
type killer struct {
	t     *testing.T
	l     *Local
	valve *valve
	out   string
	ctx   context.Context
	moved uint64 // how far the valve was opened
}

// advance lets n more numbers of each split in and waits until a good part of them is visible, or all: a rollback may have taken back
// what was visible twice.
func (k *killer) advance(n uint64) {
	before := countLines(k.t, k.out)
	k.moved += n
	k.valve.open(k.moved)
	enough := min(before+int(n)/2, int(2*k.moved))
	k.until("output", func() bool { return countLines(k.t, k.out) >= enough })
}

func (k *killer) until(what string, cond func() bool) {
	ticker := time.NewTicker(200 * time.Microsecond)
	defer ticker.Stop()
	for !cond() {
		select {
		case <-ticker.C:
		case <-k.ctx.Done():
			k.t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

// kill kills tasks as close to each other as it can, each as soon as it runs.
func (k *killer) kill(list ...determinant.TaskID) {
	var all sync.WaitGroup
	for _, task := range list {
		all.Go(func() { k.until("a task to kill", func() bool { return k.l.KillTask(task) }) })
	}
	all.Wait()
}

func (k *killer) killWorkers(dirs ...int) {
	var all sync.WaitGroup
	for _, dir := range dirs {
		all.Go(func() { k.l.KillWorker(dir) })
	}
	all.Wait()
}

// on runs f on the coordinator's goroutine.
func (k *killer) on(f func(c *Coordinator)) {
	done := make(chan struct{})
	k.l.do(func() {
		f(k.l.coord)
		close(done)
	})
	select {
	case <-done:
	case <-k.ctx.Done():
	}
}

// homes are the directories of the workers that have a task: its primary and its standbys.
func (k *killer) homes(task determinant.TaskID) (dirs []int) {
	var ids []determinant.WorkerID
	k.until("a standby", func() bool {
		k.on(func(c *Coordinator) {
			p := c.view.Places[task]
			ids = append([]determinant.WorkerID{p.Worker}, p.Standbys...)
		})
		return len(ids) > 1
	})
	for _, w := range k.l.workers() {
		if w != nil && slices.Contains(ids, w.worker.ID()) {
			dirs = append(dirs, w.dir)
		}
	}
	return dirs
}

// checkpoint asks for a checkpoint and waits until it is under way.
func (k *killer) checkpoint() {
	var before determinant.Epoch
	k.on(func(c *Coordinator) { before = c.view.committed() })
	k.until("a checkpoint", func() (open bool) {
		k.on(func(c *Coordinator) {
			c.Report(Report{Checkpoint: true})
			open = c.points.State().Open || c.view.committed() > before
		})
		return open
	})
}

// drawnRun runs drawnPlan while drive is at it.
func drawnRun(ctx context.Context, t *testing.T, v *valve, out string, o LocalOptions, drive func(k *killer)) (Summary, error) {
	t.Helper()
	return killRun(ctx, t, drawnPlan(t, v, out), v, out, o, drive)
}

// killRun runs a plan of drawnTo that shows its output in out.
func killRun(ctx context.Context, t *testing.T, plan *operator.Plan, v *valve, out string, o LocalOptions, drive func(k *killer)) (Summary, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var driving sync.WaitGroup
	o.Started = func(l *Local) {
		k := &killer{t: t, l: l, valve: v, out: out, ctx: ctx}
		driving.Go(func() { drive(k) })
	}
	sum, err := RunLocal(ctx, plan, o)
	cancel()
	driving.Wait()
	return sum, err
}

// killings are what is killed, and when.
var killings = []struct {
	name     string
	interval time.Duration // of checkpoints
	drive    func(k *killer)
}{
	{"each task by itself", 20 * time.Millisecond, func(k *killer) {
		for task := range determinant.TaskID(tasks) {
			k.advance(300)
			k.kill(task)
		}
	}},
	{"each task by itself, without checkpoints", time.Hour, func(k *killer) {
		for task := range determinant.TaskID(tasks) {
			k.advance(300)
			k.kill(task)
		}
	}},
	{"all tasks of a vertex", 20 * time.Millisecond, func(k *killer) {
		for _, first := range []determinant.TaskID{sources, drawers, summers} {
			k.advance(300)
			k.kill(first, first+1)
		}
	}},
	{"adjacent tasks", 20 * time.Millisecond, func(k *killer) {
		k.advance(300)
		k.kill(sources, drawers)
		k.advance(300)
		k.kill(drawers+1, summers)
		k.advance(300)
		k.kill(sources, drawers, summers)
	}},
	{"the last task before a sink", time.Hour, func(k *killer) {
		k.advance(300)
		k.kill(summers)
		k.advance(300)
		k.kill(summers + 1)
		k.advance(300)
		k.kill(summers, summers+1)
	}},
	{"every task", time.Hour, func(k *killer) {
		for range 3 {
			k.advance(300)
			k.kill(0, 1, 2, 3, 4, 5)
		}
	}},
	{"tasks while they replay", time.Hour, func(k *killer) {
		k.advance(2000)
		for _, task := range []determinant.TaskID{sources, drawers, summers} {
			for range 5 {
				k.kill(task)
			}
		}
	}},
	{"neighbours while a task replays", time.Hour, func(k *killer) {
		k.advance(2000)
		for range 3 {
			k.kill(drawers)
			k.kill(sources)
			k.kill(summers)
		}
	}},
	{"tasks during a checkpoint", time.Hour, func(k *killer) {
		for task := range determinant.TaskID(tasks) {
			k.advance(300)
			k.checkpoint()
			k.kill(task)
		}
	}},
	{"primary and standby together", 20 * time.Millisecond, func(k *killer) {
		for _, task := range []determinant.TaskID{sources, drawers, summers} {
			k.advance(300)
			k.killWorkers(k.homes(task)...)
		}
	}},
	{"each worker", 20 * time.Millisecond, func(k *killer) {
		for range 2 {
			for dir := range 3 {
				k.advance(300)
				k.killWorkers(dir)
			}
		}
	}},
	{"every worker", 20 * time.Millisecond, func(k *killer) {
		for range 3 {
			k.advance(300)
			k.killWorkers(0, 1, 2)
		}
	}},
	{"workers during a checkpoint", time.Hour, func(k *killer) {
		for dir := range 3 {
			k.advance(300)
			k.checkpoint()
			k.killWorkers(dir)
		}
	}},
	{"a worker while its tasks recover", 20 * time.Millisecond, func(k *killer) {
		for range 3 {
			k.advance(300)
			k.kill(0, 1, 2, 3, 4, 5)
			k.killWorkers(1)
			k.killWorkers(2)
		}
	}},
}

func TestKillings(t *testing.T) {
	for _, c := range killings {
		t.Run(c.name, func(t *testing.T) {
			v, out := &valve{n: 5000}, filepath.Join(t.TempDir(), "out")
			sum, err := drawnRun(context.Background(), t, v, out, LocalOptions{CheckpointInterval: c.interval}, func(k *killer) {
				c.drive(k)
				v.open(v.n)
			})
			require.NoError(t, err)
			require.Positive(t, sum.Kills)
			require.Positive(t, sum.TasksRestarted)
			require.Zero(t, sum.Rollbacks)
			requireExact(t, out, 10000)
		})
	}
}

// A job that was stopped, with tasks dead and alive, goes on in another process from its state directory.
func TestKillingsAcrossRestarts(t *testing.T) {
	for _, c := range killings {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			v, out := &valve{n: 9000}, filepath.Join(dir, "out")
			o := LocalOptions{CheckpointInterval: c.interval, StateDir: filepath.Join(dir, "state")}
			for range 2 {
				ctx, stop := context.WithCancel(context.Background())
				_, err := drawnRun(ctx, t, v, out, o, func(k *killer) {
					k.moved = v.limit()
					c.drive(k)
					stop()
				})
				stop()
				require.ErrorIs(t, err, context.Canceled)
			}
			sum, err := drawnRun(context.Background(), t, v, out, o, func(*killer) { v.open(v.n) })
			require.NoError(t, err)
			require.True(t, sum.Resumed)
			require.Zero(t, sum.Rollbacks)
			requireExact(t, out, 18000)
		})
	}
}

// killAtOnce kills tasks that all run, so that none has caught up when the last one's death is noticed.
func (k *killer) killAtOnce(list ...determinant.TaskID) {
	k.settle()
	k.on(func(*Coordinator) {
		for _, task := range list {
			if !k.l.KillTask(task) {
				k.t.Errorf("task %d does not run", task)
			}
		}
	})
}

// settle waits until no task is recovering.
func (k *killer) settle() {
	k.until("recoveries", func() (settled bool) {
		k.on(func(c *Coordinator) {
			settled = !standby.AnyRecovering(c.view.Places)
		})
		return settled
	})
}

// At sharing depth 1 a task's choices are known one hop downstream, and there only.
func TestKillingsAtDepthOne(t *testing.T) {
	for _, c := range []struct {
		name      string
		tasks     []determinant.TaskID
		rollbacks int
	}{
		{"one task", []determinant.TaskID{drawers}, 0},
		{"a source", []determinant.TaskID{sources}, 0},
		{"the last task before a sink", []determinant.TaskID{summers}, 0},
		{"all tasks of a vertex", []determinant.TaskID{drawers, drawers + 1}, 0},
		{"two adjacent tasks", []determinant.TaskID{sources, drawers}, 1},
		{"the last two tasks before a sink", []determinant.TaskID{drawers, summers}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, out := &valve{n: 3000}, filepath.Join(t.TempDir(), "out")
			sum, err := drawnRun(context.Background(), t, v, out, LocalOptions{Depth: 1, CheckpointInterval: time.Hour}, func(k *killer) {
				k.advance(500)
				k.checkpoint()
				k.advance(500) // behind the checkpoint: a rollback takes it back
				k.killAtOnce(c.tasks...)
				k.settle()
				v.open(v.n)
			})
			require.NoError(t, err)
			require.Equal(t, len(c.tasks), sum.Kills)
			require.Equal(t, c.rollbacks, sum.Rollbacks)
			requireExact(t, out, 6000)
		})
	}
}

func (v *valve) limit() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.limit
}

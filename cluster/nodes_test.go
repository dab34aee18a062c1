package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/transport"
)

var errTestKill = errors.New("killed by the test")

// cell is a cluster whose processes are goroutines of the test, on real connections and directories.
type cell struct {
	t        *testing.T
	dir, out string
	valve    *valve
	mode     determinant.Mode
	workers  int
	addrs    []string
	coords   []*cellNode
	nodes    []*cellNode
	client   *Client
	security transport.Security

	inspecting func(address string)
	outage     *outage               // nil: there is none
	own        func() *operator.Plan // nil: drawnPlan
	log        record
}

// record is what processes log.
type record struct {
	mu struct {
		sync.Mutex
		bytes.Buffer
	}
}

// Write takes a line of a log.
func (r *record) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.Buffer.Write(line)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.Buffer.String()
}

// cellNode is one process of a cell.
type cellNode struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error
}

func (n *cellNode) kill() {
	n.cancel(errTestKill)
	<-n.done
}

// freeAddresses finds ports that were free a moment ago, below those that the system gives out by itself: a worker of the same test would be given
// one that a coordinator has yet to listen on.
func freeAddresses(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for tries := 0; len(addrs) < n; tries++ {
		require.Less(t, tries, 1000, "no free port")
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000)))
		if err != nil {
			continue
		}
		defer l.Close() //nolint:errcheck // it only held the port
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

func newCell(t *testing.T, coordinators, workers int, n uint64) *cell {
	t.Helper()
	c := &cell{
		t: t, dir: t.TempDir(), valve: &valve{n: n}, workers: workers, addrs: freeAddresses(t, coordinators),
		security: transport.Security{Secret: []byte("a secret of the test cluster")},
	}
	c.out = filepath.Join(c.dir, "out")
	c.client = NewClient("test", c.addrs, c.security)
	c.coords, c.nodes = make([]*cellNode, coordinators), make([]*cellNode, workers)
	t.Cleanup(c.stop)
	return c
}

func (c *cell) plan() *operator.Plan {
	if c.own != nil {
		return c.own()
	}
	plan := drawnPlan(c.t, c.valve, c.out)
	if c.outage != nil {
		c.outage.behind(plan)
	}
	return plan
}

func (c *cell) start() {
	for i := range c.coords {
		c.startCoordinator(i)
	}
	for i := range c.nodes {
		c.startWorker(i)
	}
}

func (c *cell) node(dir string) NodeOptions {
	return NodeOptions{
		Cluster: "test", StateDir: filepath.Join(c.dir, dir), Coordinators: c.addrs, Security: c.security, Build: "test", Inspecting: c.inspecting,
		Heartbeat: 50 * time.Millisecond, HeartbeatTimeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(&c.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("process", dir),
	}
}

func (c *cell) launch(run func(ctx context.Context) error) *cellNode {
	ctx, cancel := context.WithCancelCause(context.Background())
	n := &cellNode{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		n.err = run(ctx)
	}()
	return n
}

func (c *cell) startCoordinator(i int) {
	o := CoordinatorNodeOptions{NodeOptions: c.node(fmt.Sprintf("coordinator-%d", i)), Workers: c.workers, Mode: c.mode, CheckpointInterval: 50 * time.Millisecond}
	o.Listen = c.addrs[i]
	plan := c.plan()
	c.coords[i] = c.launch(func(ctx context.Context) error { return RunCoordinator(ctx, plan, o) })
}

func (c *cell) startWorker(i int) {
	o := WorkerNodeOptions{NodeOptions: c.node(fmt.Sprintf("worker-%d", i))}
	plan := c.plan()
	c.nodes[i] = c.launch(func(ctx context.Context) error { return RunWorker(ctx, plan, o) })
}

// await polls the status until it is as wanted.
func (c *cell) await(what string, ok func(s *Status) bool) Status {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var last Status
	for {
		s, err := c.client.Status(ctx)
		require.NoError(c.t, err, "waiting for %s; last: %+v", what, last)
		last = s
		if ok(&s) {
			return s
		}
		require.NotEqual(c.t, JobFailed, s.State, s.Err)
		require.NoError(c.t, ctx.Err(), "waiting for %s: %+v", what, s)
	}
}

func (c *cell) finished() Status {
	c.t.Helper()
	s := c.await("the end", func(s *Status) bool { return s.State == JobFinished })
	for i, n := range c.nodes {
		select {
		case <-n.done:
		case <-time.After(time.Minute):
			require.NoError(c.t, pprof.Lookup("goroutine").WriteTo(os.Stderr, 2))
			require.Fail(c.t, "the job is finished, and a worker goes on", "worker %d; the log:\n%s", i, c.log.String())
		}
		require.NoError(c.t, n.err)
	}
	return s
}

func (c *cell) stop() {
	var all sync.WaitGroup
	for _, n := range append(append([]*cellNode{}, c.nodes...), c.coords...) {
		if n != nil {
			all.Go(n.kill)
		}
	}
	all.Wait()
}

func written(n uint64) func(s *Status) bool {
	return func(s *Status) bool { return s.Summary.RecordsOut >= n }
}

// protected tells whether every task has a standby that holds its committed state, so that any one worker may die.
func protected(s *Status) bool {
	return !slices.ContainsFunc(s.Tasks, func(t TaskStatus) bool {
		return !slices.ContainsFunc(t.Standbys, func(s StandbyStatus) bool { return s.Ready })
	})
}

// A job runs on processes that share nothing but connections.
func TestAClusterRunsAJob(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := newCell(t, 1, 3, 3000)
	c.start()
	c.valve.open(c.valve.n)
	s := c.finished()
	require.Zero(t, s.Generation)
	require.EqualValues(t, 6000, s.Summary.RecordsOut)
	requireExact(t, c.out, 6000)
	c.stop()
}

// A worker that comes when the job is over is told so, and ends.
func TestAWorkerComesTooLate(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, coordinators := range []int{1, 3} {
		c := newCell(t, coordinators, 2, 1000)
		c.start()
		c.valve.open(c.valve.n)
		c.finished()
		c.startWorker(1)
		c.finished()
		requireExact(t, c.out, 2000)
		c.stop()
	}
}

// Any process may die at any moment: a worker, the leading coordinator, all of them.
func TestProcessesDie(t *testing.T) {
	kills := map[string]func(c *cell, s *Status){
		"worker": func(c *cell, _ *Status) {
			c.nodes[1].kill()
			c.startWorker(1)
		},
		"two workers": func(c *cell, _ *Status) {
			c.nodes[0].kill()
			c.nodes[2].kill()
			c.startWorker(0)
			c.startWorker(2)
		},
		"leader": func(c *cell, s *Status) {
			for i, co := range s.Coordinators {
				if co.Leader {
					c.coords[i].kill()
					c.startCoordinator(i)
				}
			}
		},
		"all": func(c *cell, _ *Status) {
			c.stop()
			c.start()
		},
	}
	for name, kill := range kills {
		for _, coordinators := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s of %d", name, coordinators), func(t *testing.T) {
				defer goleak.VerifyNone(t)
				c := newCell(t, coordinators, 3, 5000)
				c.start()
				c.valve.open(1000)
				s := c.await("the first output", written(1))
				kill(c, &s)
				c.valve.open(3000)
				s = c.await("more output", func(s *Status) bool { return s.State == JobRunning && s.Checkpoint.Committed > 0 })
				kill(c, &s)
				c.valve.open(c.valve.n)
				s = c.finished()
				require.Zero(t, s.Generation, "rolled back")
				requireExact(t, c.out, 10000)
				c.stop()
			})
		}
	}
}

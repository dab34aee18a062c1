package cluster

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// outage is what keeps the stores of a job from their external system, while there is a reason.
type outage struct {
	mu     sync.Mutex
	why    string
	closed chan struct{} // when why becomes empty
}

func (o *outage) begin(why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.why, o.closed = why, make(chan struct{})
}

func (o *outage) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.why = ""
	close(o.closed)
}

// behind puts the stores of a plan's sinks behind the outage.
func (o *outage) behind(plan *operator.Plan) {
	for i := range plan.Vertices {
		open := plan.Vertices[i].Sink
		if open == nil {
			continue
		}
		plan.Vertices[i].Sink = func(ctx context.Context, task int) (operator.CausalStore, error) {
			s, err := open(ctx, task)
			return &waitingStore{CausalStore: s, outage: o, closed: make(chan struct{})}, err
		}
	}
}

// waitingStore waits while there is an outage, and says so.
type waitingStore struct {
	operator.CausalStore
	outage *outage
	calls  atomic.Int64 // that wait
	closed chan struct{}
}

func (s *waitingStore) Waiting() string {
	if s.calls.Load() == 0 {
		return ""
	}
	s.outage.mu.Lock()
	defer s.outage.mu.Unlock()
	return s.outage.why
}

func (s *waitingStore) wait(ctx context.Context) error {
	s.outage.mu.Lock()
	away, over := s.outage.why != "", s.outage.closed
	s.outage.mu.Unlock()
	if !away {
		return nil
	}
	s.calls.Add(1)
	defer s.calls.Add(-1)
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.closed:
		return errors.New("closed")
	}
}

func (s *waitingStore) Fence(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	if err := s.wait(ctx); err != nil {
		return operator.Stored{}, err
	}
	return s.CausalStore.Fence(ctx, f)
}

func (s *waitingStore) Write(ctx context.Context, i determinant.Incarnation, w operator.StoreWrite) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.CausalStore.Write(ctx, i, w)
}

func (s *waitingStore) Close() error {
	close(s.closed)
	return s.CausalStore.Close()
}

// waitsOutside tells how many sink tasks of a status wait for why, and whether the status as a whole says so as often.
func waitsOutside(s *Status, why string) (n int, told bool) {
	lines := 0
	for _, t := range s.Tasks {
		if t.Worker != 0 && t.Metrics.Waiting == "sink: "+why {
			n++
		}
	}
	for _, line := range s.Waiting {
		if strings.HasSuffix(line, " waits, sink: "+why) {
			lines++
		}
	}
	return n, n == lines
}

// While a store waits for its server, status and metrics say why: also of a life that waits before it runs.
func TestAStoreSaysWhyItWaits(t *testing.T) {
	c := newCell(t, 1, 2, 3000)
	c.outage = &outage{}
	var mu sync.Mutex
	var urls []string
	c.inspecting = func(address string) {
		mu.Lock()
		defer mu.Unlock()
		urls = append(urls, "http://"+address)
	}
	waiting := func() (sum float64) {
		mu.Lock()
		defer mu.Unlock()
		for _, url := range urls {
			if text, err := get(url + "/metrics"); err == nil { // else it was killed
				sum += max(0, value(t, text, "understudy_task_waiting"))
			}
		}
		return sum
	}
	c.start()
	c.valve.open(1000)
	c.await("output and a checkpoint", func(s *Status) bool { return written(2000)(s) && s.Checkpoint.Committed > 0 && protected(s) })
	require.Zero(t, waiting())
	c.outage.begin("no\nserver")
	c.valve.open(2000)
	c.await("waiting sinks", func(s *Status) bool { n, told := waitsOutside(s, "no server"); return n > 0 && told })
	sinks := 0
	job, err := Layout(c.plan())
	require.NoError(t, err)
	for _, spec := range job.Tasks {
		if spec.External {
			sinks++
		}
	}
	c.await("all sinks wait", func(s *Status) bool { n, _ := waitsOutside(s, "no server"); return n == sinks })
	require.EqualValues(t, sinks, waiting())
	c.nodes[0].kill()
	c.await("sinks that are to be fenced elsewhere wait", func(s *Status) bool {
		n, told := waitsOutside(s, "no server")
		return n == sinks && told && len(s.Workers) == 1
	})
	require.EqualValues(t, sinks, waiting())
	c.startWorker(0)
	c.outage.end()
	c.valve.open(c.valve.n)
	c.await("nobody waits", func(s *Status) bool {
		for _, task := range s.Tasks {
			if task.Metrics.Waiting != "" {
				return false
			}
		}
		return written(6000)(s) || s.State == JobFinished
	})
	c.finished()
	requireExact(t, c.out, 6000)
	require.Contains(t, c.log.String(), `"a task waits"`)
	require.Contains(t, c.log.String(), "a task waits no longer")
}

// A job in this process logs that a task waits, when that begins and when it is over, and its progress says why.
func TestAJobInThisProcessSaysWhyItWaits(t *testing.T) {
	v, out, o := &valve{n: 1000}, filepath.Join(t.TempDir(), "out"), &outage{}
	plan := drawnPlan(t, v, out)
	o.behind(plan)
	var log record
	_, err := killRun(context.Background(), t, plan, v, out, LocalOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(k *killer) {
		k.advance(500)
		o.begin("no server")
		v.open(800)
		k.until("progress says so", func() bool { return strings.Contains(k.l.stats.progress(k.l).Waiting, " waits, sink: no server") })
		o.mu.Lock()
		o.why = "still no server"
		o.mu.Unlock()
		k.until("progress says it anew", func() bool { return strings.Contains(k.l.stats.progress(k.l).Waiting, "still no server") })
		o.end()
		k.until("it goes on", func() bool { return k.l.stats.progress(k.l).Waiting == "" })
		v.open(v.n)
	})
	require.NoError(t, err)
	requireExact(t, out, 2000)
	begun := map[string]int{}
	for line := range strings.Lines(log.String()) {
		if _, said, ok := strings.Cut(line, `"a task waits"`); ok {
			name, _, _ := strings.Cut(said, " why=")
			begun[name]++
		}
	}
	require.NotEmpty(t, begun)
	for name, n := range begun {
		require.Equal(t, 1, n, "another reason is no other wait:%s\n%s", name, log.String())
	}
}

func TestReasonsFitALine(t *testing.T) {
	require.Equal(t, "a b c", oneLine("a\nb\x1bc"))
	require.Len(t, oneLine(strings.Repeat("ä", 1000)), maxWords+len("…"))
	require.NotContains(t, oneLine("x"+strings.Repeat("ä", 1000)), "\uFFFD")
}

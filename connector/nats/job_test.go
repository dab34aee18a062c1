package nats

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// drawn is a record of the job's output: what came in, and a choice.
type drawn struct {
	In     int
	Split  string
	Chosen uint64
}

// gate lets n records pass, whichever come first, and further ones slowly: a task that waits for good cannot be killed. A record that has
// passed passes at once when it is replayed. Otherwise a task whose split is ahead would come no further between two kills, ever.
type gate struct {
	mu     sync.Mutex
	n      int
	passed map[int]bool
	opened chan struct{} // closed when n grows
}

// slowly is how long a record waits that must wait: some hundred pass in the seconds that an outage lasts.
const slowly = 20 * time.Millisecond

func newGate() *gate { return &gate{passed: map[int]bool{}, opened: make(chan struct{})} }

// open lets n records pass.
func (g *gate) open(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n > g.n {
		g.n = n
		close(g.opened)
		g.opened = make(chan struct{})
	}
}

func (g *gate) pass(i int) {
	over := time.NewTimer(slowly)
	defer over.Stop()
	for slow := false; ; {
		g.mu.Lock()
		if g.passed[i] || len(g.passed) < g.n || slow {
			g.passed[i] = true
			g.mu.Unlock()
			return
		}
		opened := g.opened
		g.mu.Unlock()
		select {
		case <-opened:
		case <-over.C:
			slow = true
		}
	}
}

// let lets records pass, some at a time, until a plain reader could see so many. It does not run far ahead of what is shown, so that there is
// something left to do then.
func (g *gate) let(t testing.TB, js jetstream.JetStream, until int, done chan error, w *waits) {
	n, now := 0, 0
	if !assert.Eventually(t, func() bool {
		now = shown(t, js)
		n = max(n, min(n+10, now+300))
		g.open(n)
		return now >= until || len(done) > 0
	}, time.Minute, time.Millisecond) {
		require.FailNow(t, "the job does not go on", "%d of %d are shown; it said %v", now, until, w.last())
	}
	if len(done) > 0 {
		require.FailNow(t, "the job has ended", "%v", <-done)
	}
}

// drawing is a job that reads a stream of numbers, draws one for each, and writes them to streams.
func drawing(address string, g *gate, waits *waits) *operator.Job {
	job := operator.NewJob("drawing")
	from := sourceOptions(address, "in")
	from.Subjects, from.Bounded = []string{"in.0", "in.1"}, true
	if waits != nil {
		from.Waiting = waits.say
	}
	all := operator.From(job, "numbers", Decoded(Messages(from), func(m Message) (drawn, error) {
		n, err := strconv.Atoi(string(m.Data))
		return drawn{In: n, Split: m.Subject}, err
	}))
	chosen := operator.Map(operator.Rebalanced(all), "draw", func(ctx operator.Context, d drawn) (drawn, error) {
		if g != nil {
			g.pass(d.In)
		}
		d.Chosen = ctx.Rand().Uint64()
		return d, nil
	})
	o := SinkOptions{Connection: Connection{Servers: []string{address}, Timeout: 500 * time.Millisecond}, Stream: "OUT", Subject: "out"}
	if waits != nil {
		o.Waiting = func(_ int, why string) { waits.say("", why) }
	}
	operator.To(chosen, "out", NewSink(o))
	return job
}

// waits notes why sinks and sources wait.
type waits struct {
	mu  sync.Mutex
	all []string
}

func (w *waits) say(_, why string) {
	if why == "" { // no more
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, why)
}

func (w *waits) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// last gives what was said last.
func (w *waits) last() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[max(0, len(w.all)-5):]
}

const outputs = 2

// shown is how many records a plain reader could see.
func shown(t testing.TB, js jetstream.JetStream) (n int) {
	for task := range outputs {
		s, err := js.Stream(ctx, fmt.Sprintf("OUT-%d", task))
		if err != nil {
			continue // not made yet, or the server is away
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(fmt.Sprintf("out.%d", task)))
		if err != nil {
			continue
		}
		for _, count := range info.State.Subjects { //lint:sorted a sum
			n += int(count)
		}
	}
	return n
}

// requireExact checks what a plain reader sees: each number once, in the order of its split.
func requireExact(t testing.TB, js jetstream.JetStream, n int) {
	seen := map[int]int{}
	for task := range outputs {
		last := map[string]int{}
		for _, m := range readAll(t, js, fmt.Sprintf("OUT-%d", task), fmt.Sprintf("out.%d", task)) {
			var d drawn
			require.NoError(t, json.Unmarshal(m.Data(), &d))
			seen[d.In]++
			if before, ok := last[d.Split]; ok {
				require.Less(t, before, d.In, "out of order in split %s of task %d", d.Split, task)
			}
			last[d.Split] = d.In
		}
	}
	for i := range n {
		require.Equal(t, 1, seen[i], "number %d", i)
	}
	require.Len(t, seen, n)
}

// load fills the input quickly.
func load(t testing.TB, js jetstream.JetStream, n int) {
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "in", Subjects: []string{"in.*"}})
	require.NoError(t, err)
	for i := range n {
		_, err := js.PublishAsync(fmt.Sprintf("in.%d", i%2), fmt.Appendf(nil, "%d", i))
		require.NoError(t, err)
		if i%1000 == 999 || i == n-1 {
			select {
			case <-js.PublishAsyncComplete():
			case <-time.After(30 * time.Second):
				require.FailNow(t, "the input is not acknowledged")
			}
		}
	}
}

// The server is killed again and again in the middle of a job, while workers are killed too. The job waits and goes on by itself.
func TestTheServerIsKilled(t *testing.T) {
	n, kills := 4000, 2
	if *long {
		n, kills = 60_000, 30
	}
	p := newProcess(t)
	js := plain(t, p.address())
	load(t, js, n)
	g, w := newGate(), &waits{}
	chaos, err := understudy.ParseChaos("kill=400ms,target=worker")
	require.NoError(t, err)
	plan, err := drawing(p.address(), g, w).Plan(outputs)
	require.NoError(t, err)
	state := t.TempDir()
	bounded, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := cluster.RunLocal(bounded, plan, cluster.LocalOptions{
			StateDir: state, CheckpointInterval: 50 * time.Millisecond, CheckpointTimeout: 300 * time.Millisecond, Chaos: chaos,
		})
		done <- err
	}()
	for k := range kills {
		g.let(t, js, (k+1)*n/(kills+2), done, w)
		before := w.count()
		p.kill() // most likely in the middle of a write
		// Whoever waits says so at each try, four times a second: longer than requests and checkpoints have.
		require.Eventually(t, func() bool { return w.count() > before+8 || len(done) > 0 }, time.Minute, time.Millisecond, "nobody says that it waits")
		require.Empty(t, done, "the job has ended")
		p.start()
	}
	g.open(n)
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-bounded.Done():
		require.FailNow(t, "the job does not end", "it waits for %v", w.all)
	}
	requireExact(t, js, n)
	require.Contains(t, strings.Join(w.all, "\n"), "waits since")
}

// A server that hangs is no different: what it does when it goes on must not be done twice.
func TestTheServerIsStopped(t *testing.T) {
	const n = 3000
	p := newProcess(t)
	js := plain(t, p.address())
	load(t, js, n)
	g, w := newGate(), &waits{}
	bounded, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := understudy.Run(bounded, drawing(p.address(), g, w), understudy.Options{
			StateDir: t.TempDir(), Parallelism: outputs, CheckpointInterval: 50 * time.Millisecond,
		})
		done <- err
	}()
	g.let(t, js, n/3, done, w)
	before := w.count()
	p.signal(syscall.SIGSTOP)
	g.open(n)
	require.Eventually(t, func() bool { return w.count() > before }, time.Minute, time.Millisecond, "nobody says that it waits")
	p.signal(syscall.SIGCONT)
	require.NoError(t, <-done)
	requireExact(t, js, n)
}

// The whole job is killed, every worker at once, and the same again goes on.
func TestTheWholeJobIsKilled(t *testing.T) {
	const n = 4000
	address := embedded(t).ClientURL()
	js := plain(t, address)
	load(t, js, n)
	state := t.TempDir()
	killed := 0
	for _, until := range []int{1, n / 4, n / 2, 3 * n / 4} {
		job := start(t, "job", address, state)
		require.Eventually(t, func() bool { return shown(t, js) >= until }, time.Minute, time.Millisecond)
		require.NoError(t, job.Process.Kill())
		if job.Wait() != nil { // otherwise it had just ended: then the next finds that it has
			killed++
		}
	}
	require.Positive(t, killed)
	job := start(t, "job", address, state)
	require.NoError(t, job.Wait())
	requireExact(t, js, n)
}

// A writer is stopped wherever it happens to be, replaced, and wakes up: nothing more of it may become visible.
func TestAStoppedWriterWakesUp(t *testing.T) {
	b := newBench(t, embedded(t).ClientURL())
	var out output
	for life := determinant.Incarnation(1); life <= 9; life += 2 {
		zombie := start(t, "writer", b.options.Connection.Servers[0], fmt.Sprint(life))
		before := len(b.visible())
		require.Eventually(t, func() bool {
			info, err := b.js.Stream(ctx, "OUT")
			return err == nil && info.CachedInfo().State.LastSeq > uint64(before+200+rand.IntN(200))
		}, time.Minute, time.Millisecond)
		require.NoError(t, zombie.Process.Signal(syscall.SIGSTOP))
		s := b.open()
		stored := b.fence(s, life+1)
		at := int(stored.Cursor.Next)
		visible := b.visible()
		require.Equal(t, out.records(0, len(visible)), visible)
		require.GreaterOrEqual(t, len(visible), at)
		for k := range 5 {
			require.NoError(t, s.Write(ctx, life+1, out.write(at+50*k, at+50*k+50)))
			if k == 2 {
				require.NoError(t, zombie.Process.Signal(syscall.SIGCONT))
			}
		}
		require.NoError(t, zombie.Wait(), "the zombie was not told")
		require.Equal(t, out.records(0, max(at+250, len(visible))), b.visible())
		stored = b.fence(s, life+1)
		covers(t, stored.Deltas, 0, len(b.visible()))
		require.NoError(t, s.Close())
	}
}

// start runs this test binary as another process.
func start(t testing.TB, what, address, argument string) *exec.Cmd {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%s,%s", envProcess, what, address, argument))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "it did not start")
	return cmd
}

// beProcess is what the test binary does as another process.
func beProcess(spec string) error {
	parts := strings.Split(spec, ",")
	what, address, argument := parts[0], parts[1], parts[2]
	fmt.Println("started")
	if what == "job" {
		_, err := understudy.Run(ctx, drawing(address, nil, nil), understudy.Options{
			StateDir: argument, Parallelism: outputs, CheckpointInterval: 20 * time.Millisecond,
		})
		return err
	}
	life, err := strconv.ParseUint(argument, 10, 64)
	if err != nil {
		return err
	}
	s, err := NewSink(SinkOptions{
		Connection: Connection{Servers: []string{address}, Timeout: time.Second}, Stream: "OUT", Subject: "out.records", Identity: "job",
	}).Open(ctx, 0, 1)
	if err != nil {
		return err
	}
	incarnation := determinant.Incarnation(life)
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: incarnation})
	if err != nil {
		return err
	}
	for at := int(stored.Cursor.Next); ; {
		to := at + 1 + rand.IntN(30)
		if err := s.Write(ctx, incarnation, output{}.write(at, to)); errors.Is(err, operator.ErrFenced) {
			return s.Close()
		} else if err != nil {
			return err
		}
		at = to
	}
}

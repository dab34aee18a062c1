package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
)

// patience bounds how long a test waits for something that must happen.
const patience = time.Minute

func TestMain(m *testing.M) {
	switch a, err := Assigned(); {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case a != nil:
		child(a)
	case os.Getenv(parentVariable) != "":
		parent(os.Getenv(parentVariable))
	default:
		goleak.VerifyTestMain(m)
	}
}

var errHopeless = errors.New("no use in trying again")

// child is what the test program does as a process of a cluster, by the name of the job.
func child(a *Assignment) {
	if a.Job == "crashing" {
		fmt.Fprintln(os.Stderr, "panic: a worm in the apple")
		os.Exit(2)
	}
	a.Serve(Classes{Final: []error{errHopeless}, Stopped: []error{cluster.ErrStopped}}, func(ctx context.Context, o cluster.NodeOptions) error {
		lock, err := checkpoint.OSFS().Lock(filepath.Join(o.StateDir, "alive"))
		if err != nil {
			return err
		}
		defer lock.Close() //nolint:errcheck // it is released with the process
		if err := os.WriteFile(filepath.Join(o.StateDir, "pid"), []byte(fmt.Sprint(os.Getpid())), 0o600); err != nil {
			return err
		}
		marker := filepath.Join(filepath.Dir(o.StateDir), "marker")
		switch a.Job {
		case "hopeless":
			return errHopeless
		case "taken":
			if _, err := os.Stat(marker); err != nil && a.Role == Coordinator {
				if err := os.WriteFile(marker, nil, 0o600); err != nil {
					return err
				}
				return fmt.Errorf("listen: %w", syscall.EADDRINUSE)
			}
		case "curious":
			text := strings.Join(append(os.Args, os.Environ()...), "\n")
			if err := os.WriteFile(filepath.Join(o.StateDir, "seen"), []byte(text), 0o600); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(o.StateDir, "secret"), o.Security.Secret, 0o600); err != nil {
				return err
			}
		case "talking":
			fmt.Println("a plain line")
			o.Logger.Warn("a warning", "number", 7)
			o.Logger.Debug("too low")
		case "stubborn":
			ctx = context.WithoutCancel(ctx)
		}
		o.Listening(o.Listen)
		<-ctx.Done()
		return context.Cause(ctx)
	})
}

// far is a cluster's coordinators, as the test has them.
type far struct {
	mu struct {
		sync.Mutex
		status  cluster.Status
		stops   int
		stopErr error
	}
}

func (f *far) Status(context.Context) (cluster.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.status, nil
}

func (f *far) Stop(context.Context) (cluster.JobState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.stops++
	return cluster.JobStopping, f.mu.stopErr
}

func (f *far) CutLinks(context.Context, determinant.WorkerID) error { return nil }

func (f *far) set(change func(*cluster.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.mu.status)
}

// trial is a run of the supervisor in a test.
type trial struct {
	t      *testing.T
	far    *far
	opts   Options
	events chan Event
	kill   chan cluster.Target
	abort  chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}
	sum    Summary
	err    error
}

func begin(t *testing.T, job, dir string, change func(*Options)) *trial {
	t.Helper()
	r := &trial{
		t: t, far: &far{}, events: make(chan Event, 1000), kill: make(chan cluster.Target), abort: make(chan struct{}), ended: make(chan struct{}),
	}
	r.opts = Options{
		Job: job, StateDir: dir, Workers: 2, Args: []string{}, Kill: r.kill, Abort: r.abort,
		Client: func(Settings, []byte) (Client, error) { return r.far, nil },
		Event:  func(e Event) { r.events <- e },
	}
	if change != nil {
		change(&r.opts)
	}
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobRunning })
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.ended)
		r.sum, r.err = Run(ctx, r.opts)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.ended
	})
	return r
}

// await waits for n events of a kind.
func (r *trial) await(what Happening, n int) (all []Event) {
	r.t.Helper()
	timeout := time.After(patience)
	for len(all) < n {
		select {
		case e := <-r.events:
			if e.What == what {
				all = append(all, e)
			}
		case <-r.ended:
			r.t.Fatalf("the run ended while %d times %q was awaited: %v", n, what, r.err)
		case <-timeout:
			r.t.Fatalf("waited in vain for %d times %q", n, what)
		}
	}
	return all
}

func (r *trial) end() error {
	r.t.Helper()
	select {
	case <-r.ended:
		return r.err
	case <-time.After(patience):
		r.t.Fatal("the run does not end")
		return nil
	}
}

// reached waits until all processes of a run can be reached.
func (r *trial) reached() {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		s, err := ReadSettings(r.opts.StateDir)
		return err == nil && s.Formed
	}, patience, 5*time.Millisecond)
}

func TestFinishedJob(t *testing.T) {
	dir := t.TempDir()
	r := begin(t, "steady", dir, nil)
	var names []string
	for _, e := range r.await(Started, 3) {
		names = append(names, e.Process)
	}
	slices.Sort(names)
	require.Equal(t, []string{"coordinator-0", "worker-0", "worker-1"}, names)
	r.reached()
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobFinished; s.Summary.RecordsIn = 12 })
	require.NoError(t, r.end())
	require.EqualValues(t, 12, r.sum.RecordsIn)
	require.False(t, r.sum.Complete)
	require.Zero(t, r.sum.ProcessesRestarted)

	again := begin(t, "steady", dir, nil)
	require.NoError(t, again.end())
	require.True(t, again.sum.Complete)
	require.Empty(t, again.events)
}

// A complete job has nothing to do with the input that it had, and does not pass for one with other input.
func TestFinishedJobWithOtherInput(t *testing.T) {
	dir := t.TempDir()
	given := func(name string) func(*Options) {
		return func(o *Options) { o.Input = func(context.Context) (string, error) { return name, nil } }
	}
	r := begin(t, "steady", dir, given("a"))
	r.await(Started, 3)
	r.reached()
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobFinished })
	require.NoError(t, r.end())

	again := begin(t, "steady", dir, given("a"))
	require.NoError(t, again.end())
	require.True(t, again.sum.Complete)
	other := begin(t, "steady", dir, given("b"))
	require.ErrorIs(t, other.end(), cluster.ErrOtherInput)
}

// A job that is under way goes on with the input that it began with, and says so if there is other input by now, or none.
func TestUnfinishedJobWithOtherInput(t *testing.T) {
	dir := t.TempDir()
	for i, given := range []struct {
		name string
		err  error
		told bool
	}{{"a", nil, false}, {"a", nil, false}, {"b", nil, true}, {"", errors.New("no input"), true}} {
		var told bytes.Buffer
		r := begin(t, "steady", dir, func(o *Options) {
			o.Input = func(context.Context) (string, error) { return given.name, given.err }
			o.Logger = slog.New(slog.NewTextHandler(&told, nil))
		})
		r.await(Started, 3)
		r.reached()
		r.cancel()
		require.ErrorIs(t, r.end(), context.Canceled)
		require.Equal(t, given.told, strings.Contains(told.String(), "goes on with the input that it began with"), "run %d: %s", i, &told)
	}
}

// Nothing is made before the input is known.
func TestJobWithoutInput(t *testing.T) {
	dir, none := filepath.Join(t.TempDir(), "state"), errors.New("no input")
	r := begin(t, "steady", dir, func(o *Options) { o.Input = func(context.Context) (string, error) { return "", none } })
	require.ErrorIs(t, r.end(), none)
	require.NoDirExists(t, dir)
}

func TestFailedJob(t *testing.T) {
	r := begin(t, "steady", t.TempDir(), nil)
	r.await(Started, 3)
	seen := make(chan struct{})
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobRunning })
	go func() { // once it was seen running
		defer close(seen)
		r.reached()
		r.far.set(func(s *cluster.Status) { s.State, s.Err = cluster.JobFailed, "operator: it broke" })
	}()
	err := r.end()
	<-seen
	require.EqualError(t, err, "operator: it broke")
	require.ErrorIs(t, err, ErrJobFailed)
}

func TestKilledIsStartedAgain(t *testing.T) {
	r := begin(t, "steady", t.TempDir(), nil)
	pids := map[string]int{}
	for _, e := range r.await(Started, 3) {
		require.Positive(t, e.PID)
		pids[e.Process] = e.PID
	}
	for i, target := range []cluster.Target{cluster.TargetWorker, cluster.TargetTwo, cluster.TargetAll} {
		r.reached()
		r.kill <- target
		for _, e := range r.await(Killed, i+1) {
			require.Equal(t, pids[e.Process], e.PID)
		}
		for _, e := range r.await(Started, i+1) {
			require.NotEqual(t, pids[e.Process], e.PID)
			pids[e.Process] = e.PID
		}
	}
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobFinished })
	require.NoError(t, r.end())
	require.Equal(t, 6, r.sum.Kills)
	require.Equal(t, 5, r.sum.WorkerKills)
	require.Equal(t, 1, r.sum.CoordinatorKills)
	require.Equal(t, 6, r.sum.ProcessesRestarted)
	require.Len(t, r.sum.Acts, 3)
	require.Len(t, r.sum.Acts[2].Processes, 3)
}

func TestCrashLoop(t *testing.T) {
	r := begin(t, "crashing", t.TempDir(), nil)
	err := r.end()
	var crash *CrashError
	require.ErrorAs(t, err, &crash)
	require.Equal(t, maxEarlyEnds, crash.Times)
	require.ErrorContains(t, err, "exit status 2")
	require.ErrorContains(t, err, "panic: a worm in the apple")
	require.GreaterOrEqual(t, len(r.sum.Endings), maxEarlyEnds)
	require.Equal(t, "panic: a worm in the apple", r.sum.Endings[0].Output)
}

func TestHopelessError(t *testing.T) {
	r := begin(t, "hopeless", t.TempDir(), nil)
	require.ErrorContains(t, r.end(), errHopeless.Error())
	require.Zero(t, r.sum.ProcessesRestarted)
}

func TestInterrupt(t *testing.T) {
	r := begin(t, "steady", t.TempDir(), nil)
	r.await(Started, 3)
	r.reached()
	r.cancel()
	require.ErrorIs(t, r.end(), context.Canceled)
	require.Equal(t, 1, r.far.mu.stops)
	require.Zero(t, r.sum.ProcessesRestarted)
}

// A run that is stopped is over with its last process, and not some time later.
func TestTheLastProcessEndsAStop(t *testing.T) {
	s := &supervisor{phase: stopping, alive: 2}
	s.leave(context.Canceled)
	require.False(t, s.over)
	s.exited(&slot{}, exit{})
	require.False(t, s.over)
	s.exited(&slot{}, exit{})
	require.True(t, s.over)
	require.ErrorIs(t, s.result, context.Canceled)

	s = &supervisor{phase: stopping}
	s.leave(ErrStopped)
	require.True(t, s.over, "all were gone before the answer came")
}

// A cluster that cannot be stopped with a checkpoint is ended all the same.
func TestInterruptWithoutLeader(t *testing.T) {
	r := begin(t, "steady", t.TempDir(), nil)
	r.far.mu.Lock()
	r.far.mu.stopErr = cluster.ErrNoLeader
	r.far.mu.Unlock()
	r.await(Started, 3)
	r.reached()
	r.cancel()
	require.ErrorIs(t, r.end(), context.Canceled)
}

// Processes that do not end when they are asked to are killed.
func TestAbort(t *testing.T) {
	r := begin(t, "stubborn", t.TempDir(), nil)
	r.await(Started, 3)
	r.reached()
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobStopping })
	close(r.abort)
	require.ErrorIs(t, r.end(), ErrAborted)
}

// Coordinators that find their addresses taken before the job ever ran choose others.
func TestTakenAddress(t *testing.T) {
	dir := t.TempDir()
	r := begin(t, "taken", dir, nil)
	r.await(Started, 6)
	r.reached()
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobFinished })
	require.NoError(t, r.end())
	require.Zero(t, r.sum.ProcessesRestarted)
}

func TestSecretIsHidden(t *testing.T) {
	const secret = "nobody may see this"
	dir := t.TempDir()
	t.Setenv(SecretVariable, secret)
	var said strings.Builder
	r := begin(t, "curious", dir, func(o *Options) {
		o.Secret = []byte(secret)
		o.Logger = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r.await(Started, 3)
	r.reached()
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobFinished })
	require.NoError(t, r.end())
	seen, err := os.ReadFile(filepath.Join(dir, "coordinator-0", "seen"))
	require.NoError(t, err)
	require.NotContains(t, string(seen), secret)
	require.NotContains(t, string(seen), Environment)
	require.NotContains(t, said.String(), secret)
	got, err := os.ReadFile(filepath.Join(dir, "coordinator-0", "secret"))
	require.NoError(t, err)
	require.Equal(t, secret, string(got))
	for _, name := range []string{settingsName, secretName} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(t, err)
			require.NotContains(t, string(text), secret)
		}
	}
}

func TestOutputIsPassedOn(t *testing.T) {
	var said strings.Builder
	r := begin(t, "talking", t.TempDir(), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
	r.await(Started, 3)
	r.reached()
	r.far.set(func(s *cluster.Status) { s.State = cluster.JobFinished })
	require.NoError(t, r.end())
	require.Contains(t, said.String(), `level=INFO msg="a plain line" process=coordinator-0`)
	require.Contains(t, said.String(), `level=WARN msg="a warning" process=coordinator-0 number=7`)
	require.NotContains(t, said.String(), "too low")
}

// parentVariable makes the test program a supervisor, on the state directory that it names, that can be killed.
const (
	parentVariable  = "UNDERSTUDY_TEST_PARENT"
	outliveVariable = "UNDERSTUDY_TEST_OUTLIVE"
)

func parent(dir string) {
	f := &far{}
	f.mu.status.State = cluster.JobRunning
	_, err := Run(context.Background(), Options{
		Job: "stubborn", StateDir: dir, Workers: 2, Args: []string{}, Outlive: os.Getenv(outliveVariable) != "", Client: func(Settings, []byte) (Client, error) { return f, nil },
	})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// orphaned starts a supervisor in a process of its own, kills it when its children run, and gives their directories.
func orphaned(t *testing.T, environ ...string) (dirs []string) {
	t.Helper()
	dir := t.TempDir()
	path, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(path)
	cmd.Env = append(append(os.Environ(), environ...), parentVariable+"="+dir)
	cmd.SysProcAttr = attributes(false)
	require.NoError(t, cmd.Start())
	for _, name := range []string{"coordinator-0", "worker-0", "worker-1"} {
		dirs = append(dirs, filepath.Join(dir, name))
		require.Eventually(t, func() bool {
			pid, err := os.ReadFile(filepath.Join(dir, name, "pid"))
			return err == nil && len(pid) > 0 && isLocked(t, filepath.Join(dir, name, "alive"))
		}, patience, 5*time.Millisecond)
	}
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	return dirs
}

func requireDead(t *testing.T, dirs []string) {
	t.Helper()
	for _, dir := range dirs {
		require.Eventually(t, func() bool { return !isLocked(t, filepath.Join(dir, "alive")) }, patience, 5*time.Millisecond)
	}
}

// Children die with their parent, also when it is killed by kill -9.
func TestOrphansDie(t *testing.T) { requireDead(t, orphaned(t)) }

// Unless they may outlive it: then they go on, and write to a file.
func TestOrphansThatGoOn(t *testing.T) {
	dirs := orphaned(t, outliveVariable+"=yes")
	for _, dir := range dirs {
		require.Never(t, func() bool { return !isLocked(t, filepath.Join(dir, "alive")) }, 200*time.Millisecond, 20*time.Millisecond)
		require.FileExists(t, filepath.Join(dir, "log"))
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		require.NoError(t, err)
		pid, err := strconv.Atoi(string(text))
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	requireDead(t, dirs)
}

// isLocked reports whether a process holds the lock of a file.
func isLocked(t *testing.T, path string) bool {
	if _, err := os.Stat(path); err != nil {
		return false
	}
	lock, err := checkpoint.OSFS().Lock(path)
	if err != nil {
		return true
	}
	require.NoError(t, lock.Close())
	return false
}

// A port that is about to come free is waited for, one that stays taken is not waited for long.
func TestAwaitFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addresses := []string{l.Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, awaitFree(ctx, addresses), syscall.EADDRINUSE)
	require.ErrorIs(t, awaitFree(t.Context(), addresses), syscall.EADDRINUSE)
	result := make(chan error, 1)
	go func() { result <- awaitFree(t.Context(), addresses) }()
	require.NoError(t, l.Close())
	require.NoError(t, <-result)
}

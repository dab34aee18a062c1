package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
)

func TestClusterInterrupted(t *testing.T) {
	input, out := texts(t, 4, 20000), filepath.Join(t.TempDir(), "out")
	args := []string{"--workers", "3", "--rate", "300KiB", "--checkpoint-interval", "10s"}
	p := run(t, "wordcount", input, out, args...)
	require.True(t, p.until(func() bool { return outputSize(out) > 1<<20 }), "it ended too early: %s", &p.stderr)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, 130, p.code(), "stderr: %s", &p.stderr)
	require.Contains(t, p.stderr.String(), "interrupted; the same command continues")
	var object map[string]any
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &object))
	require.Contains(t, object["error"], "interrupted")

	again := start(t, "status", "--state", filepath.Join(out, ".understudy", "state"), "--timeout", "100ms")
	require.Equal(t, 3, again.code())
	require.Contains(t, again.stderr.String(), "no coordinator leads")

	sum := clusterSummary(t, run(t, "wordcount", input, out, args...))
	require.True(t, sum.Resumed)
	requireClean(t, "running", "--output", out, "--words", input)

	before := outputSize(out)
	sum = clusterSummary(t, run(t, "wordcount", input, out, args...))
	require.True(t, sum.Complete)
	require.Equal(t, before, outputSize(out))
}

// With the process that started them all others die, and the same command goes on.
func TestClusterWhoseSupervisorIsKilled(t *testing.T) {
	input, out := texts(t, 4, 20000), filepath.Join(t.TempDir(), "out")
	for i := range 3 {
		p := run(t, "wordcount", input, out, "--workers", "3", "--rate", "300KiB")
		require.True(t, p.until(func() bool { return outputSize(out) > int64(1+i)<<20 }), "it ended too early: %s", &p.stderr)
		require.NoError(t, p.cmd.Process.Kill())
		require.Equal(t, -1, p.code())
	}
	sum := clusterSummary(t, run(t, "wordcount", input, out, "--workers", "3", "--rate", "300KiB"))
	require.True(t, sum.Resumed)
	require.Zero(t, sum.Rollbacks)
	requireClean(t, "running", "--output", out, "--words", input)
}

func TestClusterWhoseJobFails(t *testing.T) {
	input, out := texts(t, 1, 200), filepath.Join(t.TempDir(), "out")
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody answers there once it is closed
	require.NoError(t, err)
	require.NoError(t, l.Close())
	p := run(t, "enrich", input, out, "--workers", "2", "--service", "http://"+l.Addr().String())
	require.Equal(t, 1, p.code(), "stderr: %s", &p.stderr)
	require.Contains(t, p.stderr.String(), `operator "draw" failed on the record`)
	var object map[string]any
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &object))
	require.Contains(t, object["error"], "does not answer")
	require.Contains(t, object, "records_in")

	p = run(t, "enrich", input, out+"2", "--service", "http://"+l.Addr().String())
	require.Equal(t, 1, p.code(), "stderr: %s", &p.stderr)
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &object))
	require.Contains(t, object["error"], "does not answer")
}

func TestClusterDirectoryInUse(t *testing.T) {
	input, out := texts(t, 4, 20000), filepath.Join(t.TempDir(), "out")
	first := run(t, "wordcount", input, out, "--workers", "2", "--rate", "100KiB")
	require.True(t, first.until(func() bool { return outputSize(out) > 0 }))
	second := run(t, "wordcount", input, out, "--workers", "2")
	require.Equal(t, 1, second.code())
	require.Contains(t, second.stderr.String(), "in use")
	local := run(t, "wordcount", input, out)
	require.Equal(t, 1, local.code())
	require.NotEmpty(t, local.stderr.String())
	require.False(t, first.ended())
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 130, first.code())

	// A coordinator's port is fixed from the job's start.
	settings := settingsOf(t, filepath.Join(out, ".understudy", "state"))
	l, err := net.Listen("tcp", settings.Coordinators[0])
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // it only held the port
	third := run(t, "wordcount", input, out, "--workers", "2")
	require.Equal(t, 1, third.code())
	require.Contains(t, third.stderr.String(), "in use by another process")
	require.Contains(t, third.stderr.String(), settings.Coordinators[0])
}

// settingsOf are those of a run on processes.
func settingsOf(t *testing.T, state string) supervisor.Settings {
	t.Helper()
	settings, err := supervisor.ReadSettings(state)
	require.NoError(t, err)
	return settings
}

// hands is a cluster whose processes are started one by one.
type hands struct {
	t            *testing.T
	dir, input   string
	rate         string
	coordinators string
	procs        map[string]*process
}

func byHand(t *testing.T) *hands {
	t.Helper()
	h := &hands{t: t, dir: t.TempDir(), input: texts(t, 4, 40000), rate: "60KiB", procs: map[string]*process{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h.coordinators = l.Addr().String()
	require.NoError(t, l.Close())
	require.NoError(t, os.WriteFile(h.path("secret"), []byte("a secret of this test\n"), 0o600))
	return h
}

func (h *hands) path(name string) string { return filepath.Join(h.dir, name) }

// node is the command line of a process of the cluster.
func (h *hands) node(role, name string, flags ...string) []string {
	args := []string{
		role, "passthrough", "--input", h.input, "--output", h.path("out"), "--rate", h.rate, "--coordinators", h.coordinators,
		"--secret-file", h.path("secret"), "--state", h.path(name),
	}
	return append(args, flags...)
}

// start starts a process of the cluster.
func (h *hands) start(role, name string, flags ...string) *process {
	h.t.Helper()
	p := start(h.t, h.node(role, name, flags...)...)
	h.procs[name] = p
	return p
}

func (h *hands) startAll() {
	h.start("coordinator", "coordinator", "--listen", h.coordinators, "--workers", "3")
	for i := range 3 {
		h.start("worker", fmt.Sprintf("worker-%d", i))
	}
}

// ask runs a command that asks the coordinators.
func (h *hands) ask(verb string, args ...string) *process {
	h.t.Helper()
	p := start(h.t, append([]string{verb, "--coordinators", h.coordinators, "--secret-file", h.path("secret")}, args...)...)
	p.code()
	return p
}

// await polls the status until it is as wanted.
func (h *hands) await(what string, ok func(*understudy.Status) bool) *understudy.Status {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		p := h.ask("status", "-o", "json")
		var s understudy.Status
		if p.cmd.ProcessState.ExitCode() == 0 {
			require.NoError(h.t, json.Unmarshal(p.stdout.Bytes(), &s))
			if ok(&s) {
				return &s
			}
		}
		require.True(h.t, time.Now().Before(deadline), "waited in vain for %s: %s%s", what, &p.stdout, &p.stderr)
	}
}

func settled(s *understudy.Status) bool {
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if t.Worker == 0 || t.Recovering || len(t.Standbys) == 0 || !t.Standbys[0].Ready {
			return false
		}
	}
	return s.State == cluster.JobRunning && s.Checkpoint.Committed > 0
}

func (h *hands) ends(name string, text string) {
	h.t.Helper()
	p := h.procs[name]
	require.Zero(h.t, p.code(), "%s: %s", name, &p.stderr)
	require.Contains(h.t, p.stdout.String(), text, name)
	delete(h.procs, name)
}

// A cluster whose processes are started one by one does what its commands say.
func TestClusterByHand(t *testing.T) {
	h := byHand(t)
	h.startAll()
	s := h.await("a running job", settled)
	require.Equal(t, "passthrough", s.Job)
	require.Len(t, s.Workers, 3)

	metrics := regexp.MustCompile(`metrics on (http://\S+)`).FindStringSubmatch(h.procs["worker-0"].stderr.String())
	require.NotNil(t, metrics)
	answer, err := http.Get(metrics[1])
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)

	table := h.ask("status")
	for _, want := range []string{"job           passthrough", h.coordinators + " (leads)", "WORKER", "lines[0]", "STANDBYS"} {
		require.Contains(t, table.stdout.String(), want)
	}
	taken := h.ask("checkpoint")
	require.Regexp(t, `^checkpoint \d+ is complete\n$`, taken.stdout.String())
	require.Contains(t, h.ask("mode", "at-least-once").stdout.String(), "at-least-once")
	h.await("the other mode", func(s *understudy.Status) bool { return s.Mode == "at-least-once" })
	require.Zero(t, h.ask("mode", "exactly-once").cmd.ProcessState.ExitCode())
	h.await("the first mode", func(s *understudy.Status) bool { return s.Mode == "exactly-once" && settled(s) })

	drained := s.Workers[0]
	p := h.ask("drain", fmt.Sprint(drained.Worker))
	require.Zero(t, p.cmd.ProcessState.ExitCode(), "%s", &p.stderr)
	for name, proc := range h.procs {
		if proc.cmd.Process.Pid == drained.Process {
			h.ends(name, "this worker was drained")
			h.start("worker", "another")
			break
		}
	}
	s = h.await("the newcomer", func(s *understudy.Status) bool {
		live := 0 // the drained one may still be listed
		for i := range s.Workers {
			if s.Workers[i].State == cluster.WorkerLive {
				live++
			}
		}
		return live == 3 && settled(s)
	})
	require.Zero(t, s.Summary.Rollbacks)
	require.Zero(t, s.Summary.TasksRestarted)

	stopped := h.ask("stop")
	require.Contains(t, stopped.stdout.String(), "the job goes on")
	for name := range h.procs {
		h.ends(name, "the cluster was told to stop")
	}
	h.rate = "100MiB" // there was time enough for all that is done above
	h.startAll()
	for name := range h.procs {
		h.ends(name, "the job is done")
	}
	requireClean(t, "ids", "--input", h.input, "--output", h.path("out"), "--id", "file,offset")
}

func TestClusterErrors(t *testing.T) {
	h := byHand(t)
	h.start("coordinator", "coordinator", "--listen", h.coordinators, "--workers", "2")
	h.start("worker", "worker-0")
	s := h.await("the first worker", func(s *understudy.Status) bool { return slices.Contains(s.Waiting, "1 of 2 workers have joined") })
	require.Equal(t, cluster.JobForming, s.State)
	require.Equal(t, []string{"1 of 2 workers have joined"}, s.Waiting)
	h.start("worker", "worker-1")
	h.await("a running job", settled)
	require.NoError(t, os.WriteFile(h.path("wrong"), []byte("quite another secret"), 0o600))
	require.NoError(t, os.WriteFile(h.path("short"), []byte("short"), 0o600))
	at := []string{"--coordinators", h.coordinators}
	right := append([]string{"--secret-file", h.path("secret")}, at...)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer nobody.Close() //nolint:errcheck // nobody answers here
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{append([]string{"status", "--secret-file", h.path("wrong")}, at...), 1, "the cluster has another secret"},
		{append([]string{"status", "--secret-file", h.path("short")}, at...), 2, "the secret is too short"},
		{append([]string{"status", "--secret-file", h.path("none")}, at...), 2, "no such file"},
		{append([]string{"status"}, at...), 2, "a cluster needs a secret"},
		{[]string{"status"}, 2, "say where the cluster is"},
		{[]string{"status", "--state", h.path("nothing")}, 2, "no cluster was started on"},
		{append([]string{"status", "--cluster", "other"}, right...), 1, "another cluster"},
		{[]string{"status", "--secret-file", h.path("secret"), "--coordinators", "127.0.0.1:1", "--timeout", "200ms"}, 3, "no coordinator leads"},
		{[]string{"status", "--secret-file", h.path("secret"), "--coordinators", "127.0.0.1"}, 2, "want HOST:PORT"},
		{append([]string{"status", "now"}, right...), 2, "takes no arguments"},
		{append([]string{"status", "-o", "yaml"}, right...), 2, `"yaml"`},
		{append([]string{"drain"}, right...), 2, "takes one argument, WORKER"},
		{append([]string{"drain", "first"}, right...), 2, `WORKER "first"`},
		{append([]string{"drain", "77"}, right...), 1, "no such worker"},
		{append([]string{"mode", "sometimes"}, right...), 2, `mode "sometimes"`},
		{append([]string{"mode", "global-rollback"}, right...), 2, "want exactly-once or at-least-once"},
		{h.node("coordinator", "second", "--listen", h.coordinators), 1, "in use by another process"},
		{h.node("coordinator", "third", "--listen", nobody.Addr().String()), 1, "in use by another process"},
		{h.node("coordinator", "fourth"), 1, "is not among the coordinators"},
		{h.node("worker", "worker-0"), 1, "in use"},
		{h.node("worker", "uninspected", "--inspect", nobody.Addr().String()), 1, "in use by another process"},
		{h.node("worker", "fifth", "--parallelism", "3"), 1, "where this worker has [vertex 0 x3]"},
		{h.node("worker", "seventh", "--rate", "1MiB"), 1, "not given the same --rate"},
		{h.node("worker", "eighth", "--output", h.path("elsewhere")), 1, "not given the same --output"},
		{h.node("worker", "sixth", "--window", "1s"), 2, "--window has no effect"},
	} {
		p := start(t, c.args...)
		require.Equal(t, c.code, p.code(), "%v: stderr: %s", c.args, &p.stderr)
		require.Contains(t, p.stderr.String(), c.want, "%v", c.args)
		require.Regexp(t, `^((listening|metrics) on .*\n)*understudy: `, p.stderr.String())
	}
	p := start(t, append([]string{"drain", "77", "-o", "json"}, right...)...)
	require.Equal(t, 1, p.code())
	require.JSONEq(t, `{"error":"no such worker is alive: worker 77"}`, p.stdout.String())
}

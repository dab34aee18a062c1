package console

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/transport"
)

// trimmed is a table as a person reads it: without blanks at the ends of lines.
func trimmed(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n")
}

func TestStatusTables(t *testing.T) {
	s := &cluster.Status{
		Cluster: "c", Job: "count", State: cluster.JobRunning, Mode: "exactly-once", ModeWanted: "at-least-once", Depth: "full",
		Waiting: []string{"task b[0] waits for worker 2"}, Generation: 1,
		Coordinators: []cluster.CoordinatorStatus{{Address: "h:1"}, {Address: "h:2", Leader: true}},
		Checkpoint: cluster.CheckpointStatus{
			Committed: 7, AgeMillis: 1500, TookMillis: 20, Bytes: 2048, UnderWay: 8, MissingTasks: []string{"b[0]"}, Unprotected: []string{"a[0]"},
		},
		Workers: []cluster.WorkerStatus{
			{Worker: 1, State: cluster.WorkerLive, Address: "h:7", Host: "h", Process: 99, HeardMillis: 12, Tasks: 1, Metrics: cluster.WorkerMetrics{InflightMemory: 3 << 20}},
			{Worker: 12, State: cluster.WorkerSilent, Address: "h:8", HeardMillis: -1},
		},
		Tasks: []cluster.TaskStatus{
			{Task: 0, Name: "a[0]", Worker: 1, Incarnation: 1, Metrics: cluster.TaskMetrics{Records: 10, PerSecond: 2.4}},
			{Task: 1, Name: "b[0]", Incarnation: 3, Standbys: []cluster.StandbyStatus{{Worker: 1, Ready: true}, {Worker: 12, Epoch: 6}}},
		},
		Summary: cluster.Summary{Recoveries: []cluster.Recovery{
			{Name: "b[0]", Incarnation: 3, From: 2, Decided: 1, Collected: 2.25, Restored: -1, Replayed: -1, FirstOutput: -1, Recovered: -1},
			{Name: "a[0]", Incarnation: 1, From: 3, Moved: true, Collected: 2, Restored: 3, Replayed: 4, FirstOutput: 5, Recovered: 6},
		}},
	}
	var text strings.Builder
	require.NoError(t, WriteStatus(&text, s))
	require.Equal(t, `job           count
cluster       c
state         running
mode          exactly-once, soon at-least-once, sharing depth full
coordinators  h:1, h:2 (leads)
checkpoint    7 is complete since 1.5 s, took 20 ms, 2.0 KiB; 8 is under way, without b[0]
no standby    a[0]
rollbacks     1
waiting       task b[0] waits for worker 2

WORKER  STATE   ADDRESS  HOST  PROCESS  HEARD      TASKS  STANDBYS  KEPT     SPILLED  DETERMINANTS  STATE SIZE  LINKS DOWN
1       live    h:7      h     99       12 ms ago  1      0         3.0 MiB  0 B      0 B           0 B         0
12      silent  h:8      -     0        -          0      0         0 B      0 B      0 B           0 B         0

TASK  NAME  WORKER  LIFE  STATE               RECORDS  PER SECOND  STANDBYS
0     a[0]  1       1     running             10       2           -
1     b[0]  -       3     waits for a worker  0        0           1, 12 (at checkpoint 6)

recoveries and hand-overs, in milliseconds since the failure was noticed

TASK  LIFE  FROM WORKER  DECIDED  COLLECTED  RESTORED  REPLAYED  FIRST OUTPUT  CAUGHT UP
b[0]  3     2            1.0      2.2        -         -         -             -
a[0]  1     3            0.0      2.0        3.0       4.0       5.0           6.0        handed over, nothing had failed`, trimmed(text.String()))

	s.State, s.Tasks[0].Metrics.Backpressure = cluster.JobFinished, true
	text.Reset()
	require.NoError(t, WriteStatus(&text, s))
	require.Regexp(t, `a\[0\] +1 +1 +done +10 `, text.String(), "a job that is over has no task that runs")
	s.State = cluster.JobFailed
	text.Reset()
	require.NoError(t, WriteStatus(&text, s))
	require.Regexp(t, `a\[0\] +1 +1 +over +10 `, text.String())
}

func TestTaskStates(t *testing.T) {
	for want, task := range map[string]cluster.TaskStatus{
		"not placed yet":         {},
		"waits for a worker":     {Incarnation: 2},
		"replaying":              {Worker: 1, Recovering: true, Metrics: cluster.TaskMetrics{Replaying: true}},
		"recovering":             {Worker: 1, Recovering: true},
		"in one step for 2.5 s":  {Worker: 1, Metrics: cluster.TaskMetrics{BusyMillis: 2500}},
		"waits, sink: no server": {Worker: 1, Metrics: cluster.TaskMetrics{Backpressure: true, Waiting: "sink: no server"}},
		"waits for a consumer":   {Worker: 1, Metrics: cluster.TaskMetrics{Backpressure: true}},
		"running":                {Worker: 1},
	} {
		require.Equal(t, want, TaskState(&task))
	}
}

func TestSentences(t *testing.T) {
	for want, err := range map[string]error{
		"the cluster has another secret": fmt.Errorf("cluster: %w", transport.ErrSecret),
		"the cluster has another secret (handshake with h:1: the cluster secrets differ)": fmt.Errorf("handshake with h:1: %w", transport.ErrSecret),
		"no such thing":         errors.New("understudy: cluster: no such thing"),
		"worker: no such thing": errors.New("cluster: worker: transport: no such thing"),
		"the address to listen on is in use by another process (listen tcp h:1: address already in use)": fmt.Errorf("cluster: listen tcp h:1: %w", syscall.EADDRINUSE),
		"a file or directory may not be used by this user (state: permission denied)":                    fmt.Errorf("state: %w", fs.ErrPermission),
		"the cluster was told to stop; the same command continues":                                       fmt.Errorf("x: %w", supervisor.ErrStopped),
	} {
		require.Equal(t, want, Sentence(err))
	}
}

func TestExitCodes(t *testing.T) {
	for code, errs := range map[int][]error{
		ExitDone:        {nil},
		ExitFailed:      {errors.New("x"), transport.ErrSecret},
		ExitUsage:       {usage("x"), fmt.Errorf("y: %w", usage("x"))},
		ExitUnreachable: {fmt.Errorf("y: %w", cluster.ErrNoLeader)},
		ExitInterrupted: {supervisor.ErrAborted, supervisor.ErrStopped},
	} {
		for _, err := range errs {
			require.Equal(t, code, Code(err), "%v", err)
		}
	}
}

func TestEngineFlags(t *testing.T) {
	parse := func(args ...string) (Engine, error) {
		e := NewEngine()
		set := flag.NewFlagSet("", flag.ContinueOnError)
		e.Register(set)
		require.NoError(t, set.Parse(args))
		return e, e.Check()
	}
	e, err := parse()
	require.NoError(t, err)
	require.Equal(t, determinant.ExactlyOnce, e.Mode)
	require.Equal(t, 1, e.StandbysOption())
	e, err = parse("-mode", "at-least-once", "-standbys", "0")
	require.NoError(t, err)
	require.Equal(t, determinant.AtLeastOnce, e.Mode)
	require.Equal(t, -1, e.StandbysOption())
	e, err = parse("-sharing-depth", "2")
	require.NoError(t, err)
	require.Equal(t, 2, e.Depth)
	for _, bad := range [][]string{
		{"-mode", "x"}, {"-parallelism", "0"}, {"-standbys", "-1"}, {"-sharing-depth", "0"}, {"-sharing-depth", "2", "-mode", "at-least-once"},
	} {
		_, err := parse(bad...)
		require.Error(t, err, "%v", bad)
	}
}

func TestSecretFromTheEnvironment(t *testing.T) {
	t.Setenv(SecretVariable, " a secret of sixteen letters \n")
	var s Secrets
	require.NoError(t, s.Check())
	require.Equal(t, "a secret of sixteen letters", string(s.Secret))
	file := Secrets{Credentials: supervisor.Credentials{SecretFile: secretFile(t)}}
	require.NoError(t, file.Check())
	require.Empty(t, file.Secret, "a file that was named counts more")
	t.Setenv(SecretVariable, "short")
	require.ErrorIs(t, (&Secrets{}).Check(), supervisor.ErrShortSecret)
}

func secretFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte("another secret, in a file"), 0o600))
	return path
}

func TestNodeFlags(t *testing.T) {
	secret := secretFile(t)
	for _, c := range []struct{ args, want string }{
		{"-state d -secret-file s", "--coordinators is required"},
		{"-coordinators a:1 -secret-file s", "--state is required"},
		{"-coordinators a:1 -state d", "a cluster needs a secret"},
		{"-coordinators a:1 -state d -tls-ca x", "all three"},
		{"-coordinators a:1 -state d -secret-file none", "no such file"},
		{"-coordinators a -state d -secret-file s", `coordinator "a": want HOST:PORT`},
		{"-coordinators a:1,b: -state d -secret-file s", `coordinator "b:": want HOST:PORT`},
		{"-coordinators a:0 -state d -secret-file s", `coordinator "a:0": want HOST:PORT`},
		{"-coordinators a:1,b:2,a:1 -state d -secret-file s", `coordinator "a:1" stands there twice`},
		{"-coordinators a:1,b:2, -state d -secret-file s", ""},
	} {
		var n Node
		set := flag.NewFlagSet("", flag.ContinueOnError)
		n.Register(set, "name")
		require.NoError(t, set.Parse(strings.Fields(strings.ReplaceAll(c.args, "-secret-file s", "-secret-file "+secret))))
		if err := n.Check(); c.want != "" {
			require.ErrorContains(t, err, c.want)
		} else {
			require.NoError(t, err)
			require.Equal(t, []string{"a:1", "b:2"}, n.Coordinators)
		}
	}
}

// Whoever asks for something that takes its time hears early that nobody leads.
func TestNobodyLeads(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	security := transport.Security{Secret: []byte("a secret of sixteen letters")}
	a := &asking{ctx: context.Background(), client: cluster.NewClient("c", []string{l.Addr().String()}, security)}
	require.ErrorIs(t, a.somebodyLeads(100*time.Millisecond), cluster.ErrNoLeader)
}

func TestManual(t *testing.T) {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	dir := set.String("dir", "here", "a `DIR`")
	m := Manual{Usage: "p verb", Long: "It does.", Examples: "  p verb x"}
	var out strings.Builder
	rest, err := m.Parse(set, []string{"a", "-dir", "there", "b"}, &out)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, rest)
	require.Equal(t, "there", *dir)
	_, err = m.Parse(set, []string{"-none"}, &out)
	require.Equal(t, ExitUsage, Code(err))
	require.Empty(t, out.String())
	_, err = m.Parse(set, []string{"--help"}, &out)
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Equal(t, "It does.\n\nUsage:\n  p verb\n\nExamples:\n  p verb x\n\nFlags:\n  --dir DIR  a DIR (default here)\n", out.String())
}

// A command that finds a finished job's directory says so, instead of looking for processes that have ended.
func TestVerbOfAFinishedJob(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cluster.json"),
		[]byte(`{"cluster":"c","coordinators":["127.0.0.1:1"],"secret_file":"`+filepath.Join(dir, "s")+`","finished":true}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "s"), []byte("a secret of sixteen letters"), 0o600))
	for i, want := range []string{`{"state":"finished"}`, "", `{"error":"the job has processed all its input, and its processes have ended"}`} {
		if want == "" {
			continue
		}
		var out strings.Builder
		err := Verbs[i].Do(t.Context(), &Reach{stateDir: dir, format: "json"}, nil, &out)
		require.Equal(t, i > 0, err != nil)
		require.JSONEq(t, want, out.String())
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/determinant"
)

func TestDemo(t *testing.T) {
	p := start(t, "demo", "--length", "8s")
	require.Zero(t, p.code(), "stderr: %s", &p.stderr)
	for _, want := range []string{
		"kill -9 of worker-", "lines[", "noticed after", "promoted after", ": the standby on worker-", "collected after", "replayed after", "caught up after",
		"global rollbacks: 0", "$ understudy verify running", "verify running: clean",
	} {
		require.Contains(t, p.stdout.String(), want)
	}
	require.NotContains(t, p.stdout.String(), "\x1b")
}

// demoStatus is a status of three workers that run, and stand by for, a task each.
func demoStatus() *understudy.Status {
	s := &understudy.Status{State: cluster.JobRunning}
	for i := range demoWorkers {
		w := determinant.WorkerID(i + 1)
		s.Workers = append(s.Workers, cluster.WorkerStatus{Worker: w, Process: 100 + i, State: cluster.WorkerLive, Tasks: 1})
		s.Tasks = append(s.Tasks, cluster.TaskStatus{
			Task: determinant.TaskID(i), Name: "lines -> split[" + string(rune('0'+i)) + "]", Worker: w, Incarnation: 1,
			Standbys: []cluster.StandbyStatus{{Worker: w%demoWorkers + 1, Ready: true}},
		})
	}
	return s
}

func TestDemoView(t *testing.T) {
	began := time.UnixMilli(1_000_000)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	v := newDemoView(began)
	require.Contains(t, strings.Join(v.lines(began), "\n"), "the processes are starting")
	for i, name := range []string{"worker-0", "worker-1", "worker-2"} {
		v.take(understudy.ProcessEvent{At: at(1), Process: name, What: supervisor.Started, Detail: "process " + []string{"100", "101", "102"}[i]}, at(1))
	}
	s := demoStatus()
	s.Workers[1].Tasks = 2
	require.Empty(t, v.take(s, at(10)))
	require.Empty(t, v.victim(at(20)), "too early")
	require.Equal(t, "worker-1", v.victim(at(10+int(demoCalm.Milliseconds()))), "it has most tasks")
	require.Empty(t, v.victim(at(60_000)), "one at a time")

	lines := v.take(understudy.ProcessEvent{At: at(5000), Process: "worker-1", What: supervisor.Killed}, at(5000))
	require.Equal(t, []string{"  5.000 s  kill -9 of worker-1, which ran lines[1]"}, lines)
	require.Empty(t, v.victim(at(5001)), "the status is older than the kill")
	require.Contains(t, strings.Join(v.lines(at(5001)), "\n"), "worker-1   down")

	s = demoStatus()
	s.Workers = append(s.Workers[:1], s.Workers[2:]...)
	s.Tasks[1].Worker, s.Tasks[1].Incarnation, s.Tasks[1].Recovering = 3, 2, true
	r := cluster.Recovery{Task: 1, Incarnation: 2, At: at(5010).UnixMicro(), Decided: 2, Collected: 5, Replayed: -1, FirstOutput: -1, Recovered: -1}
	s.Summary.Recoveries = []cluster.Recovery{{Task: 0, Incarnation: 7}, r}
	require.Equal(t, []string{
		"  5.010 s    lines[1] noticed after 10.0 ms",
		"  5.012 s    lines[1] promoted after 12.0 ms: the standby on worker-2 takes over",
		"  5.015 s    lines[1] collected after 15.0 ms",
	}, v.take(s, at(5100)))
	require.Empty(t, v.victim(at(20_000)), "it recovers")
	s.Summary.Recoveries[1].Replayed, s.Summary.Recoveries[1].FirstOutput, s.Summary.Recoveries[1].Recovered = 20, 21, 22
	require.Len(t, v.take(s, at(5200)), 3)
	require.Empty(t, v.take(s, at(5300)), "each is said once")
	picture := strings.Join(v.lines(at(5300)), "\n")
	require.Regexp(t, `lines\[1\]\s+10\.0\s+12\.0\s+15\.0\s+30\.0\s+31\.0\s+32\.0\s+worker-2`, picture)
	require.Regexp(t, `worker-2\s+live\s+lines\[1\] \(recovering\), lines\[2\]\s+lines\[1\]`, picture)
}

func TestDemoScreen(t *testing.T) {
	var out strings.Builder
	s := &demoScreen{out: &out, size: func() (int, int, error) { return 4, 3, nil }}
	s.draw([]string{"one", "twenty", "left out"})
	require.Equal(t, "\r\x1b[Jone\ntwen\n", out.String())
	out.Reset()
	s.draw([]string{"ünï"})
	require.Equal(t, "\x1b[2A\r\x1b[Jünï\n", out.String())
}

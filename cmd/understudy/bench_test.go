package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/internal/bench"
)

// benched runs a benchmark to its end and gives the object that it prints.
func benched(t *testing.T, args ...string) map[string]any {
	t.Helper()
	p := start(t, append([]string{"bench"}, args...)...)
	require.Zero(t, p.code(), "stderr: %s", &p.stderr)
	return object(t, p)
}

func object(t *testing.T, p *process) (fields map[string]any) {
	t.Helper()
	require.Equal(t, 1, strings.Count(p.stdout.String(), "\n"), "one object on one line")
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &fields), "stdout: %s", &p.stdout)
	return fields
}

// requireReport looks whether a report is one page with the machine in it.
func requireReport(t *testing.T, name string, wants ...string) {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	for _, want := range append(wants, "<svg", "CPU", "Kernel", "</html>") {
		require.Contains(t, string(text), want)
	}
}

func TestBenchOverhead(t *testing.T) {
	dir := t.TempDir()
	report, profile := filepath.Join(dir, "report.html"), filepath.Join(dir, "cpu")
	r := benched(t, "overhead", "--queries", "q2,q12", "--events", "20000", "--repeats", "1", "--worst-repeats", "3", "--memory-mb", "100", "-o", "json",
		"--report", report, "--cpuprofile", profile)
	for _, field := range []string{"median_loss_full", "worst_loss_full", "worst_query", "median_loss_vs_at_least_once", "machine", "control"} {
		require.Contains(t, r, field)
	}
	require.Equal(t, true, r["complete"])
	determinants := r["determinant_bytes_per_record"].(map[string]any)
	require.Len(t, determinants, 2)
	require.Positive(t, determinants["q2"])
	requireReport(t, report, "q12", "exactly-once-2", "at-least-once", "none-again", "None against itself", "(3 times)")
	info, err := os.Stat(profile)
	require.NoError(t, err)
	require.Positive(t, info.Size())
}

func TestBenchBaseline(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.html")
	r := benched(t, "baseline", "--queries", "q3", "--events", "20000", "--repeats", "2", "--memory-mb", "100", "-o", "json", "--report", report)
	require.Positive(t, r["median_ratio"])
	require.Positive(t, r["generator_ns_per_event"])
	require.Positive(t, r["ratio"].(map[string]any)["q3"])
	requireReport(t, report, "q3", "plain")
}

func TestBenchText(t *testing.T) {
	for kind, more := range map[string][]string{"overhead": {"--worst-repeats", "2"}, "baseline": nil} {
		p := start(t, append([]string{"bench", kind, "--queries", "q2", "--events", "20000", "--repeats", "1", "--memory-mb", "0"}, more...)...)
		require.Zero(t, p.code(), "stderr: %s", &p.stderr)
		require.Contains(t, p.stdout.String(), "q2 ")
		require.Contains(t, p.stdout.String(), "cores")
		require.Equal(t, kind == "overhead", strings.Contains(p.stdout.String(), "q2 (2 times)"))
		require.Contains(t, p.stderr.String(), "q2 ", "progress")
	}
}

// Ctrl-C ends a comparison, and what was finished is printed.
func TestBenchInterrupted(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	p := start(t, "bench", "overhead", "--queries", "q2,q0", "--events", "100000", "--repeats", "200", "--memory-mb", "100", "-o", "json")
	left := func() int {
		entries, err := filepath.Glob(filepath.Join(temp, "understudy-bench-*", "*"))
		require.NoError(t, err)
		return len(entries)
	}
	require.True(t, p.until(func() bool { return left() > 0 }), "stderr: %s", &p.stderr)
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	require.Equal(t, 130, p.code(), "stderr: %s", &p.stderr)
	require.Contains(t, p.stderr.String(), "interrupted")
	require.Equal(t, false, object(t, p)["complete"])
	require.Zero(t, left(), "no directory is left")

	p = start(t, "bench", "recovery", "--rate", "1000")
	require.True(t, p.until(func() bool { return left() > 0 }), "stderr: %s", &p.stderr)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 130, p.code(), "stderr: %s", &p.stderr)
	require.Empty(t, p.stdout.String())
	require.Zero(t, left())
}

func TestBenchArguments(t *testing.T) {
	for want, args := range map[string]string{
		"q99":                "overhead --queries q0,q99",
		"q4":                 "baseline --queries q4",
		"yaml":               "overhead -o yaml",
		"one repeat":         "overhead --repeats 0",
		"two workers":        "baseline --workers 1",
		"--seconds":          "baseline --seconds 0",
		"--memory-mb":        "baseline --memory-mb -1",
		"at least 1ms":       "overhead --checkpoint-interval 1us",
		"unexpected":         "overhead q0",
		"one repeat,":        "checkpoint --repeats 0",
		"latency":            "checkpoint --repeats 2 --latency-repeats 3",
		"--dirty 101":        "checkpoint --dirty 101",
		"--value-bytes 3":    "checkpoint --value-bytes 3",
		"--state-mb -1":      "checkpoint --state-mb -1",
		"at least twice":     "checkpoint --seconds 1.5",
		"repeat, one task":   "latency --repeats 0",
		"--rate 0":           "latency --rate 0",
		"--record-bytes 9":   "latency --record-bytes 9",
		"read from outside":  "latency --sink http://host/",
		"has a password":     "latency --sink postgres://a:b@host/x?table=t",
		"want one of":        "recovery --experiment q4",
		"one kill":           "recovery --kills 0",
		"before the first":   "recovery --before 0s",
		"--workers 4":        "recovery --experiment together",
		"--state-mb 0":       "recovery --state-mb 0",
		"--calibration 0":    "recovery --calibration 0",
		"hold 11 at most":    "recovery --experiment q8 --state-mb 100",
		`format "xml"`:       "recovery -o xml",
		`argument "further"`: "recovery further",
	} {
		p := start(t, append([]string{"bench"}, strings.Fields(args)...)...)
		require.Equal(t, 2, p.code(), args)
		require.Contains(t, p.stderr.String(), want, args)
		require.Empty(t, p.stdout.String(), args)
	}
}

func TestBenchCheckpoint(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.html")
	args := []string{"checkpoint", "--state-mb", "1", "--seconds", "0.1", "--repeats", "1", "--checkpoint-interval", "20ms"}
	r := benched(t, append(args, "-o", "json", "--report", report)...)
	require.Equal(t, true, r["complete"])
	for _, field := range []string{
		"throughput_loss", "latency_ms_p99_with", "latency_ms_p99_without", "latency_ms_p99_added", "checkpoint_bytes", "checkpoint_ms", "machine",
	} {
		require.Contains(t, r, field)
	}
	requireReport(t, report, "What checkpoints of a big state cost")
}

// The text has a line per kill, and the phases with their 90th percentile.
func TestBenchRecoveryText(t *testing.T) {
	r := &bench.Recovery{
		Experiment: bench.Single, Kills: 2, Records: 1000, Rate: 10, FullRate: 20, Unsettled: 1, NoticedP50: 1.25, NoticedP90: 2.5,
		BackToNormal: -1, LatencyP99: 230.4, Busy: 61.2, Stolen: 2.53,
		Phases: bench.Phases{CaughtUp: 100}, PhasesP90: bench.Phases{CaughtUp: 200.5},
		PerKill: []bench.KillTime{
			{At: 12.5, Processes: []string{"worker-1"}, Settled: true, TasksLost: 5, Partitions: []string{"a", "b"}, FirstOutput: []float64{150, 161.7},
				Unaffected: 12.34},
			{At: 24, Processes: []string{"worker-2"}, Unsettled: "1 tasks recover", Unaffected: -1},
		},
	}
	var b strings.Builder
	require.NoError(t, writeRecovery(&b, r, "text"))
	text := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		"2 kills, 1000 records at 10/s (without pacing: 20/s)", "1 kills came before the job had settled",
		"12.5 s worker-1 5 2 12.3 ms 150, 162 ms", "24.0 s worker-2 0 0 no others none died (not settled: 1 tasks recover)",
		"task noticed 1.2 2.5", "task caught up 100.0 200.5", "p99 230.4 ms", "back to normal not within the run",
		"61% busy, 2.5% taken by the machine's host",
	} {
		require.Contains(t, text, want)
	}
}

// A short recovery of a query of Nexmark: a worker is killed, and the rows are those of the plain program.
func TestBenchRecovery(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.html")
	r := benched(t, "recovery", "--experiment", "q8", "--kills", "1", "--rate", "5000", "--state-mb", "1", "--parallelism", "2",
		"--before", "1s", "--after", "2s", "-o", "json", "--report", report)
	require.EqualValues(t, 1, r["kills"])
	require.EqualValues(t, 0, r["lost"])
	require.EqualValues(t, 0, r["duplicates"])
	require.Positive(t, r["tasks_lost"])
	kills := r["per_kill"].([]any)
	require.Len(t, kills, 1)
	require.Positive(t, kills[0].(map[string]any)["tasks_lost"])
	require.NotEmpty(t, kills[0].(map[string]any)["partitions"], "whoever is killed has a task of the sink")
	for _, field := range []string{
		"first_output_ms_p50", "first_output_ms_p99", "no_output_ms_max_unaffected", "no_output_ms_max_before", "latency_ms_p99_100s", "back_to_normal_ms", "machine",
	} {
		require.Contains(t, r, field)
	}
	requireReport(t, report, "Recovery: q8", "worker-")
}

// Without --rate half of what goes through is due, and that is measured three times.
func TestBenchRecoveryAtHalfLoad(t *testing.T) {
	r := benched(t, "recovery", "--kills", "1", "--calibration", "20000", "--parallelism", "2", "--before", "1s", "--after", "2s", "-o", "json")
	rates := r["full_rates"].([]any)
	require.Len(t, rates, 3)
	require.IsNonDecreasing(t, []float64{rates[0].(float64), rates[1].(float64), rates[2].(float64)})
	require.Equal(t, rates[1], r["full_rate"])
	require.InDelta(t, rates[1].(float64)/2, r["rate"], 1)
	require.EqualValues(t, 1, r["kills"])
	require.EqualValues(t, 0, r["lost"])
	require.EqualValues(t, 0, r["duplicates"])
}

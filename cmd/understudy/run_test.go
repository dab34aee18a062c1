package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// run starts `understudy run` with its summary as JSON.
func run(t *testing.T, job, input, output string, flags ...string) *process {
	t.Helper()
	return start(t, append([]string{"run", job, "--input", input, "--output", output, "-o", "json"}, flags...)...)
}

// earlyKills is a seed of chaos whose kills come early, so that a fast machine sees some too: six within 1.7 mean intervals in one process, and
// four within 1.4 of processes.
const earlyKills = "25675"

func TestKillsExactlyOnce(t *testing.T) {
	for _, c := range []struct {
		name, target string
		input        string
	}{
		{"tasks", "task", goTree(t, 2, 1)},
		{"workers", "worker", goTree(t, 2, 1)},
		{"tasks, generated input", "task", texts(t, 4, 40000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			sum := run(t, "wordcount", c.input, out, "--chaos", "kill=50ms,limit=30,target="+c.target, "--seed", earlyKills, "--checkpoint-interval", "200ms").summary()
			require.GreaterOrEqual(t, sum.Kills, 3)
			require.Zero(t, sum.Rollbacks)
			require.Positive(t, sum.DuplicatesDropped)
			requireClean(t, "running", "--output", out, "--words", c.input)
			require.Equal(t, countWords(t, c.input), lastCounts(t, out))
		})
	}
}

// In at-least-once mode nothing is lost, but records are seen twice, and the check that finds nothing in exactly-once mode
// finds that: a count that is taken up again at its checkpoint repeats values, and one whose input comes again goes too far.
func TestKillsAtLeastOnce(t *testing.T) {
	input, out := goTree(t, 2, 1), filepath.Join(t.TempDir(), "out")
	sum := run(t, "wordcount", input, out, "--mode", "at-least-once",
		"--chaos", "kill=100ms,target=task,limit=10", "--seed", earlyKills, "--checkpoint-interval", "50ms").summary()
	require.Positive(t, sum.Kills)
	require.Zero(t, sum.Rollbacks)
	code, violations := verified(t, "running", "--output", out, "--words", input)
	require.Equal(t, verifyViolated, code)
	require.Zero(t, violations["missing"], "violations: %v", violations)
	require.Positive(t, violations["duplicate"]+violations["surplus"], "violations: %v", violations)
	last := lastCounts(t, out)
	for word, n := range countWords(t, input) {
		require.GreaterOrEqual(t, last[word], n, "word %q", word)
	}
}

// Each record that comes again is told by its name.
func TestKillsAtLeastOncePassthrough(t *testing.T) {
	input, out := texts(t, 5, 60000), filepath.Join(t.TempDir(), "out")
	sum := run(t, "passthrough", input, out, "--mode", "at-least-once",
		"--chaos", "kill=50ms,target=task,limit=30", "--seed", earlyKills, "--checkpoint-interval", "50ms").summary()
	require.Positive(t, sum.Kills)
	code, violations := verified(t, "ids", "--input", input, "--output", out, "--id", "file,offset")
	require.Equal(t, verifyViolated, code)
	require.Positive(t, violations["duplicate"], "violations: %v", violations)
	delete(violations, "duplicate")
	for kind, n := range violations {
		require.Zero(t, n, kind)
	}
}

func TestKillsGlobalRollback(t *testing.T) {
	input, out := goTree(t, 2, 1), filepath.Join(t.TempDir(), "out")
	sum := run(t, "wordcount", input, out, "--mode", "global-rollback",
		"--chaos", "kill=200ms,target=task,limit=10", "--seed", earlyKills, "--checkpoint-interval", "50ms").summary()
	require.Positive(t, sum.Kills)
	require.Positive(t, sum.Rollbacks)
	requireClean(t, "running", "--output", out, "--words", input)
	require.Equal(t, countWords(t, input), lastCounts(t, out))
}

func TestKillsPassthrough(t *testing.T) {
	input, out := texts(t, 5, 30000), filepath.Join(t.TempDir(), "out")
	sum := run(t, "passthrough", input, out, "--chaos", "kill=50ms,target=task,limit=30", "--seed", earlyKills).summary()
	require.Positive(t, sum.Kills)
	requireClean(t, "ids", "--input", input, "--output", out, "--id", "file,offset")
}

func TestInterrupted(t *testing.T) {
	input, out := goTree(t, 2, 1), filepath.Join(t.TempDir(), "out")
	p := run(t, "wordcount", input, out, "--checkpoint-interval", "100ms")
	require.True(t, p.until(func() bool { return outputSize(out) > 1<<20 }), "it ended too early")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, 130, p.code(), "stderr: %s", &p.stderr)
	require.Contains(t, p.stderr.String(), "the same command continues")

	sum := run(t, "wordcount", input, out).summary()
	require.True(t, sum.Resumed)
	requireClean(t, "running", "--output", out, "--words", input)

	// A third time there is nothing left to do.
	before := outputSize(out)
	again := run(t, "wordcount", input, out).summary()
	require.Zero(t, again.RecordsOut)
	require.Equal(t, before, outputSize(out))
}

// The same command has nothing left to do; one with other input does not pass for that.
func TestCompleteJobWithOtherInput(t *testing.T) {
	for _, flags := range [][]string{nil, {"--workers", "2"}} {
		first, second, out := texts(t, 1, 50), texts(t, 1, 60), filepath.Join(t.TempDir(), "out")
		run(t, "wordcount", first, out, flags...).summary()
		before := outputSize(out)
		require.Zero(t, run(t, "wordcount", first, out, flags...).code())
		p := run(t, "wordcount", second, out, flags...)
		require.Equal(t, 1, p.code())
		require.Regexp(t, "^understudy: the job is complete, and was given other input than this.*to begin anew, remove "+out, p.stderr.String())
		require.Equal(t, before, outputSize(out))
	}
}

// The process dies with every task, log and standby in it, again and again; only files are left.
func TestKilledProcess(t *testing.T) {
	for _, interval := range []string{"100ms", "1h"} {
		t.Run("checkpoints every "+interval, func(t *testing.T) {
			input, out := goTree(t, 2, 1), filepath.Join(t.TempDir(), "out")
			rng := rand.New(rand.NewPCG(7, 7))
			killed := 0
			for range 6 {
				target := outputSize(out) + rng.Int64N(4<<20)
				p := run(t, "wordcount", input, out, "--checkpoint-interval", interval)
				if !p.until(func() bool { return outputSize(out) > target }) {
					break
				}
				require.NoError(t, p.cmd.Process.Kill())
				require.Equal(t, -1, p.code())
				killed++
			}
			require.GreaterOrEqual(t, killed, 2)
			run(t, "wordcount", input, out).summary()
			requireClean(t, "running", "--output", out, "--words", input)
		})
	}
}

func TestDirectoryInUse(t *testing.T) {
	input, dir := goTree(t, 6, 4), t.TempDir()
	out, state := filepath.Join(dir, "out"), filepath.Join(dir, "state")
	first := run(t, "wordcount", input, out, "--state", state)
	require.True(t, first.until(func() bool { return outputSize(out) > 0 }))

	for name, flags := range map[string][]string{
		"the same command":                {"wordcount", out, state},
		"another job, same output":        {"passthrough", out, filepath.Join(dir, "state2")},
		"the same job, same output":       {"wordcount", out, filepath.Join(dir, "state3")},
		"another job, same state":         {"passthrough", filepath.Join(dir, "out2"), state},
		"the same job, same state, other": {"wordcount", filepath.Join(dir, "out3"), state},
	} {
		p := run(t, flags[0], input, flags[1], "--state", flags[2])
		require.Equal(t, 1, p.code(), "%s: stderr: %s", name, &p.stderr)
		require.Regexp(t, fmt.Sprintf("^understudy: (the state directory is in use by another process|the directory is in use): .* is held by pid %d\\b",
			first.cmd.Process.Pid), p.stderr.String(), name)
		require.False(t, first.ended(), name)
	}
	require.NoError(t, first.cmd.Process.Kill())
	require.Equal(t, -1, first.code())

	// The first is dead now; what it left behind belongs to it still.
	p := run(t, "passthrough", input, filepath.Join(dir, "out2"), "--state", state)
	require.Equal(t, 1, p.code())
	require.Regexp(t, "another job|belongs to", p.stderr.String())
	p = run(t, "passthrough", input, out, "--state", filepath.Join(dir, "state2"))
	require.Equal(t, 1, p.code())
	require.Regexp(t, "another job|belongs to", p.stderr.String())
}

func TestSummaryFields(t *testing.T) {
	input, out := texts(t, 2, 50), filepath.Join(t.TempDir(), "out")
	p := run(t, "wordcount", input, out)
	require.Zero(t, p.code(), "stderr: %s", &p.stderr)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &fields))
	for _, name := range []string{"records_in", "records_out", "kills", "tasks_restarted", "global_rollbacks", "checkpoints",
		"determinant_bytes", "duplicates_suppressed", "records_set_aside", "recoveries", "seconds", "resumed"} {
		require.Contains(t, fields, name)
	}
	require.EqualValues(t, 100, fields["records_in"])
	require.Equal(t, []any{}, fields["recoveries"])

	p = start(t, "run", "wordcount", "--input", input, "--output", out+"2")
	require.Zero(t, p.code())
	require.Contains(t, p.stdout.String(), "100 records in")
}

func TestUnusableArguments(t *testing.T) {
	dir := t.TempDir()
	input := filepath.Join(dir, "in.txt")
	require.NoError(t, os.WriteFile(input, []byte("a\n"), 0o600))
	good := []string{"--input", input, "--output", filepath.Join(dir, "out")}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"run"}, "want one JOB: wordcount, "},
		{[]string{"run", "wordcount", "--input", "a", "b"}, "a glob must be quoted"},
		{[]string{"run", "wordcount"}, "--input is required"},
		{[]string{"run", "wordcount", "--input", input}, "--output is required"},
		{append([]string{"run", "sort"}, good...), `unknown job "sort": want wordcount, passthrough, enrich`},
		{append([]string{"run", "wordcount", "--parallelism", "0"}, good...), "--parallelism 0"},
		{append([]string{"run", "wordcount", "--workers", "-1"}, good...), "--workers -1"},
		{append([]string{"run", "wordcount", "--workers", "3", "--coordinators", "2"}, good...), "--coordinators 2"},
		{append([]string{"run", "wordcount", "--workers", "3", "--tls-ca", "ca.pem"}, good...), "all three"},
		{append([]string{"run", "wordcount", "--workers", "3", "--secret-file", filepath.Join(dir, "none")}, good...), "no such file"},
		{append([]string{"run", "wordcount", "--workers", "3", "--chaos", "kill=1s,target=task"}, good...), "target=task is not possible"},
		{append([]string{"run", "wordcount", "--coordinators", "3"}, good...), "--workers N"},
		{append([]string{"run", "wordcount", "--secret-file", "x"}, good...), "--workers N"},
		{append([]string{"run", "wordcount", "--seed", "3"}, good...), "only with --chaos"},
		{append([]string{"run", "wordcount", "--seed", "3", "--chaos", "kill=1s,seed=4"}, good...), "give one of them"},
		{append([]string{"run", "wordcount", "--window", "1s"}, good...), "only on enrich, nexmark-q12, nexmark-q12x"},
		{append([]string{"run", "nexmark-q0"}, good...), "--input has no effect on the job nexmark-q0"},
		{append([]string{"run", "wordcount", "--final"}, good...), "--final has no effect on the job wordcount"},
		{[]string{"run", "nexmark-q4", "--output", filepath.Join(dir, "q4")}, "--events is required"},
		{[]string{"run", "nexmark-q4", "--output", filepath.Join(dir, "q4"), "--events", "10", "--pacing", "wall"}, "need a rate"},
		{[]string{"run", "nexmark-q4", "--output", filepath.Join(dir, "q4"), "--events", "10", "--rate", "fast"}, `--rate "fast"`},
		{[]string{"run", "nexmark-q4", "--output", filepath.Join(dir, "q4"), "--events", "10", "--pacing", "wall", "--rate", "0"}, "need a rate"},
		{[]string{"run", "nexmark-q4", "--output", filepath.Join(dir, "q4"), "--events", "10", "--event-rate", "0"}, "at least 1"},
		{[]string{"nexmark", "generate"}, "--events is required"},
		{[]string{"nexmark", "generate", "--events", "10", "--group", "0"}, "at least 1"},
		{[]string{"nexmark", "generate", "--events", "10", "--rate", "2000000"}, "at most 1000000"},
		{[]string{"nexmark", "generate", "--events", "10", "--first", "18446744073709551615"}, "--first 18446744073709551615"},
		{[]string{"nexmark", "generator"}, `unknown command "generator"`},
		{append([]string{"run", "wordcount", "--chaos", "kill=1s,target=all"}, good...), "target=all is not possible in one process"},
		{append([]string{"run", "wordcount", "--chaos", "pause=1s"}, good...), "not possible in one process"},
		{append([]string{"run", "wordcount", "--mode", "at-least-once", "--sharing-depth", "2"}, good...), "has no effect in mode at-least-once"},
		{append([]string{"run", "wordcount", "--workers", "two"}, good...), "two"},
		{append([]string{"run", "wordcount", "--standbys", "-1"}, good...), "--standbys -1"},
		{append([]string{"run", "wordcount", "--mode", "twice"}, good...), "twice"},
		{append([]string{"run", "wordcount", "--sharing-depth", "deep"}, good...), `--sharing-depth "deep"`},
		{append([]string{"run", "wordcount", "--sharing-depth", "99999"}, good...), "sharing depth 99999"},
		{append([]string{"run", "wordcount", "--checkpoint-interval", "-1s"}, good...), "-1s"},
		{append([]string{"run", "wordcount", "--chaos", "kill=soon"}, good...), "soon"},
		{append([]string{"run", "wordcount", "--chaos", "target=task"}, good...), "kill=DURATION"},
		{append([]string{"run", "wordcount", "--chaos", "kill=1s,target=disk"}, good...), "disk"},
		{append([]string{"run", "wordcount", "--chaos", "kill=1s,limit=0"}, good...), `limit="0"`},
		{append([]string{"run", "wordcount", "-o", "yaml"}, good...), `"yaml"`},
		{append([]string{"run", "wordcount", "--unknown"}, good...), "--unknown"},
		{append([]string{"run", "enrich", "--service", "localhost"}, good...), `--service "localhost"`},
		{append([]string{"run", "enrich", "--window", "1us"}, good...), "--window"},
		{[]string{"walk"}, "walk"},
	} {
		p := start(t, c.args...)
		require.Equal(t, 2, p.code(), "%v: stderr: %s", c.args, &p.stderr)
		require.Contains(t, p.stderr.String(), c.want)
		require.True(t, strings.HasPrefix(p.stderr.String(), "understudy: "), "stderr: %s", &p.stderr)
		require.Empty(t, p.stdout.String())
	}

	for _, flags := range [][]string{{"wordcount"}, {"wordcount", "--rate", "1KiB"}, {"wordcount", "--workers", "2"}} {
		none := filepath.Join(dir, "none*.txt")
		p := start(t, append(append([]string{"run"}, flags...), "--input", none, "--output", filepath.Join(dir, "out"))...)
		require.Equal(t, 2, p.code())
		require.Regexp(t, `^understudy: (source "lines": )?no file matches: `+regexp.QuoteMeta(none)+"\n$", p.stderr.String())
		require.NoDirExists(t, filepath.Join(dir, "out"))
	}
}

func TestHelp(t *testing.T) {
	p := start(t, "run", "--help")
	require.Zero(t, p.code())
	for _, want := range []string{"Examples:", "wordcount", "passthrough", "enrich", "--chaos kill=200ms,target=task", "Exit codes:"} {
		require.Contains(t, p.stdout.String(), want)
	}
}

// Processes of a job are compared by what their flags say, and not by what is one process's own.
func TestSettings(t *testing.T) {
	of := func(o runOptions) map[string]string { return o.settings() }
	wd, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, of(runOptions{output: filepath.Join(wd, "out"), inputs: []string{"b", filepath.Join(wd, "a")}}),
		of(runOptions{output: "out", inputs: []string{"a", "b"}}))
	require.NotEqual(t, of(runOptions{output: "out"}), of(runOptions{output: "elsewhere"}))
	require.NotEqual(t, of(runOptions{rate: 1 << 20}), of(runOptions{}))
	for _, c := range []struct {
		a, b   string
		source bool
		alike  bool
	}{
		{"http://a=h:1,b=h:2/?dir=/var/a&name=a", "http://a=h:1,b=h:2/?name=b&listen=0.0.0.0:1", true, true},
		{"https://host/hook?x=1#dir=a&token-env=T", "https://host/hook?x=1#token-file=f&dir=a", false, true},
		{"https://host/hook?x=1#dir=a", "https://host/hook?x=1#dir=b", false, false},
		{"https://host/hook?name=1#dir=a", "https://host/hook?name=2#dir=a", false, false},
		{"postgres://me@host/db?table=t&key=id&password_file=x&sslrootcert=y", "postgres://me@host/db?key=id&table=t&password-file=z", true, true},
		{"postgres://me@host/db?table=t&key=id", "postgres://me@host/db?table=t&key=other", true, false},
		{"nats://host/orders?creds=a", "nats://host/orders?nkey=b", true, true},
		{"nats://host/orders", "nats://host/counts", true, false},
		{"file:in/*?comma=;", "file:" + filepath.Join(wd, "in/*") + "?comma=;", true, true},
		{"file:///in/*", "file:///in/*?comma=;", true, false},
	} {
		require.Equal(t, c.alike, shared(c.a, c.source) == shared(c.b, c.source), "%s, %s", c.a, c.b)
	}
}

package understudy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
)

// embedded is a program that embeds the engine and calls Main.
type embedded struct {
	t       *testing.T
	program string
	dir     string
	own     []string // its own flags
}

func buildEmbedded(t *testing.T) *embedded {
	t.Helper()
	dir := t.TempDir()
	e := &embedded{t: t, program: filepath.Join(dir, "totals"), dir: dir}
	built, err := exec.Command("go", "build", "-o", e.program, "./examples/cluster").CombinedOutput()
	require.NoError(t, err, "%s", built)
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "Berlin %d\nRoma 0.5\n", i%7)
	}
	in := filepath.Join(dir, "in.txt")
	require.NoError(t, os.WriteFile(in, []byte(text.String()), 0o600))
	e.own = []string{"-input", in, "-output", filepath.Join(dir, "out")}
	return e
}

// run runs the program and gives its exit code and what it printed.
func (e *embedded) run(args ...string) (code int, stdout, stderr string) {
	e.t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command(e.program, append(append([]string{}, e.own...), args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(e.t, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// A program that calls Main is its own cluster, whatever flags it has itself.
func TestMainLocal(t *testing.T) {
	e := buildEmbedded(t)
	// By this seed both kills are early: what a worker has counted and not told when it dies is told by who takes over, if there is anything left to do.
	code, stdout, stderr := e.run("local", "--workers", "2", "-o", "json", "--chaos", "kill=200ms,target=worker,limit=2,seed=9")
	require.Zero(t, code, stderr)
	var sum understudy.ClusterSummary
	require.NoError(t, json.Unmarshal([]byte(stdout), &sum), stdout)
	require.EqualValues(t, 40000, sum.RecordsIn)
	require.EqualValues(t, 40000, sum.RecordsOut)
	require.Empty(t, sum.Endings)
	last := map[string]string{}
	for _, line := range output(t, filepath.Join(e.dir, "out")) {
		var total struct {
			City   string
			Orders int
			Amount float64
		}
		require.NoError(t, json.Unmarshal([]byte(line), &total))
		if total.Orders == 20000 {
			last[total.City] = fmt.Sprint(total.Amount)
		}
	}
	require.Equal(t, map[string]string{"Berlin": "59997", "Roma": "10000"}, last)

	code, stdout, _ = e.run("local", "--workers", "2")
	require.Zero(t, code)
	require.Contains(t, stdout, "nothing to do")
	code, stdout, _ = e.run("status")
	require.Zero(t, code)
	require.Contains(t, stdout, "the job has processed all its input")
	code, _, stderr = e.run("stop")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "totals: the job has processed all its input")
}

func TestMainCommands(t *testing.T) {
	e := buildEmbedded(t)
	for _, args := range [][]string{{}, {"help"}} {
		code, stdout, _ := e.run(args...)
		require.Zero(t, code)
		for _, want := range []string{"local", "coordinator", "worker", "status", "mode", "checkpoint", "stop", "drain"} {
			require.Contains(t, stdout, "\n  "+want+" ")
			if len(args) == 0 {
				continue
			}
			code, help, _ := e.run(want, "--help")
			require.Zero(t, code)
			require.Regexp(t, `(?s)Usage:\n  totals `+want+`.*Examples:\n  totals `+want+`.*Flags:\n.*--state DIR`, help)
			require.Contains(t, help, "Exit codes: 0 ")
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"walk"}, 2, `unknown command "walk"`},
		{[]string{"local", "now"}, 2, "local takes no arguments"},
		{[]string{"local", "--none"}, 2, "-none"},
		{[]string{"local", "--workers", "0"}, 2, "--workers 0"},
		{[]string{"local", "--coordinators", "2"}, 2, "2 coordinators"},
		{[]string{"local", "--chaos", "kill=1s,target=task"}, 2, "target=task is not possible"},
		{[]string{"local", "--mode", "twice"}, 2, "twice"},
		{[]string{"local", "-o", "yaml"}, 2, `"yaml"`},
		{[]string{"worker", "--state", "x"}, 2, "--coordinators is required"},
		{[]string{"coordinator", "--coordinators", "a:1", "--state", "x"}, 2, "needs a secret"},
		{[]string{"status"}, 2, "no cluster was started on"},
		{[]string{"drain"}, 2, "takes one argument"},
	} {
		code, stdout, stderr := e.run(c.args...)
		require.Equal(t, c.code, code, "%v: %s", c.args, stderr)
		require.Contains(t, stderr, c.want)
		require.True(t, strings.HasPrefix(stderr, "totals: "), stderr)
		require.Empty(t, stdout)
	}
}

package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// linesPlan copies the lines of the files that match a pattern.
func linesPlan(t *testing.T, glob, out string) *operator.Plan {
	t.Helper()
	job := operator.NewJob("lines")
	lines := operator.From(job, "lines", file.Lines(glob))
	operator.To(lines, "output", file.Sink(out, file.SinkOptions{}), operator.WithCodec(operator.JSON[file.Line]()))
	plan, err := job.Plan(2)
	require.NoError(t, err)
	return plan
}

// A job that has processed all its input has nothing to do, unless it is given other input: it does not pass for that.
func TestACompleteJobWithOtherInput(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, "in", name) }
	put := func(name, text string) { require.NoError(t, os.WriteFile(in(name), []byte(text), 0o600)) }
	run := func(glob string) (Summary, error) {
		return RunLocal(t.Context(), linesPlan(t, in(glob), filepath.Join(dir, "out")), LocalOptions{StateDir: filepath.Join(dir, "state")})
	}
	digest := func(glob string) string {
		d, err := InputDigest(t.Context(), linesPlan(t, in(glob), filepath.Join(dir, "out")))
		require.NoError(t, err)
		return d
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "in"), 0o755))
	put("a.txt", "one\ntwo\n")
	put("b.csv", "three\n")
	_, err := run("*.txt")
	require.NoError(t, err)
	before := digest("*.txt")

	sum, err := run("a*.txt")
	require.NoError(t, err)
	require.True(t, sum.Complete)
	require.Equal(t, before, digest("a*.txt"), "the same files by another pattern")

	for _, c := range []struct {
		name, glob, want string
		change           func()
	}{
		{"other files", "*.csv", `b\.csv, 6 bytes of .* is new; .*a\.txt, 8 bytes of .* is gone`, func() {}},
		{"more files", "*", `b\.csv, 6 bytes of .* is new$`, func() {}},
		{"two more files", "*", `b\.csv, 6 bytes of .* and 1 more are new$`, func() { put("c.txt", "four\n") }},
		{"a file that grew", "a.txt", `a\.txt, 12 bytes of .* is new; .*a\.txt, 8 bytes of .* is gone$`, func() { put("a.txt", "one\ntwo\nfive") }},
	} {
		c.change()
		_, err := run(c.glob)
		require.ErrorIs(t, err, ErrOtherInput, c.name)
		require.Regexp(t, `of "lines.*", .*`+c.want, err.Error(), c.name)
		require.NotEqual(t, before, digest(c.glob), c.name)
	}
	_, err = run("*.none")
	require.ErrorIs(t, err, file.ErrNoMatch)
	require.Equal(t, 2, countLines(t, filepath.Join(dir, "out")), "the output is as it was")
}

// A job that is not complete goes on with the input that it began with, and says so if there is other input by now.
func TestAnUnfinishedJobWithOtherInput(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a.txt", "b.txt"} {
		require.NoError(t, os.WriteFile(in(name), []byte("one\ntwo\n"), 0o600))
	}
	broken := true
	run := func(glob string) (told string, err error) {
		job := operator.NewJob("lines")
		lines := operator.Map(operator.From(job, "lines", file.Lines(in(glob))), "check", func(_ operator.Context, l file.Line) (file.Line, error) {
			if broken {
				return l, errors.New("not yet")
			}
			return l, nil
		})
		operator.To(lines, "output", file.Sink(in("out"), file.SinkOptions{}), operator.WithCodec(operator.JSON[file.Line]()))
		plan, err := job.Plan(2)
		require.NoError(t, err)
		var log bytes.Buffer
		_, err = RunLocal(t.Context(), plan, LocalOptions{StateDir: in("state"), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		return log.String(), err
	}
	for _, c := range []struct{ name, glob, want string }{
		{"new", "a.txt", ""},
		{"the same", "a*.txt", ""},
		{"more", "*.txt", `b\.txt, 8 bytes of .* is new\W*\n`},
		{"other", "b.txt", `b\.txt, 8 bytes of .* is new; .*a\.txt, 8 bytes of .* is gone`},
		{"none", "c.txt", "no file"},
	} {
		told, err := run(c.glob)
		require.ErrorContains(t, err, "not yet", c.name)
		require.Equal(t, c.want != "", strings.Contains(told, "goes on with the input that it began with"), "%s: %s", c.name, told)
		require.Regexp(t, c.want, told, c.name)
	}
	broken = false
	_, err := run("*.txt")
	require.NoError(t, err)
	require.Equal(t, 2, countLines(t, in("out")))
}

// A source that cannot tell is not asked.
func TestACompleteJobWhoseSourceCannotTell(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		plan, err := numbersJob(100, 0, file.Sink(filepath.Join(dir, "out"), file.SinkOptions{Identity: "numbers"}))
		require.NoError(t, err)
		_, err = RunLocal(t.Context(), plan, LocalOptions{StateDir: filepath.Join(dir, "state")})
		require.NoError(t, err)
		digest, err := InputDigest(t.Context(), plan)
		require.NoError(t, err)
		require.Empty(t, digest)
	}
	require.Equal(t, 100, countLines(t, filepath.Join(dir, "out")))
}

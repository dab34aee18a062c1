package file_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/verify"
)

type order struct {
	ID   int64  `csv:"id"`
	City string `csv:"city"`
	Note string `csv:"note,optional"`
	Draw int64  `csv:"-"` // what no two runs agree on
}

// orders writes rows, some of which have newlines in a field.
func orders(t *testing.T, dir string, files, rows int) {
	require.NoError(t, os.MkdirAll(dir, 0o777))
	for f := range files {
		var text strings.Builder
		text.WriteString("id,city,note\n")
		for i := range rows {
			fmt.Fprintf(&text, "%d,%s,\"a%s\"\n", f*rows+i, []string{"Ulm", "Rom", ""}[i%3], strings.Repeat("\n", i%2))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.csv", f)), []byte(text.String()), 0o666))
	}
}

// TestAJobWhoseTasksAreKilled reads CSV and shows it in files that are closed by size, by key, and in a shared directory, while tasks are
// killed and the whole job is stopped and run again. The output is checked from outside.
func TestAJobWhoseTasksAreKilled(t *testing.T) {
	const files, rows = 3, 8000
	for name, o := range map[string]file.SinkOptions{
		"by size":       {RollBytes: 40_000},
		"by key":        {RollBytes: 40_000, Key: file.JSONField("City")},
		"shared by key": {RollBytes: 40_000, Key: file.JSONField("City"), Shared: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			orders(t, in, files, rows)
			kills := 0
			for run := 0; ; run++ {
				job := operator.NewJob("orders")
				read := operator.From(job, "orders", file.CSV[order](filepath.Join(in, "*.csv")))
				drawn := operator.Map(operator.Rebalanced(read), "draw", func(ctx operator.Context, v order) (order, error) {
					v.Draw = ctx.Rand().Int64()
					return v, nil
				})
				operator.To(operator.Rebalanced(drawn), "out", file.Sink(out, o))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				sum, err := understudy.Run(ctx, job, understudy.Options{
					StateDir: filepath.Join(dir, "state"), Parallelism: 2, CheckpointInterval: 40 * time.Millisecond,
					Chaos: &understudy.Chaos{Kill: 25 * time.Millisecond, Target: "task", Seed: uint64(run), Limit: 8},
				})
				cancel()
				require.NoError(t, err)
				require.Zero(t, sum.Rollbacks)
				if kills += sum.Kills; sum.Complete {
					break
				}
			}
			require.Positive(t, kills)
			requireLayout(t, out, o)
			report, err := verify.CheckIDs(t.Context(), verify.IDsOptions{
				Input:  verify.Selection{Paths: []string{in}, Fields: []string{"id"}},
				Output: verify.Selection{Paths: []string{out}, Fields: []string{"ID"}},
			})
			require.NoError(t, err)
			require.True(t, report.Clean(), "%v", report)
		})
	}
}

// TestAJobWhoseDirectoryGrows reads files that come while tasks are killed and the whole job is stopped and run again.
func TestAJobWhoseDirectoryGrows(t *testing.T) {
	const files, rows = 9, 2000
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	require.NoError(t, os.MkdirAll(in, 0o777))
	put := func(f int) { // as a whole
		var text strings.Builder
		for i := range rows {
			fmt.Fprintf(&text, "{\"ID\":%d}\n", f*rows+i)
		}
		require.NoError(t, os.WriteFile(filepath.Join(in, ".new"), []byte(text.String()), 0o666))
		require.NoError(t, os.Rename(filepath.Join(in, ".new"), filepath.Join(in, fmt.Sprintf("%d.jsonl", f))))
	}
	kills := 0
	for run := range 3 {
		source := file.DecodedJSON[order](file.Lines(filepath.Join(in, "*.jsonl")).With(file.SourceOptions{Watch: 5 * time.Millisecond}))
		job := operator.NewJob("orders")
		drawn := operator.Map(operator.Rebalanced(operator.From(job, "orders", source)), "draw", func(ctx operator.Context, v order) (order, error) {
			v.Draw = ctx.Rand().Int64()
			return v, nil
		})
		operator.To(operator.Rebalanced(drawn), "out", file.Sink(out, file.SinkOptions{}))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the job is too slow"))
		next, stop := run*files/3, errors.New("stopped by the test")
		ctx, end := context.WithCancelCause(ctx)
		sum, err := understudy.Run(ctx, job, understudy.Options{
			StateDir: filepath.Join(dir, "state"), Parallelism: 2, CheckpointInterval: 40 * time.Millisecond,
			Chaos: &understudy.Chaos{Kill: 25 * time.Millisecond, Target: "task", Seed: uint64(run), Limit: 8},
			Progress: func(understudy.Progress) {
				switch shown := lines(t, out); {
				case next < (run+1)*files/3 && shown >= (next-1)*rows:
					put(next)
					next++
				case shown >= (run+1)*files/3*rows:
					end(stop)
				}
			},
		})
		end(nil)
		cancel()
		require.ErrorIs(t, err, stop)
		require.Zero(t, sum.Rollbacks)
		kills += sum.Kills
	}
	require.Positive(t, kills)
	report, err := verify.CheckIDs(t.Context(), verify.IDsOptions{
		Input:  verify.Selection{Paths: []string{in}, Fields: []string{"ID"}},
		Output: verify.Selection{Paths: []string{out}, Fields: []string{"ID"}},
	})
	require.NoError(t, err)
	require.True(t, report.Clean(), "%v", report)
}

// lines counts what is visible.
func lines(t *testing.T, out string) (n int) {
	names, err := filepath.Glob(filepath.Join(out, "part-*"))
	require.NoError(t, err)
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		n += strings.Count(string(text), "\n")
	}
	return n
}

// requireLayout checks names, sizes and folders of the output's files.
func requireLayout(t *testing.T, out string, o file.SinkOptions) {
	names, err := file.Glob(t.Context(), filepath.Join(out, "**", "*.jsonl"))
	require.NoError(t, err)
	require.Greater(t, len(names), 6, "nothing was closed")
	pattern := regexp.MustCompile(`part-(\d{5})-\d{16}\.jsonl$`)
	ends := map[string]int{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.LessOrEqual(t, int64(len(text)), o.RollBytes)
		require.Regexp(t, pattern, name)
		stream := filepath.Dir(name) + pattern.FindStringSubmatch(name)[1]
		require.Equal(t, fmt.Sprintf("part-%s-%016d.jsonl", pattern.FindStringSubmatch(name)[1], ends[stream]), filepath.Base(name))
		ends[stream] += len(text)
		if o.Key == nil {
			require.Equal(t, out, filepath.Dir(name))
			continue
		}
		for line := range strings.Lines(string(text)) {
			key, err := o.Key([]byte(line))
			require.NoError(t, err)
			if key == "" {
				key = "%"
			}
			require.Equal(t, key, filepath.Base(filepath.Dir(name)))
		}
	}
}

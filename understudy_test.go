package understudy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seen is a line of output.
type seen struct {
	Line   string
	Random int64
	Time   int64
}

// lines writes n numbered lines to a file.
func lines(t *testing.T, n int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "in.txt")
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o600))
	return path
}

// visible reads the output: how often each line is there.
func visible(t *testing.T, out string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	parts, err := filepath.Glob(filepath.Join(out, "part-*"))
	require.NoError(t, err)
	for _, part := range parts {
		f, err := os.Open(part)
		require.NoError(t, err)
		s := bufio.NewScanner(f)
		for s.Scan() {
			var v seen
			require.NoError(t, json.Unmarshal(s.Bytes(), &v))
			counts[v.Line]++
		}
		require.NoError(t, errors.Join(s.Err(), f.Close()))
	}
	return counts
}

// requireAll checks that each of n lines is visible once, except those left out.
func requireAll(t *testing.T, out string, n int, except ...string) {
	t.Helper()
	want := map[string]int{}
	for i := range n {
		want[fmt.Sprintf("line %d", i)] = 1
	}
	for _, line := range except {
		delete(want, line)
	}
	require.Equal(t, want, visible(t, out))
}

// pipeline passes lines through f, behind a shuffle unless it is to share the source's vertex.
func pipeline(in, out string, inSource bool, f func(ctx operator.Context, line string) error) *operator.Job {
	job := operator.NewJob("pipeline")
	all := operator.From(job, "lines", file.Lines(in).With(file.SourceOptions{SplitBytes: 8 << 10}))
	if !inSource {
		all = operator.Rebalanced(all)
	}
	checked := operator.Map(all, "check", func(ctx operator.Context, l file.Line) (seen, error) {
		return seen{Line: l.Text, Random: ctx.Rand().Int64(), Time: ctx.Now().UnixMilli()}, f(ctx, l.Text)
	})
	operator.To(operator.Rebalanced(checked), "output", file.Sink(out, file.SinkOptions{}), operator.WithCodec(operator.JSON[seen]()))
	return job
}

func run(t *testing.T, job *operator.Job, o understudy.Options) (understudy.Summary, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o.Parallelism = 2
	return understudy.Run(ctx, job, o)
}

// bads are ways of failing on a record.
var bads = map[string]func(ctx operator.Context) error{
	"an error": func(operator.Context) error { return errors.New("no such field") },
	"a panic":  func(operator.Context) error { panic("no such field") },
	"an error after choices": func(ctx operator.Context) error {
		_, err := ctx.Call([]byte("q"), func(context.Context, []byte) ([]byte, error) { return []byte("a"), nil })
		return errors.Join(err, fmt.Errorf("no such field %T %T", ctx.Now(), ctx.Rand().Int()))
	},
}

const poisoned = "line 1234"

func TestPoisonStops(t *testing.T) {
	for name, bad := range bads {
		for _, inSource := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in the source's vertex: %v", name, inSource), func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "out")
				var tries atomic.Int64
				_, err := run(t, pipeline(lines(t, 3000), out, inSource, func(ctx operator.Context, line string) error {
					if line != poisoned {
						return nil
					}
					tries.Add(1)
					return bad(ctx)
				}), understudy.Options{})
				require.Error(t, err)
				require.Regexp(t, `operator "check" failed on the record at (channel|split) \d+, (sequence number|offset) \d+`, err.Error())
				require.Contains(t, err.Error(), "no such field")
				require.Contains(t, err.Error(), "check[")
				require.Contains(t, err.Error(), poisoned)
				require.EqualValues(t, 3, tries.Load())
			})
		}
	}
}

func TestPoisonIsSetAside(t *testing.T) {
	for name, bad := range bads {
		for _, inSource := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in the source's vertex: %v", name, inSource), func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "out")
				var mu sync.Mutex
				var letters []understudy.Poison
				sum, err := run(t, pipeline(lines(t, 3000), out, inSource, func(ctx operator.Context, line string) error {
					if line == poisoned || line == "line 17" {
						return bad(ctx)
					}
					return nil
				}), understudy.Options{DeadLetter: func(p understudy.Poison) error {
					mu.Lock()
					defer mu.Unlock()
					letters = append(letters, p)
					return nil
				}})
				require.NoError(t, err)
				require.Equal(t, 2, sum.SetAside)
				require.Zero(t, sum.Rollbacks)
				requireAll(t, out, 3000, poisoned, "line 17")
				require.Len(t, letters, 2)
				for _, p := range letters {
					require.Equal(t, "check", p.Operator)
					require.ErrorContains(t, p.Err, "no such field")
					require.True(t, strings.Contains(string(p.Record), poisoned) || strings.Contains(string(p.Record), "line 17"),
						"record %q", p.Record)
				}
			})
		}
	}
}

// Where choices are not recorded, records come in another order after each failure, and still exactly those on which user code
// fails are set aside.
func TestPoisonIsSetAsideInEveryMode(t *testing.T) {
	for _, mode := range []understudy.Mode{understudy.AtLeastOnce, understudy.GlobalRollback} {
		for _, inSource := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, in the source's vertex: %v", mode, inSource), func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "out")
				var mu sync.Mutex
				letters := map[string]bool{}
				_, err := run(t, pipeline(lines(t, 3000), out, inSource, func(_ operator.Context, line string) error {
					if line == poisoned || line == "line 17" || line == "line 18" {
						return errors.New("no such field")
					}
					return nil
				}), understudy.Options{Mode: mode, DeadLetter: func(p understudy.Poison) error {
					mu.Lock()
					defer mu.Unlock()
					letters[string(p.Record)] = true
					return nil
				}})
				require.NoError(t, err)
				require.Len(t, letters, 3)
				shown := visible(t, out)
				require.Len(t, shown, 2997)
				for line, n := range shown {
					require.True(t, n == 1 || mode == understudy.AtLeastOnce, "%q is shown %d times", line, n)
				}
			})
		}
	}
}

// While tasks are killed, too, a record is set aside, and stays aside.
func TestPoisonAmongKills(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var letters atomic.Int64
	sum, err := run(t, pipeline(lines(t, 100000), out, false, func(_ operator.Context, line string) error {
		if line == "line 50000" {
			return errors.New("no such field")
		}
		return nil
	}), understudy.Options{
		CheckpointInterval: 50 * time.Millisecond,
		Chaos:              &understudy.Chaos{Kill: 50 * time.Millisecond, Target: "task", Seed: 710, Limit: 10},
		DeadLetter:         func(understudy.Poison) error { letters.Add(1); return nil },
	})
	t.Logf("%d records in and %d out in %.1f s, %d kills, %d tasks restarted, %d rollbacks, %d checkpoints, %d tries",
		sum.RecordsIn, sum.RecordsOut, sum.Seconds, sum.Kills, sum.TasksRestarted, sum.Rollbacks, sum.Checkpoints, letters.Load())
	require.NoError(t, err)
	require.Positive(t, sum.Kills)
	require.Zero(t, sum.Rollbacks)
	require.Positive(t, letters.Load())
	requireAll(t, out, 100000, "line 50000")
}

// What fails for a time only is no poison: the next life of the task gets over it.
func TestPassingFailure(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	var tries atomic.Int64
	sum, err := run(t, pipeline(lines(t, 3000), out, false, func(_ operator.Context, line string) error {
		if line == poisoned && tries.Add(1) < 3 {
			return errors.New("not now")
		}
		return nil
	}), understudy.Options{})
	require.NoError(t, err)
	require.Equal(t, 2, sum.TasksRestarted)
	requireAll(t, out, 3000)
}

// User code that is not deterministic is found out instead of being believed: the job goes back to a checkpoint, or stops.
func TestNondeterminismIsNoticed(t *testing.T) {
	in := lines(t, 150000)
	for seed := range uint64(10) {
		out := filepath.Join(t.TempDir(), "out")
		job := operator.NewJob("cheat")
		var calls atomic.Int64
		cheated := operator.FlatMap(operator.Rebalanced(operator.From(job, "lines", file.Lines(in))), "cheat",
			func(_ operator.Context, l file.Line, emit func(seen)) error {
				emit(seen{Line: l.Text, Random: calls.Add(1)})
				return nil
			})
		operator.To(operator.Rebalanced(cheated), "output", file.Sink(out, file.SinkOptions{}))
		sum, err := run(t, job, understudy.Options{
			CheckpointInterval: 50 * time.Millisecond,
			Chaos:              &understudy.Chaos{Kill: 50 * time.Millisecond, Target: "task", Seed: 710 + seed, Limit: 10},
		})
		if err == nil {
			requireAll(t, out, 150000)
		}
		if err != nil || sum.Rollbacks > 0 {
			t.Logf("%d kills, %d rollbacks, error: %v", sum.Kills, sum.Rollbacks, err)
			return
		}
	}
	t.Fatal("nobody noticed")
}

// A job that is stopped and run again goes on, as often as one likes.
func TestStopAndGoOn(t *testing.T) {
	in, dir := lines(t, 60000), t.TempDir()
	out, state := filepath.Join(dir, "out"), filepath.Join(dir, "state")
	stopped := 0
	for round := 0; ; round++ {
		ctx, cancel := context.WithCancel(context.Background())
		var records atomic.Int64
		job := pipeline(in, out, false, func(operator.Context, string) error {
			if records.Add(1) == 10000*int64(round+1) { // what is replayed counts too
				cancel()
			}
			return nil
		})
		sum, err := understudy.Run(ctx, job, understudy.Options{
			Parallelism: 2, StateDir: state, CheckpointInterval: 5 * time.Millisecond,
		})
		cancel()
		if err == nil {
			require.Positive(t, stopped)
			require.True(t, sum.Resumed)
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		stopped++
		require.Less(t, round, 100, "it does not come to an end")
	}
	requireAll(t, out, 60000)
}

func TestUnusableOptions(t *testing.T) {
	for want, o := range map[string]understudy.Options{
		"parallelism -1": {Parallelism: -1}, "-1 workers": {Workers: -1}, "sharing depth -1": {SharingDepth: -1},
		"checkpoint interval": {CheckpointInterval: -time.Second}, "below 1 ms": {CheckpointInterval: time.Microsecond},
		"budget": {InflightMemory: -1}, "mode": {Mode: 77},
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, err := understudy.Run(context.Background(), pipeline(lines(t, 1), out, false, nil), o)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "understudy: ")
		require.NoDirExists(t, out)
	}
}

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// seenTimes counts how often each number is visible.
func seenTimes(t *testing.T, out string) map[int64]int {
	t.Helper()
	seen := map[int64]int{}
	for d, times := range seenRows[drawn](t, out) {
		seen[d.N] += times
	}
	return seen
}

// seenRows counts how often each row is visible.
func seenRows[T comparable](t *testing.T, out string) map[T]int {
	t.Helper()
	seen := map[T]int{}
	parts, err := filepath.Glob(filepath.Join(out, "part-*"))
	require.NoError(t, err)
	for _, part := range parts {
		text, err := os.ReadFile(part)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			var row T
			require.NoError(t, json.Unmarshal([]byte(line), &row))
			seen[row]++
		}
	}
	return seen
}

// In the other modes a kill costs what the mode says: repeated output, or a rollback of everything. Nothing is ever lost.
func TestKillingsInOtherModes(t *testing.T) {
	for _, mode := range []determinant.Mode{determinant.AtLeastOnce, determinant.GlobalRollback} {
		for _, c := range killings {
			if c.interval == time.Hour {
				continue // without checkpoints every rollback goes back to the beginning
			}
			t.Run(mode.String()+"/"+c.name, func(t *testing.T) {
				v, out := &valve{n: 5000}, filepath.Join(t.TempDir(), "out")
				sum, err := drawnRun(context.Background(), t, v, out, LocalOptions{Mode: mode, CheckpointInterval: c.interval}, func(k *killer) {
					c.drive(k)
					v.open(v.n)
				})
				require.NoError(t, err)
				require.Positive(t, sum.Kills)
				if mode == determinant.GlobalRollback {
					require.Positive(t, sum.Rollbacks)
					requireExact(t, out, 10000)
					return
				}
				require.Zero(t, sum.Rollbacks)
				require.Zero(t, sum.DeterminantBytes)
				require.Len(t, seenTimes(t, out), 10000)
			})
		}
	}
}

// One process at a time runs a job in a directory; when it is gone, another may.
func TestTwoProcessesOnOneDirectory(t *testing.T) {
	dir := t.TempDir()
	plan := func() LocalOptions { return LocalOptions{StateDir: filepath.Join(dir, "state")} }
	job, err := numbersJob(100, 0, file.Sink(filepath.Join(dir, "out"), file.SinkOptions{Identity: "numbers"}))
	require.NoError(t, err)
	o := plan()
	o.Started = func(*Local) {
		_, err := RunLocal(t.Context(), job, plan())
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorContains(t, err, fmt.Sprintf("is held by pid %d", os.Getpid()))
	}
	_, err = RunLocal(t.Context(), job, o)
	require.NoError(t, err)
	sum, err := RunLocal(t.Context(), job, plan())
	require.NoError(t, err)
	require.True(t, sum.Complete, "it has been done")
	require.Equal(t, 100, countLines(t, filepath.Join(dir, "out")))
}

// Without input there is no job, and no directory of one.
func TestNoInputLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	job := operator.NewJob("empty")
	lines := operator.From(job, "lines", file.Lines(filepath.Join(dir, "*.txt")))
	operator.To(lines, "output", file.Sink(filepath.Join(dir, "out"), file.SinkOptions{}), operator.WithCodec(operator.JSON[file.Line]()))
	plan, err := job.Plan(1)
	require.NoError(t, err)
	_, err = RunLocal(t.Context(), plan, LocalOptions{StateDir: filepath.Join(dir, "out", "state")})
	require.ErrorIs(t, err, file.ErrNoMatch)
	require.EqualError(t, err, `operator: source "lines": file: no file matches: `+filepath.Join(dir, "*.txt"))
	require.NoDirExists(t, filepath.Join(dir, "out"))
}

// A start that fails half-way leaves neither goroutines nor locks behind, and no damage.
func TestAStartThatFailsLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	job, err := numbersJob(100, 0, file.Sink(filepath.Join(dir, "out"), file.SinkOptions{Identity: "numbers"}))
	require.NoError(t, err)
	o := LocalOptions{StateDir: filepath.Join(dir, "state")}
	inTheWay := filepath.Join(o.StateDir, "worker-1")
	require.NoError(t, os.MkdirAll(o.StateDir, 0o755))
	require.NoError(t, os.WriteFile(inTheWay, nil, 0o600))
	_, err = RunLocal(t.Context(), job, o)
	require.Error(t, err)
	require.NoError(t, os.Remove(inTheWay))
	_, err = RunLocal(t.Context(), job, o)
	require.NoError(t, err)
	require.Equal(t, 100, countLines(t, filepath.Join(dir, "out")))
}

// A run that is cancelled ends, says so, and goes on when it is run again.
func TestACancelledRunGoesOn(t *testing.T) {
	dir := t.TempDir()
	v, out := &valve{n: 1000}, filepath.Join(dir, "out")
	o := LocalOptions{StateDir: filepath.Join(dir, "state"), CheckpointInterval: 20 * time.Millisecond}
	ctx, cancel := context.WithCancel(context.Background())
	_, err := drawnRun(ctx, t, v, out, o, func(k *killer) {
		k.advance(500)
		cancel()
	})
	cancel()
	require.ErrorIs(t, err, context.Canceled)
	sum, err := drawnRun(context.Background(), t, v, out, o, func(*killer) { v.open(v.n) })
	require.NoError(t, err)
	require.True(t, sum.Resumed)
	requireExact(t, out, 2000)
}

// Whoever wants to know is told of each completed checkpoint, once, with the size of its images and how long it took.
func TestCheckpointsAreToldOf(t *testing.T) {
	dir := t.TempDir()
	v := &valve{n: 1000}
	var told []Checkpointed
	o := LocalOptions{
		StateDir: filepath.Join(dir, "state"), CheckpointInterval: 10 * time.Millisecond,
		Checkpointed: func(c Checkpointed) { told = append(told, c) },
	}
	sum, err := drawnRun(t.Context(), t, v, filepath.Join(dir, "out"), o, func(k *killer) {
		k.advance(500)
		v.open(v.n)
	})
	require.NoError(t, err)
	require.NotEmpty(t, told)
	require.Len(t, told, sum.Checkpoints)
	for i, c := range told {
		require.Positive(t, c.Bytes)
		require.Positive(t, c.Took)
		require.True(t, i == 0 || c.Epoch > told[i-1].Epoch)
	}
}

// An image counts once, however often it is acknowledged, and only for its own checkpoint.
func TestCheckpointSizes(t *testing.T) {
	var c checkpointSizes
	now := time.UnixMilli(1000)
	_, ok := c.entry(&Entry{Start: &checkpoint.Start{Epoch: 7}}, now)
	require.False(t, ok)
	for _, a := range []checkpoint.Ack{
		{Task: 1, Epoch: 7, Primary: true, Bytes: 10}, {Task: 1, Epoch: 7, Primary: true, Bytes: 10}, {Task: 1, Epoch: 7, Bytes: 10},
		{Task: 2, Epoch: 6, Primary: true, Bytes: 100}, {Task: 2, Epoch: 7, Primary: true, Bytes: 5},
	} {
		c.ack(&a)
	}
	got, ok := c.entry(&Entry{Complete: &checkpoint.Complete{Epoch: 7}}, now.Add(30*time.Millisecond))
	require.True(t, ok)
	require.Equal(t, Checkpointed{Epoch: 7, Bytes: 15, Took: 30 * time.Millisecond}, got)
	_, ok = c.entry(&Entry{Complete: &checkpoint.Complete{Epoch: 8}}, now) // its start was not seen
	require.False(t, ok)
}

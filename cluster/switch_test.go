package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

const (
	eo   = determinant.ExactlyOnce
	alo  = determinant.AtLeastOnce
	back = determinant.GlobalRollback
)

// switchTo changes the mode and waits until every task has passed into it, and a failure is recovered by it.
func (k *killer) switchTo(m determinant.Mode) {
	if err := k.l.SwitchMode(m, 0); err != nil {
		k.t.Errorf("switching to %v: %v", m, err)
	}
	k.until("mode "+m.String(), func() (all bool) {
		k.on(func(c *Coordinator) {
			s := c.points.State()
			weakest, _ := s.Recovery()
			all = s.Mode == m && weakest == m && s.Wanted == nil
		})
		return all
	})
}

// determinants is how many bytes of determinants the tasks have logged.
func (k *killer) determinants() uint64 {
	k.l.stats.measure(k.l)
	return k.l.stats.summary(k.l.job).DeterminantBytes
}

// Without failures all modes show the same, and so do all changes between them, whatever the tasks are doing meanwhile.
func TestModesChangeUnderARunningJob(t *testing.T) {
	v, out := &valve{n: 4000}, filepath.Join(t.TempDir(), "out")
	sum, err := drawnRun(context.Background(), t, v, out, LocalOptions{CheckpointInterval: 10 * time.Millisecond}, func(k *killer) {
		for i, m := range []determinant.Mode{alo, eo, back, alo, back, eo, alo, eo} {
			k.advance(200)
			v.open(k.moved + 200) // something flows while it changes
			k.switchTo(m)
			k.moved += 200
			k.until("all that was let in", func() bool { return countLines(t, out) >= int(2*k.moved) })
			before := k.determinants()
			k.advance(50)
			if logged := k.determinants() > before; logged != m.Logs() {
				t.Errorf("change %d: in mode %v determinants are logged: %v", i, m, logged)
			}
		}
		v.open(v.n)
	})
	require.NoError(t, err)
	require.Zero(t, sum.Rollbacks)
	require.Zero(t, sum.TasksRestarted)
	requireExact(t, out, 8000)
}

// Failures while every epoch since the last checkpoint is exactly-once show nothing twice, whatever modes came before: one
// completed checkpoint after a change the guarantee is whole again.
func TestFailuresBetweenChangesAreExact(t *testing.T) {
	v, out := &valve{n: 5000}, filepath.Join(t.TempDir(), "out")
	sum, err := drawnRun(context.Background(), t, v, out, LocalOptions{CheckpointInterval: 20 * time.Millisecond}, func(k *killer) {
		for i, m := range []determinant.Mode{alo, back, alo} {
			k.advance(200)
			k.switchTo(m)
			k.advance(200)
			k.switchTo(eo)
			k.advance(200)
			k.kill(determinant.TaskID(2*i), determinant.TaskID(2*i+1))
			k.advance(200)
			k.killWorkers(i)
		}
		v.open(v.n)
	})
	require.NoError(t, err)
	require.Zero(t, sum.Rollbacks)
	require.Positive(t, sum.TasksRestarted)
	requireExact(t, out, 10000)
}

// Where one of the modes rolls back and the other repeats its choices, nothing is ever seen twice, also when failures hit the
// moments of the change.
func TestFailuresDuringChangesBetweenExactModes(t *testing.T) {
	v, out := &valve{n: 6000}, filepath.Join(t.TempDir(), "out")
	_, err := drawnRun(context.Background(), t, v, out, LocalOptions{CheckpointInterval: 20 * time.Millisecond}, func(k *killer) {
		for i := range 8 {
			k.advance(150)
			m := []determinant.Mode{back, eo}[i%2]
			if err := k.l.SwitchMode(m, 0); err != nil {
				t.Error(err)
			}
			k.kill(determinant.TaskID(i % tasks))
			if i%3 == 0 {
				k.killWorkers(i % 3)
			}
		}
		v.open(v.n)
	})
	require.NoError(t, err)
	requireExact(t, out, 12000)
}

// Whatever is killed while modes change: nothing is lost. What is read after the job is exactly-once again is seen once,
// although failures go on.
func TestNothingIsLostWhileModesChange(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			v, out := &valve{n: 6000}, filepath.Join(t.TempDir(), "out")
			var exactFrom uint64
			_, err := drawnRun(context.Background(), t, v, out, LocalOptions{CheckpointInterval: 20 * time.Millisecond}, func(k *killer) {
				rng := rand.New(rand.NewPCG(seed, 1))
				for range 12 {
					if rng.IntN(3) > 0 {
						if err := k.l.SwitchMode(determinant.Mode(rng.IntN(3)), determinant.Depth(rng.IntN(3))); err != nil {
							t.Error(err)
						}
					}
					v.open(k.moved + 100)
					if rng.IntN(2) == 0 {
						k.kill(determinant.TaskID(rng.IntN(tasks)), determinant.TaskID(rng.IntN(tasks)))
					} else {
						k.killWorkers(rng.IntN(3))
					}
					k.moved += 100
					k.advance(50)
				}
				if err := k.l.SwitchMode(eo, determinant.Full); err != nil {
					t.Error(err)
				}
				k.switchTo(eo)
				exactFrom = k.moved
				for i := range 4 {
					k.advance(200)
					k.kill(determinant.TaskID(i))
					k.killWorkers(i % 3)
				}
				v.open(v.n)
			})
			require.NoError(t, err)
			seen := seenTimes(t, out)
			require.Len(t, seen, 12000)
			require.Less(t, exactFrom, v.n)
			for n, times := range seen {
				if uint64(n)%v.n >= exactFrom {
					require.Equal(t, 1, times, "%d", n)
				}
			}
		})
	}
}

// A job that is run again in another mode goes on in the one that it was in, since that is how its last epochs can be
// recovered, and then switches. It says so.
func TestAJobGoesOnInAnotherMode(t *testing.T) {
	for name, modes := range map[string][]determinant.Mode{
		"exact": {eo, back, eo, back}, "at least once": {eo, alo, back, alo, eo},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			v, out := &valve{n: 3000}, filepath.Join(dir, "out")
			var said strings.Builder
			for i, m := range modes {
				o := LocalOptions{
					Mode: m, StateDir: filepath.Join(dir, "state"), CheckpointInterval: 20 * time.Millisecond,
					Logger: slog.New(slog.NewTextHandler(&said, nil)),
				}
				ctx, stop := context.WithCancel(context.Background())
				_, err := drawnRun(ctx, t, v, out, o, func(k *killer) {
					k.moved = v.limit()
					k.until("the new mode", func() bool { return k.l.Modes().Recovery.Mode == m })
					if i == len(modes)-1 {
						v.open(v.n)
						return
					}
					k.advance(200)
					stop()
				})
				stop()
				if i < len(modes)-1 {
					require.ErrorIs(t, err, context.Canceled)
					continue
				}
				require.NoError(t, err)
			}
			require.Equal(t, len(modes)-1, strings.Count(said.String(), "the job ran in another mode"))
			if name == "exact" {
				requireExact(t, out, 6000)
			}
			require.Len(t, seenTimes(t, out), 6000)
		})
	}
}

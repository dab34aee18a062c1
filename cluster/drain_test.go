package cluster

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// load lets numbers in, a few at a time, until the returned function is called.
func (k *killer) load() (stop func()) {
	ctx, cancel := context.WithCancel(k.ctx)
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				k.moved = min(k.moved+5, k.valve.n-1) // no source ends before it is let to
				k.valve.open(k.moved)
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// A rolling restart: every worker in turn is drained, stopped and started again, while numbers flow. Every task moves, none
// fails, and the output is exact, also where determinants are handed on one hop only.
func TestRollingRestart(t *testing.T) {
	for _, depth := range []determinant.Depth{1, determinant.Full} {
		t.Run(depth.String(), func(t *testing.T) {
			v, out := &valve{n: 20_000}, filepath.Join(t.TempDir(), "out")
			var first, last standby.State
			o := LocalOptions{Depth: depth, CheckpointInterval: 20 * time.Millisecond}
			sum, err := drawnRun(context.Background(), t, v, out, o, func(k *killer) {
				k.advance(100)
				k.on(func(c *Coordinator) { first = c.decider.State() })
				stop := k.load()
				for dir := range DefaultWorkers {
					if err := k.l.DrainWorker(k.ctx, dir); err != nil {
						k.t.Errorf("drain of %d: %v", dir, err)
					}
				}
				k.on(func(c *Coordinator) { last = c.decider.State() })
				stop()
				v.open(v.n)
			})
			require.NoError(t, err)
			require.Zero(t, sum.Rollbacks)
			require.Zero(t, sum.TasksRestarted)
			require.GreaterOrEqual(t, sum.TasksMoved, tasks, "each task has left its worker")
			requireExact(t, out, 40_000)
			for id, p := range last.Tasks {
				require.NotEqual(t, first.Tasks[id].Worker, p.Worker)
			}
			require.NotEmpty(t, last.Dead, "the workers were stopped")
		})
	}
}

// A worker that dies while it is drained has died like any other, and so has one that takes over.
func TestDeathsDuringADrain(t *testing.T) {
	v, out := &valve{n: 5000}, filepath.Join(t.TempDir(), "out")
	sum, err := drawnRun(context.Background(), t, v, out, LocalOptions{CheckpointInterval: 20 * time.Millisecond}, func(k *killer) {
		for n := range 6 {
			k.advance(100)
			victim := n % DefaultWorkers
			if n >= DefaultWorkers {
				victim = (n + 1) % DefaultWorkers
			}
			drained := k.l.workers()[n%DefaultWorkers].worker.ID()
			k.on(func(c *Coordinator) {
				if err := c.Drain(drained); err != nil {
					k.t.Errorf("drain: %v", err)
				}
			})
			k.killWorkers(victim)
			k.on(func(c *Coordinator) {
				if err := c.Undrain(drained); (err != nil) != (victim == n%DefaultWorkers) {
					k.t.Errorf("undrain of %d when %d has died: %v", n%DefaultWorkers, victim, err)
				}
			})
		}
		v.open(v.n)
	})
	require.NoError(t, err)
	require.Zero(t, sum.Rollbacks)
	requireExact(t, out, 10_000)
}

// After a worker was away the others have its tasks; it gets some back when all has been well for a while.
func TestTasksMoveToAWorkerThatHasNone(t *testing.T) {
	v, out := &valve{n: 5000}, filepath.Join(t.TempDir(), "out")
	o := LocalOptions{CheckpointInterval: 20 * time.Millisecond, BalanceAfter: 50 * time.Millisecond}
	sum, err := drawnRun(context.Background(), t, v, out, o, func(k *killer) {
		k.advance(100)
		k.killWorkers(1)
		k.advance(100)
		k.until("even tasks", func() (even bool) {
			k.on(func(c *Coordinator) {
				count := map[determinant.WorkerID]int{}
				for _, p := range c.decider.State().Tasks {
					count[p.Worker]++
					even = !p.Recovering && (even || p.Task == 0)
				}
				for _, w := range c.decider.Live() {
					even = even && count[w] == tasks/DefaultWorkers
				}
			})
			return even
		})
		v.open(v.n)
	})
	require.NoError(t, err)
	require.Zero(t, sum.Rollbacks)
	require.Positive(t, sum.TasksMoved)
	requireExact(t, out, 10_000)
}

// While failures are frequent, a hand-over waits for the checkpoint that comes anyway; when it turns out that none does, one is asked for.
func TestDrainWaitsForAFrequentCheckpoint(t *testing.T) {
	for _, c := range []struct {
		name    string
		failed  int64 // so long ago
		starts  int   // at once
		then    int64 // milliseconds later
		pending bool
	}{
		{"none has failed for long", 1_000_000, 1, 1, false},
		{"the next one comes", 0, 0, soonEnough, false},
		{"it is soon", 0, 0, 1, true},
		{"failures are forgotten", 0, 0, 1_000_000, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOffice(t, CoordinatorOptions{Interval: 10_000_000})
			const now = 2_000_000
			o.c.Tick(now)
			o.c.pace = pace{failures: 2, gap: 1000, cost: 50, lastFail: now - c.failed, newest: now - c.failed, lastStart: now}
			starts := func() int { return count(o.told, func(e Entry) bool { return e.Start != nil }) }
			require.NoError(t, o.c.Drain(1))
			o.commit()
			require.Equal(t, c.starts, starts())
			o.c.Tick(now + c.then)
			o.commit()
			require.Equal(t, c.pending, o.c.wanted)
			require.Equal(t, c.pending, starts() == 0)
		})
	}
}

// What a drain asks of the coordinator, step by step.
func TestDrainAsksForACheckpointFirst(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	require.ErrorIs(t, o.c.Drain(77), ErrNoWorker)
	require.ErrorIs(t, o.c.Undrain(77), ErrNoWorker)
	require.NoError(t, o.c.Drain(1))
	o.commit()
	require.Equal(t, 1, count(o.told, func(e Entry) bool { return e.Drain != nil }))
	require.Equal(t, 1, count(o.told, func(e Entry) bool { return e.Start != nil }), "without anybody else asking")
	require.Equal(t, []standby.DrainStatus{{Worker: 1, Why: "a checkpoint is taken first"}}, plain(o.c.Drains()))

	require.False(t, o.c.freed(1))

	failed := o.c.pace.failures
	for id, p := range o.c.view.Places {
		for _, w := range append([]determinant.WorkerID{p.Worker}, p.Standbys...) {
			o.ack(determinant.TaskID(id), w, 1)
		}
	}
	for id, p := range o.c.view.Places {
		require.NotEqual(t, determinant.WorkerID(1), p.Worker)
		require.Equal(t, p.Recovering, p.From == 1)
		o.hold(determinant.TaskID(id), 1)
	}
	require.False(t, o.c.freed(1), "it answers for what it gave away")
	require.Equal(t, failed, o.c.pace.failures, "nothing has failed")
	o.catchUp()
	require.Equal(t, []standby.DrainStatus{{Worker: 1, Done: true}}, plain(o.c.Drains()))
	for _, p := range o.c.view.Places {
		require.NotContains(t, p.Standbys, determinant.WorkerID(1))
		require.Len(t, p.Standbys, 1)
	}

	follower := followerOf(o.job)
	for _, e := range o.told {
		e.Index = 0
		follower.Committed(e)
	}
	require.Equal(t, o.c.View(), follower.View())
	require.Equal(t, o.c.decider.State(), follower.decider.State())
	require.True(t, o.c.freed(1))
	require.True(t, follower.freed(1), "so says whoever may lead next")
	require.False(t, o.c.freed(2))

	require.NoError(t, o.c.Undrain(1))
	o.commit()
	require.False(t, o.c.freed(1))
	require.Empty(t, o.c.Drains())
	o.fail(0, poison(1))
	o.fail(0, poison(1))
	o.fail(0, poison(1))
	require.ErrorIs(t, o.c.Drain(1), ErrOver)
	require.ErrorIs(t, o.c.Undrain(1), ErrOver)
}

func plain(list []standby.DrainStatus) (out []standby.DrainStatus) {
	for _, s := range list {
		out = append(out, standby.DrainStatus{Worker: s.Worker, Done: s.Done, Why: s.Why})
	}
	return out
}

func count(entries []Entry, is func(Entry) bool) (n int) {
	for _, e := range entries {
		if is(e) {
			n++
		}
	}
	return n
}

// drain asks for a drain until it is done, as a person would whose coordinator dies.
func (c *cell) drain(w determinant.WorkerID) {
	for {
		err := c.client.Drain(c.t.Context(), w)
		if err == nil || strings.Contains(err.Error(), ErrNoWorker.Error()) || c.t.Context().Err() != nil {
			return // done; or all was done when the leader died
		}
	}
}

// left waits until a worker process has ended because it was drained, and starts another in its place.
func (c *cell) left() {
	c.t.Helper()
	deadline := time.After(time.Minute)
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		for i, n := range c.nodes {
			select {
			case <-n.done:
				require.ErrorIs(c.t, n.err, ErrDrained)
				c.startWorker(i)
				return
			default:
			}
		}
		select {
		case <-ticker.C:
		case <-deadline:
			c.t.Fatal("no worker process has ended")
		}
	}
}

// The same on processes, by the command that a person gives; the leading coordinator dies during each drain.
func TestRollingRestartOfProcesses(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := newCell(t, 3, 3, 6000)
	c.start()
	c.valve.open(300)
	s := c.await("output", written(1))
	for n, w := range s.Workers {
		c.valve.open(uint64(1000 * (n + 1)))
		leader := slices.IndexFunc(s.Coordinators, func(s CoordinatorStatus) bool { return s.Leader })
		var asking sync.WaitGroup
		asking.Go(func() { c.drain(w.Worker) })
		c.await("the drain", func(s *Status) bool {
			at := slices.IndexFunc(s.Workers, func(now WorkerStatus) bool { return now.Worker == w.Worker })
			return at < 0 || s.Workers[at].State != WorkerLive
		})
		c.coords[leader].kill()
		c.startCoordinator(leader)
		c.left()
		asking.Wait()
		s = c.await("another worker", func(s *Status) bool {
			gone := !slices.ContainsFunc(s.Workers, func(now WorkerStatus) bool { return now.Worker == w.Worker })
			return gone && len(s.Workers) == 3 && s.State == JobRunning
		})
	}
	c.valve.open(c.valve.n)
	s = c.finished()
	require.Zero(t, s.Generation, "rolled back")
	requireExact(t, c.out, 12_000)
	require.NotContains(t, c.log.String(), `level=WARN msg="a worker's process is gone"`, "they were told to go")
	c.stop()
}

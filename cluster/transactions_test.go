package cluster

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// heldJob is the small job with a transactional sink: 0 and 1 are its sources, 2 and 3 its sinks.
func heldJob(t testing.TB, s operator.TransactionalSink) *Job {
	t.Helper()
	job := operator.NewJob("numbers")
	all := operator.From(job, "numbers", numbers{splits: 2, n: 5}, operator.WithCodec[uint64](numberCodec{}))
	operator.ToTransactional(operator.Rebalanced(all), "output", s, operator.WithCodec(operator.JSON[uint64]()))
	plan, err := job.Plan(2)
	require.NoError(t, err)
	j, err := Layout(plan)
	require.NoError(t, err)
	return j
}

// heldCouple is two workers of it that have carried all input as far as the sinks.
func heldCouple(t *testing.T) (*couple, *heldFiles) {
	s := newHeldFiles(filepath.Join(t.TempDir(), "out"))
	c := coupleWith(t, heldJob(t, s), determinant.ExactlyOnce)
	c.flow()
	return c, s
}

// writeSinks writes what the sinks have sealed.
func (c *couple) writeSinks() (err error) {
	for _, id := range []determinant.TaskID{2, 3} {
		for wrote := true; wrote; {
			var failed error
			wrote, failed = c.down.w.WriteSink(context.Background(), id)
			err = errors.Join(err, failed)
		}
	}
	return err
}

// barrier has both sources end epoch e, and carries the barrier to the sinks.
func (c *couple) barrier(e determinant.Epoch) {
	c.begins(e)
	for id := range determinant.TaskID(2) {
		inc := c.up.w.Task(id).Incarnation()
		c.up.w.Control(Control{Trigger: &checkpoint.Trigger{Task: id, Incarnation: inc, Epoch: e, Depth: determinant.Full}})
	}
	c.flow()
}

// begins has both workers hear that checkpoint e was started.
func (c *couple) begins(e determinant.Epoch) {
	start := Entry{Start: &checkpoint.Start{Epoch: e, Depth: determinant.Full}}
	c.up.apply(start)
	c.down.apply(start)
}

// acks gives the newest acknowledgement of epoch e by each task.
func (c *couple) acks(e determinant.Epoch) map[determinant.TaskID]*checkpoint.Ack {
	acks := map[determinant.TaskID]*checkpoint.Ack{}
	for _, b := range []*bench{c.up, c.down} {
		for _, r := range b.reports {
			if r.Ack != nil && r.Ack.Epoch == e {
				acks[r.Ack.Task] = r.Ack
			}
		}
	}
	return acks
}

// completes commits checkpoint e on what was acknowledged.
func (c *couple) completes(e determinant.Epoch) {
	done := &checkpoint.Complete{Epoch: e}
	acks := c.acks(e)
	for id := range determinant.TaskID(4) {
		a := acks[id]
		require.NotNil(c.t, a, "task %d has not acknowledged %d", id, e)
		done.Tasks = append(done.Tasks, checkpoint.TaskState{
			Task: id, Incarnation: a.Incarnation, Log: a.Log, External: a.External, Prepared: a.Prepared,
			Holders: []determinant.WorkerID{a.Worker},
		})
	}
	c.up.apply(Entry{Complete: done})
	c.down.apply(Entry{Complete: done})
}

func (b *bench) shownUpTo() map[determinant.TaskID]determinant.Epoch {
	shown := map[determinant.TaskID]determinant.Epoch{}
	for _, r := range b.reports {
		if r.Shown != nil {
			shown[r.Shown.Task] = r.Shown.Epoch
		}
	}
	return shown
}

// A transactional sink acknowledges a checkpoint with what it has prepared, and commits it when the checkpoint is complete.
func TestOutputIsHeldBackUntilItsCheckpointIsComplete(t *testing.T) {
	c, s := heldCouple(t)
	require.NoError(t, c.writeSinks())
	require.Zero(t, countLines(t, s.dir))
	c.barrier(1)
	require.NotContains(t, c.acks(1), determinant.TaskID(2), "nothing is prepared yet")
	require.NoError(t, c.writeSinks())
	require.Equal(t, []checkpoint.Transaction{{Epoch: 1, Handle: "1.1"}}, c.acks(1)[2].Prepared)
	require.Zero(t, countLines(t, s.dir))
	require.Empty(t, c.down.shownUpTo())
	c.completes(1)
	require.Equal(t, 10, countLines(t, s.dir))
	require.Equal(t, map[determinant.TaskID]determinant.Epoch{2: 1, 3: 1}, c.down.shownUpTo())
	require.Equal(t, uint64(10), c.down.w.Measure()[0].Written+c.down.w.Measure()[1].Written)

	c.barrier(2)
	require.NoError(t, c.writeSinks())
	require.Equal(t, []checkpoint.Transaction{{Epoch: 2, Handle: "1.2"}}, c.acks(2)[2].Prepared, "an epoch without records")
	c.completes(2)
	require.Equal(t, 10, countLines(t, s.dir))
	s.requireSettled(t)
}

// What was prepared for a checkpoint that was given up is committed with the next one.
func TestAnAbandonedCheckpointsOutputComesWithTheNext(t *testing.T) {
	c, s := heldCouple(t)
	c.barrier(1)
	require.NoError(t, c.writeSinks())
	c.down.apply(Entry{Abandon: &checkpoint.Abandon{Epoch: 1}})
	c.barrier(2)
	require.NoError(t, c.writeSinks())
	require.Equal(t, []checkpoint.Transaction{{Epoch: 1, Handle: "1.1"}, {Epoch: 2, Handle: "1.2"}}, c.acks(2)[2].Prepared)
	c.completes(2)
	require.Equal(t, 10, countLines(t, s.dir))
	require.Equal(t, []string{"fence 1", "write 6", "prepare 1.1", "prepare 1.2", "commit 1.1", "commit 1.2"}, s.parts[0].calls)
}

// A new life commits what the checkpoint names, also where that was done before, drops all else, and writes it again.
func TestANewLifeSettlesWhatTheFormerOneLeft(t *testing.T) {
	c, s := heldCouple(t)
	c.barrier(1)
	require.NoError(t, c.writeSinks())
	lost := errors.New("no answer")
	s.before = func(call string, task int) error {
		if task == 0 && strings.HasPrefix(call, "commit") {
			return lost
		}
		return nil
	}
	c.completes(1)
	require.Equal(t, map[determinant.TaskID]determinant.Epoch{3: 1}, c.down.shownUpTo(), "task 2 could not commit")
	i := slices.IndexFunc(c.down.reports, func(r Report) bool { return r.Failed != nil })
	require.ErrorIs(t, c.down.reports[i].Failed.Err, lost)
	s.before = nil
	c.barrier(2)
	require.NoError(t, c.writeSinks())
	require.NotContains(t, c.acks(2), determinant.TaskID(2), "a life that could not commit writes no more")

	s.parts[0].prepared = append(s.parts[0].prepared, operator.Transaction{Epoch: 2, Handle: "1.2"})
	s.parts[1].calls = nil
	for _, id := range []determinant.TaskID{2, 3} {
		c.decide(recovering(id))
		answer(c.up, c.down)
		answer(c.down, c.down)
		c.down.work()
	}
	require.Equal(t, []string{"fence 2", "commit 1.1", "abort 1.2"}, s.parts[0].calls[len(s.parts[0].calls)-3:])
	require.Equal(t, []string{"fence 2", "commit 1.1", "abort 1.2"}, s.parts[1].calls)
	require.Equal(t, 10, countLines(t, s.dir))
	require.Equal(t, map[determinant.TaskID]determinant.Epoch{2: 1, 3: 1}, c.down.shownUpTo())
}

// A store that was given to another life refuses this one, which is no failure: the successor commits.
func TestAFencedCommitIsNoFailure(t *testing.T) {
	c, s := heldCouple(t)
	c.barrier(1)
	require.NoError(t, c.writeSinks())
	s.parts[0].fence = 2
	c.completes(1)
	require.False(t, slices.ContainsFunc(c.down.reports, func(r Report) bool { return r.Failed != nil }))
	require.Equal(t, map[determinant.TaskID]determinant.Epoch{3: 1}, c.down.shownUpTo())
}

// Output waits while the external system does not get on with its commits.
func TestOutputWaitsForCommits(t *testing.T) {
	held := &heldOutput{next: 1}
	for e := range determinant.Epoch(maxUncommitted) {
		held.add(preparedEpoch{Transaction: operator.Transaction{Epoch: e + 1}})
	}
	require.Zero(t, held.behind(), "no checkpoint is complete")
	held.due = 3
	require.Equal(t, 3, held.behind())
	held.due = maxUncommitted
	require.Equal(t, maxUncommitted, held.behind())

	c, _ := heldCouple(t)
	c.down.w.tasks[2].Load().sink.held = held
	wrote, err := c.down.w.WriteSink(context.Background(), 2)
	require.NoError(t, err)
	require.False(t, wrote)
	held.prepared = held.prepared[1:]
	held.store, held.next = c.down.w.stores.held[2], 1
	wrote, err = c.down.w.WriteSink(context.Background(), 2)
	require.NoError(t, err)
	require.True(t, wrote)
}

// Each invariant, broken by hand.
func TestTransactionsOutOfOrderAreFatal(t *testing.T) {
	fresh := func() *heldOutput { return &heldOutput{next: 4, due: 3} }
	require.Panics(t, func() { fresh().add(preparedEpoch{Transaction: operator.Transaction{Epoch: 5}}) }, "an epoch is left out")
	late := fresh()
	late.due = 4
	require.Panics(t, func() { late.add(preparedEpoch{Transaction: operator.Transaction{Epoch: 4}}) }, "its checkpoint is complete already")
	require.Panics(t, func() { fresh().named(4, false) }, "acknowledged and not prepared")
	good := fresh()
	good.add(preparedEpoch{Transaction: operator.Transaction{Epoch: 4, Handle: "x"}})
	require.Equal(t, []checkpoint.Transaction{{Epoch: 4, Handle: "x"}}, good.named(4, false))
}

// misnamed prepares other transactions than it was asked for.
type misnamed struct {
	operator.TransactionalStore
	answer operator.Transaction
}

func (misnamed) Write(context.Context, determinant.Incarnation, [][]byte) error { return nil }
func (m misnamed) Prepare(context.Context, determinant.Incarnation, determinant.Epoch) (operator.Transaction, error) {
	return m.answer, nil
}

// A store that says something else than it was asked ends the job: going on would lose output.
func TestAStoreThatPreparesSomethingElse(t *testing.T) {
	w := &operator.StoreWrite{Start: determinant.Cursor{Epoch: 3}, End: determinant.Cursor{Epoch: 4, Next: 2}, Records: [][]byte{nil}}
	for _, answer := range []operator.Transaction{{Epoch: 2, Handle: "x"}, {Epoch: 3}} {
		_, err := (&heldOutput{store: misnamed{answer: answer}}).write(context.Background(), 1, w)
		require.ErrorIs(t, err, operator.ErrPermanent)
	}
	ended, err := (&heldOutput{store: misnamed{answer: operator.Transaction{Epoch: 3, Handle: "x"}}}).write(context.Background(), 1, w)
	require.NoError(t, err)
	require.Equal(t, uint64(1), ended.records)
}

// The job is over when its last output can be seen, whoever says so to whichever leader.
func TestAJobEndsWhenItsLastTransactionsAreCommitted(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	o.job.Tasks[2].Transactional, o.job.Tasks[3].Transactional = true, true
	o.c.checkpointDone(7)
	o.commit()
	require.Empty(t, o.finished)
	require.Contains(t, o.waiting[len(o.waiting)-1], "task 2 has still to commit its last output")
	o.c.Report(Report{Shown: &Shown{Task: 2, Epoch: 7}})
	o.c.Report(Report{Shown: &Shown{Task: 3, Epoch: 6}})
	o.commit()
	require.Empty(t, o.finished)
	o.c.Report(Report{Shown: &Shown{Task: 3, Epoch: 7}})
	o.c.Report(Report{Shown: &Shown{Task: 3, Epoch: 5}})
	o.commit()
	require.Equal(t, []error{nil}, o.finished)
}

// A worker repeats to a new leader what it has made visible, the most of it.
func TestAWorkerRepeatsWhatItHasShown(t *testing.T) {
	c, _ := heldCouple(t)
	c.barrier(1)
	require.NoError(t, c.writeSinks())
	c.completes(1)
	c.down.w.report(Report{Shown: &Shown{Task: 3}})
	c.down.reports = nil
	c.down.w.Register()
	require.Equal(t, map[determinant.TaskID]determinant.Epoch{2: 1, 3: 1}, c.down.shownUpTo())
}

func heldRun(ctx context.Context, t *testing.T, v *valve, s *heldFiles, o LocalOptions, drive func(k *killer)) (Summary, error) {
	plan := drawnTo(t, v, func(sums operator.Stream[drawn]) {
		operator.ToTransactional(sums, "output", s, operator.WithCodec(operator.JSON[drawn]()))
	})
	return killRun(ctx, t, plan, v, s.dir, o, drive)
}

// Whatever is killed, the output of a transactional sink is that of one execution, and whole when the job is over.
func TestKillingsWithTransactions(t *testing.T) {
	for _, mode := range []determinant.Mode{determinant.ExactlyOnce, determinant.GlobalRollback} {
		for i, c := range killings {
			if mode == determinant.GlobalRollback && i%4 != 0 {
				continue // all of them come to the same there
			}
			t.Run(mode.String()+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				v, s := &valve{n: 4000}, newHeldFiles(filepath.Join(t.TempDir(), "out"))
				var calls atomic.Int64
				s.before = func(string, int) error {
					if calls.Add(1)%97 == 0 {
						return errors.New("the connection broke")
					}
					return nil
				}
				o := LocalOptions{CheckpointInterval: 20 * time.Millisecond, Mode: mode}
				sum, err := heldRun(context.Background(), t, v, s, o, func(k *killer) {
					c.drive(k)
					v.open(v.n)
				})
				require.NoError(t, err)
				require.Positive(t, sum.Kills)
				require.Equal(t, mode == determinant.GlobalRollback, sum.Rollbacks > 0)
				requireExact(t, s.dir, 8000)
				s.requireSettled(t)
			})
		}
	}
}

// A process that ends leaves transactions behind; the next one settles them.
func TestTransactionsAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	v, s := &valve{n: 6000}, newHeldFiles(filepath.Join(dir, "out"))
	o := LocalOptions{CheckpointInterval: 5 * time.Millisecond, StateDir: filepath.Join(dir, "state")}
	for range 4 {
		ctx, stop := context.WithCancel(context.Background())
		_, err := heldRun(ctx, t, v, s, o, func(k *killer) {
			k.moved = v.limit()
			k.advance(300)
			stop()
		})
		stop()
		require.ErrorIs(t, err, context.Canceled)
	}
	sum, err := heldRun(context.Background(), t, v, s, o, func(*killer) { v.open(v.n) })
	require.NoError(t, err)
	require.True(t, sum.Resumed)
	require.Zero(t, sum.Rollbacks)
	requireExact(t, s.dir, 12000)
	s.requireSettled(t)
}

// A job whose process ends between its last checkpoint and its last commit is over only when the next one has committed.
func TestTheLastCommitIsMadeUpFor(t *testing.T) {
	dir := t.TempDir()
	v, s := &valve{n: 200}, newHeldFiles(filepath.Join(dir, "out"))
	v.open(v.n)
	o := LocalOptions{StateDir: filepath.Join(dir, "state")}
	ctx, stop := context.WithCancel(context.Background())
	s.before = func(call string, _ int) error {
		if strings.HasPrefix(call, "commit") {
			stop()
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	_, err := heldRun(ctx, t, v, s, o, func(*killer) {})
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, countLines(t, s.dir))
	s.before = nil
	_, err = heldRun(context.Background(), t, v, s, o, func(*killer) {})
	require.NoError(t, err)
	requireExact(t, s.dir, 400)
	s.requireSettled(t)
}

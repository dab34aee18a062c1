package cluster

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

func epochMode(m determinant.Mode) standby.EpochMode {
	return standby.EpochMode{Mode: m, Depth: determinant.Full}
}

// A view follows the modes of the epochs since the last completed checkpoint.
func TestAViewKnowsWhatEpochsAreLike(t *testing.T) {
	job := small(t)
	v := NewView(job, nil, determinant.ExactlyOnce, 2)
	require.Equal(t, determinant.Depth(2), v.sharing())
	v.started(&checkpoint.Start{Epoch: 1, Mode: determinant.AtLeastOnce, Depth: determinant.Full})
	require.Equal(t, determinant.Full, v.sharing(), "the greatest counts: it may be what a recovery needs next")
	v.started(&checkpoint.Start{Epoch: 2, Mode: determinant.ExactlyOnce, Depth: 1})
	require.Equal(t, determinant.Full, v.sharing())
	require.Equal(t, standby.EpochMode{Mode: determinant.ExactlyOnce, Depth: 2}, v.Base)
	v.completed(completion(job, 2).Complete)
	require.Equal(t, standby.EpochMode{Mode: determinant.ExactlyOnce, Depth: 1}, v.Base)
	require.Empty(t, v.Opened)
	require.Equal(t, determinant.Depth(1), v.sharing())
}

// Where choices are made anew, a position names another record than before: what is to be set aside is known by its content.
func TestWhatIsSetAsideIsKnownByItsContentInANewHistory(t *testing.T) {
	known := func(v *View, id determinant.TaskID) (byRecord []bool) {
		for _, p := range v.asides(id) {
			byRecord = append(byRecord, p.ByRecord)
		}
		return byRecord
	}
	recover := func(collect bool, incs ...determinant.Incarnation) *standby.Decision {
		d := &standby.Decision{Tasks: placements(incs...), Collect: collect}
		for i := range d.Tasks {
			d.Tasks[i].Recovering = true
		}
		return d
	}
	v := NewView(small(t), nil, determinant.ExactlyOnce, determinant.Full)
	v.place(&standby.Decision{Collect: true, Tasks: placements(1, 1, 1, 1)})
	v.setAside(Aside{Task: 2, Incarnation: 1, Position: task.Position{Seq: 5}})
	v.setAside(Aside{Task: 3, Incarnation: 1})
	v.place(recover(true, 1, 1, 2, 2))
	require.Equal(t, []bool{false}, known(&v, 2), "it replays: positions stay")
	v.place(recover(false, 1, 1, 3, 2))
	require.Equal(t, []bool{true}, known(&v, 2))
	require.Equal(t, []bool{false}, known(&v, 3))

	v.setAside(Aside{Task: 2, Incarnation: 2})
	require.Equal(t, []bool{true, true}, known(&v, 2), "the life that named the position is of a former history")
	v.setAside(Aside{Task: 2, Incarnation: 3})
	require.Equal(t, []bool{true, true, false}, known(&v, 2))

	back := &standby.Decision{Generation: 1, Rollback: true, Collect: true, Tasks: placements(2, 2, 4, 3)}
	v.place(back)
	require.Equal(t, []bool{true, true, true}, known(&v, 2))
	require.Equal(t, []bool{true}, known(&v, 3))
	require.Empty(t, known(&v, 0))
	v.setAside(Aside{Task: 0, Source: true})
	v.place(recover(false, 3, 3, 5, 4))
	require.Equal(t, []bool{false}, known(&v, 0), "a source's records keep their positions")
}

func (o *office) modes() []determinant.Mode {
	m := o.c.Modes()
	return []determinant.Mode{m.Newest.Mode, m.Recovery.Mode, m.Wanted.Mode}
}

// A switch takes effect with the next checkpoint, which it brings about, and recovery is what the weakest epoch since the
// last completed one allows.
func TestASwitchTakesEffectWithTheNextCheckpoint(t *testing.T) {
	const eo, alo = determinant.ExactlyOnce, determinant.AtLeastOnce
	o := newOffice(t, CoordinatorOptions{})
	require.ErrorIs(t, o.c.SwitchMode(determinant.None, 0), ErrMode)
	require.Equal(t, []determinant.Mode{eo, eo, eo}, o.modes())
	require.NoError(t, o.c.SwitchMode(alo, 0))
	o.commit()
	require.Equal(t, []determinant.Mode{alo, alo, alo}, o.modes(), "it was started at once")
	require.Equal(t, []standby.EpochMode{epochMode(alo)}, o.c.View().Opened)

	o.fail(0, ErrKilled)
	d := o.lastDecision()
	require.False(t, d.Collect)
	require.False(t, d.Rollback)
	require.NoError(t, o.c.SwitchMode(eo, 0))
	o.commit()
	require.Equal(t, []determinant.Mode{alo, alo, eo}, o.modes(), "nothing starts while a task recovers")
	o.catchUp()
	o.commit()
	require.Equal(t, []determinant.Mode{eo, alo, eo}, o.modes())
	o.fail(1, ErrKilled)
	require.False(t, o.lastDecision().Collect, "the checkpoint behind which all is exactly-once is not complete")
	o.catchUp()
	o.commit()
	o.checkpoint(3)
	require.Equal(t, []determinant.Mode{eo, eo, eo}, o.modes())
	o.fail(0, ErrKilled)
	require.True(t, o.lastDecision().Collect)
}

func (o *office) lastDecision() *standby.Decision {
	for i := len(o.told) - 1; i >= 0; i-- {
		if d := o.told[i].Decision; d != nil {
			return d
		}
	}
	return nil
}

// The offsets of a log cannot run out quietly.
func TestAJobWhoseLogOffsetsAreUsedUpRollsBack(t *testing.T) {
	c := coupleOf(t, determinant.AtLeastOnce)
	e := completion(c.up.w.job, 1)
	e.Complete.Tasks[0].Log = math.MaxUint64 - 5
	c.up.apply(e)
	c.up.apply(c.next(recovering(0)))
	require.Len(t, c.up.rollbacks(), 1)
	require.Nil(t, c.up.w.Task(0))
}

// changing has both workers hear that the epoch behind checkpoint e is of another mode.
func (c *couple) changing(e determinant.Epoch, m determinant.Mode) {
	start := Entry{Start: &checkpoint.Start{Epoch: e, Mode: m, Depth: determinant.Full}}
	c.up.apply(start)
	c.down.apply(start)
	c.last.Mode = max(c.last.Mode, m)
	c.last.Collect = c.last.Mode.Logs()
}

// How a task recovers does not depend on the epoch that it, or a consumer, is in: one epoch of at-least-once since the last
// completed checkpoint is enough. The new life logs where the former has not, its consumers adopt its numbering, and a sink
// goes on behind what it shows.
func TestAFailureDuringAChangeIsRecoveredByTheWeakestMode(t *testing.T) {
	c := newCouple(t)
	c.subscribe()
	c.flow()
	require.Positive(t, c.shown())
	c.changing(1, determinant.AtLeastOnce) // no barrier has come yet: all tasks are in epoch 1, which is exactly-once
	c.decide(recovering(0))
	require.NotNil(t, c.up.w.Task(0))
	log := c.up.w.Logs().Log(0)
	require.True(t, log.Base().Beyond(0))
	require.Equal(t, log.Base().Bytes(), uint64(0))
	m := c.down.w.Write(1, nil)
	require.NotNil(t, m)
	require.NotEmpty(t, m.Subscriptions)
	for _, s := range m.Subscriptions {
		require.True(t, s.Adopt, "%+v", s)
	}
	c.up.w.Receive(m)
	c.flow()
	require.Positive(t, log.Bytes(), "epoch 1 is exactly-once as before")
	require.Empty(t, append(c.up.rollbacks(), c.down.rollbacks()...))
	again := slices.ContainsFunc(c.down.reports, func(r Report) bool { return r.Failed != nil && errors.Is(r.Failed.Err, task.ErrReopened) })
	require.True(t, again, "what the former life had sent is sent again, to tasks that had come to the end")

	sink := c.down.store[2]
	require.Nil(t, sink.fence.Restart)
	c.decide(recovering(2))
	require.NotNil(t, sink.fence.Restart)
	require.Empty(t, append(c.up.rollbacks(), c.down.rollbacks()...))
}

// A life is recovered with determinants or without: what one decision began the next one cannot change.
func TestARecoveryDoesNotChangeItsKind(t *testing.T) {
	c := newCouple(t)
	c.up.apply(c.next(recovering(0))) // it waits for the answer of worker 2
	require.Nil(t, c.up.w.Task(0))
	defer func() { require.Contains(t, fmt.Sprint(recover()), "assertion failed") }()
	c.up.apply(c.next(func(d *standby.Decision) { d.Mode, d.Collect = determinant.AtLeastOnce, false }))
}

// A cluster that is started in another mode than before goes on in the one that it was in and then switches; what is asked
// of the running job afterwards outlives the restart of a coordinator.
func TestAClusterGoesOnInAnotherMode(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := newCell(t, 1, 2, 4000)
	is := func(mode determinant.Mode) func(s *Status) bool {
		return func(s *Status) bool { return s.Mode == mode.String() && s.ModeWanted == mode.String() }
	}
	c.start()
	c.valve.open(500)
	c.await("output", written(500))
	left, err := c.client.Stop(t.Context())
	require.NoError(t, err)
	require.Equal(t, JobStopping, left)
	c.stop()

	c.mode = determinant.AtLeastOnce
	c.start()
	c.await("the mode of the new start", is(determinant.AtLeastOnce))
	c.valve.open(1000)
	require.NoError(t, c.client.SwitchMode(t.Context(), determinant.ExactlyOnce))
	c.await("the mode that was asked for", is(determinant.ExactlyOnce))
	c.coords[0].kill()
	c.startCoordinator(0)
	c.await("the coordinator", func(s *Status) bool { return s.Checkpoint.Committed > 0 && is(determinant.ExactlyOnce)(s) })
	c.valve.open(c.valve.n)
	s := c.finished()
	require.Equal(t, determinant.ExactlyOnce.String(), s.ModeWanted)
	requireExact(t, c.out, 8000)
	c.stop()
}

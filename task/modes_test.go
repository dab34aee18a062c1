package task

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

const (
	exactly = determinant.ExactlyOnce
	atLeast = determinant.AtLeastOnce
	rolling = determinant.GlobalRollback
)

// opens is a barrier behind which the mode is m.
func opens(e determinant.Epoch, m determinant.Mode) inflightlog.Element {
	b := barrier(e)
	b.Mode = m
	return b
}

// Section 10: the mode travels in the barrier. Epochs of other modes leave no trace in the log, which goes on behind them.
func TestWhatIsLoggedFollowsTheBarriers(t *testing.T) {
	r := newRig(t, drawingVertex(t, 1))
	r.feed(0, record(2), opens(1, atLeast), record(2), record(1), opens(2, rolling), record(2), opens(3, exactly), record(1), opens(4, exactly))
	r.run()
	var marks []determinant.Epoch
	var between []string
	for _, d := range r.determinants() {
		if d.Kind == determinant.KindMark {
			marks = append(marks, d.Epoch)
		} else {
			between = append(between, d.Kind.String())
		}
	}
	require.Equal(t, []determinant.Epoch{2, 4, 5}, marks, "the end of a logged epoch is marked, and the start of one")
	// Each Input ends at a barrier: two are logged, with the seed of epoch 1 and the time of epoch 4.
	require.Equal(t, []string{"input", "random", "input", "time"}, between)
	saved := r.host.saved
	require.Equal(t, saved[0].meta.Log, saved[1].meta.Log)
	require.Less(t, saved[1].meta.Log, saved[2].meta.Log, "the mark of epoch 4")
	require.Less(t, saved[2].meta.Log, saved[3].meta.Log)
	require.Equal(t, r.log.End(), saved[3].meta.Log)
	require.Equal(t, []determinant.Mode{atLeast, rolling, exactly, exactly}, []determinant.Mode{
		saved[0].meta.Mode, saved[1].meta.Mode, saved[2].meta.Mode, saved[3].meta.Mode,
	})
}

// From a checkpoint on behind which all is logged, a successor repeats every choice, whatever came before.
func TestATaskReplaysFromACheckpointBehindWhichAllIsLogged(t *testing.T) {
	v := drawingVertex(t, 1)
	first := newRig(t, v)
	first.feed(0, record(2), opens(1, atLeast), record(2), opens(2, exactly))
	first.run()
	behind := []inflightlog.Element{record(2), record(1), opens(3, exactly), record(4)}
	first.feed(0, behind...)
	first.run()
	saved := first.host.saved[1]
	log, err := first.log.Read(nil, saved.meta.Log, first.log.End())
	require.NoError(t, err)

	second := newRig(t, v, replaying(log), restored(saved))
	second.now = 99_000
	second.feed(0, behind...)
	second.run()
	require.False(t, second.task.Replaying())
	require.Equal(t, first.shown(0)[len(first.shown(0))-4:], second.shown(0))
	require.Equal(t, log, second.logBytes())
}

// A source's own barriers do the same as those that arrive, and skips as barriers do.
func TestASkipOpensAnEpochOfAnotherModeToo(t *testing.T) {
	r := newRig(t, drawingVertex(t, 1))
	s := skip(1)
	s.Mode = atLeast
	r.feed(0, record(2), s)
	r.run()
	end := r.log.End()
	r.feed(0, record(2), record(1))
	r.run()
	require.Equal(t, end, r.log.End())
	require.Empty(t, r.host.saved)
}

// What is sent in an epoch of a mode that keeps nothing is dropped once it is sent, and not before; what was kept before
// stays until the checkpoint.
func TestWhatIsKeptFollowsTheBarriers(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass))
	out := r.task.Outputs()[0]
	require.NoError(t, out.Subscribe(inflightlog.Origin))
	drain := func() {
		for {
			b, err := out.Next(-1)
			require.NoError(t, err)
			if b == nil {
				return
			}
		}
	}
	kept := func() int64 {
		memory, _ := out.Retained()
		return memory
	}
	r.feed(0, record(1), opens(1, rolling))
	r.run()
	drain()
	exact := kept()
	require.Positive(t, exact)
	r.feed(0, record(2), record(3))
	r.run()
	require.Greater(t, kept(), exact)
	out.Truncate(1)
	require.Positive(t, kept(), "nobody has it yet")
	drain()
	require.Zero(t, kept())
	r.feed(0, opens(2, atLeast), record(4))
	r.run()
	drain()
	require.Positive(t, kept())
}

// All barriers of one checkpoint say the same.
func TestBarriersThatContradictEachOtherAreAnAssertion(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass))
	r.feed(0, opens(1, atLeast))
	r.feed(1, opens(1, exactly))
	require.ErrorContains(t, r.try(), "assertion failed")
}

// No epoch of another mode begins while a task recovers, so no replay runs into one.
func TestAReplayThatRunsIntoAnUnloggedEpochIsAnAssertion(t *testing.T) {
	v := drawingVertex(t, 1)
	first := newRig(t, v)
	first.feed(0, record(2), opens(1, atLeast))
	first.run()
	second := newRig(t, v, replaying(first.logBytes()))
	second.feed(0, record(2), opens(1, atLeast))
	require.ErrorContains(t, second.try(), "assertion failed")
}

// A life without its predecessor's determinants logs where no former life can have.
func TestALifeWithoutDeterminantsBeginsAnotherHistory(t *testing.T) {
	v := drawingVertex(t, 1)
	first := newRig(t, v)
	first.feed(0, record(2), opens(1, exactly))
	first.run()
	saved := first.host.saved[0]
	first.feed(0, record(1), opens(2, atLeast))
	first.run()

	anew, ok := saved.meta.Log.Anew(1)
	require.True(t, ok)
	for _, next := range []determinant.Mode{exactly, atLeast} {
		cfg := first.cfg
		cfg.Incarnation, cfg.Meta, cfg.Mode, cfg.Depth, cfg.Load = 2, saved.meta, next, saved.meta.Depth, saved.state.load
		cfg.Log = causal.NewLog(anew)
		life, err := New(cfg)
		require.NoError(t, err)
		require.Equal(t, anew, life.Offset())
		elements := []inflightlog.Element{record(1), opens(2, exactly), record(2)}
		for _, b := range batchesOf(t, saved.meta.Inputs[0], elements, never) {
			life.Deliver(0, b, false)
		}
		for progress := true; progress; {
			progress, err = life.Step()
			require.NoError(t, err)
		}
		require.Greater(t, cfg.Log.End(), anew)
		require.Equal(t, anew, cfg.Log.Base())
		require.Equal(t, anew, cfg.Log.End()-determinant.LogOffset(cfg.Log.Bytes()))
	}
}

// In epochs that others have passed because of a former life, no backlog holds the task: they may wait for its barriers.
func TestATaskThatRepeatsEpochsIsNotHeldBack(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass), atLeastOnce, func(c *Config) { c.MaxUnsent, c.Passed, c.MaxElements = 1, 2, 1 })
	require.NoError(t, r.task.Outputs()[0].Subscribe(inflightlog.Origin))
	for e := range determinant.Epoch(3) {
		r.feed(0, record(1), record(2), record(3), opens(e+1, atLeast))
	}
	r.run()
	require.True(t, slices.Contains(r.shown(0), "barrier 2"))
	require.False(t, slices.Contains(r.shown(0), "barrier 3"), "in epoch 3 it waits like everybody")
}

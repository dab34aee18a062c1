package task

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// A task does not wait for the barrier of a checkpoint that was abandoned: it skips, takes in the next epoch what the slow input still
// has of this one, and drops the barrier that comes then. The next checkpoint is as exact as any.
func TestAnAbandonedCheckpointIsNotWaitedFor(t *testing.T) {
	for name, late := range map[string]inflightlog.Element{"barrier": barrier(1), "skip": skip(1)} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, mapVertex(t, 2, pass))
			r.feed(0, record(1), barrier(1), record(2))
			r.run()
			require.Equal(t, []string{"1"}, r.shown(0), "it waits")
			r.task.Abandoned(1)
			r.run()
			require.Equal(t, []string{"1", "skip 1", "2"}, r.shown(0))
			require.Empty(t, r.host.saved)

			r.feed(0, barrier(2), record(3))
			r.feed(1, record(11), late, record(12))
			r.run()
			require.Equal(t, []string{"1", "skip 1", "2", "11", "12"}, r.shown(0), "it waits for barrier 2")
			r.feed(1, barrier(2), record(13))
			r.run()
			require.ElementsMatch(t, []string{"1", "skip 1", "2", "11", "12", "barrier 2", "3", "13"}, r.shown(0))
			require.Equal(t, []determinant.Cursor{{Next: 4, Epoch: 3}, {Next: 4, Epoch: 3}}, r.host.saved[0].meta.Inputs)

			again := newRig(t, mapVertex(t, 2, pass), replaying(r.logBytes()))
			again.feed(1, record(11), late, record(12), barrier(2), record(13))
			again.feed(0, record(1), barrier(1), record(2), barrier(2), record(3))
			again.run()
			require.Equal(t, r.output(), again.output())
			require.Equal(t, r.logBytes(), again.logBytes())
			require.Equal(t, r.host.saved[0].meta.Inputs, again.host.saved[0].meta.Inputs)
		})
	}
}

// A skip is not waited for either, whether the task has been told or not: who is upstream of another input may wait for this task before
// it can end the epoch. A barrier that came before it is let go.
func TestASkipWaitsForNothing(t *testing.T) {
	r := newRig(t, mapVertex(t, 3, pass))
	r.feed(0, barrier(1), record(2))
	r.feed(1, record(11), skip(1), record(12))
	r.run()
	require.ElementsMatch(t, []string{"11", "skip 1", "2", "12"}, r.shown(0))
	r.feed(2, barrier(1), barrier(2))
	r.feed(0, barrier(2))
	r.run()
	require.Empty(t, r.host.saved)
	r.feed(1, barrier(2))
	r.run()
	require.Len(t, r.host.saved, 1)
}

// Only the checkpoint of the epoch that the task is in is skipped, once its barrier has come by some input; and only where the next
// epoch is like this one, since elements of both are taken in it.
func TestOtherCheckpointsAreWaitedFor(t *testing.T) {
	switching, deeper := barrier(1), barrier(1)
	switching.Mode, deeper.Depth = determinant.AtLeastOnce, 1
	for name, c := range map[string]struct {
		change    []func(*Config)
		abandoned determinant.Epoch
		first     inflightlog.Element
	}{
		"an earlier checkpoint":    {nil, 0, barrier(1)},
		"no barrier yet":           {nil, 1, record(2)},
		"another mode":             {nil, 1, switching},
		"another depth":            {nil, 1, deeper},
		"at least once":            {[]func(*Config){atLeastOnce}, 1, loose(1)},
		"a skip into another mode": {nil, 1, func() inflightlog.Element { e := skip(1); e.Mode = determinant.AtLeastOnce; return e }()},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, mapVertex(t, 2, pass), c.change...)
			r.feed(0, c.first)
			r.task.Abandoned(c.abandoned)
			r.run()
			require.Equal(t, determinant.Epoch(1), r.task.epoch)
		})
	}
}

// A task that hears of two at once, since it was busy, waits for neither.
func TestTwoAbandonedCheckpointsAreNotWaitedFor(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass))
	r.task.Abandoned(2)
	r.task.Abandoned(1)
	r.feed(0, barrier(1), barrier(2), record(3))
	r.run()
	require.Equal(t, []string{"skip 1", "skip 2", "3"}, r.shown(0))
}

// A skip that the task cannot have chosen is a divergence.
func TestASkipWithoutABarrierIsADivergence(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass))
	r.feed(0, barrier(1))
	r.task.Abandoned(1)
	r.run()
	log := r.logBytes()
	_, ends := printed(t, 0, log)
	again := newRig(t, mapVertex(t, 2, pass), replaying(log[ends[0]:])) // without the header of the input with the barrier
	require.ErrorContains(t, again.try(), "skip 1")
}

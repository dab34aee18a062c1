package task

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

func atLeastOnce(c *Config) { c.Mode = determinant.AtLeastOnce }

// loose is a barrier between two epochs of at-least-once.
func loose(e determinant.Epoch) inflightlog.Element {
	b := barrier(e)
	b.Mode = determinant.AtLeastOnce
	return b
}

// restart delivers what a new life of the producer of input i sends, from where its last checkpoint left the channel.
func (r *rig) restart(i int, from determinant.Cursor, elements ...inflightlog.Element) {
	for k, b := range batchesOf(r, from, elements, never) {
		r.ends[i] = b.End
		r.task.Deliver(i, b, k == 0)
	}
}

func TestInOtherModesNothingIsLogged(t *testing.T) {
	for _, mode := range []determinant.Mode{determinant.AtLeastOnce, determinant.GlobalRollback, determinant.None} {
		r := newRig(t, curiousVertex(t, 1), func(c *Config) { c.Mode = mode })
		b := barrier(1)
		b.Mode = mode
		r.feed(0, record(15), record(28), b)
		r.run()
		require.Zero(t, r.log.End())
		require.NotEmpty(t, r.shown(0))
		require.Equal(t, mode, r.host.saved[0].meta.Mode)
		require.Equal(t, determinant.LogOffset(0), r.host.saved[0].meta.Log)
	}
}

// Section 10: in at-least-once mode consumers adopt the numbering of a producer's new life.
func TestTheNumberingOfANewLifeIsAdopted(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass), atLeastOnce)
	r.feed(0, record(1), record(2), record(3))
	r.restart(0, inflightlog.Origin, record(1), record(22))
	r.feed(0, record(4), loose(1))
	r.run()
	require.Equal(t, []string{"1", "2", "3", "1", "22", "4", "barrier 1"}, r.shown(0))
	require.Equal(t, determinant.Seq(4), r.task.Taken(0))
	require.Equal(t, determinant.Cursor{Next: 4, Epoch: 2}, r.host.saved[0].meta.Inputs[0])
}

// Section 10: and they drop barriers that they have passed; otherwise a checkpoint could pair a late state with an early
// offset and lose records.
func TestABarrierThatTheTaskHasPassedIsDropped(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass), atLeastOnce)
	r.feed(0, record(1), loose(1))
	r.feed(0, record(2))
	r.feed(1, loose(1))
	r.run()
	require.Len(t, r.host.saved, 1)
	r.restart(0, inflightlog.Origin, record(1), loose(1))
	r.restart(0, determinant.Cursor{Next: 2, Epoch: 2}, record(2), loose(2))
	r.run()
	require.Len(t, r.host.saved, 1)
	require.Equal(t, []string{"1", "barrier 1", "2", "1", "2"}, r.shown(0))
	r.feed(1, loose(2))
	r.run()
	require.Len(t, r.host.saved, 2)
}

// Only a new life of the producer repeats barriers; and it repeats all of them, in order.
func TestBarriersRiseByOneOnEachChannel(t *testing.T) {
	for name, next := range map[string]func(r *rig){
		"the same life repeats one": func(r *rig) { r.ends[0] = determinant.Cursor{Next: 3, Epoch: 2}; r.feed(0, barrier(2)) },
		"one is left out":           func(r *rig) { r.ends[0] = determinant.Cursor{Next: 3, Epoch: 4}; r.feed(0, barrier(4)) },
		"a new life leaves one out": func(r *rig) {
			r.restart(0, inflightlog.Origin, barrier(1))
			r.ends[0] = determinant.Cursor{Next: 1, Epoch: 3}
			r.feed(0, barrier(3))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, mapVertex(t, 1, pass))
			r.feed(0, barrier(1), barrier(2))
			next(r)
			require.ErrorContains(t, r.try(), "assertion failed")
		})
	}
}

// The end that a restarted producer takes back counts again when it comes again.
func TestAnEndThatIsRepeatedCountsOnce(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass), atLeastOnce)
	r.feed(0, record(1), control(inflightlog.End))
	r.run()
	r.restart(0, inflightlog.Origin, record(1), record(2), control(inflightlog.End))
	r.run()
	require.False(t, r.task.Ended())
	require.Equal(t, []string{"1", "1", "2"}, r.shown(0))
	r.feed(1, control(inflightlog.End))
	r.run()
	require.True(t, r.task.Ended())
}

// A task that has flushed cannot take back its own end: it starts again itself.
func TestATaskThatHasEndedStartsAgainWhenAProducerDoes(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass), atLeastOnce)
	r.feed(0, record(1), control(inflightlog.End))
	r.run()
	require.True(t, r.task.Ended())
	r.restart(0, inflightlog.Origin, record(1))
	require.ErrorIs(t, r.try(), ErrReopened)
}

func TestAnElementAfterTheEndIsAnAssertionInExactlyOnce(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass))
	r.feed(0, control(inflightlog.End), record(1))
	require.ErrorContains(t, r.try(), "assertion failed")
}

// A checkpoint may come before a restarted producer says again what it had said since the last one: then it has not said it. A consumer
// that starts from that checkpoint takes what comes after it.
func TestWhatIsNotYetSaidAgainIsNotInTheCheckpoint(t *testing.T) {
	vertex := mapVertex(t, 2, pass)
	r := newRig(t, vertex, atLeastOnce)
	r.feed(0, record(1), watermark(7), control(inflightlog.Idle), loose(1), control(inflightlog.Active), record(2), control(inflightlog.Idle))
	r.feed(1, loose(1))
	r.run()
	r.feed(0, control(inflightlog.Active), watermark(30), control(inflightlog.End))
	r.run()
	first := r.host.saved[0].meta
	require.Equal(t, []bool{true, false}, first.InputIdle)
	require.Equal(t, int64(7), first.InputWatermarks[0])

	r.restart(0, first.Inputs[0], loose(2))
	r.feed(1, loose(2))
	r.run()
	second := r.host.saved[1].meta
	require.Equal(t, []bool{false, false}, second.InputEnded)
	require.Equal(t, []bool{true, false}, second.InputIdle)
	require.Equal(t, int64(7), second.InputWatermarks[0])

	r = newRig(t, vertex, atLeastOnce, func(c *Config) { c.Meta = second })
	r.restart(0, second.Inputs[0], control(inflightlog.Active), record(2), control(inflightlog.End))
	r.run()
	require.Equal(t, []string{"2"}, r.shown(0))
}

// What a producer has said before its checkpoint, it does not say again.
func TestWhatWasSaidBeforeTheCheckpointHoldsInANewLife(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass), atLeastOnce)
	r.feed(0, record(1), control(inflightlog.End), loose(1))
	r.feed(1, loose(1), record(2))
	r.run()
	r.restart(0, r.host.saved[0].meta.Inputs[0], loose(2))
	r.feed(1, control(inflightlog.End), loose(2))
	r.run()
	require.True(t, r.task.Ended())
	require.Equal(t, []bool{true, true}, r.host.saved[1].meta.InputEnded)
}

// A task that has flushed does not take part in a checkpoint with a producer that has started again: it starts again itself, before that.
func TestATaskThatHasEndedTakesNoBarrierOfAProducerThatHasNot(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass), atLeastOnce)
	r.feed(0, record(1), control(inflightlog.End))
	r.run()
	r.restart(0, inflightlog.Origin, loose(1))
	require.ErrorIs(t, r.try(), ErrReopened)
	require.Empty(t, r.host.saved)
}

// What held at earlier barriers than that of the last checkpoint is forgotten.
func TestStandingsAreForgotten(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass), atLeastOnce)
	for e := determinant.Epoch(1); e <= 20; e++ {
		r.feed(0, control(inflightlog.Idle), loose(2*e-1), control(inflightlog.Active), loose(2*e))
		r.run()
		r.task.Completed(2*e - 1)
		require.LessOrEqual(t, len(r.task.in[0].standings), 4)
	}
	r.restart(0, r.host.saved[38].meta.Inputs[0], loose(40))
	r.run()
	require.True(t, r.task.in[0].idle)
}

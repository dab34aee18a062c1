package task

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
)

// drawingVertex emits a number of the generator for an even record, and the time for an odd one.
func drawingVertex(t tester, channels int) vertex {
	return mapVertex(t, channels, func(ctx operator.Context, v uint64, emit func(uint64)) error {
		if v%2 == 0 {
			emit(ctx.Rand().Uint64())
		} else {
			emit(uint64(ctx.Now().UnixMilli()))
		}
		return nil
	})
}

// Section 3: the swap from replay to recording happens at one line, possibly in the middle of a step.
func TestTheTaskRecordsFromTheMiddleOfAStepOn(t *testing.T) {
	v := drawingVertex(t, 1)
	elements := []inflightlog.Element{record(2), record(4), record(1), record(3), barrier(1)}
	first := newRig(t, v)
	first.feed(0, elements...)
	first.run()
	_, ends := first.logged() // input, random, time, mark
	require.Len(t, ends, 4)

	second := newRig(t, v, replaying(first.logBytes()[:ends[1]]))
	second.now = 5000
	require.True(t, second.task.Replaying())
	second.feed(0, elements...)
	second.run()
	require.False(t, second.task.Replaying())
	require.Equal(t, 1, second.host.replayed)
	shown := second.shown(0)
	require.Equal(t, first.shown(0)[:2], shown[:2], "the generator's seed was in the log")
	require.Equal(t, []string{"5000", "5000", "barrier 1"}, shown[2:], "the time was not")
	require.Equal(t, first.logBytes()[:ends[1]], second.logBytes()[:ends[1]])
	require.Equal(t, first.kinds(), second.kinds())
}

// A task that replays makes no choice: what is due, has arrived, or has completed waits until the log ends.
func TestAReplayingTaskAsksNobody(t *testing.T) {
	v := drawingVertex(t, 2)
	first := newRig(t, v)
	first.feed(0, record(1))
	first.run()
	first.feed(1, record(2))
	first.run()
	second := newRig(t, v, replaying(first.logBytes()), func(c *Config) {
		c.Clock = func() int64 { t.Fatal("the clock was read"); return 0 }
		c.Entropy = func() uint64 { t.Fatal("a seed was drawn"); return 0 }
	})
	second.feed(1, record(2)) // arrives first, but was taken second
	second.run()
	require.Empty(t, second.shown(0))
	second.feed(0, record(1))
	second.run()
	require.Equal(t, first.shown(0), second.shown(0))
}

// An Input is replayed element by element: waiting for all of it would deadlock on credit.
func TestAReplayedInputIsTakenAsItArrives(t *testing.T) {
	v := mapVertex(t, 1, pass)
	first := newRig(t, v)
	first.feed(0, record(1), record(2), record(3))
	first.run()
	second := newRig(t, v, replaying(first.logBytes()))
	second.feed(0, record(1))
	second.run()
	require.Equal(t, []string{"1"}, second.shown(0))
	require.Equal(t, determinant.Seq(1), second.host.taken[0], "the producer is told at once")
	second.feed(0, record(2), record(3))
	second.run()
	require.Equal(t, []string{"1", "2", "3"}, second.shown(0))
}

// The orphan rule: no new choice while a consumer expects more than was produced.
func TestTheOrphanRuleFiresOnlyForANewChoice(t *testing.T) {
	v := drawingVertex(t, 1)
	first := newRig(t, v)
	first.feed(0, record(1))
	first.run()
	first.feed(0, record(2))
	first.run()
	position := allOf(t, first.task.Outputs()[0], inflightlog.Origin)
	seen := position[len(position)-1].End // the consumer has both records
	_, ends := first.logged()             // input, time, input, random
	require.Len(t, ends, 4)

	life := func(end determinant.LogOffset) *rig {
		r := newRig(t, v, replaying(first.logBytes()[:end]))
		require.NoError(t, r.task.Outputs()[0].Subscribe(seen))
		r.feed(0, record(1))
		return r
	}
	t.Run("not while it replays", func(t *testing.T) {
		r := life(ends[3])
		require.True(t, r.task.Ahead())
		r.run()
		require.True(t, r.task.Ahead())
		r.feed(0, record(2))
		r.run()
		require.False(t, r.task.Ahead())
		r.feed(0, record(3))
		r.run()
		require.EqualValues(t, 3, r.task.Records())
	})
	t.Run("not before there is something to choose", func(t *testing.T) {
		r := life(ends[1])
		r.run()
		require.True(t, r.task.Ahead())
		r.feed(0, record(2))
		require.ErrorIs(t, r.try(), ErrOrphan)
	})
	t.Run("in the middle of a step", func(t *testing.T) {
		r := life(ends[2])
		r.run()
		r.feed(0, record(2))
		require.ErrorIs(t, r.try(), ErrOrphan)
		require.Len(t, r.kinds(), 3, "no choice was recorded")
	})
	t.Run("not in a mode without determinants", func(t *testing.T) {
		r := newRig(t, v, func(c *Config) { c.Mode = determinant.AtLeastOnce })
		require.NoError(t, r.task.Outputs()[0].Subscribe(seen))
		r.feed(0, record(1))
		r.run()
		require.EqualValues(t, 1, r.task.Records())
	})
}

// Belts: a consumer's checksum finds a task that makes other output from the same log.
func TestAnotherOutputAtTheSamePositionIsAMismatch(t *testing.T) {
	first := newRig(t, mapVertex(t, 1, pass))
	first.feed(0, record(1))
	first.run()
	seen := allOf(t, first.task.Outputs()[0], inflightlog.Origin)[0].End
	second := newRig(t, mapVertex(t, 1, func(_ operator.Context, v uint64, emit func(uint64)) error {
		emit(v + 1)
		return nil
	}), replaying(first.logBytes()))
	out := second.task.Outputs()[0]
	require.NoError(t, out.Subscribe(seen))
	second.feed(0, record(1))
	second.run()
	_, err := out.Next(-1)
	require.ErrorIs(t, err, inflightlog.ErrMismatch)
}

// logOf encodes determinants as a log.
func logOf(all ...determinant.Determinant) (log []byte) {
	var enc determinant.Encoder
	for i := range all {
		log = enc.Append(log, &all[i])
	}
	return log
}

// A replayed choice that does not fit is a typed error that says where and after what.
func TestADivergenceNamesTaskEpochAndTheLastSteps(t *testing.T) {
	input := determinant.Determinant{Kind: determinant.KindInput, N: 1}
	mark := determinant.Determinant{Kind: determinant.KindMark, Epoch: 2}
	clock := determinant.Determinant{Kind: determinant.KindTime, Time: 5}
	random := determinant.Determinant{Kind: determinant.KindRandom, Seed: 5}
	split := determinant.Determinant{Kind: determinant.KindSplit, Bytes: []byte("s")}
	other := input
	other.Channel = 7
	for _, c := range []struct {
		name     string
		log      []determinant.Determinant
		expected string
		got      string
		last     int
	}{
		{"another kind within a step", []determinant.Determinant{input, mark, input, random}, random.String(), "time", 3},
		{"a choice where a step should begin", []determinant.Determinant{input, mark, clock}, clock.String(), "a new step", 2},
		{"an unknown channel", []determinant.Determinant{input, mark, other}, other.String(), "input channel 7, 1 elements", 2},
		{"a step of a source", []determinant.Determinant{input, mark, split}, split.String(), "a Split step in a task without source", 2},
		{"no mark where an epoch ends", []determinant.Determinant{input, input, clock}, input.String(), "mark epoch=2", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, clockVertex(t, 1), replaying(logOf(c.log...)))
			r.feed(0, barrier(1))
			r.feed(0, record(1))
			err := r.try()
			require.ErrorIs(t, err, causal.ErrDivergence)
			var d *causal.Divergence
			require.ErrorAs(t, err, &d)
			require.Equal(t, r.cfg.ID, d.Task)
			require.Equal(t, "f[0]", d.Vertex)
			if c.last > 1 {
				require.Equal(t, determinant.Epoch(2), d.Epoch)
			} else {
				require.Equal(t, determinant.Epoch(1), d.Epoch)
			}
			require.Contains(t, d.Got, c.got)
			require.Equal(t, c.expected, d.Expected)
			require.Len(t, d.Last, c.last, "%v", d)
		})
	}
}

// callingVertex calls the outside with the record as the request.
func callingVertex(t tester, change uint64) vertex {
	return mapVertex(t, 1, func(ctx operator.Context, v uint64, emit func(uint64)) error {
		answer, err := ctx.Call([]byte{byte(v + change)}, askOutside)
		if err != nil {
			return err
		}
		emit(uint64(answer[0])<<8 + uint64(answer[7]))
		return nil
	})
}

func TestACallIsAnsweredFromTheLog(t *testing.T) {
	first := newRig(t, callingVertex(t, 0))
	first.feed(0, record(1), record(2))
	first.run()
	before := world
	second := newRig(t, callingVertex(t, 0), replaying(first.logBytes()))
	second.feed(0, record(1), record(2))
	second.run()
	require.Equal(t, before, world, "nobody outside was asked again")
	require.Equal(t, first.shown(0), second.shown(0))
}

func TestACallWithAnotherRequestIsADivergence(t *testing.T) {
	first := newRig(t, callingVertex(t, 0))
	first.feed(0, record(1), record(2))
	first.run()
	second := newRig(t, callingVertex(t, 1), replaying(first.logBytes()))
	second.feed(0, record(1), record(2))
	var d *causal.Divergence
	require.ErrorAs(t, second.try(), &d)
	require.Contains(t, d.Got, "request hash")
	require.NotEmpty(t, d.Last)
}

// An error of a synchronous call is an answer like any other.
func TestTheErrorOfACallIsReplayed(t *testing.T) {
	fails := true
	v := mapVertex(t, 1, func(ctx operator.Context, v uint64, emit func(uint64)) error {
		_, err := ctx.Call([]byte{1}, func(context.Context, []byte) ([]byte, error) {
			if fails {
				return nil, errors.New("busy")
			}
			return []byte{1}, nil
		})
		if err != nil {
			emit(uint64(len(err.Error())))
		}
		return nil
	})
	first := newRig(t, v)
	first.feed(0, record(1))
	first.run()
	fails = false
	second := newRig(t, v, replaying(first.logBytes()))
	second.feed(0, record(1))
	second.run()
	require.Equal(t, []string{"4"}, first.shown(0))
	require.Equal(t, []string{"4"}, second.shown(0))
}

// Section 3: outstanding requests are state. A replay issues none; what is still outstanding when the log ends is issued then.
func TestOutstandingCallsAreMadeAgainAfterTheReplay(t *testing.T) {
	v := askingVertex(t, 1)
	first := newRig(t, v)
	first.feed(0, record(1), record(2), record(3))
	first.run()
	first.calls.complete(1)
	first.run()
	first.calls.complete(1)
	first.run()
	require.Len(t, first.shown(0), 1, "two results went out, on two channels")

	second := newRig(t, v, replaying(first.logBytes()))
	require.Zero(t, second.calls.started)
	second.feed(0, record(1), record(2), record(3))
	for second.task.Replaying() {
		require.Zero(t, second.calls.started)
		_, err := second.task.Step()
		require.NoError(t, err)
	}
	second.run()
	require.Equal(t, first.output(), second.output())
	require.Equal(t, 1, second.calls.started, "the first was never answered")
	second.calls.complete(0)
	second.run()
	require.Len(t, append(second.shown(0), second.shown(1)...), 3)
}

func TestTheOrderOfCompletionsIsRecorded(t *testing.T) {
	v := askingVertex(t, 1)
	first := newRig(t, v)
	first.feed(0, record(1), record(2), record(3))
	first.run()
	for _, k := range []int{2, 0, 0} {
		first.calls.complete(k)
		first.run()
	}
	var order []uint32
	for _, d := range first.determinants() {
		if d.Kind == determinant.KindAsync {
			order = append(order, d.Pending)
		}
	}
	require.Equal(t, []uint32{2, 0, 0}, order)
}

func TestACompletionThatFitsNoCallIsADivergence(t *testing.T) {
	first := newRig(t, askingVertex(t, 1))
	first.feed(0, record(1))
	first.run()
	first.calls.complete(0)
	first.run()
	second := newRig(t, askingVertex(t, 1), replaying(first.logBytes()))
	second.feed(0, record(9))
	require.ErrorIs(t, second.try(), causal.ErrDivergence)
}

// A full AsyncMap takes no more records, but completions and barriers.
func TestAFullChainTakesNoRecords(t *testing.T) {
	r := newRig(t, askingVertex(t, 1))
	r.feed(0, record(1), record(2), record(3), record(4), record(5), record(6), barrier(1))
	r.run()
	require.Equal(t, 4, r.calls.started)
	r.calls.complete(3)
	r.run()
	require.Equal(t, 5, r.calls.started)
}

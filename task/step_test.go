package task

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// bulky emits a record that fills a batch, so that each seals one in the middle of a step.
func bulky(t tester, channels int) vertex {
	job := operator.NewJob("bulky")
	in := operator.From(job, "in", &script{}, numberOption)
	out := operator.Map(operator.Rebalanced(in), "f", func(_ operator.Context, v uint64) ([]byte, error) {
		return make([]byte, 40<<10), nil
	})
	operator.ForEach(operator.Rebalanced(out), "end", func(operator.Context, []byte) error { return nil })
	return vertexOf(t, job, "f", channels)
}

// uncovered counts the output elements that were sealed while the log did not hold the choice of the input that caused them.
func uncovered(t *testing.T, m mutation.Set) (bad int) {
	r := newRig(t, bulky(t, 1), func(c *Config) { c.Mutations, c.MaxElements = m, 4 })
	shown := uint64(0)
	r.host.onSealed = func(b *inflightlog.Batch) {
		shown += uint64(b.Count)
		chosen := uint64(0)
		for _, d := range r.determinants() {
			chosen += d.N
		}
		if shown > chosen {
			bad++
		}
	}
	for v := range uint64(10) {
		r.feed(0, record(v))
	}
	r.feed(0, record(10), record(11), record(12), record(13), record(14))
	r.run()
	require.EqualValues(t, 15, shown)
	return bad
}

// Section 3: each choice is in the log before its effects can leave the task.
func TestTheHeaderIsInTheLogBeforeABatchThatDependsOnItIsSealed(t *testing.T) {
	require.Zero(t, uncovered(t, 0))
	require.NotZero(t, uncovered(t, mutation.HeaderLate), "the check must see a header that comes late")
	require.NotZero(t, uncovered(t, mutation.HeaderOmitted), "the check must see a header that is left out")
}

// Section 3: a step ends at a control element, so an Input never spans a barrier.
func TestAnInputNeverSpansABarrier(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inputs := drawScript(t, 2)
		r := newRig(t, curiousVertex(t, 2), bounds(t))
		r.supplyScript(t, inputs, nil)
		r.live(t)
		taken := make([]uint64, 2)
		for _, d := range r.determinants() {
			if d.Kind != determinant.KindInput {
				continue
			}
			span := inputs[d.Channel][taken[d.Channel]:][:d.N]
			taken[d.Channel] += d.N
			for _, e := range span[:d.N-1] {
				require.False(t, e.Kind.EndsEpoch(), "%v inside of %v", e.Kind, &d)
			}
		}
		require.EqualValues(t, len(inputs[0]), taken[0])
		require.EqualValues(t, len(inputs[1]), taken[1])
	})
}

func TestAnInputThatIsTooLongForTheLogIsADivergence(t *testing.T) {
	v := mapVertex(t, 1, pass)
	first := newRig(t, v)
	first.feed(0, record(1), record(2), record(3))
	first.run()
	second := newRig(t, v, replaying(first.logBytes()))
	second.feed(0, record(1), barrier(1)) // the log says that three elements came in one step
	second.feed(0, record(3))
	require.ErrorContains(t, second.try(), "spans barrier 1")
}

// Chandy and Lamport, 1985: an input that has delivered the barrier waits for all others.
func TestAlignmentBlocksAnInputUntilAllHaveDeliveredTheBarrier(t *testing.T) {
	r := newRig(t, mapVertex(t, 3, pass))
	r.feed(0, record(1), barrier(1))
	r.feed(0, record(10))
	r.feed(1, record(2))
	r.run()
	require.Equal(t, []string{"1", "2"}, r.shown(0), "10 is of the next epoch")
	require.Empty(t, r.host.saved)
	r.feed(1, record(3), barrier(1))
	r.run()
	r.feed(2, record(4))
	r.run()
	require.Equal(t, []string{"1", "2", "3", "4"}, r.shown(0))
	require.Empty(t, r.host.saved)
	r.feed(2, barrier(1))
	r.run()
	require.Equal(t, []string{"1", "2", "3", "4", "barrier 1", "10"}, r.shown(0))
	require.Len(t, r.host.saved, 1)
	m := r.host.saved[0].meta
	require.Equal(t, determinant.Epoch(1), m.Epoch)
	require.EqualValues(t, 4, m.Records, "10 is not part of the snapshot")
	for i, next := range []determinant.Seq{2, 3, 2} {
		require.Equal(t, determinant.Cursor{Next: next, Epoch: 2}, m.Inputs[i])
	}
	require.Equal(t, determinant.Cursor{Next: 5, Epoch: 2}, m.Outputs[0])
}

// Section 6: a task that sees any skip ends the epoch without a snapshot and forwards skip.
func TestSkipWinsOverBarrier(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {1, 0, 2}, {2, 1, 0}} {
		r := newRig(t, mapVertex(t, 3, pass))
		ends := []inflightlog.Element{barrier(1), skip(1), barrier(1)}
		for _, i := range order {
			r.feed(i, ends[i])
			r.run()
		}
		require.Equal(t, []string{"skip 1"}, r.shown(0))
		require.Empty(t, r.host.saved)
		for i := range 3 {
			r.feed(i, barrier(2))
		}
		r.run()
		require.Equal(t, []string{"skip 1", "barrier 2"}, r.shown(0))
		require.Len(t, r.host.saved, 1)
	}
}

// The snapshot after a skip has what was changed in both epochs.
func TestChangesOfAnAbandonedEpochGoWithTheNext(t *testing.T) {
	v := curiousVertex(t, 1)
	r := newRig(t, v)
	r.feed(0, record(1), skip(1))
	r.feed(0, record(2), barrier(2))
	r.run()
	require.Len(t, r.host.saved[0].state["work/state count"], 2)
}

func TestABarrierOutOfTurnIsAnAssertion(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass))
	wrong := batchesOf(t, determinant.Cursor{Epoch: 2}, []inflightlog.Element{barrier(2)}, never)
	r.task.Deliver(0, wrong[0], false)
	require.ErrorContains(t, r.try(), "assertion failed")
	progress, err := r.task.Step()
	require.False(t, progress, "after an error the task is dead")
	require.NoError(t, err)
}

// clockVertex emits the time twice for each record.
func clockVertex(t tester, channels int) vertex {
	return mapVertex(t, channels, func(ctx operator.Context, _ uint64, emit func(uint64)) error {
		emit(uint64(ctx.Now().UnixMilli()))
		emit(uint64(ctx.Now().UnixMilli()))
		return nil
	})
}

func TestTimeIsConstantWithinAStep(t *testing.T) {
	r := newRig(t, clockVertex(t, 1), func(c *Config) { c.MaxElements = 2 })
	r.cfg.Clock = nil
	r.task.cfg.Clock = func() int64 { r.now++; return r.now }
	r.feed(0, record(1), record(2))
	r.feed(0, record(3))
	r.run()
	require.Equal(t, []string{"1001", "1001", "1001", "1001", "1002", "1002"}, r.shown(0))
	require.Equal(t, []determinant.Kind{
		determinant.KindInput, determinant.KindTime, determinant.KindInput, determinant.KindTime,
	}, r.kinds())
}

func TestTheClockIsLoggedOnlyIfItWasRead(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass))
	r.feed(0, record(1))
	r.run()
	require.Equal(t, []determinant.Kind{determinant.KindInput}, r.kinds())
}

// Section 3: processing time is at least the last one logged or checkpointed, also in the next incarnation elsewhere.
func TestTimeNeverGoesBack(t *testing.T) {
	v := clockVertex(t, 1)
	first := newRig(t, v)
	for i, now := range []int64{1000, 400, 1200, 1100} {
		first.now = now
		first.feed(0, record(uint64(i)))
		first.run()
	}
	require.Equal(t, []string{"1000", "1000", "1000", "1000", "1200", "1200", "1200", "1200"}, first.shown(0))
	first.feed(0, barrier(1))
	first.run()

	t.Run("after a restore from a checkpoint", func(t *testing.T) {
		second := newRig(t, v, restored(first.host.saved[0]), func(c *Config) { c.Incarnation = 2 })
		second.now = 7
		second.feed(0, record(5))
		second.run()
		require.Equal(t, []string{"1200", "1200"}, second.shown(0))
	})
	t.Run("after a replay", func(t *testing.T) {
		second := newRig(t, v, replaying(first.logBytes()))
		second.now = 7
		second.supply(0, allElements(t, record(0), record(1), record(2), record(3), barrier(1), record(5)))
		second.settle()
		require.Equal(t, []string{"1200", "1200", "barrier 1", "1200", "1200"}, second.shown(0)[6:])
	})
	t.Run("the mutant goes back", func(t *testing.T) {
		second := newRig(t, v, restored(first.host.saved[0]), func(c *Config) { c.Mutations = mutation.TimeGoesBack })
		second.now = 7
		second.feed(0, record(5))
		second.run()
		require.Equal(t, []string{"7", "7"}, second.shown(0))
	})
}

// allElements is one batch per element, numbered from the channel's start.
func allElements(t tester, elements ...inflightlog.Element) []*inflightlog.Batch {
	return batchesOf(t, inflightlog.Origin, elements, always)
}

// A Timers step has the time that it lets processing time advance to.
func TestTimersFireBetweenStepsAndAtTheLoggedTime(t *testing.T) {
	r := newRig(t, curiousVertex(t, 1))
	r.feed(0, record(4)) // a timer at 1010
	r.run()
	at, ok := r.task.NextTimer()
	require.True(t, ok)
	require.EqualValues(t, 1010, at)
	r.now = 1009
	r.run()
	require.NotContains(t, r.kinds(), determinant.KindTimers)
	r.now = 1030
	r.run()
	all := r.determinants()
	i := slices.IndexFunc(all, func(d determinant.Determinant) bool { return d.Kind == determinant.KindTimers })
	require.EqualValues(t, 1030, all[i].Time)
}

// A step takes all that has come of one input, up to the end of the epoch.
func TestAStepTakesBatchesTogether(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass), func(c *Config) { c.MaxElements = 5 })
	r.feed(0, record(1), record(2))
	r.feed(0, record(3))
	r.feed(0, record(4))
	r.feed(0, barrier(1))
	r.feed(0, record(5))
	r.feed(1, record(6), record(7), record(8))
	r.feed(1, record(9), record(10), record(11))
	r.feed(1, barrier(1))
	r.run()
	var steps []uint64
	for _, d := range r.determinants() {
		if d.Kind == determinant.KindInput {
			steps = append(steps, uint64(d.Channel)*100+d.N)
		}
	}
	require.Equal(t, []uint64{5, 105, 102, 1}, steps, "of channel 0, of channel 1, behind both barriers")
}

// Section 4: a task takes no new step while a live consumer's unsent bytes exceed a bound.
func TestBackpressureStopsNewStepsAndTheRestOfOne(t *testing.T) {
	r := newRig(t, bulky(t, 1), func(c *Config) { c.MaxUnsent = 100 << 10 })
	out := r.task.Outputs()[0]
	require.NoError(t, out.Subscribe(inflightlog.Origin))
	elements := make([]inflightlog.Element, 20)
	for i := range elements {
		elements[i] = record(uint64(i))
	}
	r.feed(0, elements...)
	r.run()
	require.Len(t, r.kinds(), 1, "all of it is one step")
	require.EqualValues(t, 3, r.task.Records(), "three records make more than 100 KiB")
	for range 5 {
		progress, err := r.task.Step()
		require.NoError(t, err)
		require.False(t, progress, "a step that waits for room must not creep on")
	}
	require.LessOrEqual(t, out.Unsent(), 160<<10)
	for range 2 {
		_, err := out.Next(-1)
		require.NoError(t, err)
	}
	r.run()
	require.EqualValues(t, 5, r.task.Records(), "it goes on where it was")
	for {
		b, err := out.Next(-1)
		require.NoError(t, err)
		if b == nil {
			break
		}
		r.run()
	}
	require.EqualValues(t, 20, r.task.Records())
	require.Len(t, r.kinds(), 1)
}

// Two consumers with opposite logged orders would deadlock otherwise.
func TestBackpressureDoesNotHoldAReplayingTask(t *testing.T) {
	v := bulky(t, 1)
	first := newRig(t, v, func(c *Config) { c.MaxElements = 2 })
	batches := allElements(t, slices.Repeat([]inflightlog.Element{record(1)}, 20)...)
	first.supply(0, batches)
	first.settle()
	second := newRig(t, v, replaying(first.logBytes()), func(c *Config) { c.MaxUnsent = 1 })
	require.NoError(t, second.task.Outputs()[0].Subscribe(inflightlog.Origin))
	second.supply(0, batches)
	second.settle()
	require.EqualValues(t, 20, second.task.Records())
	second.feed(0, record(2))
	second.run()
	require.LessOrEqual(t, second.task.Records(), uint64(21), "now it makes a choice of its own, and waits")
	second.feed(0, record(3))
	second.run()
	require.LessOrEqual(t, second.task.Records(), uint64(21))
}

// Towards a consumer that is being replaced there is no backpressure.
func TestBackpressureNeedsALiveConsumer(t *testing.T) {
	r := newRig(t, bulky(t, 1), func(c *Config) { c.MaxUnsent = 1 })
	r.feed(0, record(1), record(2), record(3))
	r.run()
	require.EqualValues(t, 3, r.task.Records())
}

// A consumer that comes back has to make good what it has missed. Its producer does not wait for that, since others depend on it too.
func TestBackpressureDoesNotWaitForAConsumerThatCatchesUp(t *testing.T) {
	r := newRig(t, bulky(t, 1), func(c *Config) { c.MaxUnsent = 100 << 10 })
	out := r.task.Outputs()[0]
	elements := slices.Repeat([]inflightlog.Element{record(1)}, 20)
	r.feed(0, elements...)
	r.run()
	require.NoError(t, out.Subscribe(inflightlog.Origin))
	require.Greater(t, out.Unsent(), 500<<10)
	for range 10 {
		r.feed(0, record(2))
		r.run()
		for range 2 {
			_, err := out.Next(-1)
			require.NoError(t, err)
		}
	}
	require.EqualValues(t, 30, r.task.Records())
	r.feed(0, elements...)
	r.run()
	require.Less(t, r.task.Records(), uint64(40), "it waits for one that does not gain on it")
}

func TestAnIdleTaskSealsWhatItHas(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass))
	r.feed(0, record(1))
	progress, err := r.task.Step()
	require.NoError(t, err)
	require.True(t, progress)
	require.Empty(t, r.host.batches, "there may be more")
	r.run()
	require.Len(t, r.host.batches, 1)
	require.Equal(t, determinant.Seq(1), r.host.taken[0])
}

// A busy task does not hold elements back for ever.
func TestABusyTaskSealsEveryFewSteps(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass), func(c *Config) { c.MaxElements = 1 })
	elements := slices.Repeat([]inflightlog.Element{record(1)}, 3*sealEvery)
	r.feed(0, elements...)
	for range sealEvery {
		_, err := r.task.Step()
		require.NoError(t, err)
	}
	require.Len(t, r.host.batches, 1)
}

// Section 3: end is an element; it comes once, after everything, and barriers still pass behind it.
func TestTheTaskEndsOnceWhenAllInputsHave(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass))
	r.feed(0, record(1), control(inflightlog.End), barrier(1))
	r.run()
	require.False(t, r.task.Ended())
	r.feed(1, record(2), barrier(1))
	r.feed(0, barrier(2))
	r.feed(1, record(3), control(inflightlog.End), barrier(2))
	r.feed(0, barrier(3))
	r.feed(1, barrier(3))
	r.run()
	require.True(t, r.task.Ended())
	final := "watermark " + "9223372036854775807"
	require.Equal(t, []string{"1", "2", "barrier 1", "3", final, "end", "barrier 2", "barrier 3"}, r.shown(0))
	var ended []bool
	for _, s := range r.host.saved {
		ended = append(ended, s.meta.Ended)
	}
	require.Equal(t, []bool{false, true, true}, ended)

	again := newRig(t, mapVertex(t, 2, pass), restored(r.host.saved[1]))
	again.feed(0, barrier(3))
	again.feed(1, barrier(3))
	again.run()
	require.Equal(t, []string{"barrier 3"}, again.shown(0), "a task that has ended does not end again")
}

func TestTheTaskEndsOnlyWhenNothingIsOutstanding(t *testing.T) {
	r := newRig(t, askingVertex(t, 1))
	r.feed(0, record(1), record(2), control(inflightlog.End), barrier(1))
	r.run()
	require.False(t, r.task.Ended())
	require.Equal(t, []string{"barrier 1"}, r.shown(0), "a barrier does not wait for calls")
	require.False(t, r.host.saved[0].meta.Ended)

	again := newRig(t, askingVertex(t, 1), restored(r.host.saved[0]))
	require.Len(t, again.calls.pending, 2, "what was outstanding in the snapshot is asked again")
	for _, x := range []*rig{r, again} {
		x.calls.complete(1)
		x.run()
		require.False(t, x.task.Ended())
		x.calls.complete(0)
		x.run()
		require.True(t, x.task.Ended())
		shown := x.shown(0)
		require.Equal(t, "end", shown[len(shown)-1])
		x.feed(0, barrier(2))
		x.run()
		require.True(t, x.host.saved[len(x.host.saved)-1].meta.Ended)
	}
}

// A snapshot of an epoch without records has the watermarks and idleness of each input.
func TestTheSnapshotHoldsWatermarksAndIdlenessOfInputs(t *testing.T) {
	r := newRig(t, mapVertex(t, 3, pass))
	r.feed(0, watermark(50), barrier(1))
	r.feed(1, control(inflightlog.Idle), barrier(1))
	r.feed(2, watermark(20), control(inflightlog.End), barrier(1))
	r.run()
	m := r.host.saved[0].meta
	require.Equal(t, []int64{50, math.MinInt64, 20}, m.InputWatermarks)
	require.Equal(t, []bool{false, true, false}, m.InputIdle)
	require.Equal(t, []bool{false, false, true}, m.InputEnded)
	require.EqualValues(t, 50, m.Watermark)
	require.Equal(t, r.log.End(), m.Log, "the next epoch's log begins behind its mark")

	again := newRig(t, mapVertex(t, 3, pass), restored(r.host.saved[0]))
	again.feed(1, watermark(60), control(inflightlog.Active))
	again.run()
	require.Empty(t, again.shown(0), "input 0 holds it at 50, which was said before the barrier")
	again.feed(0, watermark(70))
	again.run()
	require.Equal(t, []string{"watermark 60"}, again.shown(0))
}

func TestStateThatTheJobDoesNotDefineIsAnError(t *testing.T) {
	v := mapVertex(t, 1, pass)
	r := newRig(t, v)
	r.feed(0, barrier(1))
	r.run()
	cfg := r.cfg
	restored(savedState{r.host.saved[0].meta, tables{"f/gone": {"k": "v"}}})(&cfg)
	_, err := New(cfg)
	require.ErrorContains(t, err, `state "f/gone"`)
}

func TestCorruptElementsAreAnError(t *testing.T) {
	r := newRig(t, mapVertex(t, 1, pass))
	b := *allElements(t, record(1))[0]
	b.Payload = []byte{0xff, 0xff}
	r.task.Deliver(0, &b, false)
	require.ErrorIs(t, r.try(), inflightlog.ErrCorrupt)
}

// When the last input that is not idle ends, the task is idle, and so is the life that is restored from there.
func TestATaskWhoseOtherInputsAreIdleIsIdleAfterAnEnd(t *testing.T) {
	r := newRig(t, mapVertex(t, 2, pass))
	r.feed(0, control(inflightlog.Idle), barrier(1))
	r.feed(1, record(1), control(inflightlog.End), barrier(1))
	r.run()
	require.Equal(t, []string{"1", "idle", "barrier 1"}, r.shown(0))
	meta := r.host.saved[0].meta
	r.feed(0, control(inflightlog.Active), record(2))
	r.run()
	live := r.task.Outputs()[0].End()

	restored := newRig(t, mapVertex(t, 2, pass), func(c *Config) { c.Meta = meta })
	restored.ends[0] = meta.Inputs[0]
	restored.feed(0, control(inflightlog.Active), record(2))
	restored.run()
	require.Equal(t, []string{"active", "2"}, restored.shown(0))
	require.Equal(t, live.Next, restored.task.Outputs()[0].End().Next)
}

package task

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
)

// twoSplits has three records in one split and two in the other.
func twoSplits() *script {
	return &script{
		names: []string{"a", "b"}, splits: map[string][]uint64{"a": {1, 2, 3}, "b": {11, 12}},
		held: map[string]bool{}, more: map[string]bool{},
	}
}

func trigger(e determinant.Epoch) checkpoint.Trigger {
	return checkpoint.Trigger{Epoch: e, Depth: determinant.Full}
}

func TestASourceAddsReadsRemovesAndEnds(t *testing.T) {
	s := twoSplits()
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s))
	r.run()
	require.True(t, r.task.Ended())
	require.EqualValues(t, 5, r.task.Records())
	var added, removed []uint32
	for _, d := range r.determinants() {
		switch {
		case d.Kind == determinant.KindSplit && !d.Removed:
			require.Equal(t, s.names[d.Split], string(d.Bytes))
			added = append(added, d.Split)
		case d.Kind == determinant.KindSplit:
			removed = append(removed, d.Split)
		}
	}
	require.Equal(t, []uint32{0, 1}, added)
	require.Equal(t, []uint32{0, 1, determinant.NoSplit}, removed)
	require.Equal(t, []string{"1", "2", "3", "11", "12", "watermark 9223372036854775807", "end"}, r.shown(0))

	r.task.Trigger(trigger(1))
	r.run()
	shown := r.shown(0)
	require.Equal(t, "barrier 1", shown[len(shown)-1], "a finished source still emits barriers")
	require.True(t, r.host.saved[0].meta.Ended)
}

func TestASourceWithoutSplitsEnds(t *testing.T) {
	s := &script{}
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s))
	r.run()
	require.True(t, r.task.Ended())
}

func TestASourceThatHasNothingWaits(t *testing.T) {
	s := twoSplits()
	s.more["b"], s.held["a"] = true, true
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s))
	r.run()
	require.Equal(t, []string{"11", "12"}, r.shown(0))
	s.held["a"] = false
	r.run()
	require.EqualValues(t, 5, r.task.Records())
	require.False(t, r.task.Ended())
}

// A source that replays reads the same records, although its readers are slow and its splits would be taken otherwise.
func TestReplayOfASourceGivesTheSameBytes(t *testing.T) {
	v := func(s *script) vertex { return sourceVertex(t, s, choosyClock) }
	rapid.Check(t, func(t *rapid.T) {
		s := &script{names: []string{"a", "b", "c"}, splits: map[string][]uint64{}, held: map[string]bool{}, more: map[string]bool{}}
		for _, name := range s.names {
			s.splits[name] = rapid.SliceOfN(rapid.Uint64Range(0, 50), 0, 12).Draw(t, "split")
		}
		wander := func(r *rig) {
			next := determinant.Epoch(1)
			for range rapid.IntRange(0, 40).Draw(t, "events") {
				switch rapid.IntRange(0, 5).Draw(t, "event") {
				case 0:
					name := rapid.SampledFrom(s.names).Draw(t, "held")
					s.held[name] = !s.held[name]
				case 1:
					tr := trigger(next)
					tr.Skip = rapid.IntRange(0, 3).Draw(t, "skip") == 0
					r.task.Trigger(tr)
					next++
				case 2:
					r.now += int64(rapid.IntRange(-3, 9).Draw(t, "time"))
				default:
					_, err := r.task.Step()
					require.NoError(t, err)
				}
			}
			s.held = map[string]bool{}
			r.run()
		}
		first := newRig(t, v(s), withSplits(s), bounds(t))
		wander(first)
		require.True(t, first.task.Ended())

		second := newRig(t, v(s), withSplits(s), bounds(t), replaying(first.logBytes()))
		for name := range s.splits {
			s.held[name] = rapid.Bool().Draw(t, "held at first")
		}
		second.run()
		s.held = map[string]bool{}
		second.run()
		require.Equal(t, first.output(), second.output())
		require.Equal(t, first.logBytes(), second.logBytes())

		if len(first.host.saved) == 0 {
			return
		}
		saved := rapid.SampledFrom(first.host.saved).Draw(t, "snapshot")
		third := newRig(t, v(s), withSplits(s), bounds(t), restored(saved), replaying(first.logBytes()[saved.meta.Log:]))
		third.run()
		require.Equal(t, first.output(saved.meta.Outputs...), third.output())
		require.Equal(t, first.logBytes()[saved.meta.Log:], third.logBytes())
	})
}

func choosyClock(ctx operator.Context, v uint64, emit func(uint64)) error {
	if v%3 == 0 {
		v += uint64(ctx.Now().UnixMilli()) << 16
	}
	emit(v)
	return nil
}

// Assumption (a) of the guarantee: a source that gives other records than before is found out.
func TestAChangedSourceIsAnError(t *testing.T) {
	first := newRig(t, sourceVertex(t, twoSplits(), pass), withSplits(twoSplits()))
	first.run()
	shorter := twoSplits()
	shorter.splits["a"] = []uint64{1, 2}
	second := newRig(t, sourceVertex(t, shorter, pass), withSplits(shorter), replaying(first.logBytes()))
	require.ErrorIs(t, second.try(), operator.ErrSourceChanged)
}

// Section 6: a source emits for each epoch either barrier or skip, never both, in order; triggers are sent again.
func TestTriggersTakeEffectOnceAndInOrder(t *testing.T) {
	s := twoSplits()
	s.more["a"], s.more["b"] = true, true
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s))
	r.run()
	skipped := trigger(1)
	skipped.Skip = true
	r.task.Trigger(trigger(3))
	r.task.Trigger(trigger(2))
	r.run()
	require.NotContains(t, r.shown(0), "barrier 2", "epoch 1 must end first")
	r.task.Trigger(skipped)
	r.task.Trigger(trigger(2))
	r.run()
	require.Equal(t, []string{"1", "2", "3", "11", "12", "skip 1", "barrier 2", "barrier 3"}, r.shown(0))
	for e := range determinant.Epoch(4) {
		r.task.Trigger(trigger(e))
	}
	r.run()
	require.Len(t, r.shown(0), 8, "epochs that have ended do not end again")
	var epochs []determinant.Epoch
	for _, saved := range r.host.saved {
		epochs = append(epochs, saved.meta.Epoch)
	}
	require.Equal(t, []determinant.Epoch{2, 3}, epochs)
	require.LessOrEqual(t, len(r.task.triggers.mu.queue), 4, "old triggers are not kept for ever")
}

// A checkpoint that was abandoned before the source got to it becomes a skip.
func TestALaterTriggerOfAnEpochReplacesTheEarlier(t *testing.T) {
	s := twoSplits()
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s))
	r.task.Trigger(trigger(1))
	abandoned := trigger(1)
	abandoned.Skip = true
	r.task.Trigger(abandoned)
	r.run()
	require.Contains(t, r.shown(0), "skip 1")
	require.Empty(t, r.host.saved)
}

// What the log says counts, not what arrives now: the barrier that was emitted is emitted again.
func TestAReplayedBarrierIsNotSkipped(t *testing.T) {
	s := twoSplits()
	first := newRig(t, sourceVertex(t, s, pass), withSplits(s))
	first.task.Trigger(trigger(1))
	first.run()
	second := newRig(t, sourceVertex(t, s, pass), withSplits(s), replaying(first.logBytes()))
	late := trigger(1)
	late.Skip = true
	second.task.Trigger(late)
	second.run()
	require.Equal(t, first.output(), second.output())
}

func TestABarrierOfAnotherEpochInTheLogIsADivergence(t *testing.T) {
	s := twoSplits()
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s),
		replaying(logOf(determinant.Determinant{Kind: determinant.KindCheckpoint, Epoch: 2, Depth: determinant.Full})))
	require.ErrorContains(t, r.try(), "barrier or skip 2 in epoch 1")
}

// Sources wait while retained output or determinants are over their bounds; nobody else does.
func TestSourcesWaitWhileGated(t *testing.T) {
	s := twoSplits()
	gated := true
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s), func(c *Config) { c.Gated = func() bool { return gated } })
	r.run()
	require.Zero(t, r.task.Records())
	r.task.Trigger(trigger(1))
	r.run()
	require.Equal(t, []string{"barrier 1"}, r.shown(0), "the barrier that frees the logs gets through")
	gated = false
	r.run()
	require.EqualValues(t, 5, r.task.Records())
}

func TestASourceGivesWhatItMayAndIsSteppedAgain(t *testing.T) {
	s, allowed := twoSplits(), 0
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s), func(c *Config) { c.Allow = func(limit int) int { return min(limit, allowed) } })
	r.run()
	require.Zero(t, r.task.Records())
	require.True(t, r.task.Soon(), "nothing will come that wakes it")
	r.task.Trigger(trigger(1))
	r.run()
	require.Contains(t, r.shown(0), "barrier 1", "it holds no checkpoint up")
	allowed = 2
	r.run()
	require.EqualValues(t, 5, r.task.Records())
	require.False(t, r.task.Soon())
	for _, d := range r.determinants() {
		require.LessOrEqual(t, d.N, uint64(2))
	}
}

func TestASourceStopsWhenTheBudgetIsFullAndFailsWhenTheReserveIsGone(t *testing.T) {
	s := twoSplits()
	s.more["a"] = true
	budget := inflightlog.NewBudget(6<<10, 0, 16<<10, nil)
	other := inflightlog.NewLog(inflightlog.Origin, inflightlog.Options{Retain: true, Budget: budget})
	fill := func() {
		for range 20 {
			other.Record(0, false, make([]byte, 300))
			other.Commit()
			other.Seal()
		}
	}
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s), func(c *Config) { c.Budget, c.Gated, c.MaxElements = budget, budget.Full, 1 })
	for range 3 {
		_, err := r.task.Step()
		require.NoError(t, err)
	}
	before := r.task.Records()
	fill()
	require.True(t, budget.Full())
	require.NoError(t, r.try())
	require.Equal(t, before, r.task.Records())
	fill()
	require.ErrorIs(t, r.try(), ErrExhausted)
}

// A poisoned record of a source is named by split and offset.
func TestAPoisonedRecordOfASourceIsSetAside(t *testing.T) {
	for _, poison := range []uint64{13, 114} {
		s := twoSplits()
		s.splits["b"] = []uint64{11, poison, 12}
		v := sourceVertex(t, s, choosy)
		first := newRig(t, v, withSplits(s))
		var p *Poison
		require.ErrorAs(t, first.try(), &p)
		require.Equal(t, Position{Channel: 1, Seq: 1}, p.Position)
		require.True(t, p.Known)

		second := newRig(t, v, withSplits(s), replaying(first.logBytes()), asidePosition(1, 1))
		second.run()
		require.Equal(t, []string{"1", "2", "3", "11", "12"}, second.shown(0)[:5])
		require.Len(t, second.host.aside, 1)

		third := newRig(t, v, withSplits(s), replaying(second.logBytes()))
		third.run()
		require.Equal(t, second.output(), third.output())
		require.Equal(t, second.logBytes(), third.logBytes())
	}
}

// The reader of a restored source may have nothing for a while, also where the log says that a record is set aside.
func TestARecordStaysAsideWhileItsReaderIsNotReady(t *testing.T) {
	s := twoSplits()
	s.splits["b"] = []uint64{11, 13, 12}
	v := sourceVertex(t, s, choosy)
	first := newRig(t, v, withSplits(s))
	require.Error(t, first.try())
	resume := func(r *rig) {
		s.upTo = map[string]uint64{"b": 1}
		r.run()
		r.run()
		s.upTo = nil
		r.run()
		require.Equal(t, []string{"1", "2", "3", "11", "12"}, r.shown(0)[:5])
	}
	second := newRig(t, v, withSplits(s), replaying(first.logBytes()), asidePosition(1, 1))
	resume(second)
	require.Len(t, second.host.aside, 1, "it is stored once")
	third := newRig(t, v, withSplits(s), replaying(second.logBytes()))
	resume(third)
	require.Equal(t, second.output(), third.output())
	require.Equal(t, second.logBytes(), third.logBytes())
}

var errReader = errors.New("connection reset")

func TestAnErrorOfAReaderIsNotTheUsers(t *testing.T) {
	s := twoSplits()
	r := newRig(t, sourceVertex(t, s, pass), withSplits(s), func(c *Config) {
		build := c.New
		c.New = func(rt operator.Runtime) (operator.Chain, error) {
			chain, err := build(rt)
			return brokenSource{chain}, err
		}
	})
	err := r.try()
	require.ErrorIs(t, err, errReader)
	var p *Poison
	require.False(t, errors.As(err, &p))
}

// brokenSource is a chain whose source cannot be read.
type brokenSource struct{ operator.Chain }

func (b brokenSource) Source() operator.SourceHead { return brokenHead{b.Chain.Source()} }

type brokenHead struct{ operator.SourceHead }

func (brokenHead) Poll(int) (uint32, int, uint64, bool, error) { return 0, 0, 0, false, errReader }

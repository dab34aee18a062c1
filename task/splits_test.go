package task

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

// growing are splits that may become more, those of a script from epochs on.
func growing(s *script, from ...determinant.Epoch) Splits {
	splits := Splits{Grows: true}
	for i, e := range from {
		splits.List = append(splits.List, Split{Identity: s.names[i], From: e})
	}
	return splits
}

// A split is added when its epoch has begun, before anything else is read there; the task does not end before it may, and is idle
// while it has nothing to read.
func TestATaskReadsASplitFromItsEpochOn(t *testing.T) {
	s := twoSplits()
	r := newRig(t, sourceVertex(t, s, pass), func(c *Config) { c.Splits = growing(s, 1) })
	r.run()
	require.False(t, r.task.Ended(), "more may come")
	r.task.Grow(growing(s, 1, 3))
	r.run()
	require.Equal(t, []string{"1", "2", "3", "idle"}, r.shown(0), "it is for epoch 3")
	r.task.Trigger(trigger(1))
	r.run()
	r.task.Trigger(trigger(2))
	r.run()
	require.Equal(t, []string{"1", "2", "3", "idle", "barrier 1", "barrier 2", "active", "11", "12", "idle"}, r.shown(0))
	last := growing(s, 1, 3)
	last.Final = 4
	r.task.Grow(last)
	r.run()
	require.False(t, r.task.Ended(), "that is for epoch 4")
	r.task.Trigger(trigger(3))
	r.run()
	require.True(t, r.task.Ended())
}

// A task that has no split at all says that it is idle with its first barrier, and lets watermarks pass.
func TestATaskWithoutSplitsIsIdle(t *testing.T) {
	s := twoSplits()
	r := newRig(t, sourceVertex(t, s, pass), func(c *Config) { c.Splits = growing(s) })
	r.run()
	r.task.Trigger(trigger(1))
	r.run()
	require.Equal(t, []string{"idle", "barrier 1"}, r.shown(0))
	next := newRig(t, sourceVertex(t, s, pass), func(c *Config) { c.Splits = growing(s, 2) }, restored(r.host.saved[0]))
	next.run()
	require.Equal(t, []string{"active", "1", "2", "3", "idle"}, next.shown(0), "it was said before the barrier")
}

// Whoever replays adds the same splits at the same places, however many more there are by now; what was restored has those of its
// checkpoint.
func TestReplayOfASourceThatGrows(t *testing.T) {
	v := func(s *script) vertex { return sourceVertex(t, s, choosyClock) }
	rapid.Check(t, func(t *rapid.T) {
		s := &script{names: []string{"a", "b", "c", "d"}, splits: map[string][]uint64{}, held: map[string]bool{}, more: map[string]bool{}}
		for _, name := range s.names {
			s.splits[name] = rapid.SliceOfN(rapid.Uint64Range(0, 50), 0, 8).Draw(t, "split")
		}
		all := Splits{Grows: true}
		at := func(c *Config) { c.Splits = all }
		first := newRig(t, v(s), at, bounds(t))
		for next := determinant.Epoch(1); len(all.List) < len(s.names); next++ {
			for range rapid.IntRange(0, 12).Draw(t, "steps") {
				_, err := first.task.Step()
				require.NoError(t, err)
			}
			if rapid.Bool().Draw(t, "grows") { // no checkpoint has opened epoch next+1 yet
				all.List = append(all.List[:len(all.List):len(all.List)], Split{Identity: s.names[len(all.List)], From: next + 1})
				first.task.Grow(all)
			}
			first.task.Trigger(trigger(next))
		}
		first.run()
		all.Final = 1
		first.task.Grow(all)
		first.run()
		require.True(t, first.task.Ended())

		second := newRig(t, v(s), at, bounds(t), replaying(first.logBytes()))
		second.run()
		require.Equal(t, first.output(), second.output())
		require.Equal(t, first.logBytes(), second.logBytes())
		saved := rapid.SampledFrom(first.host.saved).Draw(t, "snapshot")
		third := newRig(t, v(s), at, bounds(t), restored(saved), replaying(first.logBytes()[saved.meta.Log:]))
		third.run()
		require.Equal(t, first.output(saved.meta.Outputs...), third.output())
		require.Equal(t, first.logBytes()[saved.meta.Log:], third.logBytes())
	})
}

// Splits that a task has do not move, and none is added that it does not have, or that is for a later epoch.
func TestSplitsThatMoveAreNoticed(t *testing.T) {
	s := twoSplits()
	r := newRig(t, sourceVertex(t, s, pass), func(c *Config) { c.Splits = growing(s, 1, 1) })
	r.run()
	require.Panics(t, func() { r.task.Grow(growing(s, 1)) })
	require.Panics(t, func() { r.task.Grow(FixedSplits("b", "a")) })
	for name, splits := range map[string]Splits{"fewer": growing(s, 1), "later": growing(s, 1, 2), "others": FixedSplits("b", "a")} {
		second := newRig(t, sourceVertex(t, s, pass), func(c *Config) { c.Splits = splits }, replaying(r.logBytes()))
		require.ErrorContains(t, second.try(), "split", name)
	}
}

package sim

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// story is one named way to die, and what must come of it.
type story struct {
	name     string
	options  Options
	rollback bool
	// act looks at the world after each step until it has done the deed.
	act func(w *World) (done bool)
}

// The tasks of the job "line", and of "grid".
const (
	first1, second1, third1, sink1 = 1, 2, 3, 4
	count1, count2, count3         = 4, 5, 6
)

var stories = []story{
	{name: "one task", options: Options{Shape: "line"}, act: together(second1)},
	{name: "two adjacent tasks at once", options: Options{Shape: "line"}, act: together(first1, second1)},
	{name: "all tasks of a vertex", options: Options{Shape: "grid"}, act: together(count1, count2, count3)},
	{name: "every task at once", options: Options{Shape: "line"}, act: together(0, first1, second1, third1, sink1)},
	{name: "the source", options: Options{Shape: "line"}, act: together(0)},
	{name: "the last task before a sink", options: Options{Shape: "line"}, act: together(third1)},
	{name: "a sink", options: Options{Shape: "line"}, act: together(sink1)},
	{name: "the last task before a sink, and the sink", options: Options{Shape: "line"}, act: together(third1, sink1)},
	{name: "a worker", options: Options{Shape: "grid", Workers: 4}, act: workersOf(count1)},
	{name: "primary and standby together", options: Options{Shape: "grid", Standbys: 1}, act: withStandby(count1)},
	{name: "the whole cluster", options: Options{Shape: "diamond"}, act: everyone},
	{name: "the whole cluster, twice", options: Options{Shape: "line"}, act: twice(everyone)},
	{name: "a task during its own replay", options: Options{Shape: "line"}, act: duringReplay(second1)},
	{name: "two adjacent tasks, one after the other", options: Options{Shape: "line"}, act: duringReplay(first1, second1)},
	{name: "a task during a checkpoint", options: Options{Shape: "grid"}, act: whileSaving(together(count2))},
	{name: "a source during a checkpoint", options: Options{Shape: "grid"}, act: whileSaving(together(0))},
	{name: "a worker during a checkpoint", options: Options{Shape: "grid"}, act: whileSaving(workersOf(count1))},
	{name: "a sink's worker that wakes up again", options: Options{Shape: "line"}, act: zombie(sink1)},
	{name: "a task's worker that wakes up again", options: Options{Shape: "grid"}, act: zombie(count1)},
	{name: "depth 1, one task", options: Options{Shape: "line", Depth: 1}, act: together(second1)},
	{name: "depth 1, two adjacent tasks", options: Options{Shape: "line", Depth: 1}, act: together(first1, second1), rollback: true},
	{name: "depth 1, the last task and its sink", options: Options{Shape: "line", Depth: 1}, act: together(third1, sink1), rollback: true},
	{name: "depth 2, two adjacent tasks", options: Options{Shape: "line", Depth: 2}, act: together(first1, second1)},
	{name: "depth 2, three in a row", options: Options{Shape: "line", Depth: 2}, act: together(first1, second1, third1), rollback: true},
	{name: "depth 1, all tasks of a vertex", options: Options{Shape: "grid", Depth: 1}, act: together(count1, count2, count3)},
	{name: "at least once, two adjacent tasks", options: Options{Shape: "line", Mode: determinant.AtLeastOnce}, act: together(first1, second1)},
	{name: "global rollback, one task", options: Options{Shape: "line", Mode: determinant.GlobalRollback}, act: together(second1), rollback: true},
}

// storySeeds is how many runs each story has.
const storySeeds = 24

// TestStory kills tasks in named ways, in several worlds each, and checks that the job recovers locally, or rolls back where
// DESIGN.md says so: "The guarantee" and "A task's death".
func TestStory(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			happened := 0
			for seed := range uint64(storySeeds) {
				o, done := s.options, false
				o.Seed, o.Faults = seed, -1
				act := s.act
				o.Script = func(w *World) bool {
					done = done || act(w)
					return done
				}
				r := Run(o)
				if r.Violation != nil {
					t.Fatalf("seed %d: %v", seed, r.Violation)
				}
				if !done {
					continue // the job was over too soon
				}
				happened++
				if s.rollback != (r.Rollbacks > 0) {
					t.Fatalf("seed %d: %d rollbacks, should roll back: %v", seed, r.Rollbacks, s.rollback)
				}
			}
			require.Greater(t, happened, storySeeds/2, "the story must happen in most worlds")
		})
	}
}

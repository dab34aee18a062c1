package sim

import (
	"flag"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// mutantSeeds is how many seeds may pass before a mutant must have been caught.
const mutantSeeds = 400

var (
	fromZero = flag.Bool("sim.zero", false, "TestMutant begins with seed 0 for every mutant")
	controls = flag.Int("sim.controls", 6, "how many seeds TestControl runs for each mutant")
)

// rareMutants are caught by one seed in dozens or hundreds. TestMutant begins shortly before one that does, and says so: what others let
// pass is the same each time.
var rareMutants = map[mutation.Set]uint64{
	mutation.NewWorkerForgotten: 268, mutation.GenerationUnchecked: 71, mutation.DepthRaisedLate: 39,
	mutation.StandbyAhead: 260, mutation.RecoveringCountsAsLive: 75, mutation.ShortestPath: 28, mutation.CommitNotRepeated: 27,
}

// TestMutant runs the simulation with one rule of the protocol switched off after the other. A rule whose absence no checker
// notices is either not needed or not checked.
func TestMutant(t *testing.T) {
	for _, m := range mutation.All() {
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel()
			begin := rareMutants[m]
			if *fromZero {
				begin = 0
			}
			for n := range uint64(mutantSeeds) {
				if r := Run(mutantOptions(m, begin+n)); r.Violation != nil {
					t.Logf("%v: caught after %d seeds, from %d on, in %s: %v", m, n+1, begin, r.Shape, r.Violation)
					return
				}
			}
			t.Errorf("not caught by %d seeds, from %d on", mutantSeeds, begin)
		})
	}
}

// TestControl runs what mutantOptions says without the mutation: nothing may be found.
func TestControl(t *testing.T) {
	for _, m := range mutation.All() {
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel()
			for i := range uint64(*controls) {
				o := mutantOptions(m, i)
				o.Mutations = 0
				if r := Run(o); r.Violation != nil {
					t.Errorf("seed %d, in %s: %v", i, r.Shape, r.Violation)
				}
			}
		})
	}
}

// mutantOptions are runs in which the rule matters.
func mutantOptions(m mutation.Set, seed uint64) Options {
	for _, s := range schedules {
		if s.mutation == m {
			o, _ := s.prepare(seed, m)
			return o
		}
	}
	o := Options{Seed: seed, Mutations: m}
	switch m {
	case mutation.DeltaUpstreamFirst: // only shows while tasks go on during a capture
		o.NoCheckpoints, o.Settle, o.Interleave, o.Faults = true, 4000, true, -1
	case mutation.ShortestPath: // rare: it takes paths of different lengths and the loss of just the right tasks
		o.Depth, o.Shape, o.Kinds = 1, "grid", KillWorker
	case mutation.LocalRuleOff, mutation.RecoveringCountsAsLive:
		o.Depth = determinant.Depth(1 + seed%2)
		if m == mutation.RecoveringCountsAsLive {
			o.Kinds, o.Faults = KillWorker|KillTask, 8
		}
	case mutation.FenceMissingAtSink, mutation.FenceMissingAtStoreRead:
		o.Kinds, o.Faults = Suspect|KillTask, 5
	case mutation.TimeGoesBack:
		o.Kinds, o.Faults = KillWorker|KillTask, 5
		o.Shape = "clock"
	case mutation.FormerWorkerForgotten:
		o.Shape, o.Workers, o.Depth, o.Drains, o.Script = "line", 2, 1, 5, formerDies(3)
		o.Kinds, o.Faults = gentle, -1
	case mutation.NewWorkerForgotten:
		o.Shape, o.Workers, o.Depth, o.Drains, o.Script = "skew", 3, 1, 5, newDies
		o.Kinds, o.Faults = gentle, -1
	case mutation.StartWhileRecovering, mutation.NewestModeCounts, mutation.HistoriesOverlap, mutation.DepthRaisedLate:
		o.Switches, o.Faults = 6, 10
		if seed%2 == 0 {
			o.Kinds = KillTask | KillWorker
		}
	case mutation.CollectionMissesOneWorker:
		o.Kinds, o.Faults = KillWorker|KillTask, 6
	case mutation.RelinkKeepsCursor:
		o.Kinds, o.Faults = linkFaults, 6
	case mutation.GenerationUnchecked:
		o.Depth, o.Kinds, o.Faults = 1, KillTask|KillSeveral, 6
	case mutation.FallenStartAgain:
		o.Kinds, o.Faults = KillTask|KillWorker, 8
	case mutation.EarlySubscriptionDropped:
		o.Kinds, o.Faults, o.Standbys = FailDisk, 4, -1
	case mutation.RegisterRepeatsNothing:
		o.Kinds, o.Faults = KillTask|ChangeLeader|ChangeWhileDeciding, 8
	case mutation.SplitsAtOnce, mutation.SplitsSorted:
		o.Growing, o.Kinds = 100, KillTask|KillWorker|ChangeLeader
	case mutation.TriggerBeforeEntry: // an entry must be late by more than the source takes to read on
		o.Growing, o.Kinds, o.Faults = 100, Pause|BreakSession|ChangeLeader, 12
	case mutation.StandbyAhead: // in every fourth seed standbys hold all state ready
		o.Seed, o.Kinds, o.Faults = 4*seed+1, KillTask|KillWorker, 8
	case mutation.SinceTooLate: // in every other seed standbys hold no state ready
		o.Seed, o.Cold, o.Kinds, o.Faults = 2*seed, true, KillTask|KillWorker, 20
	case mutation.EndKept:
		o.Mode, o.Kinds, o.Faults = determinant.AtLeastOnce, KillTask, 20
	case mutation.CommitBeforeComplete, mutation.PrepareLeftOut, mutation.AbortLeftOut, mutation.AckBeforePrepare,
		mutation.CommitNotRepeated, mutation.FinishBeforeCommit:
		o.Transactional, o.Kinds, o.Faults = 100, sinkTrouble, 8
	}
	return o
}

package sim

import (
	"flag"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

var (
	growthSeeds = flag.Int("sim.growths", 60, "how many seeds TestGrowth runs")
	growthSeed  = flag.Int64("sim.growth", -1, "run this seed of TestGrowth alone, with its story")
)

// TestGrowth runs whole jobs whose sources get splits while things go wrong.
func TestGrowth(t *testing.T) {
	if *growthSeed >= 0 {
		tell(t, growingOptions(uint64(*growthSeed)))
		return
	}
	sum := runAll(t, *growthSeeds, func(t *testing.T, seed uint64) Result {
		r := Run(growingOptions(seed))
		if r.Violation != nil {
			t.Errorf("seed %d (%s): %v\n\treproduce with: go test ./internal/sim -run TestGrowth -sim.growth=%d -v", seed, r.Shape, r.Violation, seed)
		}
		return r
	})
	t.Logf("%d seeds: %v, %d changes of mode or depth", *growthSeeds, sum, sum.Switches)
	if sum.Grown < 2**growthSeeds || sum.Rollbacks < *growthSeeds/10 || sum.Committed < *growthSeeds/4 || sum.Switches < *growthSeeds/20 {
		t.Error("too little happens for this to mean anything")
	}
}

// growingOptions are what a seed of TestGrowth runs.
func growingOptions(seed uint64) Options {
	o := Options{Seed: seed, Growing: 100, Depth: determinant.Full, Faults: 4 + int(seed%7)}
	switch seed % 10 {
	case 1:
		o.Transactional, o.Kinds = 100, sinkTrouble
	case 2:
		o.Mode = determinant.GlobalRollback
	case 3:
		o.Mode = determinant.AtLeastOnce
	case 4:
		o.Depth = 1
	case 5:
		o.Switches = 4
	case 6:
		o.Drains = 3
	case 7:
		o.Kinds = KillLeader | ChangeLeader | ChangeWhileDeciding | PauseLeader | KillTask
	case 8:
		o.Kinds = KillCluster | KillAll | KillSaving
	}
	return o
}

// The same splits are read in the same epochs whoever dies: what a job has read when it ends is no more and no less than
// what a job that nothing happens to reads.
func TestGrowthWithoutFaults(t *testing.T) {
	for seed := range uint64(20) {
		if r := Run(Options{Seed: seed, Growing: 100, Faults: -1}); r.Violation != nil || r.Grown == 0 {
			t.Errorf("seed %d (%s): %d splits added, %v", seed, r.Shape, r.Grown, r.Violation)
		}
	}
}

// TestGrowthMutants switches rules off and demands that what is written to notice it does; TestMutant takes any checker.
func TestGrowthMutants(t *testing.T) {
	for m, by := range map[mutation.Set]string{mutation.SplitsAtOnce: "growth", mutation.SplitsSorted: "panic"} {
		found := 0
		for seed := range uint64(40) {
			o := growingOptions(seed * 10)
			o.Mutations = m
			if r := Run(o); r.Violation != nil && r.Violation.Checker == by {
				found++
			}
		}
		t.Logf("%v: %d of 40 seeds", m, found)
		if found == 0 {
			t.Errorf("%v: the checker %q does not notice it", m, by)
		}
	}
}

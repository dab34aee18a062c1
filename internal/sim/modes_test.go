package sim

import (
	"flag"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
)

var (
	switchSeeds = flag.Int("sim.switches", 60, "how many seeds TestSwitches runs")
	switchSeed  = flag.Int64("sim.switch", -1, "run this seed of TestSwitches alone, with its story")
)

// TestSwitches runs whole jobs whose mode and sharing depth change while things go wrong.
func TestSwitches(t *testing.T) {
	if *switchSeed >= 0 {
		tell(t, switching(uint64(*switchSeed)))
		return
	}
	sum := runAll(t, *switchSeeds, func(t *testing.T, seed uint64) Result {
		r := Run(switching(seed))
		if r.Violation != nil {
			t.Errorf("seed %d (%s): %v\n\treproduce with: go test ./internal/sim -run TestSwitches -sim.switch=%d -v", seed, r.Shape, r.Violation, seed)
		}
		return r
	})
	t.Logf("%d seeds: %v, %d changes of mode or depth, %d tasks recovered without determinants", *switchSeeds, sum, sum.Switches, sum.Loose)
	if sum.Switches < *switchSeeds || sum.Loose < *switchSeeds/4 || sum.Rollbacks < *switchSeeds/20 {
		t.Error("too little happens for this to mean anything")
	}
}

// switching is what a seed of TestSwitches runs: some begin in another mode, some without faults, since then all must be exact.
func switching(seed uint64) Options {
	o := Options{Seed: seed, Switches: 1 + int(seed%7), Depth: determinant.Full}
	switch seed % 10 {
	case 2:
		o.Mode = determinant.AtLeastOnce
	case 4:
		o.Mode, o.Depth = determinant.GlobalRollback, 1
	case 6:
		o.Depth = 1
	case 5:
		o.Drains = 3
	case 8:
		o.Faults = -1
	case 9:
		o.Faults = 12
	}
	return o
}

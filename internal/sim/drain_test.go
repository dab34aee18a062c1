package sim

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

var drainSeeds = flag.Int("sim.drains", 60, "how many seeds each test of drains runs")

// TestDrains drains workers while nothing else goes wrong, or nothing that costs a life: at any sharing depth no task but
// those of the drained workers gets another life, none comes from a rollback, and each drain ends.
func TestDrains(t *testing.T) {
	sum := runDrains(t, func(seed uint64) Options {
		return Options{
			Seed: seed, Drains: 1 + int(seed%4), Depth: []determinant.Depth{1, determinant.Full, 2, 1}[seed/4%4],
			Kinds: gentle, Faults: []int{-1, 1, 4}[seed%3],
		}
	})
	require.Zero(t, sum.Rollbacks)
	require.Greater(t, sum.Drained, *drainSeeds)
	require.Greater(t, sum.Moved, *drainSeeds)
}

// TestDrainsAmongFaults drains workers while others, and they, die.
func TestDrainsAmongFaults(t *testing.T) {
	sum := runDrains(t, func(seed uint64) Options {
		o := Options{Seed: seed, Drains: 1 + int(seed%5), Depth: []determinant.Depth{determinant.Full, 1, determinant.Full, 2}[seed/5%4]}
		switch seed % 10 {
		case 3:
			o.Mode = determinant.AtLeastOnce
		case 7:
			o.Mode = determinant.GlobalRollback
		case 5:
			o.Switches = 4
		}
		if seed%3 == 0 {
			o.Balance = 10
		}
		return o
	})
	require.Greater(t, sum.Drained, *drainSeeds/4)
	require.Greater(t, sum.Moved, *drainSeeds/4)
}

// TestBalance kills workers, so that tasks are unevenly spread, and has them moved back, and standbys too.
func TestBalance(t *testing.T) {
	sum := runDrains(t, func(seed uint64) Options {
		return Options{
			Seed: seed, Kinds: KillWorker | Join | ChangeLeader, Faults: 1 + int(seed%4), Balance: 10,
			Depth: []determinant.Depth{determinant.Full, 1}[seed%2],
		}
	})
	require.Greater(t, sum.Moved, *drainSeeds/4)
	require.Greater(t, sum.Released, *drainSeeds/4)
}

func runDrains(t *testing.T, options func(seed uint64) Options) (sum Result) {
	if *seed >= 0 {
		tell(t, options(uint64(*seed)))
		t.Skip("one seed was asked for, which says nothing about all")
	}
	sum = runAll(t, *drainSeeds, func(t *testing.T, seed uint64) Result {
		o := options(seed)
		r := Run(o)
		if r.Violation != nil {
			t.Errorf("seed %d (%s, %v, depth %v): %v", o.Seed, r.Shape, o.Mode, o.Depth, r.Violation)
		}
		return r
	})
	require.Greater(t, sum.Warm, *drainSeeds/10, "tasks that took over state that was held ready")
	t.Logf("%d seeds: %v, %d workers drained, %d tasks moved, %d standbys released", *drainSeeds, sum, sum.Drained, sum.Moved, sum.Released)
	return sum
}

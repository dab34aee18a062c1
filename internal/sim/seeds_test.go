package sim

import (
	"flag"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
)

var (
	seeds = flag.Int("sim.seeds", 200, "how many seeds TestSeeds runs")
	mode  = flag.String("sim.mode", "", "run all seeds in this mode")
	depth = flag.Uint("sim.depth", 0, "run all seeds at this sharing depth")
	kinds = flag.Uint("sim.kinds", 0, "only faults of these kinds, a bit each; 0: all")
	seed  = flag.Int64("sim.seed", -1, "run this seed alone, with its story")
)

// TestSeeds runs whole jobs. A seed that fails is run again with `make sim SEED=n`.
func TestSeeds(t *testing.T) {
	if *seed >= 0 {
		o := optionsOf(uint64(*seed))
		o.Trace = testWriter{t}
		r := Run(o)
		t.Logf("%+v", r)
		if r.Violation != nil {
			t.Fatalf("seed %d: %v", *seed, r.Violation)
		}
		return
	}
	var sum Result
	for i := range *seeds {
		o := optionsOf(uint64(i))
		r := Run(o)
		if r.Violation != nil {
			t.Errorf("seed %d (%s, %v, depth %v): %v\n\treproduce with: make sim SEED=%d", i, r.Shape, o.Mode, o.Depth, r.Violation, i)
		}
		sum.add(r)
	}
	t.Logf("%d seeds: %v", *seeds, sum)
}

func optionsOf(seed uint64) Options {
	o := Options{Seed: seed, Kinds: FaultKind(*kinds)}
	switch seed % 20 { // mostly exactly-once at full depth
	case 3:
		o.Depth = 1
	case 9:
		o.Depth = 2
	case 13:
		o.Mode = determinant.AtLeastOnce
	case 17:
		o.Mode = determinant.GlobalRollback
	}
	if *mode != "" {
		var err error
		if o.Mode, err = determinant.ParseMode(*mode); err != nil {
			panic(err)
		}
		o.Depth = 0
	}
	if *depth > 0 {
		o.Depth = determinant.Depth(*depth)
	}
	return o
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
)

var (
	seeds = flag.Int("sim.seeds", 100, "how many seeds TestSeeds runs")
	first = flag.Uint64("sim.first", 0, "the first of them")
	seed  = flag.Int64("sim.seed", -1, "run this seed alone, with its story")
	mode  = flag.String("sim.mode", "", "run all seeds in this mode")
	depth = flag.Uint("sim.depth", 0, "run all seeds at this sharing depth")
	kinds = flag.Uint("sim.kinds", 0, "only faults of these kinds, a bit each; 0: all")
)

// A world is small and soon dropped: collecting garbage at the usual rate is a quarter of all computing.
func TestMain(m *testing.M) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	os.Exit(m.Run())
}

// TestSeeds runs whole jobs. A seed that fails is run again, with its story, by `make sim SEED=n`.
func TestSeeds(t *testing.T) {
	if *seed >= 0 {
		tell(t, optionsOf(uint64(*seed)))
		return
	}
	sum := runAll(t, *seeds, runSeed)
	t.Logf("%d seeds: %v", *seeds, sum)
	if sum.Warm < *seeds/50 && *kinds == 0 {
		t.Errorf("%d tasks took over state that was held ready", sum.Warm)
	}
}

// tell runs one seed with its story.
func tell(t *testing.T, o Options) {
	o.Trace = testWriter{t}
	r := Run(o)
	if r.Violation != nil {
		t.Fatalf("seed %d (%s): %v", o.Seed, r.Shape, r.Violation)
	}
	t.Logf("seed %d (%s): %v", o.Seed, r.Shape, r)
}

// runAll runs n seeds from the first on, side by side, and sums up what they did.
func runAll(t *testing.T, n int, run func(t *testing.T, seed uint64) Result) (sum Result) {
	var mu sync.Mutex
	t.Run("all", func(t *testing.T) {
		shards := runtime.GOMAXPROCS(0)
		for shard := range shards {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for i := shard; i < n; i += shards {
					r := run(t, *first+uint64(i))
					mu.Lock()
					sum.add(r)
					mu.Unlock()
				}
			})
		}
	})
	return sum
}

func runSeed(t *testing.T, seed uint64) Result {
	o := optionsOf(seed)
	r := Run(o)
	if r.Violation != nil {
		t.Errorf("seed %d (%s, %v, depth %v): %v\n\treproduce with: make sim SEED=%d", seed, r.Shape, o.Mode, o.Depth, r.Violation, seed)
	}
	return r
}

// optionsOf says what a seed runs: mostly exactly-once at full depth, and with transactional sinks in one of four, with sources that grow in
// another one.
func optionsOf(seed uint64) Options {
	o := Options{Seed: seed, Kinds: FaultKind(*kinds), Depth: determinant.Full}
	switch seed % 20 {
	case 3:
		o.Depth = 1
	case 9:
		o.Depth = 2
	case 13:
		o.Mode = determinant.AtLeastOnce
	case 17:
		o.Mode = determinant.GlobalRollback
	}
	if seed/20%4 == 1 {
		o.Transactional = 70
	}
	if seed/20%4 == 2 {
		o.Growing = 70
	}
	if *mode != "" {
		var err error
		if o.Mode, err = determinant.ParseMode(*mode); err != nil {
			panic(err)
		}
		o.Depth = determinant.Full
	}
	if *depth > 0 {
		o.Depth = determinant.Depth(*depth)
	}
	return o
}

// testWriter writes a trace to a test's log.
type testWriter struct{ t *testing.T }

// Write implements io.Writer.
func (w testWriter) Write(p []byte) (int, error) {
	w.t.Helper()
	w.t.Logf("%s", p)
	return len(p), nil
}

package sim

import (
	"testing"

	"github.com/understudy-stream/understudy/determinant"
)

// TestFormerFailures runs the seeds that once found a fault of the engine. A change of the simulator makes other runs of
// them; then a seed that shows the fault again, with the cure undone, takes the place of the old one.
func TestFormerFailures(t *testing.T) {
	for _, f := range []struct {
		found   string
		options Options
	}{
		{"an image relative to a checkpoint older than the committed one was never folded", Options{Seed: 0}},
		{"a checkpoint completed while nobody had the directory open was not folded", Options{Seed: 85}},
		{"images of a former process on the directory were folded and not reported", Options{Seed: 69, Depth: 2}},
		{"records after the end of an input were dropped, at least once", Options{Seed: 312, Mode: determinant.AtLeastOnce}},
		{"credits in a former numbering held a channel up, at least once", Options{Seed: 599, Mode: determinant.AtLeastOnce}},
		{"an image of the next generation was acknowledged and then dropped", Options{Seed: 21165, Depth: 1}},
		{"the same, by another way", Options{Seed: 10829, Depth: 2, Kinds: ChangeLeader | BreakStore | KillTask | KillWorker}},
		{"a life that repeated its epochs was held back by those who waited for its barrier, at least once", switching(217)},
		{"the log ended between a step's header and the mark of its epoch", Options{Seed: 310}},
	} {
		t.Run(f.found, func(t *testing.T) {
			t.Parallel()
			if r := Run(f.options); r.Violation != nil {
				t.Fatalf("seed %d: %v", f.options.Seed, r.Violation)
			}
		})
	}
}

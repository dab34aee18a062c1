package sim

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

var (
	heldSeeds = flag.Int("sim.transactions", 80, "how many seeds TestTransactions runs")
	heldSeed  = flag.Int64("sim.transaction", -1, "run this seed of TestTransactions alone, with its story")
)

// TestTransactions runs whole jobs whose sinks are transactional, in every mode, while things go wrong: above all what sinks
// and their stores are in the middle of.
func TestTransactions(t *testing.T) {
	if *heldSeed >= 0 {
		tell(t, holding(uint64(*heldSeed)))
		return
	}
	sum := runAll(t, *heldSeeds, func(t *testing.T, seed uint64) Result {
		o := holding(seed)
		r := Run(o)
		if r.Violation != nil {
			t.Errorf("seed %d (%s, %v, depth %v): %v\n\treproduce with: go test ./internal/sim -run TestTransactions -sim.transaction=%d -v",
				seed, r.Shape, o.Mode, o.Depth, r.Violation, seed)
		}
		return r
	})
	t.Logf("%d seeds: %v", *heldSeeds, sum)
	require.Greater(t, sum.Committed, 3**heldSeeds)
	require.Greater(t, sum.Aborted, *heldSeeds/15, "lives that die with something prepared")
}

// holding is what a seed of TestTransactions runs. Half of them have causal sinks too.
func holding(seed uint64) Options {
	o := Options{Seed: seed, Depth: determinant.Full, Transactional: 50 + 50*int(seed%2), Faults: 4 + int(seed%9)}
	switch seed % 10 {
	case 1:
		o.Mode = determinant.AtLeastOnce
	case 2:
		o.Mode, o.Depth = determinant.GlobalRollback, 1
	case 3:
		o.Depth = 1
	case 4:
		o.Switches = 5
	case 5:
		o.Drains = 4
	}
	switch seed % 3 {
	case 1:
		o.Kinds = sinkTrouble
	case 2:
		o.Kinds = BreakStore | KillSaving | KillTask | Suspect
	}
	return o
}

// sinkTrouble are the faults that find a sink or its store in the middle of something.
const sinkTrouble = KillTask | KillWorker | KillSeveral | KillAll | KillCluster | KillSaving | KillRecovering | Suspect | Freeze | BreakStore | SlowDisk |
	KillLeader | ChangeLeader

// TestMutantOfTransactions runs jobs with transactional sinks without rules that matter to causal ones too.
func TestMutantOfTransactions(t *testing.T) {
	for _, m := range []mutation.Set{mutation.FenceMissingAtSink, mutation.SinkAcknowledgesEarly} {
		t.Run(m.String(), func(t *testing.T) {
			t.Parallel()
			for i := range uint64(mutantSeeds) {
				o := holding(i)
				o.Transactional, o.Mutations = 100, m
				if m == mutation.FenceMissingAtSink {
					o.Kinds = Suspect | Freeze | KillTask
				}
				if r := Run(o); r.Violation != nil {
					t.Logf("%v: caught after %d seeds, in %s: %v", m, i+1, r.Shape, r.Violation)
					return
				}
			}
			t.Errorf("not caught by %d seeds", mutantSeeds)
		})
	}
}

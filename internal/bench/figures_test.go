package bench

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster/supervisor"
)

// steady is a partition that grows every 10 ms of 10 s, but for a gap.
func steady(name string, from, until int64) *part {
	p := &part{name: name}
	for at := int64(0); at < 10e6; at += 10_000 {
		if at <= from || at >= until {
			p.grown = append(p.grown, growth{at: at, due: at - 9_000})
			if at >= until && at-10_000 < until {
				p.grown[len(p.grown)-1].due = from
			}
		}
	}
	return p
}

// Gaps count to a kill until another failure comes, and for some seconds if none does. Kills that come right after one another are one.
func TestGapsAfterAKill(t *testing.T) {
	const killed = 3_000_000
	p, last := &part{name: "part-00000.jsonl"}, int64(0)
	for at := int64(killed - 100_000); at < killed+30_000_000; at += 10_000 {
		p.grown = append(p.grown, growth{at: at, due: last})
		last = at
		switch at - killed {
		case 4_000_000: // a task moves
			at += 70_000
		case 4_950_000: // up to the next kill, and after it
			at += 140_000
		case 18_000_000:
			at += 200_000
		}
	}
	gaps := func(kills ...int64) (ms []float64) {
		sum := &understudy.ClusterSummary{}
		for _, at := range kills {
			sum.Acts = append(sum.Acts, supervisor.Act{At: killed + at})
		}
		for _, k := range killTimes(sum, map[string]*part{p.name: p}, "visible") {
			ms = append(ms, k.Unaffected)
		}
		return ms
	}
	require.Equal(t, []float64{80, 150}, gaps(0, 5_000_000))
	require.Equal(t, []float64{150, 150}, gaps(0, 300_000))
	require.Equal(t, []float64{150}, gaps(0), "the gap of 210 ms comes too late to be its")
}

// The first output of a partition that died is the first after its task had what it needs, whatever gaps come later; the others' longest gap
// does not count those that another kill of the time has hit.
func TestKillTimes(t *testing.T) {
	const killed = 3_000_000
	parts := map[string]*part{
		"part-00000.jsonl": steady("part-00000.jsonl", killed+2000, killed+400_000),
		"part-00001.jsonl": steady("part-00001.jsonl", killed+300_000, killed+900_000), // died by the second kill
		"part-00002.jsonl": steady("part-00002.jsonl", killed+1_000_000, killed+1_080_000),
	}
	late := parts["part-00000.jsonl"]
	for i := range late.grown { // a longer gap, which has nothing to do with it
		if g := &late.grown[i]; g.at > killed+1_500_000 && g.at < killed+2_400_000 {
			g.at = killed + 2_400_000
		}
	}
	sum := &understudy.ClusterSummary{
		Acts: []supervisor.Act{{At: killed, Processes: []string{"worker-1"}}, {At: killed + 300_000, Processes: []string{"worker-2"}}},
		Recoveries: []supervisor.Recovery{
			{Name: "visible[0]", Act: 0, Noticed: 10, Decided: 12, Collected: 100, Restored: 200, Replayed: 300, FirstOutput: 390, Recovered: 400},
			{Name: "map1[0]", Act: 0, Noticed: 20, Decided: 22, Collected: -1, Restored: -1, Replayed: -1, FirstOutput: -1, Recovered: -1},
			{Name: "visible[1]", Act: 1, Noticed: 30, Decided: 32, Collected: -1, Restored: 40, Replayed: 50, FirstOutput: 60, Recovered: 70},
			{Name: "visible[2]", Act: 1, Moved: true, Noticed: 1000, Decided: 1000},
			{Name: "visible[2]", Act: -1, Noticed: 1000, Decided: 1000},
		},
	}
	times := killTimes(sum, parts, "visible")
	require.Equal(t, []KillTime{
		{Processes: []string{"worker-1"}, TasksLost: 2, Partitions: []string{"part-00000.jsonl"}, FirstOutput: []float64{400}, Unaffected: 80},
		{Processes: []string{"worker-2"}, TasksLost: 1, Partitions: []string{"part-00001.jsonl"}, FirstOutput: []float64{600}, Unaffected: 80},
	}, times)

	// Where all have died, by one kill or the other, nothing was unaffected.
	delete(parts, "part-00002.jsonl")
	for _, k := range killTimes(sum, parts, "visible") {
		require.Equal(t, -1.0, k.Unaffected)
	}
	// One that shows nothing any more has no first output.
	parts["part-00001.jsonl"].grown = nil
	require.Empty(t, killTimes(sum, parts, "visible")[1].FirstOutput)

	r := Recovery{PerKill: times}
	r.phases(sum)
	require.Equal(t, 20.0, r.NoticedP50)
	require.Equal(t, 30.0, r.NoticedP90)
	require.Equal(t, Phases{Decided: 22, Collected: 100, Restored: 200, Replayed: 300, FirstOutput: 390, CaughtUp: 400}, r.Phases)
	require.Equal(t, Phases{Decided: 32, Collected: 100, Restored: 200, Replayed: 300, FirstOutput: 390, CaughtUp: 400}, r.PhasesP90)

	// A kill that hit nothing is no act.
	r.expectations([]kill{{name: "worker-1"}, {name: "worker-0", unlike: "down"}, {name: "worker-2", unlike: "uneven", waited: 2e9}})
	require.True(t, r.PerKill[0].Settled)
	require.False(t, r.PerKill[1].Settled)
	require.Equal(t, "uneven", r.PerKill[1].Unsettled)
	require.Equal(t, 2.0, r.PerKill[1].Waited)
	require.Equal(t, 1, r.Unsettled)
}

package bench

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/internal/bench/plain"
)

// show writes lines to a partition as a sink would.
func show(t *testing.T, dir, part, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, part), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// A record that is missing, one that is there twice, and one that nobody sent are found.
func TestWatcherFindsLossesAndDuplicates(t *testing.T) {
	dir := t.TempDir()
	show(t, dir, "part-00000.jsonl", "0 1000\n2 3000\n0 1000\n9 99\n")
	show(t, dir, "part-00001.jsonl", "3 40") // a line of which a part is visible yet
	w := watch(dir, 5, tickLine)
	show(t, dir, "part-00001.jsonl", "00\n")
	require.NoError(t, w.finish())
	require.EqualValues(t, 2, w.lost()) // 1 and 4
	require.EqualValues(t, 1, w.duplicates)
	require.EqualValues(t, 1, w.strange)
	require.Len(t, w.lines, 4)
}

func TestWatcherRefusesOtherLines(t *testing.T) {
	dir := t.TempDir()
	show(t, dir, "part-00000.jsonl", "not a record\n")
	require.ErrorContains(t, watch(dir, 5, tickLine).finish(), "not a record")
}

// A gap counts from when something was due.
func TestGap(t *testing.T) {
	p := part{grown: []growth{{at: 100, due: 90}, {at: 200, due: 110}, {at: 900, due: 850}, {at: 1300, due: 800}, {at: 1400, due: 1350}}}
	longest, end := p.gap(0, 1200)
	require.EqualValues(t, 400, longest) // from 900, although something was due before
	require.EqualValues(t, 1300, end)
	longest, end = p.gap(0, 850)
	require.EqualValues(t, 90, longest) // nothing was due until 110
	require.EqualValues(t, 200, end)
	longest, _ = p.gap(1350, 2000)
	require.EqualValues(t, 50, longest)
}

func TestBackToNormal(t *testing.T) {
	var lines []visible
	for at := int64(0); at < 10e6; at += 10_000 {
		late := int64(2_000)
		if at > 3e6 && at < 5e6 {
			late = 400_000
		}
		lines = append(lines, visible{at: at, due: at - late})
	}
	back := backToNormal(lines, 3e6, 2)
	require.InDelta(t, 2500, back, 100) // half of the second before is normal again
	require.Equal(t, -1.0, backToNormal(lines[:450], 3e6, 2))
}

// Latency over time is by when records were due: all that came due in a stall are late.
func TestCurve(t *testing.T) {
	var lines []visible
	for due := int64(0); due < 1e6; due += 1000 {
		at := due + 1000
		if due >= 300_000 && due < 600_000 {
			at = 601_000 // seen at the end of a stall
		}
		lines = append(lines, visible{at: at, due: due})
	}
	curve := curveOf(lines, 0, 200_000)
	require.Len(t, curve, 8)
	require.Equal(t, instant{at: 0.2, p50: 1, p99: 1}, curve[0])
	require.InDelta(t, 251, curve[1].p50, 2)
	require.InDelta(t, 51, curve[3].p50, 2)
	require.Equal(t, 1.0, curve[4].p50)
}

// The rows of a join are known, each with the event that completes it, and no other.
func TestGolden(t *testing.T) {
	for _, query := range []Experiment{Q3, Q8} {
		s := &Spec{Query: query, Records: 60_000, Rate: 1000, EventRate: 2000, Start: 5000}
		g, err := newGolden(context.Background(), s)
		require.NoError(t, err)
		require.Greater(t, len(g.rows), 100)
		indices := map[uint64]bool{}
		// A row is there as soon as the event that completes it, and not before.
		for _, events := range []uint64{10_000, 30_050, 60_000} {
			complete := 0
			for _, r := range g.rows {
				if r.event < events {
					complete++
				}
				indices[r.index] = true
			}
			shown := 0
			require.NoError(t, plain.Run(context.Background(), string(query), plain.Options{
				Events: events, EventRate: 2000, Parallelism: 1, Out: func(int) func([]byte) {
					return func(row []byte) {
						shown++
						n, due, err := g.read(row)
						require.NoError(t, err)
						require.Less(t, n, uint64(len(g.rows)))
						require.Equal(t, 5_000_000+int64(g.rows[xxhash.Sum64(row)].event)*1000, due)
					}
				},
			}))
			require.Equal(t, complete, shown, "%s: %d events", query, events)
		}
		require.Len(t, indices, len(g.rows))
		n, _, err := g.read([]byte(`{"id":1}`))
		require.NoError(t, err)
		require.EqualValues(t, len(g.rows), n, "a strange row")
	}
	_, err := newGolden(context.Background(), &Spec{Query: "q4"})
	require.ErrorContains(t, err, "q4")
}

func TestSchedule(t *testing.T) {
	o := RecoveryOptions{Experiment: Q3, Kills: 4, Workers: 3, Interval: time.Second, Seed: 3, Before: 4 * time.Second}
	s := o.schedule()
	require.Len(t, s, 4)
	require.Equal(t, 4*time.Second, s[0].after)
	for i := range s {
		require.Len(t, s[i].names, 1)
		require.True(t, i == 0 || s[i].after-s[i-1].after >= spacing)
	}
	o.Experiment, o.Workers = Together, 4
	require.Equal(t, []appointment{{after: 4 * time.Second, names: []string{"worker-0", "worker-1", "worker-2"}}}, o.schedule())
}

// The state that is asked for says how much comes before, or how fast event time passes.
func TestStateOfQueries(t *testing.T) {
	for mb := 1; mb < 5; mb++ {
		s, history := (&RecoveryOptions{Experiment: Q3, StateMB: mb}).spec()
		require.EqualValues(t, "q3", s.Query)
		require.InDelta(t, float64(mb)*1e6/q3BytesPerEvent, history, 1)
		s, history = (&RecoveryOptions{Experiment: Q8, StateMB: mb}).spec()
		require.Zero(t, history)
		require.InDelta(t, float64(mb)*1e6/q8BytesPerRate, s.EventRate, 1)
		s, _ = (&RecoveryOptions{Experiment: Single, StateMB: mb}).spec()
		require.Equal(t, mb*1_000_000/30_000, s.StateBytes)
	}
	s, _ := (&RecoveryOptions{Experiment: Q8, StateMB: MaxStateMBOfQ8}).spec()
	require.LessOrEqual(t, s.EventRate, uint64(fastestTime))
}

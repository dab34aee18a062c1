package bench

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// ticksSpec is a job of ticks whose first record was due an hour ago.
func ticksSpec(t *testing.T, records uint64) *Spec {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "out"), 0o700))
	return &Spec{Records: records, Rate: 1000, Dir: dir, Start: time.Now().Add(-time.Hour).UnixMilli()}
}

// A record that is missing, one that is there twice, and one that nobody sent are found.
func TestWatcherFindsLossesAndDuplicates(t *testing.T) {
	s := ticksSpec(t, 5)
	due := strconv.FormatInt(dueOf(s.Start, 0, s.Rate), 10)
	show(t, s.output(), "part-00000.jsonl", "0 "+due+"\n2 "+due+"\n0 "+due+"\n9 "+due+"\n")
	show(t, s.output(), "part-00001.jsonl", "3 "+due[:4]) // a line of which a part is visible yet
	w := watch(s)
	show(t, s.output(), "part-00001.jsonl", due[4:]+"\n4 "+due+"\n")
	require.NoError(t, w.finish())
	w.end(4)
	require.EqualValues(t, 1, w.lost()) // 1
	require.EqualValues(t, 1, w.duplicates)
	require.EqualValues(t, 2, w.strange) // 9, and 4, which was not sent in the end
	require.EqualValues(t, 5, total(w.bySeen))
	require.EqualValues(t, 5, total(w.byDue))
	require.Len(t, w.byDue.steps, 1)
}

// total is how many lines were counted.
func total(l *lateness) (n uint32) {
	for _, c := range l.steps {
		for _, k := range c {
			n += k
		}
	}
	return n
}

func TestWatcherRefusesOtherLines(t *testing.T) {
	for _, text := range []string{"not a record", "", "1", "1 ", "1 2 3", " 1 2", "1  2", "x 2", "1 x", "-1 2", "1234567890123456789 2", "1 1234567890123456789", "1 2"} {
		s := ticksSpec(t, 5)
		show(t, s.output(), "part-00000.jsonl", text+"\n")
		require.ErrorContains(t, watch(s).finish(), "part-00000.jsonl: ", text) // the last is one of long ago
	}
}

func TestTickLine(t *testing.T) {
	n, due, length := tickLine([]byte("12 345\n6 7\n"))
	require.EqualValues(t, []int64{12, 345, 7}, []int64{int64(n), due, int64(length)})
	line, err := lineCodec{}.Append(nil, tick{N: 999_999_999_999_999_999, Due: 1_800_000_000_000_000})
	require.NoError(t, err)
	n, due, length = tickLine(append(line, '\n'))
	require.EqualValues(t, []int64{999_999_999_999_999_999, 1_800_000_000_000_000, int64(len(line)) + 1}, []int64{int64(n), due, int64(length)})
	for _, cut := range []string{"1", "1 ", "1 2"} {
		_, _, length = tickLine([]byte(cut))
		require.Zero(t, length)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { tickLine(line) }))
}

// A gap counts from when something was due.
func TestGap(t *testing.T) {
	p := part{grown: []growth{{at: 100, due: 90}, {at: 200, due: 110}, {at: 900, due: 850}, {at: 1300, due: 800}, {at: 1400, due: 1350}}}
	require.EqualValues(t, 400, p.gap(0, 1300)) // from 900, although something was due before
	require.EqualValues(t, 100, p.gap(0, 1000)) // of the same
	require.EqualValues(t, 90, p.gap(0, 910))
	require.EqualValues(t, 90, p.gap(0, 850)) // nothing was due until 110
	require.EqualValues(t, 50, p.gap(1350, 2000))
	require.EqualValues(t, 900, p.after(201))
	require.EqualValues(t, 900, p.after(900))
	require.Zero(t, p.after(1401))
}

func TestBackToNormal(t *testing.T) {
	of := func(until int64) *lateness {
		l := newLateness(rollingStep, 0)
		for at := int64(0); at < until; at += 10_000 {
			late := int64(2_000)
			if at > 3e6 && at < 5e6 {
				late = 400_000
			}
			require.NoError(t, l.add(at, late))
		}
		return l
	}
	require.InDelta(t, 2500, backToNormal(of(10e6), 3e6, 2), 100) // half of the second before is normal again
	require.InDelta(t, 2480, backToNormal(of(10e6), 3e6+20_000, 2), 100)
	require.Equal(t, -1.0, backToNormal(of(4.5e6), 3e6, 2))
}

// What is counted between two moments is what lies in steps between them as a whole.
func TestLateness(t *testing.T) {
	l := newLateness(time.Millisecond, 10_000)
	for at := int64(10_000); at < 20_000; at += 100 {
		require.NoError(t, l.add(at, at))
	}
	count := func(from, until int64) (n int) {
		for _, k := range l.between(from, until) {
			n += int(k)
		}
		return n
	}
	require.Equal(t, 20, count(12_000, 14_000))
	require.Equal(t, 10, count(11_999, 13_999))
	require.Equal(t, 100, count(0, 90_000))
	require.Zero(t, count(0, 10_999))
	require.EqualValues(t, 20_000, l.end())
	require.InDelta(t, 15, l.between(0, 90_000).millis(0.5), 0.2)
	require.InDelta(t, 19.9, l.between(0, 90_000).millis(1), 0.2)
	require.Equal(t, -1.0, l.between(0, 0).millis(0.5))
	require.Error(t, l.add(9_999, 0))
	require.Error(t, l.add(1<<60, 0))
}

// Latency over time is by when records were due: all that came due in a stall are late.
func TestCurve(t *testing.T) {
	l := newLateness(curveStep, 0)
	for due := int64(0); due < 1e6; due += 1000 {
		at := due + 1000
		if due >= 300_000 && due < 600_000 {
			at = 601_000 // seen at the end of a stall
		}
		require.NoError(t, l.add(due, at-due))
	}
	curve := curveOf(l, 200_000)
	require.Len(t, curve, 8)
	require.Equal(t, 0.2, curve[0].at)
	require.InDelta(t, 1, curve[0].p50, 0.02)
	require.InDelta(t, 1, curve[0].p99, 0.02)
	require.InDelta(t, 251, curve[1].p50, 4)
	require.InDelta(t, 51, curve[3].p50, 2)
	require.InDelta(t, 1, curve[4].p50, 0.02)
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
						n, due := g.find(xxhash.Sum64(row))
						require.Less(t, n, uint64(len(g.rows)))
						require.Equal(t, 5_000_000+int64(g.rows[xxhash.Sum64(row)].event)*1000, due)
					}
				},
			}))
			require.Equal(t, complete, shown, "%s: %d events", query, events)
		}
		require.Len(t, indices, len(g.rows))
		n, _ := g.find(xxhash.Sum64String(`{"id":1}`))
		require.EqualValues(t, len(g.rows), n, "a strange row")
	}
	_, err := newGolden(context.Background(), &Spec{Query: "q4"})
	require.ErrorContains(t, err, "q4")
}

// Rows are told apart when the job is over: one that is missing, one that is there twice, one that should not be.
func TestWatcherResolvesRows(t *testing.T) {
	s := ticksSpec(t, 20_000)
	s.Query, s.EventRate = Q3, 2000
	g, err := newGolden(context.Background(), s)
	require.NoError(t, err)
	var rows []string
	require.NoError(t, plain.Run(context.Background(), "q3", plain.Options{
		Events: s.Records, EventRate: s.EventRate, Parallelism: 1, Out: func(int) func([]byte) {
			return func(row []byte) { rows = append(rows, string(row)) }
		},
	}))
	w := watch(s)
	show(t, s.output(), "part-00000.jsonl", strings.Join(rows[1:], "\n")+"\n"+rows[5]+"\n{}\n")
	require.NoError(t, w.finish())
	require.NoError(t, w.resolve(g))
	require.EqualValues(t, 1, w.lost())
	require.EqualValues(t, 1, w.duplicates)
	require.EqualValues(t, 1, w.strange)
	require.EqualValues(t, len(rows), total(w.byDue))
	require.NotEmpty(t, w.parts["part-00000.jsonl"].grown)
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

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Everyone has a turn in each repeat, and the order of every second repeat is the reverse of the one before.
func TestTurns(t *testing.T) {
	orders := turns(rand.New(rand.NewPCG(1, 1)), 5, 7)
	require.Len(t, orders, 7)
	different := false
	for i, order := range orders {
		require.Equal(t, []int{0, 1, 2, 3, 4}, slices.Sorted(slices.Values(order)))
		if i%2 == 1 {
			back := slices.Clone(order)
			slices.Reverse(back)
			require.Equal(t, orders[i-1], back)
		}
		different = different || !slices.Equal(order, orders[0])
	}
	require.True(t, different)
	require.Equal(t, orders, turns(rand.New(rand.NewPCG(1, 1)), 5, 7))
}

func TestMedian(t *testing.T) {
	require.Zero(t, median(nil))
	require.Equal(t, 3.0, median([]float64{9, 3, 1}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
	require.Equal(t, Spread{Median: 2, Min: 1, Max: 5, All: []float64{5, 1, 2}}, spreadOf([]float64{5, 1, 2}))
}

// Ratios are made within a repeat: a machine that is slow in one of them slows both.
func TestRatiosCancelNoise(t *testing.T) {
	speeds := func(all ...float64) (trials []Trial) {
		for _, s := range all {
			trials = append(trials, Trial{EventsPerSecond: s, CPUNanos: 1e9 / s})
		}
		return trials
	}
	none, full := speeds(1000, 100, 500), speeds(900, 95, 450)
	r := ratios(full, none, throughput)
	require.Equal(t, 0.9, r.Median)
	require.Equal(t, 0.95, r.Max)
	require.InDelta(t, 0.9, ratios(full, none, speedByCPU).Median, 1e-9)
	require.InDelta(t, 0.9, leastCPU(none)/leastCPU(full), 1e-9)
}

func TestRounded(t *testing.T) {
	require.Equal(t, 0.001235, rounded(0.00123456))
	require.Equal(t, 12350.0, rounded(12345.6))
	require.Equal(t, -1.5, rounded(-1.5))
	require.Zero(t, rounded(0))
}

func options(t *testing.T, queries ...string) CompareOptions {
	return CompareOptions{Setup: *setup(t), Queries: queries, Events: 20_000, Repeats: 2, Seed: 1, Log: t.Logf}
}

func TestOverhead(t *testing.T) {
	o := options(t, "q2", "q12")
	o.Interval, o.Control = 20*time.Millisecond, true
	r, err := MeasureOverhead(context.Background(), o)
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.Len(t, r.Queries, 2)
	for _, q := range r.Queries {
		require.EqualValues(t, 20_000, q.Events)
		require.Positive(t, r.DeterminantBytes[q.Query])
		require.Len(t, q.Arms, 6)
		require.Equal(t, []float64{1, 1}, q.Arms[0].Ratio.All)
		for _, a := range q.Arms {
			require.Len(t, a.Trials, 2)
			require.Positive(t, a.Ratio.Median)
		}
		require.InDelta(t, 1-q.arm(ExactlyOnce).Ratio.Median, q.LossFull, 1e-9)
		require.LessOrEqual(t, q.LossFull, r.WorstLossFull)
	}
	require.InDelta(t, (r.Queries[0].LossFull+r.Queries[1].LossFull)/2, r.MedianLossFull, 1e-9)
	require.Contains(t, []string{"q2", "q12"}, r.WorstQuery)
	require.NotZero(t, r.Machine.Cores)
	again := []float64{1 - r.Queries[0].arm(Again).Ratio.Median, 1 - r.Queries[1].arm(Again).Ratio.Median}
	require.InDelta(t, (again[0]+again[1])/2, r.Control.MedianLoss, 1e-9)
	require.InDelta(t, slices.Max(again), r.Control.WorstLoss, 1e-9)
	require.Equal(t, "none-again", r.Compared()[4])
}

// The query that looks worst is measured on, whichever that is by then, until the worst was measured often enough.
func TestTheWorstQueryIsMeasuredOn(t *testing.T) {
	o := options(t, "q2", "q0")
	o.Events, o.WorstRepeats = 2000, 5
	r, err := MeasureOverhead(context.Background(), o)
	require.NoError(t, err)
	require.True(t, r.Complete)
	worst := r.worst()
	require.Equal(t, r.WorstQuery, worst.Query)
	for i := range r.Queries {
		q := &r.Queries[i]
		n := len(q.Arms[0].Trials)
		require.Contains(t, []int{2, 4, 6}, n, "as often as --repeats each time")
		if q == worst {
			require.Equal(t, 6, n)
		}
		for _, a := range q.Arms {
			require.Len(t, a.Trials, n, a.Arm)
			require.Len(t, a.Ratio.All, n, a.Arm)
		}
		require.Equal(t, n > 2, slices.Contains(r.MeasuredOn(), fmt.Sprintf("%s (%d times)", q.Query, n)))
	}
}

// Losses of an arm are those of the medians, and the worst query is the one that loses most, by time and by computing.
func TestLosses(t *testing.T) {
	var r Overhead
	for query, ratio := range map[string]float64{"q0": 0.98, "q1": 1.01, "q2": 0.9} {
		full := ArmResult{Arm: ExactlyOnce.Name, Ratio: Spread{Median: ratio}, CPURatio: Spread{Median: 2 - ratio}}
		r.Queries = append(r.Queries, QueryOverhead{Query: query, Arms: []ArmResult{{Arm: None.Name}, full}})
	}
	mid, worst, query := r.losses(ExactlyOnce, func(a *ArmResult) *Spread { return &a.Ratio })
	require.InDeltaSlice(t, []float64{0.02, 0.1}, []float64{mid, worst}, 1e-9)
	require.Equal(t, "q2", query)
	mid, worst, query = r.losses(ExactlyOnce, func(a *ArmResult) *Spread { return &a.CPURatio })
	require.InDeltaSlice(t, []float64{-0.02, 0.01}, []float64{mid, worst}, 1e-9)
	require.Equal(t, "q1", query)
	require.Nil(t, r.Queries[0].arm(Again))
	require.Len(t, r.Compared(), 4)
}

// What a plain program and the engine have in common is taken off both; what chance has made too small to compare counts for nothing.
func TestOwnRatio(t *testing.T) {
	trials := func(all ...float64) (trials []Trial) {
		for _, ns := range all {
			trials = append(trials, Trial{CPUNanos: ns})
		}
		return trials
	}
	q := QueryBaseline{Plain: trials(200, 220, 210), Engine: trials(310, 390, 310), Made: trials(110, 100, 120)}
	q.own()
	require.InDelta(t, 0.5, q.OwnRatio, 1e-9)
	require.Equal(t, 110.0, q.Added.Median)
	q = QueryBaseline{Plain: trials(100), Engine: trials(310), Made: trials(110)}
	q.own()
	require.Zero(t, q.OwnRatio)
}

// A run finds its memory there: it takes next to none of it from the system.
func TestClear(t *testing.T) {
	const memory, used = 256 << 20, 128 << 20
	limit, percent := debug.SetMemoryLimit(memory), debug.SetGCPercent(-1)
	defer func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}()
	debug.FreeOSMemory()
	s := setup(t)
	s.Memory = memory
	s.clear()
	before := pageFaults(t)
	for range used / 1024 {
		sink = make([]byte, 1024)
		sink[0] = 1
	}
	require.Less(t, pageFaults(t)-before, int64(used/pageBytes/4))
}

var sink []byte

func pageFaults(t *testing.T) int64 {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return u.Minflt
}

func TestBaseline(t *testing.T) {
	r, err := MeasureBaseline(context.Background(), options(t, "q2", "q3"))
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.Positive(t, r.Generator)
	require.Len(t, r.Queries[0].Made, 2)
	require.Positive(t, r.MedianAdded)
	require.Len(t, r.Ratios, 2)
	require.InDelta(t, (r.Queries[0].Ratio.Median+r.Queries[1].Ratio.Median)/2, r.MedianRatio, 1e-9)
	require.Equal(t, r.Ratios[r.WorstQuery], rounded(r.WorstRatio))
}

// What was finished before an interruption is there.
func TestInterruptedComparison(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	o := options(t, "q2", "q3")
	o.Log = func(string, ...any) { cancel() } // the first query is done
	r, err := MeasureBaseline(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, r.Complete)
	require.Len(t, r.Queries, 1)
	require.Equal(t, r.Queries[0].Ratio.Median, r.MedianRatio)
}

func TestEventsFor(t *testing.T) {
	o := CompareOptions{Seconds: 2}
	cores := float64(runtime.GOMAXPROCS(0))
	require.EqualValues(t, 400_000, o.eventsFor(&Trial{CPUNanos: cores * 2e9 / 400_499}))
	require.EqualValues(t, leastRun, o.eventsFor(&Trial{CPUNanos: 1e9}))
	require.EqualValues(t, growAtMost*fewEvents, o.eventsFor(&Trial{CPUNanos: 0.001}))
	o.Events = 77
	require.EqualValues(t, 77, o.eventsFor(&Trial{CPUNanos: 1}))
	require.EqualValues(t, 77, o.tryEvents())
}

func TestRepeatStopsAtAnError(t *testing.T) {
	o := options(t)
	boom, runs := errors.New("boom"), 0
	_, err := o.repeat(context.Background(), rand.New(rand.NewPCG(1, 1)), 3, func(context.Context, int) (Trial, error) {
		if runs++; runs == 4 {
			return Trial{}, boom
		}
		return Trial{}, nil
	})
	require.ErrorIs(t, err, boom)
	require.Equal(t, 4, runs)
}

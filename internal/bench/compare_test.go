package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
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
	o.Interval = 20 * time.Millisecond
	r, err := MeasureOverhead(context.Background(), o)
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.Len(t, r.Queries, 2)
	for _, q := range r.Queries {
		require.EqualValues(t, 20_000, q.Events)
		require.Positive(t, r.DeterminantBytes[q.Query])
		require.Len(t, q.Arms, 5)
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
}

func TestBaseline(t *testing.T) {
	r, err := MeasureBaseline(context.Background(), options(t, "q2", "q3"))
	require.NoError(t, err)
	require.True(t, r.Complete)
	require.Positive(t, r.Generator)
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

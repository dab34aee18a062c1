package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
)

// CompareOptions are those of the comparisons, Overhead and Baseline.
type CompareOptions struct {
	Setup
	Queries []string
	Events  uint64  // of each run; 0: as many as take about Seconds without logging
	Seconds float64 // of a run, if Events is 0
	Repeats int     // of each way of running a query, beside the one that warms up
	// WorstRepeats is how often Overhead measures, in the end, the query that then looks worst. At most Repeats: not more often than the others.
	WorstRepeats int
	Control      bool   // of Overhead: None runs under another name too, as Again
	Seed         uint64 // of the order
	Log          func(format string, args ...any)
}

const (
	fewEvents  = 200_000 // with which a run is tried to see how long it takes
	leastRun   = 50_000  // events
	roundedTo  = 1000    // events
	growAtMost = 400     // times fewEvents
)

// eventsFor says how many events a run takes so that it lasts about as long as it should, if nothing else computes on the machine.
func (o *CompareOptions) eventsFor(t *Trial) uint64 {
	if o.Events > 0 {
		return o.Events
	}
	n := uint64(o.Seconds*1e9*float64(runtime.GOMAXPROCS(0))/t.CPUNanos) / roundedTo * roundedTo
	return min(max(n, leastRun), growAtMost*fewEvents)
}

// tryEvents is how many events the run that warms up takes.
func (o *CompareOptions) tryEvents() uint64 {
	if o.Events > 0 {
		return o.Events
	}
	return fewEvents
}

// turns gives the order in which n ways of running a query take turns: a random one, and the next time its reverse, so that whatever
// grows steadily, such as the machine's heat, weighs on all alike.
func turns(rng *rand.Rand, n, repeats int) [][]int {
	var all [][]int
	for i := range repeats {
		order := rng.Perm(n)
		if i%2 == 1 {
			order = slices.Clone(all[i-1])
			slices.Reverse(order)
		}
		all = append(all, order)
	}
	return all
}

// Spread is how a figure came out in all repeats.
type Spread struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	All    []float64 `json:"all"` // in the order of the repeats
}

func spreadOf(values []float64) Spread {
	s := Spread{All: values, Median: median(values)}
	if len(values) > 0 {
		s.Min, s.Max = slices.Min(values), slices.Max(values)
	}
	return s
}

// median of values; 0 of none.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// ratios divides what was measured in each repeat by what was measured of another in the same repeat.
func ratios(of, by []Trial, figure func(*Trial) float64) Spread {
	var all []float64
	for i := range of {
		if d := figure(&by[i]); d != 0 {
			all = append(all, figure(&of[i])/d)
		}
	}
	return spreadOf(all)
}

func throughput(t *Trial) float64 { return t.EventsPerSecond }

// speedByCPU is how many events a second of computing would do: a throughput that other programs on the machine disturb less.
func speedByCPU(t *Trial) float64 { return 1e9 / t.CPUNanos }

// leastCPU is how much computing an event took in the trial that took least. What else the machine does only adds to that.
func leastCPU(trials []Trial) float64 {
	return spread(trials, func(t *Trial) float64 { return t.CPUNanos }).Min
}

// spread is that of one figure of trials.
func spread(trials []Trial, figure func(*Trial) float64) Spread {
	var all []float64
	for i := range trials {
		all = append(all, figure(&trials[i]))
	}
	return spreadOf(all)
}

// disagreement tells which of two outputs that should be alike are not. Those of q12 have the same sum, however the clock has cut them.
func disagreement(query, a string, x Tally, b string, y Tally) error {
	if x == y || query == "q12" && x.Sum == y.Sum {
		return nil
	}
	return fmt.Errorf("%w: %s: %s gives %+v, %s gives %+v", ErrDisagree, query, a, x, b, y)
}

// ErrDisagree says that two ways of running a query came to other results, so that comparing their speed means nothing.
var ErrDisagree = fmt.Errorf("bench: the results differ")

// rounded leaves four digits, since more mean nothing.
func rounded(f float64) float64 {
	if f == 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(f))))
	return math.Round(f*scale) / scale
}

// repeat runs every way of running a query as often as it should, in turns.
func (o *CompareOptions) repeat(ctx context.Context, rng *rand.Rand, n int, run func(ctx context.Context, way int) (Trial, error)) ([][]Trial, error) {
	trials := make([][]Trial, n)
	for _, order := range turns(rng, n, o.Repeats) {
		for _, way := range order {
			t, err := run(ctx, way)
			if err != nil {
				return nil, err
			}
			trials[way] = append(trials[way], t)
		}
	}
	return trials, nil
}

// MedianSpeed is the median of the trials' throughputs, in events per second.
func MedianSpeed(trials []Trial) float64 { return spread(trials, throughput).Median }

// MedianCPU is the median of what the trials computed, in nanoseconds per event.
func MedianCPU(trials []Trial) float64 {
	return spread(trials, func(t *Trial) float64 { return t.CPUNanos }).Median
}

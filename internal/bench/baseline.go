package bench

import (
	"context"
	"math/rand/v2"

	"github.com/understudy-stream/understudy/internal/bench/plain"
)

// Baseline compares the engine, exactly once, with plain programs. Ratios are those of throughputs, the engine's by the program's.
type Baseline struct {
	MedianRatio    float64            `json:"median_ratio"`
	WorstRatio     float64            `json:"worst_ratio"`
	WorstQuery     string             `json:"worst_query"`
	Ratios         map[string]float64 `json:"ratio"` // by query
	MedianCPURatio float64            `json:"median_cpu_ratio"`
	CPURatios      map[string]float64 `json:"cpu_ratio"`              // of events per second of computing
	MedianLeastCPU float64            `json:"median_least_cpu_ratio"` // the same, of the run of each kind that computed least
	Complete       bool               `json:"complete"`               // false: interrupted; the figures are about the queries that were finished
	Repeats        int                `json:"repeats"`
	Parallelism    int                `json:"parallelism"`
	Workers        int                `json:"workers"`
	IntervalMillis int64              `json:"checkpoint_interval_ms"`
	Seed           uint64             `json:"seed"`
	Machine        Machine            `json:"machine"`
	Generator      float64            `json:"generator_ns_per_event"` // of computing, for the events alone, which are in both: the median
	MedianOwnRatio float64            `json:"median_own_cpu_ratio"`   // of events per second of the computing that is not the generator's
	MedianAdded    float64            `json:"median_added_ns_per_event"`
	Queries        []QueryBaseline    `json:"queries"`
}

// QueryBaseline compares one query.
type QueryBaseline struct {
	Query    string  `json:"query"`
	About    string  `json:"about"`
	Events   uint64  `json:"events"` // of each run
	Ratio    Spread  `json:"ratio"`
	CPURatio Spread  `json:"cpu_ratio"`
	LeastCPU float64 `json:"least_cpu_ratio"`    // of the runs of both that computed least
	OwnRatio float64 `json:"own_cpu_ratio"`      // of events per second of the computing that is not the generator's; 0 if that cannot be told apart
	Added    Spread  `json:"added_ns_per_event"` // of computing, of the engine's that the plain program does not have
	Plain    []Trial `json:"plain"`
	Engine   []Trial `json:"engine"`
	Made     []Trial `json:"generator"` // the events, and nothing done with them
}

// PlainQueries lists the queries that there is a plain program for.
func PlainQueries() []string { return plain.Queries() }

// MeasureBaseline runs every query both ways, in turns. When ctx ends, it returns what is finished with the error of ctx.
func MeasureBaseline(ctx context.Context, o CompareOptions) (Baseline, error) {
	r := Baseline{
		Repeats: o.Repeats, Parallelism: o.Parallelism, Workers: o.Workers, IntervalMillis: o.Interval.Milliseconds(), Seed: o.Seed,
		Machine: ThisMachine(), Queries: []QueryBaseline{},
	}
	rng := rand.New(rand.NewPCG(o.Seed, o.Seed))
	for _, query := range o.Queries {
		q, err := o.baseline(ctx, rng, query)
		if err != nil {
			r.conclude()
			return r, err
		}
		r.Queries = append(r.Queries, q)
	}
	r.Complete = true
	r.conclude()
	return r, nil
}

// baseline compares one query.
func (o *CompareOptions) baseline(ctx context.Context, rng *rand.Rand, query string) (QueryBaseline, error) {
	r := QueryBaseline{Query: query}
	info, err := queryOf(query)
	if err != nil {
		return r, err
	}
	if _, err = o.plain(ctx, query, o.tryEvents()); err != nil {
		return r, err
	}
	warm, err := o.engine(ctx, query, o.tryEvents(), ExactlyOnce)
	if err != nil {
		return r, err
	}
	r.About, r.Events = info.About, o.eventsFor(&warm)
	trials, err := o.repeat(ctx, rng, 3, func(ctx context.Context, way int) (Trial, error) {
		switch way {
		case 0:
			return o.plain(ctx, query, r.Events)
		case 1:
			return o.engine(ctx, query, r.Events, ExactlyOnce)
		}
		return o.events(ctx, r.Events)
	})
	if err != nil {
		return r, err
	}
	r.Plain, r.Engine, r.Made = trials[0], trials[1], trials[2]
	for i := range r.Plain {
		if err := disagreement(query, "the plain program", r.Plain[i].Output, "the engine", r.Engine[i].Output); err != nil {
			return r, err
		}
	}
	r.Ratio, r.CPURatio = ratios(r.Engine, r.Plain, throughput), ratios(r.Engine, r.Plain, speedByCPU)
	r.LeastCPU = leastCPU(r.Plain) / leastCPU(r.Engine)
	r.own()
	o.Log("%-5s %8d events  plain %8.0f/s  engine %8.0f/s  ratio %.3f (%.3f to %.3f)  by CPU %.3f, least %.3f, without the events %.3f", query, r.Events,
		spread(r.Plain, throughput).Median, spread(r.Engine, throughput).Median, r.Ratio.Median, r.Ratio.Min, r.Ratio.Max, r.CPURatio.Median, r.LeastCPU,
		r.OwnRatio)
	return r, nil
}

// own compares what both compute beside making the events, which is most of some plain programs.
func (r *QueryBaseline) own() {
	var added []float64
	for i := range r.Plain {
		added = append(added, r.Engine[i].CPUNanos-r.Plain[i].CPUNanos)
	}
	r.Added = spreadOf(added)
	made := MedianCPU(r.Made)
	if p, e := MedianCPU(r.Plain)-made, MedianCPU(r.Engine)-made; p > 0 && e > 0 {
		r.OwnRatio = p / e
	}
}

// conclude works out the figures about all queries.
func (r *Baseline) conclude() {
	r.Ratios, r.CPURatios = map[string]float64{}, map[string]float64{}
	var all, cpu, least, own, added []float64
	var made []Trial
	for i := range r.Queries {
		q := &r.Queries[i]
		r.Ratios[q.Query], r.CPURatios[q.Query] = rounded(q.Ratio.Median), rounded(q.CPURatio.Median)
		all, cpu = append(all, q.Ratio.Median), append(cpu, q.CPURatio.Median)
		least, own, added = append(least, q.LeastCPU), append(own, q.OwnRatio), append(added, q.Added.Median)
		made = append(made, q.Made...)
		if i == 0 || q.Ratio.Median < r.WorstRatio {
			r.WorstRatio, r.WorstQuery = q.Ratio.Median, q.Query
		}
	}
	r.MedianRatio, r.MedianCPURatio, r.MedianLeastCPU = median(all), median(cpu), median(least)
	r.MedianOwnRatio, r.MedianAdded, r.Generator = median(own), median(added), MedianCPU(made)
}

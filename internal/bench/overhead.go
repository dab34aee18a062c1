package bench

import (
	"context"
	"math/rand/v2"
	"slices"
)

// Overhead is what logging costs. Losses are parts of the throughput: 0.03 means that 3% fewer events go through.
type Overhead struct {
	MedianLossFull          float64            `json:"median_loss_full"` // exactly-once at full depth against none: the median of all queries
	WorstLossFull           float64            `json:"worst_loss_full"`
	WorstQuery              string             `json:"worst_query"`
	MedianLossVsAtLeastOnce float64            `json:"median_loss_vs_at_least_once"` // of exactly-once at full depth
	MedianCPULossFull       float64            `json:"median_cpu_loss_full"`         // the same, of events per second of computing
	WorstCPULossFull        float64            `json:"worst_cpu_loss_full"`
	WorstCPUQuery           string             `json:"worst_cpu_query"`
	MedianLeastCPULossFull  float64            `json:"median_least_cpu_loss_full"`   // the same, of the run of each kind that computed least
	DeterminantBytes        map[string]float64 `json:"determinant_bytes_per_record"` // per event, by query, at full depth
	Complete                bool               `json:"complete"`                     // false: interrupted; the figures are about the queries that were finished
	Repeats                 int                `json:"repeats"`
	Parallelism             int                `json:"parallelism"`
	Workers                 int                `json:"workers"`
	IntervalMillis          int64              `json:"checkpoint_interval_ms"`
	Seed                    uint64             `json:"seed"`
	Machine                 Machine            `json:"machine"`
	Queries                 []QueryOverhead    `json:"queries"`
}

// QueryOverhead is what logging costs in one query.
type QueryOverhead struct {
	Query         string      `json:"query"`
	About         string      `json:"about"`
	Events        uint64      `json:"events"` // of each run
	LossFull      float64     `json:"loss_full"`
	LossFullCPU   float64     `json:"cpu_loss_full"`
	LossFullLeast float64     `json:"least_cpu_loss_full"`
	VsAtLeastOnce Spread      `json:"ratio_full_vs_at_least_once"`
	Arms          []ArmResult `json:"arms"`
}

// ArmResult is what was measured of one way of running a query.
type ArmResult struct {
	Arm      string  `json:"arm"`
	Speed    Spread  `json:"events_per_second"`
	Ratio    Spread  `json:"ratio"`           // of the throughput to that of none in the same repeat
	CPURatio Spread  `json:"cpu_ratio"`       // of events per second of computing
	LeastCPU float64 `json:"least_cpu_ratio"` // of the runs of both that computed least
	Trials   []Trial `json:"trials"`
}

// MeasureOverhead runs every query in all arms, in turns. When ctx ends, it returns what is finished with the error of ctx.
func MeasureOverhead(ctx context.Context, o CompareOptions) (Overhead, error) {
	r := Overhead{
		Repeats: o.Repeats, Parallelism: o.Parallelism, Workers: o.Workers, IntervalMillis: o.Interval.Milliseconds(), Seed: o.Seed,
		Machine: ThisMachine(), Queries: []QueryOverhead{},
	}
	rng := rand.New(rand.NewPCG(o.Seed, o.Seed))
	for _, query := range o.Queries {
		q, err := o.overhead(ctx, rng, query)
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

// overhead measures one query.
func (o *CompareOptions) overhead(ctx context.Context, rng *rand.Rand, query string) (QueryOverhead, error) {
	arms := Arms()
	r := QueryOverhead{Query: query}
	info, err := queryOf(query)
	if err != nil {
		return r, err
	}
	warm, err := o.engine(ctx, query, o.tryEvents(), ExactlyOnce)
	if err != nil {
		return r, err
	}
	r.About, r.Events = info.About, o.eventsFor(&warm)
	trials, err := o.repeat(ctx, rng, len(arms), func(ctx context.Context, way int) (Trial, error) {
		return o.engine(ctx, query, r.Events, arms[way])
	})
	if err != nil {
		return r, err
	}
	if Settled(info) || query == "q12" {
		for i := range arms {
			for _, t := range trials[i] {
				if err := disagreement(query, arms[0].Name, trials[0][0].Output, arms[i].Name, t.Output); err != nil {
					return r, err
				}
			}
		}
	}
	r.conclude(arms, trials)
	last := r.arm(ExactlyOnce)
	o.Log("%-5s %8d events  none %8.0f/s  at-least-once %.3f  depth 1 %.3f  2 %.3f  full %.3f (%.3f to %.3f)  by CPU %.3f, least %.3f", query, r.Events,
		r.Arms[0].Speed.Median, r.Arms[1].Ratio.Median, r.Arms[2].Ratio.Median, r.Arms[3].Ratio.Median, last.Ratio.Median,
		last.Ratio.Min, last.Ratio.Max, last.CPURatio.Median, last.LeastCPU)
	return r, nil
}

// conclude compares the arms, of which the first is None.
func (r *QueryOverhead) conclude(arms []Arm, trials [][]Trial) {
	for i, arm := range arms {
		r.Arms = append(r.Arms, ArmResult{
			Arm: arm.Name, Speed: spread(trials[i], throughput), Trials: trials[i],
			Ratio: ratios(trials[i], trials[0], throughput), CPURatio: ratios(trials[i], trials[0], speedByCPU),
			LeastCPU: leastCPU(trials[0]) / leastCPU(trials[i]),
		})
	}
	full, once := r.arm(ExactlyOnce), r.arm(AtLeastOnce)
	r.LossFull, r.LossFullCPU = 1-full.Ratio.Median, 1-full.CPURatio.Median
	r.LossFullLeast = 1 - full.LeastCPU
	r.VsAtLeastOnce = ratios(full.Trials, once.Trials, throughput)
}

// arm finds the result of an arm.
func (r *QueryOverhead) arm(a Arm) *ArmResult {
	i := slices.IndexFunc(r.Arms, func(x ArmResult) bool { return x.Arm == a.Name })
	return &r.Arms[i]
}

// conclude works out the figures about all queries.
func (r *Overhead) conclude() {
	r.DeterminantBytes = map[string]float64{}
	var loss, cpu, least, once []float64
	for i := range r.Queries {
		q := &r.Queries[i]
		r.DeterminantBytes[q.Query] = rounded(spread(q.arm(ExactlyOnce).Trials, func(t *Trial) float64 { return t.DeterminantBytes }).Median)
		loss, cpu, once = append(loss, q.LossFull), append(cpu, q.LossFullCPU), append(once, 1-q.VsAtLeastOnce.Median)
		least = append(least, q.LossFullLeast)
		if i == 0 || q.LossFull > r.WorstLossFull {
			r.WorstLossFull, r.WorstQuery = q.LossFull, q.Query
		}
		if i == 0 || q.LossFullCPU > r.WorstCPULossFull {
			r.WorstCPULossFull, r.WorstCPUQuery = q.LossFullCPU, q.Query
		}
	}
	r.MedianLossFull, r.MedianCPULossFull, r.MedianLossVsAtLeastOnce = median(loss), median(cpu), median(once)
	r.MedianLeastCPULossFull = median(least)
}

// Typical has the medians of what exactly-once at full depth keeps: determinants, output, checkpoints.
func (r *QueryOverhead) Typical() Trial {
	trials := r.arm(ExactlyOnce).Trials
	of := func(figure func(*Trial) float64) float64 { return spread(trials, figure).Median }
	return Trial{
		DeterminantBytes: of(func(t *Trial) float64 { return t.DeterminantBytes }),
		InflightPeak:     int64(of(func(t *Trial) float64 { return float64(t.InflightPeak) })),
		CheckpointBytes:  int64(of(func(t *Trial) float64 { return float64(t.CheckpointBytes) })),
		CheckpointMillis: of(func(t *Trial) float64 { return t.CheckpointMillis }),
	}
}

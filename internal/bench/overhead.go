package bench

import (
	"context"
	"fmt"
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
	MedianLeastCPULossFull  float64            `json:"median_least_cpu_loss_full"` // the same, of the run of each kind that computed least
	Control                 *Control           `json:"control,omitempty"`
	DeterminantBytes        map[string]float64 `json:"determinant_bytes_per_record"` // per event, by query, at full depth
	Complete                bool               `json:"complete"`                     // false: interrupted; the figures are about the queries that were finished
	Repeats                 int                `json:"repeats"`                      // of each query, but for those that looked worst
	WorstRepeats            int                `json:"worst_repeats"`                // of WorstQuery at least, if Complete
	Parallelism             int                `json:"parallelism"`
	Workers                 int                `json:"workers"`
	IntervalMillis          int64              `json:"checkpoint_interval_ms"`
	Seed                    uint64             `json:"seed"`
	Machine                 Machine            `json:"machine"`
	Queries                 []QueryOverhead    `json:"queries"`
}

// Control has the figures that Overhead has of logging of None against itself, which should be zero. What logging costs is known no better.
type Control struct {
	MedianLoss    float64 `json:"median_loss"`
	WorstLoss     float64 `json:"worst_loss"`
	WorstQuery    string  `json:"worst_query"`
	MedianCPULoss float64 `json:"median_cpu_loss"`
	WorstCPULoss  float64 `json:"worst_cpu_loss"`
	WorstCPUQuery string  `json:"worst_cpu_query"`
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

// MeasureOverhead runs every query in all arms, in turns. Of twenty queries measured a few times each, the one that looks worst mostly
// had bad luck; so the one that looks worst is measured on, by Repeats each time, until the worst was measured WorstRepeats times. When ctx
// ends, it returns what is finished with the error of ctx.
func MeasureOverhead(ctx context.Context, o CompareOptions) (Overhead, error) {
	r := Overhead{
		Repeats: o.Repeats, WorstRepeats: o.WorstRepeats, Parallelism: o.Parallelism, Workers: o.Workers, IntervalMillis: o.Interval.Milliseconds(), Seed: o.Seed,
		Machine: ThisMachine(), Queries: []QueryOverhead{},
	}
	if o.Control {
		r.Control = &Control{}
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
	r.conclude()
	for worst := r.worst(); worst != nil && len(worst.Arms[0].Trials) < o.WorstRepeats; worst = r.worst() {
		if err := o.measure(ctx, rng, worst); err != nil {
			return r, err
		}
		r.conclude()
	}
	r.Complete = true
	return r, nil
}

// arms are the ways in which a query is run, None first.
func (o *CompareOptions) arms() []Arm {
	if o.Control {
		return append(Arms(), Again)
	}
	return Arms()
}

// overhead measures one query.
func (o *CompareOptions) overhead(ctx context.Context, rng *rand.Rand, query string) (QueryOverhead, error) {
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
	for _, arm := range o.arms() {
		r.Arms = append(r.Arms, ArmResult{Arm: arm.Name})
	}
	return r, o.measure(ctx, rng, &r)
}

// measure measures a query, some more times if it was before. If it fails, the query is as it was.
func (o *CompareOptions) measure(ctx context.Context, rng *rand.Rand, r *QueryOverhead) error {
	info, err := queryOf(r.Query)
	if err != nil {
		return err
	}
	arms := o.arms()
	trials, err := o.repeat(ctx, rng, len(arms), func(ctx context.Context, way int) (Trial, error) {
		return o.engine(ctx, r.Query, r.Events, arms[way])
	})
	if err != nil {
		return err
	}
	if Settled(info) || r.Query == "q12" {
		for i := range arms {
			for _, t := range trials[i] {
				if err := disagreement(r.Query, arms[0].Name, trials[0][0].Output, arms[i].Name, t.Output); err != nil {
					return err
				}
			}
		}
	}
	for i := range arms {
		r.Arms[i].Trials = append(r.Arms[i].Trials, trials[i]...)
	}
	r.conclude()
	last, control := r.arm(ExactlyOnce), ""
	if again := r.arm(Again); again != nil {
		control = fmt.Sprintf("  none again %.3f, by CPU %.3f", again.Ratio.Median, again.CPURatio.Median)
	}
	o.Log("%-5s %8d events, %d times  none %8.0f/s  at-least-once %.3f  depth 1 %.3f  2 %.3f  full %.3f (%.3f to %.3f)  by CPU %.3f, least %.3f%s", r.Query, r.Events,
		len(last.Trials), r.Arms[0].Speed.Median, r.Arms[1].Ratio.Median, r.Arms[2].Ratio.Median, r.Arms[3].Ratio.Median, last.Ratio.Median,
		last.Ratio.Min, last.Ratio.Max, last.CPURatio.Median, last.LeastCPU, control)
	return nil
}

// conclude compares the arms, of which the first is None.
func (r *QueryOverhead) conclude() {
	none := r.Arms[0].Trials
	for i := range r.Arms {
		a := &r.Arms[i]
		a.Speed, a.LeastCPU = spread(a.Trials, throughput), leastCPU(none)/leastCPU(a.Trials)
		a.Ratio, a.CPURatio = ratios(a.Trials, none, throughput), ratios(a.Trials, none, speedByCPU)
	}
	full, once := r.arm(ExactlyOnce), r.arm(AtLeastOnce)
	r.LossFull, r.LossFullCPU = 1-full.Ratio.Median, 1-full.CPURatio.Median
	r.LossFullLeast = 1 - full.LeastCPU
	r.VsAtLeastOnce = ratios(full.Trials, once.Trials, throughput)
}

// arm finds the result of an arm; nil if it was not run.
func (r *QueryOverhead) arm(a Arm) *ArmResult {
	i := slices.IndexFunc(r.Arms, func(x ArmResult) bool { return x.Arm == a.Name })
	if i < 0 {
		return nil
	}
	return &r.Arms[i]
}

// Compared names the arms that are compared with None.
func (r *Overhead) Compared() (names []string) {
	for _, a := range Arms()[1:] {
		names = append(names, a.Name)
	}
	if r.Control != nil {
		names = append(names, Again.Name)
	}
	return names
}

// worst is the query that loses most at full depth; nil of none.
func (r *Overhead) worst() (worst *QueryOverhead) {
	for i := range r.Queries {
		if q := &r.Queries[i]; worst == nil || q.LossFull > worst.LossFull {
			worst = q
		}
	}
	return worst
}

// losses are the median and the greatest of what an arm loses against None, and the query that loses most.
func (r *Overhead) losses(arm Arm, ratio func(*ArmResult) *Spread) (mid, worst float64, query string) {
	var all []float64
	for i := range r.Queries {
		loss := 1 - ratio(r.Queries[i].arm(arm)).Median
		if all = append(all, loss); i == 0 || loss > worst {
			worst, query = loss, r.Queries[i].Query
		}
	}
	return median(all), worst, query
}

// MeasuredOn tells which queries were measured more often than the others, and how often.
func (r *Overhead) MeasuredOn() (told []string) {
	for i := range r.Queries {
		if n := len(r.Queries[i].Arms[0].Trials); n > r.Repeats {
			told = append(told, fmt.Sprintf("%s (%d times)", r.Queries[i].Query, n))
		}
	}
	return told
}

// conclude works out the figures about all queries.
func (r *Overhead) conclude() {
	r.DeterminantBytes = map[string]float64{}
	var least, once []float64
	for i := range r.Queries {
		q := &r.Queries[i]
		r.DeterminantBytes[q.Query] = rounded(spread(q.arm(ExactlyOnce).Trials, func(t *Trial) float64 { return t.DeterminantBytes }).Median)
		least, once = append(least, q.LossFullLeast), append(once, 1-q.VsAtLeastOnce.Median)
	}
	wall, cpu := func(a *ArmResult) *Spread { return &a.Ratio }, func(a *ArmResult) *Spread { return &a.CPURatio }
	r.MedianLossFull, r.WorstLossFull, r.WorstQuery = r.losses(ExactlyOnce, wall)
	r.MedianCPULossFull, r.WorstCPULossFull, r.WorstCPUQuery = r.losses(ExactlyOnce, cpu)
	r.MedianLeastCPULossFull, r.MedianLossVsAtLeastOnce = median(least), median(once)
	if c := r.Control; c != nil {
		c.MedianLoss, c.WorstLoss, c.WorstQuery = r.losses(Again, wall)
		c.MedianCPULoss, c.WorstCPULoss, c.WorstCPUQuery = r.losses(Again, cpu)
	}
}

// Typical has the medians of what an arm keeps: determinants, output, checkpoints.
func (r *QueryOverhead) Typical(a Arm) Trial {
	trials := r.arm(a).Trials
	of := func(figure func(*Trial) float64) float64 { return spread(trials, figure).Median }
	return Trial{
		DeterminantBytes: of(func(t *Trial) float64 { return t.DeterminantBytes }),
		InflightPeak:     int64(of(func(t *Trial) float64 { return float64(t.InflightPeak) })),
		Checkpoints:      int(of(func(t *Trial) float64 { return float64(t.Checkpoints) })),
		CheckpointBytes:  int64(of(func(t *Trial) float64 { return float64(t.CheckpointBytes) })),
		CheckpointMillis: of(func(t *Trial) float64 { return t.CheckpointMillis }),
	}
}

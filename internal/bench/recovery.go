package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
)

// Experiment is a way of killing.
type Experiment string

// The experiments. With three stateful maps: one worker at a time, again and again; three workers in a row, each while the one before is
// being recovered; three at once. With a query of Nexmark: one worker at a time, again and again.
const (
	Single   Experiment = "single"
	Row      Experiment = "row"
	Together Experiment = "together"
	Q3       Experiment = "q3"
	Q8       Experiment = "q8"
)

// Experiments lists them.
func Experiments() []Experiment { return []Experiment{Single, Row, Together, Q3, Q8} }

// RecoveryOptions are those of an experiment.
type RecoveryOptions struct {
	Experiment  Experiment
	Kills       int // of Single, Q3 and Q8
	Workers     int
	Parallelism int
	Rate        uint64 // records per second; 0: half of what a run without pacing gives
	// Calibration is how many records each run without pacing has.
	Calibration uint64
	// StateMB is how much state there is, about. Q3's is that of the events that have been before the pace begins, so much takes a
	// while to come; Q8's is what is in a window of event time, so it sets how fast that passes, up to MaxStateMBOfQ8.
	StateMB  int
	Interval time.Duration // of checkpoints
	// Before and After are how long the job runs under load before the first kill and after the last, at least.
	Before, After time.Duration
	// Settle is how long a kill waits for the job to be settled, at most: see killer.
	Settle time.Duration
	Seed   uint64
	Dir    string // must be empty
	Log    func(format string, args ...any)
}

// Recovery is what an experiment measured. Times are milliseconds; -1 where there is nothing to measure.
type Recovery struct {
	Experiment      Experiment `json:"experiment"`
	Kills           int        `json:"kills"`
	FullRate        uint64     `json:"full_rate,omitempty"`  // records per second without pacing: the median of FullRates
	FullRates       []uint64   `json:"full_rates,omitempty"` // in ascending order
	Rate            uint64     `json:"rate"`
	FirstOutputP50  float64    `json:"first_output_ms_p50"` // from kill -9 to the first new line of a partition whose task died
	FirstOutputP99  float64    `json:"first_output_ms_p99"`
	NoticedP50      float64    `json:"noticed_ms_p50"`
	NoticedP90      float64    `json:"noticed_ms_p90"`
	Phases          Phases     `json:"phases_ms_p50"`
	PhasesP90       Phases     `json:"phases_ms_p90"`
	NoOutputMax     float64    `json:"no_output_ms_max_unaffected"` // the longest gap of a partition that lost no task, while it had something to show
	NoOutputBefore  float64    `json:"no_output_ms_max_before"`     // the longest of any, in the time before the first kill: what is normal
	LatencyP50      float64    `json:"latency_ms_p50_100s"`         // from due to visible, in the 100 s after the first kill
	LatencyP99      float64    `json:"latency_ms_p99_100s"`
	LatencyBefore   float64    `json:"latency_ms_p50_before"`
	BackToNormal    float64    `json:"back_to_normal_ms"` // the last kill's, see the definition in the output
	TasksRestarted  int        `json:"tasks_restarted"`
	TasksLost       int        `json:"tasks_lost"`
	Rollbacks       int        `json:"global_rollbacks"`
	Records         uint64     `json:"records"`
	Lost            uint64     `json:"lost"`
	Duplicates      uint64     `json:"duplicates"`
	StateMB         int        `json:"state_mb"`
	CheckpointBytes int64      `json:"checkpoint_bytes"`
	Unsettled       int        `json:"kills_unsettled"` // of a job that had not settled in time
	// Busy and Stolen are how much of the processors' time this machine used while the paced job ran, from the start of its processes to their end, and
	// how much its host took for others; -1 if the system does not tell.
	Busy    float64    `json:"processors_busy_percent"`
	Stolen  float64    `json:"processors_stolen_percent"`
	PerKill []KillTime `json:"per_kill"`
	Machine Machine    `json:"machine"`

	curve []instant
}

// Phases are how far a restarted task was, counted from kill -9: a quantile over all of them, -1 where there is none.
type Phases struct {
	Decided     float64 `json:"decided"`
	Collected   float64 `json:"collected"`
	Restored    float64 `json:"restored"`
	Replayed    float64 `json:"replayed"`
	FirstOutput float64 `json:"first_output"`
	CaughtUp    float64 `json:"caught_up"`
}

// KillTime is one kill, as seen from outside.
type KillTime struct {
	At          float64   `json:"at_s"` // since the first record was due
	Processes   []string  `json:"processes"`
	Settled     bool      `json:"settled"`                 // the job was, when it was killed
	Unsettled   string    `json:"unsettled,omitempty"`     // why it was not
	Waited      float64   `json:"waited_s"`                // for it to settle, since the kill before
	TasksLost   int       `json:"tasks_lost"`              // that ran on what was killed
	Partitions  []string  `json:"partitions"`              // whose tasks died
	FirstOutput []float64 `json:"first_output_ms"`         // of these, unless none came any more
	Unaffected  float64   `json:"no_output_ms_unaffected"` // -1: all died, if not by this kill, then by one just before or after
}

// Definition says what BackToNormal means.
const Definition = "back to normal: from the last kill until the rolling median over 1 s of the latency from due to visible is within 10% of (or 1 ms from) the median before the first kill, and stays so for 1 s"

const (
	calibrations = 3 // an odd number
	connected    = 3 // kills of Row and Together
	rowStep      = 300 * time.Millisecond
	around       = 2500 * time.Millisecond // a kill, in which another may be what a partition died by
	consequences = 10 * time.Second        // after a kill, in which gaps are looked for
	reportAfter  = 100 * time.Second
	slack        = 1.2                     // more records than the longest run needs
	untilStart   = 1500 * time.Millisecond // from the start of the processes to when the first record is due
	upToDate     = 2 * time.Second         // behind what is due: statuses come late
	leastAfter   = 2 * time.Second         // from the last kill to the end: see endAt
	catchingUp   = 1.5                     // times as long as it should take at the start
)

// What the state of the queries comes to, as measured: bytes in checkpoints.
const (
	q3BytesPerEvent = 0.37 // that there has been
	q8BytesPerRate  = 11.0 // per event and second of event time
	// MaxStateMBOfQ8 is the state at the fastest event time that the generator knows.
	MaxStateMBOfQ8 = 11
	fastestTime    = 1_000_000 // events per second of event time
)

// spec is the job of an experiment, and how many events come before the pace begins.
func (o *RecoveryOptions) spec() (s Spec, history uint64) {
	s = Spec{Parallelism: o.Parallelism, Workers: o.Workers, IntervalMS: o.Interval.Milliseconds()}
	switch o.Experiment {
	case Q3:
		s.Query = Q3
		history = uint64(float64(o.StateMB) * 1e6 / q3BytesPerEvent)
	case Q8:
		s.Query = Q8
		s.EventRate = min(uint64(float64(o.StateMB)*1e6/q8BytesPerRate), fastestTime)
	default:
		s.Keys, s.StateBytes = 10_000, o.StateMB*1_000_000/3/10_000
	}
	return s, history
}

// Recover runs an experiment.
func Recover(ctx context.Context, o RecoveryOptions) (Recovery, error) {
	r := Recovery{Experiment: o.Experiment, Rate: o.Rate, StateMB: o.StateMB, BackToNormal: -1, NoOutputMax: -1, NoOutputBefore: -1, Machine: ThisMachine()}
	spec, history := o.spec()
	if r.Rate == 0 || history > 0 {
		var err error
		if r.FullRates, err = o.fullRates(ctx, spec); err != nil {
			return r, fmt.Errorf("bench: without pacing: %w", err)
		}
		r.FullRate = r.FullRates[len(r.FullRates)/2]
	}
	switch {
	case r.Rate == 0:
		r.Rate = r.FullRate / 2
	case history > 0 && r.Rate >= r.FullRate:
		return r, fmt.Errorf("bench: %d records per second are due, but only %d go through: the job would never catch up", r.Rate, r.FullRate)
	}
	run := pacedRun{o: &o, spec: spec, history: history}
	run.spec.Rate, run.spec.Dir, run.spec.Ends = r.Rate, o.Dir+"/paced", true
	if history > 0 { // while what has been before comes, at full speed, more comes due
		run.catchUp = time.Duration(float64(history) / float64(r.FullRate-r.Rate) * float64(time.Second))
	}
	run.spec.Records = history + uint64(run.longest().Seconds()*float64(r.Rate)*slack)
	o.Log("%d records per second, %d records before the pace begins, %d kills, each when the job has settled", r.Rate, history, o.kills())
	if err := run.run(ctx); err != nil {
		return r, err
	}
	r.Records, r.CheckpointBytes = run.sent, run.checkpointBytes
	r.Busy, r.Stolen = run.busy, run.stolen
	r.measure(&run)
	return r, nil
}

// fullRates measures some times how many records per second go through without pacing: once a machine may be half as fast again as at all other
// times, and half of that is not half load. The output is watched as it is when it is measured.
func (o *RecoveryOptions) fullRates(ctx context.Context, full Spec) (rates []uint64, err error) {
	o.Log("measuring how much goes through without pacing (%d times %d records)", calibrations, o.Calibration)
	for i := range calibrations {
		full.Records, full.Dir, full.Start, full.Try = o.Calibration, fmt.Sprintf("%s/full-%d", o.Dir, i), time.Now().UnixMilli(), i
		w := watch(&full)
		sum, err := full.Run(ctx, understudy.Processes{})
		if err = errors.Join(err, w.finish()); err != nil {
			return nil, err
		}
		rates = append(rates, uint64(float64(full.Records)/sum.Seconds))
	}
	slices.Sort(rates)
	return rates, nil
}

// pacedRun is a run under load, in which workers are killed, and what came of it.
type pacedRun struct {
	o       *RecoveryOptions
	spec    Spec          // of Records it has more than are ever sent, unless it takes longer than it may
	history uint64        // records before the pace begins
	catchUp time.Duration // how long they take

	sent            uint64 // records
	sum             understudy.ClusterSummary
	w               *watcher
	kills           []kill
	checkpointBytes int64
	busy, stolen    float64 // percent
}

// patience is how long after the start the job must have caught up with its pace.
func (p *pacedRun) patience() time.Duration {
	return time.Duration(float64(p.catchUp)*catchingUp) + p.o.Settle
}

// longest is how long a run takes at most.
func (p *pacedRun) longest() time.Duration {
	return untilStart + p.patience() + p.o.Before + time.Duration(p.o.kills())*(p.o.Settle+p.o.Interval+rowStep) + max(p.o.After, leastAfter)
}

// run runs the job, watches its output, kills, and says when it is over.
func (p *pacedRun) run(ctx context.Context) error {
	s := &p.spec
	start := time.Now().Add(untilStart)
	s.Start = start.Add(-time.Duration(float64(p.history) / float64(s.Rate) * float64(time.Second))).UnixMilli()
	k := newKiller(p.o, s.sinkName(), func(now time.Time) uint64 {
		return p.history + uint64(max(0, now.Sub(start)-upToDate).Seconds()*float64(s.Rate))
	}, start.Add(p.patience()))
	l, target := newLookout(), make(chan cluster.Target)
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	killing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	p.sent = s.Records
	go func() {
		defer close(done)
		if last, err := follow(killing, k, l.newest, target); err == nil {
			if err := p.end(last.Add(max(p.o.After, leastAfter))); err != nil {
				fail(err)
			}
		}
	}()
	p.w = watch(s)
	before := processors()
	var err error
	p.sum, err = s.Run(ctx, understudy.Processes{Kill: target, Event: l.event, Status: func(st understudy.Status) {
		p.checkpointBytes = max(p.checkpointBytes, st.Checkpoint.Bytes)
		l.look(time.Now(), &st)
	}})
	p.busy, p.stolen = processors().since(before)
	stop()
	<-done
	if p.kills = k.done; len(p.kills) < p.o.kills() && err == nil {
		p.o.Log("all records were processed before %d kills were made: the job took longer than it should", p.o.kills())
	}
	if err = errors.Join(err, p.w.finish()); err != nil {
		return err
	}
	return p.account(ctx)
}

// end ends the job with what is due by then.
func (p *pacedRun) end(due time.Time) error {
	n := uint64(due.Sub(time.UnixMilli(p.spec.Start)).Seconds() * float64(p.spec.Rate))
	if n >= p.spec.Records {
		return nil // it ends by itself before
	}
	p.sent = n
	return endAt(p.spec.end(), n, due)
}

// account compares what was seen with what was sent.
func (p *pacedRun) account(ctx context.Context) error {
	if p.spec.Query == "" {
		p.w.end(p.sent)
		return nil
	}
	p.o.Log("working out which rows should have come of %d records", p.sent)
	s := p.spec
	s.Records = p.sent
	g, err := newGolden(ctx, &s)
	if err != nil {
		return err
	}
	return p.w.resolve(g)
}

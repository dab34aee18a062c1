package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	// StateMB is how much state there is, about. Q3's is that of the events that have been before the pace begins, so much takes a
	// while to come; Q8's is what is in a window of event time, so it sets how fast that passes, up to MaxStateMBOfQ8.
	StateMB  int
	Interval time.Duration // of checkpoints
	// Before and After are how long the job runs under load before the first kill and after the last.
	Before, After time.Duration
	Seed          uint64
	Dir           string // must be empty
	Log           func(format string, args ...any)
}

// Recovery is what an experiment measured. Times are milliseconds; -1 where there is nothing to measure.
type Recovery struct {
	Experiment      Experiment `json:"experiment"`
	Kills           int        `json:"kills"`
	FullRate        uint64     `json:"full_rate,omitempty"` // records per second without pacing
	Rate            uint64     `json:"rate"`
	FirstOutputP50  float64    `json:"first_output_ms_p50"` // from kill -9 to the first new line of a partition whose task died
	FirstOutputP99  float64    `json:"first_output_ms_p99"`
	NoticedP50      float64    `json:"noticed_ms_p50"`
	Phases          Phases     `json:"phases_ms_p50"`
	NoOutputMax     float64    `json:"no_output_ms_max_unaffected"` // the longest gap of a partition that lost no task, while it had something to show
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
	PerKill         []KillTime `json:"per_kill"`
	Machine         Machine    `json:"machine"`

	curve []instant
}

// Phases are how far a restarted task was, counted from kill -9; medians over all of them.
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
	Partitions  []string  `json:"partitions"` // whose tasks died
	FirstOutput []float64 `json:"first_output_ms"`
	Unaffected  float64   `json:"no_output_ms_unaffected"`
}

// Definition says what BackToNormal means.
const Definition = "back to normal: from the last kill until the rolling median over 1 s of the latency from due to visible is within 10% of (or 1 ms from) the median before the first kill, and stays so for 1 s"

const (
	calibration = 3_000_000       // records
	spacing     = 3 * time.Second // between kills of Single, plus up to one checkpoint interval
	inARow      = 300 * time.Millisecond
	around      = 2500 * time.Millisecond // after a kill, in which gaps are looked for
	reportAfter = 100 * time.Second
	slack       = 1.2 // more records than the plan needs
	finestGap   = 5 * time.Millisecond
	untilStart  = 1500 * time.Millisecond // from the start of the processes to when the first record is due
	upToDate    = 2 * time.Second         // behind what is due: statuses come late
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
	r := Recovery{Experiment: o.Experiment, Rate: o.Rate, StateMB: o.StateMB, BackToNormal: -1, NoOutputMax: -1, Machine: ThisMachine()}
	spec, history := o.spec()
	if r.Rate == 0 || history > 0 {
		full := spec
		full.Records, full.Dir = calibration, o.Dir+"/full"
		o.Log("measuring how much goes through without pacing (%d records)", full.Records)
		sum, err := full.Run(ctx, understudy.Processes{})
		if err != nil {
			return r, fmt.Errorf("bench: without pacing: %w", err)
		}
		r.FullRate = uint64(float64(full.Records) / sum.Seconds)
	}
	switch {
	case r.Rate == 0:
		r.Rate = r.FullRate / 2
	case history > 0 && r.Rate >= r.FullRate:
		return r, fmt.Errorf("bench: %d records per second are due, but only %d go through: the job would never catch up", r.Rate, r.FullRate)
	}
	schedule := o.schedule()
	length := schedule[len(schedule)-1].after + o.After + 2*time.Second
	spec.Rate, spec.Dir = r.Rate, o.Dir+"/paced"
	spec.Records = uint64(length.Seconds() * float64(r.Rate) * slack)
	if history > 0 { // while what has been before comes, at full speed, more comes due
		spec.Records += history + uint64(float64(history)*float64(r.Rate)/float64(r.FullRate-r.Rate))
	}
	r.Records = spec.Records
	o.Log("%d records at %d per second, %d of them before the pace begins, %d kills", spec.Records, r.Rate, history, len(schedule))
	sum, w, err := paced(ctx, &spec, history, schedule, &r)
	if err != nil {
		return r, err
	}
	r.measure(&sum, w, spec.sinkName())
	return r, nil
}

// appointment is a kill to come.
type appointment struct {
	after time.Duration // since the job began to run
	names []string
}

func (o *RecoveryOptions) schedule() []appointment {
	rng := rand.New(rand.NewPCG(o.Seed, o.Seed))
	at := o.Before
	name := func(i int) string { return fmt.Sprintf("worker-%d", i%o.Workers) }
	var s []appointment
	switch o.Experiment {
	case Row:
		for i := range 3 {
			s = append(s, appointment{after: at + time.Duration(i)*inARow, names: []string{name(i)}})
		}
	case Together:
		s = append(s, appointment{after: at, names: []string{name(0), name(1), name(2)}})
	default:
		for range o.Kills {
			s = append(s, appointment{after: at, names: []string{name(rng.IntN(o.Workers))}})
			at += spacing + time.Duration(rng.Int64N(int64(o.Interval)+1))
		}
	}
	return s
}

// paced runs the job, watches its output and kills by the schedule, from when the job has caught up with what is due.
func paced(ctx context.Context, s *Spec, history uint64, schedule []appointment, r *Recovery) (understudy.ClusterSummary, *watcher, error) {
	expect, read := s.Records, tickLine
	var g *golden
	if s.Query != "" {
		var err error
		if g, err = newGolden(ctx, s); err != nil {
			return understudy.ClusterSummary{}, nil, err
		}
		expect, read = uint64(len(g.rows)), g.read
	}
	past := time.Duration(float64(history) / float64(s.Rate) * float64(time.Second))
	start := time.Now().Add(untilStart)
	if g != nil {
		s.Start = start.Add(-past).UnixMilli()
		g.start = s.Start
	}
	kill := make(chan cluster.Target)
	running := make(chan struct{})
	began := false
	p := understudy.Processes{Kill: kill, Status: func(st understudy.Status) {
		r.CheckpointBytes = max(r.CheckpointBytes, st.Checkpoint.Bytes)
		due := history + uint64(max(0, time.Since(start)-upToDate).Seconds()*float64(s.Rate))
		if !began && st.Summary.RecordsOut > 0 && st.Summary.RecordsIn >= due {
			began = true
			close(running)
		}
	}}
	killing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		follow(killing, schedule, running, kill)
	}()
	w := watch(s.output(), expect, read)
	sum, err := s.Run(ctx, p)
	stop()
	<-done
	return sum, w, errors.Join(err, w.finish())
}

// follow kills by the schedule.
func follow(ctx context.Context, schedule []appointment, running <-chan struct{}, kill chan<- cluster.Target) {
	select {
	case <-running:
	case <-ctx.Done():
		return
	}
	start := time.Now()
	for _, a := range schedule {
		wait := time.NewTimer(time.Until(start.Add(a.after)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		for _, name := range a.names {
			select {
			case kill <- cluster.Target(name):
			case <-ctx.Done():
				return
			}
		}
	}
}

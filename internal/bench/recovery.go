package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
)

// Experiment is a way of killing.
type Experiment string

// The experiments: one worker at a time, again and again; three workers in a row, each while the one before is being recovered;
// three at once.
const (
	Single   Experiment = "single"
	Row      Experiment = "row"
	Together Experiment = "together"
)

// RecoveryOptions are those of an experiment.
type RecoveryOptions struct {
	Experiment  Experiment
	Kills       int // of Single
	Workers     int
	Parallelism int
	Rate        uint64 // records per second; 0: half of what a run without pacing gives
	StateMB     int
	Interval    time.Duration // of checkpoints
	Seed        uint64
	Dir         string // must be empty
	Log         func(format string, args ...any)
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
	NoOutputMax     float64    `json:"no_output_ms_max_unaffected"` // the longest gap of a partition that lost no task
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
	calibration = 3_000_000 // records
	warmUp      = 8 * time.Second
	spacing     = 3 * time.Second // between kills of Single, plus up to one checkpoint interval
	inARow      = 300 * time.Millisecond
	coolDown    = 6 * time.Second
	around      = 2500 * time.Millisecond // after a kill, in which gaps are looked for
	reportAfter = 100 * time.Second
	slack       = 1.2 // more records than the plan needs
	finestGap   = 5 * time.Millisecond
)

// Recover runs an experiment.
func Recover(ctx context.Context, o RecoveryOptions) (Recovery, error) {
	r := Recovery{Experiment: o.Experiment, Rate: o.Rate, StateMB: o.StateMB, BackToNormal: -1, NoOutputMax: -1}
	spec := Spec{
		Parallelism: o.Parallelism, Workers: o.Workers, Keys: 10_000, IntervalMS: o.Interval.Milliseconds(),
		StateBytes: o.StateMB * 1_000_000 / 3 / 10_000,
	}
	if r.Rate == 0 {
		full := spec
		full.Records, full.Dir = calibration, o.Dir+"/full"
		o.Log("measuring how much goes through without pacing (%d records)", full.Records)
		sum, err := full.Run(ctx, understudy.Processes{})
		if err != nil {
			return r, fmt.Errorf("bench: without pacing: %w", err)
		}
		r.FullRate = uint64(float64(full.Records) / sum.Seconds)
		r.Rate = r.FullRate / 2
	}
	schedule := o.schedule()
	length := schedule[len(schedule)-1].after + coolDown + 2*time.Second
	spec.Rate, spec.Dir = r.Rate, o.Dir+"/paced"
	spec.Records = uint64(length.Seconds() * float64(r.Rate) * slack)
	r.Records = spec.Records
	o.Log("%d records at %d per second, %d kills", spec.Records, r.Rate, len(schedule))
	sum, w, err := paced(ctx, &spec, schedule, &r)
	if err != nil {
		return r, err
	}
	r.measure(&sum, w)
	return r, nil
}

// appointment is a kill to come.
type appointment struct {
	after time.Duration // since the job began to run
	names []string
}

func (o *RecoveryOptions) schedule() []appointment {
	rng := rand.New(rand.NewPCG(o.Seed, o.Seed))
	at := warmUp
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

// paced runs the job, watches its output and kills by the schedule.
func paced(ctx context.Context, s *Spec, schedule []appointment, r *Recovery) (understudy.ClusterSummary, *watcher, error) {
	kill := make(chan cluster.Target)
	running := make(chan struct{})
	began := false
	p := understudy.Processes{Kill: kill, Status: func(st understudy.Status) {
		r.CheckpointBytes = max(r.CheckpointBytes, st.Checkpoint.Bytes)
		if !began && st.Summary.RecordsOut > 0 {
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
	w := watch(s.output(), s.Records)
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

// measure works out the figures from what was seen.
func (r *Recovery) measure(sum *understudy.ClusterSummary, w *watcher) {
	r.TasksRestarted, r.TasksLost, r.Rollbacks = sum.TasksRestarted, sum.TasksLost, sum.Rollbacks
	r.Lost, r.Duplicates = w.lost(), w.duplicates+w.strange
	slices.SortFunc(w.lines, func(a, b visible) int { return cmp.Compare(a.at, b.at) })
	if len(w.lines) == 0 || len(sum.Acts) == 0 {
		return
	}
	var noticed, first []float64
	zero := w.lines[0].due
	for i, act := range sum.Acts {
		k := KillTime{At: float64(act.At-zero) / 1e6, Processes: act.Processes, Partitions: []string{}, FirstOutput: []float64{}}
		dead := map[string]bool{}
		for j := range sum.Recoveries {
			rec := &sum.Recoveries[j]
			if rec.Act != i || rec.Moved {
				continue
			}
			noticed = append(noticed, rec.Noticed)
			if at := strings.LastIndexByte(rec.Name, '['); strings.Contains(rec.Name, "visible") && at > 0 {
				var index int
				if _, err := fmt.Sscanf(rec.Name[at:], "[%d]", &index); err == nil {
					dead[fmt.Sprintf("part-%05d.jsonl", index)] = true
				}
			}
		}
		for _, p := range w.parts {
			longest, end := p.gap(act.At, act.At+around.Microseconds())
			if !dead[p.name] {
				k.Unaffected = max(k.Unaffected, float64(longest)/1000)
				continue
			}
			after := 0.0
			if longest > finestGap.Microseconds() {
				after = float64(end-act.At) / 1000
			}
			k.Partitions, k.FirstOutput = append(k.Partitions, p.name), append(k.FirstOutput, after)
			first = append(first, after)
		}
		r.NoOutputMax = max(r.NoOutputMax, k.Unaffected)
		r.PerKill = append(r.PerKill, k)
	}
	r.Kills = len(sum.Acts)
	r.FirstOutputP50, r.FirstOutputP99 = quantile(first, 0.5), quantile(first, 0.99)
	r.NoticedP50 = quantile(noticed, 0.5)
	r.latencies(w.lines, sum.Acts[0].At, sum.Acts[len(sum.Acts)-1].At)
}

// latencies works out the figures about latency from due to visible.
func (r *Recovery) latencies(lines []visible, firstKill, lastKill int64) {
	var before, after []float64
	for _, l := range lines {
		switch late := float64(l.at-l.due) / 1000; {
		case l.at < firstKill && l.at > firstKill-int64(5e6):
			before = append(before, late)
		case l.at >= firstKill && l.at < firstKill+reportAfter.Microseconds():
			after = append(after, late)
		}
	}
	r.LatencyBefore, r.LatencyP50, r.LatencyP99 = quantile(before, 0.5), quantile(after, 0.5), quantile(after, 0.99)
	r.BackToNormal = backToNormal(lines, lastKill, r.LatencyBefore)
}

const (
	rollingStep   = 50 * time.Millisecond
	rollingWindow = time.Second
	within        = 1.1
	orMillis      = 1.0
)

// backToNormal is Definition.
func backToNormal(lines []visible, kill int64, before float64) float64 {
	limit := max(before*within, before+orMillis)
	calm := int64(-1)
	for at := kill; at < lines[len(lines)-1].at; at += rollingStep.Microseconds() {
		from, _ := slices.BinarySearchFunc(lines, at-rollingWindow.Microseconds(), func(l visible, t int64) int { return cmp.Compare(l.at, t) })
		to, _ := slices.BinarySearchFunc(lines, at, func(l visible, t int64) int { return cmp.Compare(l.at, t) })
		var window []float64
		for _, l := range lines[from:to] {
			window = append(window, float64(l.at-l.due)/1000)
		}
		switch {
		case len(window) == 0 || quantile(window, 0.5) > limit:
			calm = -1
		case calm < 0:
			calm = at
		case at-calm >= rollingWindow.Microseconds():
			return float64(calm-kill) / 1000
		}
	}
	return -1
}

// quantile is the q-th quantile of values, -1 of none. It sorts them.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return -1
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/operator"
)

// CheckpointOptions are those of MeasureCheckpoint.
type CheckpointOptions struct {
	Setup              // Interval is that of the checkpoints that are compared with none
	StateMB    int     // MiB of values, of all tasks together
	ValueBytes int     // of each
	Dirty      float64 // percent of the values that change in an Interval
	Seconds    float64 // that each stage is measured
	Repeats    int
	// LatencyRepeats are those in which latency is measured too, spread over all. 0: in all.
	LatencyRepeats int
	Seed           uint64 // of the order
	Log            func(format string, args ...any)
}

// measuresLatency tells whether repeat i, from 0 on, is one of LatencyRepeats.
func (o *CheckpointOptions) measuresLatency(i int) bool {
	n := o.LatencyRepeats
	return n == 0 || (i+1)*n/o.Repeats > i*n/o.Repeats
}

// LeastValueBytes is the least that CheckpointOptions.ValueBytes may be.
const LeastValueBytes = valueHeader

// Checkpoint is what checkpoints of a big state cost.
type Checkpoint struct {
	Loss            float64      `json:"throughput_loss"` // 1 minus the median of the ratios within repeats
	LossByCPU       float64      `json:"cpu_loss"`        // the same of records per second of computing
	Ratio           Spread       `json:"throughput_ratio"`
	P50With         float64      `json:"latency_ms_p50_with"` // medians of the repeats
	P50Without      float64      `json:"latency_ms_p50_without"`
	P99With         float64      `json:"latency_ms_p99_with"`
	P99Without      float64      `json:"latency_ms_p99_without"`
	P99Added        float64      `json:"latency_ms_p99_added"` // the median of the differences within repeats
	P99AddedAll     Spread       `json:"latency_ms_p99_added_spread"`
	CheckpointBytes float64      `json:"checkpoint_bytes"`  // of an image, the median
	CheckpointMS    float64      `json:"checkpoint_ms"`     // from start to completion, the median
	CheckpointMax   float64      `json:"checkpoint_ms_max"` // of the slowest
	DirtyMeasured   float64      `json:"dirty_percent"`     // images by the state
	StateMB         int          `json:"state_mb"`          // MiB
	Keys            uint64       `json:"keys"`              //
	FillSeconds     float64      `json:"fill_seconds"`      // until the state was there and in a checkpoint
	Complete        bool         `json:"complete"`          // false: interrupted
	Repeats         int          `json:"repeats"`           // at full rate; latency was measured as often as there are Half
	Parallelism     int          `json:"parallelism"`       //
	Workers         int          `json:"workers"`           //
	IntervalMillis  int64        `json:"checkpoint_interval_ms"`
	Seed            uint64       `json:"seed"`
	Machine         Machine      `json:"machine"`
	Full            [2][]Stretch `json:"full_rate"` // without checkpoints, and with
	Half            [2][]Stretch `json:"half_rate"` // of CheckpointOptions.LatencyRepeats
}

// Stretch is what was measured of a stage.
type Stretch struct {
	Rate        float64 `json:"records_per_second"`
	CPUNanos    float64 `json:"cpu_ns_per_record"`
	P50         float64 `json:"latency_ms_p50"` // from due to written to the sink; -1 at full rate, where nothing is due
	P99         float64 `json:"latency_ms_p99"`
	Max         float64 `json:"latency_ms_max"`
	Checkpoints []Taken `json:"checkpoints"` // completed in the stage
}

// Taken is a checkpoint.
type Taken struct {
	Millis float64 `json:"ms"` // from start to completion
	Bytes  int64   `json:"bytes"`
}

const (
	warmUp       = 2 * time.Second // of each stage at most, before it counts
	restLook     = 100 * time.Millisecond
	restBelow    = 0.1 // of a processor
	restLooks    = 3   // in a row
	restAtMost   = time.Minute
	never        = 24 * time.Hour
	roomyMemory  = 4 << 30 // bytes of output kept: what comes in a stage without checkpoints must not go to disk
	roomyChoices = 1 << 30
)

// checkpointBench is a job under measurement and the script that it follows.
type checkpointBench struct {
	o      CheckpointOptions
	result *Checkpoint
	source *staged
	sink   *tallySink
	local  *cluster.Local
	taken  chan cluster.Checkpointed // Invariant: nobody waits to send: there is room for all that come between two looks
}

// MeasureCheckpoint runs one job with a big state, once filled, in stages: at full rate and at half of it, with a checkpoint every Interval
// and with none, in turns. Between stages, what was given is let through, a checkpoint is taken, and the process comes to rest. When ctx ends,
// it returns what is finished with the error of ctx.
func MeasureCheckpoint(ctx context.Context, o CheckpointOptions) (r Checkpoint, err error) {
	r = Checkpoint{
		StateMB: o.StateMB, Keys: uint64(o.StateMB) << 20 / uint64(o.ValueBytes), Repeats: o.Repeats, Parallelism: o.Parallelism, Workers: o.Workers,
		IntervalMillis: o.Interval.Milliseconds(), Seed: o.Seed, Machine: ThisMachine(),
	}
	b := &checkpointBench{o: o, result: &r, source: newStaged(o.Parallelism, r.Keys), taken: make(chan cluster.Checkpointed, 1024)}
	b.sink = newTallySink(b.arrived)
	plan, err := b.job().Plan(o.Parallelism)
	if err != nil {
		return r, err
	}
	dir, err := os.MkdirTemp(o.Dir, "checkpoint-")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	script := make(chan struct{})
	sum, err := cluster.RunLocal(running, plan, cluster.LocalOptions{
		Workers: o.Workers, Mode: understudy.ExactlyOnce, CheckpointInterval: never, CheckpointTimeout: never, BalanceAfter: -1,
		StateDir: filepath.Join(dir, "state"), InflightMemory: roomyMemory, LogBudget: roomyChoices,
		Checkpointed: func(c cluster.Checkpointed) { b.taken <- c },
		Started: func(l *cluster.Local) {
			b.local = l
			go func() {
				defer close(script)
				if err := b.follow(running); err != nil {
					cancel(err)
				}
				b.source.enter(&stage{over: true})
			}()
		},
	})
	cancel(nil)
	if b.local != nil {
		<-script
	}
	r.conclude()
	switch {
	case err != nil:
		return r, fmt.Errorf("bench: checkpoints: %w", err)
	case sum.Rollbacks+sum.TasksRestarted+sum.TasksMoved > 0:
		return r, fmt.Errorf("bench: something befell the job, it does not count: %d rollbacks, %d tasks restarted, %d moved", sum.Rollbacks, sum.TasksRestarted, sum.TasksMoved)
	}
	if given := b.source.given(); given != sum.RecordsIn || given != b.rows() {
		return r, fmt.Errorf("%w: %d records were given, %d taken, %d came out", ErrDisagree, given, sum.RecordsIn, b.rows())
	}
	r.Complete = true
	return r, nil
}

func (b *checkpointBench) job() *operator.Job {
	job := operator.NewJob("checkpoint")
	stream := operator.From(job, "accesses", operator.Source[access](b.source), operator.WithCodec[access](accessCodec{}))
	keyed := operator.KeyBy(stream, func(a access) uint64 { return a.Key })
	size := b.o.ValueBytes
	held := operator.Process(keyed, "state", func() operator.Processor[uint64, access, int64] { return &holder{size: size} }, operator.WithCodec[int64](dueCodec{}))
	operator.To(held, "sink", operator.CausalSink(b.sink), operator.WithCodec[int64](dueCodec{}))
	return job
}

// arrived is called with each row that is written to the sink.
func (b *checkpointBench) arrived(row []byte) uint64 {
	due, err := dueCodec{}.Decode(row)
	if err != nil {
		panic("bench: assertion: " + err.Error())
	}
	if st := b.source.stage.Load(); due != 0 && st.late != nil && due >= st.from && due < st.until {
		st.late.add(time.Duration(time.Now().UnixMicro()-due) * time.Microsecond)
	}
	return 0
}

func (b *checkpointBench) rows() uint64 {
	all, _, _ := b.sink.seen()
	return all.Rows
}

// follow is the script.
func (b *checkpointBench) follow(ctx context.Context) error {
	began := time.Now()
	b.source.enter(&stage{kind: fill})
	if err := b.whileTaking(ctx, func() error { return b.until(ctx, func() bool { return b.rows() >= b.result.Keys }) }); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	b.result.FillSeconds = time.Since(began).Seconds()
	b.o.Log("%d keys, %d MiB of values, after %.1f s", b.result.Keys, b.o.StateMB, b.result.FillSeconds)
	warm, err := b.stage(ctx, 0, true)
	if err != nil {
		return err
	}
	b.o.Log("%.0f records/s to warm up", warm.Rate)
	for i, order := range turns(rand.New(rand.NewPCG(b.o.Seed, b.o.Seed)), 2, b.o.Repeats) {
		if err := b.repeat(ctx, i, order); err != nil {
			return err
		}
	}
	return nil
}

// repeat measures both ways once: at full rate in this order, and then, if it is a repeat for that, at half of what went through without
// checkpoints.
func (b *checkpointBench) repeat(ctx context.Context, i int, order []int) error {
	var full, half [2]*Stretch
	var err error
	for _, with := range order {
		if full[with], err = b.stage(ctx, 0, with == 1); err != nil {
			return err
		}
	}
	r, told := b.result, ""
	if b.o.measuresLatency(i) {
		for _, with := range order {
			if half[with], err = b.stage(ctx, full[0].Rate/2, with == 1); err != nil {
				return err
			}
		}
		r.Half[0], r.Half[1] = append(r.Half[0], *half[0]), append(r.Half[1], *half[1])
		told = fmt.Sprintf("; at half, p50 and p99: %.1f and %.1f ms without, %.1f and %.1f ms with", half[0].P50, half[0].P99, half[1].P50, half[1].P99)
	}
	r.Full[0], r.Full[1] = append(r.Full[0], *full[0]), append(r.Full[1], *full[1])
	b.o.Log("repeat %d: %.0f records/s without, %.0f with (%.3f, by CPU %.3f)%s", i+1,
		full[0].Rate, full[1].Rate, full[1].Rate/full[0].Rate, full[0].CPUNanos/full[1].CPUNanos, told)
	return nil
}

// stage measures one stage, with checkpoints or without, and lets the job settle.
func (b *checkpointBench) stage(ctx context.Context, rate float64, with bool) (*Stretch, error) {
	measured := time.Duration(b.o.Seconds * float64(time.Second))
	warm := min(warmUp, measured)
	s, late := &Stretch{}, &histogram{}
	now := time.Now()
	st := &stage{
		start: now, rate: rate, changes: b.o.Dirty / 100 * float64(b.result.Keys) / b.o.Interval.Seconds(),
		from: now.Add(warm).UnixMicro(), until: now.Add(warm + measured).UnixMicro(), late: late,
	}
	b.source.enter(st)
	measure := func() error {
		if err := pass(ctx, time.Until(now.Add(warm))); err != nil {
			return err
		}
		b.noted(nil)
		from, rows, cpu := time.Now(), b.rows(), processCPU()
		if err := pass(ctx, measured); err != nil {
			return err
		}
		n := float64(b.rows() - rows)
		s.Rate, s.CPUNanos = n/time.Since(from).Seconds(), float64(processCPU()-cpu)/n
		b.noted(s)
		return nil
	}
	var err error
	if with {
		err = b.whileTaking(ctx, measure)
	} else {
		err = measure()
	}
	if err != nil {
		return nil, err
	}
	if rate > 0 {
		if err := b.until(ctx, func() bool { return st.ended.Load() == int64(b.o.Parallelism) }); err != nil {
			return nil, err
		}
	}
	b.source.enter(&stage{halted: true, from: st.from, until: st.until, late: st.late})
	if err := b.until(ctx, func() bool { return b.rows() == b.source.given() }); err != nil {
		return nil, err
	}
	s.P50, s.P99, s.Max = late.millis(0.5), late.millis(0.99), late.millis(1)
	return s, b.settle(ctx)
}

// noted takes what checkpoints were completed since the last call.
func (b *checkpointBench) noted(s *Stretch) {
	for {
		select {
		case c := <-b.taken:
			if s != nil {
				s.Checkpoints = append(s.Checkpoints, Taken{Millis: c.Took.Seconds() * 1000, Bytes: c.Bytes})
			}
		default:
			return
		}
	}
}

// whileTaking asks for a checkpoint every Interval as long as f runs.
func (b *checkpointBench) whileTaking(ctx context.Context, f func() error) error {
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(b.o.Interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				b.local.Checkpoint()
			case <-over:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	err := f()
	close(over)
	<-done
	return err
}

// settle takes a checkpoint that begins from now on, collects garbage, and waits until the process computes next to nothing: what a stage has
// left to be done must not be done in the next one.
func (b *checkpointBench) settle(ctx context.Context) error {
	b.noted(nil)
	for range 2 { // the first may have begun before
		b.local.Checkpoint()
		select {
		case <-b.taken:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	runtime.GC()
	deadline, quiet := time.Now().Add(restAtMost), 0
	for quiet < restLooks && time.Now().Before(deadline) {
		from, cpu := time.Now(), processCPU()
		if err := pass(ctx, restLook); err != nil {
			return err
		}
		if (processCPU() - cpu).Seconds() < restBelow*time.Since(from).Seconds() {
			quiet++
		} else {
			quiet = 0
		}
	}
	return nil
}

// until waits for something to become true.
func (b *checkpointBench) until(ctx context.Context, ok func() bool) error {
	for !ok() {
		if err := pass(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// pass lets time pass.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// conclude works out the figures about all repeats.
func (r *Checkpoint) conclude() {
	var ratio, byCPU, added, bytes, took []float64
	for i := range r.Full[0] {
		without, with := &r.Full[0][i], &r.Full[1][i]
		ratio, byCPU = append(ratio, with.Rate/without.Rate), append(byCPU, without.CPUNanos/with.CPUNanos)
	}
	for i := range r.Half[0] {
		added = append(added, r.Half[1][i].P99-r.Half[0][i].P99)
	}
	for _, s := range slices.Concat(r.Full[1], r.Half[1]) {
		for _, c := range s.Checkpoints {
			bytes, took = append(bytes, float64(c.Bytes)), append(took, c.Millis)
			r.CheckpointMax = max(r.CheckpointMax, c.Millis)
		}
	}
	if len(ratio) == 0 {
		return
	}
	r.Ratio = spreadOf(ratio)
	r.Loss, r.LossByCPU = 1-r.Ratio.Median, 1-median(byCPU)
	r.CheckpointBytes, r.CheckpointMS = median(bytes), median(took)
	r.DirtyMeasured = 100 * r.CheckpointBytes / float64(uint64(r.StateMB)<<20)
	if len(added) == 0 {
		return
	}
	r.P99AddedAll = spreadOf(added)
	r.P99Added = r.P99AddedAll.Median
	r.P50Without, r.P50With = latencyOf(r.Half[0], func(s *Stretch) float64 { return s.P50 }), latencyOf(r.Half[1], func(s *Stretch) float64 { return s.P50 })
	r.P99Without, r.P99With = latencyOf(r.Half[0], func(s *Stretch) float64 { return s.P99 }), latencyOf(r.Half[1], func(s *Stretch) float64 { return s.P99 })
}

func latencyOf(all []Stretch, figure func(*Stretch) float64) float64 {
	var values []float64
	for i := range all {
		values = append(values, figure(&all[i]))
	}
	return median(values)
}

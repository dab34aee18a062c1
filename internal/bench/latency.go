package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/internal/outside"
)

// LatencyOptions are those of MeasureLatency.
type LatencyOptions struct {
	Sinks       []string // URLs
	Rate        uint64   // records per second
	Seconds     float64  // of each run, that are measured
	Repeats     int
	Parallelism int
	Workers     int           // processes
	Interval    time.Duration // of checkpoints
	RecordBytes int           // about
	Seed        uint64        // of the order
	Dir         string        // must be empty
	Log         func(format string, args ...any)
}

// LeastRecordBytes is what a record of MeasureLatency has at least, about.
const LeastRecordBytes = 70

// Latency is how long after a record was due a reader of the sink saw it. Times are milliseconds.
type Latency struct {
	Sinks          []SinkLatency `json:"sinks"`
	WorstP99       float64       `json:"latency_ms_p99_causal_worst"` // of the sinks' medians
	Lost           uint64        `json:"lost"`
	Duplicates     uint64        `json:"duplicates"`
	Rate           uint64        `json:"rate"`    // records per second
	Seconds        float64       `json:"seconds"` // of each run
	Repeats        int           `json:"repeats"`
	Parallelism    int           `json:"parallelism"`
	Workers        int           `json:"workers"`
	IntervalMillis int64         `json:"checkpoint_interval_ms"`
	RecordBytes    int           `json:"record_bytes"`
	Seed           uint64        `json:"seed"`
	Complete       bool          `json:"complete"` // false: interrupted
	Machine        Machine       `json:"machine"`
}

// SinkLatency is that of one sink, in its two forms.
type SinkLatency struct {
	Sink          string      `json:"sink"` // without parameters
	Causal        FormLatency `json:"causal"`
	Transactional FormLatency `json:"transactional"`
}

// FormLatency is that of one form of a sink, over the repeats.
type FormLatency struct {
	Held bool   `json:"held,omitempty"` // the connector has no transactional form: its causal one was given what a checkpoint committed
	P50  Spread `json:"latency_ms_p50"`
	P99  Spread `json:"latency_ms_p99"`
	Max  Spread `json:"latency_ms_max"`
}

const (
	beforeMeasured = 2 * time.Second        // in which processes and connections get going
	untilSeen      = 30 * time.Second       // after the job's end, for what was not seen yet
	silence        = 200 * time.Millisecond // after the last record, in which one more would be noticed
	removeAtMost   = 10 * time.Second
)

// MeasureLatency runs jobs on processes, each with another sink, or with the same in its other form, in turns. When ctx ends, it
// returns the repeats that are finished with the error of ctx.
func MeasureLatency(ctx context.Context, o LatencyOptions) (Latency, error) {
	r := Latency{
		Rate: o.Rate, Seconds: o.Seconds, Repeats: o.Repeats, Parallelism: o.Parallelism, Workers: o.Workers,
		IntervalMillis: o.Interval.Milliseconds(), RecordBytes: o.RecordBytes, Seed: o.Seed, Machine: ThisMachine(),
	}
	for _, url := range o.Sinks {
		place, err := outside.At(url, "", o.Parallelism)
		if err != nil {
			return r, err
		}
		name, _, _ := strings.Cut(url, "?")
		r.Sinks = append(r.Sinks, SinkLatency{Sink: name, Transactional: FormLatency{Held: place.Transactional() == nil}})
	}
	rng := rand.New(rand.NewPCG(o.Seed, o.Seed))
	stem := strconv.FormatUint(rng.Uint64()>>40, 36) // whatever former runs have left behind has other names
	for i, order := range turns(rng, 2*len(o.Sinks), o.Repeats) {
		if err := r.repeat(ctx, &o, fmt.Sprintf("%sr%d", stem, i+1), order); err != nil {
			r.conclude()
			return r, err
		}
	}
	r.conclude()
	r.Complete = true
	return r, nil
}

// repeat measures each sink in each form once.
func (r *Latency) repeat(ctx context.Context, o *LatencyOptions, stem string, order []int) error {
	seen := make([]*witness, len(order))
	for _, which := range order {
		sink, transactional := which/2, which%2 == 1
		w, err := o.run(ctx, o.Sinks[sink], fmt.Sprintf("%ss%d", stem, which), transactional)
		if err != nil {
			return fmt.Errorf("bench: %s: %w", r.Sinks[sink].Sink, err)
		}
		seen[which] = w
		o.Log("%s: %-13s p50 %.1f ms, p99 %.1f ms, max %.1f ms", r.Sinks[sink].Sink, formName(transactional), w.late.millis(0.5), w.late.millis(0.99),
			w.late.millis(1))
	}
	for which, w := range seen {
		r.Lost, r.Duplicates = r.Lost+w.lost(), r.Duplicates+w.duplicates+w.strange
		form := r.Sinks[which/2].Form(which%2 == 1)
		form.P50.All, form.P99.All, form.Max.All = append(form.P50.All, w.late.millis(0.5)), append(form.P99.All, w.late.millis(0.99)),
			append(form.Max.All, w.late.millis(1))
	}
	return nil
}

func formName(transactional bool) string {
	if transactional {
		return "transactional"
	}
	return "causal"
}

// Scheme is the kind of sink.
func (s *SinkLatency) Scheme() string {
	scheme, _, _ := strings.Cut(s.Sink, ":")
	return scheme
}

// Form gives one of the two.
func (s *SinkLatency) Form(transactional bool) *FormLatency {
	if transactional {
		return &s.Transactional
	}
	return &s.Causal
}

// conclude works out the figures about all repeats.
func (r *Latency) conclude() {
	for i := range r.Sinks {
		for _, form := range []*FormLatency{&r.Sinks[i].Causal, &r.Sinks[i].Transactional} {
			form.P50, form.P99, form.Max = spreadOf(form.P50.All), spreadOf(form.P99.All), spreadOf(form.Max.All)
		}
		r.WorstP99 = max(r.WorstP99, r.Sinks[i].Causal.P99.Median)
	}
}

// run runs a job with one form of one sink, and follows what it shows.
func (o *LatencyOptions) run(ctx context.Context, url, suffix string, transactional bool) (w *witness, err error) {
	place, err := outside.At(url, suffix, o.Parallelism)
	if err != nil {
		return nil, err
	}
	from := uint64(beforeMeasured.Seconds() * float64(o.Rate))
	until := from + uint64(o.Seconds*float64(o.Rate))
	// What comes last is committed when the job ends, and not when the next checkpoint is: it is not measured.
	s := Spec{
		Records: until + uint64(o.Interval.Seconds()*float64(o.Rate)), Rate: o.Rate, Parallelism: o.Parallelism, Workers: o.Workers,
		IntervalMS: o.Interval.Milliseconds(), Dir: filepath.Join(o.Dir, suffix), Sink: url, Suffix: suffix, Transactional: transactional,
		Pad: max(0, o.RecordBytes-LeastRecordBytes),
	}
	w = newWitness(s.Records, from, until)
	defer func() {
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeAtMost)
		defer cancel()
		err = errors.Join(err, place.Remove(removing))
	}()
	running, end := context.WithCancelCause(ctx)
	defer end(nil)
	following, stop := context.WithCancel(ctx)
	defer stop()
	followed := make(chan error, 1)
	go func() {
		err := place.Follow(following, w.see)
		if err != nil {
			end(err)
		}
		followed <- err
	}()
	sum, err := s.Run(running, understudy.Processes{})
	if err == nil && sum.Rollbacks+sum.TasksRestarted+sum.TasksMoved > 0 {
		err = fmt.Errorf("something befell the job, it does not count: %d rollbacks, %d tasks restarted, %d moved", sum.Rollbacks, sum.TasksRestarted, sum.TasksMoved)
	}
	if err == nil {
		err = w.rest(running)
	}
	stop()
	if ferr := <-followed; ferr != nil {
		return nil, fmt.Errorf("reading from outside: %w", ferr)
	}
	return w, err
}

// witness notes when it saw which record.
type witness struct {
	from, until uint64 // the numbers of the records that are measured
	late        histogram
	all         chan struct{} // closed when every record was seen
	once        sync.Once
	roll        // of the goroutine that follows, until it has ended
}

func newWitness(expect, from, until uint64) *witness {
	return &witness{from: from, until: until, all: make(chan struct{}), roll: newRoll(expect)}
}

// see is an outside.See.
func (w *witness) see(_ string, record []byte, at time.Time) error {
	t, err := objectCodec{}.Decode(record)
	if err != nil {
		return err
	}
	before := w.count
	if w.call(t.N) && w.count > before && t.N >= w.from && t.N < w.until {
		w.late.add(time.Duration(at.UnixMicro()-t.Due) * time.Microsecond)
	}
	if w.count == w.expect {
		w.once.Do(func() { close(w.all) })
	}
	return nil
}

// rest waits until every record was seen, and a little longer. Records that are not seen after the longest wait are lost.
func (w *witness) rest(ctx context.Context) error {
	timer := time.NewTimer(untilSeen)
	defer timer.Stop()
	select {
	case <-w.all:
		return pass(ctx, silence)
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/bench/plain"
	"github.com/understudy-stream/understudy/internal/nexmark"
)

// Arm is one of the ways in which a query is run to be compared.
type Arm struct {
	Name  string
	Mode  understudy.Mode
	Depth int // of sharing; 0: full
}

// The arms of `bench overhead`. None is mode global-rollback: it logs no choice and keeps no output, and differs from the others in
// nothing else, so it has the same standbys and checkpoints.
var (
	None         = Arm{Name: "none", Mode: understudy.GlobalRollback}
	AtLeastOnce  = Arm{Name: "at-least-once", Mode: understudy.AtLeastOnce}
	ExactlyOnce1 = Arm{Name: "exactly-once-1", Mode: understudy.ExactlyOnce, Depth: 1}
	ExactlyOnce2 = Arm{Name: "exactly-once-2", Mode: understudy.ExactlyOnce, Depth: 2}
	ExactlyOnce  = Arm{Name: "exactly-once", Mode: understudy.ExactlyOnce}
)

// Again is None under another name: by what the two differ, measuring is wrong, be it by chance or for a reason.
var Again = Arm{Name: "none-again", Mode: None.Mode}

// Arms lists the arms of `bench overhead`, of which the first is what the others are compared with. Again may come behind them.
func Arms() []Arm { return []Arm{None, AtLeastOnce, ExactlyOnce1, ExactlyOnce2, ExactlyOnce} }

// Trial is what was measured of one run of a query.
type Trial struct {
	Seconds          float64 `json:"seconds"`           // from the first event taken to the last event taken or row shown
	EventsPerSecond  float64 `json:"events_per_second"` // in that time
	CPUNanos         float64 `json:"cpu_ns_per_event"`  // of the whole process, user and system, until the run has ended
	AllocatedBytes   float64 `json:"alloc_b_per_event"` // on the heap, until then
	DeterminantBytes float64 `json:"determinant_b"`     // per event, of all tasks' logs
	StoredBytes      float64 `json:"stored_b"`          // of determinants per event, given to the sink
	InflightPeak     int64   `json:"inflight_peak_b"`   // kept output of the worker that has most, in memory and on disk
	LogPeak          int64   `json:"log_peak_b"`        // determinants held by the worker that has most, of all logs
	Checkpoints      int     `json:"checkpoints"`       // that were completed
	CheckpointBytes  int64   `json:"checkpoint_bytes"`  // of the largest
	CheckpointMillis float64 `json:"checkpoint_ms"`     // in the mean, from start to completion
	CheckpointMax    float64 `json:"checkpoint_ms_max"` // of the slowest
	StateBytes       int64   `json:"state_dir_bytes"`   // of all workers' state directories in the end: tasks and standbys
	Output           Tally   `json:"output"`
}

// Setup is what all trials of a comparison have in common.
type Setup struct {
	Parallelism int
	Workers     int
	Interval    time.Duration // of checkpoints
	Dir         string        // each trial makes a state directory below, and removes it
	Memory      int64         // bytes at which garbage is collected, as was set by debug.SetMemoryLimit; 0: no such limit
}

const (
	heldPercent = 70 // of Memory: with what else counts, it stays below 95%, at which Go begins to give back
	heldPiece   = 1 << 20
	pageBytes   = 4 << 10
)

// clear has each run begin alike, whatever ran before: without garbage, and with all memory that it may use already taken from the system, of
// which Go, by its own figures, then gives nothing back meanwhile. Otherwise a run that uses more than the one before would pay for it, a
// page fault at a time, and the first one most.
func (s *Setup) clear() {
	runtime.GC()
	var held [][]byte
	for range s.Memory / 100 * heldPercent / heldPiece {
		piece := make([]byte, heldPiece)
		for at := 0; at < heldPiece; at += pageBytes {
			piece[at] = 1
		}
		held = append(held, piece)
	}
	runtime.KeepAlive(held)
	if held != nil {
		runtime.GC()
	}
}

// samplesEvery is how often a run is asked what it keeps.
const samplesEvery = 5 * time.Millisecond

// window is the time that counts: from when the first reader was opened to when the last one was used up.
type window struct {
	mu struct {
		sync.Mutex
		from, to time.Time
		cpu      time.Duration // at from
		heap     uint64        // bytes allocated until then
	}
}

func (w *window) opened() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.from.IsZero() {
		w.mu.from, w.mu.cpu, w.mu.heap = time.Now(), processCPU(), allocated()
	}
}

func (w *window) used() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.to = time.Now()
}

// processCPU is how much the process has computed, on all cores, in user and system mode.
func processCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(fmt.Sprintf("bench: assertion: getrusage of this process: %v", err))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// allocated is how many bytes the process has ever allocated on its heap.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// queryOf finds a query.
func queryOf(name string) (nexmark.Query, error) {
	for _, q := range nexmark.Queries() {
		if q.Name == name {
			return q, nil
		}
	}
	return nexmark.Query{}, fmt.Errorf("bench: there is no query %q", name)
}

// Settled tells whether a query's rows are the same in every run. The changes that an updating query shows depend on which of two tasks
// was faster, those of q12 on the time of day.
func Settled(q nexmark.Query) bool { return !q.Updating && !q.ProcessingTime }

// engine runs a query on the engine, in this process.
func (s *Setup) engine(ctx context.Context, query string, events uint64, arm Arm) (t Trial, err error) {
	dir, err := os.MkdirTemp(s.Dir, query+"-")
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var w window
	sink := newTallySink(sumOf(query))
	job, err := nexmark.Build(query, nexmark.Options{
		Source: nexmark.SourceOptions{Events: events, Splits: s.Parallelism}, Sink: sink, Window: processingWindow,
		Opened: w.opened, Used: w.used,
	})
	if err != nil {
		return t, err
	}
	plan, err := job.Plan(s.Parallelism)
	if err != nil {
		return t, err
	}
	var sampling sync.WaitGroup
	over := make(chan struct{})
	var took time.Duration
	s.clear()
	var sum cluster.Summary
	pprof.Do(ctx, pprof.Labels("query", query, "arm", arm.Name), func(ctx context.Context) {
		sum, err = cluster.RunLocal(ctx, plan, cluster.LocalOptions{
			Workers: s.Workers, Mode: arm.Mode, Depth: determinant.Depth(arm.Depth), CheckpointInterval: s.Interval,
			BalanceAfter: -1, // only a job that logs moves tasks
			StateDir:     filepath.Join(dir, "state"),
			Started:      func(l *cluster.Local) { sampling.Go(func() { t.sample(l, over) }) },
			Checkpointed: func(c cluster.Checkpointed) {
				took += c.Took
				t.Checkpoints++
				t.CheckpointBytes = max(t.CheckpointBytes, c.Bytes)
				t.CheckpointMax = max(t.CheckpointMax, c.Took.Seconds()*1000)
			},
		})
	})
	close(over)
	sampling.Wait()
	if err != nil {
		return t, fmt.Errorf("bench: %s, %s: %w", query, arm.Name, err)
	}
	if sum.RecordsIn != events || sum.Rollbacks+sum.TasksRestarted+sum.TasksMoved > 0 {
		return t, fmt.Errorf("bench: %s, %s: something befell the run, it does not count: %v, %d rollbacks, %d tasks restarted, %d moved",
			query, arm.Name, sum, sum.Rollbacks, sum.TasksRestarted, sum.TasksMoved)
	}
	if t.Checkpoints > 0 {
		t.CheckpointMillis = took.Seconds() * 1000 / float64(t.Checkpoints)
	}
	output, last, stored := sink.seen()
	t.DeterminantBytes, t.StoredBytes = float64(sum.DeterminantBytes)/float64(events), float64(stored)/float64(events)
	t.finish(&w, output, last, events)
	t.StateBytes = diskUsed(dir)
	return t, nil
}

// finish works out the figures that engine and plain programs have in common. It is called when everything has ended.
func (t *Trial) finish(w *window, output Tally, last time.Time, events uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.CPUNanos = float64(processCPU()-w.mu.cpu) / float64(events)
	t.AllocatedBytes = float64(allocated()-w.mu.heap) / float64(events)
	to := w.mu.to
	if last.After(to) {
		to = last
	}
	t.Output = output
	t.Seconds = to.Sub(w.mu.from).Seconds()
	t.EventsPerSecond = float64(events) / t.Seconds
}

// sample looks at what a run keeps until it is over.
func (t *Trial) sample(l *cluster.Local, over <-chan struct{}) {
	ticker := time.NewTicker(samplesEvery)
	defer ticker.Stop()
	for {
		memory, disk := l.InflightBytes()
		t.InflightPeak, t.LogPeak = max(t.InflightPeak, memory+disk), max(t.LogPeak, l.LogBytes())
		select {
		case <-ticker.C:
		case <-over:
			return
		}
	}
}

// diskUsed adds up the files below a directory. Files come and go meanwhile.
func diskUsed(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // gone by now
		}
		if info, err := d.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}

// plain runs the plain program of a query.
func (s *Setup) plain(ctx context.Context, query string, events uint64) (t Trial, err error) {
	tallies := make([]struct {
		Tally
		_ [64]byte // each is written by a goroutine of its own
	}, s.Parallelism)
	var w window
	sum := sumOf(query)
	s.clear()
	w.opened()
	pprof.Do(ctx, pprof.Labels("query", query, "arm", "plain"), func(ctx context.Context) {
		err = plain.Run(ctx, query, plain.Options{
			Events: events, Parallelism: s.Parallelism, Window: processingWindow,
			Out: func(part int) func([]byte) { return func(row []byte) { tallies[part].add(row, sum) } },
		})
	})
	w.used()
	if err != nil {
		return t, fmt.Errorf("bench: %s, plain: %w", query, err)
	}
	var output Tally
	for i := range tallies {
		output.merge(tallies[i].Tally)
	}
	t.finish(&w, output, time.Time{}, events)
	return t, nil
}

// events makes the events of a query's plain program, by which nothing is done.
func (s *Setup) events(ctx context.Context, n uint64) (t Trial, err error) {
	var w window
	s.clear()
	w.opened()
	pprof.Do(ctx, pprof.Labels("arm", "events"), func(ctx context.Context) {
		err = plain.Read(ctx, plain.Options{Events: n, Parallelism: s.Parallelism})
	})
	w.used()
	if err != nil {
		return t, fmt.Errorf("bench: events: %w", err)
	}
	t.finish(&w, Tally{}, time.Time{}, n)
	return t, nil
}

// processingWindow is how long the windows of q12 are, and of q12x.
const processingWindow = 10 * time.Second

// sumOf is what stands for a row of a query in the sum of its output, so that two runs can be compared.
func sumOf(query string) func(row []byte) uint64 {
	if query == "q12" {
		return bidsOfBidder
	}
	return xxhash.Sum64
}

// bidsOfBidder stands for a row of q12 by the bidder, as often as there were bids: how the clock has cut them into windows makes no
// difference to the sum.
func bidsOfBidder(row []byte) uint64 {
	bidder, rest, ok := bytes.Cut(row, []byte(`,"bid_count":`))
	count, _, counted := bytes.Cut(rest, []byte(","))
	n, err := strconv.ParseUint(string(count), 10, 64)
	if !ok || !counted || err != nil {
		panic(fmt.Sprintf("bench: assertion: a row of q12 is %q", row))
	}
	return n * xxhash.Sum64(bidder)
}

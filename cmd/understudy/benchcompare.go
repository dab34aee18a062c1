package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-stream/understudy/internal/bench"
	"github.com/understudy-stream/understudy/internal/bench/report"
	"github.com/understudy-stream/understudy/internal/console"
	"github.com/understudy-stream/understudy/internal/nexmark"
)

// compareCommand is what `bench overhead` and `bench baseline` have in common.
type compareCommand struct {
	options    bench.CompareOptions
	queries    []string
	all        []string // that may be asked for
	format     string
	cpuProfile string
	memory     int64 // MB
	report     string
	measure    func(ctx context.Context, o bench.CompareOptions) (comparison, error)
}

// comparison is a result.
type comparison struct {
	object any // of JSON
	text   string
	page   report.Page
}

// measured says what all figures are about, for --help.
const measured = `Everything runs in this process, on workers that share nothing but the process, with a state directory on disk (in TMPDIR) and a standby per
task. A run's time is from the first event taken to the last event taken or row shown, whichever is later, so that starting and
stopping do not count. All ways of running a query take turns within each repeat, in a random order and the next time in its reverse;
ratios are made within a repeat, and then the median of them is taken, so that what else the machine does cancels out. "By CPU" is the
ratio of events per second of computing (user and system time), which other programs disturb less; "least" compares the runs of both kinds
that computed least, which they disturb least of all.

Garbage is collected when --memory-mb is used up, and not, as Go does by default, when the heap has doubled: by that, a job that keeps
its output in memory would collect garbage less often than one that keeps nothing, and look faster.

The sink is in memory: it takes part in the protocol, keeps determinants and says where its output ends, as any causal sink, but of each row
it keeps only a sum, which costs next to nothing and the same in every way of running. Writing files would take time in all of
them, and make what is compared look more alike than it is. The sums are compared: a query whose rows are not chance must give the
same rows every time.

Exit codes: 0 measured, 1 results differ or a run failed, 2 unusable arguments, 130 interrupted (what was finished is printed).`

func newBenchOverheadCommand() *cobra.Command {
	var all []string
	for _, q := range nexmark.Queries() {
		all = append(all, q.Name)
	}
	c := &compareCommand{all: all, measure: func(ctx context.Context, o bench.CompareOptions) (comparison, error) {
		r, err := bench.MeasureOverhead(ctx, o)
		return comparison{&r, overheadText(&r), r.Page()}, err
	}}
	cmd := c.command("overhead", "Measure what logging costs, in the queries of Nexmark",
		`Run each Nexmark query in five ways: none (mode global-rollback, which keeps no output and logs no choice, with the same standbys and
checkpoints as the others), at-least-once (keeps output), and exactly-once (keeps output and choices) at sharing depth 1, 2 and full.

With --control a sixth way takes its turns among them: none again, under another name. By as much as it differs from none, the other figures may be
wrong too, by chance or because of how it is measured.

Of twenty queries that are measured a few times each, the one that looks worst mostly had bad luck. So the query that loses most is measured again,
--repeats times more, and then whichever loses most, until the worst was measured --worst-repeats times. All measurements of a query count.

`+measured)
	cmd.Flags().IntVar(&c.options.WorstRepeats, "worst-repeats", 20, "repeats of the query that comes out worst; up to --repeats: no more than of others")
	cmd.Flags().BoolVar(&c.options.Control, "control", true, "run none in a sixth way, none-again, to see by how much measuring is wrong")
	return cmd
}

func newBenchBaselineCommand() *cobra.Command {
	c := &compareCommand{all: bench.PlainQueries(), measure: func(ctx context.Context, o bench.CompareOptions) (comparison, error) {
		r, err := bench.MeasureBaseline(ctx, o)
		return comparison{&r, baselineText(&r), r.Page()}, err
	}}
	return c.command("baseline", "Compare with plain Go programs that do the same without an engine",
		`Run Nexmark queries on the engine, exactly once at full depth, and beside them as plain Go programs (internal/bench/plain): goroutines,
channels of batches, maps, and nothing that survives a failure. Both read the same events at the same parallelism and give the same rows,
which is checked.

`+measured)
}

func (c *compareCommand) command(use, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Example: fmt.Sprintf("  understudy bench %s --queries %s --events 1000000\n  understudy bench %[1]s --repeats 7 -o json > %[1]s.json", use, c.all[0]+","+c.all[1]),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(fmt.Errorf("unexpected argument %q", args[0]))
			}
			return usageErrorOrNil(c.check())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f, o := cmd.Flags(), &c.options
	f.StringSliceVar(&c.queries, "queries", nil, "queries to run, such as q0,q5 (default: "+strings.Join(c.all, ",")+")")
	f.Uint64Var(&o.Events, "events", 0, "events of each run (default: as many as take about --seconds)")
	f.Float64Var(&o.Seconds, "seconds", 5, "how long a run takes, if --events is not given")
	f.IntVar(&o.Repeats, "repeats", 5, "repeats of each way of running a query, beside a shorter run before, which warms up")
	f.IntVar(&o.Parallelism, "parallelism", 2, "tasks per operator")
	f.IntVar(&o.Workers, "workers", 3, "workers, all in this process")
	f.DurationVar(&o.Interval, "checkpoint-interval", time.Second, "time between checkpoints")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the order of runs (default: random)")
	f.Int64Var(&c.memory, "memory-mb", 2000, "memory in which all ways of running a query have to do, MB; 0: Go's default")
	f.StringVar(&c.cpuProfile, "cpuprofile", "", "file for a CPU profile of all runs, with labels query and arm (go tool pprof -tagfocus arm=none)")
	f.StringVar(&c.report, "report", "", "file for a report with plots, HTML")
	f.StringVarP(&c.format, "format", "o", "text", "text or json")
	return cmd
}

func usageErrorOrNil(err error) error {
	if err == nil {
		return nil
	}
	return usageError(err)
}

func (c *compareCommand) check() error {
	o := &c.options
	if o.Queries = c.queries; len(o.Queries) == 0 {
		o.Queries = c.all
	}
	for _, q := range o.Queries {
		if !slices.Contains(c.all, q) {
			return fmt.Errorf("--queries: %q: want some of %s", q, strings.Join(c.all, ","))
		}
	}
	switch {
	case c.format != "text" && c.format != "json":
		return fmt.Errorf("--format %q: want text or json", c.format)
	case o.Repeats < 1 || o.Parallelism < 1 || o.Workers < 2:
		return errors.New("want at least one repeat, one task per operator and two workers, so that there are standbys")
	case o.Seconds <= 0:
		return fmt.Errorf("--seconds %v: want more than 0", o.Seconds)
	case c.memory < 0:
		return fmt.Errorf("--memory-mb %d: want 0 or more", c.memory)
	case o.Interval < time.Millisecond:
		return fmt.Errorf("--checkpoint-interval %v: want at least 1ms", o.Interval)
	}
	return nil
}

func (c *compareCommand) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	ctx, stop := console.Terminable(ctx)
	defer stop()
	o := c.options
	for o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	o.Log = func(text string, args ...any) { fmt.Fprintf(stderr, text+"\n", args...) }
	if o.Dir, err = os.MkdirTemp("", "understudy-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	o.Memory = c.memory << 20
	defer limitMemory(o.Memory)()
	endProfile, err := profileCPU(c.cpuProfile)
	if err != nil {
		return err
	}
	result, err := c.measure(ctx, o)
	err = errors.Join(err, endProfile())
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	err = errors.Join(err, writeReport(c.report, &result.page))
	err = errors.Join(err, printMeasured(stdout, c.format, result.object, func() string { return result.text }))
	if errors.Is(err, context.Canceled) {
		return &exitError{code: console.ExitInterrupted, err: errors.New("interrupted: what was printed is about the queries that were finished")}
	}
	return err
}

// printMeasured prints an object of JSON, or the text that says the same.
func printMeasured(w io.Writer, format string, object any, text func() string) error {
	if format == "json" {
		return printObject(w, object)
	}
	_, err := io.WriteString(w, text())
	return err
}

// limitMemory has garbage collected when so many bytes are used, and not before. 0 leaves everything as it is. Its result undoes it.
func limitMemory(bytes int64) (undo func()) {
	if bytes == 0 {
		return func() {}
	}
	limit, percent := debug.SetMemoryLimit(bytes), debug.SetGCPercent(-1)
	return func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
}

// printObject prints one object of JSON on a line.
func printObject(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// writeReport writes a page to a file. Without a name it does nothing.
func writeReport(name string, p *report.Page) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(p.Write(f), f.Close())
}

// profileCPU profiles until its result is called. Without a name it does nothing.
func profileCPU(name string) (end func() error, err error) {
	if name == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func overheadText(r *bench.Overhead) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-5s %10s  %s\n", "", "none", "throughput of that (median, least to greatest), by CPU")
	fmt.Fprintf(&b, "%-5s %10s", "query", "events/s")
	for _, arm := range r.Compared() {
		fmt.Fprintf(&b, "  %-29s", arm)
	}
	fmt.Fprintf(&b, "%11s %10s %9s %9s %9s %9s\n", "least CPU", "det. B/ev.", "kept MB", "cp. MB", "cp. ms", "cp. (none)")
	for i := range r.Queries {
		q := &r.Queries[i]
		fmt.Fprintf(&b, "%-5s %10.0f", q.Query, q.Arms[0].Speed.Median)
		for j := range q.Arms[1:] {
			a := &q.Arms[1+j]
			fmt.Fprintf(&b, "  %.3f (%.3f to %.3f), %.3f  ", a.Ratio.Median, a.Ratio.Min, a.Ratio.Max, a.CPURatio.Median)
		}
		t := q.Typical(bench.ExactlyOnce)
		fmt.Fprintf(&b, "%11.3f %10.4f %9.1f %9.2f %9.1f %4d (%d)\n", 1-q.LossFullLeast, t.DeterminantBytes, float64(t.InflightPeak)/1e6, float64(t.CheckpointBytes)/1e6,
			t.CheckpointMillis, t.Checkpoints, q.Typical(bench.None).Checkpoints)
	}
	fmt.Fprintf(&b, "exactly-once at full depth, against none: %s in the median, %s at worst (%s); by CPU %s and %s (%s), least %s\n",
		bench.Slower(r.MedianLossFull), bench.Slower(r.WorstLossFull), r.WorstQuery, bench.Slower(r.MedianCPULossFull), bench.Slower(r.WorstCPULossFull), r.WorstCPUQuery,
		bench.Slower(r.MedianLeastCPULossFull))
	fmt.Fprintf(&b, "against at-least-once: %s in the median\n", bench.Slower(r.MedianLossVsAtLeastOnce))
	if c := r.Control; c != nil {
		fmt.Fprintf(&b, "none against itself, which should be 0: %s in the median, %s at worst (%s); by CPU %s and %s (%s)\n", bench.Slower(c.MedianLoss),
			bench.Slower(c.WorstLoss), c.WorstQuery, bench.Slower(c.MedianCPULoss), bench.Slower(c.WorstCPULoss), c.WorstCPUQuery)
	}
	if more := r.MeasuredOn(); len(more) > 0 {
		fmt.Fprintf(&b, "measured more often than %d times, since they looked worst: %s\n", r.Repeats, strings.Join(more, ", "))
	}
	b.WriteString(machineText(&r.Machine))
	return b.String()
}

func baselineText(r *bench.Baseline) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-5s %10s %12s %12s  %-25s  %-30s %s\n", "", "", "", "", "", "by CPU: all, least,", "ns of computing per event:")
	fmt.Fprintf(&b, "%-5s %10s %12s %12s  %-25s  %-30s %s\n", "query", "events", "plain, /s", "engine, /s", "ratio (least to greatest)", "without the events", "plain, engine, events")
	for i := range r.Queries {
		q := &r.Queries[i]
		fmt.Fprintf(&b, "%-5s %10d %12.0f %12.0f  %.3f (%.3f to %.3f)     %.3f  %.3f  %.3f            %5.0f  %5.0f  %5.0f\n", q.Query, q.Events, bench.MedianSpeed(q.Plain),
			bench.MedianSpeed(q.Engine), q.Ratio.Median, q.Ratio.Min, q.Ratio.Max, q.CPURatio.Median, q.LeastCPU, q.OwnRatio, bench.MedianCPU(q.Plain),
			bench.MedianCPU(q.Engine), bench.MedianCPU(q.Made))
	}
	fmt.Fprintf(&b, "the engine, exactly once, does %.3f of what a plain program does in the median, %.3f at worst (%s); by CPU %.3f, least %.3f\n",
		r.MedianRatio, r.WorstRatio, r.WorstQuery, r.MedianCPURatio, r.MedianLeastCPU)
	fmt.Fprintf(&b, "making an event costs %.0f ns of computing, in both; the engine adds %.0f ns to what a plain program takes in the median, and without the making it does %.3f of it by CPU\n",
		r.Generator, r.MedianAdded, r.MedianOwnRatio)
	b.WriteString(machineText(&r.Machine))
	return b.String()
}

func machineText(m *bench.Machine) string {
	return fmt.Sprintf("on %s, %d cores, %.1f GB, %s %s, kernel %s, load %.1f before\n", m.CPU, m.Cores, float64(m.MemoryBytes)/1e9, m.Go, m.System, m.Kernel, m.Load)
}

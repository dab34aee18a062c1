package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-stream/understudy/internal/bench"
	"github.com/understudy-stream/understudy/internal/console"
	"github.com/understudy-stream/understudy/internal/outside"
)

// latencyCommand is `bench latency`.
type latencyCommand struct {
	options        bench.LatencyOptions
	format, report string
}

func newBenchLatencyCommand() *cobra.Command {
	c := &latencyCommand{}
	o := &c.options
	cmd := &cobra.Command{
		Use:   "latency",
		Short: "Measure how long after a record was due a reader of the sink sees it",
		Long: `Run a job on worker processes, without failures, at --rate records a second, into each --sink in turns, once by its causal form, which shows each
record at once, and once by its transactional form, which shows it when its checkpoint is committed. A reader in this process follows what is
shown by the system's own client: it tails files, has an ordered consumer of a stream, reads committed records of a topic, asks a
table for new rows every 2 ms. Latency counts from when a record was due, so that a stall shows in all records that came due meanwhile.

A connector without a transactional form (all but kafka:) gets one: output is held back in memory until its checkpoint is committed, and then given
to its causal form. So that figure is about waiting for checkpoints, and a lower bound of what such a connector would have.

Each run begins with a directory, stream, topic or table of its own, whose name is that of the URL with a few letters behind it, and removes it in the end. Of
postgres: the URL needs a table, which is not touched itself. The server of a URL must run; ` + "`make latency`" + ` starts one of each kind and measures them all.

Exit codes: 0 measured, and nothing lost or doubled, 1 records were lost or doubled, or a run failed, 2 unusable arguments, 130
interrupted (what was finished is printed).`,
		Example: `  understudy bench latency
  understudy bench latency --sink nats://127.0.0.1:4222/latency --sink file:/tmp/latency --repeats 5 --report latency.html
  understudy bench latency --sink 'postgres://me@host/db?table=latency&password_file=pw' --rate 2000 -o json
  understudy bench latency --sink 'kafka://host:9092/latency?interval=2ms' --checkpoint-interval 5s`,
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
	f := cmd.Flags()
	f.StringArrayVar(&o.Sinks, "sink", nil, "`URL` of a sink, as of `understudy run` (repeatable; default: files in a temporary directory)")
	f.Uint64Var(&o.Rate, "rate", 10_000, "records per second")
	f.Float64Var(&o.Seconds, "seconds", 10, "how long each run is measured, after 2 s that are not")
	f.IntVar(&o.Repeats, "repeats", 3, "runs of each form of each sink")
	f.IntVar(&o.RecordBytes, "record-bytes", 100, "size of a record")
	f.IntVar(&o.Parallelism, "parallelism", 2, "tasks per operator")
	f.IntVar(&o.Workers, "workers", 3, "worker processes")
	f.DurationVar(&o.Interval, "checkpoint-interval", time.Second, "time between checkpoints")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the order of runs (default: random)")
	f.StringVar(&c.report, "report", "", "file for a report with plots, HTML")
	f.StringVarP(&c.format, "format", "o", "text", "text or json")
	return cmd
}

func (c *latencyCommand) check() error {
	o := &c.options
	switch {
	case c.format != "text" && c.format != "json":
		return fmt.Errorf("--format %q: want text or json", c.format)
	case o.Repeats < 1 || o.Parallelism < 1 || o.Workers < 2:
		return errors.New("want at least one repeat, one task per operator and two workers, so that there are standbys")
	case o.Rate < 1:
		return fmt.Errorf("--rate %d: want 1 or more", o.Rate)
	case !(o.Seconds > 0):
		return fmt.Errorf("--seconds %v: want more than 0", o.Seconds)
	case o.RecordBytes < bench.LeastRecordBytes || o.RecordBytes > 64<<10:
		return fmt.Errorf("--record-bytes %d: want %d to %d", o.RecordBytes, bench.LeastRecordBytes, 64<<10)
	case o.Interval < 10*time.Millisecond:
		return fmt.Errorf("--checkpoint-interval %v: want at least 10ms", o.Interval)
	}
	for _, url := range o.Sinks {
		if _, err := outside.At(url, "", o.Parallelism); err != nil {
			return fmt.Errorf("--sink: %w", err)
		}
	}
	return nil
}

// run measures in a temporary directory and prints what it measured.
func (c *latencyCommand) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
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
	if len(o.Sinks) == 0 {
		o.Sinks = []string{"file:" + o.Dir + "/out"}
	}
	r, err := bench.MeasureLatency(ctx, o)
	interrupted := errors.Is(err, context.Canceled)
	if err != nil && !interrupted {
		return err
	}
	page := r.Page()
	err = writeReport(c.report, &page)
	err = errors.Join(err, printMeasured(stdout, c.format, &r, func() string { return latencyText(&r) }))
	switch {
	case err != nil:
		return err
	case interrupted:
		return &exitError{code: console.ExitInterrupted, err: errors.New("interrupted: what was printed is about the repeats that were finished")}
	case r.Lost+r.Duplicates > 0:
		return &exitError{code: console.ExitFailed, err: fmt.Errorf("%d records lost, %d doubled", r.Lost, r.Duplicates)}
	}
	return nil
}

func latencyText(r *bench.Latency) string {
	var b strings.Builder
	fmt.Fprintf(&b, "from due to visible, %d records/s, ms; medians of %d repeats, and the greatest in brackets\n", r.Rate, len(r.Sinks[0].Causal.P50.All))
	fmt.Fprintf(&b, "%-10s %-21s %14s %18s %9s\n", "sink", "form", "p50", "p99", "max")
	for i := range r.Sinks {
		s := &r.Sinks[i]
		for _, transactional := range []bool{false, true} {
			f := s.Form(transactional)
			fmt.Fprintf(&b, "%-10s %-21s %6.1f (%5.1f) %8.1f (%7.1f) %9.1f\n", s.Scheme(), f.Name(transactional), f.P50.Median, f.P50.Max, f.P99.Median, f.P99.Max, f.Max.Max)
		}
	}
	fmt.Fprintf(&b, "lost %d, duplicates %d; a checkpoint every %d ms\n", r.Lost, r.Duplicates, r.IntervalMillis)
	b.WriteString(machineText(&r.Machine))
	return b.String()
}

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
)

// checkpointCommand is `bench checkpoint`.
type checkpointCommand struct {
	options                    bench.CheckpointOptions
	format, cpuProfile, report string
}

func newBenchCheckpointCommand() *cobra.Command {
	c := &checkpointCommand{}
	o := &c.options
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Measure what checkpoints of a big state cost",
		Long: `Fill keyed state of --state-mb, in one job in this process, exactly once, with a standby per task; then let records read values of any key,
and change --dirty percent of all keys, any of them, in each checkpoint interval, by the clock. Stages with a checkpoint every interval and stages with none take
turns: at full rate for the throughput, and at half of what went through without checkpoints for the latency, which counts from when a record was due
to when it was written to the sink, whatever held its source up.

Ratios and differences are made within a repeat, and then the median of them is taken. Between stages a checkpoint is taken, garbage is collected, and
the process comes to rest, so that what one stage leaves to be done does not weigh on the next. The sink is in memory; images and committed state
are on disk (in TMPDIR), twice, since a standby holds them too. It takes about three times the state in memory.

Exit codes: 0 measured, 1 the job failed, 2 unusable arguments, 130 interrupted (what was finished is printed).`,
		Example: `  understudy bench checkpoint --repeats 5
  understudy bench checkpoint --state-mb 256 --dirty 5 -o json --report checkpoint.html`,
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
	f.IntVar(&o.StateMB, "state-mb", 1024, "values of all keys together, MiB")
	f.Float64Var(&o.Dirty, "dirty", 1, "percent of the state that changes between two checkpoints")
	f.IntVar(&o.ValueBytes, "value-bytes", 1024, "size of a key's value")
	f.Float64Var(&o.Seconds, "seconds", 10, "how long each stage is measured, after as long that is not, 2 s at most")
	f.IntVar(&o.Repeats, "repeats", 5, "repeats of both stages at full rate")
	f.IntVar(&o.LatencyRepeats, "latency-repeats", 0, "in how many of them latency at half of the rate is measured too (default: all)")
	f.IntVar(&o.Parallelism, "parallelism", 2, "tasks per operator")
	f.IntVar(&o.Workers, "workers", 3, "workers, all in this process")
	f.DurationVar(&o.Interval, "checkpoint-interval", time.Second, "time between checkpoints")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the order of stages (default: random)")
	f.StringVar(&c.cpuProfile, "cpuprofile", "", "file for a CPU profile of everything")
	f.StringVar(&c.report, "report", "", "file for a report with plots, HTML")
	f.StringVarP(&c.format, "format", "o", "text", "text or json")
	return cmd
}

func (c *checkpointCommand) check() error {
	o := &c.options
	switch {
	case c.format != "text" && c.format != "json":
		return fmt.Errorf("--format %q: want text or json", c.format)
	case o.Repeats < 1 || o.Parallelism < 1 || o.Workers < 2:
		return errors.New("want at least one repeat, one task per operator and two workers, so that there are standbys")
	case o.LatencyRepeats < 0 || o.LatencyRepeats > o.Repeats:
		return fmt.Errorf("--latency-repeats %d: want 1 to --repeats, %d", o.LatencyRepeats, o.Repeats)
	case o.StateMB < 1:
		return fmt.Errorf("--state-mb %d: want 1 or more", o.StateMB)
	case o.ValueBytes < bench.LeastValueBytes || o.ValueBytes > 1<<20:
		return fmt.Errorf("--value-bytes %d: want %d to %d", o.ValueBytes, bench.LeastValueBytes, 1<<20)
	case !(o.Dirty >= 0 && o.Dirty <= 100):
		return fmt.Errorf("--dirty %v: want 0 to 100", o.Dirty)
	case !(o.Seconds > 0):
		return fmt.Errorf("--seconds %v: want more than 0", o.Seconds)
	case o.Interval < 10*time.Millisecond:
		return fmt.Errorf("--checkpoint-interval %v: want at least 10ms", o.Interval)
	case o.Seconds < 2*o.Interval.Seconds():
		return fmt.Errorf("--seconds %v: want at least twice the --checkpoint-interval (%v), so that no stage with checkpoints is without one", o.Seconds, o.Interval)
	}
	return nil
}

// run measures in a temporary directory and prints what it measured.
func (c *checkpointCommand) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
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
	endProfile, err := profileCPU(c.cpuProfile)
	if err != nil {
		return err
	}
	r, err := bench.MeasureCheckpoint(ctx, o)
	err = errors.Join(err, endProfile())
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	page := r.Page()
	err = errors.Join(err, writeReport(c.report, &page))
	err = errors.Join(err, printMeasured(stdout, c.format, &r, func() string { return checkpointText(&r) }))
	if errors.Is(err, context.Canceled) {
		return &exitError{code: console.ExitInterrupted, err: errors.New("interrupted: what was printed is about the repeats that were finished")}
	}
	return err
}

func checkpointText(r *bench.Checkpoint) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d MiB of state in %d keys, %.2f%% of it in each checkpoint, one every %d ms\n", r.StateMB, r.Keys, r.DirtyMeasured, r.IntervalMillis)
	fmt.Fprintf(&b, "throughput    %.3f of that without checkpoints (%.3f to %.3f): %s; by CPU %s\n", r.Ratio.Median, r.Ratio.Min, r.Ratio.Max,
		bench.Slower(r.Loss), bench.Slower(r.LossByCPU))
	fmt.Fprintf(&b, "latency p50   %.1f ms without, %.1f ms with\n", r.P50Without, r.P50With)
	fmt.Fprintf(&b, "latency p99   %.1f ms without, %.1f ms with: %.1f ms more (%.1f to %.1f)\n", r.P99Without, r.P99With, r.P99Added, r.P99AddedAll.Min, r.P99AddedAll.Max)
	fmt.Fprintf(&b, "checkpoint    %.2f MB, %.0f ms in the median, %.0f ms at worst\n", r.CheckpointBytes/1e6, r.CheckpointMS, r.CheckpointMax)
	b.WriteString(machineText(&r.Machine))
	return b.String()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/understudy-stream/understudy/internal/bench"
	"github.com/understudy-stream/understudy/internal/console"
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the engine on this machine",
		Args:  knownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchOverheadCommand(), newBenchBaselineCommand(), newBenchRecoveryCommand(), newBenchCheckpointCommand(), newBenchLatencyCommand(),
		newBenchProcessCommand())
	return cmd
}

// newBenchProcessCommand is what the children of a benchmark are started with.
func newBenchProcessCommand() *cobra.Command {
	return &cobra.Command{
		Use: "process SPEC", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return bench.Child(cmd.Context(), args[0]) },
	}
}

// recoveryCommand is `bench recovery`.
type recoveryCommand struct {
	options            bench.RecoveryOptions
	experiment, format string
	report             string
}

func newBenchRecoveryCommand() *cobra.Command {
	c := &recoveryCommand{}
	o := &c.options
	cmd := &cobra.Command{
		Use:   "recovery",
		Short: "Kill workers by kill -9 under load, and measure what a reader of the output sees",
		Long: `Run a job on worker processes at half of what goes through without pacing, kill workers by kill -9, and read the output from outside as
it grows, in both cases. Latency counts from when a record was due, so that a stall shows in all records that came due meanwhile.

Experiments with three stateful maps, each behind a shuffle (as in the Clonos paper): single (one worker after the other, --kills times),
row (three in a row, each while the one before is being recovered), together (three at once; wants four workers). Experiments with a
query of Nexmark, whose rows are compared with those of a plain program: q3 and q8 (one worker after the other, --kills times).

single, q3 and q8 kill a worker that shows output when the job is settled, a random part of a checkpoint interval later: no task recovers,
each has a standby with the last checkpoint, the tasks are spread evenly, and the sources are not behind. That takes some seconds each time;
after --settle the kill comes anyway, and the output says so. row and together wait for that once.

The state of q3 is made by letting as many events pass before, which takes a while; that of q8 by letting event time pass faster.

Exit codes: 0 measured, and nothing lost or doubled, 1 records were lost or doubled, or the job failed, 2 unusable arguments, 130
interrupted.

` + bench.Definition + ".",
		Example: `  understudy bench recovery --kills 30
  understudy bench recovery --experiment together --workers 4 --state-mb 100 -o json
  understudy bench recovery --experiment q3 --kills 10 --report q3.html`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(fmt.Errorf("unexpected argument %q", args[0]))
			}
			return usageErrorOrNil(c.check())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := console.Terminable(cmd.Context())
			defer stop()
			if o.Seed == 0 {
				o.Seed = uint64(time.Now().UnixNano())
			}
			o.Log = func(text string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), text+"\n", args...) }
			return c.measure(ctx, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.experiment, "experiment", string(bench.Single), "single, row, together, q3 or q8")
	f.IntVar(&o.Kills, "kills", 30, "kills of the experiments single, q3 and q8")
	f.IntVar(&o.Workers, "workers", 3, "worker processes")
	f.IntVar(&o.Parallelism, "parallelism", 4, "tasks per operator")
	f.Uint64Var(&o.Rate, "rate", 0, "records per second (default: half of what goes through without pacing)")
	f.Uint64Var(&o.Calibration, "calibration", 3_000_000, "records of each of the three runs that measure what goes through without pacing")
	f.IntVar(&o.StateMB, "state-mb", 3, "state of all tasks together, MB")
	f.DurationVar(&o.Interval, "checkpoint-interval", time.Second, "time between checkpoints")
	f.DurationVar(&o.Before, "before", 8*time.Second, "how long the job runs under load before the first kill")
	f.DurationVar(&o.After, "after", 6*time.Second, "how long it runs after the last, at least 2s")
	f.DurationVar(&o.Settle, "settle", 30*time.Second, "how long a kill waits at most for the job to settle")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the kills (default: random)")
	f.StringVar(&c.report, "report", "", "file for a report with plots, HTML")
	f.StringVarP(&c.format, "format", "o", "text", "text or json")
	return cmd
}

func (c *recoveryCommand) check() error {
	o := &c.options
	o.Experiment = bench.Experiment(c.experiment)
	switch {
	case !slices.Contains(bench.Experiments(), o.Experiment):
		return fmt.Errorf("--experiment %q: want one of %v", c.experiment, bench.Experiments())
	case c.format != "text" && c.format != "json":
		return fmt.Errorf("--format %q: want text or json", c.format)
	case o.Kills < 1 || o.Workers < 2 || o.Parallelism < 1:
		return errors.New("want at least one kill, two workers and one task per operator")
	case o.Experiment == bench.Together && o.Workers < 4:
		return errors.New("three workers at once: want --workers 4 or more")
	case o.Before <= 0 || o.After < 0:
		return errors.New("want some time --before the first kill, and no negative one --after the last")
	case o.Interval < time.Millisecond || o.Settle < 0:
		return errors.New("want a --checkpoint-interval of 1ms at least, and no negative time to --settle")
	case o.Calibration < 1:
		return errors.New("--calibration 0: want 1 or more records")
	case o.StateMB < 1:
		return fmt.Errorf("--state-mb %d: want 1 or more", o.StateMB)
	case o.Experiment == bench.Q8 && o.StateMB > bench.MaxStateMBOfQ8:
		return fmt.Errorf("--state-mb %d: a window of q8 can hold %d at most", o.StateMB, bench.MaxStateMBOfQ8)
	}
	return nil
}

// measure runs an experiment in a temporary directory and prints what it measured.
func (c *recoveryCommand) measure(ctx context.Context, w io.Writer) (err error) {
	o := c.options
	if o.Dir, err = os.MkdirTemp("", "understudy-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	r, err := bench.Recover(ctx, o)
	if errors.Is(err, context.Canceled) {
		return &exitError{code: console.ExitInterrupted, err: errors.New("interrupted: nothing was measured")}
	}
	if err != nil {
		return err
	}
	page := r.Page()
	if err := errors.Join(writeReport(c.report, &page), writeRecovery(w, &r, c.format)); err != nil {
		return err
	}
	if r.Lost+r.Duplicates > 0 {
		return &exitError{code: console.ExitFailed, err: fmt.Errorf("%d records lost, %d doubled", r.Lost, r.Duplicates)}
	}
	return nil
}

func writeRecovery(w io.Writer, r *bench.Recovery, format string) error {
	if format == "json" {
		return printObject(w, r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "experiment %s: %d kills, %d records at %d/s", r.Experiment, r.Kills, r.Records, r.Rate)
	if r.FullRate > 0 {
		fmt.Fprintf(&b, " (without pacing: %d/s)", r.FullRate)
	}
	fmt.Fprintf(&b, "\n%d tasks restarted, %d of which were on a worker that died, %d global rollbacks\n", r.TasksRestarted, r.TasksLost, r.Rollbacks)
	if r.Unsettled > 0 {
		fmt.Fprintf(&b, "%d kills came before the job had settled: --settle was over\n", r.Unsettled)
	}
	writeKills(&b, r.PerKill)
	fmt.Fprintf(&b, "from kill -9, ms     median      90%%\n")
	for _, phase := range []struct {
		name     string
		p50, p90 float64
	}{
		{"noticed", r.NoticedP50, r.NoticedP90}, {"decided", r.Phases.Decided, r.PhasesP90.Decided},
		{"collected", r.Phases.Collected, r.PhasesP90.Collected}, {"restored", r.Phases.Restored, r.PhasesP90.Restored},
		{"replayed", r.Phases.Replayed, r.PhasesP90.Replayed}, {"first output", r.Phases.FirstOutput, r.PhasesP90.FirstOutput},
		{"caught up", r.Phases.CaughtUp, r.PhasesP90.CaughtUp},
	} {
		fmt.Fprintf(&b, "  task %-12s %8.1f %8.1f\n", phase.name, phase.p50, phase.p90)
	}
	fmt.Fprintf(&b, "from kill -9 to first new output     median %s, p99 %s (partitions whose task died)\n", milliText(r.FirstOutputP50), milliText(r.FirstOutputP99))
	fmt.Fprintf(&b, "longest gap of the other partitions  %.1f ms (of any before the first kill %.1f ms)\n", r.NoOutputMax, r.NoOutputBefore)
	fmt.Fprintf(&b, "latency from due to visible          before: median %s; in the 100 s after the first kill: median %s, p99 %s\n",
		milliText(r.LatencyBefore), milliText(r.LatencyP50), milliText(r.LatencyP99))
	fmt.Fprintf(&b, "back to normal                       %s\n  (%s)\n", milliText(r.BackToNormal), bench.Definition)
	if r.Stolen >= 0 {
		fmt.Fprintf(&b, "processors                           %s\n", r.ProcessorText())
	}
	fmt.Fprintf(&b, "lost %d, duplicates %d\n", r.Lost, r.Duplicates)
	_, err := io.WriteString(w, b.String())
	return err
}

// milliText says how long something took, if it came to that before the run was over.
func milliText(ms float64) string {
	if ms < 0 {
		return "not within the run"
	}
	return fmt.Sprintf("%.1f ms", ms)
}

// writeKills writes a line per kill.
func writeKills(b *strings.Builder, kills []bench.KillTime) {
	fmt.Fprintf(b, "     at  killed     tasks lost  partitions  longest gap of others  first output of each\n")
	for i := range kills {
		k := &kills[i]
		fmt.Fprintf(b, "%6.1f s  %-9s  %10d  %10d  %21s  %s", k.At, strings.Join(k.Processes, ","), k.TasksLost, len(k.Partitions), k.LongestGap(),
			k.FirstOutputs())
		if !k.Settled {
			fmt.Fprintf(b, " (not settled: %s)", k.Unsettled)
		}
		b.WriteByte('\n')
	}
}

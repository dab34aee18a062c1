package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
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
	cmd.AddCommand(newBenchOverheadCommand(), newBenchBaselineCommand(), newBenchRecoveryCommand(), newBenchProcessCommand())
	return cmd
}

// newBenchProcessCommand is what the children of a benchmark are started with.
func newBenchProcessCommand() *cobra.Command {
	return &cobra.Command{
		Use: "process SPEC", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return bench.Child(cmd.Context(), args[0]) },
	}
}

func newBenchRecoveryCommand() *cobra.Command {
	o := bench.RecoveryOptions{}
	experiment, format := string(bench.Single), "text"
	cmd := &cobra.Command{
		Use:   "recovery",
		Short: "Kill workers by kill -9 under load, and measure what a reader of the output sees",
		Long: `Run three stateful maps, each behind a shuffle (the experiment of the Clonos paper), on worker processes at half of what goes
through without pacing, kill workers by kill -9, and read the output from outside as it grows.

Experiments: single (one worker after the other, --kills times), row (three in a row, each while the one before is being recovered),
together (three at once; wants four workers).

Exit codes: 0 measured, and nothing lost or doubled, 1 records were lost or doubled, or the job failed, 2 unusable arguments.

` + bench.Definition + ".",
		Example: `  understudy bench recovery --kills 30
  understudy bench recovery --experiment together --workers 4 --state-mb 100 -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(fmt.Errorf("unexpected argument %q", args[0]))
			}
			o.Experiment = bench.Experiment(experiment)
			switch {
			case o.Experiment != bench.Single && o.Experiment != bench.Row && o.Experiment != bench.Together:
				return usageError(fmt.Errorf("--experiment %q: want single, row or together", experiment))
			case format != "text" && format != "json":
				return usageError(fmt.Errorf("--format %q: want text or json", format))
			case o.Kills < 1 || o.Workers < 2 || o.Parallelism < 1:
				return usageError(errors.New("want at least one kill, two workers and one task per operator"))
			case o.Experiment == bench.Together && o.Workers < 4:
				return usageError(errors.New("three workers at once: want --workers 4 or more"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if o.Seed == 0 {
				o.Seed = uint64(time.Now().UnixNano())
			}
			o.Log = func(text string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), text+"\n", args...) }
			return measureRecovery(ctx, cmd.OutOrStdout(), o, format)
		},
	}
	f := cmd.Flags()
	f.StringVar(&experiment, "experiment", experiment, "single, row or together")
	f.IntVar(&o.Kills, "kills", 30, "kills of the experiment single")
	f.IntVar(&o.Workers, "workers", 3, "worker processes")
	f.IntVar(&o.Parallelism, "parallelism", 4, "tasks per operator")
	f.Uint64Var(&o.Rate, "rate", 0, "records per second (default: half of what goes through without pacing)")
	f.IntVar(&o.StateMB, "state-mb", 3, "state of all maps together, MB")
	f.DurationVar(&o.Interval, "checkpoint-interval", time.Second, "time between checkpoints")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the kills (default: random)")
	f.StringVarP(&format, "format", "o", format, "text or json")
	return cmd
}

// measureRecovery runs an experiment in a temporary directory and prints what it measured.
func measureRecovery(ctx context.Context, w io.Writer, o bench.RecoveryOptions, format string) (err error) {
	if o.Dir, err = os.MkdirTemp("", "understudy-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	r, err := bench.Recover(ctx, o)
	if err != nil {
		return err
	}
	if err := writeRecovery(w, &r, format); err != nil {
		return err
	}
	if r.Lost+r.Duplicates > 0 {
		return &exitError{code: console.ExitFailed, err: fmt.Errorf("%d records lost, %d doubled", r.Lost, r.Duplicates)}
	}
	return nil
}

func writeRecovery(w io.Writer, r *bench.Recovery, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "experiment %s: %d kills, %d records at %d/s", r.Experiment, r.Kills, r.Records, r.Rate)
	if r.FullRate > 0 {
		fmt.Fprintf(&b, " (half of %d/s)", r.FullRate)
	}
	fmt.Fprintf(&b, "\n%d tasks restarted, %d of which were on a worker that died, %d global rollbacks\n", r.TasksRestarted, r.TasksLost, r.Rollbacks)
	fmt.Fprintf(&b, "from kill -9 to noticed              median %.1f ms\n", r.NoticedP50)
	fmt.Fprintf(&b, "from kill -9 to first new output     median %.1f ms, p99 %.1f ms (partitions whose task died)\n", r.FirstOutputP50, r.FirstOutputP99)
	fmt.Fprintf(&b, "longest gap of the other partitions  %.1f ms\n", r.NoOutputMax)
	fmt.Fprintf(&b, "latency from due to visible          before: median %.1f ms; in the 100 s after the first kill: median %.1f ms, p99 %.1f ms\n",
		r.LatencyBefore, r.LatencyP50, r.LatencyP99)
	fmt.Fprintf(&b, "back to normal                       %.0f ms\n  (%s)\n", r.BackToNormal, bench.Definition)
	fmt.Fprintf(&b, "lost %d, duplicates %d\n", r.Lost, r.Duplicates)
	_, err := io.WriteString(w, b.String())
	return err
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// runOptions are the flags of `understudy run`.
type runOptions struct {
	inputs      []string
	output      string
	mode        string
	parallelism int
	workers     int
	interval    time.Duration
	standbys    int
	depth       string
	state       string
	chaos       string
	seed        uint64
	format      string
	service     string
	window      time.Duration
	deadLetters string
	verbose     bool

	mutations mutation.Set
}

const runExamples = `  # count words of Go's network library, killing a task about every 200 ms
  understudy run wordcount --input "$(go env GOROOT)/src/net/**/*.go" --output out --parallelism 4 --chaos kill=200ms,target=task
  understudy verify running --output out --key word --value count

  # stop it with Ctrl-C, or kill -9; the same command goes on where it was
  understudy run wordcount --input 'logs/*.gz' --output out --state state

  # a summary for machines
  understudy run passthrough --input 'data/*.jsonl' --output out -o json`

func newRunCommand() *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:     "run JOB --input GLOB --output DIR",
		Short:   "Run a job in this process until its input is processed",
		Example: runExamples,
		Args:    oneJob,
		Long:    runLong(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	f := cmd.Flags()
	f.StringArrayVar(&o.inputs, "input", nil, "files to read; ** matches folders of any depth (repeatable; required)")
	f.StringVar(&o.output, "output", "", "directory for the output, one JSONL file per task (required)")
	f.StringVar(&o.mode, "mode", "exactly-once", "exactly-once, at-least-once or global-rollback")
	f.IntVar(&o.parallelism, "parallelism", 2, "tasks per operator")
	f.IntVar(&o.workers, "workers", 3, "workers that share the tasks; all in this process")
	f.DurationVar(&o.interval, "checkpoint-interval", time.Second, "time between checkpoints")
	f.IntVar(&o.standbys, "standbys", 1, "standbys per task")
	f.StringVar(&o.depth, "sharing-depth", "full", "hops that determinants are handed on: auto, full or a number")
	f.StringVar(&o.state, "state", "", "state directory; a restart continues from there (default OUTPUT/.understudy/state)")
	f.StringVar(&o.chaos, "chaos", "", "kill at random: kill=200ms,target=task|worker,limit=N (mean interval; at most N times)")
	f.Uint64Var(&o.seed, "seed", 0, "seed of chaos (default: random)")
	f.StringVarP(&o.format, "format", "o", "text", "summary: text or json")
	f.StringVar(&o.service, "service", "", "enrich: URL of the external service (default: a built-in one that answers differently each time)")
	f.DurationVar(&o.window, "window", 200*time.Millisecond, "enrich: length of the processing-time windows")
	f.StringVar(&o.deadLetters, "dead-letters", "", "file for records that a job fails on three times; without it such a record stops the job")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what the engine does to standard error")
	return cmd
}

func oneJob(_ *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usageError(fmt.Errorf("want one JOB, have %d arguments: %s", len(args), jobNames()))
}

func runLong() string {
	s := "Run a job in this process until its input is processed.\n\nJobs:\n"
	for _, j := range jobs {
		s += fmt.Sprintf("  %-12s %s\n", j.name, j.about)
	}
	return s + "\nExit codes: 0 all input processed, 1 the job failed, 2 unusable arguments, 130 interrupted (the same command continues)."
}

// usageError marks an error of the arguments.
func usageError(err error) error { return &exitError{code: 2, err: err} }

func (o *runOptions) validate() (*understudy.Options, error) {
	switch {
	case len(o.inputs) == 0:
		return nil, errors.New("--input is required")
	case o.output == "":
		return nil, errors.New("--output is required")
	case o.format != "text" && o.format != "json":
		return nil, fmt.Errorf("--format %q: want text or json", o.format)
	case o.parallelism < 1:
		return nil, fmt.Errorf("--parallelism %d: want at least 1", o.parallelism)
	case o.workers < 1:
		return nil, fmt.Errorf("--workers %d: want at least 1", o.workers)
	case o.standbys < 0:
		return nil, fmt.Errorf("--standbys %d: want 0 or more", o.standbys)
	case o.window < time.Millisecond:
		return nil, fmt.Errorf("--window %v: want at least 1ms", o.window)
	}
	mode, err := determinant.ParseMode(o.mode)
	if err != nil {
		return nil, err
	}
	if o.state == "" {
		o.state = filepath.Join(o.output, ".understudy", "state")
	}
	u := &understudy.Options{
		Parallelism: o.parallelism, Workers: o.workers, Mode: mode, CheckpointInterval: o.interval, StateDir: o.state,
		Standbys: o.standbys,
	}
	if o.standbys == 0 {
		u.Standbys = -1
	}
	switch o.depth {
	case "auto":
		u.AutoDepth = true
	case "full":
	default:
		if u.SharingDepth, err = strconv.Atoi(o.depth); err != nil || u.SharingDepth < 1 {
			return nil, fmt.Errorf("--sharing-depth %q: want auto, full or a number from 1", o.depth)
		}
	}
	if o.chaos != "" {
		if u.Chaos, err = understudy.ParseChaos(o.chaos); err != nil {
			return nil, err
		}
		if o.seed == 0 {
			o.seed = rand.Uint64()
		}
		u.Chaos.Seed = o.seed
	}
	return u, u.Validate()
}

func (o *runOptions) run(ctx context.Context, name string, stdout, stderr io.Writer) (err error) {
	spec, err := findJob(name)
	if err != nil {
		return err
	}
	u, err := o.validate()
	if err != nil {
		return usageError(err)
	}
	o.mutations = mutation.FromContext(ctx)
	job, free, err := spec.build(o)
	if err != nil {
		return usageError(err)
	}
	defer free()
	if o.deadLetters != "" {
		letters := file.DeadLetters(o.deadLetters)
		defer func() { err = errors.Join(err, letters.Close()) }()
		u.DeadLetter = func(p understudy.Poison) error { return letters.Put(deadLetter(&p)) }
	}
	if o.verbose {
		u.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	}
	line := &progressLine{out: stderr}
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !o.verbose {
		u.Progress = line.show
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	sum, err := understudy.Run(ctx, job, *u)
	line.clear()
	if errors.Is(err, file.ErrNoMatch) {
		return usageError(err)
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	if perr := o.print(stdout, &sum, u); perr != nil {
		return perr
	}
	if err != nil {
		return &exitError{code: 130, err: errors.New("interrupted; the same command continues from " + o.state)}
	}
	return nil
}

func (o *runOptions) print(w io.Writer, sum *understudy.Summary, u *understudy.Options) error {
	if o.format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(sum)
	}
	if sum.Complete {
		_, err := fmt.Fprintf(w, "nothing to do: an earlier run has processed all the input that it was given (to begin anew, or with other input, remove %s and %s)\n", o.output, o.state)
		return err
	}
	fmt.Fprintf(w, "%d records in, %d records out, %.1f s, %d checkpoints\n", sum.RecordsIn, sum.RecordsOut, sum.Seconds, sum.Checkpoints)
	if sum.Kills > 0 || sum.TasksRestarted > 0 {
		fmt.Fprintf(w, "%d kills (seed %d), %d tasks restarted, %d global rollbacks, %d duplicates suppressed\n",
			sum.Kills, o.seed, sum.TasksRestarted, sum.Rollbacks, sum.DuplicatesDropped)
		fmt.Fprintf(w, "from noticed to caught up: %s\n", recoveryTimes(sum))
	}
	if sum.SetAside > 0 {
		fmt.Fprintf(w, "%d records set aside in %s\n", sum.SetAside, o.deadLetters)
	}
	_, err := fmt.Fprintf(w, "%d bytes of determinants, mode %v\n", sum.DeterminantBytes, u.Mode)
	return err
}

func deadLetter(p *understudy.Poison) file.DeadLetter {
	l := file.DeadLetter{Operator: p.Operator, Channel: determinant.ChannelID(p.Position.Channel), Seq: p.Position.Seq, Record: p.Record}
	if p.Err != nil {
		l.Err = p.Err.Error()
	}
	return l
}

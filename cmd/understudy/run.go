package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/console"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// runOptions are the flags of `understudy run`, and of the commands that start single processes of a cluster.
type runOptions struct {
	inputs      []string
	output      string
	ends        endpoints
	rate        int64 // bytes per second and file; 0: as fast as possible
	rateText    string
	service     string
	window      time.Duration // 0: the job's default
	deadLetters string
	events      eventFlags
	engine      console.Engine

	workers      int
	coordinators int
	state        string
	chaos        string
	seed         uint64
	format       string
	secrets      console.Secrets

	mutations mutation.Set
}

const runExamples = `  # count words of Go's network library, killing a task about every 200 ms
  understudy run wordcount --input "$(go env GOROOT)/src/net/**/*.go" --output out --parallelism 4 --chaos kill=200ms,target=task
  understudy verify running --output out --key word --value count

  # the same on three worker processes, one of which is killed by kill -9 about every second
  understudy run wordcount --input "$(go env GOROOT)/src/net/**/*.go" --output out2 --workers 3 --chaos kill=1s,target=worker
  understudy status --state out2/.understudy/state

  # stop it with Ctrl-C, or kill -9; the same command goes on where it was
  understudy run wordcount --input 'logs/*.gz' --output out --state state

  # from one system to another; password and token come from files
  understudy run wordcount --source 'kafka://host:9092/texts' --sink 'postgres://me@host/db?table=counts&password_file=pw' --state state

  # a summary for machines
  understudy run passthrough --input 'data/*.jsonl' --output out -o json`

func newRunCommand() *cobra.Command {
	o := &runOptions{engine: console.NewEngine()}
	cmd := &cobra.Command{
		Use:     "run JOB --source URL --sink URL",
		Short:   "Run a job until its input is processed, in this process or on several of this machine",
		Example: runExamples,
		Args:    oneJob,
		Long:    runLong(),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := findJob(args[0])
			if err != nil {
				return err
			}
			if err := o.effective(spec, cmd.Flags().Changed); err != nil {
				return usageError(err)
			}
			return o.run(cmd.Context(), args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	o.jobFlags(cmd)
	goFlags(cmd, o.engine.Register, o.engine.RegisterHeartbeat, o.secrets.Register)
	f := cmd.Flags()
	f.IntVar(&o.workers, "workers", 0, "worker processes on this machine; 0: no processes, everything runs in this one")
	f.IntVar(&o.coordinators, "coordinators", 1, "coordinator processes, 1 or 3, of which 3 survive the loss of any one")
	f.StringVar(&o.state, "state", "", "state directory; a restart continues from there (default OUTPUT/.understudy/state; required without an output directory)")
	f.StringVar(&o.chaos, "chaos", "", "make failures at random, for example kill=1s,target=worker (see above)")
	f.Uint64Var(&o.seed, "seed", 0, "seed of chaos (default: random)")
	f.StringVarP(&o.format, "format", "o", "text", "summary: text or json")
	return cmd
}

// jobFlags adds the flags that every process of a job must be given alike.
func (o *runOptions) jobFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&o.inputs, "input", nil, "files to read; ** matches folders of any depth (repeatable; jobs that read lines need it or --source)")
	f.StringVar(&o.output, "output", "", "directory for the output, one JSONL file per task (it or --sink is required)")
	o.ends.register(f)
	f.StringVar(&o.rateText, "rate", "", "the pace at which each file is read, as if it were being written, such as 512KiB a second, or, nexmark, events per second (default: 0, as fast as possible)")
	f.StringVar(&o.service, "service", "", "enrich, nexmark-q12x: URL of the external service (default: a built-in one that answers differently each time)")
	f.DurationVar(&o.window, "window", 0, "enrich, nexmark-q12, nexmark-q12x: length of the processing-time windows (default 200ms, 10s, 10s)")
	f.StringVar(&o.deadLetters, "dead-letters", "", "file for records that a job fails on three times; without it such a record stops the job")
	o.events.register(f)
}

// shorthands are the flags that have a letter too.
var shorthands = map[string]string{"verbose": "v", "format": "o"}

// goFlags adds flags that programs which embed the engine have too.
func goFlags(cmd *cobra.Command, register ...func(*flag.FlagSet)) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	for _, r := range register {
		r(fs)
	}
	fs.VisitAll(func(f *flag.Flag) {
		added := pflag.PFlagFromGoFlag(f)
		added.Shorthand = shorthands[f.Name]
		if f.DefValue == "0s" {
			added.DefValue = "0" // which is not shown: the text says what it means
		}
		cmd.Flags().AddFlag(added)
	})
}

func oneJob(_ *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	if len(args) > 1 {
		return usageError(fmt.Errorf("want one JOB, have %d arguments (a glob must be quoted, or the shell expands it)", len(args)))
	}
	return usageError(fmt.Errorf("want one JOB: %s", jobNames()))
}

func runLong() string {
	s := "Run a job until its input is processed.\n\nJobs:\n"
	for _, j := range jobs {
		s += fmt.Sprintf("  %-12s %s\n", j.name, j.about)
	}
	return s + endpointsHelp() + `
Chaos is a list, kill=DURATION,target=T,pause=DURATION,for=DURATION,link=DURATION,seed=N,limit=N, at least one of
  kill=DURATION   kill a target at this mean interval (exponentially distributed)
  pause=DURATION  stop a random worker process (SIGSTOP), and let it go on after for=DURATION (default 3s)
  link=DURATION   cut all connections of a random worker process to the other workers
of which the last two need --workers. Targets in one process are task and worker. Of processes they are worker, coordinator (the one
that leads), standby (the worker that holds the standby of a random task), two (two workers at once) and all; several joined by +
stand for one of them each time. What was killed is started again soon after. limit=N bounds the number of failures.

Exit codes: 0 all input processed, 1 the job failed, 2 unusable arguments, 130 interrupted or stopped (the same command continues).
The first Ctrl-C stops processes with a checkpoint, a second one kills them.`
}

// usageError marks an error of the arguments.
func usageError(err error) error { return &exitError{code: 2, err: err} }

// effective refuses flags that would have no effect.
func (o *runOptions) effective(job *jobSpec, given func(flag string) bool) error {
	if err := job.misplaced(given); err != nil {
		return err
	}
	for _, rule := range []struct {
		applies bool
		flags   []string
		why     string
	}{
		{o.workers == 0, []string{"coordinators", "heartbeat-timeout", "secret-file", "tls-ca", "tls-cert", "tls-key"},
			"has an effect only where workers are processes: --workers N"},
		{o.chaos == "", []string{"seed"}, "has an effect only with --chaos"},
	} {
		for _, name := range rule.flags {
			if rule.applies && given(name) {
				return fmt.Errorf("--%s %s", name, rule.why)
			}
		}
	}
	return nil
}

// checkJob tells what is wrong with the flags that every process of a job has.
func (o *runOptions) checkJob(job *jobSpec) error {
	if err := o.checkEnds(job); err != nil {
		return err
	}
	if o.window != 0 && o.window < time.Millisecond {
		return fmt.Errorf("--window %v: want at least 1ms", o.window)
	}
	switch {
	case !job.has("input"):
		if err := o.events.check(o.rateText); err != nil {
			return err
		}
	case o.rateText != "":
		var err error
		if o.rate, err = parseSize(o.rateText); err != nil {
			return fmt.Errorf("--rate %q: want bytes per second, such as 512KiB", o.rateText)
		}
	}
	return o.engine.Check()
}

// options are those of the engine.
func (o *runOptions) options() *understudy.Options {
	e := &o.engine
	return &understudy.Options{
		Parallelism: e.Parallelism, Workers: o.workers, Mode: e.Mode, CheckpointInterval: e.Interval, StateDir: o.state,
		Standbys: e.StandbysOption(), SharingDepth: e.Depth, AutoDepth: e.AutoDepth, HeartbeatTimeout: e.HeartbeatTimeout, Settings: o.settings(),
	}
}

// settings are the flags of the job that all its processes must be given alike. Where files are counts, and not how that is written. A URL may have
// parameters that are one process's own, such as the name of an ingest server or where a secret is.
func (o *runOptions) settings() map[string]string {
	e := &o.events
	s := map[string]string{
		"--source": shared(o.ends.source, true), "--sink": shared(o.ends.sink, false), "--service": o.service, "--window": fmt.Sprint(o.window),
		"--rate": fmt.Sprint(o.rate, e.source.Rate), "--events": fmt.Sprint(e.events), "--endless": fmt.Sprint(e.endless),
		"--event-rate": fmt.Sprint(e.eventRate), "--group": fmt.Sprint(e.group), "--pacing": e.pacing, "--final": fmt.Sprint(e.final),
		"--dead-letters": fmt.Sprint(o.deadLetters != ""),
	}
	inputs := make([]string, len(o.inputs))
	for i, in := range o.inputs {
		inputs[i] = absolute(in)
	}
	slices.Sort(inputs)
	s["--input"] = strings.Join(inputs, "\n")
	if o.output != "" {
		s["--output"] = absolute(o.output)
	}
	return s
}

// own finds the parameters of a URL that may differ from process to process: where secrets are. ownIngest are those of an ingest server.
var (
	own       = regexp.MustCompile(`^(.*[-_](file|env|cert|ca|key)|ssl(cert|key|rootcert)|creds|nkey|passfile)$`)
	ownIngest = regexp.MustCompile(`^(name|listen|dir)$`)
)

// shared is what the URL of a source or sink says that all processes must agree on. What a webhook's has before the # is the receiver's affair.
func shared(text string, source bool) string {
	place, said, receiver := strings.Cut(text, "#")
	if !receiver {
		place, said, _ = strings.Cut(text, "?")
	}
	if path, is := strings.CutPrefix(place, "file:"); is && !strings.HasPrefix(path, "//") {
		place = "file:" + absolute(path)
	}
	ingest := source && strings.HasPrefix(place, "http")
	var kept []string
	for parameter := range strings.SplitSeq(said, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		if name != "" && !own.MatchString(name) && !(ingest && ownIngest.MatchString(name)) {
			kept = append(kept, parameter)
		}
	}
	slices.Sort(kept)
	return place + "?" + strings.Join(kept, "&")
}

// absolute is a path from the root; without a working directory, in which nothing will open it either, the path itself.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func (o *runOptions) validate(job *jobSpec) (*understudy.Options, error) {
	if err := o.checkJob(job); err != nil {
		return nil, err
	}
	switch {
	case o.format != "text" && o.format != "json":
		return nil, fmt.Errorf("--format %q: want text or json", o.format)
	case o.workers < 0:
		return nil, fmt.Errorf("--workers %d: want 0 or more", o.workers)
	case o.coordinators != 1 && o.coordinators != 3:
		return nil, fmt.Errorf("--coordinators %d: want 1 or 3", o.coordinators)
	}
	if o.state == "" && o.directory() == "" {
		return nil, errors.New("--state is required with this --sink: a directory of this job alone")
	}
	if o.state == "" {
		o.state = filepath.Join(o.directory(), ".understudy", "state")
	}
	u := o.options()
	if o.chaos != "" {
		var err error
		if u.Chaos, err = understudy.ParseChaos(o.chaos); err != nil {
			return nil, err
		}
		if err := o.seedChaos(u.Chaos); err != nil {
			return nil, err
		}
	}
	if o.workers == 0 {
		return u, u.Validate()
	}
	if err := o.secrets.Check(); err != nil {
		return nil, err
	}
	u.Processes.Coordinators, u.Processes.Credentials = o.coordinators, o.secrets.Credentials
	return u, u.ValidateCluster()
}

func (o *runOptions) seedChaos(c *understudy.Chaos) error {
	switch {
	case o.seed != 0 && c.Seed != 0:
		return errors.New("--seed and seed= of --chaos: give one of them")
	case c.Seed != 0:
		o.seed = c.Seed
	case o.seed == 0:
		o.seed = rand.Uint64()
	}
	c.Seed = o.seed
	return nil
}

// opened is a job, and what frees what it holds.
type opened struct {
	job  *operator.Job
	free func() error
}

// open makes a job.
func (o *runOptions) open(ctx context.Context, name string, u *understudy.Options, stderr io.Writer) (*opened, error) {
	spec, err := findJob(name)
	if err != nil {
		return nil, err
	}
	o.mutations = mutation.FromContext(ctx)
	assigned, err := supervisor.Assigned()
	if err != nil {
		return nil, err
	}
	o.ends.waits = newWaitLog(stderr, assigned != nil)
	job, free, err := spec.build(o)
	if err != nil {
		return nil, usageError(err)
	}
	opened := &opened{job: job, free: func() error { free(); return nil }}
	if o.deadLetters != "" {
		letters := file.DeadLetters(o.deadLetters)
		opened.free = func() error { free(); return letters.Close() }
		u.DeadLetter = func(p understudy.Poison) error { return letters.Put(deadLetter(&p)) }
	}
	if o.engine.Verbose {
		u.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	} else if u.Processes.Coordinators > 0 {
		u.Logger = slog.New(endpointsOnly{slog.NewTextHandler(stderr, nil)})
	}
	return opened, nil
}

func (o *runOptions) run(ctx context.Context, name string, stdout, stderr io.Writer) (err error) {
	spec, err := findJob(name)
	if err != nil {
		return err
	}
	u, err := o.validate(spec)
	if err != nil {
		return usageError(err)
	}
	opened, err := o.open(ctx, name, u, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.free()) }()
	works, err := o.worksHere()
	if err != nil {
		return err
	}
	if works {
		close, lerr := o.startIngest(o.workers == 0)
		if lerr != nil {
			return lerr
		}
		defer func() { err = errors.Join(err, close()) }()
	}
	line := &console.ProgressLine{Out: stderr}
	if isTerminal(stderr) && !o.engine.Verbose {
		u.Progress = line.Show
	}
	ctx, abort, stop := console.Interrupts(ctx)
	defer stop()
	if o.workers > 0 {
		u.Processes.Abort = abort
		return o.runCluster(ctx, opened, u, line, stdout)
	}
	sum, err := understudy.Run(ctx, opened.job, *u)
	line.Clear()
	if errors.Is(err, file.ErrNoMatch) {
		return usageError(err)
	}
	err = o.ending(err)
	if o.format == "json" {
		return errors.Join(err, console.PrintJSON(stdout, struct {
			understudy.Summary
			Error string `json:"error,omitempty"`
		}{sum, sentence(err)}))
	}
	if err == nil || isInterrupted(err) {
		err = errors.Join(err, console.WriteSummary(stdout, &sum, o.end()))
	}
	return err
}

// runCluster runs a job on processes. In each of them but this one it does not return.
func (o *runOptions) runCluster(ctx context.Context, opened *opened, u *understudy.Options, line *console.ProgressLine, stdout io.Writer) error {
	sum, err := understudy.RunCluster(ctx, opened.job, *u)
	line.Clear()
	if errors.Is(err, file.ErrNoMatch) {
		return usageError(err)
	}
	err = o.ending(err)
	if o.format == "json" {
		return errors.Join(err, console.PrintJSON(stdout, struct {
			understudy.ClusterSummary
			Seed  uint64 `json:"seed,omitempty"`
			Error string `json:"error,omitempty"`
		}{sum, o.seed, sentence(err)}))
	}
	if err == nil || isInterrupted(err) {
		err = errors.Join(err, console.WriteClusterSummary(stdout, &sum, o.end()))
	}
	return err
}

// ending gives the end of a run its words and its exit code.
func (o *runOptions) ending(err error) error {
	again := "; the same command continues from " + o.state
	switch {
	case errors.Is(err, understudy.ErrAborted):
		return &exitError{code: 130, err: errors.New("killed" + again)}
	case errors.Is(err, understudy.ErrStopped):
		return &exitError{code: 130, err: errors.New("the cluster was told to stop" + again)}
	case errors.Is(err, context.Canceled):
		return &exitError{code: 130, err: errors.New("interrupted" + again)}
	case errors.Is(err, understudy.ErrOtherInput):
		return fmt.Errorf("%w (to begin anew, remove %s and %s)", err, o.shown(), o.state)
	}
	return err
}

func isInterrupted(err error) bool {
	var exit *exitError
	return errors.As(err, &exit) && exit.code == console.ExitInterrupted
}

// sentence is an error as a field of an object.
func sentence(err error) string {
	if err == nil {
		return ""
	}
	return console.Sentence(err)
}

func (o *runOptions) end() console.Ending {
	return console.Ending{Seed: o.seed, Chaos: o.chaos != "", Mode: o.engine.Mode.String(), Letters: o.deadLetters, Output: o.shown(), StateDir: o.state}
}

func deadLetter(p *understudy.Poison) file.DeadLetter {
	l := file.DeadLetter{Operator: p.Operator, Channel: determinant.ChannelID(p.Position.Channel), Seq: p.Position.Seq, Record: p.Record}
	if p.Err != nil {
		l.Err = p.Err.Error()
	}
	return l
}

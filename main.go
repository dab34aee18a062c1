package understudy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/understudy-stream/understudy/internal/console"
	"github.com/understudy-stream/understudy/operator"
)

// Main makes a program the cluster of its job: it reads a command and its flags and carries it out. It does not return.
//
//	PROGRAM local        run coordinators and workers as processes of this machine
//	PROGRAM coordinator  run one coordinator of a cluster
//	PROGRAM worker       run one worker of a cluster
//	PROGRAM status, mode, checkpoint, stop, drain  ask the coordinators
//
// Each has --help. Options are the defaults of the flags, and hold what has no flag. A program with flags of its own calls flag.Parse
// first; Main then reads what is left, so that they stand before the command. Exit codes: 0 done, 1 failed, 2 unusable arguments, 3 no
// coordinator leads or can be reached, 130 interrupted (the same command continues).
func Main(job *operator.Job, o Options) {
	args := os.Args[1:]
	if flag.Parsed() {
		args = flag.Args()
	}
	p := &program{name: filepath.Base(os.Args[0]), job: job, opts: o, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.main(context.Background(), args))
}

// program is one use of Main.
type program struct {
	name           string
	job            *operator.Job
	opts           Options
	stdout, stderr io.Writer
}

// subcommand is one of Main's commands that run processes.
type subcommand struct {
	name  string
	about string
	run   func(p *program, ctx context.Context, c *subcommand, args []string) error
}

var subcommands = []subcommand{
	{"local", "Run the job on coordinator and worker processes of this machine until its input is processed", (*program).local},
	{"coordinator", "Run one of the coordinators of a cluster, whose processes are started one by one", (*program).coordinator},
	{"worker", "Run one of the workers of a cluster, whose processes are started one by one", (*program).worker},
}

func (p *program) main(ctx context.Context, args []string) int {
	err := p.dispatch(ctx, args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return console.ExitDone
	}
	fmt.Fprintf(p.stderr, "%s: %s\n", p.name, console.Sentence(err))
	return console.Code(err)
}

func (p *program) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || strings.TrimLeft(args[0], "-") == "help" || args[0] == "-h" {
		return p.help()
	}
	for i := range subcommands {
		if c := &subcommands[i]; c.name == args[0] {
			return c.run(p, ctx, c, args[1:])
		}
	}
	var names []string
	for i := range console.Verbs {
		v := &console.Verbs[i]
		if v.Name == args[0] {
			return p.ask(ctx, v, args[1:])
		}
		names = append(names, v.Name)
	}
	return &console.UsageError{Err: fmt.Errorf("unknown command %q: want local, coordinator, worker, %s", args[0], strings.Join(names, ", "))}
}

func (p *program) help() error {
	fmt.Fprintf(p.stdout, "Usage:\n  %s COMMAND [flags]\n\nCommands:\n", p.name)
	tab := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, c := range subcommands {
		fmt.Fprintf(tab, "  %s\t%s\n", c.name, c.about)
	}
	for i := range console.Verbs {
		fmt.Fprintf(tab, "  %s\t%s\n", console.Verbs[i].Name, console.Verbs[i].About)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.stdout, "\n%s COMMAND --help says more.\n", p.name)
	return err
}

// stateDir is where local keeps the state if nobody says otherwise.
func (p *program) stateDir() string {
	if p.opts.StateDir != "" {
		return p.opts.StateDir
	}
	return p.job.Name() + ".state"
}

func (p *program) clusterName() string {
	if p.opts.Processes.Cluster != "" {
		return p.opts.Processes.Cluster
	}
	return p.job.Name()
}

func (p *program) ask(ctx context.Context, v *console.Verb, args []string) error {
	fs := flag.NewFlagSet(v.Name, flag.ContinueOnError)
	r := &console.Reach{Fallback: p.stateDir()}
	r.Register(fs, p.clusterName(), "o")
	m := console.Manual{Usage: strings.TrimSpace(p.name+" "+v.Name+" "+v.Args) + " [flags]", Long: v.Long(), Examples: v.Examples(p.name)}
	rest, err := m.Parse(fs, args, p.stdout)
	if err != nil {
		return err
	}
	return v.Do(ctx, r, rest, p.stdout)
}

// engine are the flags of the engine, with the program's own defaults.
func (p *program) engine() console.Engine {
	e, o := console.NewEngine(), &p.opts
	e.ModeName, e.AutoDepth = o.Mode.String(), o.AutoDepth
	if o.Parallelism > 0 {
		e.Parallelism = o.Parallelism
	}
	if o.CheckpointInterval > 0 {
		e.Interval = o.CheckpointInterval
	}
	if o.Standbys != 0 {
		e.Standbys = max(0, o.Standbys)
	}
	if o.HeartbeatTimeout > 0 {
		e.HeartbeatTimeout = o.HeartbeatTimeout
	}
	switch {
	case o.AutoDepth:
		e.DepthName = "auto"
	case o.SharingDepth > 0:
		e.DepthName = fmt.Sprint(o.SharingDepth)
	}
	return e
}

// take makes what the flags say the options.
func (p *program) take(e *console.Engine) error {
	if err := e.Check(); err != nil {
		return &console.UsageError{Err: err}
	}
	o := &p.opts
	o.Parallelism, o.Mode, o.CheckpointInterval, o.Standbys = e.Parallelism, e.Mode, e.Interval, e.StandbysOption()
	o.SharingDepth, o.AutoDepth, o.HeartbeatTimeout = e.Depth, e.AutoDepth, e.HeartbeatTimeout
	if e.Verbose {
		o.Logger = slog.New(slog.NewTextHandler(p.stderr, nil))
	}
	return nil
}

// localFlags are the flags of local.
type localFlags struct {
	engine       console.Engine
	secrets      console.Secrets
	workers      int
	coordinators int
	state        string
	chaos        string
	format       string
}

func (l *localFlags) register(fs *flag.FlagSet, p *program) {
	l.engine = p.engine()
	l.secrets.Credentials = p.opts.Processes.Credentials
	l.engine.Register(fs)
	l.engine.RegisterHeartbeat(fs)
	l.secrets.Register(fs)
	fs.IntVar(&l.workers, "workers", max(p.opts.Workers, 3), "worker processes")
	fs.IntVar(&l.coordinators, "coordinators", max(p.opts.Processes.Coordinators, 1), "coordinator processes, 1 or 3, of which 3 survive the loss of any one")
	fs.StringVar(&l.state, "state", p.stateDir(), "state `DIR`; a restart continues from there")
	fs.StringVar(&l.chaos, "chaos", "", "make failures at random, for example kill=1s,target=worker,seed=1")
	fs.StringVar(&l.format, "o", "text", "summary: text or json")
}

func (p *program) local(ctx context.Context, c *subcommand, args []string) error {
	var l localFlags
	fs := flag.NewFlagSet("local", flag.ContinueOnError)
	l.register(fs, p)
	m := console.Manual{Usage: p.name + " local [flags]", Long: c.about + `.
Interrupted or killed, it goes on when the same command is given again.

Exit codes: 0 all input processed, 1 the job failed, 2 unusable arguments, 130 interrupted or stopped (the same command continues).
The first Ctrl-C stops the processes with a checkpoint, a second one kills them.`,
		Examples: fmt.Sprintf("  %[1]s local\n  %[1]s local --workers 4 --coordinators 3 --chaos kill=1s,target=worker -o json", p.name)}
	if err := p.parse(fs, &m, args); err != nil {
		return err
	}
	if err := p.takeLocal(&l); err != nil {
		return err
	}
	line := &console.ProgressLine{Out: p.stderr}
	if console.IsTerminal(p.stderr) && !l.engine.Verbose && p.opts.Progress == nil {
		p.opts.Progress = line.Show
	}
	ctx, abort, stop := console.Interrupts(ctx)
	defer stop()
	p.opts.Processes.Abort = abort
	sum, err := RunCluster(ctx, p.job, p.opts)
	line.Clear()
	return p.finish(&l, &sum, err)
}

// parse reads flags where no arguments may stand.
func (p *program) parse(fs *flag.FlagSet, m *console.Manual, args []string) error {
	rest, err := m.Parse(fs, args, p.stdout)
	if err == nil && len(rest) > 0 {
		err = &console.UsageError{Err: fmt.Errorf("%s takes no arguments, have %q", fs.Name(), rest)}
	}
	return err
}

func (p *program) takeLocal(l *localFlags) error {
	if err := p.take(&l.engine); err != nil {
		return err
	}
	o := &p.opts
	o.Workers, o.StateDir, o.Processes.Coordinators = l.workers, l.state, l.coordinators
	err := l.secrets.Check()
	o.Processes.Credentials = l.secrets.Credentials
	if l.format != "text" && l.format != "json" {
		err = fmt.Errorf("-o %q: want text or json", l.format)
	}
	if l.workers < 1 {
		err = fmt.Errorf("--workers %d: want at least 1", l.workers)
	}
	if l.chaos != "" && err == nil {
		o.Chaos, err = ParseChaos(l.chaos)
	}
	if err == nil {
		err = o.ValidateCluster()
	}
	if err != nil {
		return &console.UsageError{Err: err}
	}
	if o.Chaos != nil && o.Chaos.Seed == 0 {
		o.Chaos.Seed = rand.Uint64()
	}
	return nil
}

// finish prints what a run did.
func (p *program) finish(l *localFlags, sum *ClusterSummary, err error) error {
	end := console.Ending{Mode: p.opts.Mode.String(), StateDir: l.state, Letters: "the program's dead letters"}
	if p.opts.Chaos != nil {
		end.Seed = p.opts.Chaos.Seed
	}
	if l.format == "json" {
		object := struct {
			ClusterSummary
			Seed  uint64 `json:"seed,omitempty"`
			Error string `json:"error,omitempty"`
		}{ClusterSummary: *sum, Seed: end.Seed}
		if err != nil {
			object.Error = console.Sentence(err)
		}
		return errors.Join(err, console.PrintJSON(p.stdout, object))
	}
	if err == nil || console.Code(err) == console.ExitInterrupted {
		err = errors.Join(err, console.WriteClusterSummary(p.stdout, sum, end))
	}
	return err
}

func (p *program) coordinator(ctx context.Context, c *subcommand, args []string) error {
	workers := max(p.opts.Workers, 3)
	return p.node(ctx, c, args, func(fs *flag.FlagSet, e *console.Engine) {
		e.Register(fs)
		e.RegisterHeartbeat(fs)
		fs.IntVar(&workers, "workers", workers, "the job begins when so many workers have joined")
	}, func(ctx context.Context, n Node) error {
		p.opts.Workers = workers
		return RunCoordinator(ctx, p.job, p.opts, n)
	})
}

func (p *program) worker(ctx context.Context, c *subcommand, args []string) error {
	return p.node(ctx, c, args, func(fs *flag.FlagSet, e *console.Engine) {
		e.RegisterJob(fs)
		e.RegisterHeartbeat(fs)
	}, func(ctx context.Context, n Node) error {
		return RunWorker(ctx, p.job, p.opts, n)
	})
}

// node runs one process of a cluster.
func (p *program) node(ctx context.Context, c *subcommand, args []string, more func(*flag.FlagSet, *console.Engine), run func(context.Context, Node) error) error {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	e := p.engine()
	var n console.Node
	n.Credentials = p.opts.Processes.Credentials
	more(fs, &e)
	n.Register(fs, p.clusterName())
	m := console.Manual{
		Usage: p.name + " " + c.name + " --coordinators HOST:PORT,... --state DIR [flags]", Long: c.about + ".\n" + console.NodeCodes,
		Examples: fmt.Sprintf("  %s %s --coordinators host1:7000,host2:7000,host3:7000 --listen host1:7000 --secret-file secret --state state", p.name, c.name),
	}
	if err := p.parse(fs, &m, args); err != nil {
		return err
	}
	if err := p.take(&e); err != nil {
		return err
	}
	if err := n.Check(); err != nil {
		return &console.UsageError{Err: err}
	}
	p.opts.StateDir = n.StateDir
	if p.opts.Logger == nil {
		p.opts.Logger = console.WarningLogger(p.stderr)
	}
	ctx, stop := console.Terminable(ctx)
	defer stop()
	return console.Farewell(p.stdout, run(ctx, Node{
		Cluster: n.Cluster, Listen: n.Listen, Advertise: n.Advertise, Coordinators: n.Coordinators, Credentials: n.Credentials,
		Listening: func(address string) { fmt.Fprintf(p.stderr, "listening on %s\n", address) },
		Inspect:   n.Inspect, Inspecting: func(address string) { fmt.Fprintf(p.stderr, "metrics on http://%s/metrics\n", address) },
	}))
}

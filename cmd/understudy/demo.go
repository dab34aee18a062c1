package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/internal/console"
)

// The demo.
const (
	demoWorkers  = 3
	demoRate     = 160 << 10        // bytes per second of each of as many files as there are workers
	demoLength   = 30 * time.Second // default of --length
	demoKills    = 4
	demoCalm     = 2 * time.Second // between the end of a recovery and the next kill
	demoPatience = 7 * time.Second // how long the next kill waits until every worker has tasks again
	demoInterval = 500 * time.Millisecond
	demoBacklog  = 256 // things that the screen has not shown yet
)

// demo is the demonstration under way.
type demo struct {
	dir    string
	length time.Duration // in which the input comes
	stdout io.Writer
	view   *demoView
	screen *demoScreen // nil: a line per event
	kill   chan cluster.Target
	feed   chan any // *understudy.Status or understudy.ProcessEvent
}

func newDemoCommand() *cobra.Command {
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show what happens when processes of a cluster are killed",
		Long: `Count the words of Go's own network library on three worker processes and a coordinator of this machine, kill a worker by kill -9 now and
then, and show who takes over its tasks and how long that takes. Then check the output from outside. It takes less than a minute.

Exit codes: 0 every word was counted exactly once, 1 it was not, or something failed, 130 interrupted.`,
		Example: "  understudy demo\n  understudy demo | cat  # a line per event",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.length < time.Second {
				return usageError(fmt.Errorf("--length %v: want at least 1s", d.length))
			}
			d.stdout = cmd.OutOrStdout()
			return d.run(cmd.Context())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	cmd.Flags().DurationVar(&d.length, "length", demoLength, "how long the input takes to come in")
	return cmd
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Errorf("unexpected argument %q", args[0]))
	}
	return nil
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "understudy-demo"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	ctx, abort, stop := console.Interrupts(ctx)
	defer stop()
	if err := d.prepare(ctx); err != nil {
		return fmt.Errorf("the demo's input: %w", err)
	}
	sum, err := d.play(ctx, abort)
	if errors.Is(err, context.Canceled) || errors.Is(err, understudy.ErrAborted) {
		return &exitError{code: console.ExitInterrupted, err: errors.New("interrupted")}
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(d.stdout, "\n%d words were counted while %d workers were killed: %d tasks restarted, all of workers that died: %v; global rollbacks: %d\n",
		sum.RecordsOut, sum.WorkerKills, sum.TasksRestarted, sum.TasksLost == sum.TasksRestarted, sum.Rollbacks)
	return d.verify(ctx)
}

func (d *demo) words() string { return filepath.Join(d.dir, "in", "*.txt") }

// prepare makes the input: files that hold the library as often as it takes to be long enough.
func (d *demo) prepare(ctx context.Context) error {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "net")
	text, err := gather(library)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		return fmt.Errorf("no Go files in %s", library)
	}
	size := int(d.length.Seconds() * demoRate)
	if err := os.MkdirAll(filepath.Join(d.dir, "in"), 0o755); err != nil {
		return err
	}
	for i := range demoWorkers {
		f, err := os.Create(filepath.Join(d.dir, "in", fmt.Sprintf("net-%d.txt", i)))
		if err != nil {
			return err
		}
		for written := 0; written < size && err == nil; written += len(text) {
			_, err = f.Write(text[:min(len(text), size-written)])
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// gather joins the Go files below a folder.
func gather(folder string) (text []byte, err error) {
	err = filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		file, err := os.ReadFile(path)
		text = append(text, file...)
		return err
	})
	return text, err
}

// play runs the job and shows it.
func (d *demo) play(ctx context.Context, abort <-chan struct{}) (understudy.ClusterSummary, error) {
	out, state := filepath.Join(d.dir, "out"), filepath.Join(d.dir, "state")
	o := &runOptions{
		inputs: []string{d.words()}, output: out, rate: demoRate, engine: console.NewEngine(), workers: demoWorkers, coordinators: 1, state: state,
	}
	o.engine.Parallelism, o.engine.Interval = demoWorkers, demoInterval
	if err := o.engine.Check(); err != nil {
		return understudy.ClusterSummary{}, err
	}
	job, free, err := buildWordcount(o)
	if err != nil {
		return understudy.ClusterSummary{}, err
	}
	defer free()
	u := o.options()
	d.kill, d.feed = make(chan cluster.Target), make(chan any, demoBacklog)
	u.Processes = understudy.Processes{
		// In the children it is `run` that comes to the call of RunCluster, with the same job.
		Args: []string{
			"run", "wordcount", "--input", d.words(), "--output", out, "--state", state, "--rate", fmt.Sprint(int64(demoRate)),
			"--workers", fmt.Sprint(demoWorkers), "--parallelism", fmt.Sprint(demoWorkers), "--checkpoint-interval", demoInterval.String(),
		},
		Abort: abort, Kill: d.kill,
		Status: func(s understudy.Status) { d.tell(&s) },
		Event:  func(e understudy.ProcessEvent) { d.tell(e) },
	}
	shown := make(chan struct{})
	showing, done := context.WithCancel(ctx)
	go func() {
		defer close(shown)
		d.show(showing)
	}()
	sum, err := understudy.RunCluster(ctx, job, *u)
	done()
	<-shown
	return sum, err
}

// tell hands something to the screen, if it is not far behind.
func (d *demo) tell(what any) {
	select {
	case d.feed <- what:
	default:
	}
}

// show draws what happens, and kills a worker when all has been well for a while.
func (d *demo) show(ctx context.Context) {
	d.view = newDemoView(time.Now())
	if f, ok := d.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		d.screen = &demoScreen{out: d.stdout, size: func() (width, height int, err error) { return term.GetSize(int(f.Fd())) }}
	}
	d.say(d.view.title())
	for {
		select {
		case <-ctx.Done():
			return
		case what := <-d.feed:
			d.say(d.view.take(what, time.Now()))
			if d.screen != nil {
				d.screen.draw(d.view.lines(time.Now()))
			}
			if victim := d.view.victim(time.Now()); victim != "" {
				select {
				case d.kill <- cluster.Target(victim):
				case <-ctx.Done():
				}
			}
		}
	}
}

// say prints events where nothing is drawn.
func (d *demo) say(lines []string) {
	if d.screen != nil {
		return
	}
	for _, line := range lines {
		fmt.Fprintln(d.stdout, line)
	}
}

// verify checks the output as anybody could, by the command.
func (d *demo) verify(ctx context.Context) error {
	args := []string{"verify", "running", "--output", filepath.Join(d.dir, "out"), "--key", "word", "--value", "count", "--words", d.words()}
	fmt.Fprintf(d.stdout, "\n$ understudy %s\n", strings.Join(args, " "))
	path, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = d.stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &exitError{code: console.ExitFailed, err: errors.New("the output is not what one run without failures would show")}
	}
	return err
}

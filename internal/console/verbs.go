package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
)

// How long commands wait for an answer.
const (
	askTimeout = 5 * time.Second
	actTimeout = time.Minute // for what takes a checkpoint or more
)

// Verb is a command that asks the coordinators of a cluster.
type Verb struct {
	Name    string
	Args    string // what stands behind it
	About   string
	More    string
	nargs   int
	timeout time.Duration
	do      func(*asking) error
}

// asking is one use of a verb.
type asking struct {
	ctx    context.Context
	client *cluster.Client
	args   []string
	json   bool
	out    io.Writer
}

// Verbs are all of them.
var Verbs = []Verb{
	{
		Name: "status", About: "Show a cluster's job, workers, tasks, checkpoints and recoveries, and why something waits",
		timeout: askTimeout, do: (*asking).status,
	},
	{
		Name: "mode", Args: "exactly-once|at-least-once", About: "Let a running job record by another mode from its next epoch on",
		More:  "The command returns when the request is taken; status shows when the mode is in force.",
		nargs: 1, timeout: askTimeout, do: (*asking).mode,
	},
	{
		Name: "checkpoint", About: "Take a checkpoint now and wait for it", timeout: actTimeout, do: (*asking).checkpoint,
	},
	{
		Name: "stop", About: "Take a checkpoint and end all processes of a cluster",
		More: "The job goes on from there when the processes are started again.", timeout: actTimeout, do: (*asking).stop,
	},
	{
		Name: "drain", Args: "WORKER", About: "Hand over everything that a worker does, without a failure, and end its process",
		More:  "WORKER is a number in the table of status. The command returns when nothing depends on the worker any more.",
		nargs: 1, timeout: actTimeout, do: (*asking).drain,
	},
}

// Long is the help of a verb.
func (v *Verb) Long() string {
	text := v.About + ".\n"
	if v.More != "" {
		text += v.More + "\n"
	}
	return text + "\nExit codes: 0 done, 1 refused, 2 unusable arguments, 3 no coordinator leads or can be reached."
}

// Examples are uses of a verb.
func (v *Verb) Examples(program string) string {
	arg := map[string]string{"mode": " at-least-once", "drain": " 3"}[v.Name]
	return fmt.Sprintf("  %s %s%s --state out/.understudy/state\n  %s %s%s --coordinators host1:7000,host2:7000,host3:7000 --secret-file secret -o json",
		program, v.Name, arg, program, v.Name, arg)
}

// Do carries a verb out.
func (v *Verb) Do(ctx context.Context, r *Reach, args []string, out io.Writer) error {
	if len(args) != v.nargs {
		if v.nargs == 0 {
			return usage("%s takes no arguments, have %q", v.Name, args)
		}
		return usage("%s takes one argument, %s", v.Name, v.Args)
	}
	client, err := r.client()
	if err != nil {
		return err
	}
	timeout := v.timeout
	if r.timeout > 0 {
		timeout = r.timeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a := &asking{ctx: ctx, client: client, args: args, json: r.JSON, out: out}
	switch {
	case !r.finished:
		if r.timeout == 0 && v.timeout > askTimeout {
			err = a.somebodyLeads(askTimeout)
		}
		if err == nil {
			err = v.do(a)
		}
	case v.Name == "status":
		return a.done(map[string]any{"state": cluster.JobFinished}, "%v\n", errFinished)
	default:
		err = errFinished
	}
	if err != nil && r.JSON {
		if perr := PrintJSON(out, map[string]string{"error": Sentence(err)}); perr != nil {
			return perr
		}
	}
	return err
}

// somebodyLeads asks who leads before something is asked for that may take a minute: that nobody does shows sooner.
func (a *asking) somebodyLeads(wait time.Duration) error {
	ctx, cancel := context.WithTimeout(a.ctx, wait)
	defer cancel()
	_, err := a.client.Status(ctx)
	return err
}

// errFinished is the answer where no process is left to be asked.
var errFinished = errors.New("the job has processed all its input, and its processes have ended")

func (a *asking) status() error {
	s, err := a.client.Status(a.ctx)
	if err != nil {
		return err
	}
	if a.json {
		return PrintJSON(a.out, s)
	}
	return WriteStatus(a.out, &s)
}

func (a *asking) mode() error {
	mode, err := determinant.ParseMode(a.args[0])
	if err != nil || mode != determinant.ExactlyOnce && mode != determinant.AtLeastOnce {
		return usage("mode %q: want exactly-once or at-least-once", a.args[0])
	}
	if err := a.client.SwitchMode(a.ctx, mode); err != nil {
		return err
	}
	return a.done(map[string]any{"mode": mode.String()}, "the job records %v from its next epoch on\n", mode)
}

func (a *asking) checkpoint() error {
	s, err := a.client.Checkpoint(a.ctx)
	if err != nil {
		return err
	}
	return a.done(s, "checkpoint %d is complete\n", s.Committed)
}

func (a *asking) stop() error {
	s, err := a.client.Status(a.ctx)
	if err != nil {
		return err
	}
	if err := a.client.Stop(a.ctx); err != nil {
		return err
	}
	if s.State == cluster.JobFinished {
		return a.done(map[string]any{"stopped": true, "state": s.State}, "the cluster has stopped; the job had processed all its input\n")
	}
	return a.done(map[string]any{"stopped": true}, "the cluster has stopped; the job goes on when its processes are started again\n")
}

func (a *asking) drain() error {
	n, err := strconv.ParseUint(a.args[0], 10, 64)
	if err != nil || n == 0 {
		return usage("WORKER %q: want a number from the table of status", a.args[0])
	}
	if err := a.client.Drain(a.ctx, determinant.WorkerID(n)); err != nil {
		return err
	}
	return a.done(map[string]any{"drained": n}, "worker %d has nothing to do any more\n", n)
}

func (a *asking) done(object any, format string, args ...any) error {
	if a.json {
		return PrintJSON(a.out, object)
	}
	_, err := fmt.Fprintf(a.out, format, args...)
	return err
}

// PrintJSON prints an object for machines, with names as they are.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

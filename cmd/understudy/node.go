package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/spf13/cobra"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/internal/console"
)

// clusterName is the default name of a cluster whose processes are started one by one.
const clusterName = "understudy"

// nodeCommand starts one process of a cluster.
type nodeCommand struct {
	job  runOptions
	node console.Node
	run  func(context.Context, *opened, understudy.Options, understudy.Node) error

	works bool // it runs tasks
}

const coordinatorExamples = `  # on each of three machines, with the same secret file
  understudy coordinator wordcount --input '/data/*.txt' --output /data/out --workers 3 --secret-file secret --state /var/lib/understudy \
    --listen 10.0.0.1:7000 --coordinators 10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000`

const workerExamples = `  # on each machine that is to work; input, output and the flags of the job are those of the coordinators
  understudy worker wordcount --input '/data/*.txt' --output /data/out --secret-file secret --state /var/lib/understudy-worker \
    --listen 10.0.0.4:7001 --coordinators 10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000`

func newCoordinatorCommand() *cobra.Command {
	c := &nodeCommand{job: runOptions{engine: console.NewEngine()}, run: func(ctx context.Context, job *opened, o understudy.Options, n understudy.Node) error {
		return understudy.RunCoordinator(ctx, job.job, o, n)
	}}
	cmd := c.command("coordinator", "Run one of the coordinators of a cluster, whose processes are started one by one", coordinatorExamples)
	cmd.Flags().IntVar(&c.job.workers, "workers", 3, "the job begins when so many workers have joined")
	goFlags(cmd, c.job.engine.Register, c.job.engine.RegisterHeartbeat)
	return cmd
}

func newWorkerCommand() *cobra.Command {
	c := &nodeCommand{works: true, job: runOptions{engine: console.NewEngine()}, run: func(ctx context.Context, job *opened, o understudy.Options, n understudy.Node) error {
		return understudy.RunWorker(ctx, job.job, o, n)
	}}
	cmd := c.command("worker", "Run one of the workers of a cluster, whose processes are started one by one", workerExamples)
	goFlags(cmd, c.job.engine.RegisterJob, c.job.engine.RegisterHeartbeat)
	return cmd
}

func (c *nodeCommand) command(name, short, examples string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     name + " JOB --source URL --sink URL --coordinators HOST:PORT,... --state DIR",
		Short:   short,
		Long:    short + ".\nJobs, and their flags, are those of `understudy run`.\n" + endpointsHelp() + console.NodeCodes,
		Example: examples,
		Args:    oneJob,
		RunE:    c.runE,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError(err) })
	c.job.jobFlags(cmd)
	goFlags(cmd, func(fs *flag.FlagSet) { c.node.Register(fs, clusterName) })
	return cmd
}

func (c *nodeCommand) runE(cmd *cobra.Command, args []string) (err error) {
	o := &c.job
	spec, err := findJob(args[0])
	if err != nil {
		return err
	}
	if err = o.checkJob(spec); err == nil {
		err = spec.misplaced(cmd.Flags().Changed)
	}
	if err == nil {
		err = c.node.Check()
	}
	if err == nil && o.workers < 0 {
		err = fmt.Errorf("--workers %d: want at least 1", o.workers)
	}
	if err != nil {
		return usageError(err)
	}
	o.state = c.node.StateDir
	u := o.options()
	opened, err := o.open(cmd.Context(), args[0], u, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.free()) }()
	if c.works {
		close, lerr := o.startIngest(false)
		if lerr != nil {
			return lerr
		}
		defer func() { err = errors.Join(err, close()) }()
	}
	ctx, stop := console.Terminable(cmd.Context())
	defer stop()
	if u.Logger == nil {
		u.Logger = console.WarningLogger(cmd.ErrOrStderr())
	}
	n := &c.node
	return console.Farewell(cmd.OutOrStdout(), c.run(ctx, opened, *u, understudy.Node{
		Cluster: n.Cluster, Listen: n.Listen, Advertise: n.Advertise, Coordinators: n.Coordinators, Credentials: n.Credentials,
		Listening: func(address string) { fmt.Fprintf(cmd.ErrOrStderr(), "listening on %s\n", address) },
		Inspect:   n.Inspect, Inspecting: func(address string) { fmt.Fprintf(cmd.ErrOrStderr(), "metrics on http://%s/metrics\n", address) },
	}))
}

package understudy

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// What is said and asked of a job that runs on several processes.
type (
	// Status is what the coordinators know of a job.
	Status = cluster.Status
	// Client asks the coordinators.
	Client = cluster.Client
	// ClusterSummary is what a run on several processes did.
	ClusterSummary = supervisor.Summary
	// Credentials are how the processes of a cluster know each other: a secret, TLS, or both.
	Credentials = supervisor.Credentials
	// ProcessEvent is something that happened to a process.
	ProcessEvent = supervisor.Event
)

// Errors after which a job can go on later, when its processes are started again.
var (
	ErrStopped = cluster.ErrStopped    // the cluster was told to stop
	ErrDrained = cluster.ErrDrained    // this worker was told to leave
	ErrAborted = supervisor.ErrAborted // Processes.Abort
)

// ErrOtherInput is the end of a run whose job has processed all its input, where the sources list other input now.
var ErrOtherInput = cluster.ErrOtherInput

// Processes are the options of RunCluster that are about processes.
type Processes struct {
	Coordinators int    // 1 or 3, of which 3 survive the loss of any one. The same for the whole life of the job. Default 1
	Cluster      string // name of the cluster. Default: the job's name
	Host         string // where the processes listen. Default 127.0.0.1
	// Credentials may be left out: a secret is then drawn and kept in the state directory.
	Credentials
	// Args are the arguments with which this program is started again, in which it must reach the call of RunCluster for the
	// same job. Default: those of this process.
	Args []string
	// Outlive lets the children go on when this process dies. What they log is then in the file "log" of their directories.
	Outlive bool
	// Abort, if it is set and closed, kills all processes at once. The end of the context stops them with a checkpoint.
	Abort <-chan struct{}
	// Kill, if it is set, kills a target at once for each value, which may also be the name of a process, such as "worker-0".
	Kill <-chan cluster.Target
	// Status is called with every status, Event with everything that happens to a process. They must not block.
	Status func(Status)
	Event  func(ProcessEvent)
}

func (p *Processes) validate() error {
	if n := p.Coordinators; n != 0 && n != 1 && n != 3 {
		return fmt.Errorf("understudy: %d coordinators: want 1 or 3", n)
	}
	return p.Credentials.Validate()
}

// Node is how one process of a cluster is started by hand, on any machine.
type Node struct {
	Cluster      string   // name of the cluster. Default: the job's name
	Listen       string   // host:port. Default: a port of 127.0.0.1 that the system chooses
	Advertise    string   // where others reach this process. Default: what Listen came to
	Coordinators []string // host:port of all of them, in the same order everywhere
	Credentials
	Listening func(address string) // called once, when the process can be reached
	// Inspect is where metrics, health and profiles are served, without a secret. Default: a port of 127.0.0.1 that the system
	// chooses; InspectOff: nowhere. Inspecting is called once, with where that is.
	Inspect    string
	Inspecting func(address string)
}

// InspectOff as Node.Inspect serves no metrics.
const InspectOff = cluster.InspectOff

// RunCluster runs a job on worker and coordinator processes of this machine until all its input is processed, it fails, or ctx
// ends. Then a checkpoint is taken first, and the error is that of ctx. The summary is good in every case. A job that is run again
// with the same state directory goes on where it was, and so does one whose processes, this one included, were killed.
//
// The processes are this program, started again with the same arguments. Each runs as this one did until it comes to this call, and
// there it becomes a coordinator or a worker; RunCluster does not return in it. So what the program does before the call must come
// out the same every time: the job with its input and output, and the options. With more than one call for jobs of one name, their
// order must be the same too; a call that is not meant returns at once in a child, as if the job was complete.
func RunCluster(ctx context.Context, job *operator.Job, o Options) (ClusterSummary, error) {
	if err := o.validate(true); err != nil {
		return ClusterSummary{}, err
	}
	plan, err := job.Plan(max(1, o.Parallelism))
	if err != nil {
		return ClusterSummary{}, err
	}
	a, err := supervisor.Assigned()
	if err != nil {
		return ClusterSummary{}, err
	}
	call := calls.count(plan.Name)
	if a != nil && (a.Job != plan.Name || a.Call != call) {
		return ClusterSummary{Summary: Summary{Complete: true}}, nil
	}
	if a != nil {
		a.Serve(classes, func(ctx context.Context, n cluster.NodeOptions) error { return serve(ctx, plan, &o, a, n) })
	}
	warnOfRepeats(plan, &o)
	p := &o.Processes
	sum, err := supervisor.Run(ctx, supervisor.Options{
		Job: plan.Name, Cluster: p.Cluster, StateDir: o.StateDir, Host: p.Host, Workers: o.Workers, Coordinators: p.Coordinators,
		Credentials: p.Credentials, Args: p.Args, Call: call, Outlive: p.Outlive, Chaos: o.Chaos, Logger: o.Logger,
		Input: func(ctx context.Context) (string, error) { return cluster.InputDigest(ctx, plan) },
		Client: func(s supervisor.Settings, secret []byte) (supervisor.Client, error) {
			c := s.Credentials()
			c.Secret = secret
			return NewClient(s.Cluster, s.Coordinators, c)
		},
		Status: p.Status, Progress: o.Progress, Event: p.Event, Kill: p.Kill, Abort: p.Abort,
	})
	if errors.Is(err, supervisor.ErrStopped) {
		err = fmt.Errorf("%w: %w", ErrStopped, err)
	}
	return sum, err
}

// calls counts how often RunCluster was called for jobs of one name, which is how a child finds the call that it is for.
var calls callCount

type callCount struct {
	mu struct {
		sync.Mutex
		byJob map[string]int
	}
}

// count returns how many calls there were before this one.
func (c *callCount) count(job string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.byJob == nil {
		c.mu.byJob = map[string]int{}
	}
	n := c.mu.byJob[job]
	c.mu.byJob[job]++
	return n
}

// classes tells a supervisor what the end of a process means.
var classes = supervisor.Classes{
	Stopped: []error{cluster.ErrStopped},
	Drained: []error{cluster.ErrDrained},
	Final: []error{
		cluster.ErrOtherBuild, cluster.ErrOtherCluster, cluster.ErrWrongJob, cluster.ErrLedgerCorrupt, operator.ErrPermanent,
	},
}

// serve is the work of a child.
func serve(ctx context.Context, plan *operator.Plan, o *Options, a *supervisor.Assignment, n cluster.NodeOptions) error {
	if a.Role == supervisor.Worker {
		return cluster.RunWorker(ctx, plan, o.worker(n))
	}
	c := o.coordinator(n)
	c.Workers = a.Workers
	return cluster.RunCoordinator(ctx, plan, c)
}

// RunCoordinator runs a coordinator of a cluster in this process until the job is over, the cluster is told to stop (ErrStopped), or
// ctx ends. The job begins when as many workers have joined as the options say. All coordinators must have the same options.
func RunCoordinator(ctx context.Context, job *operator.Job, o Options, n Node) error {
	return runNode(job, o, n, func(plan *operator.Plan, node cluster.NodeOptions) error {
		c := o.coordinator(node)
		c.Workers = o.Workers
		return cluster.RunCoordinator(ctx, plan, c)
	})
}

// RunWorker runs a worker of a cluster in this process until the job is over, the cluster is told to stop (ErrStopped), the worker is
// drained (ErrDrained), or ctx ends. Its state directory is its own.
func RunWorker(ctx context.Context, job *operator.Job, o Options, n Node) error {
	return runNode(job, o, n, func(plan *operator.Plan, node cluster.NodeOptions) error {
		return cluster.RunWorker(ctx, plan, o.worker(node))
	})
}

func runNode(job *operator.Job, o Options, n Node, run func(*operator.Plan, cluster.NodeOptions) error) error {
	if err := o.validate(true); err != nil {
		return err
	}
	plan, err := job.Plan(max(1, o.Parallelism))
	if err != nil {
		return err
	}
	security, err := n.Security()
	if err != nil {
		return err
	}
	warnOfRepeats(plan, &o)
	return run(plan, cluster.NodeOptions{
		Cluster: n.Cluster, Listen: n.Listen, Advertise: n.Advertise, StateDir: o.StateDir, Coordinators: n.Coordinators,
		Security: security, Logger: o.Logger, Listening: n.Listening, Inspect: n.Inspect, Inspecting: n.Inspecting,
	})
}

// NewClient returns a client of a cluster.
func NewClient(name string, coordinators []string, c Credentials) (*Client, error) {
	if len(coordinators) == 0 {
		return nil, errors.New("understudy: no coordinator was named")
	}
	security, err := c.Security()
	if err != nil {
		return nil, err
	}
	return cluster.NewClient(name, coordinators, security), nil
}

// OpenClient returns a client of the cluster that RunCluster runs, or ran, on a state directory.
func OpenClient(stateDir string) (*Client, error) {
	s, err := supervisor.ReadSettings(stateDir)
	if err != nil {
		return nil, err
	}
	return NewClient(s.Cluster, s.Coordinators, s.Credentials())
}

func (o *Options) coordinator(n cluster.NodeOptions) cluster.CoordinatorNodeOptions {
	return cluster.CoordinatorNodeOptions{
		NodeOptions: o.node(n), Mode: o.Mode, Depth: o.depth(), Auto: o.AutoDepth, Standbys: o.Standbys,
		CheckpointInterval: o.CheckpointInterval, PoisonTries: o.PoisonTries, SetAside: o.DeadLetter != nil,
	}
}

func (o *Options) worker(n cluster.NodeOptions) cluster.WorkerNodeOptions {
	return cluster.WorkerNodeOptions{
		NodeOptions: o.node(n), InflightMemory: o.InflightMemory, InflightDisk: o.InflightDisk, StandbyMemory: o.StandbyMemory, DeadLetter: o.DeadLetter,
	}
}

// node adds what all processes have to n.
func (o *Options) node(n cluster.NodeOptions) cluster.NodeOptions {
	n.Settings = o.Settings
	if n.HeartbeatTimeout = o.HeartbeatTimeout; n.HeartbeatTimeout > 0 {
		n.Heartbeat = min(cluster.DefaultHeartbeat, n.HeartbeatTimeout/4)
	}
	return n
}

func (o *Options) depth() determinant.Depth {
	if o.SharingDepth > 0 {
		return determinant.Depth(o.SharingDepth)
	}
	return determinant.Full
}

func warnOfRepeats(plan *operator.Plan, o *Options) {
	if o.Logger == nil {
		return
	}
	for _, v := range plan.Vertices {
		if len(v.AtLeastOnce) > 0 {
			o.Logger.Warn("effects of these operators may be seen twice after a failure", "operators", v.AtLeastOnce)
		}
	}
}

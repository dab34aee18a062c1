package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/task"
	"github.com/understudy-stream/understudy/transport"
)

// Errors of processes of a cluster. Each is a reason not to start, or not to go on, that a person must mend.
var (
	ErrOtherCluster = errors.New("cluster: this is another cluster")
	ErrOtherBuild   = errors.New("cluster: this process is another build of the program")
	ErrNoLeader     = errors.New("cluster: no coordinator leads")
	ErrStopped      = errors.New("cluster: the cluster was told to stop") // the job can go on later
	ErrDrained      = errors.New("cluster: this worker was drained")
)

// Defaults of processes.
const (
	DefaultHeartbeat        = 100 * time.Millisecond
	DefaultHeartbeatTimeout = 2 * time.Second
	DefaultLinkTimeout      = 5 * time.Second
)

// NodeOptions are those that every process of a cluster has.
type NodeOptions struct {
	Cluster      string   // name of the cluster; processes of another are refused. Empty: the job's name
	Listen       string   // host:port; port 0 lets the system choose. Empty: 127.0.0.1:0
	Advertise    string   // where others reach this process. Empty: what Listen came to
	StateDir     string   // required
	Coordinators []string // where the coordinators are, all of them, in the same order everywhere
	Security     transport.Security
	Logger       *slog.Logger
	Listening    func(address string) // called once, when the process can be reached
	Inspect      string               // where metrics, health and profiles are served. Empty: 127.0.0.1:0; InspectOff: nowhere
	Inspecting   func(address string) // called once, with where they are served
	Build        string               // names the build of the program; all processes must have the same. Empty: BuildID()
	Instance     string               // names this start of the process. Empty: drawn at random
	Settings     Settings             // a new worker that was given others than the leader is not let in

	Heartbeat        time.Duration // how often a worker says that it lives
	HeartbeatTimeout time.Duration // after this silence it is declared dead
	LinkTimeout      time.Duration // a link between live workers that is down for so long costs one of them its life
}

// CoordinatorNodeOptions are those of a coordinator process. All coordinators of a cluster have the same.
type CoordinatorNodeOptions struct {
	NodeOptions
	Workers            int // the job begins when so many have joined. Default 1
	Mode               determinant.Mode
	Depth              determinant.Depth // 0: full
	Auto               bool
	Standbys           int
	CheckpointInterval time.Duration
	CheckpointTimeout  time.Duration
	PoisonTries        int
	SetAside           bool // a poisoned record is set aside; workers must then have a DeadLetter
}

// WorkerNodeOptions are those of a worker process.
type WorkerNodeOptions struct {
	NodeOptions
	InflightMemory, InflightDisk, InflightReserve, LogBudget, StandbyMemory int64
	DeadLetter                                                              func(task.Poison) error
}

// Client asks a cluster's coordinators. It finds the leader by itself and may be used from any goroutine.
type Client struct {
	cluster      string
	coordinators []string
	security     transport.Security
}

// NewClient returns a client of the cluster with these coordinators.
func NewClient(cluster string, coordinators []string, security transport.Security) *Client {
	return &Client{cluster: cluster, coordinators: coordinators, security: security}
}

// Status asks how the job is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.ask(ctx, request{Status: true}, &s)
	return s, err
}

// SwitchMode asks that the job records by this mode from the next epoch on. It returns when the request is taken; Status
// shows when it is in force.
func (c *Client) SwitchMode(ctx context.Context, mode determinant.Mode) error {
	return c.ask(ctx, request{Mode: &mode}, nil)
}

// Checkpoint asks for a checkpoint now and returns when one that began after the call is complete.
func (c *Client) Checkpoint(ctx context.Context) (CheckpointStatus, error) {
	var s CheckpointStatus
	err := c.ask(ctx, request{Checkpoint: true}, &s)
	return s, err
}

// Drain hands everything that a worker does over to others and returns when nothing depends on it any more. The worker process
// then ends with ErrDrained.
func (c *Client) Drain(ctx context.Context, w determinant.WorkerID) error {
	return c.ask(ctx, request{Drain: w}, nil)
}

// CutLinks breaks the connections of a worker to its peers, for chaos. They are made again.
func (c *Client) CutLinks(ctx context.Context, w determinant.WorkerID) error {
	return c.ask(ctx, request{Cut: w}, nil)
}

func (o *NodeOptions) ensureDefaults(job string) {
	if o.Cluster == "" {
		o.Cluster = job
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Inspect == "" {
		o.Inspect = "127.0.0.1:0"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.HeartbeatTimeout == 0 {
		o.HeartbeatTimeout = DefaultHeartbeatTimeout
	}
	if o.LinkTimeout == 0 {
		o.LinkTimeout = DefaultLinkTimeout
	}
}

// ValidateCoordinators tells what is wrong with addresses of coordinators: each is a host and a port, and stands there once.
func ValidateCoordinators(addresses []string) error {
	for i, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		switch {
		case err != nil:
			return fmt.Errorf("cluster: coordinator %q: want HOST:PORT: %w", a, err)
		case host == "" || port == "" || port == "0":
			return fmt.Errorf("cluster: coordinator %q: want HOST:PORT, by which all others reach it", a)
		case slices.Contains(addresses[:i], a):
			return fmt.Errorf("cluster: coordinator %q stands there twice", a)
		}
	}
	return nil
}

// Validate tells what is wrong with the options.
func (o *NodeOptions) Validate() error {
	switch {
	case o.StateDir == "":
		return errors.New("cluster: a process of a cluster needs a state directory")
	case len(o.Coordinators) == 0:
		return errors.New("cluster: no address of a coordinator was given")
	case o.HeartbeatTimeout < 2*o.Heartbeat:
		return fmt.Errorf("cluster: a heartbeat timeout of %v with a heartbeat every %v declares healthy workers dead", o.HeartbeatTimeout, o.Heartbeat)
	}
	return ValidateCoordinators(o.Coordinators)
}

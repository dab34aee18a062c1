package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/raftmeta"
	"github.com/understudy-stream/understudy/transport"
)

// Bounds of a coordinator process.
const (
	lingerAfterEnd = 10 * time.Second // how long the end of a job can be asked about
	stopTimeout    = 10 * time.Second // how long a stop waits for its checkpoint
	formTimeout    = time.Second      // how long a new leader waits for workers of a cluster that died as a whole
	probeTimeout   = time.Second
	probeTries     = 8
	probePause     = time.Millisecond // before the second try, and twice as long before each further one
	settleTime     = 2 * time.Second  // how long another must lead until the past is that one's to take up
	maxReason      = 64 << 10         // bytes of the reason for a job's end, if all of it is too much for the ledger
)

// coordinatorNode is a coordinator process: a copy of the metadata, and, while it leads, the coordinator of the job.
// Everything below mu-less fields runs on the goroutine of events.
type coordinatorNode struct {
	job     *Job
	opts    CoordinatorNodeOptions
	self    int // which of opts.Coordinators this is
	events  *mailbox
	raft    *raftmeta.Node
	server  *transport.Server
	stats   *stats
	metrics *coordinatorMetrics
	inspect *inspector
	ctx     context.Context
	cancel  context.CancelFunc
	serve   sync.WaitGroup

	once   sync.Once
	opened chan struct{} // closed when raft is there
	ended  chan struct{}
	result error

	// What follows belongs to the goroutine of events.
	rep       replica
	tenure    uint64 // counts changes of leadership
	leading   bool
	settled   bool // this process, or another, has taken up what was committed before it started
	resuming  bool // the end of a job that failed is to be taken back
	followed  time.Time
	repropose bool // a proposal may be lost
	began     bool // the job's beginning was proposed in this tenure
	since     time.Time
	lastTick  time.Time
	nobody    leaderless
	spoke     time.Time // when workers were told last that this leader lives
	sessions  map[determinant.WorkerID]*session
	admitting map[string]*session // by instance
	heard     map[determinant.WorkerID]time.Time
	joined    map[determinant.WorkerID]bool // in this tenure
	gone      map[determinant.WorkerID]bool // known to be dead, and not declared so yet
	goneAt    time.Time
	mourned   map[determinant.WorkerID]bool // whose death was logged, of those the ledger still names
	downs     map[linkName]time.Time
	why       map[string]string // why something waits, by what
	outside   outside           // what was logged while it leads
	waiters   []*waiter
	times     checkpointTimes
	over      time.Time // when the job's end was first seen
	stopping  bool      // a stop was asked for
	left      bool      // and every worker was sent away
	leftAt    time.Time // then
}

// RunCoordinator runs a coordinator process until its job is over, it is told to stop, or ctx ends.
func RunCoordinator(ctx context.Context, plan *operator.Plan, o CoordinatorNodeOptions) error {
	job, err := Layout(plan)
	if err != nil {
		return err
	}
	o.ensureDefaults(plan.Name)
	if err := o.Validate(); err != nil {
		return err
	}
	n := newCoordinatorNode(job, o)
	if err := n.open(); err != nil {
		return errors.Join(err, n.close())
	}
	err = n.run(ctx)
	return errors.Join(err, n.close())
}

func (o *CoordinatorNodeOptions) ensureDefaults(job string) {
	o.NodeOptions.ensureDefaults(job)
	if o.Workers == 0 {
		o.Workers = 1
	}
	if o.Depth == 0 {
		o.Depth = determinant.Full
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = DefaultCheckpointInterval
	}
	if o.CheckpointTimeout == 0 {
		o.CheckpointTimeout = max(30*time.Second, 10*o.CheckpointInterval)
	}
	if o.Instance == "" {
		o.Instance = rand.Text()
	}
	if o.Build == "" {
		o.Build = BuildID()
	}
}

func newCoordinatorNode(job *Job, o CoordinatorNodeOptions) *coordinatorNode {
	n := &coordinatorNode{
		job: job, opts: o, events: newMailbox(), stats: newStats(len(job.Tasks)), opened: make(chan struct{}), ended: make(chan struct{}),
		sessions: map[determinant.WorkerID]*session{}, admitting: map[string]*session{},
		heard: map[determinant.WorkerID]time.Time{}, joined: map[determinant.WorkerID]bool{}, gone: map[determinant.WorkerID]bool{}, mourned: map[determinant.WorkerID]bool{},
		downs: map[linkName]time.Time{}, why: map[string]string{},
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.metrics = newCoordinatorMetrics(n)
	n.rep = replica{job: job, world: n, prop: n, begun: n.begun, opts: CoordinatorOptions{
		Standbys: o.Standbys, Interval: o.CheckpointInterval.Milliseconds(), Timeout: o.CheckpointTimeout.Milliseconds(),
		PoisonTries: o.PoisonTries, SetAside: o.SetAside,
	}}
	return n
}

// open listens and joins the other coordinators.
func (n *coordinatorNode) open() error {
	var err error
	n.server, err = transport.Listen(n.opts.Listen, transport.ServerOptions{Security: n.opts.Security, Handle: n.handle})
	if err != nil {
		return fmt.Errorf("cluster: coordinator: %w", err)
	}
	address := n.opts.Advertise
	if address == "" {
		address = n.server.Addr()
	}
	n.self = slices.Index(n.opts.Coordinators, address)
	if n.self < 0 {
		return fmt.Errorf("cluster: this coordinator is at %s, which is not among the coordinators %v", address, n.opts.Coordinators)
	}
	var peers []raftmeta.Peer
	for i, a := range n.opts.Coordinators {
		peers = append(peers, raftmeta.Peer{ID: fmt.Sprintf("coordinator-%d", i+1), Address: a})
	}
	n.raft, err = raftmeta.Open(raftmeta.Options{
		Cluster: n.opts.Cluster, ID: peers[n.self].ID, Peers: peers, Dir: filepath.Join(n.opts.StateDir, "raft"),
		Dial: n.dialPeer, Logger: n.opts.Logger,
	}, (*machine)(n))
	if err != nil {
		return fmt.Errorf("cluster: coordinator: %w", err)
	}
	if n.inspect, err = inspect(&n.opts.NodeOptions, n.health, n.metrics); err != nil {
		return err
	}
	close(n.opened)
	if n.opts.Listening != nil {
		n.opts.Listening(address)
	}
	return nil
}

func (n *coordinatorNode) dialPeer(ctx context.Context, to raftmeta.Peer) (net.Conn, error) {
	c, _, err := n.opts.Security.Dial(ctx, to.Address, transport.Hello{
		Purpose: purposeRaft, Cluster: n.opts.Cluster, Instance: n.opts.Instance,
	})
	if err != nil {
		return nil, err
	}
	return c.Raw(), nil
}

// run ticks until the node's end.
func (n *coordinatorNode) run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.ended:
			return n.result
		case <-n.raft.Failed():
			return fmt.Errorf("cluster: coordinator: %w", n.raft.Err())
		case leads := <-n.raft.Lead():
			n.events.post(func() { n.led(leads) })
		case now := <-ticker.C:
			n.events.post(func() { n.tick(now) })
		}
	}
}

// finish ends the process.
func (n *coordinatorNode) finish(err error) {
	n.once.Do(func() {
		n.result = err
		close(n.ended)
	})
}

func (n *coordinatorNode) close() error {
	n.cancel()
	errs := []error{n.inspect.close()}
	if n.raft != nil {
		errs = append(errs, n.raft.Close()) // before the server, which waits for the connections that raft has
	}
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	n.events.close()
	for _, s := range n.sessions { //lint:sorted each is closed by itself
		s.close()
	}
	for _, s := range n.admitting { //lint:sorted each is closed by itself
		s.close()
	}
	n.serve.Wait()
	return errors.Join(errs...)
}

// machine is the node as the state machine below the Raft log. Its commands are carried out in order on the goroutine of events.
type machine coordinatorNode

// Apply carries out a command.
func (m *machine) Apply(_ uint64, command []byte) {
	n := (*coordinatorNode)(m)
	n.events.post(func() {
		if err := n.rep.apply(command); err != nil {
			n.finish(n.inDirectory(err))
		}
	})
}

// Snapshot gives the state after the last command.
func (m *machine) Snapshot() (image []byte, err error) {
	n := (*coordinatorNode)(m)
	if !n.events.call(func() { image, err = n.rep.snapshot() }) {
		return nil, errClosed
	}
	return image, err
}

// Restore replaces the state.
func (m *machine) Restore(image []byte) (err error) {
	n := (*coordinatorNode)(m)
	if !n.events.call(func() { err = n.inDirectory(n.rep.restore(image)) }) {
		return errClosed
	}
	return err
}

// inDirectory says whose state it is that belongs to another job.
func (n *coordinatorNode) inDirectory(err error) error {
	if errors.Is(err, ErrWrongJob) {
		return fmt.Errorf("%w; the state directory is %s", err, n.opts.StateDir)
	}
	return err
}

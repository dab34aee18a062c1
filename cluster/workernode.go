package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
	"github.com/understudy-stream/understudy/transport"

	"github.com/understudy-stream/understudy/determinant"
)

// workerNode is a worker process. It has one life after the other: a worker that was declared dead drops everything and
// starts again as a new one.
type workerNode struct {
	job     *Job
	opts    WorkerNodeOptions
	server  *transport.Server
	address string

	metrics  *workerMetrics
	letIn    bool                   // a former life was
	instance atomic.Pointer[string] // of the present life, from before it registers
	life     atomic.Pointer[life]
}

// life is one life of a worker process, under one id.
type life struct {
	*driver
	node     *workerNode
	instance string
	mesh     *transport.Mesh
	session  atomic.Pointer[outbox] // to the leader; nil while there is none
	shipping *mailbox               // encodes what goes to other workers
	once     sync.Once
	over     chan struct{}
	end      error                 // why the life is over
	farewell atomic.Pointer[error] // why it will be, once the last heartbeat is sent
	applied  atomic.Uint64         // index of the last entry that was applied
	built    atomic.Bool           // worker is there
	downs    downLinks
	full     fullDisk
}

// errDeclaredDead ends a life: others have taken over what it did.
var errDeclaredDead = errors.New("cluster: this worker was declared dead")

// RunWorker runs a worker process until the job is over, it is told to leave, or ctx ends. It returns nil when all input was
// processed, ErrStopped or ErrDrained when it was sent away.
func RunWorker(ctx context.Context, plan *operator.Plan, o WorkerNodeOptions) error {
	job, err := Layout(plan)
	if err != nil {
		return err
	}
	o.ensureDefaults(plan.Name)
	if err := o.Validate(); err != nil {
		return err
	}
	defer collectLess()()
	n := &workerNode{job: job, opts: o}
	n.metrics = newWorkerMetrics(n)
	n.server, err = transport.Listen(o.Listen, transport.ServerOptions{Security: o.Security, Handle: n.handle})
	if err != nil {
		return fmt.Errorf("cluster: worker: %w", err)
	}
	if n.address = o.Advertise; n.address == "" {
		n.address = n.server.Addr()
	}
	seen, err := inspect(&o.NodeOptions, n.health, n.metrics)
	if err != nil {
		return errors.Join(err, n.server.Close())
	}
	if o.Listening != nil {
		o.Listening(n.address)
	}
	for {
		if err = n.live(ctx); !errors.Is(err, errDeclaredDead) {
			break
		}
		n.metrics.lost.Add(1)
		o.Logger.Warn("this worker drops everything and starts again as a new one", "why", err)
	}
	if errors.Is(err, errFinished) {
		err = nil
	}
	return errors.Join(err, seen.close(), n.server.Close())
}

func (o *WorkerNodeOptions) ensureDefaults(job string) {
	o.NodeOptions.ensureDefaults(job)
	o.StandbyMemory = standbyMemory(o.StandbyMemory)
	if o.InflightMemory == 0 {
		o.InflightMemory = DefaultInflightMemory
	}
	if o.InflightDisk == 0 {
		o.InflightDisk = DefaultInflightDisk
	}
	if o.InflightReserve == 0 {
		o.InflightReserve = DefaultInflightReserve
	}
	if o.LogBudget == 0 {
		o.LogBudget = DefaultLogBudget
	}
	if o.Build == "" {
		o.Build = BuildID()
	}
}

// handle decides about an incoming connection by its purpose. Any goroutine.
func (n *workerNode) handle(h transport.Hello) (transport.Hello, func(*transport.Conn), error) {
	mine := transport.Hello{Purpose: h.Purpose, Cluster: n.opts.Cluster}
	if i := n.instance.Load(); i != nil {
		mine.Instance = *i
	}
	if h.Cluster != n.opts.Cluster {
		return mine, nil, fmt.Errorf("%w: it is %q, not %q", ErrOtherCluster, n.opts.Cluster, h.Cluster)
	}
	switch h.Purpose {
	case purposeProbe:
		return mine, func(c *transport.Conn) { _ = c.Close() }, nil // the handshake was the answer
	case transport.PurposeLink:
		l := n.life.Load()
		if l == nil {
			return mine, nil, errors.New("cluster: this worker has not joined yet")
		}
		return l.mesh.Accept(h)
	}
	return mine, nil, fmt.Errorf("cluster: a worker does not serve %q", h.Purpose)
}

// live goes through one life, from registration to death.
func (n *workerNode) live(ctx context.Context) error {
	l := &life{node: n, instance: n.opts.Instance, over: make(chan struct{})}
	if l.instance == "" {
		l.instance = rand.Text()
	}
	n.opts.Instance = "" // a further life has another name
	n.instance.Store(&l.instance)
	s, w, err := l.register(ctx, register{}, "")
	if err != nil {
		return err
	}
	n.letIn = true
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	running.Go(s.out.run)
	l.session.Store(s.out)
	running.Go(func() { l.heartbeat(ctx) }) // from now on: a large directory takes its time to open
	if err := l.build(w); err != nil {
		cancel()
		s.hangUp()
		err = errors.Join(err, l.close())
		running.Wait()
		return err
	}
	l.built.Store(true)
	n.life.Store(l)
	l.relink()
	running.Go(func() { l.converse(ctx, s) })
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-l.over:
		err = l.end
	}
	cancel()
	n.life.Store(nil)
	err = errors.Join(err, l.close())
	running.Wait()
	return err
}

// build makes the worker on the view that it was given.
func (l *life) build(w *welcome) error {
	n := l.node
	l.driver = newDriver(len(n.job.Tasks), wallClock, l.logError)
	l.shipping = newMailbox()
	for i := range n.job.Plan.Vertices {
		if identify := n.job.Plan.Vertices[i].Identify; identify != nil {
			if err := identify(w.Run); err != nil {
				return err
			}
		}
	}
	state, err := checkpoint.OpenStore(filepath.Join(n.opts.StateDir, "state"), checkpoint.StoreOptions{Identity: w.Run})
	if err != nil {
		return err
	}
	files, err := inflightlog.OSFiles(filepath.Join(n.opts.StateDir, "inflight"))
	if err != nil {
		return errors.Join(err, state.Close())
	}
	o := &n.opts
	l.worker = NewWorker(w.Worker, n.job, *w.View, l, Options{
		Context: l.ctx, Clock: l.clock, Entropy: entropy, State: state, DeadLetter: o.DeadLetter, LogBudget: o.LogBudget,
		Budget:   inflightlog.NewBudget(o.InflightMemory, o.InflightDisk, o.InflightReserve, files),
		Calls:    func(t determinant.TaskID) task.Calls { return &calls{driver: l.driver, task: t} },
		OpenSink: n.job.openSink, OpenTransactions: n.job.openTransactions, StandbyMemory: o.StandbyMemory,
		refused: &n.metrics.refused,
	})
	l.applied.Store(w.View.Index)
	hooks := n.metrics.hooks()
	hooks.Unknown = func(peer determinant.WorkerID) {
		if l.worker.buried(peer) { // else it is so new that it is not known here yet
			n.metrics.turnedAway()
		}
	}
	l.mesh = transport.NewMesh(transport.MeshOptions{
		Self: w.Worker, Cluster: o.Cluster, Instance: l.instance, Security: o.Security, Endpoint: l,
		Limits: transport.Limits{Tasks: len(n.job.Tasks), Channels: len(n.job.Channels)}, Hooks: hooks,
	})
	return nil
}

func wallClock() int64 { return time.Now().UnixMilli() }

// close drops everything that the life has. Nothing that it has under way becomes visible any more.
func (l *life) close() error {
	if l.driver == nil {
		return nil
	}
	var errs []error
	if l.worker != nil {
		errs = append(errs, l.kill())
	} else {
		l.control.close()
		l.disk.close()
	}
	l.shipping.close()
	if l.mesh != nil {
		errs = append(errs, l.mesh.Close())
	}
	return errors.Join(errs...)
}

// ends ends the life; the first reason counts.
func (l *life) ends(why error) {
	l.once.Do(func() {
		l.end = why
		close(l.over)
	})
}

func (l *life) logError(what string, err error) { l.node.opts.Logger.Warn(what, "error", err) }

// peers lists the workers to be linked with.
func (l *life) peers() []transport.Peer {
	var peers []transport.Peer
	for _, m := range l.worker.Members() {
		peers = append(peers, transport.Peer{ID: m.Worker, Addr: m.Address})
	}
	return peers
}

// WakeLink says that there may be a message for a peer. Part of Environment.
func (l *life) WakeLink(peer determinant.WorkerID) { l.mesh.Wake(peer) }

// Tell delivers a control message, to this worker itself without a detour. Part of Environment.
func (l *life) Tell(to determinant.WorkerID, m Control) {
	if to == l.worker.ID() {
		l.control.post(func() { l.worker.Control(m) })
		return
	}
	l.shipping.post(func() { l.mesh.Send(to, encode(&m), m.Image != nil) })
}

// Report tells the leader something. Without one it is lost: Worker.Register repeats what counts. Part of Environment.
func (l *life) Report(r Report) {
	if l.full.note(&r) {
		l.node.opts.Logger.Warn("a checkpoint cannot be stored", "task", nameOf(l.node.job, r.AckFailed.Task), "epoch", r.AckFailed.Epoch, "error", r.AckFailed.Err)
	}
	l.say(&up{Report: &r})
}

// Observe counts what happens and tells the leader of the phases of recoveries. Part of Environment.
func (l *life) Observe(o Observation) {
	if l.node.metrics.observe(o) {
		return
	}
	l.say(&up{Observed: &o})
}

func (l *life) say(u *up) {
	if s := l.session.Load(); s != nil {
		s.send(encode(u))
	}
}

// Write makes the next message to a peer. Part of transport.Endpoint.
func (l *life) Write(peer determinant.WorkerID) *transport.Message { return l.worker.Write(peer, nil) }

// Receive takes a message. Part of transport.Endpoint.
func (l *life) Receive(m *transport.Message) { l.worker.Receive(m) }

// Relink begins a new stream. Part of transport.Endpoint.
func (l *life) Relink(peer determinant.WorkerID) { l.worker.Relink(peer) }

// Control takes a control message of another worker. Part of transport.Endpoint.
func (l *life) Control(from determinant.WorkerID, item []byte) {
	var m Control
	if err := decode(item, &m); err != nil {
		l.logError("a control message", err)
		return
	}
	m.From = from
	if err := m.check(len(l.node.job.Tasks)); err != nil {
		l.logError("a control message", err)
		return
	}
	if m.Trigger != nil || m.Poll != nil {
		return // only the coordinator says that
	}
	l.control.post(func() { l.worker.Control(m) })
}

// Linked tells the leader that a link is up or down. Part of transport.Endpoint.
func (l *life) Linked(peer determinant.WorkerID, isUp bool, cause error) {
	r := &linkReport{Peer: peer, Up: isUp}
	if cause != nil {
		r.Cause = cause.Error()
	}
	l.downs.linked(peer, isUp)
	l.say(&up{Link: r})
}

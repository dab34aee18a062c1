package cluster

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/transport"
)

const (
	maxOutbox    = 1 << 16 // messages to a worker that does not read
	admitTimeout = time.Second
	rateWindow   = 500 * time.Millisecond // over which rates are measured
	writeTimeout = 10 * time.Second
)

// session is the connection of one worker to the leader.
type session struct {
	conn *transport.Conn
	out  *outbox

	// On the goroutine of events.
	reg     register
	worker  determinant.WorkerID // 0 until it is admitted
	asked   time.Time            // when its admission was proposed last
	metrics WorkerMetrics
	tasks   map[determinant.TaskID]TaskMetrics
	before  map[determinant.TaskID]progress
}

// progress is how many records a task had taken at a time.
type progress struct {
	records uint64
	at      time.Time
}

// handle decides about an incoming connection by its purpose. Any goroutine.
func (n *coordinatorNode) handle(h transport.Hello) (transport.Hello, func(*transport.Conn), error) {
	mine := transport.Hello{Purpose: h.Purpose, Cluster: n.opts.Cluster, Instance: n.opts.Instance}
	if h.Cluster != n.opts.Cluster {
		return mine, nil, fmt.Errorf("%w: it is %q, not %q", ErrOtherCluster, n.opts.Cluster, h.Cluster)
	}
	select {
	case <-n.opened:
	case <-n.ctx.Done():
		return mine, nil, errClosed
	}
	switch h.Purpose {
	case purposeRaft:
		return mine, func(c *transport.Conn) { n.raft.Serve(c.Raw()) }, nil
	case purposeControl:
		return mine, n.serveWorker, nil
	case purposeClient:
		return mine, n.serveClient, nil
	case purposeProbe:
		return mine, func(c *transport.Conn) { n.closed(c.Close()) }, nil
	}
	return mine, nil, fmt.Errorf("cluster: a coordinator does not serve %q", h.Purpose)
}

// closed notes an error of closing what is no longer needed.
func (n *coordinatorNode) closed(err error) {
	if err != nil {
		n.opts.Logger.Debug("closing a connection", "error", err)
	}
}

// serveWorker reads what a worker says until its connection ends.
func (n *coordinatorNode) serveWorker(c *transport.Conn) {
	s := &session{conn: c, out: newOutbox(c), tasks: map[determinant.TaskID]TaskMetrics{}, before: map[determinant.TaskID]progress{}}
	n.serve.Go(s.out.run)
	for {
		_, body, err := c.Read()
		if err != nil {
			n.events.post(func() { n.lost(s, err) })
			break
		}
		var u up
		if err := decode(body, &u); err != nil {
			n.events.post(func() { n.lost(s, err) })
			break
		}
		n.events.post(func() { n.said(s, &u) })
	}
	s.close()
}

// said handles one message of a worker.
func (n *coordinatorNode) said(s *session, u *up) {
	if !n.leading || n.rep.coord == nil {
		if u.Register != nil {
			s.reg = *u.Register
			if !n.refuseEnded(s) {
				n.redirect(s)
			}
		}
		s.out.finish()
		return
	}
	if err := u.check(len(n.job.Tasks), s.worker); err != nil {
		n.opts.Logger.Warn("a worker is cut off", "worker", s.worker, "error", err)
		s.close() // the reading end hears of it
		return
	}
	if s.worker != 0 && n.sessions[s.worker] == s {
		n.heard[s.worker] = time.Now()
	}
	switch {
	case u.Register != nil:
		n.register(s, u.Register, false)
	case s.worker == 0 || n.sessions[s.worker] != s:
		// a session that was replaced, or has not been let in
	case u.Joined != nil:
		n.join(s, u.Joined)
	case u.Beat != nil:
		n.beat(s, u.Beat)
	case u.Report != nil:
		n.report(s, u.Report)
	case u.Observed != nil:
		n.metrics.observe(u.Observed.Phase, n.stats.observe(*u.Observed, time.Now()))
	case u.Link != nil:
		n.linkSaid(s, u.Link)
	}
}

// register lets a worker in: a new one by an entry of the ledger that gives it an id, a known one if nothing was declared
// about it meanwhile.
func (n *coordinatorNode) register(s *session, r *register, confirmed bool) {
	s.reg = *r
	switch {
	case r.Shape != n.job.Plan.Shape:
		n.refuse(s, reasonOtherJob, otherGraph("the cluster", n.job.Plan.Shape, "this worker", r.Shape))
		return
	case r.Build != n.opts.Build:
		n.refuse(s, reasonOtherBuild, fmt.Sprintf("the coordinator is build %.12s, this worker %.12s", n.opts.Build, r.Build))
		return
	case r.Worker == 0 && !r.Again && len(n.unlike(r)) > 0: // who has worked on the job goes on, whatever the next leader was given
		n.refuse(s, reasonOtherJob, fmt.Sprintf("this worker and the coordinator at %s were not given the same %s",
			n.opts.Coordinators[n.self], strings.Join(n.unlike(r), ", ")))
		return
	case n.refuseEnded(s):
		return
	case n.left: // nobody would notice its death
		n.refuse(s, reasonStopped, "the cluster was told to stop")
		return
	}
	if r.Worker == 0 {
		n.admitting[r.Instance] = s
		n.proposeAdmission(s)
		return
	}
	if r.Applied > n.rep.coord.view.Index && !confirmed {
		n.confirm(s, r)
		return
	}
	m, known := n.rep.coord.view.member(r.Worker)
	missed, whole := n.rep.since(r.Applied)
	if !known || m.Instance != r.Instance || n.gone[r.Worker] || !whole {
		if known && m.Instance == r.Instance {
			n.died(r.Worker)
		}
		n.refuse(s, reasonDead, fmt.Sprintf("worker %d was declared dead", r.Worker))
		return
	}
	if old := n.sessions[r.Worker]; old != nil {
		old.close()
	}
	s.worker = r.Worker
	n.sessions[r.Worker], n.heard[r.Worker] = s, time.Now()
	s.send(encode(&down{Welcome: &welcome{Worker: r.Worker, Run: n.rep.state.name()}}))
	for i := range missed {
		if missed[i].Finish == nil { // an end that was taken back
			s.send(encode(&down{Entry: &missed[i]}))
		}
	}
}

// unlike lists the settings in which a worker differs from this coordinator.
func (n *coordinatorNode) unlike(r *register) []string {
	return differing(n.opts.Settings.fingerprints(n.opts.Security.Secret), r.Settings)
}

// confirm makes sure that this coordinator leads before it takes a decision about a worker that knows more than it does. A
// leader that was stopped goes on as one until it hears of its successor.
func (n *coordinatorNode) confirm(s *session, r *register) {
	tenure := n.tenure
	n.serve.Go(func() {
		err := n.raft.Barrier(n.ctx)
		n.events.post(func() {
			if err == nil && n.tenure == tenure && n.leading {
				n.register(s, r, true)
				return
			}
			n.redirect(s)
		})
	})
}

// redirect sends a worker to whoever leads, as far as this coordinator knows.
func (n *coordinatorNode) redirect(s *session) {
	leader, self := n.raft.Leader()
	if self {
		leader = ""
	}
	s.send(encode(&down{Redirect: &leader}))
	s.out.finish()
}

func (n *coordinatorNode) refuse(s *session, why reason, text string) {
	n.opts.Logger.Warn("a worker is refused", "address", s.reg.Address, "why", text)
	s.send(encode(&down{Refused: &refusal{Reason: why, Text: text}}))
	s.out.finish()
}

// proposeAdmission asks the ledger for an id that was never used.
func (n *coordinatorNode) proposeAdmission(s *session) {
	id := n.rep.lastWorker()
	for _, other := range n.admitting { //lint:sorted a maximum
		id = max(id, other.worker)
	}
	s.worker, s.asked = id+1, time.Now()
	n.Propose(Entry{Admit: &Admit{Worker: s.worker, Address: s.reg.Address, Instance: s.reg.Instance}})
}

// refuseEnded tells a worker that the job is over, if it is. Whoever knows that may say so: the end is committed, and those who
// lead may change, on a busy machine more often than a worker asks, until the last coordinator is gone. Only the end of a
// job that failed before this process started is for the leader to judge: it takes it back, and until that is committed nothing is refused.
func (n *coordinatorNode) refuseEnded(s *session) bool {
	switch f := n.rep.state.Finished; {
	case f == nil || f.Err != "" && (n.resuming || !n.leading && !n.settled):
		return false
	case f.Err != "":
		n.refuse(s, reasonFailed, f.Err)
	default:
		n.refuse(s, reasonFinished, "the job is finished")
	}
	return true
}

// refuseWaiting tells the workers that wait to be admitted that the job is over.
func (n *coordinatorNode) refuseWaiting() {
	for instance, s := range n.admitting { //lint:sorted each is told by itself
		delete(n.admitting, instance)
		n.refuseEnded(s)
	}
}

// readmit repeats the proposals that were lost or refused.
func (n *coordinatorNode) readmit(now time.Time) {
	for _, s := range n.admitting { //lint:sorted each gets an id of its own
		if now.Sub(s.asked) > admitTimeout {
			n.proposeAdmission(s)
		}
	}
}

// admitted welcomes a worker whose admission was committed.
func (n *coordinatorNode) admitted(a *Admit) {
	s := n.admitting[a.Instance]
	n.heard[a.Worker] = time.Now()
	if s == nil {
		return // it has gone meanwhile; its silence will be noticed
	}
	delete(n.admitting, a.Instance)
	s.worker = a.Worker
	n.sessions[a.Worker] = s
	v := n.rep.coord.View()
	n.opts.Logger.Info("a worker joins", "worker", a.Worker, "address", a.Address)
	s.send(encode(&down{Welcome: &welcome{Worker: a.Worker, Run: n.rep.state.name(), View: &v}}))
}

// join takes in a worker that is ready to host.
func (n *coordinatorNode) join(s *session, j *joined) {
	n.joined[s.worker] = true
	n.rep.coord.Join(s.worker, j.Held)
	n.rep.coord.Rejoin(s.worker)
	n.declare()
	n.deploy()
}

// deploy gives a new job its places once enough workers are there.
func (n *coordinatorNode) deploy() {
	if n.rep.coord.decider.Task(0).Incarnation > 0 {
		return
	}
	if missing := n.opts.Workers - len(n.joined); missing > 0 {
		n.why["deploy"] = fmt.Sprintf("%d of %d workers have joined", len(n.joined), n.opts.Workers)
		return
	}
	delete(n.why, "deploy")
	n.rep.coord.Deploy()
}

func (n *coordinatorNode) report(s *session, r *Report) {
	switch {
	case r.Failed != nil:
		if p := n.rep.coord.view.Places[r.Failed.Task]; p.Incarnation != r.Failed.Incarnation || p.Worker != s.worker {
			return // said again to a new leader, and settled long ago
		}
		n.stats.noticed(r.Failed.Task, time.Now())
		if !errors.Is(r.Failed.Err, ErrKilled) {
			n.opts.Logger.Warn("a task failed", "task", r.Failed.Task, "worker", s.worker, "error", r.Failed.Err)
		}
	case r.AckFailed != nil:
		if n.rep.coord.stores(s.worker, r.AckFailed.Task) { // else it was said, and status shows it
			n.opts.Logger.Warn("a checkpoint cannot be stored", "task", r.AckFailed.Task, "epoch", r.AckFailed.Epoch, "worker", s.worker, "error", r.AckFailed.Err)
		}
	case r.Rollback != nil:
		n.opts.Logger.Warn("a rollback is needed", "task", r.Rollback.Task, "worker", s.worker, "cause", r.Rollback.Cause)
	}
	n.rep.coord.Report(*r)
}

// beat takes in a heartbeat. What a task replays was counted before, and is not what it does per second.
func (n *coordinatorNode) beat(s *session, b *beat) {
	s.metrics = b.Metrics
	now := time.Now()
	for _, m := range b.Tasks {
		old, before := s.tasks[m.Task], s.before[m.Task]
		window := now.Sub(before.at)
		switch {
		case old.Incarnation != m.Incarnation || old.Replaying || m.Replaying:
			s.before[m.Task] = progress{m.Records, now}
		case window >= rateWindow:
			m.PerSecond = float64(m.Records-min(m.Records, before.records)) / window.Seconds()
			s.before[m.Task] = progress{m.Records, now}
		default:
			m.PerSecond = old.PerSecond
		}
		s.tasks[m.Task] = m
		n.stats.measured(m)
		if n.leading {
			n.outside.note(n.opts.Logger, n.job, m)
		}
	}
}

// linkSaid notes a link that went down or came up. That it went down is a reason to look after the peer at once.
func (n *coordinatorNode) linkSaid(s *session, l *linkReport) {
	name := linkName{low: min(s.worker, l.Peer), high: max(s.worker, l.Peer)}
	if l.Up {
		delete(n.downs, name)
		return
	}
	m, known := n.rep.coord.view.member(l.Peer)
	if !known {
		return
	}
	if _, noted := n.downs[name]; !noted {
		n.downs[name] = time.Now()
		n.probe(m)
	}
}

// lost takes note of a connection's end, which is a reason to look after the worker at once.
func (n *coordinatorNode) lost(s *session, cause error) {
	if n.admitting[s.reg.Instance] == s {
		delete(n.admitting, s.reg.Instance)
	}
	if s.worker == 0 || n.sessions[s.worker] != s {
		return
	}
	delete(n.sessions, s.worker)
	delete(n.joined, s.worker)
	if m, known := n.rep.coord.view.member(s.worker); known && n.leading {
		n.opts.Logger.Debug("a worker's connection is gone", "worker", s.worker, "cause", cause)
		n.probe(m)
	}
}

// reassure tells the workers, those that wait to be let in included, that their leader lives, as often as they say so to it.
func (n *coordinatorNode) reassure(now time.Time) {
	if now.Sub(n.spoke) < n.opts.Heartbeat {
		return
	}
	n.spoke = now
	body := encode(&down{Alive: true, Slowest: n.slowest()})
	for _, s := range n.sessions { //lint:sorted each gets it by itself
		s.send(body)
	}
	for _, s := range n.admitting { //lint:sorted each gets it by itself
		s.send(body)
	}
}

// connectionRefused tells whether nobody listens there.
func connectionRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED)
}

func (s *session) send(body []byte) { s.out.send(body) }

func (s *session) close() { s.out.abort() }

// outbox writes messages to a connection on a goroutine of its own, so that nobody waits for a slow peer.
type outbox struct {
	conn *transport.Conn
	wake chan struct{}
	mu   struct {
		sync.Mutex
		queue    [][]byte
		finished bool // nothing more comes: the connection ends behind what is queued
		aborted  bool
	}
}

func newOutbox(c *transport.Conn) *outbox {
	return &outbox{conn: c, wake: make(chan struct{}, 1)}
}

// send queues a message. A peer that reads nothing for too long is cut off.
func (o *outbox) send(body []byte) {
	o.mu.Lock()
	switch {
	case o.mu.finished || o.mu.aborted:
	case len(o.mu.queue) == maxOutbox:
		o.mu.aborted = true
	default:
		o.mu.queue = append(o.mu.queue, body)
	}
	o.mu.Unlock()
	notify(o.wake)
}

// finish closes the connection when all that is queued is written.
func (o *outbox) finish() {
	o.mu.Lock()
	o.mu.finished = true
	o.mu.Unlock()
	notify(o.wake)
}

// abort closes the connection now, a write under way included.
func (o *outbox) abort() {
	o.mu.Lock()
	o.mu.aborted = true
	o.mu.Unlock()
	o.hangUp()
	notify(o.wake)
}

// hangUp closes the connection. It is closed more than once, and the reading end hears of it: the error says nothing new.
func (o *outbox) hangUp() { _ = o.conn.Close() }

// run writes until finish, abort or an error, and closes the connection.
func (o *outbox) run() {
	defer o.hangUp()
	for range o.wake {
		for {
			o.mu.Lock()
			queue, finished, aborted := o.mu.queue, o.mu.finished, o.mu.aborted
			o.mu.queue = nil
			o.mu.Unlock()
			if aborted || len(queue) == 0 && finished {
				return
			}
			if len(queue) == 0 {
				break
			}
			if o.write(queue) != nil {
				o.abort()
				return
			}
		}
	}
}

func (o *outbox) write(queue [][]byte) error {
	if err := o.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	for _, body := range queue {
		if err := o.conn.Queue(frameBody, body); err != nil {
			return err
		}
	}
	return o.conn.Flush()
}

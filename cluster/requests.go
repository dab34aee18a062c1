package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/transport"
)

const (
	requestTimeout = 10 * time.Second // for a client's request to arrive
	maxWaiters     = 1024
)

// waiter is a request that is answered later.
type waiter struct {
	ready func(now time.Time) (reply, bool)
	reply func(reply)
}

// serveClient answers one request.
func (n *coordinatorNode) serveClient(c *transport.Conn) {
	if err := c.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return
	}
	_, body, err := c.Read()
	if err != nil {
		return
	}
	var q request
	if err := decode(body, &q); err != nil {
		n.answer(c, reply{Err: err.Error()})
		return
	}
	answer := make(chan reply, 1)
	n.events.post(func() { n.requested(&q, func(r reply) { answer <- r }) })
	select {
	case r := <-answer:
		n.answer(c, r)
	case <-n.ctx.Done():
	case <-n.ended:
		select {
		case r := <-answer: // the request may be what ended the node
			n.answer(c, r)
		default:
		}
	}
}

func (n *coordinatorNode) answer(c *transport.Conn, r reply) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return
	}
	if err := c.Write(frameBody, encode(&r)); err != nil {
		n.opts.Logger.Debug("answering a client", "error", err)
	}
}

// requested handles a client's request. answer is called once, now or later.
func (n *coordinatorNode) requested(q *request, answer func(reply)) {
	if q.Exit {
		answer(reply{})
		n.finish(ErrStopped)
		return
	}
	if !n.leading || n.rep.coord == nil {
		leader, self := n.raft.Leader()
		if self {
			leader = "" // it is about to lead
		}
		answer(reply{Redirect: &leader})
		return
	}
	if q.Status {
		s := n.status(time.Now())
		answer(reply{Body: encode(&s)})
		return
	}
	if f := n.rep.state.Finished; f != nil && !q.Stop {
		answer(reply{Err: "the job is over"})
		return
	}
	if len(n.waiters) == maxWaiters {
		answer(reply{Err: "too many requests wait for an answer"})
		return
	}
	switch {
	case q.Checkpoint:
		n.await(answer, n.nextCheckpoint())
	case q.Stop:
		n.opts.Logger.Info("a stop was asked for")
		n.stopping = true
		n.await(answer, n.stopped())
	case q.Mode != nil:
		if err := n.switchMode(*q.Mode); err != nil {
			answer(reply{Err: err.Error()})
			return
		}
		answer(reply{})
	case q.Drain != 0:
		n.drain(q.Drain, answer)
	case q.Cut != 0:
		n.cut(q.Cut, answer)
	default:
		answer(reply{Err: "a request of an unknown kind: the client is of another version"})
	}
}

func (n *coordinatorNode) await(answer func(reply), ready func(now time.Time) (reply, bool)) {
	n.waiters = append(n.waiters, &waiter{ready: ready, reply: answer})
}

// serveWaiters answers the requests whose time has come.
func (n *coordinatorNode) serveWaiters(now time.Time) {
	n.waiters = slices.DeleteFunc(n.waiters, func(w *waiter) bool {
		r, ready := w.ready(now)
		if ready {
			w.reply(r)
		}
		return ready
	})
}

// nextCheckpoint waits for a checkpoint that begins from now on.
func (n *coordinatorNode) nextCheckpoint() func(time.Time) (reply, bool) {
	s := n.rep.coord.points.State()
	after := s.Started()
	asked := s.Committed
	n.rep.coord.Report(Report{Checkpoint: true})
	return func(now time.Time) (reply, bool) {
		if f := n.rep.state.Finished; f != nil {
			return reply{Err: "the job is over"}, true
		}
		s := n.rep.coord.points.State()
		if s.Committed > after {
			status := n.checkpointStatus(now)
			return reply{Body: encode(&status)}, true
		}
		if s.Committed > asked || !s.Open {
			asked = s.Committed
			n.rep.coord.Report(Report{Checkpoint: true})
		}
		return reply{}, false
	}
}

// stopped waits for a checkpoint, and for some time at most, and then sends everybody away. It is ready when everybody was told.
func (n *coordinatorNode) stopped() func(time.Time) (reply, bool) {
	deadline := time.Now().Add(stopTimeout)
	done := n.nextCheckpoint()
	told := false
	return func(now time.Time) (reply, bool) {
		if told {
			return reply{Body: encode(n.leaves())}, len(n.sessions) == 0 || now.After(deadline)
		}
		deployed := n.rep.coord.decider.Task(0).Incarnation > 0
		if _, ready := done(now); !ready && deployed && now.Before(deadline) {
			return reply{}, false
		}
		if !n.left {
			n.left, n.leftAt = true, now
		}
		for _, s := range n.sessions { //lint:sorted each is told by itself
			s.send(encode(&down{Leave: &leave{}}))
			s.out.finish()
		}
		told, deadline = true, now.Add(farewellTime)
		return reply{Body: encode(n.leaves())}, len(n.sessions) == 0
	}
}

// leaves is the state in which a stop leaves the job.
func (n *coordinatorNode) leaves() *JobState {
	left := JobStopping
	switch f := n.rep.state.Finished; {
	case f == nil:
	case f.Err != "":
		left = JobFailed
	default:
		left = JobFinished
	}
	return &left
}

func (n *coordinatorNode) cut(w determinant.WorkerID, answer func(reply)) {
	s := n.sessions[w]
	if s == nil {
		answer(reply{Err: fmt.Sprintf("there is no live worker %d", w)})
		return
	}
	s.send(encode(&down{Cut: true}))
	answer(reply{})
}

// checkpointTimes is when checkpoints began and ended, as this process saw it.
type checkpointTimes struct {
	started, completed time.Time
	took               time.Duration
	bytes              int64
}

func (c *checkpointTimes) entry(e *Entry, now time.Time) {
	switch {
	case e.Start != nil:
		c.started = now
	case e.Complete != nil:
		c.completed = now
		if !c.started.IsZero() {
			c.took = now.Sub(c.started)
		}
	}
}

// checkpointStatus is the last checkpoint and the one under way.
func (n *coordinatorNode) checkpointStatus(now time.Time) CheckpointStatus {
	points := n.rep.coord.points.State()
	s := CheckpointStatus{
		Committed: points.Committed, AgeMillis: -1, TookMillis: -1, Bytes: n.times.bytes, MissingTasks: []string{}, Unprotected: []string{},
	}
	if !n.times.completed.IsZero() {
		s.AgeMillis, s.TookMillis = now.Sub(n.times.completed).Milliseconds(), n.times.took.Milliseconds()
	}
	if points.Open {
		s.UnderWay = points.Started()
		for _, t := range n.rep.coord.points.Missing() {
			s.MissingTasks = append(s.MissingTasks, nameOf(n.job, t))
		}
	}
	for _, t := range n.rep.coord.decider.Unprotected() {
		s.Unprotected = append(s.Unprotected, nameOf(n.job, t))
	}
	return s
}

// modes are the mode of the newest epoch, the one asked for, and the sharing depth.
func (n *coordinatorNode) modes() (mode, wanted, depth string) {
	m := n.rep.coord.Modes()
	return m.Newest.Mode.String(), m.Wanted.Mode.String(), m.Newest.Depth.String()
}

func (n *coordinatorNode) switchMode(m determinant.Mode) error {
	n.opts.Logger.Info("another mode was asked for", "mode", m)
	return n.rep.coord.SwitchMode(m, 0)
}

// drain has a worker freed of all that it does, and answers when nothing depends on it any more. It is sent away then, whoever
// leads, and whether the client waits or not: see dismiss.
func (n *coordinatorNode) drain(w determinant.WorkerID, answer func(reply)) {
	if err := n.rep.coord.Drain(w); err != nil {
		answer(reply{Err: err.Error()})
		return
	}
	n.opts.Logger.Info("a drain was asked for", "worker", w)
	n.await(answer, func(time.Time) (reply, bool) {
		if _, lives := n.rep.coord.view.member(w); !lives {
			return reply{Err: fmt.Sprintf("worker %d died while it was drained: others have taken over", w)}, true
		}
		if n.rep.state.Finished != nil {
			return reply{}, true
		}
		for _, d := range n.rep.coord.Drains() {
			if d.Worker == w && d.Done {
				return reply{}, true
			}
		}
		return reply{}, false
	})
}

package cluster

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/transport"
)

// imposter is a coordinator that lets a worker in and then says nothing.
type imposter struct {
	server *transport.Server
	job    *Job
	said   chan up // what workers say
}

func newImposter(c *cell, address string) *imposter {
	c.t.Helper()
	i := &imposter{job: must(Layout(drawnPlan(c.t, c.valve, c.out))), said: make(chan up, 1000)}
	i.server = must(transport.Listen(address, transport.ServerOptions{
		Security: c.security, Handle: func(h transport.Hello) (transport.Hello, func(*transport.Conn), error) { return h, i.serve, nil },
	}))
	return i
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (i *imposter) serve(c *transport.Conn) {
	for {
		_, body, err := c.Read()
		var u up
		if err != nil || decode(body, &u) != nil {
			return
		}
		if r := u.Register; r != nil {
			view := NewView(i.job, make([][]string, len(i.job.Plan.Vertices)), determinant.ExactlyOnce, determinant.Full)
			view.Members = []Admit{{Worker: 7, Address: r.Address, Instance: r.Instance}}
			if c.Write(frameBody, encode(&down{Welcome: &welcome{Worker: 7, Run: "run", View: &view}})) != nil {
				return
			}
		}
		select {
		case i.said <- u:
		default:
		}
	}
}

// next waits for something that a worker says.
func (i *imposter) next(t *testing.T, what string, ok func(u *up) bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case u := <-i.said:
			if ok(&u) {
				return
			}
		case <-late:
			require.Fail(t, "the worker never said it", what)
		}
	}
}

// A leader that is stopped, or cut off, keeps its connections and says nothing. The workers look for the next leader before that
// one takes them for dead.
func TestAWorkerLeavesASilentLeader(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := newCell(t, 2, 1, 10)
	silent, next := newImposter(c, c.addrs[0]), newImposter(c, c.addrs[1])
	o := WorkerNodeOptions{NodeOptions: c.node("worker-0")}
	o.HeartbeatTimeout = 500 * time.Millisecond
	plan := drawnPlan(t, c.valve, c.out)
	w := c.launch(func(ctx context.Context) error { return RunWorker(ctx, plan, o) })
	silent.next(t, "that it has joined", func(u *up) bool { return u.Joined != nil })
	next.next(t, "to another that it is worker 7", func(u *up) bool { return u.Register != nil && u.Register.Worker == 7 })
	w.kill()
	require.NoError(t, silent.server.Close())
	require.NoError(t, next.server.Close())
}

// A worker that takes long to open what it has says all the time that it lives.
func TestAWorkerLivesBeforeItHasJoined(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := newCell(t, 1, 1, 10)
	i := newImposter(c, c.addrs[0])
	o := WorkerNodeOptions{NodeOptions: c.node("worker-0")}
	plan := drawnPlan(t, c.valve, c.out)
	open := make(chan struct{})
	plan.Vertices[0].Identify = func(string) error {
		<-open
		return nil
	}
	w := c.launch(func(ctx context.Context) error { return RunWorker(ctx, plan, o) })
	for range 3 {
		i.next(t, "that it lives", func(u *up) bool { return u.Beat != nil })
	}
	close(open)
	i.next(t, "that it has joined", func(u *up) bool { return u.Joined != nil })
	w.kill()
	require.NoError(t, i.server.Close())
}

// What a connection that breaks off means is seen at the next one: a process that lives is not declared dead for it.
func TestAConnectionThatBreaksOffIsNoEvidence(t *testing.T) {
	c := newCell(t, 1, 1, 10)
	n := newCoordinatorNode(must(Layout(drawnPlan(t, c.valve, c.out))), CoordinatorNodeOptions{NodeOptions: c.node("coordinator-0")})
	n.opts.NodeOptions.ensureDefaults("test")
	defer n.events.close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var tries atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset, and not an end
			_ = conn.Close()
		}
	}()
	m := Admit{Worker: 1, Address: l.Addr().String(), Instance: "one"}
	require.Empty(t, n.evidence(m))
	require.EqualValues(t, probeTries, tries.Load())
	require.NoError(t, l.Close())
	<-done
	require.Contains(t, n.evidence(m), "refused")

	server := must(transport.Listen("127.0.0.1:0", transport.ServerOptions{
		Security: c.security, Handle: func(h transport.Hello) (transport.Hello, func(*transport.Conn), error) {
			h.Instance = "one"
			return h, func(*transport.Conn) {}, nil
		},
	}))
	m.Address = server.Addr()
	require.Empty(t, n.evidence(m))
	m.Instance = "another"
	require.Contains(t, n.evidence(m), "another process")
	require.NoError(t, server.Close())
}

// minority is a coordinator whose peers are not there. It believes that it leads, as one does that was stopped and goes on.
func minority(c *cell) *coordinatorNode {
	c.t.Helper()
	o := CoordinatorNodeOptions{NodeOptions: c.node("coordinator-0"), Workers: 1}
	o.Listen = c.addrs[0]
	o.ensureDefaults("drawn")
	n := newCoordinatorNode(must(Layout(drawnPlan(c.t, c.valve, c.out))), o)
	require.NoError(c.t, n.open())
	c.t.Cleanup(func() { require.NoError(c.t, n.close()) })
	n.events.call(func() {
		s := newLedgerState(n.job, "run", make([][]string, len(n.job.Plan.Vertices)), determinant.ExactlyOnce, determinant.Full)
		require.NoError(c.t, n.rep.apply(encode(&command{Begin: &s})))
		require.NoError(c.t, n.rep.apply(encode(&command{Entry: &Entry{Admit: &Admit{Worker: 1, Address: "127.0.0.1:1", Instance: "one"}}})))
		n.leading, n.settled, n.lastTick = true, true, time.Now()
	})
	return n
}

// session is one of a worker that does not read what it is told.
func (c *cell) session() *session {
	c.t.Helper()
	server := must(transport.Listen("127.0.0.1:0", transport.ServerOptions{
		Security: c.security, Handle: func(h transport.Hello) (transport.Hello, func(*transport.Conn), error) {
			return h, func(conn *transport.Conn) { _, _, _ = conn.Read() }, nil
		},
	}))
	conn, _, err := c.security.Dial(context.Background(), server.Addr(), transport.Hello{Purpose: purposeControl})
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = conn.Close(); require.NoError(c.t, server.Close()) })
	return &session{conn: conn, out: newOutbox(conn), tasks: map[determinant.TaskID]TaskMetrics{}, before: map[determinant.TaskID]progress{}}
}

// answers decodes what a session is about to send.
func (s *session) answers(t *testing.T) []down {
	t.Helper()
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	answers := make([]down, len(s.out.mu.queue))
	for i, body := range s.out.mu.queue {
		require.NoError(t, decode(body, &answers[i]))
	}
	return answers
}

// A former leader that does not know what a worker knows must not tell it that it is dead.
func TestAFormerLeaderDeclaresNobodyDead(t *testing.T) {
	c := newCell(t, 3, 0, 10)
	n := minority(c)
	for _, worker := range []determinant.WorkerID{1, 2} { // 2 was admitted by another
		s := c.session()
		n.events.call(func() {
			n.said(s, &up{Register: &register{
				Worker: worker, Applied: 100, Instance: "one", Address: "127.0.0.1:1", Build: "test", Shape: n.job.Plan.Shape,
			}})
		})
		require.Eventually(t, func() bool { return len(s.answers(t)) > 0 }, 10*time.Second, time.Millisecond)
		require.NotNil(t, s.answers(t)[0].Redirect, "%+v", s.answers(t)[0])
	}
	n.events.call(func() { require.Empty(t, n.gone) })
}

// A peer that knows the secret, but not what it says, does no harm to a coordinator.
func TestACoordinatorOutlivesWhatWorkersSay(t *testing.T) {
	const wild = determinant.TaskID(1 << 31)
	c := newCell(t, 3, 0, 10)
	n := minority(c)
	says := map[string]*up{
		"joined":     {Joined: &joined{Held: []standby.Held{{Task: wild, Epoch: 1}}}},
		"beat":       {Beat: &beat{Tasks: []TaskMetrics{{Task: wild, BusyMillis: 1 << 40}}}},
		"ack":        {Report: &Report{Ack: &checkpoint.Ack{Task: wild, Worker: 1}}},
		"ack failed": {Report: &Report{AckFailed: &checkpoint.Failed{Task: wild, Worker: 1}}},
		"failed":     {Report: &Report{Failed: &TaskFailure{Task: wild, Worker: 1, Err: ErrKilled}}},
		"rollback":   {Report: &Report{Rollback: &standby.RollbackWanted{Task: wild}}},
		"caught up":  {Report: &Report{CaughtUp: &standby.CaughtUp{Task: wild}}},
		"holding":    {Report: &Report{Holding: &standby.Holding{Task: wild, Worker: 1}}},
		"ended":      {Report: &Report{Ended: &Ended{Task: wild}}},
		"another's":  {Report: &Report{Holding: &standby.Holding{Task: 0, Worker: 2}}},
		"observed":   {Observed: &Observation{Task: wild}},
		"phase":      {Observed: &Observation{Task: 0, Phase: 200}},
		"itself":     {Link: &linkReport{Peer: 1}},
	}
	for what, u := range says {
		t.Run(what, func(t *testing.T) {
			s := c.session()
			s.worker = 1
			n.events.call(func() {
				n.sessions[1] = s
				n.said(s, u)
				require.True(t, s.out.mu.aborted, "it is not cut off")
				n.status(time.Now())
				n.sessions = map[determinant.WorkerID]*session{}
			})
		})
	}
}

// The same for a worker.
func TestAWorkerOutlivesWhatPeersSay(t *testing.T) {
	const wild = determinant.TaskID(1 << 31)
	answer := func(from, of determinant.TaskID) *Answer {
		return &Answer{Round: 1, From: standby.FromStore(from), Logs: []causal.Copy{{Task: of}}}
	}
	for _, m := range []Control{
		{Answer: answer(wild, 0)}, {Answer: answer(0, wild)},
		{Image: &Image{Task: wild}}, {Want: &Want{Task: wild}}, {Trigger: &checkpoint.Trigger{Task: wild}},
	} {
		require.ErrorIs(t, m.check(tasks), errMalformed, fmt.Sprint(m))
	}
	require.NoError(t, (&Control{Answer: answer(5, 4)}).check(tasks))
}

// No worker consumes what a causal sink shows.
func TestNoWorkerSubscribesToASink(t *testing.T) {
	job := must(Layout(drawnPlan(t, &valve{n: 1}, t.TempDir())))
	b := newBench(t, job, 1, determinant.ExactlyOnce)
	for ch := range job.Channels {
		if !job.Channels[ch].External {
			continue
		}
		id := determinant.ChannelID(ch)
		b.w.Receive(&transport.Message{
			From: 2, Subscriptions: []transport.Subscription{{Channel: id, Number: 1, Consumer: 9, Producer: 9}},
			Frames: []transport.Frame{{Channel: id, Number: 1, Batch: &inflightlog.Batch{}}},
		})
		require.False(t, b.w.mu.subs[ch].active)
	}
}

// Until it is committed that a failed job goes on, nobody is refused for its failure.
func TestNobodyIsRefusedWhileAJobIsTakenUp(t *testing.T) {
	c := newCell(t, 3, 0, 10)
	n, s := minority(c), c.session()
	n.events.call(func() {
		n.rep.state.Finished = &Finish{Err: "failed"}
		n.resuming = true
		require.False(t, n.refuseEnded(s))
		require.NoError(t, n.rep.apply(encode(&command{Resume: true})))
		require.False(t, n.resuming)
		n.rep.state.Finished = &Finish{Err: "failed again"}
		require.True(t, n.refuseEnded(s))
	})
	require.Equal(t, "failed again", s.answers(t)[0].Refused.Text)
}

// A job whose end was committed while another coordinator led is not taken up again by the next leader: nobody has started it anew.
func TestWhoFollowsResumesNothing(t *testing.T) {
	c := newCell(t, 3, 0, 10)
	n := minority(c)
	n.events.call(func() {
		n.settled = false
		now := time.Now()
		n.follow("another", now)
		n.follow("", now.Add(settleTime))
		n.follow("another", now.Add(settleTime))
		n.follow("another", now.Add(2*settleTime))
		require.False(t, n.settled, "the other has hardly begun")
		n.follow("another", now.Add(3*settleTime+1))
		require.True(t, n.settled)
		n.rep.state.Finished = &Finish{Err: "failed"}
		n.resume()
		require.False(t, n.resuming)
	})
}

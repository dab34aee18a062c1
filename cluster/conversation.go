package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/transport"
)

// leaderLink is the connection to the leader, as the worker holds it.
type leaderLink struct {
	conn    *transport.Conn
	out     *outbox
	address string
}

func (s *leaderLink) hangUp() { s.out.abort() }

// patience is how long a worker waits for a leader that says nothing, and for one that it asks to be let in again. The next
// leader declares it dead after twice as long.
func (l *life) patience() time.Duration {
	return max(l.node.opts.HeartbeatTimeout/2, 2*l.node.opts.Heartbeat)
}

// register finds the leader and registers, with the one at former last: it may be there and not answer. It returns when it was
// let in or refused for good.
func (l *life) register(ctx context.Context, r register, former string) (*leaderLink, *welcome, error) {
	n := l.node
	host, err := os.Hostname()
	if err != nil {
		host = "" // it is for people only
	}
	r.Instance, r.Address, r.Host, r.Process = l.instance, n.address, host, os.Getpid()
	r.Build, r.Shape, r.Settings = n.opts.Build, n.job.Plan.Shape, n.opts.Settings.fingerprints(n.opts.Security.Secret)
	r.Again = n.letIn
	var nobody leaderless
	var doubt doubts
	for {
		var last error
		for _, address := range beginningAfter(n.opts.Coordinators, former) {
			s, w, err := l.registerAt(ctx, address, &r, maxRedirect)
			if err == nil {
				return s, w, nil
			}
			var refused *refusalError
			if errors.As(err, &refused) || definite(err) || doubt.confirmed(err, len(n.opts.Coordinators)) || ctx.Err() != nil {
				return nil, nil, err
			}
			last = err
		}
		if nobody.due(false, time.Now()) {
			n.opts.Logger.Warn("no coordinator leads: checkpoints and recoveries wait, the data plane goes on", "error", last)
		}
		wait := time.NewTimer(askPause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil, nil, context.Cause(ctx)
		case <-wait.C:
		}
	}
}

// beginningAfter lists all addresses, those behind one of them first and that one last.
func beginningAfter(addresses []string, former string) []string {
	i := slices.Index(addresses, former) + 1
	return slices.Concat(addresses[i:], addresses[:i])
}

// refusalError is a coordinator's last word.
type refusalError struct{ refusal }

// Error is what the coordinator said.
func (e *refusalError) Error() string { return "cluster: " + e.Text }

// Is tells why.
func (e *refusalError) Is(target error) bool {
	switch target {
	case errDeclaredDead:
		return e.Reason == reasonDead
	case ErrOtherBuild:
		return e.Reason == reasonOtherBuild
	case ErrWrongJob:
		return e.Reason == reasonOtherJob
	case ErrStopped:
		return e.Reason == reasonStopped
	case errFinished:
		return e.Reason == reasonFinished
	}
	return false
}

// registerAt registers with one coordinator, or with the one that it names as the leader.
func (l *life) registerAt(ctx context.Context, address string, r *register, redirects int) (*leaderLink, *welcome, error) {
	dialTime := askTimeout
	if r.Worker != 0 {
		dialTime = min(dialTime, l.patience()/2)
	}
	dial, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, _, err := l.node.opts.Security.Dial(dial, address, transport.Hello{
		Purpose: purposeControl, Cluster: l.node.opts.Cluster, From: uint64(r.Worker), Instance: l.instance,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cluster: coordinator at %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the reading below hears of it
	defer stop()
	var d down
	if err = conn.Write(frameBody, encode(&up{Register: r})); err == nil {
		err = l.answer(conn, &d)
	}
	if err == nil && d.Welcome != nil {
		return &leaderLink{conn: conn, out: newOutbox(conn), address: address}, d.Welcome, nil
	}
	_ = conn.Close() // whatever went wrong, it went wrong before
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("cluster: coordinator at %s: %w", address, err)
	case d.Refused != nil:
		return nil, nil, &refusalError{refusal: *d.Refused}
	case d.Redirect != nil && *d.Redirect != "" && redirects > 0:
		return l.registerAt(ctx, *d.Redirect, r, redirects-1)
	}
	return nil, nil, errElsewhere
}

// answer reads what a coordinator says to a registration. One that lives says so as long as the ledger has not taken a new
// worker in.
func (l *life) answer(conn *transport.Conn, d *down) error {
	for {
		*d = down{}
		if err := conn.SetReadDeadline(time.Now().Add(l.patience())); err != nil {
			return err
		}
		if err := readDown(conn, d); err != nil || !d.Alive {
			return err
		}
	}
}

// errFinished says that the job was finished before.
var errFinished = errors.New("cluster: the job is finished")

func readDown(conn *transport.Conn, d *down) error {
	_, body, err := conn.Read()
	if err != nil {
		return err
	}
	return decode(body, d)
}

// converse speaks with one leader after the other until the life is over. The first session is there already; its outbox runs
// until it is hung up.
func (l *life) converse(ctx context.Context, s *leaderLink) {
	holdings := l.worker.Holdings
	var running sync.WaitGroup
	for {
		// Heartbeats go out meanwhile: a checkpoint may have to be folded first.
		s.out.send(encode(&up{Joined: &joined{Held: holdings()}}))
		err := l.listen(ctx, s)
		l.session.Store(nil)
		s.hangUp()
		running.Wait()
		if why := l.farewell.Load(); why != nil {
			l.ends(*why)
		}
		if ctx.Err() != nil || l.isOver() {
			return
		}
		l.node.opts.Logger.Debug("the connection to the coordinator is gone", "cause", err)
		s, _, err = l.register(ctx, register{Worker: l.worker.ID(), Applied: l.applied.Load()}, s.address)
		if err != nil {
			l.ends(err)
			return
		}
		if !l.control.call(func() {}) { // what was heard before is applied by now
			s.hangUp()
			return
		}
		running.Go(s.out.run)
		l.session.Store(s.out)
		holdings = l.worker.Register
	}
}

func (l *life) isOver() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// listen handles what the leader says until the connection ends, or the leader says nothing: it may be stopped, or cut off, and
// another lead.
func (l *life) listen(ctx context.Context, s *leaderLink) error {
	stop := context.AfterFunc(ctx, s.hangUp)
	defer stop()
	for {
		var d down
		if err := s.conn.SetReadDeadline(time.Now().Add(l.patience())); err != nil {
			return err
		}
		if err := readDown(s.conn, &d); err != nil {
			return err
		}
		switch {
		case d.Entry != nil:
			l.entry(d.Entry)
		case d.Control != nil:
			m := *d.Control
			if err := m.check(len(l.node.job.Tasks)); err != nil {
				return err
			}
			l.control.post(func() { l.worker.Control(m) })
		case d.Refused != nil:
			l.ends(&refusalError{refusal: *d.Refused})
			return nil
		case d.Leave != nil && d.Leave.Drained:
			l.ends(ErrDrained)
			return nil
		case d.Leave != nil:
			l.ends(ErrStopped)
			return nil
		case d.Alive:
			l.worker.Align(d.Slowest, l.patience().Milliseconds())
		case d.Cut:
			for _, p := range l.peers() {
				l.mesh.Cut(p.ID)
			}
		}
	}
}

// entry applies an entry of the ledger, in order, and does what follows for this process.
func (l *life) entry(e *Entry) {
	l.control.post(func() {
		if e.Index <= l.applied.Load() {
			return // it came again with a new connection
		}
		l.worker.Apply(*e)
		l.applied.Store(e.Index)
		switch {
		case e.Admit != nil:
			l.relink()
		case e.Decision != nil:
			if l.worker.DeclaredDead() {
				l.ends(errDeclaredDead)
				return
			}
			l.relink()
		case e.Finish != nil:
			l.leave(e.Finish.error())
		}
	})
}

// relink names the workers to be linked with.
func (l *life) relink() {
	peers := l.peers()
	l.downs.keep(peers) // first: what the mesh then says of a peer that it has no more does not count, and of a new one does
	l.mesh.SetPeers(peers)
}

// leave says how the worker did at last, and then ends the life.
func (l *life) leave(err error) {
	if err == nil {
		err = errFinished
	}
	s := l.session.Load()
	if s == nil {
		l.ends(err)
		return
	}
	l.farewell.Store(&err)
	s.send(encode(&up{Beat: l.beat()}))
	s.finish() // the conversation ends behind it
}

// heartbeat tells the leader that the worker lives, by going through its lock, and how it is.
func (l *life) heartbeat(ctx context.Context) {
	ticker := time.NewTicker(l.node.opts.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.say(&up{Beat: l.beat()})
		}
	}
}

// beat measures the worker, once it is built.
func (l *life) beat() *beat {
	if !l.built.Load() {
		return &beat{}
	}
	b := &beat{Tasks: l.worker.Measure()}
	b.Metrics.InflightMemory, b.Metrics.InflightDisk = l.worker.opts.Budget.Used()
	b.Metrics.DeterminantBytes = l.worker.Logs().Bytes()
	b.Metrics.LinksDown = l.downs.count()
	b.Metrics.StandbyMemory = l.worker.WarmBytes()
	b.Metrics.StateBytes = int64(l.worker.opts.State.DiskBytes())
	return b
}

// downLinks are the links that are down, of those to the peers that a worker has. A link that ends says that it is down, and may do so
// after its peer was forgotten: that is no link that is missing.
type downLinks struct {
	mu struct {
		sync.Mutex
		down map[determinant.WorkerID]bool // of each peer, whether its link was up and is down now
	}
}

func (c *downLinks) linked(peer determinant.WorkerID, isUp bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, kept := c.mu.down[peer]; kept {
		c.mu.down[peer] = !isUp
	}
}

// keep forgets the links with all but these peers.
func (c *downLinks) keep(peers []transport.Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := make(map[determinant.WorkerID]bool, len(peers))
	for _, p := range peers {
		kept[p.ID] = c.mu.down[p.ID]
	}
	c.mu.down = kept
}

func (c *downLinks) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, down := range c.mu.down { //lint:sorted only counted
		if down {
			n++
		}
	}
	return n
}

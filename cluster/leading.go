package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/raftmeta"
	"github.com/understudy-stream/understudy/transport"
)

// led takes a change of leadership. A new leader acts when it has applied all that was committed before.
func (n *coordinatorNode) led(leads bool) {
	n.tenure++
	if n.leading {
		n.stepDown()
	}
	if !leads {
		return
	}
	tenure := n.tenure
	n.serve.Go(func() {
		err := n.raft.Barrier(n.ctx)
		n.events.post(func() {
			if err == nil && n.tenure == tenure {
				n.lead()
			}
		})
	})
}

func (n *coordinatorNode) stepDown() {
	n.opts.Logger.Info("this coordinator leads no more")
	n.leading, n.began = false, false
	for _, s := range n.sessions { //lint:sorted each is closed by itself
		s.close()
	}
	for _, s := range n.admitting { //lint:sorted each is closed by itself
		s.close()
	}
	for _, w := range n.waiters {
		w.reply(reply{Redirect: new(string)})
	}
	n.waiters = nil
	clear(n.sessions)
	clear(n.admitting)
	if n.rep.coord != nil {
		n.rep.rebuild()
	}
}

// lead begins a tenure.
func (n *coordinatorNode) lead() {
	n.opts.Logger.Info("this coordinator leads", "address", n.opts.Coordinators[n.self])
	now := time.Now()
	n.leading, n.since, n.lastTick = true, now, now
	clear(n.heard)
	clear(n.joined)
	clear(n.gone)
	clear(n.downs)
	clear(n.why)
	if n.rep.alien != nil {
		return // the process is about to end
	}
	if n.rep.coord == nil {
		n.begin()
		return
	}
	n.resume()
	n.watchFormer()
	n.rep.coord.Lead()
	n.configure()
	n.settled = true
}

// resume takes back the end of a job that failed before this process started: what stopped it may be mended by now, and it goes on
// from its last checkpoint.
func (n *coordinatorNode) resume() {
	if f := n.rep.state.Finished; f != nil && f.Err != "" && (n.resuming || !n.settled) {
		n.resuming = true
		n.propose(command{Resume: true})
	}
}

// follow notes who leads while this process does not. A job that ends while another leads has not ended before this process
// started.
func (n *coordinatorNode) follow(leader string, now time.Time) {
	switch {
	case leader == "" || n.rep.coord == nil:
		n.followed = time.Time{}
	case n.followed.IsZero():
		n.followed = now
	case now.Sub(n.followed) > settleTime:
		n.settled = true
	}
}

// begin lists the splits and proposes that the job begins.
func (n *coordinatorNode) begin() {
	n.settled, n.began = true, true
	tenure := n.tenure
	depth := n.opts.Depth
	if n.opts.Auto {
		depth = autoDepth(n.job, n.opts.Standbys, n.opts.Workers)
	}
	n.serve.Go(func() {
		splits, err := listSplits(n.ctx, n.job)
		n.events.post(func() {
			if n.tenure != tenure {
				return
			}
			if err != nil {
				n.finish(err)
				return
			}
			s := newLedgerState(n.job, rand.Text(), splits, n.opts.Mode, depth)
			n.propose(command{Begin: &s})
		})
	})
}

// begun is told that the replica has a job.
func (n *coordinatorNode) begun(*ledgerState) {
	resumed := n.resuming
	n.resuming = false
	if !n.leading {
		return
	}
	if resumed {
		n.watchFormer() // deaths did not count while the job was over
	}
	n.rep.coord.Lead()
	n.configure()
}

// watchFormer looks at once whether the workers that the ledger knows are still there.
func (n *coordinatorNode) watchFormer() {
	for _, m := range n.rep.coord.view.Members {
		n.heard[m.Worker] = n.since
		n.probe(m)
	}
}

// probe asks whether the process that a worker lives in is still there. A refused connection, or another process that
// answers, is evidence of its death; silence is not.
func (n *coordinatorNode) probe(m Admit) {
	tenure := n.tenure
	n.serve.Go(func() {
		evidence := n.evidence(m)
		if evidence == "" {
			return
		}
		n.events.post(func() {
			if n.tenure == tenure && n.leading {
				n.opts.Logger.Log(n.ctx, n.gravity(m.Worker), "a worker's process is gone", "worker", m.Worker, "address", m.Address, "evidence", evidence)
				n.died(m.Worker)
			}
		})
	})
}

// evidence says how it is known that a worker's process is gone; empty: it is not known. A connection that breaks off says
// nothing: a process that dies closes its connections before it stops to listen, and one that lives has turned this one away. Another attempt tells.
func (n *coordinatorNode) evidence(m Admit) string {
	for try := range probeTries {
		ctx, cancel := context.WithTimeout(n.ctx, probeTimeout)
		conn, hello, err := n.opts.Security.Dial(ctx, m.Address, transport.Hello{Purpose: purposeProbe, Cluster: n.opts.Cluster})
		cancel()
		switch {
		case err == nil:
			n.closed(conn.Close())
			if hello.Instance != m.Instance {
				return "another process is at its address"
			}
			return ""
		case connectionRefused(err):
			return err.Error()
		}
		pause := time.NewTimer(probePause << try)
		select {
		case <-pause.C:
		case <-n.ctx.Done():
			pause.Stop()
			return ""
		}
	}
	return ""
}

// gravity is how loudly it is said that a worker is gone: loudly once, and not if it was told to go.
func (n *coordinatorNode) gravity(w determinant.WorkerID) slog.Level {
	if n.rep.coord.freed(w) || !n.mourns(w) || n.mourned[w] {
		return slog.LevelInfo
	}
	maps.DeleteFunc(n.mourned, func(w determinant.WorkerID, _ bool) bool {
		_, known := n.rep.coord.view.member(w)
		return !known
	})
	n.mourned[w] = true
	return slog.LevelWarn
}

// mourns tells whether the death of a worker would be news that counts.
func (n *coordinatorNode) mourns(w determinant.WorkerID) bool {
	_, known := n.rep.coord.view.member(w)
	return known && !n.gone[w] && !n.left && n.rep.state.Finished == nil
}

// died declares a worker dead, at once or, when the whole cluster has died, together with the others.
func (n *coordinatorNode) died(w determinant.WorkerID) {
	if !n.mourns(w) {
		return
	}
	n.gone[w] = true
	delete(n.joined, w)
	if s := n.sessions[w]; s != nil {
		s.close()
		delete(n.sessions, w)
	}
	n.noticed(w)
	n.declare()
}

// noticed notes when the tasks of a worker were found dead.
func (n *coordinatorNode) noticed(w determinant.WorkerID) {
	now := time.Now()
	for t, p := range n.rep.coord.view.Places {
		if p.Worker == w {
			n.stats.noticed(determinant.TaskID(t), now)
		}
	}
}

// declare has the dead declared dead. When none of the workers that the job was on is left, it waits a little for those that
// come in their place: otherwise all tasks would go to the one that comes first.
func (n *coordinatorNode) declare() {
	if len(n.gone) == 0 {
		return
	}
	placed := map[determinant.WorkerID]bool{}
	for _, p := range n.rep.coord.view.Places {
		placed[p.Worker] = true
		for _, s := range p.Standbys {
			placed[s] = true
		}
	}
	former, fresh := 0, 0
	for _, m := range n.rep.coord.view.Members {
		switch {
		case n.gone[m.Worker]:
		case placed[m.Worker]:
			former++
		case n.joined[m.Worker]:
			fresh++
		}
	}
	now := time.Now()
	if n.goneAt.IsZero() {
		n.goneAt = now
	}
	if former == 0 && fresh < n.opts.Workers && now.Sub(n.goneAt) < formTimeout {
		return
	}
	dead := make([]determinant.WorkerID, 0, len(n.gone))
	for w := range n.gone { //lint:sorted sorted below
		dead = append(dead, w)
	}
	slices.Sort(dead)
	clear(n.gone)
	n.goneAt = time.Time{}
	n.rep.coord.Dead(dead...)
}

// tick drives what depends on time.
func (n *coordinatorNode) tick(now time.Time) {
	n.end(now)
	leader, self := n.raft.Leader()
	if !n.leading && !self {
		n.follow(leader, now)
	}
	if n.nobody.due(leader != "", now) {
		n.opts.Logger.Warn("no coordinator leads: most of them must be running and able to reach each other", "coordinators", n.opts.Coordinators)
	}
	if !n.leading || n.rep.coord == nil {
		n.lastTick = now
		if n.leading && n.repropose && n.rep.alien == nil {
			n.repropose = false
			n.begin()
		}
		return
	}
	if now.Sub(n.lastTick) > n.opts.HeartbeatTimeout/2 { // this process was stopped: others' silence was its own
		for w := range n.heard { //lint:sorted each is set by itself
			n.heard[w] = now
		}
	}
	n.lastTick = now
	if n.left && now.Sub(n.leftAt) > lingerAfterEnd { // the client that asked for the stop is gone
		n.finish(ErrStopped)
	}
	if n.repropose {
		n.repropose = false
		n.resume()
		n.rep.coord.Lead()
		n.configure()
	}
	for _, m := range n.rep.coord.view.Members {
		if heard, ok := n.heard[m.Worker]; ok && now.Sub(heard) > n.opts.HeartbeatTimeout && n.mourns(m.Worker) {
			n.opts.Logger.Log(n.ctx, n.gravity(m.Worker), "a worker is silent for too long", "address", m.Address, "worker", m.Worker, "for", now.Sub(heard))
			n.died(m.Worker)
		}
	}
	n.declare()
	n.reassure(now)
	n.judgeLinks(now)
	n.readmit(now)
	if b := n.rep.coord.points.Bytes(); b > 0 {
		n.times.bytes = b
	}
	n.rep.coord.Tick(now.UnixMilli())
	n.serveWaiters(now)
	n.dismiss()
}

// propose hands a command to the log.
func (n *coordinatorNode) propose(c command) {
	n.raft.Propose(encode(&c), func(err error) {
		if err == nil || errors.Is(err, raftmeta.ErrNotLeader) {
			return // a node that has lost the lead hears of it on another way
		}
		n.events.post(func() { n.notProposed(&c, err) })
	})
}

// notProposed handles a proposal that is lost. One that is too large will always be: the job cannot go on, and says so.
func (n *coordinatorNode) notProposed(c *command, err error) {
	switch {
	case !errors.Is(err, raftmeta.ErrTooLarge):
		n.repropose = true
	case n.rep.coord == nil:
		n.finish(fmt.Errorf("cluster: the job cannot begin: the list of what its sources read: %w", err))
	default:
		n.opts.Logger.Error("an entry of the ledger is too large", "error", err)
		why := "cluster: an entry of the ledger is too large"
		switch {
		case c.Entry != nil && c.Entry.Finish != nil:
			why = c.Entry.Finish.Err
		case c.Entry != nil:
			why += ": " + c.Entry.String()
		}
		n.Propose(Entry{Finish: &Finish{Epoch: n.rep.coord.view.committed(), Err: why[:min(len(why), maxReason)]}})
	}
}

// Propose wants an entry committed. Part of Ledger; a follower proposes nothing.
func (n *coordinatorNode) Propose(e Entry) {
	if n.leading {
		n.propose(command{Entry: &e})
	}
}

// Broadcast takes an entry that took effect. Part of CoordinatorEnvironment.
func (n *coordinatorNode) Broadcast(e Entry) {
	n.rep.broadcast(e)
	now := time.Now()
	n.stats.entry(&e, now)
	n.times.entry(&e, now)
	if e.Decision != nil {
		n.opts.Logger.Info("decision", "what", e.Decision.String())
	}
	if e.Grow != nil {
		n.opts.Logger.Info("new splits", "what", e.Grow.String())
	}
	if !n.leading {
		return
	}
	body := encode(&down{Entry: &e})
	for _, s := range n.sessions { //lint:sorted each gets it by itself
		s.send(body)
	}
	if e.Admit != nil {
		n.admitted(e.Admit)
	}
}

// Tell delivers a control message. Part of CoordinatorEnvironment.
func (n *coordinatorNode) Tell(to determinant.WorkerID, m Control) {
	if s := n.sessions[to]; s != nil && n.leading {
		s.send(encode(&down{Control: &m}))
	}
}

// Finished ends the job; the process stays for a while, so that others can ask how it ended. Part of CoordinatorEnvironment.
func (n *coordinatorNode) Finished(err error) {
	switch {
	case !n.settled: // long ago
	case err != nil:
		n.opts.Logger.Error("the job failed", "error", err)
	default:
		n.opts.Logger.Info("the job is finished")
	}
	if n.leading {
		n.refuseWaiting() // nothing is admitted any more
	}
}

// end ends the process some time after its job, unless the job was taken up again.
func (n *coordinatorNode) end(now time.Time) {
	f := n.rep.state.Finished
	switch {
	case f == nil:
		n.over = time.Time{}
	case n.over.IsZero():
		n.over = now
	case now.Sub(n.over) > lingerAfterEnd:
		n.finish(f.error())
	}
}

// Waiting notes why something does not go on. Part of CoordinatorEnvironment.
func (n *coordinatorNode) Waiting(why string) {
	if n.why["job"] == why {
		return
	}
	n.why["job"] = why
	if why != "" && n.leading {
		n.opts.Logger.Warn("waiting", "why", why)
	}
}

// judgeLinks has one end of a link die that stays down between two workers that live.
func (n *coordinatorNode) judgeLinks(now time.Time) {
	for name, at := range n.downs { //lint:sorted each is judged by itself
		if n.sessions[name.low] == nil || n.sessions[name.high] == nil {
			delete(n.downs, name)
			continue
		}
		if now.Sub(at) > n.opts.LinkTimeout {
			delete(n.downs, name)
			n.opts.Logger.Warn("a link stays down", "between", name.low, "and", name.high)
			n.died(n.lonelier(name))
		}
	}
}

// lonelier picks the end of a link that has more links down, the younger one among equals.
func (n *coordinatorNode) lonelier(name linkName) determinant.WorkerID {
	low, high := 0, 0
	for other := range n.downs { //lint:sorted only counted
		if other.low == name.low || other.high == name.low {
			low++
		}
		if other.low == name.high || other.high == name.high {
			high++
		}
	}
	if low > high {
		return name.low
	}
	return name.high
}

// linkName names a link by its two ends.
type linkName struct{ low, high determinant.WorkerID }

package sim

import (
	"slices"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
)

// replica is one coordinator process: it follows the ledger and leads at times. It implements cluster.Ledger and
// cluster.CoordinatorEnvironment.
type replica struct {
	metadata    *metadata
	number      int
	coordinator *cluster.Coordinator
	applied     int // entries of the log
	snapshot    replicated
	index       uint64                 // of the last entry that took effect here
	dead        []determinant.WorkerID // as of that entry
	down        bool                   // the process is not there
	pausedUntil int
	waiting     string // why, as it says

	leads      bool // as far as it knows
	term       int  // of its reign
	staleUntil int  // when it learns that its reign is over, and does not reach the others before
	doubtful   bool // a proposal was lost: it must be told that it does not know
	nextID     determinant.WorkerID
	joined     []determinant.WorkerID
	lobby      []*process // that wait for an id
}

// running tells whether the process acts now.
func (r *replica) running() bool { return !r.down && r.pausedUntil <= r.metadata.world.step }

// rebuild makes the coordinator anew from what is replicated: all else is forgotten.
func (r *replica) rebuild(s replicated) {
	m, w := r.metadata, r.metadata.world
	applied := s.applied
	s = carry(w, s)
	s.applied = applied
	interval, balance := w.plan.interval, w.opts.Balance
	if balance == 0 {
		balance = -1
	}
	if w.opts.NoCheckpoints {
		interval = 0
	}
	r.applied, r.snapshot = applied, s
	r.index, r.dead = s.View.Index, s.View.Dead
	r.coordinator = cluster.NewCoordinator(w.job, s.View, s.Recovery, s.Points, r, r, cluster.CoordinatorOptions{
		Mode: w.opts.Mode, Depth: w.opts.Depth, Standbys: w.plan.standbys, Interval: interval, Timeout: w.plan.timeout,
		PoisonTries: poisonTries, SetAside: w.plan.poison > 0, BalanceAfter: balance, Mutations: m.mutations(r),
	})
}

// state is what a snapshot taken now holds.
func (r *replica) state() replicated {
	view, recovery, points := r.coordinator.Replicated()
	return replicated{view, recovery, points, r.applied}
}

// catchUp applies what is committed.
func (r *replica) catchUp() {
	m := r.metadata
	if r == m.truth {
		for ; r.applied < len(m.entries); r.applied++ {
			r.coordinator.Committed(m.entries[r.applied])
		}
		return
	}
	if r.leads && r.term < m.term {
		return // it is cut off
	}
	for r.applied < len(m.entries) {
		e := m.entries[r.applied]
		r.applied++
		r.coordinator.Committed(carry(m.world, e))
		if m.world.chance(20) {
			r.snapshot = r.state()
		}
	}
	m.agree(r)
	if r.doubtful && m.world.chance(4) {
		r.doubtful = false
		r.coordinator.Lead()
	}
}

// lead begins a reign.
func (r *replica) lead(term int) {
	w := r.metadata.world
	if r.leads {
		r.stepDown() // it was about to learn it
	}
	w.trace("coordinator %d leads, term %d", r.number, term)
	r.catchUp()
	r.rebuild(r.state())
	r.leads, r.term, r.doubtful, r.nextID, r.joined, r.lobby = true, term, false, 0, nil, nil
	r.metadata.coordinator = r.coordinator
	r.coordinator.Lead()
}

// stepDown ends a reign, as the coordinator sees it: workers look for another.
func (r *replica) stepDown() {
	r.metadata.world.trace("coordinator %d follows", r.number)
	r.leads = false
	r.hangUp()
}

// hangUp breaks all sessions.
func (r *replica) hangUp() {
	r.lobby = nil
	for _, p := range r.metadata.world.processes {
		if p.session != nil && p.session.replica == r {
			p.hangUp()
		}
	}
}

// die ends the process. Another starts from its disk some time later: from a snapshot and the log behind it.
func (r *replica) die() {
	w, m := r.metadata.world, r.metadata
	w.trace("coordinator %d dies", r.number)
	if r.leads && r.term == m.term {
		m.electAt = w.step + w.rng.IntN(150)
		m.endReign()
	}
	r.leads, r.down, r.staleUntil = false, true, 0
	r.hangUp()
	w.faults.revivals = append(w.faults.revivals, revival{r, w.step + 1 + w.tail()})
}

// revive starts the process again.
func (r *replica) revive() {
	r.metadata.world.trace("coordinator %d starts", r.number)
	r.down = false
	r.rebuild(r.snapshot)
}

// tick lets a coordinator that leads see the time, and processes that are gone or silent.
func (r *replica) tick() {
	w := r.metadata.world
	r.coordinator.Tick(w.now)
	var gone []determinant.WorkerID
	for _, p := range w.processes {
		if p.id != 0 && (!p.alive || p.suspected) && p.detectAt <= w.step && !slices.Contains(r.dead, p.id) {
			gone = append(gone, p.id)
		}
	}
	if len(gone) == 0 {
		return
	}
	if w.chance(2) {
		gone = gone[:1]
	}
	w.trace("coordinator %d notices the death of %v", r.number, gone)
	r.coordinator.Dead(gone...)
}

// Propose implements cluster.Ledger. One who does not lead is not heard; one who leads no more and does not know it, either.
func (r *replica) Propose(e cluster.Entry) {
	m := r.metadata
	if !r.leads || r.term < m.term || e.Start != nil && m.world.opts.NoCheckpoints {
		return
	}
	m.proposals = append(m.proposals, proposal{e, r.term})
}

// Broadcast implements cluster.CoordinatorEnvironment.
func (r *replica) Broadcast(e cluster.Entry) {
	m, w := r.metadata, r.metadata.world
	if r == m.truth {
		m.follow(&e)
		return
	}
	r.index = e.Index
	if e.Decision != nil {
		r.dead = e.Decision.Dead
	}
	for _, p := range w.processes {
		if p.session != nil && p.session.replica == r {
			p.inbox = append(p.inbox, arrival{e, w.step + w.tail()})
		}
	}
	if e.Admit != nil {
		r.admitted(e.Admit)
	}
}

// Tell implements cluster.CoordinatorEnvironment: a message to a worker that has no session here is lost.
func (r *replica) Tell(to determinant.WorkerID, c cluster.Control) {
	w := r.metadata.world
	if !r.leads {
		return
	}
	if p := w.process(to); p != nil && p.session != nil && p.session.replica == r {
		w.orders = append(w.orders, &order{p.session, c, w.step + w.tail()})
	}
}

// Finished implements cluster.CoordinatorEnvironment.
func (r *replica) Finished(err error) {
	if r == r.metadata.truth {
		r.metadata.finished(err)
	}
}

// Waiting implements cluster.CoordinatorEnvironment.
func (r *replica) Waiting(why string) {
	if r.leads {
		r.waiting = why
		r.metadata.world.trace("coordinator %d waits: %s", r.number, why)
	}
}

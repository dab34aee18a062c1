package sim

import (
	"slices"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// session is a process's connection to a coordinator that leads, or thinks so. When it breaks, what is under way is lost; the
// process looks for a leader and registers again. Entries come in order, all else in any order.
type session struct {
	process *process
	replica *replica
	broken  bool
}

// arrival is an entry on its way to a worker.
type arrival struct {
	entry cluster.Entry
	ready int
}

// order is a control message from a coordinator on its way to a worker.
type order struct {
	session *session
	control cluster.Control
	ready   int
}

// notice is what a worker says to a coordinator, on its way: a report, or that it has joined.
type notice struct {
	session *session
	report  cluster.Report
	joined  bool
	held    []standby.Held
	again   bool // it had joined before
	ready   int
}

// connect looks for a coordinator that leads, and registers with it.
func (p *process) connect() {
	w := p.world
	if p.cutOffUntil > w.step || !w.chance(4) {
		return
	}
	var leaders []*replica
	for _, r := range w.metadata.replicas {
		if r.leads && r.running() {
			leaders = append(leaders, r)
		}
	}
	if len(leaders) == 0 {
		return
	}
	r := leaders[w.rng.IntN(len(leaders))]
	if p.id != 0 && slices.Contains(r.dead, p.id) {
		w.trace("worker %d hears from coordinator %d that it was declared dead", p.id, r.number)
		w.kill(p)
		return
	}
	p.session = &session{process: p, replica: r}
	if p.worker == nil {
		r.enroll(p)
		return
	}
	w.trace("worker %d registers with coordinator %d: it has applied %d entries of %d", p.id, r.number, p.index, r.index)
	for _, e := range w.metadata.effects[min(p.index, r.index):r.index] {
		p.inbox = append(p.inbox, arrival{e, w.step + w.tail()})
	}
	p.tellLeader(&notice{joined: true, held: p.worker.Register(), again: true})
}

// enroll gives a process that has no id yet a place in the ledger.
func (r *replica) enroll(p *process) {
	w := r.metadata.world
	r.lobby = append(r.lobby, p)
	view := r.coordinator.View()
	last := r.nextID
	for _, m := range view.Members {
		if m.Instance == p.instance {
			r.welcome(p, m.Worker, view)
			return
		}
		last = max(last, m.Worker)
	}
	for _, d := range view.Dead {
		last = max(last, d)
	}
	r.nextID = last + 1
	w.trace("coordinator %d admits %s as worker %d", r.number, p.instance, r.nextID)
	r.Propose(cluster.Entry{Admit: &cluster.Admit{Worker: r.nextID, Instance: p.instance}})
}

// admitted welcomes a process that waits for its id.
func (r *replica) admitted(a *cluster.Admit) {
	for _, p := range r.lobby {
		if p.instance == a.Instance && p.alive && p.worker == nil {
			r.welcome(p, a.Worker, r.coordinator.View())
			return
		}
	}
}

// welcome lets a process build its worker on what the ledger says now. It is sent every entry from now on.
func (r *replica) welcome(p *process, id determinant.WorkerID, view cluster.View) {
	r.lobby = slices.DeleteFunc(r.lobby, func(q *process) bool { return q == p })
	p.inbox = nil // the view has them
	if !p.open(id, carry(r.metadata.world, view)) {
		return
	}
	p.tellLeader(&notice{joined: true, held: p.worker.Holdings()})
}

// hangUp breaks the session from either end.
func (p *process) hangUp() {
	if p.session != nil {
		p.session.broken = true
		p.session, p.inbox = nil, nil
	}
}

// tellLeader sends a notice, if there is a session.
func (p *process) tellLeader(n *notice) {
	if p.session == nil {
		return
	}
	n.session, n.ready = p.session, p.world.step+p.world.tail()
	p.world.notices = append(p.world.notices, n)
}

// deliverOrders hands out control messages of coordinators; more of them when many are under way, lest they pile up.
func (w *World) deliverOrders() {
	for range 1 + len(w.orders)/16 {
		o := take(w, &w.orders, func(o *order) bool {
			return o.session.broken || o.ready <= w.step && o.session.process.pausedUntil <= w.step
		})
		if o == nil {
			return
		}
		if p := o.session.process; !o.session.broken && p.alive {
			p.worker.Control(carry(w, o.control))
		}
	}
}

// deliverNotices hands coordinators what workers say.
func (w *World) deliverNotices() {
	for range 1 + len(w.notices)/16 {
		n := take(w, &w.notices, func(n *notice) bool {
			return n.session.broken || n.ready <= w.step && n.session.replica.running()
		})
		if n == nil {
			return
		}
		if n.session.broken {
			continue
		}
		if n.joined {
			n.session.replica.join(n)
		} else {
			n.session.replica.coordinator.Report(carry(w, n.report))
		}
	}
}

// join takes a worker in. The first ones are waited for before the job is deployed.
func (r *replica) join(n *notice) {
	id := n.session.process.id
	r.coordinator.Join(id, n.held)
	if n.again {
		r.coordinator.Rejoin(id)
	}
	if !slices.Contains(r.joined, id) {
		r.joined = append(r.joined, id)
	}
	if len(r.joined) >= r.metadata.workers {
		r.coordinator.Deploy() // where it is deployed already, nothing comes of it
	}
}

package sim

import (
	"context"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// metadata is the ledger and the coordinator beside it. It implements cluster.Ledger and cluster.CoordinatorEnvironment.
type metadata struct {
	world       *World
	coordinator *cluster.Coordinator
	first       cluster.View
	entries     []cluster.Entry // committed, also those that came too late to take effect
	proposals   []cluster.Entry
	doubtful    bool // a proposal was lost: the coordinator must be told that it does not know
	rebuilding  bool
	lastWorker  determinant.WorkerID
	waiting     string

	// What took effect, for the checkers.
	places     []standby.Placement
	dead       []determinant.WorkerID
	generation determinant.Generation
	committed  []determinant.LogOffset // of the last completed checkpoint
	checkpoint determinant.Epoch
	saving     bool // a checkpoint is under way
}

func newMetadata(w *World) *metadata {
	splits := make([][]string, len(w.job.Plan.Vertices))
	for v := range w.job.Plan.Vertices {
		if list := w.job.Plan.Vertices[v].Source; list != nil {
			var err error
			if splits[v], err = list(context.Background()); err != nil {
				panic(err)
			}
		}
	}
	n := len(w.job.Tasks)
	m := &metadata{
		world: w, first: cluster.NewView(w.job, splits, w.opts.Mode, w.opts.Depth),
		places: make([]standby.Placement, n), committed: make([]determinant.LogOffset, n),
	}
	m.coordinator = m.newCoordinator()
	return m
}

func (m *metadata) newCoordinator() *cluster.Coordinator {
	w := m.world
	interval := w.plan.interval
	if w.opts.NoCheckpoints {
		interval = 0
	}
	return cluster.NewCoordinator(w.job, m.first, standby.State{Mode: w.opts.Mode, Depth: w.opts.Depth},
		checkpoint.NewState(len(w.job.Tasks), w.opts.Mode, w.opts.Depth), m, m, cluster.CoordinatorOptions{
			Mode: w.opts.Mode, Depth: w.opts.Depth, Standbys: w.plan.standbys, Interval: interval, Timeout: w.plan.timeout,
			Mutations: w.opts.Mutations,
		})
}

// Propose implements cluster.Ledger.
func (m *metadata) Propose(e cluster.Entry) {
	if m.rebuilding || e.Start != nil && m.world.opts.NoCheckpoints {
		return
	}
	m.proposals = append(m.proposals, e)
}

// commit decides the fate of a proposal: mostly the oldest is committed; some are lost, repeated, or overtaken.
func (m *metadata) commit() {
	w := m.world
	if m.doubtful && w.chance(20) {
		m.doubtful = false
		w.trace("the coordinator leads anew: it lost track of a proposal")
		m.coordinator.Lead()
	}
	if len(m.proposals) == 0 || w.chance(3) {
		return
	}
	i := 0
	if w.chance(20) {
		i = w.rng.IntN(len(m.proposals))
	}
	e := m.proposals[i]
	switch x := w.rng.IntN(100); {
	case x == 0 && w.faults.active():
		m.doubtful = true
		w.trace("lost: %v", e)
		m.proposals = slices.Delete(m.proposals, i, i+1)
		return
	case x > 2:
		m.proposals = slices.Delete(m.proposals, i, i+1)
	}
	m.entries = append(m.entries, e)
	m.coordinator.Committed(e)
}

// changeLeader has another coordinator take over. It knows what the ledger says; what is proposed may get in or not; what was
// told to the old one alone is told again when the workers register.
func (m *metadata) changeLeader() {
	w := m.world
	w.trace("the coordinator changes")
	m.proposals = slices.DeleteFunc(m.proposals, func(cluster.Entry) bool { return w.chance(2) })
	m.rebuilding = true
	m.coordinator = m.newCoordinator()
	for _, e := range m.entries {
		m.coordinator.Committed(e)
	}
	m.rebuilding = false
	m.coordinator.Lead()
	for _, p := range w.faults.sound() {
		m.coordinator.Join(p.id, p.worker.Register())
	}
	if m.places[0].Incarnation == 0 {
		m.coordinator.Deploy() // nobody knows that it was asked for
	}
}

// tick lets the coordinator see the time, and deaths.
func (m *metadata) tick() {
	w := m.world
	m.coordinator.Tick(w.now)
	m.notice()
}

// notice tells the coordinator of processes that are gone or silent.
func (m *metadata) notice() {
	var gone []determinant.WorkerID
	for _, p := range m.world.processes {
		if (!p.alive || p.suspected) && p.detectAt <= m.world.step && !slices.Contains(m.dead, p.id) {
			gone = append(gone, p.id)
		}
	}
	if len(gone) == 0 {
		return
	}
	if m.world.chance(2) {
		gone = gone[:1]
	}
	m.world.trace("the coordinator notices the death of %v", gone)
	m.coordinator.Dead(gone...)
}

// Broadcast implements cluster.CoordinatorEnvironment.
func (m *metadata) Broadcast(e cluster.Entry) {
	if m.rebuilding {
		return
	}
	w := m.world
	w.trace("entry %d: %v", e.Index, e)
	m.follow(&e)
	for _, p := range w.processes {
		if p.alive {
			p.inbox = append(p.inbox, arrival{e, w.step + w.tail()})
		}
	}
}

// follow keeps what the checkers need of the entries that took effect.
func (m *metadata) follow(e *cluster.Entry) {
	w := m.world
	switch {
	case e.Decision != nil:
		w.result.Decisions++
		if e.Decision.Generation > m.generation {
			w.result.Rollbacks++
			w.checks.rolledBack(e.Decision)
		}
		m.generation, m.dead = e.Decision.Generation, e.Decision.Dead
		m.places = clonePlaces(e.Decision.Tasks)
	case e.Assign != nil:
		p := &m.places[e.Assign.Task]
		p.Standbys = append(slices.Clone(p.Standbys), e.Assign.Worker)
	case e.Release != nil:
		p := &m.places[e.Release.Task]
		p.Standbys = slices.DeleteFunc(slices.Clone(p.Standbys), func(id determinant.WorkerID) bool { return id == e.Release.Worker })
	case e.Recover != nil:
		m.places[e.Recover.Task].Recovering = false
	case e.Start != nil:
		m.saving = true
	case e.Abandon != nil:
		m.saving = false
	case e.Complete != nil:
		m.saving = false
		w.result.Checkpoints++
		w.checks.completed(e.Complete)
		m.checkpoint = e.Complete.Epoch
		for _, t := range e.Complete.Tasks {
			m.committed[t.Task] = t.Log
		}
	}
}

func clonePlaces(places []standby.Placement) []standby.Placement {
	places = slices.Clone(places)
	for i := range places {
		places[i].Standbys = slices.Clone(places[i].Standbys)
	}
	return places
}

// Tell implements cluster.CoordinatorEnvironment.
func (m *metadata) Tell(to determinant.WorkerID, c cluster.Control) {
	if !m.rebuilding {
		m.world.control = append(m.world.control, &letter{to: to, control: c, ready: m.world.step + m.world.tail()})
	}
}

// Finished implements cluster.CoordinatorEnvironment.
func (m *metadata) Finished(err error) {
	if m.rebuilding {
		return
	}
	m.world.over, m.world.err = true, err
	m.world.trace("finished: %v", err)
	if err != nil {
		m.world.violate("job-failed", "%v", err)
	}
}

// Waiting implements cluster.CoordinatorEnvironment.
func (m *metadata) Waiting(why string) {
	if !m.rebuilding {
		m.waiting = why
		m.world.trace("waiting: %s", why)
	}
}

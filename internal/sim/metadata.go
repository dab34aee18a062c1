package sim

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/standby"
)

// metadata is the ledger: a log that all coordinators agree on, what is proposed to it, and what it says. At most one
// coordinator can get anything committed at a time; others may think that they can.
type metadata struct {
	world     *World
	first     replicated
	entries   []cluster.Entry // committed, also those that came too late to take effect
	proposals []proposal
	replicas  []*replica
	truth     *replica // follows at once and never leads: what the ledger says
	// coordinator is the one that leads, or led last.
	coordinator *cluster.Coordinator
	term        int  // of the newest leader
	electAt     int  // nobody is elected before this step
	deciding    bool // the leader is to change when a decision is next in flight
	workers     int  // the job begins when so many have joined

	// What took effect, for the checkers.
	effects    []cluster.Entry
	places     []standby.Placement
	dead       []determinant.WorkerID
	generation determinant.Generation
	committed  []determinant.LogOffset // of the last completed checkpoint
	checkpoint determinant.Epoch
	saving     bool // a checkpoint is under way
}

// proposal is an entry that a coordinator wants committed.
type proposal struct {
	entry cluster.Entry
	term  int // of the coordinator's reign
}

// replicated is a coordinator's share of the ledger's state, as a snapshot holds it.
type replicated struct {
	View     cluster.View
	Recovery standby.State
	Points   checkpoint.State
	applied  int
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
	w.growth.begun(splits)
	n := len(w.job.Tasks)
	m := &metadata{
		world: w,
		first: replicated{
			View:     cluster.NewView(w.job, splits, w.opts.Mode, w.opts.Depth),
			Recovery: standby.State{Mode: w.opts.Mode, Depth: w.opts.Depth},
			Points:   checkpoint.NewState(n, w.opts.Mode, w.opts.Depth),
		},
		places: make([]standby.Placement, n), committed: make([]determinant.LogOffset, n),
	}
	m.truth = &replica{metadata: m, number: -1}
	m.truth.rebuild(m.first)
	for i := range w.plan.coordinators {
		r := &replica{metadata: m, number: i}
		r.rebuild(m.first)
		m.replicas = append(m.replicas, r)
	}
	return m
}

// mutations are the rules that coordinator code goes without.
func (m *metadata) mutations(r *replica) mutation.Set {
	if r == m.truth {
		return m.world.opts.Mutations &^ mutation.PromotionWithoutCommit
	}
	return m.world.opts.Mutations
}

// leader is the coordinator that can get entries committed; nil if there is none.
func (m *metadata) leader() *replica {
	for _, r := range m.replicas {
		if r.leads && r.term == m.term && r.running() {
			return r
		}
	}
	return nil
}

// step lets the ledger go on: a leader is elected, an entry is committed, a coordinator applies what is.
func (m *metadata) step() {
	w := m.world
	if m.leader() == nil {
		m.elect()
	} else if len(m.proposals) > 0 && !w.chance(3) {
		m.commit()
	}
	for _, r := range m.replicas {
		if r.running() && (r == m.leader() && !w.chance(4) || w.chance(8)) {
			r.catchUp()
		}
	}
}

// elect makes a leader of a coordinator that runs, if a majority does. It has applied all that is committed before it leads.
func (m *metadata) elect() {
	w := m.world
	var running []*replica
	for _, r := range m.replicas {
		if r.running() && r.staleUntil <= w.step {
			running = append(running, r)
		}
	}
	if m.electAt > w.step || 2*len(running) <= len(m.replicas) {
		return
	}
	m.term++
	w.result.Elections++
	running[w.rng.IntN(len(running))].lead(m.term)
}

// commit decides the fate of a proposal: mostly the oldest is committed; some are lost, repeated, or overtaken.
func (m *metadata) commit() {
	w := m.world
	i := 0
	if w.chance(20) {
		i = w.rng.IntN(len(m.proposals))
	}
	p := m.proposals[i]
	if m.deciding && p.entry.Decision != nil {
		m.deciding = false
		w.trace("the leader goes while it decides")
		if w.chance(2) {
			m.depose()
			return
		}
		defer m.depose()
	}
	switch x := w.rng.IntN(100); {
	case x == 0 && w.faults.active():
		w.trace("lost: %v", p.entry)
		m.proposals = slices.Delete(m.proposals, i, i+1)
		if r := m.leader(); p.term == m.term {
			r.doubtful = true
		}
		return
	case x > 2:
		m.proposals = slices.Delete(m.proposals, i, i+1)
	}
	m.entries = append(m.entries, p.entry)
	m.truth.catchUp()
}

// depose ends a reign. The old leader may not know it for a while. What it has proposed may get in, late, or not.
func (m *metadata) depose() {
	w, r := m.world, m.leader()
	if r == nil {
		return
	}
	m.electAt = w.step + w.rng.IntN(150)
	m.endReign()
	if w.chance(2) {
		r.stepDown()
		return
	}
	r.staleUntil = w.step + w.rng.IntN(500)
	w.trace("coordinator %d leads no more and does not know it until %d", r.number, r.staleUntil)
}

// endReign makes way for another leader.
func (m *metadata) endReign() {
	m.term++
	m.proposals = slices.DeleteFunc(m.proposals, func(proposal) bool { return m.world.chance(2) })
}

// tick lets the coordinators see the time, and deaths. One that was deposed learns it at last.
func (m *metadata) tick() {
	for _, r := range m.replicas {
		switch {
		case !r.running() || !r.leads:
		case r.term < m.term && r.staleUntil <= m.world.step:
			r.stepDown()
		default:
			r.tick()
		}
	}
}

// follow keeps what the checkers need of the entries that took effect.
func (m *metadata) follow(e *cluster.Entry) {
	w := m.world
	w.trace("entry %d: %v", e.Index, e)
	m.effects = append(m.effects, *e)
	switch {
	case e.Decision != nil:
		w.result.Decisions++
		w.drains.decided(m.places, e.Decision)
		w.modes.decided(e.Decision)
		if e.Decision.Generation > m.generation {
			w.result.Rollbacks++
			w.checks.rolledBack(e.Decision)
		}
		m.generation, m.dead = e.Decision.Generation, e.Decision.Dead
		m.places = clonePlaces(e.Decision.Tasks)
	case e.Assign != nil, e.Release != nil, e.Recover != nil:
		before := m.places
		m.places = clonePlaces(m.truth.coordinator.View().Places)
		if e.Recover != nil && !m.saving {
			w.checks.moved = false
		}
		if r := e.Release; r != nil && len(m.places[r.Task].Standbys) < len(before[r.Task].Standbys) {
			w.result.Released++
		}
	case e.Start != nil:
		m.saving = true
		w.modes.started(e.Start)
		w.growth.started(e.Start.Epoch)
	case e.Abandon != nil:
		m.saving = false
		w.checks.abandoned(e.Abandon)
	case e.Aside != nil:
		w.result.Asides++
	case e.Grow != nil:
		w.growth.grown(e.Grow)
	case e.Admit != nil:
		m.admitted(e.Admit)
	case e.Complete != nil:
		m.saving = false
		w.result.Checkpoints++
		w.checks.completed(e.Complete)
		w.modes.completed(e.Complete)
		m.checkpoint = e.Complete.Epoch
		for _, t := range e.Complete.Tasks {
			m.committed[t.Task] = t.Log
		}
	}
}

// admitted gives a process its worker id.
func (m *metadata) admitted(a *cluster.Admit) {
	for _, p := range m.world.processes {
		if p.instance == a.Instance && p.id == 0 {
			p.id = a.Worker
		}
	}
}

// finished ends the run.
func (m *metadata) finished(err error) {
	m.world.over, m.world.err = true, err
	m.world.trace("finished: %v", err)
	if err != nil {
		m.world.violate("job-failed", "%v", err)
	}
}

// agree checks that a coordinator which has applied everything has come to what the ledger says.
func (m *metadata) agree(r *replica) {
	if r.applied < len(m.entries) || !m.world.chance(16) {
		return
	}
	is, should := r.state().text(), m.truth.state().text()
	if is == should {
		return
	}
	at := 0
	for at < min(len(is), len(should)) && is[at] == should[at] {
		at++
	}
	m.world.violate("replicas", "coordinator %d comes to another state after %d entries: …%.200s instead of …%.200s",
		r.number, r.applied, is[max(0, at-60):], should[max(0, at-60):])
}

// text is the state in a form in which nil and empty lists are the same.
func (s replicated) text() string {
	s.Points.Mutations = 0
	body, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return strings.ReplaceAll(string(body), "null", "[]")
}

func clonePlaces(places []standby.Placement) []standby.Placement {
	places = slices.Clone(places)
	for i := range places {
		places[i].Standbys = slices.Clone(places[i].Standbys)
	}
	return places
}

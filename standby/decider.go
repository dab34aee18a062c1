package standby

import (
	"cmp"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// Config is what a Decider knows of its job.
type Config struct {
	Topology *Topology
	Standbys int               // wanted for each task; 0 means 1, negative means none
	Mode     determinant.Mode  // of the first epoch
	Depth    determinant.Depth // of the first epoch; 0 means full
	// BalanceAfter is how long, in milliseconds, nothing may have gone wrong before tasks are moved from the worker that has
	// most to the one that has least, one at a time and with such a pause between. 0 means DefaultBalanceAfter, negative never.
	BalanceAfter int64
	Mutations    mutation.Set // for tests
}

// EnsureDefaults replaces zero values by defaults.
func (c *Config) EnsureDefaults() {
	if c.Standbys == 0 {
		c.Standbys = 1
	}
	c.Standbys = max(c.Standbys, 0)
	if c.Depth == 0 {
		c.Depth = determinant.Full
	}
	if c.BalanceAfter == 0 {
		c.BalanceAfter = DefaultBalanceAfter
	}
}

// Decider is the coordinator's side of every recovery: a pure state machine. One process leads and calls Step; the others
// call Apply alone, and the next leader begins with Step(Leader{}).
//
// The caller hands every committed command back as Committed, whoever proposed it, and says Leader when it does not know
// what became of a proposal. Deaths that are reported while a decision is in flight go into the next one.
type Decider struct {
	config Config
	state  State // changed by Apply alone

	// What follows is volatile. A new leader begins without it and hears it again.
	deploy   bool
	joined   []determinant.WorkerID // sorted
	suspects []determinant.WorkerID // reported dead, not yet declared dead; sorted
	failed   []TaskFailed           // of current incarnations, by task, one each
	wanted   *RollbackWanted        // the first of a current incarnation; one is enough
	caught   []determinant.Incarnation
	reported [][]report               // by task, sorted by worker
	said     [][]determinant.WorkerID // by task; who has said that it holds its state, at whatever checkpoint, since it became a standby
	unkept   []Unkept                 // standbys that cannot store the state; one per worker and task

	wishes  []Drain       // not in the ledger yet; one per worker, by worker
	drains  []DrainStatus // by worker
	balance balance
	time    time
	wanting determinant.Epoch // a checkpoint after this one was asked for, plus one; 0: none

	deciding    *Decision // in flight. Invariant: nil while inFlight is not empty
	inFlight    []Command // all others in flight
	unprotected []determinant.TaskID
	history     history
}

// report is the newest epoch at which a worker said that it holds a task's state.
type report struct {
	worker determinant.WorkerID
	epoch  determinant.Epoch
}

// NewDecider gives a Decider in state s: the zero State for a job that was never deployed, or what State gave, or
// placements that somebody else chose.
func NewDecider(c Config, s State) *Decider {
	c.EnsureDefaults()
	d := &Decider{
		config:   c,
		state:    s.clone(),
		caught:   make([]determinant.Incarnation, c.Topology.Tasks),
		reported: make([][]report, c.Topology.Tasks),
		said:     make([][]determinant.WorkerID, c.Topology.Tasks),
	}
	for id := len(s.Tasks); id < c.Topology.Tasks; id++ {
		d.state.Tasks = append(d.state.Tasks, Placement{Task: determinant.TaskID(id)})
	}
	if s.Depth == 0 {
		d.state.Mode, d.state.Depth = c.Mode, c.Depth
	}
	return d
}

// State gives a copy of the replicated state.
func (d *Decider) State() State { return d.state.clone() }

// Task gives the present placement of a task. The caller must not change its slice.
func (d *Decider) Task(id determinant.TaskID) Placement { return d.state.Tasks[id] }

// Current gives the present state in the form of a decision, for a worker that joins, or to repeat the newest decision:
// round and generation as last decided, incarnations, standbys and who is recovering as of now. Rollback is false; a
// worker of a lower generation knows by that (see Decision.Generation).
func (d *Decider) Current() Decision {
	s := d.state.clone()
	return Decision{
		Round: s.Round, Generation: s.Generation, Checkpoint: s.Checkpoint, RollbackTo: s.RollbackTo,
		Dead: s.Dead, Hear: s.Hear, Tasks: s.Tasks, Collect: s.Mode.Logs(), Mode: s.Mode, Depth: s.Depth,
		Cause: "current state", Basis: s.Version,
	}
}

// Live lists the workers that count as alive, sorted: those that the newest decision hears, those that have a place or are
// drained of theirs, and those that have joined since, without those reported dead. A new leader watches all of them.
func (d *Decider) Live() []determinant.WorkerID {
	live := with(d.state.Hear, d.joined)
	for _, l := range d.state.Draining {
		live = insert(live, l.Worker)
	}
	for _, p := range d.state.Tasks {
		for _, w := range p.Standbys {
			live = insert(live, w)
		}
		if p.Worker != 0 {
			live = insert(live, p.Worker)
		}
	}
	return without(without(live, d.state.Dead), d.suspects)
}

// Unprotected lists the tasks that have fewer standbys than wanted, without those that cannot store their state, and nobody to be
// one. The caller must not change it.
func (d *Decider) Unprotected() []determinant.TaskID { return d.unprotected }

// Step takes one event in and gives what follows from it.
func (d *Decider) Step(ev Event) []Effect {
	var out []Effect
	switch ev := ev.(type) {
	case Deploy:
		d.deploy = true
	case Joined:
		d.onJoined(ev)
	case Dead:
		d.suspects = with(d.suspects, without(ev.Workers, d.state.Dead))
	case TaskFailed:
		d.onTaskFailed(ev)
	case RollbackWanted:
		if d.current(ev.Task, ev.Incarnation) && d.wanted == nil {
			d.wanted = &ev
		}
	case CaughtUp:
		if d.current(ev.Task, ev.Incarnation) {
			d.caught[ev.Task] = ev.Incarnation
		}
	case Holding:
		d.onHolding(ev.Worker, Held{Task: ev.Task, Epoch: ev.Epoch})
	case Unkept:
		d.onUnkept(ev)
	case Drain:
		d.onDrain(ev)
	case Tick:
		if !d.time.tick(ev.Now, d.config.BalanceAfter) {
			return nil
		}
	case Checkpoint:
		return d.Step(Committed{Command: ev})
	case Committed:
		out = d.onCommitted(ev.Command)
	case Leader:
		d.deciding, d.inFlight, d.unprotected = nil, nil, nil
		d.drains, d.balance, d.time, d.wanting, d.unkept = nil, balance{}, time{}, 0, nil
		out = d.waits()
	}
	return append(out, d.advance()...)
}

// current tells whether inc is the incarnation of a deployed task.
func (d *Decider) current(t determinant.TaskID, inc determinant.Incarnation) bool {
	return int(t) < len(d.state.Tasks) && inc > 0 && d.state.Tasks[t].Incarnation == inc
}

func (d *Decider) onJoined(ev Joined) {
	if slices.Contains(d.state.Dead, ev.Worker) || slices.Contains(d.suspects, ev.Worker) {
		return
	}
	d.joined = with(d.joined, []determinant.WorkerID{ev.Worker})
	d.balance.spread = 0
	for _, h := range ev.Holds {
		d.onHolding(ev.Worker, h)
	}
}

func (d *Decider) onHolding(w determinant.WorkerID, h Held) {
	if int(h.Task) >= len(d.reported) || slices.Contains(d.state.Dead, w) {
		return
	}
	d.said[h.Task] = insert(d.said[h.Task], w)
	if h.Epoch < d.state.Checkpoint {
		return
	}
	held := d.reported[h.Task]
	at, found := slices.BinarySearchFunc(held, w, func(r report, w determinant.WorkerID) int {
		return cmp.Compare(r.worker, w)
	})
	if !found {
		d.reported[h.Task] = slices.Insert(held, at, report{w, h.Epoch})
	} else {
		held[at].epoch = max(held[at].epoch, h.Epoch)
	}
}

func (d *Decider) onUnkept(ev Unkept) {
	d.unkept = slices.DeleteFunc(d.unkept, func(u Unkept) bool { return u.Worker == ev.Worker && u.Task == ev.Task })
	if !ev.Off && !slices.Contains(d.state.Dead, ev.Worker) {
		d.unkept = append(d.unkept, ev)
	}
}

// keeps tells whether a worker can store a task's state, as far as it is known.
func (d *Decider) keeps(w determinant.WorkerID, t determinant.TaskID) bool {
	return !slices.Contains(d.unkept, Unkept{Worker: w, Task: t})
}

func (d *Decider) onTaskFailed(ev TaskFailed) {
	if !d.current(ev.Task, ev.Incarnation) || d.state.Tasks[ev.Task].Worker != ev.Worker {
		return
	}
	at, found := slices.BinarySearchFunc(d.failed, ev.Task, func(f TaskFailed, t determinant.TaskID) int {
		return cmp.Compare(f.Task, t)
	})
	if !found {
		d.failed = slices.Insert(d.failed, at, ev)
	}
}

// onCommitted applies a command and forgets what it settles.
func (d *Decider) onCommitted(c Command) []Effect {
	accepted := d.Apply(c)
	switch c := c.(type) {
	case Decision:
		// One of another leader that took effect dooms ours: its basis is gone.
		if d.deciding != nil && (accepted || d.deciding.Basis == c.Basis) {
			d.deciding = nil
		}
		if accepted {
			d.settle()
			return d.waits()
		}
	case AssignStandby, ReleaseStandby, SetDraining, Recovered:
		if a, ok := c.(AssignStandby); ok && accepted {
			d.said[a.Task] = without(d.said[a.Task], []determinant.WorkerID{a.Worker})
		}
		d.inFlight = slices.DeleteFunc(d.inFlight, func(f Command) bool { return f == c })
	case Checkpoint:
		for t := range d.reported {
			d.reported[t] = slices.DeleteFunc(d.reported[t], func(r report) bool { return r.epoch < d.state.Checkpoint })
		}
	}
	return nil
}

// settle drops the reports that the newest decision answers.
func (d *Decider) settle() {
	dead := d.state.Dead
	d.suspects = without(d.suspects, dead)
	d.joined = without(d.joined, dead)
	d.unkept = slices.DeleteFunc(d.unkept, func(u Unkept) bool { return slices.Contains(dead, u.Worker) })
	d.failed = slices.DeleteFunc(d.failed, func(f TaskFailed) bool { return !d.current(f.Task, f.Incarnation) })
	if d.wanted != nil && !d.current(d.wanted.Task, d.wanted.Incarnation) {
		d.wanted = nil
	}
	for t := range d.reported {
		d.reported[t] = slices.DeleteFunc(d.reported[t], func(r report) bool { return slices.Contains(dead, r.worker) })
	}
	if !slices.ContainsFunc(d.state.Tasks, func(p Placement) bool { return p.Incarnation == 0 }) {
		d.deploy = false
	}
}

// waits says which tasks have no place.
func (d *Decider) waits() []Effect {
	var out []Effect
	for _, p := range d.state.Tasks {
		if p.Incarnation > 0 && p.Worker == 0 {
			out = append(out, Wait{Task: p.Task, Why: d.whyWait()})
		}
	}
	return out
}

func (d *Decider) whyWait() string {
	if len(d.Live()) == 0 {
		return "no worker is alive"
	}
	return "no live worker has its state of the committed checkpoint"
}

// nextStandby picks a standby for a task, before all of those who can store its state; 0 if there is nobody.
func (d *Decider) nextStandby(p Placement, candidates []determinant.WorkerID, s *spread) determinant.WorkerID {
	of := func(w determinant.WorkerID) rank { return s.rank(p, w) }
	able := slices.DeleteFunc(slices.Clone(candidates), func(w determinant.WorkerID) bool { return !d.keeps(w, p.Task) })
	if w := leastBy(able, of); w != 0 {
		return w
	}
	return leastBy(candidates, of)
}

// advance proposes what is due. A decision goes alone: what else is in flight would take its basis away.
func (d *Decider) advance() []Effect {
	out := append(d.moveForBalance(), d.watchDrains()...)
	switch {
	case d.deciding != nil:
	case !d.due():
		out = append(out, d.proposeDraining()...)
		out = append(out, d.proposeRecovered()...)
		out = append(out, d.proposeStandbys()...)
		out = append(out, d.proposeReleases()...)
		out = append(out, d.spreadStandbys()...)
	case len(d.inFlight) == 0:
		next := d.plan()
		d.deciding = &next
		d.history.add("proposed %v", next)
		out = append(out, Propose{Command: next})
	}
	return out
}

// due tells whether anything calls for a decision.
func (d *Decider) due() bool {
	if len(d.suspects) > 0 || len(d.failed) > 0 || d.wanted != nil {
		return true
	}
	live, usable := d.Live(), d.usable()
	for _, p := range d.state.Tasks {
		switch {
		case p.Incarnation == 0 && d.deploy && len(usable) > 0:
			return true
		case p.Incarnation > 0 && p.Worker == 0 && slices.ContainsFunc(live, func(w determinant.WorkerID) bool { return d.holds(w, p.Task) }):
			return true
		}
	}
	return len(d.handOvers()) > 0
}

// holds tells whether worker w has the committed state of task t. Everyone has the empty state.
func (d *Decider) holds(w determinant.WorkerID, t determinant.TaskID) bool {
	if d.state.Checkpoint == 0 {
		return true
	}
	if int(t) < len(d.state.Holders) && slices.Contains(d.state.Holders[t], w) {
		return true
	}
	return slices.Contains(d.reported[t], report{w, d.state.Checkpoint})
}

// propose puts a small command in flight, unless it is there.
func (d *Decider) propose(c Command) []Effect {
	if slices.Contains(d.inFlight, c) {
		return nil
	}
	d.inFlight = append(d.inFlight, c)
	return []Effect{Propose{Command: c}}
}

func (d *Decider) proposeRecovered() []Effect {
	var out []Effect
	for t, p := range d.state.Tasks {
		if p.Recovering && p.Worker != 0 && d.caught[t] == p.Incarnation {
			out = append(out, d.propose(Recovered{Task: p.Task, Incarnation: p.Incarnation})...)
		}
	}
	return out
}

// proposeStandbys replaces standbys that are missing, each where it makes the spread most even, and says when it cannot. Those on
// draining workers do not count: they are to go. Nor do those that cannot store the state: they stay beside the new one, and if they
// can again, proposeReleases finds one too many.
func (d *Decider) proposeStandbys() []Effect {
	var out []Effect
	var unprotected []determinant.TaskID
	usable := d.usable()
	var spread *spread                                          // counted when somebody needs it
	taken := make([][]determinant.WorkerID, len(d.state.Tasks)) // primary, standbys and those in flight
	lasting := make([]int, len(d.state.Tasks))                  // standbys that are not to go
	for t, p := range d.state.Tasks {
		taken[t] = append(slices.Clone(p.Standbys), p.Worker)
		for _, w := range p.Standbys {
			if !d.state.drains(w) && d.keeps(w, p.Task) {
				lasting[t]++
			}
		}
	}
	for _, c := range d.inFlight {
		if a, ok := c.(AssignStandby); ok {
			taken[a.Task] = append(taken[a.Task], a.Worker)
			lasting[a.Task]++
		}
	}
	assign := func(p Placement, w determinant.WorkerID) {
		taken[p.Task] = append(taken[p.Task], w)
		lasting[p.Task]++
		if spread != nil {
			spread.add(p, w, 1)
		}
		out = append(out, d.propose(AssignStandby{Task: p.Task, Incarnation: p.Incarnation, Worker: w})...)
	}
	if m := d.balance.move; m != nil && !slices.Contains(taken[m.task], m.to) {
		assign(d.state.Tasks[m.task], m.to)
	}
	for t, p := range d.state.Tasks {
		for p.Worker != 0 && lasting[t] < d.standbysOf(p) {
			if spread == nil {
				spread = d.spread()
			}
			w := d.nextStandby(p, without(usable, taken[t]), spread)
			if w == 0 {
				kept := slices.DeleteFunc(slices.Clone(taken[t]), func(w determinant.WorkerID) bool { return !d.keeps(w, p.Task) })
				if len(kept) <= d.config.Standbys {
					unprotected = append(unprotected, p.Task)
				}
				break
			}
			assign(p, w)
		}
	}
	if !slices.Equal(unprotected, d.unprotected) {
		d.unprotected = unprotected
		out = append(out, Unprotected{Tasks: unprotected})
	}
	return out
}

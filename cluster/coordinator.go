package cluster

import (
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

// Defaults of CoordinatorOptions.
const (
	DefaultPoisonTries = 3
	maxUnstored        = 3 // images in a row that a worker could not store
	maxFailures        = 5 // of one task between two completed checkpoints, by errors that are not its user's
)

// Ledger is what holds the job's metadata: one agreed order of entries.
type Ledger interface {
	// Propose wants e committed. What is committed comes back through Coordinator.Committed, in order, at every coordinator;
	// a proposal may be lost.
	Propose(e Entry)
}

// CoordinatorEnvironment is the world of a coordinator.
type CoordinatorEnvironment interface {
	// Broadcast delivers an entry to every worker, in order.
	Broadcast(e Entry)
	// Tell delivers a control message to one worker.
	Tell(to determinant.WorkerID, m Control)
	// Finished says that the job is over; err is nil if all input was processed.
	Finished(err error)
	// Waiting says why something does not go on, for people; empty when it goes on.
	Waiting(why string)
	// Discover has the splits of a source that grows listed again, which may take long, and gives the answer to
	// Coordinator.Discovered. known are the splits that it has; they must not be written to. One call per source is under way.
	Discover(vertex int, known []string)
}

// CoordinatorOptions say how a coordinator decides.
type CoordinatorOptions struct {
	Mode        determinant.Mode
	Depth       determinant.Depth
	Standbys    int   // per task; negative means none
	Interval    int64 // of checkpoints, milliseconds
	Timeout     int64 // of a checkpoint, milliseconds
	PoisonTries int   // identical failures of a record before the poison policy applies
	SetAside    bool  // the policy: set the record aside; otherwise stop
	// BalanceAfter is how long, in milliseconds, nothing may have gone wrong before tasks move to workers that have fewer, and
	// the pause between two of them. 0 means standby.DefaultBalanceAfter, negative never.
	BalanceAfter int64
	Mutations    mutation.Set
}

// Coordinator decides about checkpoints and deaths. It belongs to one goroutine. Its replicated state changes only by
// Committed; the rest it learns again after a change of leader.
type Coordinator struct {
	job     *Job
	opts    CoordinatorOptions
	ledger  Ledger
	env     CoordinatorEnvironment
	decider *standby.Decider
	points  *checkpoint.Coordinator
	view    View

	holds      []map[determinant.WorkerID]determinant.Epoch // by task: committed state that workers reported
	poisons    []poisoned                                   // by task
	failures   []int                                        // by task
	ended      []determinant.Incarnation                    // by task; the life that has ended its outputs, 0: none
	shown      []determinant.Epoch                          // by task; what a transactional sink has made visible
	last       determinant.Epoch                            // the job's last checkpoint, once it is complete; 0: not yet
	unstored   map[imageKeeper]unstored
	divergence int
	finished   bool
	failed     bool // it was finished by an error
	now        int64
	pace       pace
	wanted     bool // a hand-over waits for a checkpoint that was not asked for
	stall      stall
	said       string // to env.Waiting

	discoveries []discovery // by vertex
}

// poisoned counts identical failures on a record.
type poisoned struct {
	last  *task.Poison
	tries int
}

// NewCoordinator returns the coordinator of a job that the ledger knows as v.
func NewCoordinator(job *Job, v View, recovery standby.State, points checkpoint.State, ledger Ledger, env CoordinatorEnvironment, o CoordinatorOptions) *Coordinator {
	if o.PoisonTries == 0 {
		o.PoisonTries = DefaultPoisonTries
	}
	c := &Coordinator{
		job: job, opts: o, ledger: ledger, env: env, view: v.clone(),
		holds:    make([]map[determinant.WorkerID]determinant.Epoch, len(job.Tasks)),
		poisons:  make([]poisoned, len(job.Tasks)),
		failures: make([]int, len(job.Tasks)),
		ended:    make([]determinant.Incarnation, len(job.Tasks)),
		shown:    make([]determinant.Epoch, len(job.Tasks)),
	}
	c.discoveries = make([]discovery, len(job.Plan.Vertices))
	c.unstored = map[imageKeeper]unstored{}
	for t := range c.holds {
		c.holds[t] = map[determinant.WorkerID]determinant.Epoch{}
	}
	c.decider = standby.NewDecider(standby.Config{
		Topology: job.Topology, Standbys: o.Standbys, Mode: o.Mode, Depth: o.Depth, BalanceAfter: o.BalanceAfter,
		Mutations: o.Mutations,
	}, recovery)
	c.points = checkpoint.NewCoordinator(checkpoint.Config{
		Sources: job.sources(), Interval: o.Interval, Timeout: o.Timeout, Mutations: o.Mutations,
	}, points)
	c.placed() // not only when it leads: what both say of incarnations is the same at every replica
	return c
}

// View is what the ledger says, for a worker that joins: it gets every entry after View().Index.
func (c *Coordinator) View() View { return c.view.clone() }

// Replicated is what every coordinator that has applied the same entries holds alike: all that NewCoordinator needs to make
// another.
func (c *Coordinator) Replicated() (View, standby.State, checkpoint.State) {
	return c.view.clone(), c.decider.State(), c.points.State()
}

// Lead begins to act on what happens.
func (c *Coordinator) Lead() {
	clear(c.discoveries)
	c.recovery(standby.Leader{})
	c.checkpoints(checkpoint.Leader{})
	c.placed()
}

// Join takes a worker in, with the committed state that its directory holds.
func (c *Coordinator) Join(w determinant.WorkerID, held []standby.Held) {
	for _, h := range held {
		c.holds[h.Task][w] = h.Epoch
	}
	c.recovery(standby.Joined{Worker: w, Holds: held})
}

// Deploy gives every task its first place among the workers that have joined.
func (c *Coordinator) Deploy() { c.recovery(standby.Deploy{}) }

// Dead declares workers dead.
func (c *Coordinator) Dead(workers ...determinant.WorkerID) {
	c.recovery(standby.Dead{Workers: slices.Sorted(slices.Values(workers))})
}

// Rejoin tells a worker that was away, and the leader with it, what may have been lost meanwhile: its acknowledgements of the
// checkpoint under way.
func (c *Coordinator) Rejoin(w determinant.WorkerID) {
	if s := c.points.State(); s.Open {
		c.env.Tell(w, Control{Poll: &checkpoint.Poll{Epoch: s.Started()}})
	}
}

// Tick tells the time, in milliseconds since the Unix epoch. It is called several times per checkpoint interval.
func (c *Coordinator) Tick(now int64) {
	c.now = now
	if c.opts.Interval > 0 && c.pace.due(now, standby.AnyRecovering(c.view.Places)) {
		c.checkpoints(checkpoint.Request{})
	}
	c.checkpoints(checkpoint.Tick{Now: now})
	c.recovery(standby.Tick{Now: now})
	c.ask()
	c.discover()
	c.watch()
}

// Report takes what a worker says.
func (c *Coordinator) Report(r Report) {
	switch {
	case r.Ack != nil:
		c.imageStored(r.Ack)
		c.checkpoints(*r.Ack)
	case r.AckFailed != nil:
		c.imageFailed(r.AckFailed)
	case r.Failed != nil:
		c.taskFailed(r.Failed)
	case r.Rollback != nil:
		c.recovery(*r.Rollback)
	case r.CaughtUp != nil:
		c.recovery(*r.CaughtUp)
	case r.Holding != nil:
		c.holds[r.Holding.Task][r.Holding.Worker] = r.Holding.Epoch
		c.recovery(*r.Holding)
		c.placed()
	case r.Ended != nil:
		c.taskEnded(r.Ended)
	case r.Shown != nil:
		c.shown[r.Shown.Task] = max(c.shown[r.Shown.Task], r.Shown.Epoch)
		c.end()
	case r.Checkpoint:
		c.checkpoints(checkpoint.Request{})
	}
}

// taskEnded asks for the job's last checkpoint when every task has ended in its present life.
func (c *Coordinator) taskEnded(e *Ended) {
	c.ended[e.Task] = e.Incarnation
	for t, p := range c.view.Places {
		if c.ended[t] != p.Incarnation {
			return
		}
	}
	c.checkpoints(checkpoint.Request{})
}

// checkpointDone takes word that the job's last checkpoint is complete.
func (c *Coordinator) checkpointDone(e determinant.Epoch) {
	c.last = e
	c.end()
}

// end ends the job when its last checkpoint is complete and the last output can be seen.
//
// Invariant: a job is over only when its transactional sinks have committed all that they had prepared: nobody would do it after.
func (c *Coordinator) end() {
	if c.last == 0 || c.finished {
		return
	}
	for t, spec := range c.job.Tasks {
		if spec.Transactional && c.shown[t] < c.last && !c.opts.Mutations.Has(mutation.FinishBeforeCommit) {
			c.waiting(fmt.Sprintf("task %d has still to commit its last output", t))
			return
		}
	}
	c.ledger.Propose(Entry{Finish: &Finish{Epoch: c.last}})
}

// ask asks for the checkpoint that a hand-over waits for, unless one comes soon anyway: while failures are frequent, each that comes between costs the
// partitions more than the hand-over gains.
func (c *Coordinator) ask() {
	if c.wanted && (c.opts.Interval == 0 || !c.pace.soon(c.now)) {
		c.wanted = false
		c.checkpoints(checkpoint.Request{})
	}
}

// recovery gives the decider an event and carries out what follows.
func (c *Coordinator) recovery(ev standby.Event) { c.carryOut(c.decider.Step(ev)) }

func (c *Coordinator) carryOut(effects []standby.Effect) {
	for _, effect := range effects {
		switch e := effect.(type) {
		case standby.Propose:
			c.ledger.Propose(recoveryEntry(e.Command))
			if d, ok := e.Command.(standby.Decision); ok && c.opts.Mutations.Has(mutation.PromotionWithoutCommit) {
				c.env.Broadcast(Entry{Index: c.view.Index + 1, Decision: &d})
			}
		case standby.Wait:
			c.waiting(fmt.Sprintf("task %d waits: %s", e.Task, e.Why))
		case standby.Unprotected:
			if len(e.Tasks) > 0 {
				c.waiting(fmt.Sprintf("tasks %v have no standby: there is no worker for one", e.Tasks))
			}
		case standby.WantCheckpoint:
			c.wanted = true
			c.ask()
		case standby.DrainWaits:
			c.waiting(e.String())
		case standby.Drained:
			c.waiting("")
		}
	}
}

func recoveryEntry(cmd standby.Command) Entry {
	switch cmd := cmd.(type) {
	case standby.Decision:
		return Entry{Decision: &cmd}
	case standby.AssignStandby:
		return Entry{Assign: &cmd}
	case standby.ReleaseStandby:
		return Entry{Release: &cmd}
	case standby.SetDraining:
		return Entry{Drain: &cmd}
	case standby.Recovered:
		return Entry{Recover: &cmd}
	}
	panic(fmt.Sprintf("cluster: assertion failed: %T is never proposed", cmd))
}

func (c *Coordinator) checkpoints(ev checkpoint.Event) { c.carryOutPoints(c.points.Step(ev)) }

func (c *Coordinator) carryOutPoints(effects []checkpoint.Effect) {
	for _, effect := range effects {
		switch e := effect.(type) {
		case checkpoint.Propose:
			c.ledger.Propose(checkpointEntry(e.Command))
		case checkpoint.Trigger:
			if w := c.view.Places[e.Task].Worker; w != 0 {
				c.env.Tell(w, Control{Trigger: &e})
			}
		case checkpoint.Poll:
			for _, w := range c.decider.Live() {
				c.env.Tell(w, Control{Poll: &e})
			}
		case checkpoint.Done:
			c.checkpointDone(e.Epoch)
		}
	}
}

func checkpointEntry(cmd checkpoint.Command) Entry {
	switch cmd := cmd.(type) {
	case checkpoint.Start:
		return Entry{Start: &cmd}
	case checkpoint.Complete:
		return Entry{Complete: &cmd}
	case checkpoint.Abandon:
		return Entry{Abandon: &cmd}
	case checkpoint.Switch:
		return Entry{Switch: &cmd}
	}
	panic(fmt.Sprintf("cluster: assertion failed: %T is never proposed", cmd))
}

// Committed takes the ledger's next entry. One that came too late to take effect is refused by every replica alike and is
// not passed on to workers.
func (c *Coordinator) Committed(e Entry) {
	if c.finished {
		return
	}
	switch {
	case e.Decision != nil:
		c.decided(e)
	case e.Assign != nil:
		c.applyRecovery(e, *e.Assign)
	case e.Release != nil:
		c.applyRecovery(e, *e.Release)
	case e.Drain != nil:
		c.applyRecovery(e, *e.Drain)
	case e.Recover != nil:
		c.applyRecovery(e, *e.Recover)
	case e.Start != nil:
		c.pointed(e, *e.Start)
	case e.Complete != nil:
		c.pointed(e, *e.Complete)
	case e.Abandon != nil:
		c.pointed(e, *e.Abandon)
	case e.Switch != nil:
		c.checkpoints(checkpoint.Committed{Command: *e.Switch}) // workers hear of it with the start that it leads to
	case e.Configure != nil:
		c.configured(*e.Configure)
	case e.Aside != nil:
		if !c.view.isAside(e.Aside) {
			c.poisons[e.Aside.Task] = poisoned{} // lives that began before do not count as ones that failed all the same
			c.view.setAside(*e.Aside)
			c.announce(e)
		}
	case e.Admit != nil:
		if c.view.admit(*e.Admit) {
			c.announce(e)
		}
	case e.Grow != nil:
		c.grown(e)
	case e.Finish != nil:
		c.finished = true
		c.announce(e)
		c.failed = e.Finish.Err != ""
		c.env.Finished(e.Finish.error())
	}
}

func (c *Coordinator) announce(e Entry) {
	c.view.Index++
	e.Index = c.view.Index
	c.env.Broadcast(e)
}

func (c *Coordinator) decided(e Entry) {
	version := c.decider.Current().Basis
	effects := c.decider.Step(standby.Committed{Command: *e.Decision})
	if c.decider.Current().Basis != version {
		changed := c.view.place(e.Decision)
		if slices.ContainsFunc(changed, func(t determinant.TaskID) bool { return failedLife(&e.Decision.Tasks[t]) }) {
			c.failedNow()
		}
		for t := range c.holds {
			for _, w := range e.Decision.Dead {
				delete(c.holds[t], w)
			}
		}
		if !slices.ContainsFunc(e.Decision.Tasks, func(p standby.Placement) bool { return p.Worker == 0 }) {
			c.waiting("")
		}
		c.announce(e)
		c.placed()
	}
	c.carryOut(effects)
}

func (c *Coordinator) applyRecovery(e Entry, cmd standby.Command) {
	version := c.decider.Current().Basis
	effects := c.decider.Step(standby.Committed{Command: cmd})
	if c.decider.Current().Basis != version {
		c.view.Places = c.decider.Current().Tasks
		c.announce(e)
		c.placed()
	}
	c.carryOut(effects)
}

// pointed takes a committed command about checkpoints and tells the decider what it means for recovery.
func (c *Coordinator) pointed(e Entry, cmd checkpoint.Command) {
	before := c.points.State()
	effects := c.points.Step(checkpoint.Committed{Command: cmd})
	after := c.points.State()
	if after.Committed == before.Committed && len(after.Since) == len(before.Since) && after.Open == before.Open {
		c.carryOutPoints(effects)
		return
	}
	news := standby.Checkpoint{Committed: after.Committed, Since: c.since(&after)}
	switch {
	case e.Start != nil:
		c.view.started(e.Start)
		c.pace.start(c.now)
		c.wanted = false
	case e.Abandon != nil:
		c.pace.started = 0
	}
	if e.Complete != nil {
		c.pace.complete(c.now)
		c.stall = stall{}
		c.view.completed(e.Complete)
		for _, t := range e.Complete.Tasks {
			news.Holders = append(news.Holders, t.Holders)
			for _, w := range t.Holders {
				c.holds[t.Task][w] = e.Complete.Epoch
			}
		}
		clear(c.failures)
		c.waiting("")
	}
	if c.opts.Mutations.Has(mutation.TriggerBeforeEntry) {
		c.carryOutPoints(effects)
		effects = nil
	}
	c.announce(e)
	c.carryOutPoints(effects) // behind the entry: a source passes no barrier before its worker knows what it opens
	c.recovery(standby.Committed{Command: news})
	c.placed()
}

// placed tells the checkpoint coordinator where tasks are and which standbys must acknowledge.
func (c *Coordinator) placed() {
	p := checkpoint.Placed{}
	for t, place := range c.decider.Current().Tasks {
		id := determinant.TaskID(t)
		p.Incarnations = append(p.Incarnations, place.Incarnation)
		p.Recovering = append(p.Recovering, place.Recovering)
		p.Handed = append(p.Handed, place.From != 0)
		var ready []determinant.WorkerID
		for _, w := range place.Standbys {
			if epoch, known := c.holds[t][w]; known && epoch == c.view.committed() && c.stores(w, id) {
				ready = append(ready, w)
			}
		}
		p.Standbys = append(p.Standbys, ready)
	}
	c.checkpoints(p)
}

// taskFailed applies the policies for user code that fails, and otherwise has the task recovered.
func (c *Coordinator) taskFailed(f *TaskFailure) {
	p := c.view.Places[f.Task]
	if c.finished || f.Incarnation != p.Incarnation || f.Worker != p.Worker {
		return
	}
	if err := c.fatal(f); err != nil {
		c.ledger.Propose(Entry{Finish: &Finish{Epoch: c.view.committed(), Err: err.Error()}})
		return
	}
	if errors.Is(f.Err, causal.ErrDivergence) {
		c.recovery(standby.RollbackWanted{Task: f.Task, Incarnation: f.Incarnation, Cause: f.Err.Error()})
		return
	}
	c.recovery(standby.TaskFailed{Task: f.Task, Incarnation: f.Incarnation, Worker: f.Worker, Cause: f.Err.Error()})
}

// fatal tells whether a failure ends the job.
func (c *Coordinator) fatal(f *TaskFailure) error {
	var poison *task.Poison
	switch {
	case errors.Is(f.Err, ErrKilled), errors.Is(f.Err, task.ErrReopened):
		return nil
	case errors.Is(f.Err, task.ErrUnskippable), errors.Is(f.Err, operator.ErrPermanent):
		return f.Err
	case errors.Is(f.Err, causal.ErrDivergence):
		if c.divergence++; c.divergence > 1 {
			return fmt.Errorf("user code is not deterministic: %w", f.Err)
		}
		return nil
	case errors.As(f.Err, &poison):
		return c.poisoned(f.Task, poison)
	}
	if c.failures[f.Task]++; c.failures[f.Task] >= maxFailures {
		return fmt.Errorf("task failed %d times without a checkpoint between: %w", maxFailures, f.Err)
	}
	return nil
}

// poisoned counts identical failures of user code. A record that fails often enough is set aside or ends the job.
func (c *Coordinator) poisoned(t determinant.TaskID, p *task.Poison) error {
	if !p.Source && !c.decider.Current().Mode.Logs() {
		named := *p
		named.ByRecord, p = true, &named // the next life may meet it at another position
	}
	have := &c.poisons[t]
	if have.last == nil || !(have.last.Same(p) || !p.Known && !have.last.Known) {
		*have = poisoned{last: p}
	}
	have.tries++
	if have.tries < c.opts.PoisonTries {
		return nil
	}
	if !c.opts.SetAside || !p.Known || c.view.isAside(&Aside{Task: t, Position: p.Position, Record: p.Record, ByRecord: p.ByRecord}) {
		return fmt.Errorf("user code failed %d times at the same place: %w", have.tries, p)
	}
	c.ledger.Propose(Entry{Aside: &Aside{
		Task: t, Incarnation: p.Incarnation, Position: p.Position, Record: p.Record, Source: p.Source, ByRecord: p.ByRecord,
		Operator: p.Operator, Err: p.Err.Error(),
	}})
	return nil
}

// ErrKilled is the cause of a task's death by Worker.Kill.
var ErrKilled = errors.New("cluster: killed")

package checkpoint

import (
	"cmp"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// defaultRetry is the default of Config.Retry.
const defaultRetry = 1000

// Config says how a Coordinator goes about checkpoints. Zero values are the defaults.
type Config struct {
	Sources  []determinant.TaskID // the tasks that emit barriers, sorted
	Interval int64                // milliseconds from Start to Start; 0: only on Request
	// Timeout is how long a checkpoint may take before it is abandoned, in milliseconds; 0: for ever. The time in which a
	// task is recovering does not count.
	Timeout   int64
	Retry     int64 // milliseconds after which a proposal that nobody heard of again is made again; default 1000
	Mutations mutation.Set
}

// Coordinator decides when checkpoints start, and when they are complete. It is a pure state machine: no clock, no I/O, no
// goroutine; one caller at a time.
//
// Everything that must survive a change of leader is in State. What the Coordinator has beside that, it can learn again:
// acknowledgements (Poll), the time (Tick), and what it last proposed (proposing twice does no harm).
type Coordinator struct {
	config Config
	state  State
	leader bool
	over   bool // Done was said by this leader

	now       int64
	timed     bool  // a Tick came in this reign; before that the times below mean nothing
	lastStart int64 // when the newest checkpoint was started
	progress  int64 // when the timeout of the checkpoint under way last began anew

	requested bool
	wish      *Switch // not committed yet; nil: none

	proposed   Command // awaited; nil: none
	proposedAt int64

	standbys   [][]determinant.WorkerID
	recovering []bool
	handed     []bool
	broken     bool // the checkpoint under way failed somewhere
	inTheWay   bool // the checkpoint under way may hold up tasks that live: the barrier of one that recovers is missing
	overtaken  bool // a recovery began behind what is proposed, and may come before it in the ledger
	mourned    bool // somebody has died since nobody recovered
	deaths     deaths
	owed       bool                      // the newest checkpoint was abandoned for that, and no other was started since
	acks       [][]Ack                   // of the checkpoint under way, per task, sorted by worker
	passed     []determinant.Epoch       // per source: ended by its present life, as far as is known
	lives      []determinant.Incarnation // the lives that acks and passed are about
}

// NewCoordinator makes a Coordinator that follows the ledger from s on. It has no effects before a Leader event.
func NewCoordinator(c Config, s State) *Coordinator {
	if c.Retry <= 0 {
		c.Retry = defaultRetry
	}
	n := len(s.Incarnations)
	co := &Coordinator{
		config: c, state: s.Clone(),
		standbys: make([][]determinant.WorkerID, n), recovering: make([]bool, n), handed: make([]bool, n),
		acks: make([][]Ack, n), passed: make([]determinant.Epoch, len(c.Sources)),
	}
	co.state.Mutations = c.Mutations
	co.lives = slices.Clone(co.state.Incarnations)
	return co
}

// State returns a copy of the committed state.
func (c *Coordinator) State() State { return c.state.Clone() }

// Step takes one event and returns what to do about it, in order. Placed and Committed come in ledger order, at a
// process that does not lead too.
func (c *Coordinator) Step(ev Event) []Effect {
	var out []Effect
	switch ev := ev.(type) {
	case Tick:
		out = c.tick(ev.Now)
	case Request:
		c.requested = true
	case SwitchMode:
		c.wishFor(ev)
	case Ack:
		c.acknowledge(ev)
	case Failed:
		c.failed(ev)
	case Placed:
		out = c.place(ev)
	case Committed:
		out = c.committed(ev.Command)
	case Leader:
		out = c.lead()
	case Deposed:
		c.leader, c.proposed, c.wish = false, nil, nil
	}
	if !c.leader {
		return nil
	}
	return c.propose(out)
}

func (c *Coordinator) tick(now int64) []Effect {
	c.now = now
	if !c.timed {
		c.timed, c.progress, c.lastStart = true, now, now
		c.deaths = deaths{last: now, recovery: c.config.Interval}
	}
	if c.anyRecovering() {
		c.progress = now
	}
	return c.triggers(nil)
}

// wishFor has a wish committed, unless it is what is committed already and nothing else is on its way.
func (c *Coordinator) wishFor(ev SwitchMode) {
	mode, depth := c.state.Goal()
	wish := Switch{Mode: ev.Mode, Depth: cmp.Or(ev.Depth, depth)}
	_, inFlight := c.proposed.(Switch)
	c.wish = nil
	if ev.Mode <= determinant.None && (inFlight || wish != Switch{Mode: mode, Depth: depth}) {
		c.wish = &wish
	}
}

// lead begins a reign: what the last leader was told is asked for again.
func (c *Coordinator) lead() []Effect {
	c.leader, c.over, c.proposed, c.timed = true, false, nil, false
	c.inTheWay = false
	var out []Effect
	if c.state.Open {
		out = append(out, Poll{Epoch: c.state.Started()})
	}
	return c.triggers(c.done(out))
}

// place takes new incarnations, standbys and recoveries.
func (c *Coordinator) place(p Placed) []Effect {
	c.state.Place(p.Incarnations, slices.Contains(p.Recovering, true))
	for t, standbys := range p.Standbys {
		c.standbys[t] = slices.Clone(standbys)
	}
	recovering := c.anyRecovering()
	copy(c.recovering, p.Recovering)
	copy(c.handed, p.Handed)
	if recovering && !c.anyRecovering() {
		if c.mourned {
			c.deaths.over(c.now)
		}
		c.inTheWay, c.overtaken, c.mourned = false, false, false
	}
	reborn, died := false, false
	for t, inc := range c.state.Incarnations {
		if inc == c.lives[t] {
			continue
		}
		c.lives[t] = inc
		reborn = true
		died = died || p.Recovering[t] && !p.Handed[t]
		if !c.config.Mutations.Has(mutation.OldAcksCount) {
			c.acks[t] = slices.DeleteFunc(c.acks[t], func(a Ack) bool { return a.Incarnation < inc })
		}
		if i, ok := slices.BinarySearch(c.config.Sources, determinant.TaskID(t)); ok {
			c.passed[i] = c.state.Committed
			for _, a := range c.acks[t] {
				c.pass(a)
			}
		}
	}
	if !reborn {
		return nil
	}
	if died {
		c.deaths.came(c.now, recovering, c.config.Interval)
		c.mourned = true
	}
	if died || c.onlyMoves() {
		c.overtaken = c.proposed != nil
		c.inTheWay = c.inTheWay || c.mayHoldUp()
	}
	c.progress = c.now
	return c.triggers(nil)
}

// acknowledge keeps an acknowledgement of the checkpoint under way. One by a life that is not placed yet waits for its
// placement; one by an earlier life is void.
func (c *Coordinator) acknowledge(a Ack) {
	if int(a.Task) >= len(c.acks) || a.Incarnation < c.state.Incarnations[a.Task] && !c.config.Mutations.Has(mutation.OldAcksCount) {
		return
	}
	c.pass(a)
	if !c.state.Open || a.Epoch != c.state.Started() {
		return
	}
	list := c.acks[a.Task]
	i, ok := slices.BinarySearchFunc(list, a.Worker, func(x Ack, w determinant.WorkerID) int { return cmp.Compare(x.Worker, w) })
	if !ok {
		list = slices.Insert(list, i, a)
	} else if a.Incarnation >= list[i].Incarnation {
		list[i] = a
	}
	c.acks[a.Task] = list
}

// pass learns from a source's own acknowledgement that the source has ended the epoch and those before.
func (c *Coordinator) pass(a Ack) {
	i, ok := slices.BinarySearch(c.config.Sources, a.Task)
	if ok && a.Primary && a.Incarnation == c.state.Incarnations[a.Task] {
		c.passed[i] = max(c.passed[i], a.Epoch)
	}
}

func (c *Coordinator) failed(f Failed) {
	if c.state.Open && f.Epoch == c.state.Started() && int(f.Task) < len(c.acks) && f.Incarnation == c.state.Incarnations[f.Task] {
		c.broken = true
	}
}

// committed takes a command that the ledger committed, by this leader or another.
func (c *Coordinator) committed(cmd Command) []Effect {
	if p := c.proposed; p != nil && p.command() == cmd.command() && p.epoch() == cmd.epoch() {
		c.proposed = nil // answered, even if it came too late to count
	}
	if !c.state.Apply(cmd) {
		return nil
	}
	if s, ok := cmd.(Switch); ok {
		if c.wish != nil && *c.wish == s {
			c.wish = nil
		}
		return nil
	}
	owed, overtaken := c.inTheWay, c.overtaken
	c.proposed, c.broken, c.inTheWay, c.overtaken = nil, false, false, false
	for t := range c.acks {
		c.acks[t] = nil
	}
	switch cmd.(type) {
	case Start:
		c.lastStart, c.progress = c.now, c.now
		c.requested, c.owed = false, false
		c.inTheWay = overtaken && c.mayHoldUp()
	case Complete:
		c.deaths.since = 0
		return c.done(nil)
	case Abandon:
		c.owed = owed
	}
	return c.triggers(nil)
}

// done says that the job is over, once per reign.
func (c *Coordinator) done(out []Effect) []Effect {
	if c.leader && !c.over && c.state.Ended() {
		c.over = true
		out = append(out, Done{Epoch: c.state.Committed})
	}
	return out
}

// triggers tells each source what to do about every epoch since the committed checkpoint that, as far as is known, its
// present life has not ended: in order, because a source ends epochs in order, and all of them, because it may have
// been restored from the committed checkpoint. A void
// checkpoint waits until it is abandoned.
func (c *Coordinator) triggers(out []Effect) []Effect {
	if !c.leader || c.state.Ended() {
		return out
	}
	for i, source := range c.config.Sources {
		for _, a := range c.state.Since {
			if a.Epoch <= c.passed[i] || !a.Abandoned && c.state.Void {
				continue
			}
			out = append(out, Trigger{
				Task: source, Incarnation: c.state.Incarnations[source], Epoch: a.Epoch,
				Skip: a.Abandoned, Mode: a.Mode, Depth: a.Depth,
			})
		}
	}
	return out
}

// propose appends the one decision that the present state asks for, unless the ledger is still busy with it.
func (c *Coordinator) propose(out []Effect) []Effect {
	cmd := c.decide()
	if cmd == nil {
		return out
	}
	if c.proposed != nil && c.now-c.proposedAt < c.config.Retry {
		return out
	}
	c.proposed, c.proposedAt, c.overtaken = cmd, c.now, false
	return append(out, Propose{Command: cmd})
}

// decide names the next command, or nil.
func (c *Coordinator) decide() Command {
	if c.state.Open {
		if cmd := c.conclude(); cmd != nil {
			return cmd
		}
	}
	switch {
	case c.wish != nil:
		return *c.wish
	case c.state.Open:
		return nil
	}
	return c.next()
}

// conclude names the command that ends the checkpoint under way, or nil.
func (c *Coordinator) conclude() Command {
	e := c.state.Started()
	switch {
	case c.state.Void, c.broken:
		return Abandon{Epoch: e}
	case c.complete():
		return Complete{Epoch: e, Tasks: c.taskStates()}
	case c.inTheWay:
		return Abandon{Epoch: e}
	case c.config.Timeout > 0 && c.timed && c.now-c.progress >= c.config.Timeout:
		return Abandon{Epoch: e}
	}
	return nil
}

// mayHoldUp tells, when a task has died or was handed over, whether the checkpoint under way may hold up tasks that live: its barrier comes to them from all
// inputs but that one's, and they would stand still until it has been replayed up to there. Who has acknowledged does not; who has not may only
// be slow to store its image. One checkpoint is abandoned for that, after a death that stands alone, and the next is waited for: otherwise the
// barrier that is replayed up to would move away from the last complete checkpoint as fast as tasks die. For one that is handed over it is the first since the
// last complete checkpoint, too, and never a second.
func (c *Coordinator) mayHoldUp() bool {
	s := &c.state
	mode, depth := s.Recovery()
	switch {
	case !c.leader, !s.Open, len(s.Since) > 1, !c.onlyMoves() && !c.deaths.alone:
		return false
	case mode != determinant.ExactlyOnce: // in other modes it is void anyway
		return false
	case s.Depth != depth || s.Since[0].Depth != depth: // tasks wait even so: epochs that differ do not mix
		return false
	}
	for t, recovering := range c.recovering {
		if !recovering && c.primary(t) == nil {
			return true
		}
	}
	return false
}

// next names the checkpoint to start, or nil. A change of mode is reason enough; while it has to wait for a recovery,
// checkpoints go on as they are if they may.
func (c *Coordinator) next() Command {
	mode, depth := c.state.Goal()
	due := c.due() || c.state.Wanted != nil
	if !c.state.mayStart(mode) {
		mode, _ = c.state.Boundary()
		due = c.due() && c.state.mayStart(mode)
	}
	if !due || c.state.Ended() {
		return nil
	}
	return Start{Epoch: c.state.Started() + 1, Mode: mode, Depth: depth}
}

// due tells whether a checkpoint should start now. While a task recovers its regular time waits: every task behind it would get the
// barrier from all others and then stand still until the one that recovers has got there. One that was asked for waits, no longer than that, for a task
// that is handed over, and for no other; without regular times until that is done or has failed. One that makes up for another that was in the way
// starts as soon as none does and sources have caught up.
func (c *Coordinator) due() bool {
	if c.requested && !c.onlyMoves() {
		return true
	}
	late := 0.0
	switch {
	case c.anyRecovering():
		late = c.deaths.late()
	case c.deaths.catchingUp(c.now, c.config.Interval):
		return false
	case c.owed:
		return true
	}
	interval := float64(c.config.Interval)
	return interval > 0 && c.timed && float64(c.now-c.lastStart) >= interval+late*interval
}

// onlyMoves tells whether a task recovers because it was handed over, and none for another reason.
func (c *Coordinator) onlyMoves() bool {
	for t, recovering := range c.recovering {
		if recovering && !c.handed[t] {
			return false
		}
	}
	return c.anyRecovering()
}

func (c *Coordinator) anyRecovering() bool { return slices.Contains(c.recovering, true) }

// complete tells whether everyone who has to has acknowledged the checkpoint under way.
func (c *Coordinator) complete() bool {
	for t := range c.acks {
		if c.primary(t) == nil {
			return false
		}
		for _, w := range c.standbys[t] {
			if !slices.ContainsFunc(c.acks[t], func(a Ack) bool { return a.Worker == w && c.counts(t, &a) }) {
				return false
			}
		}
	}
	return true
}

// counts tells whether an acknowledgement is by the task's present life.
func (c *Coordinator) counts(t int, a *Ack) bool {
	return a.Incarnation == c.state.Incarnations[t] || c.config.Mutations.Has(mutation.OldAcksCount)
}

func (c *Coordinator) primary(t int) *Ack {
	for i := range c.acks[t] {
		if a := &c.acks[t][i]; a.Primary && c.counts(t, a) {
			return a
		}
	}
	return nil
}

// taskStates sums up the acknowledgements of a complete checkpoint.
func (c *Coordinator) taskStates() []TaskState {
	states := make([]TaskState, len(c.acks))
	for t := range c.acks {
		p := c.primary(t)
		holders := append(slices.Clone(c.standbys[t]), p.Worker)
		slices.Sort(holders)
		states[t] = TaskState{
			Task: determinant.TaskID(t), Incarnation: p.Incarnation, Log: p.Log, Holders: slices.Compact(holders),
			Ended: p.Ended, External: p.External, Prepared: p.Prepared,
		}
	}
	return states
}

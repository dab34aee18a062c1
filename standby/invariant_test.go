package standby

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// chaos feeds a coordinator random events in random order, commits, loses and repeats proposals and changes leaders, and
// checks what may never happen.
type chaos struct {
	*cluster
	t       *rapid.T
	next    determinant.WorkerID
	live    ws                // as the world knows
	places  map[string]string // "task #incarnation" -> its one worker
	late    []Command         // of former leaders: may still get in
	replica *Decider          // a follower
	epoch   determinant.Epoch
	clock   int64
	answers map[determinant.TaskID]determinant.WorkerID // who handed a task over and has not been lost since, nor has its new host
}

var names = []string{"line", "chain", "open", "skew", "grid", "diamond"}

func newChaos(t *rapid.T) *chaos {
	config := Config{
		Topology: topologyNamed(rapid.SampledFrom(names).Draw(t, "topology")), Standbys: rapid.IntRange(-1, 3).Draw(t, "standbys"),
		Depth:        rapid.SampledFrom([]determinant.Depth{0, 1, 2, 3}).Draw(t, "depth"),
		BalanceAfter: rapid.SampledFrom([]int64{-1, 100}).Draw(t, "balance"),
	}
	return &chaos{
		cluster: newCluster(config, State{}), t: t, next: 1, places: map[string]string{}, clock: 1000,
		replica: NewDecider(config, State{}), answers: map[determinant.TaskID]determinant.WorkerID{},
	}
}

func (c *chaos) join() {
	w := c.next
	c.next++
	c.live = append(c.live, w)
	ev := Joined{Worker: w}
	for t := range c.config.Topology.Tasks {
		if rapid.IntRange(0, 3).Draw(c.t, "holds") == 0 {
			ev.Holds = append(ev.Holds, Held{determinant.TaskID(t), c.epoch})
		}
	}
	c.tell(ev)
}

// tell steps the coordinator and watches its proposals.
func (c *chaos) tell(ev Event) {
	before := len(c.inFlight)
	c.step(ev)
	c.checkInFlight(before)
}

// checkInFlight: of the decisions that this leader has in flight, one at most can still take effect. If it is among the newest,
// it gives nothing to a draining worker that another could take.
func (c *chaos) checkInFlight(newest int) {
	n := 0
	for i, cmd := range c.inFlight {
		d, ok := cmd.(Decision)
		if !ok || d.Basis != c.decider.state.Version {
			continue
		}
		n++
		for t, p := range d.Tasks {
			was := c.decider.state.Tasks[t]
			if i < newest || p.Worker == was.Worker || !c.decider.state.drains(p.Worker) {
				continue
			}
			for _, w := range d.Hear {
				require.False(c.t, c.decider.holds(w, p.Task) && !c.decider.state.drains(w), "%v, but %d could run it", p, w)
			}
		}
	}
	require.LessOrEqual(c.t, n, 1, "decisions in flight")
}

func (c *chaos) task() Placement {
	return c.decider.Task(determinant.TaskID(rapid.IntRange(0, c.config.Topology.Tasks-1).Draw(c.t, "task")))
}

// someIncarnation is mostly the present one.
func (c *chaos) incarnation(p Placement) determinant.Incarnation {
	if p.Incarnation > 1 && rapid.IntRange(0, 4).Draw(c.t, "stale") == 0 {
		return p.Incarnation - 1
	}
	return p.Incarnation
}

func (c *chaos) event() {
	p := c.task()
	switch rapid.IntRange(0, 16).Draw(c.t, "event") {
	case 0, 1:
		c.join()
	case 2, 3, 4:
		c.kill()
	case 5:
		c.tell(TaskFailed{Task: p.Task, Incarnation: c.incarnation(p), Worker: p.Worker, Cause: "failed"})
	case 6:
		c.tell(CaughtUp{Task: p.Task, Incarnation: c.incarnation(p)})
	case 7:
		if rapid.IntRange(0, 3).Draw(c.t, "seldom") == 0 {
			c.tell(RollbackWanted{Task: p.Task, Incarnation: c.incarnation(p), Cause: "belt"})
		}
	case 8:
		if len(c.live) > 0 {
			c.tell(Holding{Worker: rapid.SampledFrom(c.live).Draw(c.t, "holder"), Task: p.Task, Epoch: c.epoch})
		}
	case 9:
		c.checkpoint()
	case 10:
		if rapid.Bool().Draw(c.t, "same leader") {
			c.unsure()
			break
		}
		c.late = append(c.late, c.inFlight...)
		c.inFlight = nil
		c.newLeader()
		c.checkInFlight(0)
	case 11:
		if len(c.late) > 0 { // of a former leader, or lost: gets in, late
			at := rapid.IntRange(0, len(c.late)-1).Draw(c.t, "late")
			cmd := c.late[at]
			c.late = slices.Delete(c.late, at, at+1)
			c.take(cmd)
		}
	case 12:
		if len(c.ledger) > 0 { // gets in twice
			c.take(rapid.SampledFrom(c.ledger).Draw(c.t, "repeat"))
		}
	case 13:
		c.tell(Deploy{})
	case 14, 15:
		if len(c.live) > 0 {
			c.tell(Drain{Worker: rapid.SampledFrom(c.live).Draw(c.t, "drained"), Off: rapid.IntRange(0, 3).Draw(c.t, "off") == 0})
		}
	case 16:
		c.tick(rapid.SampledFrom([]int64{1, 30, 120, patience}).Draw(c.t, "passes"))
	}
}

func (c *chaos) tick(passes int64) {
	c.clock += passes
	c.tell(Tick{Now: c.clock})
}

// unsure loses the proposals in flight, for now.
func (c *chaos) unsure() {
	c.late = append(c.late, c.inFlight...)
	c.inFlight = nil
	c.tell(Leader{})
}

func (c *chaos) kill() {
	if len(c.live) == 0 {
		return
	}
	gone := ws{rapid.SampledFrom(c.live).Draw(c.t, "victim")}
	if rapid.IntRange(0, 7).Draw(c.t, "all") == 0 {
		gone = slices.Clone(c.live)
	}
	c.live = without(c.live, gone)
	c.die(gone...)
	c.tell(Dead{Workers: gone})
}

func (c *chaos) checkpoint() {
	if rapid.Bool().Draw(c.t, "complete") {
		c.epoch++
	}
	cmd := Checkpoint{Committed: c.epoch, Since: []EpochMode{{
		Mode:  rapid.SampledFrom([]determinant.Mode{determinant.ExactlyOnce, determinant.ExactlyOnce, determinant.AtLeastOnce, determinant.GlobalRollback}).Draw(c.t, "mode"),
		Depth: rapid.SampledFrom([]determinant.Depth{determinant.Full, 1, 2}).Draw(c.t, "depth"),
	}}}
	for _, p := range c.decider.State().Tasks {
		cmd.Holders = append(cmd.Holders, with(p.Standbys, ws{p.Worker}))
	}
	c.take(cmd)
}

// take commits a command and checks the step that the ledger made.
func (c *chaos) take(cmd Command) {
	old := c.decider.State()
	accepted := c.replica.Apply(cmd)
	d, isDecision := cmd.(Decision)
	before := len(c.inFlight)
	c.commit(cmd)
	c.checkInFlight(before)
	now := c.decider.State()
	require.Equal(c.t, c.replica.State(), now, "replicas differ")
	if !accepted {
		require.Equal(c.t, old, now, "a refused command changed something")
		return
	}
	require.Equal(c.t, old.Version+1, now.Version)
	require.GreaterOrEqual(c.t, now.Checkpoint, old.Checkpoint)
	if isDecision {
		c.checkDecision(old, d)
	}
	c.checkDraining(old, now)
	for _, p := range now.Tasks {
		require.NotContains(c.t, p.Standbys, p.Worker, "%v", p)
		require.True(c.t, slices.IsSorted(p.Standbys))
		if p.Worker == 0 {
			continue
		}
		require.NotContains(c.t, now.Dead, p.Worker)
		life := fmt.Sprintf("%d #%d", p.Task, p.Incarnation)
		place := fmt.Sprint(p.Worker)
		if had, ok := c.places[life]; ok {
			require.Equal(c.t, had, place, "two places for %s", life)
		}
		c.places[life] = place
	}
}

// checkDraining: no command makes a draining worker a standby, or has one drain that is dead, and the tasks that count on
// a former worker are those that it handed over.
func (c *chaos) checkDraining(old, now State) {
	for _, l := range now.Draining {
		require.NotContains(c.t, now.Dead, l.Worker)
		for t, p := range now.Tasks {
			if slices.Contains(p.Standbys, l.Worker) && old.drains(l.Worker) {
				require.Contains(c.t, old.Tasks[t].Standbys, l.Worker, "%v", p)
			}
		}
	}
	for _, p := range now.Tasks {
		if !p.Recovering {
			delete(c.answers, p.Task)
		}
		require.Equal(c.t, c.answers[p.Task], p.From, "%v", p)
	}
}

// checkMoves follows who answers for tasks that were handed over, and checks that the decision rolls back where what is lost
// cannot be recovered, and only there.
func (c *chaos) checkMoves(old State, d Decision) {
	top := c.config.Topology
	failed := make([]bool, top.Tasks)
	for t, p := range d.Tasks {
		was := old.Tasks[t]
		switch from := c.answers[p.Task]; {
		case p.Incarnation > was.Incarnation && p.From != 0:
			require.Equal(c.t, was.Worker, p.From)
			require.False(c.t, was.Recovering || slices.Contains(d.Dead, p.From))
			c.answers[p.Task] = p.From
		case p.Incarnation > was.Incarnation || slices.Contains(d.Dead, from):
			delete(c.answers, p.Task)
		}
		failed[t] = p.Recovering && c.answers[p.Task] == 0 && was.Incarnation > 0
		failed[t] = failed[t] || d.Rollback && was.Worker != 0 && (slices.Contains(d.Dead, was.Worker) || was.Recovering && was.From == 0)
	}
	if d.Mode != determinant.ExactlyOnce || strings.Contains(d.Cause, "wants it") || d.Rollback && strings.Contains(d.Cause, "failed") {
		return
	}
	ok, why := top.Recoverable(failed, d.Depth)
	require.Equal(c.t, ok, !d.Rollback, "%v: %s", d, why)
}

func (c *chaos) checkDecision(old State, d Decision) {
	c.checkMoves(old, d)
	require.Equal(c.t, old.Round+1, d.Round)
	require.Equal(c.t, old.Checkpoint, d.Checkpoint)
	require.Subset(c.t, d.Dead, old.Dead)
	require.Empty(c.t, slices.DeleteFunc(slices.Clone(d.Hear), func(w determinant.WorkerID) bool { return !slices.Contains(d.Dead, w) }))
	if d.Rollback {
		require.Equal(c.t, old.Generation+1, d.Generation)
		require.Equal(c.t, old.Checkpoint, d.RollbackTo)
	} else {
		require.Equal(c.t, old.Generation, d.Generation)
	}
	for t, p := range d.Tasks {
		was := old.Tasks[t]
		require.GreaterOrEqual(c.t, p.Incarnation, was.Incarnation)
		if was.Incarnation > 0 && d.Rollback {
			require.Greater(c.t, p.Incarnation, was.Incarnation)
			require.False(c.t, p.Recovering)
		}
		if was.Worker != 0 && slices.Contains(d.Dead, was.Worker) {
			require.Greater(c.t, p.Incarnation, was.Incarnation, "a task of a dead worker is not fenced")
			require.True(c.t, p.Recovering || d.Rollback)
		}
		if was.Recovering && !d.Rollback {
			require.True(c.t, p.Recovering, "a decision ended a recovery")
		}
		if p.Worker != 0 {
			require.Contains(c.t, d.Hear, p.Worker)
		}
	}
}

// settle lets the ledger take everything, with nothing more happening, and checks that nothing was forgotten.
func (c *chaos) settle() {
	c.unsure()
	for _, w := range without(c.decider.Live(), c.live) { // what a heartbeat would tell a new leader
		c.tell(Dead{Workers: ws{w}})
	}
	for _, w := range c.live {
		c.tell(Joined{Worker: w})
	}
	for n := 0; len(c.inFlight) > 0; n++ {
		require.Less(c.t, n, 2000, "no end of proposals")
		cmd := c.inFlight[0]
		c.inFlight = c.inFlight[1:]
		c.take(cmd)
	}
	d := c.decider
	require.Equal(c.t, len(without(d.Live(), c.live)), 0, "live %v, truly %v", d.Live(), c.live)
	for _, p := range d.State().Tasks {
		missing := p.Worker != 0 && len(p.Standbys) < c.config.Standbys
		free := without(without(d.usable(), p.Standbys), ws{p.Worker})
		require.False(c.t, p.Worker != 0 && len(d.lasting(p)) < d.standbysOf(p) && len(free) > 0, "%v misses a standby among %v", p, free)
		require.Equal(c.t, missing, slices.Contains(d.Unprotected(), p.Task), "%v, unprotected %v", p, d.Unprotected())
		for _, w := range c.live {
			require.False(c.t, p.Incarnation > 0 && p.Worker == 0 && d.holds(w, p.Task), "%v, but %d has its state", p, w)
		}
	}
}

// quieten lets recoveries end and then checkpoints complete until nothing moves any more. What failed before apart, that needs
// no rollback.
func (c *chaos) quieten() {
	d := c.decider
	failed := func() bool {
		return !d.state.Mode.Logs() || slices.ContainsFunc(d.state.Tasks, func(p Placement) bool { return p.Recovering && p.From == 0 })
	}
	wasFailed, generation := failed(), d.state.Generation
	for still, n := 0, 0; still < 3; still, n = still+1, n+1 {
		require.Less(c.t, n, 1000, "no end of moves")
		before := d.State().Version
		for _, p := range d.State().Tasks {
			if p.Recovering && p.Worker != 0 {
				c.tell(CaughtUp{Task: p.Task, Incarnation: p.Incarnation})
			}
			for _, w := range p.Standbys {
				c.tell(Holding{Worker: w, Task: p.Task, Epoch: c.epoch})
			}
		}
		c.tick(150)
		for len(c.inFlight) > 0 {
			cmd := c.inFlight[0]
			c.inFlight = c.inFlight[1:]
			c.take(cmd)
		}
		if d.State().Version != before {
			still = -1
		}
		require.True(c.t, wasFailed || d.state.Generation == generation, "rolled back\n%s", strings.Join(c.effects, "\n"))
		wasFailed, generation = failed(), d.state.Generation
		c.epoch++
		cmd := Checkpoint{Committed: c.epoch, Since: []EpochMode{{Depth: 1}}}
		for _, p := range d.State().Tasks {
			cmd.Holders = append(cmd.Holders, with(p.Standbys, ws{p.Worker}))
		}
		c.take(cmd)
	}
}

// checkQuiet: with nothing wrong, drains end where there is anyone to take over, and tasks are even, and so are their standbys.
func (c *chaos) checkQuiet() {
	d := c.decider
	s := d.State()
	waits := slices.ContainsFunc(s.Tasks, func(p Placement) bool { return p.Worker == 0 })
	for _, l := range d.Drains() {
		require.True(c.t, l.Done || waits || len(d.usable()) == 0, "%+v", l)
		for _, p := range s.Tasks {
			none := p.Worker != l.Worker && p.From != l.Worker && !slices.Contains(p.Standbys, l.Worker)
			require.True(c.t, none || !l.Done, "%+v: %v", l, p)
		}
	}
	if most, _ := d.extremes(); d.config.BalanceAfter > 0 && len(s.Draining) == 0 && !waits {
		require.Zero(c.t, most, "uneven: %v", s.Tasks)
	}
	if d.config.BalanceAfter > 0 && len(s.Draining) == 0 && !waits {
		require.Empty(c.t, lopsided(s.Tasks, d.usable()), "%v", s.Tasks)
	}
	for _, p := range s.Tasks {
		require.False(c.t, d.config.BalanceAfter > 0 && len(s.Draining) == 0 && !waits && len(p.Standbys) > c.config.Standbys, "%v", p)
	}
}

func TestDeciderKeepsItsInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newChaos(t)
		for range rapid.IntRange(0, 5).Draw(t, "workers") {
			c.join()
		}
		c.tell(Deploy{})
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			if len(c.inFlight) > 0 && rapid.Bool().Draw(t, "commit") {
				cmd := c.inFlight[0]
				c.inFlight = c.inFlight[1:]
				c.take(cmd)
				continue
			}
			c.event()
		}
		c.config.EnsureDefaults()
		c.settle()
		c.quieten()
		c.checkQuiet()
	})
}

// A promotion is fed copies that are prefixes of one log, some of them spoilt, over several rounds.
func TestPromotionKeepsItsInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "log")
		base := determinant.LogOffset(rapid.IntRange(0, len(truth)).Draw(t, "base"))
		copyOf := func(name string) causal.Copy {
			from := rapid.IntRange(0, int(base)).Draw(t, name+" from")
			to := rapid.IntRange(from, len(truth)).Draw(t, name+" to")
			return causal.Copy{Task: 7, Base: determinant.LogOffset(from), Bytes: slices.Clone(truth[from:to])}
		}
		p := NewPromotion(7, 2, noMutation)
		var round determinant.Round
		var hear []determinant.WorkerID
		var counted map[determinant.WorkerID]causal.Copy // of this round
		early := map[determinant.WorkerID]causal.Copy{}  // of the next
		ready, done := false, false
		check := func(effects []PromotionEffect) {
			for _, e := range effects {
				switch e := e.(type) {
				case Start:
					require.False(t, done, "a second end")
					require.True(t, ready, "no state yet")
					require.Len(t, counted, len(hear), "started without all answers of round %d", round)
					require.Equal(t, base, e.Log.Base)
					require.Equal(t, longestOf(counted, base), string(e.Log.Bytes))
					require.True(t, allPrefixes(counted, base))
					done = true
				case Rollback:
					require.Len(t, counted, len(hear))
					require.False(t, allPrefixes(counted, base), e.Cause)
					done = true
				case Ask:
					require.Equal(t, round, e.Round)
				}
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w := determinant.WorkerID(rapid.IntRange(1, 5).Draw(t, "worker"))
			c := copyOf("copy")
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0, 1:
				if done {
					continue
				}
				round++
				hear = nil
				counted, early = early, map[determinant.WorkerID]causal.Copy{}
				for w := determinant.WorkerID(1); w <= 5; w++ {
					if rapid.Bool().Draw(t, "heard") {
						hear = append(hear, w)
					} else {
						delete(counted, w)
					}
				}
				check(p.Step(Decided{Round: round, Base: base, Hear: hear}))
			case 2:
				ready = true
				check(p.Step(StateReady{}))
			case 3:
				if _, ok := early[w]; !ok && !done {
					early[w] = c
				}
				check(p.Step(Answer{From: FromWorker(w), Round: round + 1, Copy: c}))
			case 4:
				if round > 1 {
					check(p.Step(Answer{From: FromWorker(w), Round: round - 1, Copy: c}))
				}
			case 5:
				if len(c.Bytes) > int(base-c.Base) {
					c.Bytes[len(c.Bytes)-1] ^= 0x55
				}
				fallthrough
			default:
				if round == 0 {
					continue
				}
				if _, ok := counted[w]; !ok && slices.Contains(hear, w) {
					counted[w] = c
				}
				check(p.Step(Answer{From: FromWorker(w), Round: round, Copy: c}))
			}
		}
		p.Step(Superseded{Incarnation: 3})
		require.Empty(t, p.Step(StateReady{}))
		require.Empty(t, p.Step(Decided{Round: round + 1, Base: base}))
		require.True(t, p.Done())
	})
}

// aboveBase gives what a copy knows from base on.
func aboveBase(c causal.Copy, base determinant.LogOffset) string {
	return string(c.Bytes[min(int(base-c.Base), len(c.Bytes)):])
}

func longestOf(copies map[determinant.WorkerID]causal.Copy, base determinant.LogOffset) (longest string) {
	for _, c := range copies {
		if s := aboveBase(c, base); len(s) > len(longest) {
			longest = s
		}
	}
	return longest
}

// allPrefixes tells whether of any two copies one is a prefix of the other.
func allPrefixes(copies map[determinant.WorkerID]causal.Copy, base determinant.LogOffset) bool {
	for _, a := range copies {
		for _, b := range copies {
			x, y := aboveBase(a, base), aboveBase(b, base)
			if !strings.HasPrefix(x, y) && !strings.HasPrefix(y, x) {
				return false
			}
		}
	}
	return true
}

// The checkers above must notice a broken rule: with old rounds counting, a start without all answers is found.
func TestPromotionCheckIsAwake(t *testing.T) {
	p := NewPromotion(7, 2, mutation.OldRoundCounts)
	p.Step(Decided{Round: 1, Hear: ws{1, 2}, StateReady: true})
	p.Step(Answer{From: FromWorker(1), Round: 1, Copy: causal.Copy{Task: 7}})
	p.Step(Decided{Round: 2, Hear: ws{1, 2}})
	got := p.Step(Answer{From: FromWorker(2), Round: 2, Copy: causal.Copy{Task: 7}})
	require.Len(t, got, 1, "the mutant starts with worker 1's answer of round 1")

	sound := NewPromotion(7, 2, noMutation)
	sound.Step(Decided{Round: 1, Hear: ws{1, 2}, StateReady: true})
	sound.Step(Answer{From: FromWorker(1), Round: 1, Copy: causal.Copy{Task: 7}})
	sound.Step(Decided{Round: 2, Hear: ws{1, 2}})
	require.Empty(t, sound.Step(Answer{From: FromWorker(2), Round: 2, Copy: causal.Copy{Task: 7}}))
}

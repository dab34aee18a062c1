package checkpoint

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// chaos is three Coordinators on one ledger, tasks that acknowledge when they like and die, and leaders that change. Every
// choice comes from pick, so that a run is a list of numbers.
type chaos struct {
	pick      func(n int) int // in [0, n)
	config    Config
	replicas  [3]*Coordinator
	behind    [3]int // how much of ledger each replica has been told
	ledger    []Event
	lead      int
	proposals []Command // under way to the ledger
	now       int64
	state     State // what the ledger itself makes of it; without mutations
	standbys  [][]determinant.WorkerID
	recover   []bool
	mail      []Ack // acknowledgements under way

	// The checker's own books.
	acked     map[ackKey]bool // delivered to the leader
	triggered map[determinant.Epoch]bool
	ended     map[determinant.Epoch]string // completed or abandoned, as far as it counted
	spoiled   map[determinant.Epoch]bool   // under way when a task died in at-least-once
	completed int
	bad       string
}

const chaosTasks = 3

// ackKey is what matters of an acknowledgement: of a primary's the worker does not.
type ackKey struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Epoch       determinant.Epoch
	Worker      determinant.WorkerID
	Primary     bool
}

func newChaos(pick func(int) int, m mutation.Set) *chaos {
	c := &chaos{
		pick:     pick,
		config:   Config{Sources: []determinant.TaskID{0, 1}, Interval: 50, Timeout: 400, Retry: 100, Mutations: m},
		state:    NewState(chaosTasks, determinant.Mode(pick(3)), determinant.Full),
		standbys: make([][]determinant.WorkerID, chaosTasks), recover: make([]bool, chaosTasks),
		acked: map[ackKey]bool{}, triggered: map[determinant.Epoch]bool{}, ended: map[determinant.Epoch]string{}, spoiled: map[determinant.Epoch]bool{},
	}
	for i := range c.replicas {
		c.replicas[i] = NewCoordinator(c.config, c.state)
	}
	c.step(Leader{})
	return c
}

func (c *chaos) fail(format string, args ...any) {
	if c.bad == "" {
		c.bad = fmt.Sprintf(format, args...)
	}
}

// append commits an event in the ledger; the leader hears of it at once, the others when they do.
func (c *chaos) append(ev Event) {
	c.ledger = append(c.ledger, ev)
	c.behind[c.lead]++
	c.step(ev)
}

// step tells the leader and takes its effects.
func (c *chaos) step(ev Event) {
	last := map[determinant.TaskID]determinant.Epoch{}
	for _, effect := range c.replicas[c.lead].Step(ev) {
		switch e := effect.(type) {
		case Propose:
			c.proposals = append(c.proposals, e.Command)
		case Trigger:
			c.checkTrigger(e, last)
			c.triggered[e.Epoch] = true
		}
	}
}

func (c *chaos) checkTrigger(tr Trigger, last map[determinant.TaskID]determinant.Epoch) {
	i := int(tr.Epoch-c.state.Committed) - 1
	if i < 0 || i >= len(c.state.Since) {
		c.fail("trigger for epoch %d outside (%d, %d]", tr.Epoch, c.state.Committed, c.state.Started())
		return
	}
	a := c.state.Since[i]
	if tr.Skip != a.Abandoned || tr.Mode != a.Mode || tr.Depth != a.Depth || tr.Incarnation != c.state.Incarnations[tr.Task] {
		c.fail("trigger %+v does not carry what was started: %+v", tr, a)
	}
	if tr.Epoch <= last[tr.Task] {
		c.fail("triggers of source %d out of order: %d after %d", tr.Task, tr.Epoch, last[tr.Task])
	}
	last[tr.Task] = tr.Epoch
}

// commit has the ledger commit a command, whoever proposed it and when.
func (c *chaos) commit(cmd Command) {
	before := c.state.Clone()
	real := c.replicas[c.lead].State()
	if !real.Apply(cmd) {
		c.append(Committed{cmd})
		return
	}
	e := cmd.epoch()
	switch cmd := cmd.(type) {
	case Start:
		c.checkStart(cmd, &before)
	case Complete:
		c.checkComplete(cmd, &before)
		c.note(e, "completed")
		c.completed++
	case Abandon:
		c.note(e, "abandoned")
	}
	if !c.state.Apply(cmd) { // a mutant's state let through what the true one does not
		c.state = real
	}
	c.append(Committed{cmd})
}

// checkStart: while a task recovers, nothing starts unless all epochs are and stay exactly-once.
func (c *chaos) checkStart(cmd Start, before *State) {
	mode, _ := before.Recovery()
	if slices.Contains(c.recover, true) && max(mode, cmd.Mode) != determinant.ExactlyOnce {
		c.fail("started %d in mode %s after %s while a task recovers", cmd.Epoch, cmd.Mode, mode)
	}
}

func (c *chaos) note(e determinant.Epoch, how string) {
	if was := c.ended[e]; was != "" {
		c.fail("epoch %d %s after it was %s", e, how, was)
	}
	c.ended[e] = how
}

func (c *chaos) checkComplete(cmd Complete, before *State) {
	if cmd.Epoch <= before.Committed {
		c.fail("completed %d after %d", cmd.Epoch, before.Committed)
	}
	if c.spoiled[cmd.Epoch] {
		c.fail("completed %d, under way when a task died and recovery was not causal", cmd.Epoch)
	}
	for i, t := range cmd.Tasks {
		if !c.acked[ackKey{Task: t.Task, Incarnation: before.Incarnations[i], Epoch: cmd.Epoch, Primary: true}] {
			c.fail("completed %d without incarnation %d of task %d", cmd.Epoch, before.Incarnations[i], t.Task)
		}
		for _, w := range t.Holders {
			if !c.acked[ackKey{Task: t.Task, Incarnation: t.Incarnation, Epoch: cmd.Epoch, Worker: w}] {
				c.fail("completed %d: worker %d is named as a holder of task %d", cmd.Epoch, w, t.Task)
			}
		}
	}
}

// place commits where tasks are, perhaps with new lives.
func (c *chaos) place(die func(t int) bool) {
	incs := slices.Clone(c.state.Incarnations)
	for t := range incs {
		if die(t) {
			incs[t]++
			c.recover[t] = true
		} else if c.pick(2) == 0 {
			c.recover[t] = false
		}
		c.standbys[t] = nil
		for w := range determinant.WorkerID(2) {
			if c.pick(2) == 0 {
				c.standbys[t] = append(c.standbys[t], 10+w)
			}
		}
	}
	mode, _ := c.state.Recovery()
	if c.state.Open && mode != determinant.ExactlyOnce && !slices.Equal(incs, c.state.Incarnations) {
		c.spoiled[c.state.Started()] = true
	}
	c.state.Place(incs, slices.Contains(c.recover, true))
	handed := make([]bool, len(incs))
	for t := range handed {
		handed[t] = c.recover[t] && c.pick(4) == 0
	}
	c.append(Placed{Incarnations: incs, Standbys: slices.Clone(c.standbys), Recovering: slices.Clone(c.recover), Handed: handed})
}

// acknowledgements puts every acknowledgement of the checkpoint under way into the mail that may exist.
func (c *chaos) acknowledgements() {
	if e := c.state.Started(); c.state.Open && c.triggered[e] {
		for t, inc := range c.state.Incarnations {
			a := Ack{Task: determinant.TaskID(t), Incarnation: inc, Epoch: e, Worker: determinant.WorkerID(100*t) + determinant.WorkerID(inc), Primary: true}
			if c.recover[t] {
				continue
			}
			c.mail = append(c.mail, a)
			for _, w := range c.standbys[t] {
				c.mail = append(c.mail, Ack{Task: a.Task, Incarnation: inc, Epoch: e, Worker: w})
			}
		}
	}
}

func (c *chaos) deliver(a Ack) {
	c.acked[ackKey{Task: a.Task, Incarnation: a.Incarnation, Epoch: a.Epoch, Worker: a.Worker}] = true
	if a.Primary {
		c.acked[ackKey{Task: a.Task, Incarnation: a.Incarnation, Epoch: a.Epoch, Primary: true}] = true
	}
	c.step(a)
}

// catchUp tells a replica everything that is committed.
func (c *chaos) catchUp(i int) {
	for ; c.behind[i] < len(c.ledger); c.behind[i]++ {
		if effects := c.replicas[i].Step(c.ledger[c.behind[i]]); len(effects) > 0 {
			c.fail("replica %d speaks without leading: %v", i, effects)
		}
	}
}

func take[T any](c *chaos, list *[]T) T {
	i := c.pick(len(*list))
	item := (*list)[i]
	*list = slices.Delete(*list, i, i+1)
	return item
}

func (c *chaos) act() {
	switch n := c.pick(100); {
	case n < 25:
		c.now += int64(c.pick(60))
		c.step(Tick{Now: c.now})
	case n < 40:
		if len(c.proposals) > 0 {
			c.commit(take(c, &c.proposals))
		}
	case n < 42:
		if len(c.proposals) > 0 { // lost, or committed now and again later
			c.commit(c.proposals[c.pick(len(c.proposals))])
		}
	case n < 44:
		if len(c.proposals) > 0 {
			take(c, &c.proposals)
		}
	case n < 55:
		c.acknowledgements()
	case n < 85:
		if len(c.mail) > 0 {
			c.deliver(take(c, &c.mail))
		}
	case n < 88:
		c.place(func(int) bool { return false })
	case n < 91:
		c.place(func(int) bool { return c.pick(3) == 0 })
	case n < 92:
		c.place(func(int) bool { return true })
	case n < 93:
		c.step(SwitchMode{Mode: determinant.Mode(c.pick(3)), Depth: determinant.Depth(c.pick(3))})
	case n < 94:
		c.step(Failed{Task: 1, Incarnation: c.state.Incarnations[1], Epoch: c.state.Started()})
	case n < 96:
		c.step(Request{})
	case n < 98:
		c.catchUp(c.pick(len(c.replicas)))
	default:
		c.step(Deposed{})
		c.lead = c.pick(len(c.replicas))
		c.catchUp(c.lead)
		c.step(Leader{})
	}
}

// settle stops the faults: a checkpoint must complete.
func (c *chaos) settle() {
	c.place(func(int) bool { return false })
	clear(c.recover)
	c.state.Place(c.state.Incarnations, false)
	c.append(Placed{Incarnations: c.state.Incarnations, Standbys: c.standbys, Recovering: c.recover, Handed: make([]bool, len(c.recover))})
	goal := c.completed + 2
	for range 200 {
		c.now += 20
		c.step(Tick{Now: c.now})
		for len(c.proposals) > 0 {
			c.commit(take(c, &c.proposals))
		}
		c.mail = nil
		c.acknowledgements()
		for len(c.mail) > 0 {
			c.deliver(take(c, &c.mail))
		}
	}
	if c.completed < goal {
		c.fail("no checkpoint completes without faults")
	}
	if c.state.Wanted != nil {
		c.fail("%v waits although nothing is in its way", *c.state.Wanted)
	}
	for i, r := range c.replicas {
		c.catchUp(i)
		got := r.State()
		got.Mutations = 0
		if !reflect.DeepEqual(got, c.state) {
			c.fail("replica %d has %+v, the ledger %+v", i, got, c.state)
		}
	}
}

// TestChaos: whatever order things come in, no epoch is both completed and abandoned, completed epochs rise, each has the
// acknowledgements of every present life, sources hear of every epoch in order, and progress resumes when faults end.
func TestChaos(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newChaos(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }, 0)
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			c.act()
		}
		c.settle()
		require.Empty(t, c.bad)
	})
}

// TestChaosFindsMutants: the checker above notices when a rule is missing.
func TestChaosFindsMutants(t *testing.T) {
	for _, m := range []mutation.Set{mutation.OldAcksCount, mutation.AtLeastOnceCheckpointKept, mutation.StartWhileRecovering} {
		t.Run(m.String(), func(t *testing.T) {
			for seed := range uint64(500) {
				c := newChaos(rand.New(rand.NewPCG(seed, 0)).IntN, m)
				for range 400 {
					c.act()
				}
				if c.bad != "" {
					t.Logf("seed %d: %s", seed, c.bad)
					return
				}
			}
			t.Fatal("nothing found")
		})
	}
}

// TestChaosCompletes: the runs are not empty.
func TestChaosCompletes(t *testing.T) {
	completed, abandoned := 0, 0
	for seed := range uint64(50) {
		c := newChaos(rand.New(rand.NewPCG(seed, 0)).IntN, 0)
		for range 1000 {
			c.act()
		}
		c.settle()
		require.Empty(t, c.bad, "seed %d", seed)
		for _, how := range c.ended {
			if how == "completed" {
				completed++
			} else {
				abandoned++
			}
		}
	}
	t.Logf("%d completed, %d abandoned", completed, abandoned)
	require.Greater(t, completed, 200)
	require.Greater(t, abandoned, 200)
}

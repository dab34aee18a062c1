package standby

import (
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// cluster is one coordinator, its ledger and the promotions of all hosts, in one thread. Proposals stay in flight until
// somebody commits or loses them.
type cluster struct {
	config     Config
	decider    *Decider
	first      State     // what the ledger began with
	ledger     []Command // committed, in order
	inFlight   []Command
	dead       []determinant.WorkerID // really gone, whoever knows
	promotions []*Promotion           // by task; nil if none
	starts     []int                  // by task
	effects    []string               // what happened, for stories
	clock      int64                  // of the newest tick
}

func newCluster(c Config, s State) *cluster {
	n := c.Topology.Tasks
	return &cluster{config: c, first: s, decider: NewDecider(c, s), promotions: make([]*Promotion, n), starts: make([]int, n)}
}

func (c *cluster) note(format string, args ...any) {
	c.effects = append(c.effects, fmt.Sprintf(format, args...))
}

// step feeds the coordinator.
func (c *cluster) step(ev Event) {
	if tick, ok := ev.(Tick); ok {
		c.clock = tick.Now
	}
	for _, e := range c.decider.Step(ev) {
		c.note("coordinator: %v", e)
		if p, ok := e.(Propose); ok {
			c.inFlight = append(c.inFlight, p.Command)
		}
	}
}

// commit puts one command in the ledger and lets every host see the decision that results.
func (c *cluster) commit(cmd Command) {
	before := c.decider.State().Round
	c.ledger = append(c.ledger, cmd)
	c.step(Committed{Command: cmd})
	d, ok := cmd.(Decision)
	switch {
	case ok && c.decider.State().Round == before:
		c.note("ledger: refused %v", d)
	case ok:
		c.note("ledger: %v", d)
		for _, p := range d.Tasks {
			c.note("    %v", p)
		}
		c.announce(d)
	}
}

// commitNext commits the oldest proposal in flight.
func (c *cluster) commitNext() bool {
	if len(c.inFlight) == 0 {
		return false
	}
	cmd := c.inFlight[0]
	c.inFlight = c.inFlight[1:]
	c.commit(cmd)
	return true
}

func (c *cluster) commitAll() {
	for c.commitNext() {
	}
}

// checkpoint commits one that every primary and standby holds.
func (c *cluster) checkpoint(e determinant.Epoch, open EpochMode) {
	cmd := Checkpoint{Committed: e, Since: []EpochMode{open}}
	for _, p := range c.decider.State().Tasks {
		cmd.Holders = append(cmd.Holders, with(p.Standbys, ws{p.Worker}))
	}
	c.commit(cmd)
}

// quiet lets time pass in which recoveries end, standbys come into place, the ledger takes everything, and a checkpoint completes.
func (c *cluster) quiet(passes int64) {
	s := c.decider.State()
	for _, p := range s.Tasks {
		if p.Recovering && p.Worker != 0 {
			c.step(CaughtUp{Task: p.Task, Incarnation: p.Incarnation})
		}
		for _, w := range p.Standbys {
			c.step(Holding{Worker: w, Task: p.Task, Epoch: s.Checkpoint})
		}
	}
	c.step(Tick{Now: c.clock + passes})
	c.commitAll()
	c.checkpoint(s.Checkpoint+1, EpochMode{Depth: s.Depth})
	c.commitAll()
}

// announce is what the hosts do with a decision.
func (c *cluster) announce(d Decision) {
	for t, p := range d.Tasks {
		old := c.promotions[t]
		if old != nil && (old.Incarnation() < p.Incarnation || d.Rollback) {
			c.promote(t, Superseded{Incarnation: p.Incarnation})
			c.promotions[t] = nil
		}
		if !p.Recovering || p.Worker == 0 || slices.Contains(c.dead, p.Worker) {
			continue
		}
		if c.promotions[t] == nil {
			c.promotions[t] = NewPromotion(p.Task, p.Incarnation, c.config.Mutations)
		}
		ev := Decided{Round: d.Round, Base: baseOf(d.Checkpoint)}
		if d.Collect {
			ev.Hear, ev.Stores = d.Hear, c.config.Topology.Sinks
		}
		c.promote(t, ev)
	}
}

// baseOf invents the log offset of a checkpoint.
func baseOf(e determinant.Epoch) determinant.LogOffset { return determinant.LogOffset(10 * e) }

// promote feeds the promotion of a task.
func (c *cluster) promote(t int, ev PromotionEvent) {
	p := c.promotions[t]
	if p == nil {
		return
	}
	where := c.decider.Task(determinant.TaskID(t)).Worker
	for _, e := range p.Step(ev) {
		c.note("task %d on %d: %v", t, where, e)
		switch e := e.(type) {
		case Start:
			c.starts[t]++
		case Rollback:
			c.step(RollbackWanted{Task: p.Task(), Incarnation: p.Incarnation(), Cause: e.Cause})
		}
	}
}

// answerAll lets every live worker, and the stores if they can be reached, answer what is missing.
func (c *cluster) answerAll(stores bool) {
	for t, p := range c.promotions {
		if p == nil {
			continue
		}
		for _, o := range slices.Clone(p.Missing()) {
			if o.IsStore && !stores || slices.Contains(c.dead, o.Worker) {
				continue
			}
			c.promote(t, Answer{From: o, Round: p.Round(), Copy: causal.Copy{Task: p.Task()}})
		}
	}
}

func (c *cluster) stateReady() {
	for t := range c.promotions {
		c.promote(t, StateReady{})
	}
}

// newLeader replaces the coordinator by one that knows the ledger alone. Proposals in flight stay where they are.
func (c *cluster) newLeader() {
	d := NewDecider(c.config, c.first)
	for _, cmd := range c.ledger {
		d.Apply(cmd)
	}
	c.decider = d
	c.step(Leader{})
}

// die kills workers; the coordinator is told separately.
func (c *cluster) die(workers ...determinant.WorkerID) {
	c.dead = with(c.dead, workers)
	for t := range c.promotions {
		if slices.Contains(workers, c.decider.Task(determinant.TaskID(t)).Worker) {
			c.promotions[t] = nil
		}
	}
}

// topologies of the stories and tests, the same as the model's.
func topologyNamed(name string) *Topology {
	switch name {
	case "line": // 0 -> 1 -> 2 -> 3 -> 4 -> store
		return line(5)
	case "chain": // 0 -> 1 -> 2 -> store
		return line(3)
	case "open": // 0 -> 1 -> 2, whose output keeps no determinants
		t := line(3)
		t.Sinks, t.Open = nil, t.Sinks
		return t
	case "skew": // 0 -> 1 -> 2 -> 3 -> 4 -> store, and 0 -> 3
		t := line(5)
		t.Down[0] = append(t.Down[0], 3)
		return t
	case "grid": // two sources, two maps, three keyed, two sinks, all shuffled
		return layers(2, 2, 3, 2)
	case "wide": // four tasks each of three vertices, all shuffled
		return layers(4, 4, 4)
	case "diamond": // a source, two ways, a join, a sink
		return &Topology{Tasks: 5, Down: ids([]int{1, 2}, []int{3}, []int{3}, []int{4}, nil), Sinks: []determinant.TaskID{4}}
	}
	return nil
}

func line(n int) *Topology {
	t := &Topology{Tasks: n, Down: make([][]determinant.TaskID, n), Sinks: []determinant.TaskID{determinant.TaskID(n - 1)}}
	for i := range n - 1 {
		t.Down[i] = []determinant.TaskID{determinant.TaskID(i + 1)}
	}
	return t
}

// layers is a graph in which every task of a layer sends to every task of the next.
func layers(width ...int) *Topology {
	t := &Topology{}
	first := 0
	for i, w := range width {
		for j := range w {
			var down []determinant.TaskID
			for k := 0; i+1 < len(width) && k < width[i+1]; k++ {
				down = append(down, determinant.TaskID(first+w+k))
			}
			t.Down = append(t.Down, down)
			t.Vertices = append(t.Vertices, i)
			if i+1 == len(width) {
				t.Sinks = append(t.Sinks, determinant.TaskID(first+j))
			}
		}
		first += w
	}
	t.Tasks = first
	return t
}

func ids(lists ...[]int) [][]determinant.TaskID {
	var out [][]determinant.TaskID
	for _, l := range lists {
		var o []determinant.TaskID
		for _, i := range l {
			o = append(o, determinant.TaskID(i))
		}
		out = append(out, o)
	}
	return out
}

func failedSet(n int, ids ...int) []bool {
	set := make([]bool, n)
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// deployed gives the state of a job that runs, at checkpoint 1, task i on place[i] with standbys[i].
func deployed(place []determinant.WorkerID, standbys [][]determinant.WorkerID, depth determinant.Depth) State {
	s := State{Version: 1, Round: 1, Checkpoint: 1, Depth: depth}
	for i, w := range place {
		s.Tasks = append(s.Tasks, Placement{Task: determinant.TaskID(i), Incarnation: 1, Worker: w, Standbys: standbys[i]})
		s.Holders = append(s.Holders, with(standbys[i], []determinant.WorkerID{w}))
		s.Hear = with(s.Hear, s.Holders[i])
	}
	return s
}

type ws = []determinant.WorkerID

var noMutation mutation.Set

package standby

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
)

// The claims of the recovery papers that this package has to keep.
//
//	AM98    L. Alvisi and K. Marzullo, Message Logging: Pessimistic, Optimistic, Causal, and Optimal. IEEE TSE 24(2), 1998.
//	Clonos  P. F. Silvestre et al., Clonos: Consistent Causal Recovery for Highly-Available Streaming Dataflows. SIGMOD 2021.

// knowledge is who depends on what and who holds what, without any engine: deliveries along edges carry both, what is held
// only as far as the sharing depth goes. The stores of sinks are tasks of their own that never die.
type knowledge struct {
	top     *Topology // the stores included
	reaches [][]bool  // reaches[v][t]: v is handed t's determinants
	made    []int     // determinants that each task has made
	depends [][]int   // depends[v][t]: v depends on the first that many of t
	holds   [][]int
}

func newKnowledge(top *Topology, depth determinant.Depth) *knowledge {
	n := top.Tasks
	all := &Topology{Tasks: n + len(top.Sinks), Down: slices.Clone(top.Down)}
	for i, s := range top.Sinks {
		all.Down[s] = append(slices.Clone(all.Down[s]), determinant.TaskID(n+i))
		all.Down = append(all.Down, nil)
	}
	k := &knowledge{top: all, made: make([]int, all.Tasks)}
	for v := range all.Tasks {
		k.reaches = append(k.reaches, members(all.Tasks, all.Upstream(determinant.TaskID(v), depth)))
		k.depends = append(k.depends, make([]int, all.Tasks))
		k.holds = append(k.holds, make([]int, all.Tasks))
	}
	return k
}

// choose makes one determinant of task v.
func (k *knowledge) choose(v int) {
	k.made[v]++
	k.depends[v][v], k.holds[v][v] = k.made[v], k.made[v]
}

// deliver takes one element from u to v: with it comes the delta, before it v chooses to take it.
func (k *knowledge) deliver(u, v int) {
	for t := range k.made {
		k.depends[v][t] = max(k.depends[v][t], k.depends[u][t])
		if k.reaches[v][t] {
			k.holds[v][t] = max(k.holds[v][t], k.holds[u][t])
		}
	}
	k.choose(v)
}

// orphans tells whether some live task depends on a determinant that nobody alive holds.
func (k *knowledge) orphans(failed []bool) bool {
	dead := func(v int) bool { return v < len(failed) && failed[v] }
	for t := range k.made {
		known, needed := 0, 0
		for v := range k.made {
			if !dead(v) {
				known = max(known, k.holds[v][t])
				needed = max(needed, k.depends[v][t])
			}
		}
		if needed > known {
			return true
		}
	}
	return false
}

// AM98, abstract: "no orphan processes", that is, no survivor whose state is inconsistent with the recovered state of a
// crashed process. What Recoverable lets pass leaves none, whatever was delivered before.
func TestPaperAlwaysNoOrphans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top := drawTopology(t)
		depth := determinant.Depth(rapid.IntRange(1, 4).Draw(t, "depth"))
		k := newKnowledge(top, depth)
		for range rapid.IntRange(1, 60).Draw(t, "deliveries") {
			u := rapid.IntRange(0, top.Tasks-1).Draw(t, "from")
			k.choose(u)
			if down := k.top.Down[u]; len(down) > 0 {
				k.deliver(u, int(rapid.SampledFrom(down).Draw(t, "to")))
			}
		}
		failed := rapid.SliceOfN(rapid.Bool(), top.Tasks, top.Tasks).Draw(t, "failed")
		if ok, _ := top.Recoverable(failed, depth); ok {
			require.False(t, k.orphans(failed), "recoverable, and yet somebody is an orphan")
		}
	})
}

// DESIGN.md 7: the longest path counts. With the shortest instead, the skewed graph makes an orphan: task 3 is one hop below
// task 0, but what it took came the long way, from a task that was never handed task 0's determinants.
func TestPaperShortestPathMakesOrphans(t *testing.T) {
	top := topologyNamed("skew")
	top.Down[1] = append(top.Down[1], 3) // every failed task is one hop above task 3
	k := newKnowledge(top, 1)
	for _, u := range []int{0, 1, 2} {
		k.choose(u)
		k.deliver(u, u+1)
	}
	failed := failedSet(5, 0, 1, 2)
	require.True(t, k.orphans(failed))
	ok, _ := top.recoverable(failed, 1, shorter)
	require.True(t, ok, "the mutant lets it pass")
	ok, why := top.Recoverable(failed, 1)
	require.False(t, ok)
	require.Contains(t, why, "3 hops from failed task 0 to live task 3")
}

// AM98, abstract: protocols for f overlapping failures and recoveries, for a parameter f from 1 to n. Clonos offers it as the
// determinant sharing depth. With one task a worker, f failures need f hops: less is not enough where f tasks form a path,
// and more is never needed.
func TestPaperFailuresNeedAsManyHops(t *testing.T) {
	const n = 6
	top := line(n)
	place := make(ws, n)
	for i := range place {
		place[i] = determinant.WorkerID(i + 1)
	}
	for f := 1; f <= n; f++ {
		depth := determinant.Depth(f)
		require.Equal(t, depth, AutoDepth(top, place, f))
		var path []int // the f tasks from the source on
		for i := range f {
			path = append(path, i)
		}
		for d := depth - 1; d <= depth; d++ {
			k := newKnowledge(top, d)
			for _, u := range path {
				k.choose(u)
				k.deliver(u, u+1)
			}
			require.Equal(t, d < depth, k.orphans(failedSet(n, path...)), "f %d depth %d", f, d)
			ok, _ := top.Recoverable(failedSet(n, path...), d)
			require.Equal(t, d >= depth, ok)
		}
	}
	for _, name := range names {
		top := topologyNamed(name)
		for f := 1; f <= 3; f++ {
			alone := make(ws, top.Tasks)
			for i := range alone {
				alone[i] = determinant.WorkerID(i + 1)
			}
			require.LessOrEqual(t, int(AutoDepth(top, alone, f)), f, "%s: %d failures", name, f)
		}
	}
}

// AM98, abstract: overlapping failures *and recoveries*: a process that recovers is no help to others yet. Clonos counts it
// as live as soon as it runs.
func TestPaperOverlappingRecoveries(t *testing.T) {
	for _, caughtUp := range []bool{false, true} {
		s := deployed(ws{1, 2, 3}, []ws{{4}, {4}, {5}}, 1)
		c := newCluster(Config{Topology: line(3)}, s)
		c.die(2)
		c.step(Dead{Workers: ws{2}})
		c.commitAll()
		if caughtUp {
			c.step(CaughtUp{Task: 1, Incarnation: 2})
			c.commitAll()
		}
		c.die(3)
		c.step(Dead{Workers: ws{3}})
		c.commitAll()
		require.Equal(t, !caughtUp, c.decider.State().Generation == 1, "rolled back; caught up %v", caughtUp)
	}
}

// Clonos, abstract: "instantly switching to passive standby operators". One commit names the standby that has the state;
// nothing else has to be decided, and no task that lives changes.
func TestPaperOneCommitSwitches(t *testing.T) {
	s := deployed(ws{1, 2, 3}, []ws{{4}, {4}, {5}}, 0)
	c := newCluster(Config{Topology: line(3)}, s)
	c.die(2)
	c.step(Dead{Workers: ws{2}})
	require.Len(t, c.inFlight, 1)
	d := c.inFlight[0].(Decision)
	require.Equal(t, Placement{Task: 1, Incarnation: 2, Worker: 4, Recovering: true, Standbys: ws{}}, d.Tasks[1])
	require.Equal(t, []Placement{s.Tasks[0], s.Tasks[2]}, []Placement{d.Tasks[0], d.Tasks[2]})
}

// DESIGN.md 16: in Clonos recovery goes one after the other along a chain of failed tasks. Here none waits for another.
func TestPaperChainsRecoverSideBySide(t *testing.T) {
	s := deployed(ws{1, 2, 3}, []ws{{4}, {4}, {4}}, 0)
	c := newCluster(Config{Topology: line(3)}, s)
	c.die(1, 2, 3)
	c.step(Dead{Workers: ws{1, 2, 3}})
	c.commitAll()
	for _, p := range c.promotions {
		for _, o := range p.Missing() {
			require.True(t, o == FromWorker(4) || o == FromStore(2), "a recovering task is asked: %v", o)
		}
	}
	c.answerAll(true)
	c.stateReady()
	require.Equal(t, []int{1, 1, 1}, c.starts)
}

// DESIGN.md 16: Clonos counts replies without looking at who sent them, and takes the longest log unchecked.
func TestPaperAnswersAreCountedByOriginAndChecked(t *testing.T) {
	p := NewPromotion(1, 2, noMutation)
	p.Step(Decided{Round: 1, Hear: ws{1, 2}, StateReady: true})
	log := func(s string) causal.Copy { return causal.Copy{Task: 1, Bytes: []byte(s)} }
	require.Empty(t, p.Step(Answer{From: FromWorker(1), Round: 1, Copy: log("ab")}))
	require.Empty(t, p.Step(Answer{From: FromWorker(1), Round: 1, Copy: log("ab")}), "the same worker again")
	require.Empty(t, p.Step(Answer{From: FromWorker(3), Round: 1, Copy: log("ab")}), "one who was not asked")
	require.Equal(t, []Origin{FromWorker(2)}, p.Missing())
	got := p.Step(Answer{From: FromWorker(2), Round: 1, Copy: log("xbc")})
	require.Equal(t, []PromotionEffect{Rollback{Cause: "copies of log 1 from worker 1 and worker 2 differ at 0"}}, got)
}

// DESIGN.md 16: in Clonos a dead standby may be promoted, and a used one is never replaced.
func TestPaperStandbysAreAliveAndReplaced(t *testing.T) {
	s := deployed(ws{1, 2, 3}, []ws{{4}, {4}, {5}}, 0)
	s.Holders[1] = ws{2, 3, 4}
	c := newCluster(Config{Topology: line(3)}, s)
	c.die(4)
	c.step(Dead{Workers: ws{4}})
	c.commitAll()
	require.Len(t, c.decider.Task(0).Standbys, 1)
	c.die(2)
	c.step(Dead{Workers: ws{2}})
	c.commitAll()
	task := c.decider.Task(1)
	require.Equal(t, determinant.WorkerID(3), task.Worker, "the one live worker that has the state")
	require.Len(t, task.Standbys, 1)
	require.NotContains(t, task.Standbys, task.Worker)
}

package standby

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

// shares counts for each two workers how many tasks of the first have a standby on the second.
func shares(tasks []Placement) map[[2]determinant.WorkerID]int {
	n := map[[2]determinant.WorkerID]int{}
	for _, p := range tasks {
		for _, w := range p.Standbys {
			n[[2]determinant.WorkerID{p.Worker, w}]++
		}
	}
	return n
}

// lopsided says where one of the workers has two standbys more than another of the tasks of a third; empty if nowhere.
func lopsided(tasks []Placement, workers ws) string {
	n := shares(tasks)
	for _, dead := range workers {
		for _, a := range without(workers, ws{dead}) {
			for _, b := range without(workers, ws{dead}) {
				more, fewer := n[[2]determinant.WorkerID{dead, a}], n[[2]determinant.WorkerID{dead, b}]
				if more > fewer+1 {
					return fmt.Sprintf("of the tasks of worker %d, %d have a standby on worker %d but %d on worker %d", dead, more, a, fewer, b)
				}
			}
		}
	}
	return ""
}

// A checker that cannot fail is none.
func TestLopsidedIsNoticed(t *testing.T) {
	s := deployed(ws{1, 1, 2, 2, 3}, []ws{{2}, {2}, {1}, {3}, {1}}, 0)
	require.Equal(t, "of the tasks of worker 1, 2 have a standby on worker 2 but 0 on worker 3", lopsided(s.Tasks, ws{1, 2, 3}))
	before := uneven(line(5), s.Tasks, ws{1, 2, 3})
	s.Tasks[1].Standbys = ws{3}
	require.Empty(t, lopsided(s.Tasks, ws{1, 2, 3}))
	after := uneven(line(5), s.Tasks, ws{1, 2, 3})
	require.Negative(t, slices.Compare(after[:], before[:]))
}

// uneven is what falls with every move: four sums of squares, of which the first decides that differs. They are of how many tasks
// run on each worker; how many tasks of each worker have a standby on each other; how many of each vertex run on each worker when another
// one is dead, if its standbys there take over; and how many tasks and standbys there are on each worker.
func uneven(top *Topology, tasks []Placement, workers ws) (sums [4]int) {
	for _, w := range workers {
		runs, all := 0, 0
		for _, p := range tasks {
			if p.Worker == w {
				runs++
				all++
			}
			if slices.Contains(p.Standbys, w) {
				all++
			}
		}
		sums[0] += runs * runs
		sums[3] += all * all
		for _, dead := range without(workers, ws{w}) {
			shared := 0
			vertices := map[int]int{}
			for _, p := range tasks {
				takes := p.Worker == dead && slices.Contains(p.Standbys, w)
				if takes {
					shared++
				}
				if takes || p.Worker == w {
					vertices[top.vertex(p.Task)]++
				}
			}
			sums[1] += shared * shared
			for v := range top.Tasks {
				sums[2] += vertices[v] * vertices[v]
			}
		}
	}
	return sums
}

// spreading is a cluster in which workers come and go.
type spreading struct {
	*cluster
	t    require.TestingT
	live ws
	next determinant.WorkerID
}

func newSpreading(t *rapid.T) *spreading {
	width := rapid.SliceOfN(rapid.IntRange(1, 7), 1, 4).Draw(t, "widths")
	config := Config{Topology: layers(width...), Standbys: rapid.IntRange(1, 2).Draw(t, "standbys"), BalanceAfter: 1000}
	s := &spreading{cluster: newCluster(config, State{}), t: t, next: 1}
	for range rapid.IntRange(2, 6).Draw(t, "workers") {
		s.join()
	}
	s.step(Deploy{})
	s.commitAll()
	return s
}

func (s *spreading) join() {
	s.live = append(s.live, s.next)
	s.step(Joined{Worker: s.next})
	s.next++
}

// lose has a worker die.
func (s *spreading) lose(w determinant.WorkerID) {
	s.live = without(s.live, ws{w})
	s.die(w)
	s.step(Dead{Workers: ws{w}})
	s.commitAll()
}

// disturb has a worker join, die, or leave.
func (s *spreading) disturb(t *rapid.T) {
	victim := rapid.SampledFrom(s.live).Draw(t, "victim")
	switch what := rapid.IntRange(0, 2).Draw(t, "what"); {
	case len(s.live) < 6 && (what == 0 || len(s.live) < 3):
		s.join()
	case what == 1:
		s.lose(victim)
	default:
		s.step(Drain{Worker: victim})
		s.commitAll()
		drained := func(l DrainStatus) bool { return l.Worker == victim && l.Done }
		for n := 0; !slices.ContainsFunc(s.decider.Drains(), drained); n++ {
			require.Less(s.t, n, 100, "no end of the drain: %v", s.decider.Drains())
			s.quiet(100)
		}
		s.lose(victim)
	}
}

// lost tells whether the last worker is gone that had the state of a task: the job waits for it, for ever.
func (s *spreading) lost() bool {
	return slices.ContainsFunc(s.decider.State().Tasks, func(p Placement) bool {
		return p.Worker == 0 && !slices.ContainsFunc(s.live, func(w determinant.WorkerID) bool { return s.decider.holds(w, p.Task) })
	})
}

// wholeNow tells whether each task runs and has the standbys that it should.
func (s *spreading) wholeNow() bool {
	n := min(s.config.Standbys, len(s.live)-1)
	return !slices.ContainsFunc(s.decider.State().Tasks, func(p Placement) bool { return p.Worker == 0 || p.Recovering || len(p.Standbys) != n })
}

// settle lets time pass until nothing moves any more, and checks that each move left the job more even than it was.
func (s *spreading) settle() {
	var before [4]int
	var tasks []Placement
	for still, n := 0, 0; still < 8; still, n = still+1, n+1 { // more than the calm that a move waits for
		require.Less(s.t, n, 300, "no end of moves")
		s.quiet(200)
		if !s.wholeNow() {
			still = 0
			continue
		}
		now := s.decider.State().Tasks
		for t := range now {
			now[t].Incarnation = 0
		}
		sums := uneven(s.config.Topology, now, s.live)
		if tasks != nil && !slices.EqualFunc(tasks, now, samePlace) {
			require.Negative(s.t, slices.Compare(sums[:], before[:]), "from %v %v\nto %v %v", before, tasks, sums, now)
			still = 0
		}
		before, tasks = sums, now
	}
}

func samePlace(a, b Placement) bool {
	return a.Worker == b.Worker && slices.Equal(a.Standbys, b.Standbys)
}

// afterDeath gives the places that would be decided if a worker died now.
func (s *spreading) afterDeath(w determinant.WorkerID) []Placement {
	d := NewDecider(s.config, s.decider.State())
	for _, w := range s.live {
		d.Step(Joined{Worker: w})
	}
	return d.Step(Dead{Workers: ws{w}})[0].(Propose).Command.(Decision).Tasks
}

// takes counts the tasks that a worker had that died, and those of them that one survivor has, where those are most.
func takes(before, after []Placement, dead determinant.WorkerID) (n, most int) {
	got := map[determinant.WorkerID]int{}
	for t, p := range before {
		if p.Worker == dead {
			n++
			got[after[t].Worker]++
			most = max(most, got[after[t].Worker])
		}
	}
	return n, most
}

// Whatever came before, when a job has settled no survivor of a death takes over more than its share.
func TestSurvivorsShareAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSpreading(t)
		for range rapid.IntRange(0, 6).Draw(t, "disturbances") {
			if rapid.Bool().Draw(t, "settled") {
				s.settle()
			}
			s.disturb(t)
			if s.lost() {
				return
			}
		}
		s.settle()
		tasks := s.decider.State().Tasks
		require.Empty(t, lopsided(tasks, s.live), "%v", tasks)
		for _, w := range s.live {
			if len(s.live) < 2 {
				continue
			}
			next := s.afterDeath(w)
			n, most := takes(tasks, next, w)
			allowed := share(n, len(s.live)-1)
			if s.config.Standbys > 1 {
				allowed++ // whose turn it is depends on who else could take over
			}
			require.LessOrEqual(t, most, allowed, "worker %d dies: %v", w, tasks)
		}
	})
}

// With a choice between standbys, tasks of a worker that dies go to each in turn, although their load stays the same: a
// standby was counted as one before.
func TestPickSharesOut(t *testing.T) {
	both := ws{2, 3}
	s := deployed(ws{1, 1, 1, 1, 2, 2, 3}, []ws{both, both, both, both, {1}, {1}, {1}}, 0)
	d := NewDecider(Config{Topology: layers(4, 3), Standbys: 2}, s)
	next := d.Step(Dead{Workers: ws{1}})[0].(Propose).Command.(Decision)
	require.Equal(t, ws{3, 2, 3, 2, 2, 2, 3}, places(next.Tasks))
}

// Of the tasks of the worker that has most, one moves whose vertex has most there, whatever else is said for another.
func TestMoveKeepsVerticesApart(t *testing.T) {
	s := deployed(ws{1, 1, 1, 1, 2}, []ws{{2}, {3}, {3}, {3}, {1}}, 0)
	d := NewDecider(Config{Topology: layers(1, 1, 2, 1), BalanceAfter: 1000}, s)
	d.Step(Tick{Now: 1000})
	d.Step(Tick{Now: 2000})
	require.Equal(t, determinant.TaskID(2), d.balance.move.task)
	require.Equal(t, determinant.WorkerID(3), d.balance.move.to)
}

// Where no standby has a better place nobody looks again, until somebody comes.
func TestNewcomerIsLookedAt(t *testing.T) {
	c := newCluster(Config{Topology: line(3), BalanceAfter: 1000}, deployed(ws{1, 2, 3}, []ws{{2}, {3}, {1}}, 0))
	for now := int64(1000); now <= 5000; now += 100 {
		c.step(Tick{Now: now})
	}
	require.Empty(t, c.inFlight)
	require.Equal(t, c.decider.state.Version, c.decider.balance.spread)
	c.step(Joined{Worker: 4})
	require.Equal(t, []Command{AssignStandby{Task: 0, Incarnation: 1, Worker: 4}}, c.inFlight)
	c.commitAll()
	c.step(Tick{Now: 7000})
	require.Empty(t, c.inFlight, "the old standby stays until the new one has the state")
	c.step(Holding{Worker: 4, Task: 0, Epoch: 1})
	require.Equal(t, []Command{ReleaseStandby{Task: 0, Incarnation: 1, Worker: 2}}, c.inFlight)
}

func places(tasks []Placement) (on ws) {
	for _, p := range tasks {
		on = append(on, p.Worker)
	}
	return on
}

// A job of four vertices of four tasks each: every worker has about as many of each vertex, before a death and after it. It is so as
// the job is first placed, and again whenever one worker has died, another has come, and all is settled. One task more may be there
// after a death if there were others before, or two standbys: whole shares come first.
func TestVerticesAreApart(t *testing.T) {
	for workers := 3; workers <= 6; workers++ {
		for _, standbys := range []int{1, 2} {
			config := Config{Topology: layers(4, 4, 4, 4), Standbys: standbys, BalanceAfter: 1000}
			s := &spreading{cluster: newCluster(config, State{}), t: t, next: 1}
			for range workers {
				s.join()
			}
			s.step(Deploy{})
			s.commitAll()
			for round := range 5 {
				tasks := s.decider.State().Tasks
				require.LessOrEqual(t, mostOfOneVertex(config.Topology, tasks), share(4, workers), "%d workers, round %d: %v", workers, round, tasks)
				allowed := share(4, workers-1)
				if round > 0 || standbys > 1 {
					allowed++
				}
				for _, w := range s.live {
					require.LessOrEqual(t, mostOfOneVertex(config.Topology, s.afterDeath(w)), allowed, "%d workers, round %d, %d dies: %v", workers, round, w, tasks)
				}
				s.settle()
				s.lose(s.live[round%workers])
				s.join()
				s.settle()
			}
		}
	}
}

// share is how many of n one of so many has at most when they share alike.
func share(n, among int) int { return (n + among - 1) / among }

// mostOfOneVertex counts the tasks of one vertex on one worker where there are most.
func mostOfOneVertex(top *Topology, tasks []Placement) (most int) {
	n := map[[2]int]int{}
	for _, p := range tasks {
		at := [2]int{int(p.Worker), top.Vertices[p.Task]}
		n[at]++
		most = max(most, n[at])
	}
	return most
}

// The search for a standby to move over 1,000 tasks on 20 workers, where there is none.
func BenchmarkSpread(b *testing.B) {
	config, s := manyTasks(250)
	d := NewDecider(config, s)
	workers := d.usable()
	for {
		t, to := d.spread().move(d.state.Tasks, workers)
		if to == 0 {
			break
		}
		p := d.state.Tasks[t]
		worst := d.spread().worst(p, p.Standbys)
		require.True(b, d.Apply(AssignStandby{Task: t, Incarnation: p.Incarnation, Worker: to}))
		require.True(b, d.Apply(ReleaseStandby{Task: t, Incarnation: p.Incarnation, Worker: worst}))
	}
	require.Empty(b, lopsided(d.state.Tasks, workers))
	for b.Loop() {
		d.spread().move(d.state.Tasks, workers)
	}
}

// What is left to make up for when tasks are lost again is added to what that takes, but nothing rests for longer than 10 s.
func TestLossesAddUp(t *testing.T) {
	b := &balance{}
	b.noteLoss(true, 1000)
	b.noteLoss(true, 2000)
	b.noteLoss(false, 3000)
	require.EqualValues(t, 9000, b.rest)
	b.noteLoss(true, 4000)
	b.noteLoss(false, 4100)
	require.EqualValues(t, 9300, b.rest)
	b.noteLoss(false, 4200)
	b.noteLoss(true, 20_000)
	b.noteLoss(false, 20_500)
	require.EqualValues(t, 22_000, b.rest, "the earlier ones are over")
	b.noteLoss(true, 21_000)
	b.noteLoss(false, 26_000)
	require.EqualValues(t, 36_000, b.rest)
}

// Tasks of a job that waits for its first workers are not lost: no source has anything to make up for.
func TestNothingIsLostBeforeTheFirstDecision(t *testing.T) {
	c := newCluster(Config{Topology: line(3), BalanceAfter: 1000}, State{})
	c.step(Tick{Now: 1000})
	c.step(Tick{Now: 9000})
	require.Zero(t, c.decider.balance.lost)
	c.step(Joined{Worker: 1})
	c.step(Deploy{})
	c.commitAll()
	c.step(Tick{Now: 10_000})
	require.Zero(t, c.decider.balance.rest)
}

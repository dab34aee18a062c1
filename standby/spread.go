package standby

import (
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// spread counts what is where, as far as it matters for the place of a standby. The standbys of one worker's tasks belong on
// all other workers alike: when it dies, each of them takes over the same share of its tasks (declustering: Hsiao and DeWitt,
// Chained Declustering, ICDE 1990, who call this one interleaved).
//
// Invariant: with tasks where they are, a standby moves only to a place of lower rank, itself counted. Each of the three
// numbers of a rank is a count, and to take one thing from a count of n and add it to one of m changes the sum of the squares of
// all such counts by 2(m+1-n). So the three sums, compared like ranks, fall with every move, and moves end. In the end no worker
// has two standbys more than another of the tasks of any third one.
type spread struct {
	topology *Topology
	shared   map[[2]determinant.WorkerID]int // how many tasks that run on the first have a standby on the second
	alike    map[ofVertex]int                // the same, by vertex
	own      map[ofVertex]int                // how many tasks of a vertex run on a worker
	total    *load
}

// ofVertex is what the tasks of one vertex are counted by.
type ofVertex struct {
	primary determinant.WorkerID // 0: any
	on      determinant.WorkerID
	vertex  int
}

// rank is how bad a worker is as the place of a task or a standby; earlier numbers decide first.
type rank [3]int

func (r rank) compare(o rank) int { return slices.Compare(r[:], o[:]) }

// plus adds n to each number.
func (r rank) plus(n int) rank { return rank{r[0] + n, r[1] + n, r[2] + n} }

// minus subtracts o, number by number.
func (r rank) minus(o rank) rank { return rank{r[0] - o[0], r[1] - o[1], r[2] - o[2]} }

func spreadOf(t *Topology, tasks []Placement) *spread {
	s := &spread{topology: t, shared: map[[2]determinant.WorkerID]int{}, alike: map[ofVertex]int{}, own: map[ofVertex]int{}, total: &load{}}
	for _, p := range tasks {
		s.addTask(p.Task, p.Worker)
		for _, w := range p.Standbys {
			s.add(p, w, 1)
		}
	}
	return s
}

// addTask counts a task on w. Worker 0 is nowhere.
func (s *spread) addTask(t determinant.TaskID, w determinant.WorkerID) {
	if w != 0 {
		s.own[ofVertex{on: w, vertex: s.topology.vertex(t)}]++
		s.total.add(w, 1)
	}
}

// add counts n more standbys of a task on w.
func (s *spread) add(p Placement, w determinant.WorkerID, n int) {
	if p.Worker != 0 {
		s.shared[[2]determinant.WorkerID{p.Worker, w}] += n
		s.alike[ofVertex{p.Worker, w, s.topology.vertex(p.Task)}] += n
	}
	s.total.add(w, n)
}

// peers counts the tasks of the same vertex as t that run on w.
func (s *spread) peers(t determinant.TaskID, w determinant.WorkerID) int {
	return s.own[ofVertex{on: w, vertex: s.topology.vertex(t)}]
}

// rank tells how bad w is as the place of a standby of a task: by how many tasks of this task's worker have a standby there,
// then by how many tasks of its vertex run there when that worker has died, and then by how much is there at all.
func (s *spread) rank(p Placement, w determinant.WorkerID) rank {
	return rank{
		s.shared[[2]determinant.WorkerID{p.Worker, w}],
		s.peers(p.Task, w) + s.alike[ofVertex{p.Worker, w, s.topology.vertex(p.Task)}],
		s.total.of(w),
	}
}

// worst gives the standby of a task, among these, that does most harm where it is; the lowest id among equals.
func (s *spread) worst(p Placement, standbys []determinant.WorkerID) determinant.WorkerID {
	return leastBy(standbys, func(w determinant.WorkerID) rank { return rank{}.minus(s.rank(p, w)) })
}

// leastBy gives the worker of the lowest rank, the lowest id among equals, 0 if there are none.
func leastBy(workers []determinant.WorkerID, of func(w determinant.WorkerID) rank) (best determinant.WorkerID) {
	var lowest rank
	for _, w := range workers {
		r := of(w)
		if c := r.compare(lowest); best == 0 || c < 0 || c == 0 && w < best {
			best, lowest = w, r
		}
	}
	return best
}

// move finds the move of a standby that makes the spread most even, 0 if none makes it more even.
func (s *spread) move(tasks []Placement, usable []determinant.WorkerID) (task determinant.TaskID, to determinant.WorkerID) {
	var best rank
	for _, p := range tasks {
		if len(p.Standbys) == 0 {
			continue
		}
		from := s.rank(p, s.worst(p, p.Standbys))
		for _, w := range usable {
			if w == p.Worker || slices.Contains(p.Standbys, w) {
				continue
			}
			if gain := s.rank(p, w).plus(1).minus(from); gain.compare(best) < 0 {
				best, task, to = gain, p.Task, w
			}
		}
	}
	return task, to
}

// spread counts what is in place or about to be.
func (d *Decider) spread() *spread {
	s := spreadOf(d.config.Topology, d.state.Tasks)
	for _, c := range d.inFlight {
		switch c := c.(type) {
		case AssignStandby:
			if p := d.state.Tasks[c.Task]; p.Incarnation == c.Incarnation && !slices.Contains(p.Standbys, c.Worker) {
				s.add(p, c.Worker, 1)
			}
		case ReleaseStandby:
			if p := d.state.Tasks[c.Task]; p.Incarnation == c.Incarnation && slices.Contains(p.Standbys, c.Worker) {
				s.add(p, c.Worker, -1)
			}
		}
	}
	return s
}

// spreadStandbys begins to move one standby if that makes the spread more even: the task gets a further one. When that has
// the committed state, proposeReleases takes the worst away, in whose place it is, whoever leads then. Nothing else may be going on,
// or be left to do.
func (d *Decider) spreadStandbys() []Effect {
	b := &d.balance
	if b.spread == d.state.Version || !d.calm() || len(d.inFlight) > 0 || b.move != nil || b.rests(d.time.now, d.config.BalanceAfter/spreadsPerCalm) || AnyRecovering(d.state.Tasks) {
		return nil
	}
	if most, _ := d.extremes(); most != 0 || !d.whole() {
		return nil
	}
	t, to := d.spread().move(d.state.Tasks, d.sound())
	if to == 0 {
		b.spread = d.state.Version
		return nil
	}
	b.moved = d.time.now
	return d.propose(AssignStandby{Task: t, Incarnation: d.state.Tasks[t].Incarnation, Worker: to})
}

// whole tells whether every task has the standbys that it should and can have, no more and no less, all with its committed state.
func (d *Decider) whole() bool {
	usable := len(d.usable())
	return !slices.ContainsFunc(d.state.Tasks, func(p Placement) bool {
		n := min(d.standbysOf(p), usable-1)
		return len(p.Standbys) != n || len(d.ready(p)) != n
	})
}

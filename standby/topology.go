package standby

import (
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// Topology is the graph of one connected component of a job: the unit of checkpoint, depth and rollback. It is not
// changed after Validate.
type Topology struct {
	Tasks int
	Down  [][]determinant.TaskID // direct successors of each task, by id
	Sinks []determinant.TaskID   // tasks whose output goes to a causal store, which keeps determinants and never dies
	Open  []determinant.TaskID   // tasks whose output goes where no determinants are kept
	// Vertices numbers the vertex of each task, by id. Tasks of one vertex do the same work, so they are put on different workers. Nil:
	// each is one of its own.
	Vertices []int
}

// Validate checks that all ids are in range and that the graph has no cycle.
func (t *Topology) Validate() error {
	if len(t.Down) != t.Tasks {
		return fmt.Errorf("standby: topology has %d tasks but successors of %d", t.Tasks, len(t.Down))
	}
	if t.Vertices != nil && len(t.Vertices) != t.Tasks {
		return fmt.Errorf("standby: topology has %d tasks but vertices of %d", t.Tasks, len(t.Vertices))
	}
	for from, down := range t.Down {
		for _, to := range down {
			if int(to) >= t.Tasks {
				return fmt.Errorf("standby: topology: task %d sends to task %d of %d", from, to, t.Tasks)
			}
		}
	}
	for _, ids := range [][]determinant.TaskID{t.Sinks, t.Open} {
		for _, id := range ids {
			if int(id) >= t.Tasks {
				return fmt.Errorf("standby: topology: sink %d of %d tasks", id, t.Tasks)
			}
		}
	}
	if n := len(t.Order()); n != t.Tasks {
		return fmt.Errorf("standby: topology: only %d of %d tasks can be ordered: the graph has a cycle", n, t.Tasks)
	}
	return nil
}

// vertex numbers the vertex of a task.
func (t *Topology) vertex(id determinant.TaskID) int {
	if t.Vertices == nil {
		return int(id)
	}
	return t.Vertices[id]
}

// Order lists the tasks downstream first: every task after all its successors. Ties go by id. Tasks on a cycle, which
// Validate refuses, are left out.
func (t *Topology) Order() []determinant.TaskID {
	up := t.up()
	left := make([]int, t.Tasks) // successors not yet listed
	var order []determinant.TaskID
	for id := range left {
		left[id] = len(t.Down[id])
		if left[id] == 0 {
			order = append(order, determinant.TaskID(id))
		}
	}
	for i := 0; i < len(order); i++ {
		for _, from := range up[order[i]] {
			if left[from]--; left[from] == 0 {
				order = append(order, from)
			}
		}
	}
	return order
}

// up lists the direct predecessors of each task, one entry per edge.
func (t *Topology) up() [][]determinant.TaskID {
	up := make([][]determinant.TaskID, t.Tasks)
	for from, down := range t.Down {
		for _, to := range down {
			up[to] = append(up[to], determinant.TaskID(from))
		}
	}
	return up
}

// Upstream lists the tasks whose determinants reach id: those at most d hops above it by the shortest way, id itself
// left out, downstream first.
func (t *Topology) Upstream(id determinant.TaskID, d determinant.Depth) []determinant.TaskID {
	up := t.up()
	hops := make([]int, t.Tasks)
	for i := range hops {
		hops[i] = none
	}
	hops[id] = 0
	for queue := []determinant.TaskID{id}; len(queue) > 0; queue = queue[1:] {
		for _, from := range up[queue[0]] {
			if hops[from] == none {
				hops[from] = hops[queue[0]] + 1
				queue = append(queue, from)
			}
		}
	}
	var reached []determinant.TaskID
	for _, from := range t.Order() {
		if from != id && hops[from] != none && (d == determinant.Full || hops[from] <= int(d)) {
			reached = append(reached, from)
		}
	}
	return reached
}

// none is the length of a path that does not exist.
const none = -1

// Recoverable tells whether the failed tasks, given by id, can be recovered from what the live ones know at sharing depth
// d: every path, the longest too, from a failed task through failed tasks to a live one or to a causal store is at most d
// hops. If not, why names the longest offender.
//
// The longest path counts, although determinants travel on the shortest: what the live task at the end took over the
// long way was chosen by tasks that never saw the determinants of a task more than d hops above them.
//
// A failed path to an open sink counts as far as that sink, although nobody depends on it there. A worker that once had a task of
// the path may hold choices of its upper end without those that they were made on, which cannot be repeated then. And a sink that
// recovers goes on with what it has taken in its new life.
func (t *Topology) Recoverable(failed []bool, d determinant.Depth) (ok bool, why string) {
	return t.recoverable(failed, d, longer)
}

// recoverable is Recoverable with the choice among the paths of a task left open, for mutation.ShortestPath.
func (t *Topology) recoverable(failed []bool, d determinant.Depth, prefer func(a, b int) bool) (ok bool, why string) {
	if d == determinant.Full {
		return true, ""
	}
	paths := t.paths(failed, prefer)
	for id := range failed {
		if failed[id] && paths[id].hops > int(d) {
			return false, fmt.Sprintf("a path of %d hops from failed task %d to %s exceeds sharing depth %v",
				paths[id].hops, id, paths[id].ends(), d)
		}
	}
	return true, ""
}

// path is a way from a failed task through failed tasks to something that lives.
type path struct {
	hops  int // none if there is no such way
	to    determinant.TaskID
	store bool // it ends in the causal store of task to
	open  bool // it ends in the open sink to, which failed itself
}

func (p path) ends() string {
	switch {
	case p.store:
		return fmt.Sprintf("the store of sink %d", p.to)
	case p.open:
		return fmt.Sprintf("open sink %d", p.to)
	}
	return fmt.Sprintf("live task %d", p.to)
}

func longer(a, b int) bool  { return a > b }
func shorter(a, b int) bool { return a < b }

// paths gives for each failed task the path that prefer likes best; entries of live tasks are meaningless.
func (t *Topology) paths(failed []bool, prefer func(a, b int) bool) []path {
	paths := make([]path, t.Tasks)
	sink := members(t.Tasks, t.Sinks)
	for _, id := range t.Order() {
		best := path{hops: none}
		switch {
		case sink[id]:
			best = path{hops: 1, to: id, store: true}
		case len(t.Down[id]) == 0:
			best = path{to: id, open: true}
		}
		for _, to := range t.Down[id] {
			next := path{hops: 1, to: to}
			if failed[to] {
				if paths[to].hops == none {
					continue
				}
				next = paths[to]
				next.hops++
			}
			if best.hops == none || prefer(next.hops, best.hops) {
				best = next
			}
		}
		paths[id] = best
	}
	return paths
}

// members turns a list of ids into a set.
func members(n int, ids []determinant.TaskID) []bool {
	set := make([]bool, n)
	for _, id := range ids {
		set[id] = true
	}
	return set
}

package standby

import (
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// maxAutoSubsets bounds how many sets of dying workers AutoDepth tries; beyond it the answer is Full.
const maxAutoSubsets = 1 << 16

// AutoDepth gives the least sharing depth, at least 1, at which the loss of any f workers, or fewer, is recoverable when
// task i lives on place[i]. Tasks on one worker die together. It is the longest way through the tasks of f workers to a
// task of another, or to a causal store. Full if there are more than maxAutoSubsets ways to lose f workers.
func AutoDepth(t *Topology, place []determinant.WorkerID, f int) determinant.Depth {
	workers := slices.Compact(slices.Sorted(slices.Values(place)))
	f = min(f, len(workers))
	if tooMany(len(workers), f) {
		return determinant.Full
	}
	depth := 1
	failed := make([]bool, t.Tasks)
	var lose func(from, left int)
	lose = func(from, left int) { // fewer deaths may need more depth: the end of a path must live
		for id, p := range t.paths(failed, longer) {
			if failed[id] {
				depth = max(depth, p.hops)
			}
		}
		for i := from; left > 0 && i < len(workers); i++ {
			mark(failed, place, workers[i], true)
			lose(i+1, left-1)
			mark(failed, place, workers[i], false)
		}
	}
	lose(0, f)
	return determinant.Depth(min(depth, int(determinant.Full)))
}

// mark sets the tasks of one worker failed or not.
func mark(failed []bool, place []determinant.WorkerID, w determinant.WorkerID, to bool) {
	for id := range failed {
		if place[id] == w {
			failed[id] = to
		}
	}
}

// tooMany tells whether there are more than maxAutoSubsets ways to lose at most f of n.
func tooMany(n, f int) bool {
	sum, ways := 1, 1
	for i := 1; i <= f; i++ {
		ways = ways * (n - i + 1) / i
		if sum += ways; sum > maxAutoSubsets {
			return true
		}
	}
	return false
}

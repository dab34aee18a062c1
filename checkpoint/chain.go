package checkpoint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// A chain is the committed state of a task: parts that follow one another without a gap. Let since be the greatest that one of them says. Then what
// changed after that is all of the state, so the first part begins there or before, and those that end there or before are dropped, unread: what
// they have has been written again (the cleaning of Rosenblum and Ousterhout, The Design and Implementation of a Log-Structured File System, 1992,
// but by the task, from memory). A chain that begins at checkpoint 0 has all in any case.

// sinceOf is the checkpoint after which what changed is all of the state, by what the parts say; 0 says nothing.
func sinceOf(chain []part) (since determinant.Epoch) {
	for i := range chain {
		since = max(since, chain[i].since)
	}
	return since
}

// trim divides a chain into the parts that are not needed and those that are. None that is dropped says more than those that stay: it says less
// than its own end.
func trim(chain []part) (old, needed []part) {
	since, n := sinceOf(chain), 0
	for chain[n].epoch <= since {
		n++
	}
	return chain[:n], chain[n:]
}

// stateBytes reckons how many bytes the state takes as one image: what the newest part says or is, or what the first has, or no more than all parts.
func stateBytes(chain []part) uint64 {
	switch newest := &chain[len(chain)-1]; {
	case newest.from > 0 && newest.state > 0:
		return newest.state
	case chain[0].from == 0:
		return chain[0].bytes
	}
	return totalBytes(chain)
}

func totalBytes(chain []part) (bytes uint64) {
	for i := range chain {
		bytes += chain[i].bytes
	}
	return bytes
}

// setChainLocked makes the parts the committed state of their task. s.mu is held.
func (s *Store) setChainLocked(chain []part) {
	since := sinceOf(chain)
	ok := chain[0].from <= since && since < chain[0].epoch
	for i := range chain[1:] {
		ok = ok && chain[i].epoch == chain[i+1].from
	}
	if !ok {
		panic(fmt.Sprintf("checkpoint: assertion failed: these parts are no state: %v", chain))
	}
	s.mu.chains[chain[0].task] = chain
}

// chainOf finds the committed state among the parts of one task that are there: of the chains, that which reaches furthest; of several, that which
// begins first; at each checkpoint it goes on with what leads furthest, and best in one step. The rest is what a crash has left: parts that others
// were merged into, parts before one that is the whole state anew, parts that were dropped since all in them was written again.
//
// A part that may have been written anew (leftover.spare) is never found, whichever of the others are there:
//   - It may end where the chain's since was, or before. That part of the chain which said so is durable, and so each chain that reaches as far
//     has it, or what it was merged into, or begins after it, or begins at checkpoint 0 with a part that ends after it. None has what ended before.
//   - Otherwise it is within a part that is durable, of the chain or dropped like the first, and no part there is has one end within that
//     one and one outside (load, beginMerge, sweepBeyond). So where that part begins, it leads as far as those within it, in one step; and a chain
//     that begins within it begins later than one with it, which also is one: it says as much as they do, or begins at checkpoint 0.
func chainOf(parts []part) (chain, rest []part) {
	order := make([]int, len(parts)) // those behind come before those that they fit on
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := &parts[i], &parts[j]
		return cmp.Or(cmp.Compare(b.epoch, a.epoch), cmp.Compare(b.inc, a.inc), cmp.Compare(b.since, a.since))
	})
	next := make(map[determinant.Epoch]int) // the part to go on with at a checkpoint
	reach, since := make([]determinant.Epoch, len(parts)), make([]determinant.Epoch, len(parts))
	first := -1
	for _, i := range order {
		p := &parts[i]
		reach[i], since[i] = p.epoch, p.since
		if n, ok := next[p.epoch]; ok {
			reach[i], since[i] = reach[n], max(p.since, since[n])
		}
		if n, ok := next[p.from]; !ok || reach[i] > reach[n] {
			next[p.from] = i
		}
	}
	for _, i := range next { // a maximum, whatever the order; no two begin at one checkpoint
		p := &parts[i]
		if p.from > since[i] || since[i] >= p.epoch { // it lacks something, or is not needed
			continue
		}
		if first < 0 || reach[i] > reach[first] || reach[i] == reach[first] && p.from < parts[first].from {
			first = i
		}
	}
	used := make([]bool, len(parts))
	for i, ok := first, first >= 0; ok; i, ok = next[parts[i].epoch] {
		used[i] = true
		chain = append(chain, parts[i])
	}
	for i, p := range parts {
		if !used[i] {
			rest = append(rest, p)
		}
	}
	return chain, rest
}

// mayBeWritten tells whether a part that was found beside a chain never is found in its place, and so may be written anew: chainOf says why.
func mayBeWritten(p part, chain []part) bool {
	return p.epoch <= sinceOf(chain) ||
		slices.ContainsFunc(chain, func(c part) bool { return c.from <= p.from && p.epoch <= c.epoch })
}

package standby

import (
	"fmt"
	"slices"
	"strings"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// plan computes the decision that answers everything reported so far. It changes nothing.
func (d *Decider) plan() Decision {
	s := &d.state
	next := Decision{
		Round: s.Round + 1, Generation: s.Generation, Checkpoint: s.Checkpoint, RollbackTo: s.RollbackTo,
		Dead: with(s.Dead, d.suspects), Hear: d.Live(), Tasks: clonePlacements(s.Tasks),
		Collect: s.Mode.Logs(), Mode: s.Mode, Depth: s.Depth, Basis: s.Version,
	}
	struck := d.strike(&next)
	moved := d.move(&next)
	why, rollback := d.mustRollBack(&next, struck)
	if rollback {
		next.Rollback = true
		next.Generation++
		next.RollbackTo = s.Checkpoint
		for t := range next.Tasks {
			if p := &next.Tasks[t]; p.Incarnation > 0 {
				p.Incarnation = s.Tasks[t].Incarnation + 1
				p.Recovering, p.From = false, 0
			}
		}
	}
	d.place(&next)
	next.Cause = d.cause(&next, moved, why)
	return next
}

// strike raises the incarnations of the tasks that failed and takes their places away.
func (d *Decider) strike(next *Decision) (struck []bool) {
	struck = make([]bool, len(next.Tasks))
	for _, f := range d.failed {
		struck[f.Task] = true
	}
	for t := range next.Tasks {
		p := &next.Tasks[t]
		if p.Worker != 0 && slices.Contains(next.Dead, p.Worker) {
			struck[t] = true
		}
		if struck[t] {
			p.Incarnation++
			p.Recovering = true
			p.Worker, p.From = 0, 0
		}
		if slices.Contains(next.Dead, p.From) {
			p.From = 0
		}
		p.Standbys = without(p.Standbys, next.Dead)
	}
	return struck
}

// mustRollBack tells whether local recovery is out of the question, and why.
func (d *Decider) mustRollBack(next *Decision, struck []bool) (why string, rollback bool) {
	if w := d.wanted; w != nil {
		return fmt.Sprintf("task %d wants it: %s", w.Task, w.Cause), true
	}
	failed := d.failedNow(next, struck)
	if !slices.Contains(failed, true) {
		return "", false
	}
	switch d.state.Mode {
	case determinant.AtLeastOnce:
		return "", false
	case determinant.GlobalRollback, determinant.None:
		return fmt.Sprintf("the mode since checkpoint %d is %v", d.state.Checkpoint, d.state.Mode), true
	}
	if d.config.Mutations.Has(mutation.LocalRuleOff) {
		return "", false
	}
	prefer := longer
	if d.config.Mutations.Has(mutation.ShortestPath) {
		prefer = shorter
	}
	ok, why := d.config.Topology.recoverable(failed, d.state.Depth, prefer)
	return why, !ok
}

// failedNow tells of each task whether it counts as failed. Tasks that still recover do: what they knew, they have lost until
// they have replayed it.
//
// A task that was handed over does not, as long as its former worker and its new one live. Whatever its former life chose, and
// what of upstream logs that was chosen on, is in the former worker's store: that worker took the fence between two network
// writes, so nobody knows more; it drops nothing before a checkpoint covers it; and it answers in every round. Whatever the new
// life chooses is in the new worker's store. With both the task is as good as live. If the former worker dies, nobody here
// knows whether the new one has its answer yet. If the new one dies, or the task fails there, it may have made choices of its
// own by then. Either way the task has failed from then on, as if it had never moved.
func (d *Decider) failedNow(next *Decision, struck []bool) []bool {
	failed := slices.Clone(struck)
	m := d.config.Mutations
	for t, p := range next.Tasks {
		from, was := p.From, d.state.Tasks[t].From
		if m.Has(mutation.FormerWorkerForgotten) && !struck[t] {
			from = max(from, was)
		}
		if m.Has(mutation.NewWorkerForgotten) && was != 0 && !slices.Contains(next.Dead, was) {
			failed[t], from = false, was
		}
		if p.Recovering && from == 0 && !m.Has(mutation.RecoveringCountsAsLive) {
			failed[t] = true
		}
	}
	return failed
}

// place finds workers for the tasks that have none: a standby that has the committed state, or another live worker that
// has it, or, if nobody has it, none for now. First deployments go anywhere, to where least is, and tasks of a vertex apart.
func (d *Decider) place(next *Decision) {
	spread, given := spreadOf(d.config.Topology, next.Tasks), &load{}
	usable := d.usable()
	for t := range next.Tasks {
		p := &next.Tasks[t]
		if p.Worker == 0 {
			switch {
			case p.Incarnation > 0:
				p.Worker = d.pick(p, d.state.Tasks[t].Worker, next.Hear, func(w determinant.WorkerID) rank {
					return rank{given.of(w), spread.peers(p.Task, w), spread.total.of(w)}
				})
			case d.deploy:
				p.Worker = leastBy(usable, func(w determinant.WorkerID) rank { return rank{spread.total.of(w), spread.peers(p.Task, w)} })
				if p.Worker != 0 {
					p.Incarnation = 1
				}
			}
			given.add(p.Worker, 1)
			spread.addTask(p.Task, p.Worker)
			if slices.Contains(p.Standbys, p.Worker) { // it is one no more
				spread.total.add(p.Worker, -1)
			}
		}
		p.Standbys = without(p.Standbys, []determinant.WorkerID{p.Worker})
	}
}

// pick chooses the host of a task that lost its own, 0 if there is none, by the rank of those that are equally fit. The former
// host, if it lives, comes last among those that may be used, and draining workers come after all others: a task that waits is
// worse than a drain that does.
func (d *Decider) pick(p *Placement, former determinant.WorkerID, live []determinant.WorkerID, of func(w determinant.WorkerID) rank) determinant.WorkerID {
	holders := slices.DeleteFunc(slices.Clone(live), func(w determinant.WorkerID) bool { return !d.holds(w, p.Task) })
	usable := slices.DeleteFunc(slices.Clone(holders), d.state.drains)
	standbys := slices.DeleteFunc(slices.Clone(usable), func(w determinant.WorkerID) bool { return !slices.Contains(p.Standbys, w) })
	others := []determinant.WorkerID{former}
	for _, choice := range [][]determinant.WorkerID{standbys, without(usable, others), usable, without(holders, others), holders} {
		if w := leastBy(choice, of); w != 0 {
			return w
		}
	}
	return 0
}

// cause says in one line what a decision answers.
func (d *Decider) cause(next *Decision, moved []handOver, rollback string) string {
	var parts []string
	if len(d.suspects) > 0 {
		parts = append(parts, fmt.Sprintf("workers %v died", d.suspects))
	}
	for _, f := range d.failed {
		parts = append(parts, fmt.Sprintf("task %d failed: %s", f.Task, f.Cause))
	}
	if len(moved) > 0 {
		parts = append(parts, fmt.Sprintf("worker %d hands over tasks %v: %s", d.state.Tasks[moved[0].task].Worker, taskIDs(moved), moved[0].why))
	}
	if next.Rollback {
		parts = append(parts, "rollback: "+rollback)
	}
	var deployed, placed []determinant.TaskID
	for t, p := range next.Tasks {
		old := d.state.Tasks[t]
		switch {
		case p.Worker != 0 && old.Incarnation == 0:
			deployed = append(deployed, p.Task)
		case p.Worker != 0 && old.Worker == 0:
			placed = append(placed, p.Task)
		}
	}
	if len(deployed) > 0 {
		parts = append(parts, fmt.Sprintf("tasks %v deployed", deployed))
	}
	if len(placed) > 0 {
		parts = append(parts, fmt.Sprintf("tasks %v found a place", placed))
	}
	return strings.Join(parts, "; ")
}

// load counts things on workers.
type load struct {
	workers []determinant.WorkerID // sorted
	count   []int
}

// add counts n more things on w. Worker 0 is nowhere.
func (l *load) add(w determinant.WorkerID, n int) {
	if w == 0 {
		return
	}
	at, found := slices.BinarySearch(l.workers, w)
	if !found {
		l.workers = slices.Insert(l.workers, at, w)
		l.count = slices.Insert(l.count, at, 0)
	}
	l.count[at] += n
}

// of counts the things on w.
func (l *load) of(w determinant.WorkerID) int {
	if at, found := slices.BinarySearch(l.workers, w); found {
		return l.count[at]
	}
	return 0
}

// least gives the least loaded of the workers, the lowest id among equals, 0 if there are none.
func (l *load) least(workers []determinant.WorkerID) (best determinant.WorkerID) {
	for _, w := range workers {
		if best == 0 || l.of(w) < l.of(best) || l.of(w) == l.of(best) && w < best {
			best = w
		}
	}
	return best
}

// most gives the most loaded of the workers, the lowest id among equals, 0 if there are none.
func (l *load) most(workers []determinant.WorkerID) (best determinant.WorkerID) {
	for _, w := range workers {
		if best == 0 || l.of(w) > l.of(best) || l.of(w) == l.of(best) && w < best {
			best = w
		}
	}
	return best
}

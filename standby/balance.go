package standby

import (
	"cmp"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// DefaultBalanceAfter is the default of Config.BalanceAfter.
const DefaultBalanceAfter = 600

const (
	movesPerCalm = 5      // for balance: so many times, at most, tasks move in the time of Config.BalanceAfter
	movesAtOnce  = 2      // at most: each time costs a checkpoint, however many move, and all that move at once replay side by side
	looksPerCalm = 50     // at the time
	moveWithin   = 60_000 // milliseconds after which a move that could not be made is called off
	defaultLook  = 100
)

// time is what ticks said, in milliseconds. It is coarse: most ticks change nothing.
type time struct {
	now   int64
	known bool
}

// tick takes the time; false if it is too soon to look again.
func (t *time) tick(now, balanceAfter int64) bool {
	look := int64(defaultLook)
	if balanceAfter > 0 {
		look = max(1, balanceAfter/looksPerCalm)
	}
	if t.known && now-t.now < look {
		return false
	}
	t.now, t.known = now, true
	return true
}

// balance evens out how many tasks workers have. After a worker has joined, or all have come back, some may run many and others
// none. Tasks then move by planned hand-overs, few at a time: each makes the spread smaller, so this ends.
type balance struct {
	trouble int64  // when there was any last
	even    int64  // when there was nothing to even out last
	moved   int64  // when the last moves were over
	moves   moves  // are made at once
	spread  uint64 // State.Version at which no standby could move to a better place; 0: not known
}

// moves are tasks that are to go to other workers, when those have their states.
type moves struct {
	list  []move // none: nobody is to go
	began int64
	ready bool              // all workers had the states, and a further checkpoint was asked for
	since determinant.Epoch // committed checkpoint at that time
}

type move struct {
	task        determinant.TaskID
	incarnation determinant.Incarnation
	from, to    determinant.WorkerID
}

// has tells whether a task is among them.
func (m *moves) has(t determinant.TaskID) bool {
	return slices.ContainsFunc(m.list, func(m move) bool { return m.task == t })
}

// moveForBalance plans the next moves, if the tasks have been uneven for long enough while nothing was wrong.
func (d *Decider) moveForBalance() []Effect {
	b, after := &d.balance, d.config.BalanceAfter
	if after < 0 || !d.time.known {
		return nil
	}
	if b.trouble == 0 || d.troubled() {
		b.trouble = d.time.now
	}
	if from, _ := d.extremes(d.state.Tasks); b.even == 0 || from == 0 {
		b.even = d.time.now
	}
	if b.trouble == d.time.now || b.even == d.time.now {
		b.moves = moves{}
		return nil
	}
	if len(b.moves.list) > 0 && !d.hold(&b.moves) {
		b.moves, b.moved = moves{}, d.time.now
	}
	if len(b.moves.list) == 0 {
		if !d.calm() || d.time.now-b.even < after || d.time.now-b.moved < after/movesPerCalm || AnyRecovering(d.state.Tasks) {
			return nil
		}
		b.moves = d.chooseMoves()
	}
	if b.moves.ready || !d.prepared(&b.moves) {
		return nil
	}
	b.moves.ready, b.moves.since = true, d.state.Checkpoint
	return d.wantCheckpoint()
}

// calm tells whether nothing was wrong for so long that things of no hurry may be done.
func (d *Decider) calm() bool {
	return d.config.BalanceAfter >= 0 && d.time.known && d.time.now-d.balance.trouble >= d.config.BalanceAfter
}

// dueMoves lists the tasks that can move now: their new workers hold a checkpoint that was taken for this, so the replays are short.
func (d *Decider) dueMoves() []handOver {
	m := &d.balance.moves
	if len(m.list) == 0 || !d.hold(m) || !m.ready || d.state.Checkpoint <= m.since || !d.prepared(m) || AnyRecovering(d.state.Tasks) {
		return nil
	}
	list := make([]handOver, 0, len(m.list))
	for _, one := range m.list {
		list = append(list, handOver{task: one.task, to: one.to, why: "it has most to do"})
	}
	slices.SortFunc(list, func(a, b handOver) int { return cmp.Compare(a.task, b.task) })
	return list
}

// hold tells whether moves still make sense, all of them.
func (d *Decider) hold(m *moves) bool {
	usable := d.usable()
	return d.time.now-m.began < max(moveWithin, d.config.BalanceAfter) && !slices.ContainsFunc(m.list, func(m move) bool {
		p := d.state.Tasks[m.task]
		return p.Incarnation != m.incarnation || p.Worker != m.from || !slices.Contains(usable, m.to)
	})
}

// prepared tells whether every task that is to move could do so.
func (d *Decider) prepared(m *moves) bool {
	return !slices.ContainsFunc(m.list, func(m move) bool { return !d.hasStandby(m.task, m.to) })
}

// hasStandby tells whether w is a standby of task t, holds its committed state, and has said so since it became one. Others may find
// out before by a checkpoint that it has acknowledged, while it still prepares to take over.
func (d *Decider) hasStandby(t determinant.TaskID, w determinant.WorkerID) bool {
	return slices.Contains(d.state.Tasks[t].Standbys, w) && d.holds(w, t) && slices.Contains(d.said[t], w)
}

// sound lists the workers that may be given more than they have: usable ones that store all that they are to.
func (d *Decider) sound() []determinant.WorkerID {
	return slices.DeleteFunc(d.usable(), func(w determinant.WorkerID) bool {
		return slices.ContainsFunc(d.unkept, func(u Unkept) bool { return u.Worker == w })
	})
}

// extremes names the sound worker that runs most of the tasks and the one that runs fewest; none if they differ by one task at most.
func (d *Decider) extremes(tasks []Placement) (most, least determinant.WorkerID) {
	primaries := &load{}
	for _, p := range tasks {
		primaries.add(p.Worker, 1)
	}
	sound := d.sound()
	most, least = primaries.most(sound), primaries.least(sound)
	if primaries.of(most)-primaries.of(least) <= 1 {
		return 0, 0
	}
	return most, least
}

// troubled tells whether anything goes on that is more urgent than balance. A task that was handed over and replays is none.
func (d *Decider) troubled() bool {
	if len(d.suspects)+len(d.failed)+len(d.state.Draining)+len(d.wishes) > 0 || d.wanted != nil || !d.state.Mode.Logs() {
		return true
	}
	return AnyLost(d.state.Tasks)
}

// chooseMoves picks moves that make the tasks more even, one after the other as if those before had been made.
func (d *Decider) chooseMoves() moves {
	m, tasks := moves{began: d.time.now}, slices.Clone(d.state.Tasks)
	for len(m.list) < movesAtOnce {
		from, to := d.extremes(tasks)
		if from == 0 {
			break
		}
		next := d.chooseMove(tasks, from, to)
		tasks[next.task].Worker = to
		m.list = append(m.list, next)
	}
	return m
}

// chooseMove picks a task of worker from: one whose vertex has many tasks there and few on worker to, so that vertices stay spread
// over workers; among those one that worker to is a standby of already; and then the one whose id is farthest from those that
// worker to has: tasks of adjoining vertices are better apart, too.
func (d *Decider) chooseMove(tasks []Placement, from, to determinant.WorkerID) move {
	spread := spreadOf(d.config.Topology, tasks)
	best, lowest := -1, rank{}
	for t, p := range tasks {
		if p.Worker != from {
			continue
		}
		fit := 0
		if d.holds(to, p.Task) {
			fit++
		}
		if slices.Contains(p.Standbys, to) {
			fit += 2
		}
		r := rank{spread.peers(p.Task, to) - spread.peers(p.Task, from), -fit, -distance(tasks, t, to)}
		if best < 0 || r.compare(lowest) < 0 {
			best, lowest = t, r
		}
	}
	return move{task: tasks[best].Task, incarnation: tasks[best].Incarnation, from: from, to: to}
}

// distance is how far the id of a task is from those of the tasks on a worker.
func distance(tasks []Placement, t int, w determinant.WorkerID) int {
	least := len(tasks)
	for u, p := range tasks {
		if p.Worker == w {
			least = min(least, max(t-u, u-t))
		}
	}
	return least
}

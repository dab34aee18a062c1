package standby

import (
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// DefaultBalanceAfter is the default of Config.BalanceAfter.
const DefaultBalanceAfter = 600

const (
	spreadsPerCalm = 5      // at most so many standbys change in the time of Config.BalanceAfter, and one task moves
	looksPerCalm   = 50     // at the time
	moveWithin     = 60_000 // milliseconds after which a move that could not be made is called off
	defaultLook    = 100
	catchUp        = 3      // times as long as tasks were lost: see noteLoss
	mostCatchUp    = 10_000 // milliseconds
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
// none. Tasks then move by planned hand-overs, one at a time: each makes the spread smaller, so this ends.
type balance struct {
	trouble int64 // when there was any last
	lost    int64 // since when some task is lost; 0: none is
	rest    int64 // until then sources may have to catch up
	even    int64 // when there was nothing to even out last
	moved   int64 // when the last move was decided, or called off
	move    *move
	spread  uint64 // State.Version at which no standby could move to a better place; 0: not known
}

// noteLoss follows whether some task is lost. When none is any more, the sources still have to make up for the time in which one was, with what the machines have
// to spare beside the records that come anyway. If that is a quarter of what they can do, it takes three times as long; a move, its checkpoint above all,
// would only make it longer. What was left of an earlier loss is added to it. A new leader knows of no earlier one.
func (b *balance) noteLoss(lost bool, now int64) {
	switch {
	case lost && b.lost == 0:
		b.lost = now
	case !lost && b.lost != 0:
		b.rest, b.lost = min(max(b.rest, now)+catchUp*(now-b.lost), now+mostCatchUp), 0
	}
}

// rests tells whether nothing should change yet: sources catch up, or the last change is not so long ago.
func (b *balance) rests(now, pause int64) bool { return now < b.rest || now-b.moved < pause }

// move is a task that is to go to another worker, when that has its state.
type move struct {
	task        determinant.TaskID
	incarnation determinant.Incarnation
	from, to    determinant.WorkerID
	began       int64
	ready       bool              // the worker had the state, and a further checkpoint was asked for
	since       determinant.Epoch // committed checkpoint at that time
}

// moveForBalance plans the next move, if the tasks have been uneven for long enough while nothing was wrong.
func (d *Decider) moveForBalance() []Effect {
	b, after := &d.balance, d.config.BalanceAfter
	if after < 0 || !d.time.known {
		return nil
	}
	b.noteLoss(d.state.Round > 0 && AnyLost(d.state.Tasks), d.time.now) // before the first decision nobody runs
	if b.trouble == 0 || d.troubled() {
		b.trouble = d.time.now
	}
	from, to := d.extremes()
	if b.even == 0 || from == 0 {
		b.even = d.time.now
	}
	if b.trouble == d.time.now || b.even == d.time.now {
		b.move = nil
		return nil
	}
	if b.move != nil && !b.move.holds(d) {
		b.move, b.moved = nil, d.time.now
	}
	if b.move == nil {
		if !d.calm() || d.time.now-b.even < after || b.rests(d.time.now, after) || AnyRecovering(d.state.Tasks) {
			return nil
		}
		b.move = d.chooseMove(from, to)
	}
	m := b.move
	if m.ready || !d.hasStandby(m.task, m.to) {
		return nil
	}
	m.ready, m.since = true, d.state.Checkpoint
	return d.wantCheckpoint()
}

// calm tells whether nothing was wrong for so long that things of no hurry may be done.
func (d *Decider) calm() bool {
	return d.config.BalanceAfter >= 0 && d.time.known && d.time.now-d.balance.trouble >= d.config.BalanceAfter
}

// due lists the task that can move now: its new worker holds a checkpoint that was taken for this, so the replay is short.
func (b *balance) due(d *Decider) []handOver {
	m := b.move
	if m == nil || !m.holds(d) || !m.ready || d.state.Checkpoint <= m.since || !d.hasStandby(m.task, m.to) || AnyRecovering(d.state.Tasks) {
		return nil
	}
	return []handOver{{task: m.task, to: m.to, why: "it has most to do"}}
}

// holds tells whether a move still makes sense.
func (m *move) holds(d *Decider) bool {
	p := d.state.Tasks[m.task]
	return p.Incarnation == m.incarnation && p.Worker == m.from && slices.Contains(d.usable(), m.to) &&
		d.time.now-m.began < max(moveWithin, d.config.BalanceAfter)
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

// extremes names the sound worker that runs most tasks and the one that runs fewest; none if they differ by one task at most.
func (d *Decider) extremes() (most, least determinant.WorkerID) {
	primaries := &load{}
	for _, p := range d.state.Tasks {
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

// chooseMove picks a task of worker from: one whose vertex has many tasks there and few on worker to, so that vertices stay spread
// over workers; among those one that worker to is a standby of already; and then the one whose id is farthest from those that
// worker to has: tasks of adjoining vertices are better apart, too.
func (d *Decider) chooseMove(from, to determinant.WorkerID) *move {
	spread := spreadOf(d.config.Topology, d.state.Tasks)
	best, lowest := -1, rank{}
	for t, p := range d.state.Tasks {
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
		r := rank{spread.peers(p.Task, to) - spread.peers(p.Task, from), -fit, -d.distance(t, to)}
		if best < 0 || r.compare(lowest) < 0 {
			best, lowest = t, r
		}
	}
	p := d.state.Tasks[best]
	return &move{task: p.Task, incarnation: p.Incarnation, from: from, to: to, began: d.time.now}
}

// distance is how far the id of a task is from those of the tasks on a worker.
func (d *Decider) distance(t int, w determinant.WorkerID) int {
	least := len(d.state.Tasks)
	for u, p := range d.state.Tasks {
		if p.Worker == w {
			least = min(least, max(t-u, u-t))
		}
	}
	return least
}

package sim

import (
	"errors"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
	"github.com/understudy-stream/understudy/transport"
)

// sweepEvery is how many steps lie between two looks at everything.
const sweepEvery = 256

// checks are the checkers that watch while the job runs. They look at processes that are sound only: what a worker does that
// was declared dead counts for nothing, and others must be able to live with it.
type checks struct {
	world *World
	moved bool // a task was handed over, and no checkpoint that began before it had recovered is over yet
}

func newChecks(w *World) checks { return checks{world: w} }

func (c *checks) tick() {
	if c.world.step%sweepEvery == 0 {
		c.sweep()
	}
}

// lacks tells whether v depends on more of some log than ends and the committed checkpoint cover.
func (c *checks) lacks(v vector, end func(t determinant.TaskID) determinant.LogOffset) (determinant.TaskID, bool) {
	for t, offset := range v {
		id := determinant.TaskID(t)
		if offset > c.world.metadata.committed[t] && offset > end(id) {
			return id, true
		}
	}
	return 0, false
}

// delivered checks a batch on its arrival: it continues the channel, and its worker holds what it depends on.
func (c *checks) delivered(p *process, t *task.Task, l *life, input int, b *inflightlog.Batch) {
	w := c.world
	if !p.sound() || !w.causal() {
		return
	}
	if b.First != l.next[input] && !w.modes.adopts(t, l, input) {
		w.violate("sequence", "input %d of task %d #%d expects element %d and gets %d", input, t.ID(), t.Incarnation(), l.next[input], b.First)
	}
	v, ok := b.Tag.(vector)
	if !ok || !w.strict() {
		return
	}
	logs := p.worker.Logs()
	if u, lacks := c.lacks(v, func(u determinant.TaskID) determinant.LogOffset { return logs.Log(u).End() }); lacks {
		w.violate("orphan", "worker %d gives task %d a batch that depends on %d of log %d, and holds %d",
			p.id, t.ID(), v[u], u, logs.Log(u).End())
	}
}

// arrives counts what comes from those who were declared dead.
func (c *checks) arrives(p *process, m *transport.Message) {
	if slices.Contains(p.dead, m.From) {
		c.world.result.Zombies++
	}
}

// received checks that the logs of a worker come with what their determinants were chosen on.
func (c *checks) received(p *process, _ *transport.Message) {
	w := c.world
	if !w.strict() || !p.sound() || p.generation != w.metadata.generation {
		return
	}
	logs := p.worker.Logs()
	end := func(t determinant.TaskID) determinant.LogOffset { return logs.Log(t).End() }
	for t := range w.job.Tasks {
		id := determinant.TaskID(t)
		if u, lacks := c.lacks(w.history.chosenOn(id, end(id)), end); lacks {
			w.violate("closure", "worker %d holds %d of log %d, which was chosen on %d of log %d, of which it holds %d",
				p.id, end(id), t, w.history.chosenOn(id, end(id))[u], u, end(u))
		}
	}
}

// started checks that a recovery lost nothing that anybody live depends on. end is where the recovered log ends.
func (c *checks) started(p *process, t *task.Task, end determinant.LogOffset) {
	w, id := c.world, t.ID()
	place := w.metadata.places[id]
	if !p.sound() || t.Incarnation() != place.Incarnation || p.generation != w.metadata.generation {
		return
	}
	lost := max(end, w.metadata.committed[id])
	for _, q := range w.processes {
		if !q.sound() {
			continue
		}
		for u := range w.job.Tasks {
			other := q.worker.Task(determinant.TaskID(u))
			if other == nil || other == t || other.Incarnation() != w.metadata.places[u].Incarnation {
				continue
			}
			if l := w.history.lives[other]; max(l.depends[id], l.delivered[id]) > lost {
				w.violate("orphan", "task %d #%d recovers %d of its log, task %d on worker %d depends on %d",
					id, t.Incarnation(), end, u, q.id, max(l.depends[id], l.delivered[id]))
			}
		}
	}
	for _, s := range w.stores {
		if s != nil && s.generation == w.metadata.generation && s.at().depends[id] > lost {
			w.violate("orphan", "task %d #%d recovers %d of its log, the store of task %d depends on %d",
				id, t.Incarnation(), end, s.task, s.at().depends[id])
		}
	}
}

// checkStore checks what becomes visible in a store: one life writes, and its determinants are stored.
func (w *World) checkStore(s *store, inc determinant.Incarnation, depends vector) {
	if n := len(s.lines); n > 0 && s.lines[n-1].inc > inc || n > 1 && s.lines[n-2].inc > s.lines[n-1].inc {
		w.violate("one-writer", "store of task %d: incarnation %d writes after a later one", s.task, inc)
	}
	if !w.strict() {
		return
	}
	end := func(t determinant.TaskID) determinant.LogOffset { return s.logs.Log(t).End() }
	if u, lacks := w.checks.lacks(depends, end); lacks {
		w.violate("orphan", "store of task %d shows output that depends on %d of log %d, and holds %d", s.task, depends[u], u, end(u))
	}
	for t := range w.job.Tasks {
		id := determinant.TaskID(t)
		if u, lacks := w.checks.lacks(w.history.chosenOn(id, end(id)), end); lacks {
			w.violate("closure", "store of task %d holds %d of log %d without %d of log %d", s.task, end(id), t,
				w.history.chosenOn(id, end(id))[u], u)
		}
	}
}

// checkReport checks what a worker tells the coordinator: at full depth nothing may go wrong that was not planted.
func (w *World) checkReport(p *process, r *cluster.Report) {
	if r.AckFailed != nil {
		w.trace("worker %d cannot keep an image: task %d epoch %d: %s", p.id, r.AckFailed.Task, r.AckFailed.Epoch, r.AckFailed.Err)
	}
	if r.Checkpoint {
		w.result.Gates++
	}
	if r.Failed == nil && r.Rollback == nil {
		return
	}
	var t determinant.TaskID
	var inc determinant.Incarnation
	text := ""
	if r.Failed != nil {
		t, inc, text = r.Failed.Task, r.Failed.Incarnation, r.Failed.Err.Error()
		if errors.Is(r.Failed.Err, cluster.ErrKilled) || errors.Is(r.Failed.Err, errTorn) || errors.Is(r.Failed.Err, task.ErrReopened) || planted(r.Failed.Err) {
			return
		}
	} else {
		t, inc, text = r.Rollback.Task, r.Rollback.Incarnation, r.Rollback.Cause
	}
	w.trace("worker %d complains: task %d #%d: %s", p.id, t, inc, text)
	if !p.sound() || inc < w.metadata.places[t].Incarnation && inc > 0 {
		return
	}
	if r.Failed != nil || w.modes.local() {
		w.violate("complaint", "worker %d, task %d #%d: %s", p.id, t, inc, text)
	}
}

// completed checks a checkpoint against the one before.
func (c *checks) completed(e *checkpoint.Complete) {
	c.moved = false
	m := c.world.metadata
	if e.Epoch <= m.checkpoint {
		c.world.violate("checkpoint", "checkpoint %d is completed after %d", e.Epoch, m.checkpoint)
	}
	for _, t := range e.Tasks {
		if t.Log < m.committed[t.Task] {
			c.world.violate("checkpoint", "checkpoint %d has task %d at %d of its log, the one before at %d", e.Epoch, t.Task, t.Log, m.committed[t.Task])
		}
	}
}

// calm is how many steps after the last trouble a checkpoint that is abandoned is one too many.
const calm = 20_000

// abandoned checks that a checkpoint was abandoned for a reason: what went wrong long ago is none, and one hand-over is for one.
func (c *checks) abandoned(a *checkpoint.Abandon) {
	w := c.world
	moved := c.moved
	c.moved = false
	if !moved && w.plan.timeout > 1000 && w.faults.quiet() > calm && w.plan.poison == 0 && w.opts.Mutations == 0 {
		w.violate("stalled", "checkpoint %d is abandoned, %d steps after the last trouble", a.Epoch, w.faults.quiet())
	}
}

// rolledBack checks that a rollback was called for.
func (c *checks) rolledBack(d *standby.Decision) {
	if c.world.modes.local() {
		c.world.violate("rollback", "%v", d)
	}
}

// sweep looks at every worker: copies of a log are prefixes of one another, nothing is truncated before its checkpoint, and a
// task has one live incarnation.
func (c *checks) sweep() {
	w := c.world
	if !w.causal() {
		return
	}
	hosts := map[determinant.TaskID]*process{}
	for _, p := range w.processes {
		if !p.sound() || p.generation != w.metadata.generation {
			continue
		}
		for t := range w.job.Tasks {
			id := determinant.TaskID(t)
			c.copyOf(p, id)
			h := p.worker.Task(id)
			if h == nil || h.Incarnation() != w.metadata.places[t].Incarnation {
				continue
			}
			if other := hosts[id]; other != nil {
				w.violate("one-life", "task %d #%d runs on workers %d and %d", t, h.Incarnation(), other.id, p.id)
			}
			hosts[id] = p
		}
	}
}

func (c *checks) copyOf(p *process, t determinant.TaskID) {
	w := c.world
	own, made := p.worker.Logs().Copy(t), &w.history.tasks[t]
	if own.Base < made.from || own.Base.Beyond(max(made.end(), w.metadata.committed[t])) {
		return // of a former history, or of one that is about to begin
	}
	if own.Base > max(made.from, w.metadata.committed[t]) {
		w.violate("truncation", "worker %d has truncated log %d to %d, the checkpoint is at %d", p.id, t, own.Base, w.metadata.committed[t])
	}
	end := own.End()
	if end > made.end() {
		if w.metadata.committed[t] < end {
			w.violate("prefix", "worker %d holds %d of log %d, only %d were made", p.id, end, t, made.end())
		}
		return
	}
	if own.Base <= made.end() && !slices.Equal(own.Bytes, made.log[own.Base-made.from:end-made.from]) {
		w.violate("prefix", "worker %d holds other determinants of task %d than were made, in [%d,%d)", p.id, t, own.Base, end)
	}
}

package sim

import (
	"bytes"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/task"
)

// vector says for each task how much of its determinant log something depends on.
type vector []determinant.LogOffset

func (w *World) newVector() vector { return make(vector, len(w.job.Tasks)) }

func (v vector) merge(o vector) {
	for t, offset := range o {
		v[t] = max(v[t], offset)
	}
}

// history is what really happened: the determinants of each task from the job's start, as its lives made them, and what each
// depended on. It is kept beside the engine's logs, which are truncated.
type history struct {
	world *World
	tasks []chronicle
	lives map[*task.Task]*life
}

// chronicle is one task's whole log.
type chronicle struct {
	inc        determinant.Incarnation // the newest life that was started
	generation determinant.Generation
	from       determinant.LogOffset // where its present history begins: see determinant.LogOffset.Anew
	log        []byte
	points     []point
	external   []sealed // batches for the task's store, of the newest life first seen
}

// end is where the log ends.
func (c *chronicle) end() determinant.LogOffset { return c.from + determinant.LogOffset(len(c.log)) }

// point says what the log up to an offset was chosen on.
type point struct {
	offset  determinant.LogOffset
	depends vector
}

// sealed is a batch of output for a store.
type sealed struct {
	inc     determinant.Incarnation
	end     determinant.Seq
	depends vector
}

// life is one incarnation of a task at its host.
type life struct {
	host      *process
	depends   vector            // what its state depends on
	delivered vector            // and what waits for it does
	next      []determinant.Seq // per input: the next element to be delivered
	adopted   []int             // per input: how often its producer has begun anew
	closed    bool
}

func newHistory(w *World) *history {
	return &history{world: w, tasks: make([]chronicle, len(w.job.Tasks)), lives: map[*task.Task]*life{}}
}

// restored notes that a task begins a life on p, with what its log then holds.
func (h *history) restored(p *process, id determinant.TaskID, inc determinant.Incarnation) {
	w, c := h.world, &h.tasks[id]
	t := p.worker.Task(id)
	h.lives[t] = &life{host: p, depends: w.newVector(), delivered: w.newVector(), next: make([]determinant.Seq, len(w.job.Tasks[id].Inputs))}
	h.lives[t].adopted = make([]int, len(w.job.Tasks[id].Inputs))
	for i := range h.lives[t].next {
		h.lives[t].next[i] = t.Taken(i)
	}
	if inc <= c.inc || !w.causal() {
		return
	}
	log, err := p.worker.Logs().Log(id), error(nil)
	base, end := log.Base(), log.End()
	known := c.end()
	if anew := inc <= w.modes.fresh[id]; anew && base.Beyond(known) || base < c.from {
		c.inc, c.generation, c.from, c.log = inc, p.generation, base, nil // a rollback goes back to the history that it cut
		if c.log, err = log.Read(nil, base, end); err != nil || !anew && end > base {
			w.violate("history", "task %d #%d starts anew with [%d,%d): %v", id, inc, base, end, err)
		}
		return
	}
	if base > known {
		w.violate("history", "task %d #%d starts at log offset %d, only %d are known", id, inc, base, known)
		return
	}
	b, err := log.Read(nil, base, end)
	if err != nil {
		w.violate("history", "task %d: %v", id, err)
		return
	}
	rolledBack := p.generation > c.generation
	common := min(end, known)
	if !rolledBack && !bytes.Equal(c.log[base-c.from:common-c.from], b[:common-base]) {
		w.violate("history", "task %d #%d starts with other determinants than were made", id, inc)
		return
	}
	if end > known {
		w.violate("history", "task %d #%d starts with %d bytes of log, only %d were made", id, inc, end, known)
		return
	}
	c.inc, c.generation = inc, p.generation
	c.log = append(c.log[:base-c.from:base-c.from], b...)
	c.points = slices.DeleteFunc(c.points, func(p point) bool { return p.offset > end })
	if inc > w.modes.fresh[id] {
		w.checks.started(p, t, end)
	}
}

// bury closes the tasks that their workers have dropped, as a task's goroutine does when it ends: what they kept goes back to
// the budget.
func (h *history) bury() {
	for t, l := range h.lives { //lint:sorted each is closed by itself
		if l.closed || !l.host.alive || l.host.worker.Task(t.ID()) == t {
			continue
		}
		l.closed = true
		if err := t.Close(); err != nil {
			h.world.violate("close", "task %d #%d: %v", t.ID(), t.Incarnation(), err)
		}
	}
}

// stepped notes what a step of t added to its log.
func (h *history) stepped(p *process, t *task.Task) {
	c := &h.tasks[t.ID()]
	if !h.world.causal() || t.Incarnation() != c.inc {
		return
	}
	log := p.worker.Logs().Log(t.ID())
	known, end := c.end(), log.End()
	if end <= known {
		return
	}
	b, err := log.Read(c.log, known, end)
	if err != nil {
		h.world.violate("history", "task %d: %v", t.ID(), err)
		return
	}
	c.log = b
	c.points = append(c.points, point{end, slices.Clone(h.lives[t].depends)})
}

// chosenOn is what the log of task t up to an offset was chosen on, nil if a committed checkpoint covers it.
func (h *history) chosenOn(t determinant.TaskID, end determinant.LogOffset) vector {
	if end <= h.world.metadata.committed[t] {
		return nil
	}
	points := h.tasks[t].points
	i, found := slices.BinarySearchFunc(points, end, func(p point, e determinant.LogOffset) int {
		switch {
		case p.offset < e:
			return -1
		case p.offset > e:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i < 0 {
		return nil
	}
	return points[i].depends
}

// dependsAt is what the output of sink task t below seq depends on, as that life made it.
func (w *World) dependsAt(t determinant.TaskID, inc determinant.Incarnation, seq determinant.Seq) vector {
	v := w.newVector()
	for _, s := range w.history.tasks[t].external {
		if s.inc == inc && s.end <= seq {
			v.merge(s.depends)
		}
	}
	return v
}

// probe feeds the history from the tasks of one process. It implements task.Probe.
type probe struct{ process *process }

// Delivered implements task.Probe.
func (pr *probe) Delivered(t *task.Task, input int, b *inflightlog.Batch) {
	w := pr.process.world
	l := w.history.lives[t]
	w.checks.delivered(pr.process, t, l, input, b)
	l.next[input] = b.End.Next
	if v, ok := b.Tag.(vector); ok {
		l.delivered.merge(v)
	}
}

// Took implements task.Probe.
func (pr *probe) Took(t *task.Task, _ int, b *inflightlog.Batch) {
	if v, ok := b.Tag.(vector); ok {
		pr.process.world.history.lives[t].depends.merge(v)
	}
}

// Tag implements task.Probe: a batch carries what its task depends on.
func (pr *probe) Tag(t *task.Task, c determinant.ChannelID, b *inflightlog.Batch) any {
	w := pr.process.world
	l := w.history.lives[t]
	if l == nil || !w.causal() {
		return nil
	}
	v := slices.Clone(l.depends)
	v[t.ID()] = max(v[t.ID()], t.Offset())
	if w.job.Channels[c].External {
		ch := &w.history.tasks[t.ID()]
		ch.external = append(ch.external, sealed{t.Incarnation(), b.End.Next, v})
	}
	return v
}

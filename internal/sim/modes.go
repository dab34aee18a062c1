package sim

import (
	"math/rand/v2"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

// modes switches the job's mode now and then, and knows what may be expected in each. It draws from a stream of its own: runs
// without switches stay as they are.
//
// It follows the ledger by itself. What the engine makes of the modes of its epochs is compared with that.
type modes struct {
	world *World
	rng   *rand.Rand
	due   []int // steps, rising

	base   standby.EpochMode         // of the epoch after the last completed checkpoint
	opened []standby.EpochMode       // of each further one that was started
	fresh  []determinant.Incarnation // by task: its newest life that began without determinants where others live on
	times  []int                     // and how many such lives it had
	left   bool                      // some epoch was not exactly-once
	loose  bool                      // some recovery went without determinants: what was shown may be shown again

	// exact: since a completed checkpoint no recovery went without determinants. from is then, by task, how many lines its
	// store showed at that checkpoint.
	exact bool
	from  []int
}

func newModes(w *World) *modes {
	m := &modes{
		world: w, rng: w.stream("modes"), base: standby.EpochMode{Mode: w.opts.Mode, Depth: w.opts.Depth},
		fresh: make([]determinant.Incarnation, len(w.job.Tasks)), times: make([]int, len(w.job.Tasks)), exact: true,
		from: make([]int, len(w.job.Tasks)),
		left: !w.opts.Mode.Logs(),
	}
	at := 0
	for range w.opts.Switches {
		if at += m.rng.IntN(1500); m.rng.IntN(4) == 0 {
			at -= at / 50 // close to another
		}
		m.due = append(m.due, at)
	}
	slices.Sort(m.due)
	return m
}

// tick asks for the switches that are due. A wish that a change of leader loses is lost.
func (m *modes) tick() {
	w := m.world
	for len(m.due) > 0 && m.due[0] <= w.step {
		leader := w.metadata.leader()
		if leader == nil || !leader.leads {
			return
		}
		m.due = m.due[1:]
		mode := []determinant.Mode{determinant.ExactlyOnce, determinant.ExactlyOnce, determinant.AtLeastOnce, determinant.AtLeastOnce,
			determinant.GlobalRollback}[m.rng.IntN(5)]
		depth := []determinant.Depth{0, determinant.Full, determinant.Full, 1, 2}[m.rng.IntN(5)]
		w.trace("the job is to go on in mode %v at depth %v", mode, depth)
		if err := leader.coordinator.SwitchMode(mode, depth); err != nil {
			w.violate("modes", "%v", err)
		}
	}
}

// weakest is what a failure now is recovered by.
func (m *modes) weakest() standby.EpochMode {
	weakest := m.base
	for _, e := range m.opened {
		weakest = standby.EpochMode{Mode: max(weakest.Mode, e.Mode), Depth: min(weakest.Depth, e.Depth)}
	}
	return weakest
}

// strict tells whether no failure can make the job roll back or repeat anything.
func (m *modes) strict() bool {
	return m.weakest() == standby.EpochMode{Mode: determinant.ExactlyOnce, Depth: determinant.Full}
}

// local tells whether no failure can make the job roll back.
func (m *modes) local() bool { return m.strict() || m.weakest().Mode == determinant.AtLeastOnce }

// decided checks a decision against the modes of the epochs that it is about.
func (m *modes) decided(d *standby.Decision) {
	w, weakest := m.world, m.weakest()
	if d.Mode != weakest.Mode || d.Depth != weakest.Depth || d.Collect != weakest.Mode.Logs() {
		w.violate("modes", "the epochs since the last checkpoint are %v, and %v collects: %v", weakest, d, d.Collect)
	}
	rollback := d.Generation > w.metadata.generation
	for t, p := range d.Tasks {
		if p.Incarnation == w.metadata.places[t].Incarnation || p.Incarnation == 1 {
			continue
		}
		if p.Recovering && !d.Collect && !rollback {
			m.fresh[t] = p.Incarnation
			m.times[t]++
			m.check()
			m.loose, m.exact = true, false
			w.result.Loose++
		}
	}
}

// started takes the start of a checkpoint.
func (m *modes) started(s *checkpoint.Start) {
	w, next := m.world, standby.EpochMode{Mode: s.Mode, Depth: s.Depth}
	recovers := standby.AnyRecovering(w.metadata.places)
	if recovers && max(m.weakest().Mode, s.Mode) != determinant.ExactlyOnce {
		w.violate("modes", "checkpoint %d starts an epoch in %v after %v while a task recovers", s.Epoch, next, m.weakest())
	}
	newest := m.base
	if n := len(m.opened); n > 0 {
		newest = m.opened[n-1]
	}
	if newest != next {
		w.result.Switches++
	}
	m.opened = append(m.opened, next)
	m.left = m.left || s.Mode != determinant.ExactlyOnce
}

// completed takes a completed checkpoint. From its barrier on nothing is repeated until a recovery goes without determinants.
func (m *modes) completed(e *checkpoint.Complete) {
	m.base, m.opened = m.opened[len(m.opened)-1], nil
	if m.exact {
		return
	}
	m.exact = true
	for _, t := range m.world.job.Topology.Sinks {
		m.from[t] = m.world.stores[t].shownAt(*e.Tasks[t].External)
	}
	for t, s := range m.world.held {
		if s != nil {
			m.from[t] = s.upTo(e.Epoch)
		}
	}
}

// adopts tells whether a task may now take over the numbering of a producer that began anew.
func (m *modes) adopts(t *task.Task, l *life, input int) bool {
	w := m.world
	from := w.job.Channels[w.job.Tasks[t.ID()].Inputs[input].Channel].From
	l.adopted[input]++
	return l.adopted[input] <= m.times[from]
}

// check checks that since the checkpoint from which on the run is exact no record was shown twice. Calls under way are state:
// those of a record that came twice before the checkpoint end after it.
func (m *modes) check() {
	w := m.world
	if !m.exact || w.result.Shape == "async" {
		return
	}
	seen := map[uint64]bool{}
	for t := range w.job.Tasks {
		lines := w.visible(t)
		for _, l := range lines[min(m.from[t], len(lines)):] {
			r, err := recordCodec{}.Decode(l.bytes)
			if err != nil {
				w.violate("lines", "store of task %d: %v", t, err)
				return
			}
			if r.ID < derived && seen[r.ID] {
				w.violate("modes", "record %d is visible twice although no recovery went without determinants", r.ID)
			}
			seen[r.ID] = true
		}
	}
}

// shownAt is how many lines were visible at a position where a write ended.
func (s *store) shownAt(c determinant.Cursor) int {
	for i := len(s.marks) - 1; i >= 0; i-- {
		if m := &s.marks[i]; m.cursor.Next == c.Next {
			return m.visible
		}
	}
	s.world.violate("modes", "store of task %d: a checkpoint was completed at %v, where no write ended", s.task, c)
	return 0
}

package standby

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// State is what the ledger knows of placements and failures: the replicated part of a Decider. A snapshot of the ledger
// holds one.
type State struct {
	Version    uint64 // counts the commands that took effect
	Round      determinant.Round
	Generation determinant.Generation
	Checkpoint determinant.Epoch // newest committed one
	RollbackTo determinant.Epoch
	Mode       determinant.Mode  // weakest of the epochs since Checkpoint
	Depth      determinant.Depth // least of the epochs since Checkpoint
	Dead       []determinant.WorkerID
	Hear       []determinant.WorkerID // of the newest decision, without those that are dead
	Tasks      []Placement            // by id; Incarnation 0: never deployed
	Draining   []Draining             // workers that are to do nothing any more, by id. Invariant: none is among Dead
	// Holders lists for each task who has its state of Checkpoint, as the commit of that checkpoint said.
	Holders [][]determinant.WorkerID
}

// Draining is a worker that gets no new tasks or standbys and is freed of those that it has.
type Draining struct {
	Worker determinant.WorkerID
	Since  determinant.Epoch // committed checkpoint when the drain began; the hand-over waits for a later one
}

// clone copies the state so that nothing is shared that anybody changes.
func (s *State) clone() State {
	c := *s
	c.Dead = slices.Clone(s.Dead)
	c.Hear = slices.Clone(s.Hear)
	c.Tasks = clonePlacements(s.Tasks)
	c.Draining = slices.Clone(s.Draining)
	c.Holders = make([][]determinant.WorkerID, len(s.Holders))
	for t := range s.Holders {
		c.Holders[t] = slices.Clone(s.Holders[t])
	}
	return c
}

func clonePlacements(tasks []Placement) []Placement {
	tasks = slices.Clone(tasks)
	for i := range tasks {
		tasks[i].Standbys = slices.Clone(tasks[i].Standbys)
	}
	return tasks
}

// Apply applies a committed command; it is the only writer of the replicated state. It gives false, and changes nothing,
// if the command came too late: every replica of the ledger refuses the same ones. The caller announces a Decision to
// the workers only if Apply accepted it.
func (d *Decider) Apply(c Command) bool {
	if !d.apply(c) {
		d.history.add("refused %v", c)
		return false
	}
	d.state.Version++
	d.history.add("applied %v", c)
	return true
}

func (d *Decider) apply(c Command) bool {
	switch c := c.(type) {
	case Decision:
		return d.state.decide(c, &d.history)
	case AssignStandby:
		return d.state.assign(c)
	case ReleaseStandby:
		return d.state.release(c)
	case SetDraining:
		return d.state.setDraining(c)
	case Recovered:
		return d.state.recovered(c)
	case Checkpoint:
		return d.state.checkpoint(c)
	}
	panic(fmt.Sprintf("standby: unknown command %T", c))
}

// decide takes a decision over if nothing happened since it was computed.
func (s *State) decide(c Decision, h *history) bool {
	if c.Basis != s.Version || len(c.Tasks) != len(s.Tasks) {
		return false
	}
	if c.Round != s.Round+1 || c.Generation < s.Generation || c.Checkpoint != s.Checkpoint {
		h.panic("decision %v does not follow round %d generation %d checkpoint %d", c, s.Round, s.Generation, s.Checkpoint)
	}
	for t, p := range c.Tasks {
		old := s.Tasks[t]
		moved := p.Worker != old.Worker && old.Worker != 0
		if p.Incarnation < old.Incarnation || moved && p.Incarnation == old.Incarnation {
			h.panic("decision moves %v to %v", old, p)
		}
		if p.Worker != 0 && slices.Contains(p.Standbys, p.Worker) {
			h.panic("decision puts a standby beside its primary: %v", p)
		}
		if p.From != 0 && (!p.Recovering || p.Worker == 0 || p.Worker == p.From || slices.Contains(c.Dead, p.From)) {
			h.panic("decision counts on a worker that cannot answer: %v", p)
		}
	}
	s.Round, s.Generation, s.RollbackTo = c.Round, c.Generation, c.RollbackTo
	s.Dead, s.Hear = slices.Clone(c.Dead), slices.Clone(c.Hear)
	s.Tasks = clonePlacements(c.Tasks)
	s.Draining = slices.DeleteFunc(s.Draining, func(l Draining) bool { return slices.Contains(c.Dead, l.Worker) })
	for t := range s.Holders {
		s.Holders[t] = without(s.Holders[t], c.Dead)
	}
	return true
}

func (s *State) assign(c AssignStandby) bool {
	if int(c.Task) >= len(s.Tasks) {
		return false
	}
	p := &s.Tasks[c.Task]
	if c.Incarnation != p.Incarnation || c.Worker == p.Worker || slices.Contains(s.Dead, c.Worker) || s.drains(c.Worker) {
		return false
	}
	at, found := slices.BinarySearch(p.Standbys, c.Worker)
	if found {
		return false
	}
	p.Standbys = slices.Insert(p.Standbys, at, c.Worker)
	return true
}

func (s *State) release(c ReleaseStandby) bool {
	if int(c.Task) >= len(s.Tasks) {
		return false
	}
	p := &s.Tasks[c.Task]
	at, found := slices.BinarySearch(p.Standbys, c.Worker)
	if c.Incarnation != p.Incarnation || !found {
		return false
	}
	p.Standbys = slices.Delete(p.Standbys, at, at+1)
	return true
}

func (s *State) setDraining(c SetDraining) bool {
	at, found := slices.BinarySearchFunc(s.Draining, c.Worker, func(l Draining, w determinant.WorkerID) int {
		return cmp.Compare(l.Worker, w)
	})
	switch {
	case c.On == found || c.Worker == 0 || slices.Contains(s.Dead, c.Worker):
		return false
	case c.On:
		s.Draining = slices.Insert(s.Draining, at, Draining{Worker: c.Worker, Since: s.Checkpoint})
	default:
		s.Draining = slices.Delete(s.Draining, at, at+1)
	}
	return true
}

// drains tells whether a worker is to do nothing any more.
func (s *State) drains(w determinant.WorkerID) bool {
	return slices.ContainsFunc(s.Draining, func(l Draining) bool { return l.Worker == w })
}

func (s *State) recovered(c Recovered) bool {
	if int(c.Task) >= len(s.Tasks) {
		return false
	}
	p := &s.Tasks[c.Task]
	if c.Incarnation != p.Incarnation || !p.Recovering || p.Worker == 0 {
		return false
	}
	p.Recovering, p.From = false, 0
	return true
}

func (s *State) checkpoint(c Checkpoint) bool {
	if c.Committed < s.Checkpoint {
		return false
	}
	changed := c.Committed > s.Checkpoint
	if changed {
		s.Checkpoint = c.Committed
		s.Holders = make([][]determinant.WorkerID, len(s.Tasks))
		for t := range min(len(c.Holders), len(s.Tasks)) {
			s.Holders[t] = without(slices.Sorted(slices.Values(c.Holders[t])), s.Dead)
		}
	}
	if len(c.Since) > 0 {
		weakest := c.Since[0]
		for _, e := range c.Since[1:] {
			weakest = EpochMode{Mode: max(weakest.Mode, e.Mode), Depth: min(weakest.Depth, e.Depth)}
		}
		changed = changed || weakest != EpochMode{s.Mode, s.Depth}
		s.Mode, s.Depth = weakest.Mode, weakest.Depth
	}
	return changed
}

// without gives the workers that are not among gone.
func without(workers, gone []determinant.WorkerID) []determinant.WorkerID {
	return slices.DeleteFunc(slices.Clone(workers), func(w determinant.WorkerID) bool { return slices.Contains(gone, w) })
}

// with gives the sorted union of two lists of workers.
func with(a, b []determinant.WorkerID) []determinant.WorkerID {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

// insert adds a worker to a sorted list, which it may change.
func insert(workers []determinant.WorkerID, w determinant.WorkerID) []determinant.WorkerID {
	at, found := slices.BinarySearch(workers, w)
	if found {
		return workers
	}
	return slices.Insert(workers, at, w)
}

// historyLen bounds the history that a panic shows.
const historyLen = 32

// history is the last transitions of a state machine, for the message of an assertion that fails.
type history struct{ lines []string }

func (h *history) add(format string, args ...any) {
	if len(h.lines) == historyLen {
		h.lines = slices.Delete(h.lines, 0, 1)
	}
	h.lines = append(h.lines, fmt.Sprintf(format, args...))
}

func (h *history) panic(format string, args ...any) {
	text := "standby: assertion failed: " + fmt.Sprintf(format, args...)
	for _, line := range h.lines {
		text += "\n\t" + line
	}
	panic(text)
}

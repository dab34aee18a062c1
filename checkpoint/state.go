package checkpoint

import (
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// State is what the ledger has committed about checkpoints: a deterministic state machine over Place and Apply, called in
// ledger order. Every process that follows the ledger has the same, and a command counts only where Apply says so: that
// is what keeps a proposal that was late, or was made twice, from doing harm. It is plain data and may be encoded with
// msgpack.
type State struct {
	Committed    determinant.Epoch         // the newest completed checkpoint; 0: none yet
	Tasks        []TaskState               // of checkpoint Committed, by task; empty if that is 0
	Mode         determinant.Mode          // of epoch Committed+1
	Depth        determinant.Depth         // of epoch Committed+1
	Since        []Attempt                 // checkpoints started after Committed; Invariant: Since[i].Epoch == Committed+1+i
	Open         bool                      // the last of Since is under way; Invariant: all others are abandoned
	Void         bool                      // the one under way may only be abandoned; Invariant: implies Open
	Wanted       *Switch                   // what the next epochs are to be like; nil: like the newest. Never written to
	Incarnations []determinant.Incarnation // of every task, now
	Recovering   bool                      // some task recovers
	Mutations    mutation.Set              `msgpack:"-"`
}

// Attempt is a checkpoint that was started and is not completed.
type Attempt struct {
	Epoch     determinant.Epoch
	Mode      determinant.Mode  // of epoch Epoch+1
	Depth     determinant.Depth // of epoch Epoch+1
	Abandoned bool
}

// NewState is the state of a job of n tasks before its first checkpoint, all in their first incarnation.
func NewState(n int, mode determinant.Mode, depth determinant.Depth) State {
	return State{Mode: mode, Depth: depth, Incarnations: slices.Repeat([]determinant.Incarnation{1}, n)}
}

// Clone returns a copy that shares nothing with s which Place or Apply write to.
func (s *State) Clone() State {
	c := *s
	c.Since = slices.Clone(s.Since)
	c.Incarnations = slices.Clone(s.Incarnations)
	return c
}

// Started returns the newest checkpoint that was started, or Committed.
func (s *State) Started() determinant.Epoch { return s.Committed + determinant.Epoch(len(s.Since)) }

// Boundary returns mode and depth of epoch Started()+1, the newest there can be.
func (s *State) Boundary() (determinant.Mode, determinant.Depth) {
	if n := len(s.Since); n > 0 {
		return s.Since[n-1].Mode, s.Since[n-1].Depth
	}
	return s.Mode, s.Depth
}

// Recovery returns what governs a failure now: the weakest mode and the least sharing depth of all epochs after Committed.
// Recovery is causal only if the mode is ExactlyOnce.
func (s *State) Recovery() (determinant.Mode, determinant.Depth) {
	mode, depth := s.Mode, s.Depth
	for _, a := range s.Since {
		mode, depth = max(mode, a.Mode), min(depth, a.Depth)
	}
	return mode, depth
}

// Goal returns the mode and depth that were asked for: those of epoch Started()+1 unless a Switch waits.
func (s *State) Goal() (determinant.Mode, determinant.Depth) {
	if s.Wanted != nil {
		return s.Wanted.Mode, s.Wanted.Depth
	}
	return s.Boundary()
}

// mayStart tells whether a checkpoint may start that opens an epoch in that mode.
//
// While a task recovers, all epochs after the committed checkpoint must be exactly-once, the new one included. Otherwise a
// recovery that began with determinants could be asked to go on without, and its consumers, who kept their numbering, would
// wait for what never comes. And in a recovery without determinants a consumer could pass a barrier of the life that died
// and be asked for it in the numbering of the new one.
func (s *State) mayStart(mode determinant.Mode) bool {
	if !s.Recovering || s.Mutations.Has(mutation.StartWhileRecovering) {
		return true
	}
	weakest, _ := s.Recovery()
	return max(weakest, mode) == determinant.ExactlyOnce
}

// Ended tells whether checkpoint Committed found every task at its end: the job is over.
func (s *State) Ended() bool {
	for _, t := range s.Tasks {
		if !t.Ended {
			return false
		}
	}
	return len(s.Tasks) > 0
}

// Place takes the incarnations that a committed decision gives to the tasks, and whether any task recovers. Where recovery
// is not causal, a new life makes the checkpoint under way void: it would pair states of two histories.
func (s *State) Place(incarnations []determinant.Incarnation, recovering bool) {
	if s.Open && !slices.Equal(s.Incarnations, incarnations) && !s.Mutations.Has(mutation.AtLeastOnceCheckpointKept) {
		if mode, _ := s.Recovery(); mode != determinant.ExactlyOnce {
			s.Void = true
		}
	}
	s.Incarnations, s.Recovering = slices.Clone(incarnations), recovering
}

// Apply takes a committed command and tells whether it counts. One that does not changes nothing and must have no effect
// anywhere: it was decided on what is no longer so.
func (s *State) Apply(c Command) bool {
	switch c := c.(type) {
	case Start:
		return s.start(c)
	case Complete:
		return s.complete(c)
	case Abandon:
		return s.abandon(c)
	case Switch:
		return s.want(c)
	}
	return false
}

// want takes a wish. It stays until an epoch is opened that fulfils it, or another takes its place.
func (s *State) want(c Switch) bool {
	if c.Mode > determinant.None || c.Depth == 0 {
		return false
	}
	mode, depth := s.Boundary()
	s.Wanted = &c
	if c == (Switch{Mode: mode, Depth: depth}) {
		s.Wanted = nil
	}
	return true
}

func (s *State) start(c Start) bool {
	if s.Open || c.Epoch != s.Started()+1 || !s.mayStart(c.Mode) {
		return false
	}
	if s.Wanted != nil && *s.Wanted == (Switch{Mode: c.Mode, Depth: c.Depth}) {
		s.Wanted = nil
	}
	s.Since = append(s.Since, Attempt{Epoch: c.Epoch, Mode: c.Mode, Depth: c.Depth})
	s.Open = true
	return true
}

// complete counts only if each task's image is by its present life: the decision that ended an earlier one voided what
// that had acknowledged.
func (s *State) complete(c Complete) bool {
	if !s.Open || s.Void || c.Epoch != s.Started() || len(c.Tasks) != len(s.Incarnations) {
		return false
	}
	for i, t := range c.Tasks {
		if t.Task != determinant.TaskID(i) {
			return false
		}
		if t.Incarnation != s.Incarnations[i] && !s.Mutations.Has(mutation.OldAcksCount) {
			return false
		}
	}
	s.Mode, s.Depth = s.Boundary()
	s.Committed, s.Tasks = c.Epoch, c.Tasks
	s.Since, s.Open = nil, false
	return true
}

func (s *State) abandon(c Abandon) bool {
	if !s.Open || c.Epoch != s.Started() {
		return false
	}
	s.Since[len(s.Since)-1].Abandoned = true
	s.Open, s.Void = false, false
	return true
}

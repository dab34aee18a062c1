package causal

import (
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// Proposer chooses the next step when nothing dictates it.
type Proposer interface {
	// Propose returns the header of the step that the task takes if it is free to choose, or false if there is nothing to
	// do. It must not have effects: the step is taken only if Choices.Next returns the header.
	Propose() (d determinant.Determinant, ok bool, err error)
}

// Choices is what the step loop asks for each choice; it does not know whether they are made now or were made before.
// Recorder, Replayer and Unlogged implement it.
type Choices interface {
	// Next returns the header of the next step, or false if there is none now. When it returns, the header is in the log.
	Next(p Proposer) (d determinant.Determinant, ok bool, err error)
	// Choose returns a choice of the given kind within the present step. choose makes the choice, if it is free; it must
	// return a determinant of that kind. When Choose returns, the choice is in the log.
	Choose(kind determinant.Kind, choose func() determinant.Determinant) (determinant.Determinant, error)
	// Mark says that epoch e starts here.
	Mark(e determinant.Epoch) error
	// Offset returns where the task is in its log: everything below has been chosen.
	Offset() determinant.LogOffset
}

// Unlogged is the Choices of a task in a mode without determinants: it proposes, and logs nothing.
type Unlogged struct {
	At determinant.LogOffset // where the task's log ended when it went into this mode; Offset stays there
}

// Next returns what p proposes.
func (u *Unlogged) Next(p Proposer) (determinant.Determinant, bool, error) { return p.Propose() }

// Choose returns what choose returns.
func (u *Unlogged) Choose(kind determinant.Kind, choose func() determinant.Determinant) (determinant.Determinant, error) {
	d := choose()
	mustBe(kind, &d)
	return d, nil
}

// Mark does nothing.
func (u *Unlogged) Mark(determinant.Epoch) error { return nil }

// Offset returns u.At.
func (u *Unlogged) Offset() determinant.LogOffset { return u.At }

// mustBe panics unless d is of the kind that was asked for.
func mustBe(kind determinant.Kind, d *determinant.Determinant) {
	if d.Kind != kind {
		panic(fmt.Sprintf("causal: assertion: chose %v where %v was asked for", d.Kind, kind))
	}
}

// mustBeHeader panics unless d opens a step.
func mustBeHeader(d *determinant.Determinant) {
	if !d.Kind.Header() {
		panic(fmt.Sprintf("causal: assertion: %v does not open a step", d.Kind))
	}
}

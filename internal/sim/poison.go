package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/task"
)

// poisonTries is how often user code may fail on a record before the record is set aside.
const poisonTries = 2

// Failures of user code that are planted.
var (
	errPoison = errors.New("sim: poisoned record") // each time
	errFlaky  = errors.New("sim: just this once")
)

// fails tells how user code fails on a record: after it has made the choices that it makes.
func (w *World) fails(id uint64) error {
	if w.plan.poison > 0 && id < derived && id%pathShift%uint64(w.plan.poison) == 7 {
		return fmt.Errorf("%w %d", errPoison, id)
	}
	if w.flaky == 1 {
		w.flaky = 2
		return errFlaky
	}
	return nil
}

// planted tells whether user code failed because it was told to.
func planted(err error) bool { return errors.Is(err, errPoison) || errors.Is(err, errFlaky) }

// deadLetter is where a worker puts records that are set aside; nil in worlds where none are.
func (w *World) deadLetter() func(task.Poison) error {
	if w.plan.poison == 0 {
		return nil
	}
	return func(p task.Poison) error {
		r, err := recordCodec{}.Decode(p.Record)
		if err != nil {
			return err
		}
		if id := r.ID % pathShift; !slices.Contains(w.aside, id) {
			w.aside = append(w.aside, id)
		}
		w.trace("record %d is set aside", r.ID)
		return nil
	}
}

package causal

import (
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// ErrTooLong says that a choice's bytes (the result of an external call) exceed determinant.MaxBytes.
var ErrTooLong = errors.New("causal: result too long for the log")

// keptBuffer is how big a buffer a Recorder keeps after a long result.
const keptBuffer = 64 << 10

// Options are a Recorder's. The zero value is right.
type Options struct {
	Mutations mutation.Set // rules switched off by tests: HeaderLate, HeaderOmitted
}

// Recorder is the Choices of a task that is free to choose: it lets the task choose and appends each choice to the task's
// log before it returns.
type Recorder struct {
	log *Log
	enc determinant.Encoder
	buf []byte // Invariant: empty between calls, except under HeaderLate
	o   Options
}

// NewRecorder returns a Recorder that appends to l, which it makes an owned log. enc is the codec state at l's end: zero at
// an epoch's start.
func NewRecorder(l *Log, enc determinant.Encoder, o Options) *Recorder {
	l.SetOwn(true)
	return &Recorder{log: l, enc: enc, o: o}
}

// Next asks p for the next step and logs its header.
func (r *Recorder) Next(p Proposer) (determinant.Determinant, bool, error) {
	d, ok, err := p.Propose()
	if err != nil || !ok {
		return determinant.Determinant{}, false, err
	}
	mustBeHeader(&d)
	if r.o.Mutations != 0 {
		return d, true, r.nextMutated(&d)
	}
	return d, true, r.append(&d)
}

// Choose makes a choice and logs it.
func (r *Recorder) Choose(kind determinant.Kind, choose func() determinant.Determinant) (determinant.Determinant, error) {
	d := choose()
	mustBe(kind, &d)
	return d, r.append(&d)
}

// Mark logs that epoch e starts here.
func (r *Recorder) Mark(e determinant.Epoch) error {
	r.flush()
	if err := r.append(&determinant.Determinant{Kind: determinant.KindMark, Epoch: e}); err != nil {
		return err
	}
	r.flush()
	return nil
}

// Offset returns the end of the log.
func (r *Recorder) Offset() determinant.LogOffset {
	return r.log.End() + determinant.LogOffset(len(r.buf))
}

// append encodes d and publishes it.
func (r *Recorder) append(d *determinant.Determinant) error {
	if len(d.Bytes) > determinant.MaxBytes {
		return fmt.Errorf("%w: %v with %d bytes, at most %d", ErrTooLong, d.Kind, len(d.Bytes), determinant.MaxBytes)
	}
	r.buf = r.enc.Append(r.buf, d)
	if !r.o.Mutations.Has(mutation.HeaderLate) {
		r.flush()
	}
	return nil
}

func (r *Recorder) flush() {
	if len(r.buf) == 0 {
		return
	}
	r.log.Append(r.buf)
	if cap(r.buf) > keptBuffer {
		r.buf = nil
	}
	r.buf = r.buf[:0]
}

// nextMutated logs a header with a rule switched off: late, that is, with all that its step logs, when the step is over and
// its effects may have left; or not at all.
func (r *Recorder) nextMutated(d *determinant.Determinant) error {
	r.flush()
	if d.Kind == determinant.KindInput && r.o.Mutations.Has(mutation.HeaderOmitted) {
		return nil
	}
	return r.append(d)
}

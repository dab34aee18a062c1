package causal

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// ErrDone says that the replayed log has run out: the loop should have swapped to a Recorder.
var ErrDone = errors.New("causal: the replayed log has run out")

// remembered is how many determinants a Divergence shows.
const remembered = 16

// Replayer is the Choices of a task that repeats what a former incarnation chose: it hands out the determinants of a log in
// order. It never asks the Proposer. When Done, the loop swaps to Recorder's result, possibly in the middle of a step.
type Replayer struct {
	base determinant.LogOffset
	log  []byte
	pos  int // of next if size > 0
	dec  determinant.Decoder
	enc  determinant.Encoder
	buf  []byte // the re-encoded determinant

	next determinant.Determinant // decoded ahead
	size int                     // its length, 0 if none is decoded ahead

	epoch determinant.Epoch
	step  uint64
	last  [remembered]struct {
		at determinant.LogOffset
		d  determinant.Determinant
	}
	count uint64 // of determinants handed out
}

// NewReplayer returns a Replayer of log, whole determinants that begin at base, an epoch's start. It keeps log, which must
// not change; the Bytes of what it hands out are part of it.
func NewReplayer(base determinant.LogOffset, log []byte) *Replayer {
	return &Replayer{base: base, log: log}
}

// Done tells whether the log has run out.
func (r *Replayer) Done() bool { return r.pos == len(r.log) }

// Offset returns where the task is in the log.
func (r *Replayer) Offset() determinant.LogOffset { return r.base + determinant.LogOffset(r.pos) }

// Next returns the next step's header. If the log has a choice within the present step instead, that is a *Divergence. The
// Proposer is not asked.
func (r *Replayer) Next(Proposer) (determinant.Determinant, bool, error) {
	if err := r.peek(); err != nil {
		return determinant.Determinant{}, false, err
	}
	if !r.next.Kind.Header() {
		return determinant.Determinant{}, false, r.diverge("a new step")
	}
	return r.take(), true, nil
}

// Choose returns the choice that was made; choose is not called. If the log has another kind next, that is a *Divergence.
// Whether the request of a Call is the same is for the caller to compare: see Diverged.
func (r *Replayer) Choose(kind determinant.Kind, _ func() determinant.Determinant) (determinant.Determinant, error) {
	if err := r.peek(); err != nil {
		return determinant.Determinant{}, err
	}
	if r.next.Kind != kind {
		return determinant.Determinant{}, r.diverge(kind.String())
	}
	return r.take(), nil
}

// Mark passes the mark of epoch e. If the log has anything else, that is a *Divergence.
func (r *Replayer) Mark(e determinant.Epoch) error {
	if err := r.peek(); err != nil {
		return err
	}
	if r.next.Kind != determinant.KindMark || r.next.Epoch != e {
		return r.diverge((&determinant.Determinant{Kind: determinant.KindMark, Epoch: e}).String())
	}
	r.take()
	return nil
}

// PeekSkip tells whether the log says next that the record at (channel, seq) was set aside, and if so passes that. The loop
// asks before it processes a record, and again, with failed, when processing fails: the choices that the record made before it
// failed are in the log too. A record that was processed then must be processed now, even if it made no choice: what it did to
// state, and what it drew, is part of what followed. Whatever else is next stays, and errors come with the next call.
func (r *Replayer) PeekSkip(channel uint32, seq determinant.Seq, failed bool) bool {
	if r.Done() || r.peek() != nil {
		return false
	}
	if r.next.Kind != determinant.KindSkip || r.next.Channel != channel || r.next.Seq != seq || r.next.Failed != failed {
		return false
	}
	r.take()
	return true
}

// StepOver tells whether the log goes on with another step or epoch: no choice is left within the present step, and none of its records
// was set aside.
func (r *Replayer) StepOver() bool {
	return !r.Done() && r.peek() == nil && (r.next.Kind.Header() || r.next.Kind == determinant.KindMark)
}

// Recorder returns the Recorder that goes on where the log ran out, with the same codec state. l is the task's log and must
// end there. A replay that is not Done, or another end, is a bug of the caller: Recorder panics.
func (r *Replayer) Recorder(l *Log, o Options) *Recorder {
	if !r.Done() || l.End() != r.Offset() {
		panic(fmt.Sprintf("causal: assertion: replayed to %d of %d, the task's log ends at %d",
			r.Offset(), r.base+determinant.LogOffset(len(r.log)), l.End()))
	}
	return NewRecorder(l, r.enc, o)
}

// Diverged returns the error for a choice that was handed out last and does not fit, in the eyes of the loop: an unknown
// channel, a call with another request. got says what the task asked for.
func (r *Replayer) Diverged(got string) *Divergence {
	if r.count == 0 {
		return r.divergence("nothing", got)
	}
	latest := &r.last[(r.count-1)%remembered]
	d := r.divergence(latest.d.String(), got)
	d.Offset = latest.at
	d.Last = d.Last[:len(d.Last)-1]
	return d
}

// peek decodes the next determinant, unless that was done.
func (r *Replayer) peek() error {
	if r.size > 0 {
		return nil
	}
	if r.Done() {
		return ErrDone
	}
	n, err := r.dec.Next(r.log[r.pos:], &r.next)
	if err != nil {
		return fmt.Errorf("causal: replay at log offset %d: %w", r.Offset(), err)
	}
	r.buf = r.enc.Append(r.buf[:0], &r.next)
	if !bytes.Equal(r.buf, r.log[r.pos:r.pos+n]) {
		return fmt.Errorf("causal: assertion: at log offset %d %v encodes to % x", r.Offset(), &r.next, r.buf)
	}
	r.size = n
	return nil
}

// take hands out what peek has decoded.
func (r *Replayer) take() determinant.Determinant {
	latest := &r.last[r.count%remembered]
	latest.at, latest.d = r.Offset(), r.next
	r.count++
	switch {
	case r.next.Kind == determinant.KindMark:
		r.epoch, r.step = r.next.Epoch, 0
	case r.next.Kind.Header():
		r.step++
	}
	r.pos += r.size
	r.size = 0
	return r.next
}

// diverge returns the error for asking for something else than what is next.
func (r *Replayer) diverge(got string) error { return r.divergence(r.next.String(), got) }

func (r *Replayer) divergence(expected, got string) *Divergence {
	d := &Divergence{Epoch: r.epoch, Step: r.step, Offset: r.Offset(), Expected: expected, Got: got}
	for i := r.count - min(r.count, remembered); i < r.count; i++ {
		past := &r.last[i%remembered]
		d.Last = append(d.Last, fmt.Sprintf("%d: %v", past.at, &past.d))
	}
	return d
}

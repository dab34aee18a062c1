package cluster

import (
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/task"
)

// TaskFailure is the death of one task whose worker lives.
type TaskFailure struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Worker      determinant.WorkerID
	Err         error
}

// sentinels are the errors that the coordinator's policies tell apart; a bit each when a failure crosses a process border.
var sentinels = [...]error{
	ErrKilled, task.ErrReopened, task.ErrUnskippable, operator.ErrPermanent, causal.ErrDivergence, operator.ErrContradiction,
	operator.ErrFenced,
}

// failureWire is a TaskFailure as it crosses a process border.
type failureWire struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Worker      determinant.WorkerID
	Text        string
	Is          uint32 // which of sentinels it is
	Poison      *task.Poison
	PoisonText  string // Poison.Err
}

// EncodeMsgpack writes the failure with what policies need to know of its error.
func (f *TaskFailure) EncodeMsgpack(enc *msgpack.Encoder) error {
	w := failureWire{Task: f.Task, Incarnation: f.Incarnation, Worker: f.Worker, Text: f.Err.Error()}
	for i, s := range sentinels {
		if errors.Is(f.Err, s) {
			w.Is |= 1 << i
		}
	}
	var p *task.Poison
	if errors.As(f.Err, &p) {
		bare := *p
		bare.Err = nil
		w.Poison = &bare
		if p.Err != nil {
			w.PoisonText = p.Err.Error()
		}
	}
	return enc.Encode(&w)
}

// DecodeMsgpack is the inverse of EncodeMsgpack: errors.Is and errors.As find in the error what they found before.
func (f *TaskFailure) DecodeMsgpack(dec *msgpack.Decoder) error {
	var w failureWire
	if err := dec.Decode(&w); err != nil {
		return fmt.Errorf("cluster: failure of a task: %w", err)
	}
	far := &farError{text: w.Text}
	for i, s := range sentinels {
		if w.Is&(1<<i) != 0 {
			far.wrapped = append(far.wrapped, s)
		}
	}
	if w.Poison != nil {
		w.Poison.Err = errors.New(w.PoisonText)
		far.wrapped = append(far.wrapped, w.Poison)
	}
	*f = TaskFailure{Task: w.Task, Incarnation: w.Incarnation, Worker: w.Worker, Err: far}
	return nil
}

// farError is an error of another process.
type farError struct {
	text    string
	wrapped []error
}

// Error is the text that it had there.
func (e *farError) Error() string { return e.text }

// Unwrap gives what it was there, as far as that is known here.
func (e *farError) Unwrap() []error { return e.wrapped }

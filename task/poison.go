package task

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Position names a record: input channel and sequence number, or, in a source, split and offset.
type Position struct {
	Channel uint32
	Seq     determinant.Seq
}

// Poison is a record that the user's code fails on.
type Poison struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Vertex      string // the task's name
	Operator    string
	Position    Position
	Known       bool // the failure belongs to a record, and not to a timer or a flush
	Source      bool // the position is a split and an offset in it
	ByRecord    bool // the next life may meet it at another position: the record, and not its position, tells which it is
	Record      []byte
	Err         error
}

// Error says which record failed where, and shows it.
func (p *Poison) Error() string {
	if !p.Known {
		return fmt.Sprintf("task: %s: operator %q failed: %v", p.Vertex, p.Operator, p.Err)
	}
	where := "channel %d, sequence number %d"
	if p.Source {
		where = "split %d, offset %d"
	}
	return fmt.Sprintf("task: %s: operator %q failed on the record at "+where+": %v (record: %.200q)",
		p.Vertex, p.Operator, p.Position.Channel, p.Position.Seq, p.Err, p.Record)
}

// Unwrap gives the user's error.
func (p *Poison) Unwrap() error { return p.Err }

// Same tells whether two failures are the same one, met again.
func (p *Poison) Same(o *Poison) bool {
	same := p.Position == o.Position
	if p.ByRecord || o.ByRecord {
		same = bytes.Equal(p.Record, o.Record)
	}
	return p.Known && o.Known && p.Task == o.Task && same && p.Operator == o.Operator
}

// userFailure turns an error of user code that belongs to no record, but to a timer or a flush, into a Poison. Other errors
// pass.
func (t *Task) userFailure(err error) error {
	var u *operator.UserError
	if !errors.As(err, &u) {
		return err
	}
	return &Poison{Task: t.cfg.ID, Incarnation: t.cfg.Incarnation, Vertex: t.String(), Operator: u.Operator, Err: u.Err}
}

// shown is a copy of a record, for people and for the dead-letter output.
func (t *Task) shown(record []byte) []byte {
	if t.source != nil {
		return t.source.Show()
	}
	return append([]byte(nil), record...)
}

// setAside passes over the record at p if the replayed log has a Skip for it, or if the policy wants it set aside and the
// log ends here.
//
// Invariant: a Skip is recorded only where the log ends and no consumer is ahead: history cannot be rewritten.
func (t *Task) setAside(p Position, record []byte) (bool, error) {
	if t.replayer != nil && t.replayer.PeekSkip(p.Channel, p.Seq, false) {
		return true, nil
	}
	if len(t.cfg.SkipAt) == 0 || !t.mode.Logs() || t.replayer != nil && !t.replayer.Done() {
		return false, nil
	}
	known := t.skipAt(p, record)
	if known == nil || t.source == nil && known.ByRecord {
		return false, nil // another record may look the same: it is set aside when it fails
	}
	return true, t.recordSkip(p, record, known, false)
}

// recordFailed handles a failure of user code on a record. If the log has a Skip behind the choices that the record made
// before it failed, or the policy wants one there, the record's output is dropped and the task goes on.
func (t *Task) recordFailed(p Position, record []byte, err error) error {
	var u *operator.UserError
	if !errors.As(err, &u) {
		return err
	}
	if t.replayer != nil && t.replayer.PeekSkip(p.Channel, p.Seq, true) {
		t.rewind()
		return nil
	}
	known := t.skipAt(p, record)
	if known == nil {
		return &Poison{
			Task: t.cfg.ID, Incarnation: t.cfg.Incarnation, Vertex: t.String(), Operator: u.Operator,
			Position: p, Known: true, Source: t.source != nil, ByRecord: !t.mode.Logs() && t.source == nil,
			Record: t.shown(record), Err: u.Err,
		}
	}
	if t.replayer != nil && !t.replayer.Done() {
		return fmt.Errorf("%w: %s: others depend on choices that followed it", ErrUnskippable, t)
	}
	t.rewind()
	return t.recordSkip(p, record, &Poison{Operator: u.Operator, Err: u.Err}, true)
}

// skipAt finds the record among those to be set aside; nil if it is none of them. A source's records always have the same
// positions. Elsewhere records come in another order in a life that does not repeat the choices of the former one, and then
// only the record itself tells which it is.
func (t *Task) skipAt(p Position, record []byte) *Poison {
	for i := range t.cfg.SkipAt {
		known := &t.cfg.SkipAt[i]
		if t.source == nil && known.ByRecord {
			if bytes.Equal(known.Record, record) {
				return known
			}
		} else if known.Position == p {
			return known
		}
	}
	return nil
}

// recordSkip hands the record to the dead-letter output and records that it was set aside, and whether it was processed before.
func (t *Task) recordSkip(p Position, record []byte, known *Poison, failed bool) error {
	c, err := t.choices()
	if err != nil {
		return err
	}
	err = t.cfg.Host.SetAside(t, Poison{
		Task: t.cfg.ID, Incarnation: t.cfg.Incarnation, Vertex: t.String(), Position: p, Known: true,
		Operator: known.Operator, Source: t.source != nil, Record: t.shown(record), Err: known.Err,
	})
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnskippable, t, err)
	}
	_, err = c.Choose(determinant.KindSkip, func() determinant.Determinant {
		return determinant.Determinant{Kind: determinant.KindSkip, Channel: p.Channel, Seq: p.Seq, Failed: failed}
	})
	return err
}

var _ causal.Proposer = (*Task)(nil)
var _ operator.Runtime = (*Task)(nil)

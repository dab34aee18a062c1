package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// errTorn is the failure of a store that was interrupted in the middle of a write.
var errTorn = errors.New("sim: the store was interrupted")

// sink opens the stores of one sink of a job. They live outside all workers.
type sink struct {
	world *World
	name  string
}

// Open implements operator.CausalSink. The store of a task is one and the same for all who open it.
func (s *sink) Open(_ context.Context, index, _ int) (operator.CausalStore, error) {
	return s.world.storeOf(s.name, index), nil
}

// line is one visible record.
type line struct {
	bytes []byte
	inc   determinant.Incarnation // who wrote it
}

// landmark is a position at which a write ended: how much was visible, and what it depended on.
type landmark struct {
	cursor  determinant.Cursor
	visible int
	depends vector
}

// store is the external neighbour of one sink task: visible lines, and determinants stored before them.
//
//	lines: | written whole                    | shown of a torn write |
//	                                          ^cursor
type store struct {
	world *World
	name  string
	task  determinant.TaskID

	fence      determinant.Incarnation
	generation determinant.Generation
	lines      []line
	marks      []landmark // Invariant: the last one is at cursor
	logs       *causal.Store
	late       []byte // determinants that the mutation OutputBeforeDeterminants holds back
}

func newStore(w *World, name string, t determinant.TaskID) *store {
	return &store{
		world: w, name: name, task: t, logs: causal.NewStore(len(w.job.Tasks)),
		marks: []landmark{{cursor: determinant.Cursor{}, depends: w.newVector()}},
	}
}

func (s *store) at() *landmark { return &s.marks[len(s.marks)-1] }

// Fence implements operator.CausalStore.
func (s *store) Fence(_ context.Context, f operator.Fence) (operator.Stored, error) {
	if f.Incarnation < s.fence || f.Generation < s.generation {
		return operator.Stored{}, operator.ErrFenced
	}
	if !s.world.mutated(mutation.FenceMissingAtStoreRead) {
		s.fence = f.Incarnation
	}
	if f.Cut != nil && f.Generation > s.generation {
		s.cut(f.Cut)
	}
	s.generation = f.Generation
	if f.Restart != nil {
		s.lines = s.lines[:s.at().visible]
		s.marks = append(s.marks, landmark{cursor: *f.Restart, visible: len(s.lines), depends: s.at().depends})
	}
	s.world.trace("store of task %d: fence %d, cursor %v, %d lines", s.task, s.fence, s.at().cursor, len(s.lines))
	return operator.Stored{Cursor: s.at().cursor, Deltas: s.deltas()}, nil
}

// deltas gives the stored determinants as one delta.
func (s *store) deltas() [][]byte {
	order := make([]determinant.TaskID, len(s.world.job.Tasks))
	from := make([]determinant.LogOffset, len(order))
	for t := range order {
		order[t] = determinant.TaskID(t)
		from[t] = s.logs.Log(order[t]).Base()
	}
	if d := s.logs.Delta(nil, order, from); len(d) > 0 {
		return [][]byte{d}
	}
	return nil
}

// cut applies a global rollback.
func (s *store) cut(c *operator.Cut) {
	s.logs.Cut(c.Logs)
	s.late = nil
	for len(s.marks) > 1 && s.at().cursor.Next > c.Cursor.Next {
		s.marks = s.marks[:len(s.marks)-1]
	}
	if s.at().cursor.Next != c.Cursor.Next {
		s.world.violate("store-cut", "store of task %d is cut to %v, but no write ended there: nearest %v", s.task, c.Cursor, s.at().cursor)
	}
	s.lines = s.lines[:s.at().visible]
	s.at().depends = s.world.newVector() // the checkpoint covers it
}

// Write implements operator.CausalStore. Determinants first; then the world goes on for a while; then the records.
func (s *store) Write(_ context.Context, inc determinant.Incarnation, w operator.StoreWrite) error {
	unfenced := s.world.mutated(mutation.FenceMissingAtSink)
	if inc < s.fence && !unfenced {
		s.world.result.Refused++
		return operator.ErrFenced
	}
	if s.world.mutated(mutation.FenceMissingAtStoreRead) {
		s.fence = max(s.fence, inc)
	}
	delta := w.Delta
	if s.world.mutated(mutation.OutputBeforeDeterminants) {
		delta, s.late = s.late, bytes.Clone(w.Delta)
	}
	if err := s.keep(delta); err != nil {
		return err
	}
	writer := s.world.writing
	s.world.meanwhile(s.task)
	if inc < s.fence && !unfenced {
		s.world.result.Refused++
		return operator.ErrFenced
	}
	torn := s.world.torn(writer, len(w.Records))
	if err := s.reveal(inc, &w, torn); err != nil {
		return err
	}
	if torn >= 0 {
		return errTorn
	}
	return nil
}

// keep stores determinants.
func (s *store) keep(delta []byte) error {
	return causal.DecodeDelta(delta, func(t determinant.TaskID, from determinant.LogOffset, covered bool, p []byte) error {
		log := s.logs.Log(t)
		if err := log.Merge(from, p, covered || log.Bytes() == 0); err != nil {
			s.world.violate("store-delta", "store of sink task %d, log %d: %v", s.task, t, err)
			return err
		}
		return nil
	})
}

// reveal makes records visible, all or the first torn of them.
func (s *store) reveal(inc determinant.Incarnation, w *operator.StoreWrite, torn int) error {
	at := s.at()
	if w.Start != at.cursor && (at.cursor != determinant.Cursor{} || w.Start != determinant.Cursor{Epoch: 1}) {
		return fmt.Errorf("%w: a write begins at %v, the store is at %v", operator.ErrContradiction, w.Start, at.cursor)
	}
	records := w.Records
	if torn >= 0 {
		records = records[:torn]
	}
	for i, r := range records {
		if seen := at.visible + i; seen < len(s.lines) {
			if !bytes.Equal(s.lines[seen].bytes, r) {
				return fmt.Errorf("%w: line %d is %s, written is %s", operator.ErrContradiction, seen, show(s.lines[seen].bytes), show(r))
			}
			continue
		}
		s.lines = append(s.lines, line{bytes.Clone(r), inc})
	}
	depends := s.world.dependsAt(s.task, inc, w.End.Next)
	s.world.checkStore(s, inc, depends)
	if torn < 0 {
		s.marks = append(s.marks, landmark{cursor: w.End, visible: at.visible + len(w.Records), depends: depends})
	}
	s.world.trace("store of task %d: incarnation %d writes %d of %d records, %v to %v", s.task, inc, len(records), len(w.Records), w.Start, w.End)
	return nil
}

// Truncate implements operator.CausalStore.
func (s *store) Truncate(_ context.Context, _ determinant.Epoch, offsets []determinant.LogOffset) error {
	s.logs.Truncate(offsets)
	return nil
}

// Close implements operator.CausalStore. The store goes on without its user.
func (s *store) Close() error { return nil }

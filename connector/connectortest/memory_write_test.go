package connectortest

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// nowhere is where a write begins that takes no notice of what is shown, in a mutant.
const nowhere = -1

var errGap = errors.New("the write does not begin where the output ends")

// enter and leave let one write in at a time, for a mutant.
func (s *memoryStore) enter(ctx context.Context) error {
	s.p.Lock()
	if s.p.writing == nil {
		s.p.writing = make(chan struct{}, 1)
	}
	writing := s.p.writing
	s.p.Unlock()
	select {
	case writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *memoryStore) leave() { <-s.p.writing }

func (s *memoryStore) Write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	off := s.s.m.off
	if err := s.usable(ctx); err != nil {
		if off["a cancelled write does not come later"] {
			s.later(w)
		}
		return err
	}
	if off["a fence does not wait for a stopped writer"] {
		if err := s.enter(ctx); err != nil {
			return err
		}
		defer s.leave()
	}
	from := 0
	cover := func() error {
		return s.s.step(func() (err error) { from, err = s.cover(incarnation, &w); return err }, nil)
	}
	show := func() error {
		return s.s.step(func() error { return s.show(incarnation, &w, from, len(w.Records)) },
			func() error { return s.show(incarnation, &w, from, len(w.Records)/2) })
	}
	steps := []func() error{cover, show}
	if off["determinants are stored first"] {
		s.p.Lock()
		_, from = s.p.end()
		s.p.Unlock()
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			if off["a failed write is not tried again blindly"] && !errors.Is(err, operator.ErrFenced) && from > 0 {
				return s.show(incarnation, &w, nowhere, len(w.Records))
			}
			s.s.broken.Store(off["a failed write leaves the store usable"])
			return err
		}
	}
	return nil
}

// later keeps a write that was cancelled, for a mutant.
func (s *memoryStore) later(w operator.StoreWrite) {
	w.Delta = bytes.Clone(w.Delta)
	w.Records = slices.Clone(w.Records)
	for i := range w.Records {
		w.Records[i] = bytes.Clone(w.Records[i])
	}
	s.p.Lock()
	defer s.p.Unlock()
	s.p.later = func() {
		for _, r := range w.Records {
			s.p.shown = append(s.p.shown, string(r))
		}
	}
}

// admits tells whether an incarnation may write. The part is locked.
func (s *memoryStore) admits(incarnation determinant.Incarnation) error {
	off, p := s.s.m.off, s.p
	fence := p.incarnation
	if off["a fence holds between processes"] {
		fence = s.s.fenced
	}
	switch {
	case p.cutting:
		return errors.New("a cut is under way")
	case off["a fence is obeyed"]:
		return nil
	case off["a fence is of one task"] && incarnation < s.s.m.highest():
		return operator.ErrFenced
	case incarnation < fence, off["an equal fence leaves the writer alone"] && p.owner != s.s:
		return operator.ErrFenced
	}
	return nil
}

// cover stores the determinants and tells where the records begin.
func (s *memoryStore) cover(incarnation determinant.Incarnation, w *operator.StoreWrite) (int, error) {
	off, p := s.s.m.off, s.p
	p.Lock()
	defer p.Unlock()
	if p.later != nil {
		p.later()
		p.later = nil
	}
	err := s.admits(incarnation)
	if err != nil && !off["a fenced write stores nothing"] {
		return 0, err
	}
	cursor, position := p.end()
	if err == nil {
		if err := s.follows(cursor, position, w); err != nil {
			return 0, err
		}
	}
	if len(w.Records) == 0 && off["a write without records counts"] {
		return position, nil
	}
	delta := w.Delta
	if !off["the caller's bytes are copied"] {
		delta = bytes.Clone(delta)
	}
	if !off["determinants are stored"] {
		p.frames = append(p.frames, frame{end: w.End, from: position, count: len(w.Records), delta: delta})
	} else {
		p.frames = append(p.frames, frame{end: w.End, from: position, count: len(w.Records)})
	}
	return position, err
}

// follows compares a write with what is shown. The part is locked.
func (s *memoryStore) follows(cursor determinant.Cursor, position int, w *operator.StoreWrite) error {
	off, p := s.s.m.off, s.p
	if cursor.Epoch == 0 {
		cursor.Epoch = 1
	}
	switch {
	case w.Start.Next > cursor.Next && !off["a gap is refused"], w.Start.Next < cursor.Next && !off["an overlap is refused"]:
		return errGap
	case w.Start != cursor && w.Start.Next == cursor.Next && !off["the start is compared"]:
		return operator.ErrContradiction
	}
	for i, torn := range p.shown[min(position, len(p.shown)):] {
		if i < len(w.Records) && string(w.Records[i]) != torn && !off["what is torn is compared"] {
			return operator.ErrContradiction
		}
	}
	return nil
}

// show shows the records up to n that are not shown yet.
func (s *memoryStore) show(incarnation determinant.Incarnation, w *operator.StoreWrite, from, n int) error {
	off, p := s.s.m.off, s.p
	p.Lock()
	defer p.Unlock()
	if !off["a fence holds during a write"] {
		if err := s.admits(incarnation); err != nil {
			return err
		}
	}
	already := max(0, len(p.shown)-from)
	if off["what is torn is not shown again"] || from == nowhere {
		already = 0
	}
	records := slices.Clone(w.Records)
	if off["records keep their order"] {
		slices.Reverse(records)
	}
	if len(records) > 100 && off["no record is lost"] {
		n--
	}
	for i := already; i < n; i++ {
		p.shown = append(p.shown, string(records[i]))
	}
	return nil
}

// highest is the highest incarnation of any task, for a mutant. One part is locked: only such tests come here.
func (m *memory) highest() (i determinant.Incarnation) {
	for t := range m.parts {
		i = max(i, m.parts[t].incarnation)
	}
	return i
}

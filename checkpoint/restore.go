package checkpoint

import (
	"errors"
	"fmt"
	"math"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// Restore reads the committed checkpoint e of the task: it sets *meta and calls load for each entry, in (table, key) order.
// Key and value are valid until load returns. e must be exactly what the store holds, otherwise the error has ErrNotHeld
// in its chain; only e == 0 is always there: Meta{Task: t} and no entries.
func (s *Store) Restore(
	t determinant.TaskID, e determinant.Epoch, meta *Meta, load func(table string, key, value []byte) error,
) error {
	return s.read(t, e, meta, &pace{urgent: true}, load)
}

// Read is Restore for a caller that nobody waits for: it makes way for others.
func (s *Store) Read(
	t determinant.TaskID, e determinant.Epoch, meta *Meta, load func(table string, key, value []byte) error,
) error {
	return s.read(t, e, meta, new(pace), load)
}

func (s *Store) read(
	t determinant.TaskID, e determinant.Epoch, meta *Meta, p *pace, load func(table string, key, value []byte) error,
) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if e == 0 {
		*meta = Meta{Task: t}
		return nil
	}
	m, err := s.view(t, e, p, func(*Meta) {}, load)
	if err != nil {
		return fmt.Errorf("checkpoint: restore task %d epoch %d: %w", t, e, err)
	}
	*meta = m
	return nil
}

// RestoreAt is Restore for a caller that knows from the ledger that checkpoint e of the task, as taken by incarnation inc,
// is committed: if this store has the image but was not told yet, it commits the image first.
func (s *Store) RestoreAt(
	t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation, meta *Meta, load func(table string, key, value []byte) error,
) error {
	if err := s.foldFor(&t, &e, inc); err != nil {
		return err
	}
	return s.Restore(t, e, meta, load)
}

// MetaAt is RestoreAt without the entries.
func (s *Store) MetaAt(t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation, meta *Meta) error {
	if err := s.foldFor(&t, &e, inc); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if e == 0 {
		*meta = Meta{Task: t}
		return nil
	}
	files, err := s.openHeld(t, e, 1)
	if err != nil {
		return err
	}
	newest := &files[0]
	r, err := newest.open()
	if err = errors.Join(err, newest.file.Close()); err != nil {
		return fmt.Errorf("checkpoint: meta of task %d in %s: %w", t, newest.name(), err)
	}
	*meta = r.meta
	return nil
}

func (s *Store) foldFor(t *determinant.TaskID, e *determinant.Epoch, inc determinant.Incarnation) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.fold.Lock()
	defer s.fold.Unlock()
	if s.mutations.Has(mutation.RestoreUncommitted) {
		*e, inc = s.newest(*t, *e, inc)
	}
	f := folder{s: s}
	if err := f.add(imageID{*t, *e}, inc); err != nil {
		return err
	}
	if len(f.parts) == 0 {
		return nil
	}
	err := s.removeImages(func(id imageID) bool { return id.task == *t && id.epoch <= *e && !f.has(id) })
	return errors.Join(err, f.finish())
}

// newest is the mutation RestoreUncommitted: the newest image that is here counts, committed or not.
func (s *Store) newest(t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation) (determinant.Epoch, determinant.Incarnation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, im := range s.mu.images { // a maximum, whatever the order
		if id.task == t && id.epoch > e {
			e, inc = id.epoch, im.inc
		}
	}
	return e, inc
}

// Export builds a full image of the committed state of the task, for Import at another worker. Its Meta is that of the
// checkpoint. The caller owns the bytes. A task that the store holds nothing of gives the empty state, checkpoint 0.
func (s *Store) Export(t determinant.TaskID) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	e := s.Held(t)
	if e == 0 {
		b := newBuilder(&Meta{Task: t}, true, nil)
		defer b.release()
		return b.finish()
	}
	var b *builder
	table, started := "", false
	_, err := s.view(t, e, new(pace), func(m *Meta) { b = newBuilder(m, true, nil) }, func(name string, key, value []byte) error {
		if !started || name != table {
			table, started = name, true
			if err := b.table(name); err != nil {
				return err
			}
		}
		return b.entry(key, value, false)
	})
	if b != nil {
		defer b.release()
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: export task %d epoch %d: %w", t, e, err)
	}
	return b.finish()
}

// view calls begin with the Meta of committed checkpoint e and then load for each entry.
func (s *Store) view(
	t determinant.TaskID, e determinant.Epoch, p *pace, begin func(m *Meta), load func(table string, key, value []byte) error,
) (Meta, error) {
	files, err := s.openHeld(t, e, math.MaxInt)
	if err != nil {
		return Meta{}, err
	}
	m, err := newMerging(files, p)
	if err != nil {
		return Meta{}, err
	}
	if m.meta.Task != t || m.meta.Epoch != e {
		err := fmt.Errorf("%w: a part of task %d epoch %d where task %d epoch %d should be", ErrCorrupt, m.meta.Task, m.meta.Epoch, t, e)
		return Meta{}, errors.Join(err, m.close())
	}
	begin(&m.meta)
	for {
		table, key, value, deleted, ok, err := m.next()
		if err == nil && ok && !deleted {
			err = load(table, key, value)
		}
		if err != nil || !ok {
			return m.meta, errors.Join(err, m.close())
		}
	}
}

// openHeld opens the files of committed checkpoint e of the task, the newest so many: nothing that is committed later shows in them. The caller
// closes them.
func (s *Store) openHeld(t determinant.TaskID, e determinant.Epoch, newest int) ([]partFile, error) {
	s.fold.Lock()
	defer s.fold.Unlock()
	s.mu.Lock()
	held, chain := s.heldLocked(t).Epoch, s.mu.chains[t]
	s.mu.Unlock()
	if held != e {
		return nil, fmt.Errorf("%w: task %d epoch %d, held is %d", ErrNotHeld, t, e, held)
	}
	return s.openParts(chain[max(0, len(chain)-newest):])
}

package checkpoint

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// Restore reads the committed checkpoint e of the task: it sets *meta and calls load for each entry, in (table, key) order.
// Key and value are valid until load returns. e must be exactly what the store holds, otherwise the error has ErrNotHeld
// in its chain; only e == 0 is always there: Meta{Task: t} and no entries.
func (s *Store) Restore(
	t determinant.TaskID, e determinant.Epoch, meta *Meta, load func(table string, key, value []byte) error,
) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if e == 0 {
		*meta = Meta{Task: t}
		return nil
	}
	m, iter, err := s.view(t, e)
	if err != nil {
		return err
	}
	err = eachEntry(iter, load)
	if err = errors.Join(err, iter.Close()); err != nil {
		return fmt.Errorf("checkpoint: restore task %d epoch %d: %w", t, e, err)
	}
	*meta = m
	return nil
}

// RestoreAt is Restore for a caller that knows from the ledger that checkpoint e of the task, as taken by incarnation inc,
// is committed: if this store has the image but was not told yet, it folds the image first.
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
	m, iter, err := s.view(t, e)
	if err != nil {
		return err
	}
	*meta = m
	return iter.Close()
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
	f := s.newFolder()
	defer f.close()
	if err := f.addImage(imageID{*t, *e}, inc); err != nil {
		return err
	}
	if len(f.next) == 0 {
		return nil
	}
	if err := f.finish(); err != nil {
		return err
	}
	return s.removeImages(func(id imageID) bool { return id.task == *t && id.epoch <= *e })
}

// newest is the mutation RestoreUncommitted: the newest image that is here counts, committed or not.
func (s *Store) newest(t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation) (determinant.Epoch, determinant.Incarnation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, i := range s.mu.images { // a maximum, whatever the order
		if id.task == t && id.epoch > e {
			e, inc = id.epoch, i
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
		return newBuilder(&Meta{Task: t}, true, 0).finish(), nil
	}
	m, iter, err := s.view(t, e)
	if err != nil {
		return nil, err
	}
	b := newBuilder(&m, true, 0)
	table, started := "", false
	err = eachEntry(iter, func(name string, key, value []byte) error {
		if !started || name != table {
			table, started = name, true
			b.table(name)
		}
		return b.entry(key, value, false)
	})
	if err = errors.Join(err, iter.Close()); err != nil {
		return nil, fmt.Errorf("checkpoint: export task %d epoch %d: %w", t, e, err)
	}
	return b.finish(), nil
}

// view returns the Meta of committed checkpoint e and an iterator over its entries: both of one moment. The caller closes
// the iterator; nothing that is committed later shows in it.
func (s *Store) view(t determinant.TaskID, e determinant.Epoch) (m Meta, iter *pebble.Iterator, err error) {
	s.fold.Lock()
	defer s.fold.Unlock()
	if held := s.Held(t); held != e {
		return m, nil, fmt.Errorf("%w: task %d epoch %d, held is %d", ErrNotHeld, t, e, held)
	}
	value, closer, err := s.db.Get(metaKey(t))
	if err != nil {
		return m, nil, fmt.Errorf("checkpoint: meta of task %d: %w", t, err)
	}
	m, err = decodeMeta(value)
	if err = errors.Join(err, closer.Close()); err != nil {
		return m, nil, err
	}
	if m.Task != t || m.Epoch != e {
		return m, nil, fmt.Errorf("%w: meta of task %d epoch %d where task %d epoch %d should be", ErrCorrupt, m.Task, m.Epoch, t, e)
	}
	from, to := entryRange(t)
	iter, err = s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return m, nil, fmt.Errorf("checkpoint: entries of task %d: %w", t, err)
	}
	return m, iter, nil
}

// eachEntry calls f for each entry that the iterator has.
func eachEntry(iter *pebble.Iterator, f func(table string, key, value []byte) error) error {
	var prefix []byte
	var table string
	for ok := iter.First(); ok; ok = iter.Next() {
		key := iter.Key()
		end, err := tableEnd(key)
		if err != nil {
			return err
		}
		if string(key[:end]) != string(prefix) {
			prefix = append(prefix[:0], key[:end]...)
			table = tableName(prefix)
		}
		value, err := iter.ValueAndErr()
		if err != nil {
			return err
		}
		if err := f(table, key[end:], value); err != nil {
			return err
		}
	}
	return iter.Error()
}

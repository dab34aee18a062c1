package checkpoint

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// foldBatchBytes bounds what tasks share one Pebble batch: a task's fold is always in one batch, small ones go together.
const foldBatchBytes = 1 << 20

// Commit makes the images of epoch e that were taken by exactly these lives the committed state of their tasks, and drops
// every other image of epochs up to e. A task whose image is not here, or not relative to what is held, keeps its old
// checkpoint: Held tells. Commit may be called again, after an error too, and then does what is left to do.
func (s *Store) Commit(e determinant.Epoch, lives []Life) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.fold.Lock()
	defer s.fold.Unlock()
	var failed error
	keep := make(map[determinant.TaskID]bool)
	f := s.newFolder()
	defer f.close()
	for _, life := range lives {
		if err := f.addImage(imageID{life.Task, e}, life.Incarnation); err != nil {
			failed = errors.Join(failed, err)
			keep[life.Task] = true
		}
	}
	if err := f.finish(); err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, s.removeImages(func(id imageID) bool { return id.epoch <= e && !keep[id.task] }))
}

// Import takes a full image, which Export made at another worker, as the committed state of its task. The error has
// ErrNotFull in its chain if the image is incremental, ErrStale if the store holds a newer checkpoint, ErrCorrupt if the
// image is damaged.
func (s *Store) Import(image []byte) error {
	m, full, err := Verify(image)
	if err != nil {
		return err
	}
	if !full {
		return fmt.Errorf("%w: task %d epoch %d", ErrNotFull, m.Task, m.Epoch)
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.fold.Lock()
	defer s.fold.Unlock()
	held := s.Held(m.Task)
	if held > m.Epoch {
		return fmt.Errorf("%w: import of task %d epoch %d, held is %d", ErrStale, m.Task, m.Epoch, held)
	}
	if held < m.Epoch {
		f := s.newFolder()
		defer f.close()
		if err := f.add(image, &m, full); err != nil {
			return err
		}
		if err := f.finish(); err != nil {
			return err
		}
	}
	return s.removeImages(func(id imageID) bool { return id.task == m.Task && id.epoch <= m.Epoch })
}

// Drop forgets the task: its committed state and its images.
func (s *Store) Drop(t determinant.TaskID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.fold.Lock()
	defer s.fold.Unlock()
	if err := s.removeImages(func(id imageID) bool { return id.task == t }); err != nil {
		return err
	}
	if s.Held(t) == 0 {
		return nil
	}
	b := s.db.NewBatch()
	defer s.closeBatch(b)
	from, to := entryRange(t)
	if err := errors.Join(b.DeleteRange(from, to, nil), b.Delete(metaKey(t), nil)); err != nil {
		return fmt.Errorf("checkpoint: drop task %d: %w", t, err)
	}
	if err := s.fault.run(func() error { return b.Commit(pebble.Sync) }); err != nil {
		return fmt.Errorf("checkpoint: drop task %d: %w", t, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.held, t)
	return nil
}

// DropAbove drops the images of epochs above e: after a global rollback to e they belong to a history that is void.
func (s *Store) DropAbove(e determinant.Epoch) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.removeImages(func(id imageID) bool { return id.epoch > e })
}

// folder writes images into the committed state. The caller holds s.fold.
type folder struct {
	s     *Store
	batch *pebble.Batch
	done  []Holding // in a batch that was written, perhaps not synced
	next  []Holding // in the open batch
}

func (s *Store) newFolder() *folder { return &folder{s: s, batch: s.db.NewBatch()} }

// room makes the open batch, which is empty, as big as an image needs: growing copies it again and again.
func (f *folder) room(image []byte) {
	if len(image) > foldBatchBytes {
		f.close()
		f.batch = f.s.db.NewBatchWithSize(len(image) + len(image)/8)
	}
}

func (f *folder) close() { f.s.closeBatch(f.batch) }

// closeBatch returns a batch to Pebble, unless Pebble failed and may still be at it.
func (s *Store) closeBatch(b *pebble.Batch) {
	if s.fault.check() == nil {
		_ = b.Close()
	}
}

// addImage folds an image file, unless it is not here or does not fit on what is held.
func (f *folder) addImage(id imageID, inc determinant.Incarnation) error {
	f.s.mu.Lock()
	held := f.s.mu.held[id.task]
	have, ok := f.s.mu.images[id]
	f.s.mu.Unlock()
	if !ok || have != inc || held.Epoch >= id.epoch {
		return nil
	}
	image, m, full, err := f.s.readImage(id, inc)
	if err != nil {
		return err
	}
	if !full && m.Base > held.Epoch && !f.s.mutations.Has(mutation.RestoreUncommitted) {
		return nil
	}
	return f.add(image, &m, full)
}

// add puts the image into the open batch. The image has been verified.
func (f *folder) add(image []byte, m *Meta, full bool) error {
	if f.batch.Len()+len(image) > foldBatchBytes && !f.batch.Empty() {
		if err := f.write(pebble.NoSync); err != nil {
			return err
		}
		f.close()
		f.batch = f.s.db.NewBatch()
	}
	if f.batch.Empty() {
		f.room(image)
	}
	from, to := entryRange(m.Task)
	if full {
		if err := f.batch.DeleteRange(from, to, nil); err != nil {
			return fmt.Errorf("checkpoint: fold: %w", err)
		}
	}
	var prefix []byte
	table, started := "", false
	err := entries(image, true, func(name string, key, value []byte, deleted bool) error {
		if !started || name != table {
			table, started = name, true
			prefix = appendTable(prefix[:0], m.Task, name)
		}
		if deleted {
			op := f.batch.DeleteDeferred(len(prefix) + len(key))
			copy(op.Key[copy(op.Key, prefix):], key)
			return op.Finish()
		}
		op := f.batch.SetDeferred(len(prefix)+len(key), len(value))
		copy(op.Key[copy(op.Key, prefix):], key)
		copy(op.Value, value)
		return op.Finish()
	})
	if err == nil {
		err = f.batch.Set(metaKey(m.Task), appendMeta(nil, m), nil)
	}
	if err != nil {
		return fmt.Errorf("checkpoint: fold task %d epoch %d: %w", m.Task, m.Epoch, err)
	}
	f.next = append(f.next, Holding{Task: m.Task, Epoch: m.Epoch, Incarnation: m.Incarnation})
	return nil
}

func (f *folder) write(o *pebble.WriteOptions) error {
	if err := f.s.fault.run(func() error { return f.batch.Commit(o) }); err != nil {
		return fmt.Errorf("checkpoint: fold: %w", err)
	}
	f.done = append(f.done, f.next...)
	f.next = nil
	return nil
}

// finish writes what is left. The last batch is synced, and with it those before it: they are in one write-ahead log.
func (f *folder) finish() error {
	if len(f.next) == 0 {
		return nil
	}
	if err := f.write(pebble.Sync); err != nil {
		return err
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for _, h := range f.done {
		f.s.mu.held[h.Task] = h
	}
	return nil
}

package checkpoint

import (
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// Commit makes the images of epoch e that were taken by exactly these lives the committed state of their tasks, and drops
// every other image of epochs up to e. A task whose image is not here, or not relative to what is held, keeps its old
// checkpoint: Held tells. Commit may be called again, after an error too, and then does what is left to do. Then it goes on with merging, in
// proportion to what was committed.
func (s *Store) Commit(e determinant.Epoch, lives []Life) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.fold.Lock()
	defer s.fold.Unlock()
	var failed error
	keep := make(map[determinant.TaskID]bool)
	f := folder{s: s}
	for _, life := range lives {
		if err := f.add(imageID{life.Task, e}, life.Incarnation); err != nil {
			failed = errors.Join(failed, err)
			keep[life.Task] = true
		}
	}
	failed = errors.Join(failed, s.removeImages(func(id imageID) bool { return id.epoch <= e && !keep[id.task] && !f.has(id) }))
	if err := f.finish(); err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, s.mergeSome(f.bytes), s.sweepSome(1+sweepRate*len(f.parts)))
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
		if err := s.importPart(part{task: m.Task, epoch: m.Epoch, inc: m.Incarnation, bytes: uint64(len(image)), state: m.State}, image); err != nil {
			return err
		}
	}
	return s.dropImages(func(id imageID) bool { return id.task == m.Task && id.epoch <= m.Epoch })
}

// importPart writes a part that is the whole state of its task. s.fold is held.
func (s *Store) importPart(p part, image []byte) error {
	if err := s.sweepBeyond(p.task); err != nil {
		return err
	}
	s.mu.Lock()
	temp := s.tempLocked()
	s.mu.Unlock()
	room, err := s.writeImage(temp, image, false)
	if err != nil {
		return err
	}
	p.room = room
	if err := s.fs.Rename(s.path(temp), s.path(p.name())); err != nil {
		return errors.Join(fmt.Errorf("checkpoint: import: %w", err), s.removeIfThere(temp))
	}
	if err := s.sync(); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.discardLocked(false, p)
		return err
	}
	return s.publish(p)
}

// publish makes parts whose names are durable part of their chains. s.fold is held.
func (s *Store) publish(parts ...part) error {
	var failed error
	for _, p := range parts {
		if m := s.merge; m != nil && m.into.task == p.task && (p.from == 0 || m.parts[0].epoch <= p.since) { // its parts are dropped
			failed = errors.Join(failed, s.abandonMerge())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		s.publishLocked(p)
	}
	return failed
}

// Drop forgets the task: its committed state and its images.
func (s *Store) Drop(t determinant.TaskID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.fold.Lock()
	defer s.fold.Unlock()
	// What the chain replaced goes first, for good: without the chain it would count again.
	if err := errors.Join(s.sweepTask(t), s.dropImages(func(id imageID) bool { return id.task == t })); err != nil {
		return err
	}
	if s.merge != nil && s.merge.into.task == t {
		if err := s.abandonMerge(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	chain := s.mu.chains[t]
	s.mu.Unlock()
	if len(chain) == 0 {
		return nil
	}
	// Then its first part. No other counts without it: those after it begin where it ends, or later, so after what any of them says to have all since.
	for _, step := range []func() error{s.sync, func() error { return s.removeIfThere(chain[0].name()) }, s.sync} {
		if err := step(); err != nil {
			return fmt.Errorf("checkpoint: drop task %d: %w", t, err)
		}
	}
	s.mu.Lock()
	delete(s.mu.chains, t)
	delete(s.mu.changed, t)
	delete(s.mu.whole, t)
	s.discardLocked(false, chain[1:]...)
	s.mu.Unlock()
	return s.sweepTask(t)
}

// DropAbove drops the images of epochs above e: after a global rollback to e they belong to a history that is void.
func (s *Store) DropAbove(e determinant.Epoch) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.fold.Lock()
	defer s.fold.Unlock()
	return s.dropImages(func(id imageID) bool { return id.epoch > e })
}

// dropImages removes the images that drop chooses, for good. s.fold is held.
func (s *Store) dropImages(drop func(id imageID) bool) error {
	err := s.removeImages(drop)
	none := folder{s: s}
	return errors.Join(err, none.finish())
}

// folder makes images committed state. The caller holds s.fold.
type folder struct {
	s     *Store
	ids   []imageID
	parts []part // of the images
	bytes uint64 // of them
}

func (f *folder) has(id imageID) bool {
	for _, have := range f.ids {
		if have == id {
			return true
		}
	}
	return false
}

// add gives an image's file the name of a part, unless it is not here or does not fit on what is held.
func (f *folder) add(id imageID, inc determinant.Incarnation) error {
	s := f.s
	s.mu.Lock()
	held := s.heldLocked(id.task)
	im := s.mu.images[id]
	s.mu.Unlock()
	if im == nil || im.inc != inc || held.Epoch >= id.epoch {
		return nil
	}
	if err := s.check(id, im); err != nil {
		return err
	}
	if !im.full && im.base > held.Epoch && !s.mutations.Has(mutation.RestoreUncommitted) {
		return nil
	}
	if err := s.sweepBeyond(id.task); err != nil {
		return err
	}
	p := part{task: id.task, from: held.Epoch, epoch: id.epoch, inc: inc, since: im.since, bytes: im.bytes, room: im.room, state: im.state}
	if im.full {
		p.from, p.since, p.anew = 0, 0, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := im.name(id); was != p.name() {
		if err := s.fs.Rename(s.path(was), s.path(p.name())); err != nil {
			return fmt.Errorf("checkpoint: commit task %d epoch %d: %w", id.task, id.epoch, err)
		}
		im.part = p.name()
	}
	f.ids, f.parts, f.bytes = append(f.ids, id), append(f.parts, p), f.bytes+p.bytes
	return nil
}

// finish makes the names durable, and that images were removed, also by a call that failed. Until then, the images are pending still, under new
// names.
func (f *folder) finish() error {
	if len(f.parts) == 0 && !f.s.removed {
		return nil
	}
	if err := f.s.sync(); err != nil {
		return err
	}
	f.s.removed = false
	return f.s.publish(f.parts...)
}

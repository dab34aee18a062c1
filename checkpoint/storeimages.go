package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-stream/understudy/determinant"
)

// imageID is what there is at most one image file for.
type imageID struct {
	task  determinant.TaskID
	epoch determinant.Epoch
}

const (
	imageSuffix = ".image"
	tempSuffix  = ".tmp"

	writeChunk = 256 << 10 // bytes written to an image file at once
	maxRecent  = 64 << 20  // bytes of images that stay in memory until they are folded
)

// imageName is the name of an image file: task-epoch-incarnation.image.
func (s *Store) imageName(id imageID, inc determinant.Incarnation) string {
	return s.fs.PathJoin(s.dir, fmt.Sprintf("%d-%d-%d%s", id.task, id.epoch, inc, imageSuffix))
}

// parseImageName is the inverse of imageName.
func parseImageName(name string) (id imageID, inc determinant.Incarnation, ok bool) {
	parts := strings.Split(strings.TrimSuffix(name, imageSuffix), "-")
	if !strings.HasSuffix(name, imageSuffix) || len(parts) != 3 {
		return id, 0, false
	}
	var n [3]uint64
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 64)
		if err != nil || strconv.FormatUint(v, 10) != part || i == 0 && v > 1<<32-1 {
			return id, 0, false
		}
		n[i] = v
	}
	return imageID{determinant.TaskID(n[0]), determinant.Epoch(n[1])}, determinant.Incarnation(n[2]), true
}

// loadImages finds the image files and removes what a crash left behind: temporary files, images of lower incarnations,
// images that are folded already.
func (s *Store) loadImages() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("checkpoint: list %s: %w", s.dir, err)
	}
	for _, name := range names {
		id, inc, ok := parseImageName(name)
		switch {
		case !ok && !strings.HasSuffix(name, tempSuffix):
			continue // not ours
		case !ok || id.epoch <= s.mu.held[id.task].Epoch:
			err = s.fs.Remove(s.fs.PathJoin(s.dir, name))
		default:
			if old, ok := s.mu.images[id]; ok {
				err = s.fs.Remove(s.imageName(id, min(old, inc)))
				inc = max(old, inc)
			}
			s.mu.images[id] = inc
		}
		if err != nil {
			return fmt.Errorf("checkpoint: clean up %s: %w", name, err)
		}
	}
	return nil
}

// Put keeps an image beside the committed state until it is committed or dropped, and may keep the very bytes, which must not be changed
// any more. It may be called again with the same
// image, and replaces an image of the same task and epoch by a lower incarnation. The error has in its chain
//   - ErrBase if the image is incremental and the store holds an older checkpoint of the task than Meta.Base. The store may
//     only be behind with Commit; otherwise it needs a full image;
//   - ErrStale if a newer checkpoint of the task is committed here, or an image of a higher incarnation is here;
//   - ErrCorrupt if the image is damaged.
func (s *Store) Put(image []byte) error {
	meta, full, err := Verify(image)
	if err != nil {
		return err
	}
	if meta.Epoch == 0 || !full && meta.Base >= meta.Epoch {
		return fmt.Errorf("%w: image of task %d epoch %d relative to %d", ErrCorrupt, meta.Task, meta.Epoch, meta.Base)
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.mu.Lock()
	have, err := s.admitLocked(&meta, full)
	temp := s.fs.PathJoin(s.dir, strconv.FormatUint(s.mu.temp, 10)+tempSuffix)
	s.mu.temp++
	s.mu.Unlock()
	if have || err != nil {
		return err
	}
	if err := s.writeTemp(temp, image); err != nil {
		return err
	}
	if err := s.install(temp, &meta, full, image); err != nil {
		return errors.Join(err, s.removeTemp(temp))
	}
	return nil
}

// admitLocked tells whether the image is here already, or why it cannot come here.
func (s *Store) admitLocked(m *Meta, full bool) (have bool, err error) {
	held := s.mu.held[m.Task]
	old, ok := s.mu.images[imageID{m.Task, m.Epoch}]
	switch {
	case held.Epoch == m.Epoch && held.Incarnation == m.Incarnation, ok && old == m.Incarnation:
		return true, nil
	case held.Epoch >= m.Epoch:
		return false, fmt.Errorf("%w: task %d epoch %d incarnation %d, but epoch %d of incarnation %d is committed here",
			ErrStale, m.Task, m.Epoch, m.Incarnation, held.Epoch, held.Incarnation)
	case ok && old > m.Incarnation:
		return false, fmt.Errorf("%w: task %d epoch %d incarnation %d, but incarnation %d has put one",
			ErrStale, m.Task, m.Epoch, m.Incarnation, old)
	case !full && m.Base > held.Epoch: // one of an older base has all that changed since, so it fits too
		return false, fmt.Errorf("%w: task %d epoch %d needs checkpoint %d, held is %d", ErrBase, m.Task, m.Epoch, m.Base, held.Epoch)
	}
	return false, nil
}

// writeTemp writes the file and does not return nil until its bytes are durable.
func (s *Store) writeTemp(name string, image []byte) error {
	f, err := s.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("checkpoint: create image: %w", err)
	}
	chunk := make([]byte, min(len(image), writeChunk)) // a vfs.File may scribble on what it is given
	for rest := image; len(rest) > 0 && err == nil; {
		n := copy(chunk, rest)
		rest = rest[n:]
		_, err = f.Write(chunk[:n])
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("checkpoint: write image: %w", err), s.removeTemp(name))
	}
	return nil
}

// removeTemp removes a temporary file that may be gone already. One that stays is removed by the next OpenStore.
func (s *Store) removeTemp(name string) error {
	if _, err := s.fs.Stat(name); err == nil {
		return s.fs.Remove(name)
	}
	return nil
}

// install gives a finished temporary file its name, if the image is still welcome.
func (s *Store) install(temp string, m *Meta, full bool, image []byte) error {
	id := imageID{m.Task, m.Epoch}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, err := s.admitLocked(m, full)
	if err != nil {
		return err
	}
	if have { // by a call that ran beside this one
		return s.removeTemp(temp)
	}
	name := s.imageName(id, m.Incarnation)
	if err := s.fs.Rename(temp, name); err != nil {
		return fmt.Errorf("checkpoint: install image: %w", err)
	}
	if err := syncDir(s.fs, s.dir); err != nil {
		return errors.Join(fmt.Errorf("checkpoint: install image: %w", err), s.removeTemp(name))
	}
	old, replaced := s.mu.images[id]
	s.mu.images[id] = m.Incarnation
	s.forgetLocked(id)
	if s.mu.recentBytes+len(image) <= maxRecent {
		s.mu.recent[id] = image
		s.mu.recentBytes += len(image)
	}
	if replaced {
		_ = s.fs.Remove(s.imageName(id, old)) // the next OpenStore would
	}
	return nil
}

// forgetLocked drops an image's bytes from memory. s.mu is held.
func (s *Store) forgetLocked(id imageID) {
	s.mu.recentBytes -= len(s.mu.recent[id])
	delete(s.mu.recent, id)
}

// readImage gives the bytes of an image, which are verified, from memory or else from its file.
func (s *Store) readImage(id imageID, inc determinant.Incarnation) (image []byte, m Meta, full bool, err error) {
	s.mu.Lock()
	if s.mu.images[id] == inc {
		image = s.mu.recent[id]
	}
	s.mu.Unlock()
	if image != nil {
		d, err := openImage(image)
		if err != nil {
			return nil, m, false, fmt.Errorf("checkpoint: image of task %d epoch %d in memory: %w", id.task, id.epoch, err)
		}
		return image, d.meta, d.full, nil
	}
	name := s.imageName(id, inc)
	f, err := s.fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return nil, m, false, fmt.Errorf("checkpoint: read image: %w", err)
	}
	image, err = readWhole(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, m, false, fmt.Errorf("checkpoint: read image %s: %w", name, err)
	}
	m, full, err = Verify(image)
	if err == nil && (imageID{m.Task, m.Epoch} != id || m.Incarnation != inc) {
		err = fmt.Errorf("%w: holds task %d epoch %d incarnation %d", ErrCorrupt, m.Task, m.Epoch, m.Incarnation)
	}
	if err != nil {
		return nil, m, false, fmt.Errorf("checkpoint: image %s: %w", name, err)
	}
	return image, m, full, nil
}

// readWhole reads a file whose size is known into memory of that size.
func readWhole(f vfs.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	image := make([]byte, info.Size())
	_, err = io.ReadFull(f, image)
	return image, err
}

// removeImages removes the image files that drop chooses, for good: they do not come back after a crash. A file that
// cannot be removed stays known, so that a later call tries again.
func (s *Store) removeImages(drop func(id imageID) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	removed := false
	for id, inc := range s.mu.images {
		if !drop(id) {
			continue
		}
		if err := s.fs.Remove(s.imageName(id, inc)); err != nil {
			failed = errors.Join(failed, fmt.Errorf("checkpoint: remove image: %w", err))
			continue
		}
		delete(s.mu.images, id)
		s.forgetLocked(id)
		removed = true
	}
	if removed {
		if err := syncDir(s.fs, s.dir); err != nil {
			failed = errors.Join(failed, fmt.Errorf("checkpoint: remove images: %w", err))
		}
	}
	return failed
}

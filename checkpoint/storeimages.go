package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-stream/understudy/determinant"
)

// imageID is what there is at most one image file for.
type imageID struct {
	task  determinant.TaskID
	epoch determinant.Epoch
}

// pending is an image that is not committed.
type pending struct {
	inc     determinant.Incarnation
	bytes   uint64            // of the image, or room if that is not known any more
	room    uint64            // that its file takes, at least bytes
	checked bool              // what follows is known, and the file was verified, or made of bytes that were
	base    determinant.Epoch // that the entries are relative to
	since   determinant.Epoch // see Meta
	state   uint64
	full    bool
	part    string // name that the file has already got by a commit that could not be made durable; empty: it has its own
}

const (
	imageSuffix = ".image"
	tempSuffix  = ".tmp"

	writeChunk = 128 << 10 // bytes written to an image file at once

	// syncEvery is how many bytes are written to a file before the system is told to bring them to the disk. Otherwise the sync at the end
	// would wait for all of them, and a processor with it: Go's scheduler takes a while to notice that a call blocks.
	syncEvery = 512 << 10

	// forgottenFrom is from how many bytes on an image is worth a word to the system.
	forgottenFrom = 1 << 20
)

// imageName is the name of an image file: task-epoch-incarnation.image.
func imageName(id imageID, inc determinant.Incarnation) string {
	return fmt.Sprintf("%d-%d-%d%s", id.task, id.epoch, inc, imageSuffix)
}

// name is what the image's file is called now.
func (p *pending) name(id imageID) string {
	if p.part != "" {
		return p.part
	}
	return imageName(id, p.inc)
}

// path is where a file of that name is.
func (s *Store) path(name string) string { return s.fs.PathJoin(s.dir, name) }

// parseNumbers takes apart what is before the suffix of a name.
func parseNumbers(name, suffix string, n []uint64) bool {
	parts := strings.Split(strings.TrimSuffix(name, suffix), "-")
	if !strings.HasSuffix(name, suffix) || len(parts) != len(n) {
		return false
	}
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 64)
		if err != nil || strconv.FormatUint(v, 10) != part || i == 0 && v > 1<<32-1 {
			return false
		}
		n[i] = v
	}
	return true
}

// parseImageName is the inverse of imageName.
func parseImageName(name string) (id imageID, inc determinant.Incarnation, ok bool) {
	var n [3]uint64
	ok = parseNumbers(name, imageSuffix, n[:])
	return imageID{determinant.TaskID(n[0]), determinant.Epoch(n[1])}, determinant.Incarnation(n[2]), ok
}

// load finds the files and removes what a crash left behind: temporary files, images of lower incarnations, images that are committed
// already. Parts that were merged are garbage.
func (s *Store) load() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("checkpoint: list %s: %w", s.dir, err)
	}
	var useless []string
	found := make(map[determinant.TaskID][]part)
	for _, name := range names {
		if p, ok := parsePartName(name); ok {
			if p.room, err = s.size(name); err != nil {
				return err
			}
			p.bytes = p.room
			found[p.task] = append(found[p.task], p)
		}
	}
	for t, parts := range found { // each for itself
		chain, rest := chainOf(parts)
		if len(chain) > 0 {
			s.setChainLocked(chain)
			s.mu.whole[t] = stateBytes(chain)
		}
		for _, p := range rest {
			if mayBeWritten(p, chain) {
				s.discardLocked(true, p)
			} else if err := s.fs.Remove(s.path(p.name())); err != nil {
				return fmt.Errorf("checkpoint: clean up %s: %w", p.name(), err)
			}
		}
	}
	if len(names) > 0 { // a process that was killed may have given some that are not durable
		if err := s.sync(); err != nil {
			return err
		}
	}
	for _, name := range names {
		id, inc, ok := parseImageName(name)
		old := s.mu.images[id]
		switch {
		case !ok && strings.HasSuffix(name, tempSuffix), ok && id.epoch <= s.heldLocked(id.task).Epoch:
			useless = append(useless, name)
		case ok && old != nil && old.inc > inc:
			useless = append(useless, name)
		case ok:
			if old != nil {
				useless = append(useless, imageName(id, old.inc))
			}
			bytes, err := s.size(name)
			if err != nil {
				return err
			}
			s.mu.images[id] = &pending{inc: inc, bytes: bytes, room: bytes}
		}
	}
	for _, name := range useless {
		if err := s.fs.Remove(s.path(name)); err != nil {
			return fmt.Errorf("checkpoint: clean up %s: %w", name, err)
		}
	}
	return nil
}

// size is how long a file is, in bytes.
func (s *Store) size(name string) (uint64, error) {
	info, err := s.fs.Stat(s.path(name))
	if err != nil {
		return 0, fmt.Errorf("checkpoint: %w", err)
	}
	return uint64(info.Size()), nil
}

// Put keeps an image beside the committed state until it is committed or dropped. It may be called again with the same
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
	return s.put(image, &meta, full, false)
}

// PutEncoded is Put for an image that Encode has just made in this process: it is not verified. And of a state that its task cleans (Meta.State), the
// system is told not to keep a large one in memory: nothing merges it, and the task goes on here with what it has, so it is read only when a
// task begins anew here, as after a global rollback, or for a new standby. What Put wrote stays there: a standby that takes over begins from that.
func (s *Store) PutEncoded(image []byte) error {
	d, err := openImage(image)
	if err != nil {
		return err
	}
	return s.put(image, &d.meta, d.full, len(image) >= forgottenFrom && d.meta.State > 0)
}

// check finds out whether the checkpoints that an image names are in order.
func (m *Meta) check(full bool) error {
	switch {
	case m.Epoch == 0, !full && m.Base >= m.Epoch:
		return fmt.Errorf("%w: image of task %d epoch %d relative to %d", ErrCorrupt, m.Task, m.Epoch, m.Base)
	case !full && m.Since > 0 && m.Since >= m.Base: // one that has all since its base is full
		return fmt.Errorf("%w: image of task %d epoch %d has all since %d, but is relative to %d", ErrCorrupt, m.Task, m.Epoch, m.Since, m.Base)
	}
	return nil
}

func (s *Store) put(image []byte, meta *Meta, full, forgotten bool) error {
	if err := meta.check(full); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	temp, have, err := s.beginPut(meta, full)
	if have || err != nil {
		return err
	}
	defer s.endPut(meta)
	room, err := s.writeImage(temp, image, forgotten)
	if err != nil {
		return err
	}
	p := &pending{
		inc: meta.Incarnation, bytes: uint64(len(image)), room: room, checked: true,
		base: meta.Base, since: meta.Since, state: meta.State, full: full,
	}
	if err := s.install(temp, meta, p); err != nil {
		return errors.Join(err, s.removeIfThere(temp))
	}
	return nil
}

// beginPut admits an image and gives the name under which it is written. A call with the same image that is under way is waited for first:
// if it fails, it takes away what it has written, and that must not be another's.
func (s *Store) beginPut(m *Meta, full bool) (temp string, have bool, err error) {
	name := imageName(imageID{m.Task, m.Epoch}, m.Incarnation)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if have, err = s.admitLocked(m, full); have || err != nil {
			return "", have, err
		}
		other := s.mu.putting[name]
		if other == nil {
			s.mu.putting[name] = make(chan struct{})
			return s.tempLocked(), false, nil
		}
		s.mu.Unlock()
		<-other
		s.mu.Lock()
	}
}

func (s *Store) endPut(m *Meta) {
	name := imageName(imageID{m.Task, m.Epoch}, m.Incarnation)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.mu.putting[name])
	delete(s.mu.putting, name)
}

// tempLocked gives a name for a temporary file. s.mu is held.
func (s *Store) tempLocked() string {
	s.mu.temp++
	return strconv.FormatUint(s.mu.temp, 10) + tempSuffix
}

// admitLocked tells whether the image is here already, or why it cannot come here.
func (s *Store) admitLocked(m *Meta, full bool) (have bool, err error) {
	held := s.heldLocked(m.Task)
	old := s.mu.images[imageID{m.Task, m.Epoch}]
	switch {
	case held.Epoch == m.Epoch && held.Incarnation == m.Incarnation, old != nil && old.inc == m.Incarnation:
		return true, nil
	case held.Epoch >= m.Epoch:
		return false, fmt.Errorf("%w: task %d epoch %d incarnation %d, but epoch %d of incarnation %d is committed here",
			ErrStale, m.Task, m.Epoch, m.Incarnation, held.Epoch, held.Incarnation)
	case old != nil && old.inc > m.Incarnation:
		return false, fmt.Errorf("%w: task %d epoch %d incarnation %d, but incarnation %d has put one",
			ErrStale, m.Task, m.Epoch, m.Incarnation, old.inc)
	case !full && m.Base > held.Epoch: // one of an older base has all that changed since, so it fits too
		return false, fmt.Errorf("%w: task %d epoch %d needs checkpoint %d, held is %d", ErrBase, m.Task, m.Epoch, m.Base, held.Epoch)
	}
	return false, nil
}

// writeImage writes an image to a temporary file and does not return nil until its bytes are durable; forgotten says that the system need not keep
// them in memory. It tells how long the file is. If it fails, the disk may be full, and spares are given back.
func (s *Store) writeImage(temp string, image []byte, forgotten bool) (room uint64, err error) {
	f, room, err := s.create(temp, uint64(len(image)))
	if err == nil {
		err = s.writeFile(s.path(temp), f, image, forgotten)
	}
	if err != nil {
		return 0, errors.Join(err, s.giveBack())
	}
	return max(room, uint64(len(image))), nil
}

// writeFile writes the file at that path, which is open, and closes it. It does not return nil until the bytes are durable.
func (s *Store) writeFile(path string, f vfs.File, bytes []byte, forgotten bool) (err error) {
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{NoSyncOnClose: true, BytesPerSync: syncEvery})
	var chunk *[writeChunk]byte
	if s.fs != vfs.Default { // whose files do not scribble on what they are given to write; others may
		chunk = chunks.Get().(*[writeChunk]byte)
		defer chunks.Put(chunk)
	}
	var p pace
	for rest := bytes; len(rest) > 0 && err == nil; {
		next := rest[:min(len(rest), writeChunk)]
		rest = rest[len(next):]
		if chunk != nil {
			next = chunk[:copy(chunk[:], next)]
		}
		_, err = f.Write(next)
		p.did(len(next))
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil && forgotten {
		forget(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("checkpoint: a file cannot be written: %w", err), s.fs.Remove(path))
	}
	return nil
}

var chunks = sync.Pool{New: func() any { return new([writeChunk]byte) }}

// removeIfThere removes a temporary file that may be gone already. One that stays is removed by the next OpenStore.
func (s *Store) removeIfThere(name string) error {
	if _, err := s.fs.Stat(s.path(name)); err == nil {
		return s.fs.Remove(s.path(name))
	}
	return nil
}

// install gives a finished temporary file its name, if the image is still welcome. Nobody waits for the disk meanwhile who only asks what is
// held.
func (s *Store) install(temp string, m *Meta, p *pending) error {
	id := imageID{m.Task, m.Epoch}
	name := p.name(id)
	s.mu.Lock()
	have, err := s.admitLocked(m, p.full)
	if err == nil && !have {
		err = s.fs.Rename(s.path(temp), s.path(name))
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		return fmt.Errorf("checkpoint: install image: %w", err)
	case have: // by a call that ran beside this one
		return s.removeIfThere(temp)
	}
	if err := s.sync(); err != nil {
		return errors.Join(err, s.removeIfThere(name))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, err = s.admitLocked(m, p.full)
	if err != nil {
		return errors.Join(err, s.removeIfThere(name))
	}
	if have { // it is the same file
		return nil
	}
	old := s.mu.images[id]
	s.mu.images[id] = p
	if old != nil {
		_ = s.fs.Remove(s.path(old.name(id))) // the next OpenStore would
	}
	return nil
}

// check verifies the file of an image that was there when the store was opened.
func (s *Store) check(id imageID, p *pending) error {
	if p.checked {
		return nil
	}
	name := p.name(id)
	f, err := s.fs.Open(s.path(name), vfs.SequentialReadsOption)
	if err != nil {
		return fmt.Errorf("checkpoint: read image: %w", err)
	}
	r, err := openImageFile(f, p.bytes)
	if err == nil {
		err = r.verify()
	}
	if err == nil {
		err = r.isOf(id, p.inc)
	}
	if err == nil {
		err = r.meta.check(r.full)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("checkpoint: image %s: %w", name, err)
	}
	p.base, p.since, p.state, p.full, p.checked = r.meta.Base, r.meta.Since, r.meta.State, r.full, true
	return nil
}

// removeImages removes the image files that drop chooses; once the directory is synced they do not come back after a crash. A file that
// cannot be removed stays known, so that a later call tries again. s.fold is held.
func (s *Store) removeImages(drop func(id imageID) bool) (failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.mu.images { // in any order
		if !drop(id) {
			continue
		}
		if err := s.fs.Remove(s.path(p.name(id))); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("checkpoint: remove image: %w", err))
			continue
		}
		delete(s.mu.images, id)
		s.removed = true
	}
	return failed
}

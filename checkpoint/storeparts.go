package checkpoint

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/understudy-stream/understudy/determinant"
)

// part is a file of committed state: an image of what a task changed after checkpoint from and up to checkpoint epoch. What begins at
// checkpoint 0 is the whole state.
type part struct {
	task  determinant.TaskID
	from  determinant.Epoch
	epoch determinant.Epoch
	inc   determinant.Incarnation // whose image that of checkpoint epoch is
	since determinant.Epoch       // what changed after this checkpoint and up to epoch is all of the state; 0 says nothing. Invariant: less than epoch
	bytes uint64                  // of the image, or room if that is not known any more
	room  uint64                  // that its file takes, at least bytes: it may have been another's before (spares.go)
	anew  bool                    // it is the whole state since all of that changed
	state uint64                  // that Meta has; not known any more once the store was opened again
}

const partSuffix = ".part"

// name is that of the file: task-from-epoch-incarnation-since.part.
func (p *part) name() string {
	return fmt.Sprintf("%d-%d-%d-%d-%d%s", p.task, p.from, p.epoch, p.inc, p.since, partSuffix)
}

// parsePartName is the inverse of name.
func parsePartName(name string) (p part, ok bool) {
	var n [5]uint64
	ok = parseNumbers(name, partSuffix, n[:])
	p = part{
		task: determinant.TaskID(n[0]), from: determinant.Epoch(n[1]), epoch: determinant.Epoch(n[2]), inc: determinant.Incarnation(n[3]),
		since: determinant.Epoch(n[4]),
	}
	return p, ok && p.from < p.epoch && p.since < p.epoch
}

// partFile is a part that is open.
type partFile struct {
	part
	file vfs.File
}

// open begins to read the image in a part's file, which must be the one that the part is named after.
func (f *partFile) open() (*imageReader, error) {
	r, err := openImageFile(f.file, f.bytes)
	if err == nil {
		err = r.isOf(imageID{f.task, f.epoch}, f.inc)
	}
	return r, err
}

// isOf checks that an image is the one that its file is named after.
func (d *imageReader) isOf(id imageID, inc determinant.Incarnation) error {
	if m := &d.meta; (imageID{m.Task, m.Epoch}) != id || m.Incarnation != inc {
		return fmt.Errorf("%w: holds task %d epoch %d incarnation %d", ErrCorrupt, m.Task, m.Epoch, m.Incarnation)
	}
	return nil
}

// openParts opens the files of parts that are in a chain. They can be read to their end when they are removed meanwhile. The caller closes
// them, and holds s.fold.
func (s *Store) openParts(parts []part) (files []partFile, err error) {
	for i := range parts {
		name := parts[i].name()
		f, err := s.fs.Open(s.path(name), vfs.SequentialReadsOption)
		if err != nil {
			for _, open := range files {
				err = errors.Join(err, open.file.Close())
			}
			return nil, fmt.Errorf("checkpoint: open part: %w", err)
		}
		files = append(files, partFile{part: parts[i], file: s.reading(f, name)})
	}
	return files, nil
}

// publishLocked makes the part the end of its task's chain, or all of it, and drops the parts that are not needed any more. Its name is durable:
// only then may those of the others go. s.fold and s.mu are held.
func (s *Store) publishLocked(p part) {
	s.notPendingLocked(p)
	chain := s.mu.chains[p.task]
	if p.from == 0 {
		s.discardLocked(true, chain...)
		chain = nil
	}
	old, chain := trim(append(chain[:len(chain):len(chain)], p))
	s.discardLocked(true, old...)
	s.setChainLocked(chain)
	if p.from == 0 || p.state > 0 || len(old) > 0 {
		s.mu.whole[p.task] = stateBytes(chain)
	}
	if s.mu.changed[p.task] = p.bytes; p.from == 0 && !p.anew {
		delete(s.mu.changed, p.task)
	}
	s.usedLocked(p)
}

// takeBack gives the images of the task that a commit has named as parts, but could not make that durable, their own names again: they are no
// parts, and what is committed now may never be followed by them.
func (s *Store) takeBack(t determinant.TaskID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, im := range s.mu.images { // in any order
		if id.task != t || im.part == "" {
			continue
		}
		if err := s.fs.Rename(s.path(im.part), s.path(imageName(id, im.inc))); err != nil {
			return fmt.Errorf("checkpoint: take back part %s: %w", im.part, err)
		}
		im.part = ""
	}
	return nil
}

// notPendingLocked forgets the pending image whose file has already got the part's name. s.mu is held.
func (s *Store) notPendingLocked(p part) {
	id := imageID{p.task, p.epoch}
	if im := s.mu.images[id]; im != nil && im.part == p.name() {
		delete(s.mu.images, id)
	}
}

// usedLocked takes care that a part is not removed because an earlier attempt to make it failed. s.mu is held.
func (s *Store) usedLocked(p part) {
	s.mu.garbage = slices.DeleteFunc(s.mu.garbage, func(g leftover) bool { return g.name() == p.name() })
}

// nameSync is one sync of the directory, for all who have changed names before it began.
type nameSync struct {
	done chan struct{}
	err  error // once done
}

// sync makes durable what was done to names. Calls that come while one waits for the disk share the next one.
func (s *Store) sync() error {
	s.syncs.Lock()
	mine := s.syncs.next
	leads := mine == nil
	if leads {
		mine = &nameSync{done: make(chan struct{})}
		s.syncs.next = mine
	}
	s.syncs.Unlock()
	if !leads {
		<-mine.done
		return mine.err
	}
	s.syncs.turn.Lock()
	defer s.syncs.turn.Unlock()
	s.syncs.Lock()
	s.syncs.next = nil // who comes now may change a name after it has begun
	s.syncs.Unlock()
	if err := syncDir(s.fs, s.dir); err != nil {
		mine.err = fmt.Errorf("checkpoint: sync %s: %w", s.dir, err)
	}
	close(mine.done)
	return mine.err
}

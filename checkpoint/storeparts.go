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
	bytes uint64                  // of the image, or room if that is not known any more
	room  uint64                  // that its file takes, at least bytes: it may have been another's before (spares.go)
	anew  bool                    // it is the whole state since all of that changed
}

const partSuffix = ".part"

// name is that of the file: task-from-epoch-incarnation.part.
func (p *part) name() string {
	return fmt.Sprintf("%d-%d-%d-%d%s", p.task, p.from, p.epoch, p.inc, partSuffix)
}

// parsePartName is the inverse of name.
func parsePartName(name string) (p part, ok bool) {
	var n [4]uint64
	ok = parseNumbers(name, partSuffix, n[:])
	p = part{task: determinant.TaskID(n[0]), from: determinant.Epoch(n[1]), epoch: determinant.Epoch(n[2]), inc: determinant.Incarnation(n[3])}
	return p, ok && p.from < p.epoch
}

// chainOf finds the committed state among the parts of one task that are there. A part that others were merged into, or that is the whole
// state anew, reaches further than they do from the same beginning; so a crash may come before they are removed.
func chainOf(parts []part) (chain, rest []part) {
	var at determinant.Epoch
	used := make([]bool, len(parts))
	for {
		best := -1
		for i, p := range parts {
			if p.from == at && (best < 0 || p.epoch > parts[best].epoch || p.epoch == parts[best].epoch && p.inc > parts[best].inc) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		used[best] = true
		chain, at = append(chain, parts[best]), parts[best].epoch
	}
	for i, p := range parts {
		if !used[i] {
			rest = append(rest, p)
		}
	}
	return chain, rest
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

// publishLocked makes the part the end of its task's chain, or all of it. Its name is durable. s.fold and s.mu are held.
func (s *Store) publishLocked(p part) {
	s.notPendingLocked(p)
	chain := s.mu.chains[p.task]
	if p.from == 0 {
		s.discardLocked(true, chain...)
		chain = nil
	}
	if len(chain) > 0 && chain[len(chain)-1].epoch != p.from || len(chain) == 0 && p.from != 0 {
		panic(fmt.Sprintf("checkpoint: assertion failed: part %s after %v", p.name(), chain))
	}
	s.mu.chains[p.task] = append(chain[:len(chain):len(chain)], p)
	if s.mu.changed[p.task] = p.bytes; p.from == 0 && !p.anew {
		delete(s.mu.changed, p.task)
	}
	s.usedLocked(p)
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

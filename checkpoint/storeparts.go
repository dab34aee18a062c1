package checkpoint

import (
	"errors"
	"fmt"
	"math"
	"os"
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
	bytes uint64
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
	name  string
	file  vfs.File
	bytes uint64
}

// openParts opens the files of parts. They can be read to their end when they are removed meanwhile. The caller closes them.
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
		files = append(files, partFile{name: name, file: f, bytes: parts[i].bytes})
	}
	return files, nil
}

// publishLocked makes the part the end of its task's chain, or all of it. Its name is durable. s.fold and s.mu are held.
func (s *Store) publishLocked(p part) {
	id := imageID{p.task, p.epoch}
	if im := s.mu.images[id]; im != nil && im.part == p.name() {
		delete(s.mu.images, id)
	}
	chain := s.mu.chains[p.task]
	if p.from == 0 {
		s.mu.garbage = append(s.mu.garbage, chain...)
		chain = nil
	}
	if len(chain) > 0 && chain[len(chain)-1].epoch != p.from || len(chain) == 0 && p.from != 0 {
		panic(fmt.Sprintf("checkpoint: assertion failed: part %s after %v", p.name(), chain))
	}
	s.mu.chains[p.task] = append(chain[:len(chain):len(chain)], p)
	if s.mu.changed[p.task] = p.bytes; p.from == 0 {
		delete(s.mu.changed, p.task)
	}
	s.usedLocked(p)
}

// usedLocked takes care that a part is not removed because an earlier attempt to make it failed. s.mu is held.
func (s *Store) usedLocked(p part) {
	s.mu.garbage = slices.DeleteFunc(s.mu.garbage, func(g part) bool { return g.name() == p.name() })
}

// sweep removes at most so many of the parts that are not needed any more and that match chooses. s.fold is held. What cannot be removed is
// tried again later.
func (s *Store) sweep(most int, match func(g part) bool) error {
	s.mu.Lock()
	var chosen []part
	for _, g := range s.mu.garbage {
		if len(chosen) < most && match(g) {
			chosen = append(chosen, g)
		}
	}
	s.mu.Unlock()
	var failed error
	gone := make(map[part]bool)
	for _, g := range chosen { // beside the lock: it takes a while
		if err := s.fs.Remove(s.path(g.name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("checkpoint: remove part: %w", err))
		} else {
			gone[g] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.garbage = slices.DeleteFunc(s.mu.garbage, func(g part) bool { return gone[g] })
	return failed
}

// sweepBeyond removes what a dropped chain has left that reaches beyond what is held of the task now. s.fold is held.
func (s *Store) sweepBeyond(t determinant.TaskID) error {
	held := s.Held(t)
	return s.sweep(math.MaxInt, func(g part) bool { return g.task == t && g.epoch > held })
}

func (s *Store) sweepTask(t determinant.TaskID) error {
	return s.sweep(math.MaxInt, func(g part) bool { return g.task == t })
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

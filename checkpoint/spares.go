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

// Each checkpoint needs a file for every task, and as many are not needed any more soon. To make a file, and to remove one, costs a file system
// more than to write a few hundred kilobytes: it looks for room and keeps a journal. So files of parts that others have replaced are written anew, as
// Pebble does with those of its log. What is behind the end of an image then is what the file held before, and says nothing.
const (
	spareFiles   = 64        // are kept, at most, by default
	spareBytes   = 128 << 20 // that they have together, at most
	largestSpare = 16 << 20  // bytes of a file that is worth to be kept
	smallFile    = 64 << 10  // bytes of a file that may be used for an image however small
)

// leftover is a part that is not needed any more.
type leftover struct {
	part
	// spare says that its file may be written anew before its name is gone for good: whatever a crash leaves, chainOf does not find it.
	spare bool
}

// discardLocked notes that parts are not needed any more. s.mu is held.
func (s *Store) discardLocked(spare bool, parts ...part) {
	for _, p := range parts {
		s.mu.garbage = append(s.mu.garbage, leftover{p, spare})
	}
}

// create makes a temporary file that an image of about so many bytes is to be written to, and tells how long it is already: of a spare, or a
// new one.
func (s *Store) create(temp string, bytes uint64) (f vfs.File, room uint64, err error) {
	if f, room = s.reuse(temp, bytes); f != nil {
		return f, room, nil
	}
	f, err = s.fs.Create(s.path(temp), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("checkpoint: create %s: %w", temp, err), s.removeIfThere(temp))
	}
	return f, 0, nil
}

// reuse takes the spare that fits best: the least of those that are long enough, or else the longest. It gives nil if there is none.
//
// Invariant: a file that is written anew has no reader, and never gets one under the name that it had: who opens parts holds s.fold, and finds them
// in a chain.
func (s *Store) reuse(temp string, bytes uint64) (f vfs.File, room uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best *leftover
	for i := range s.mu.garbage {
		g := &s.mu.garbage[i]
		if !g.spare || g.room > max(smallFile, 2*bytes) || s.mu.reading[g.name()] > 0 {
			continue
		}
		if best == nil || best.room < bytes && g.room > best.room || best.room > g.room && g.room >= bytes {
			best = g
		}
	}
	if best == nil {
		return nil, 0
	}
	f, err := s.fs.ReuseForWrite(s.path(best.name()), s.path(temp), vfs.WriteCategoryUnspecified)
	if err != nil {
		best.spare = false // somebody removes it, if it is there
		return nil, 0
	}
	taken := best.part
	s.mu.garbage = slices.DeleteFunc(s.mu.garbage, func(g leftover) bool { return g.part == taken })
	return f, taken.room
}

// partReader is the file of a part that is read.
type partReader struct {
	vfs.File
	s    *Store
	name string
}

// reading notes that a part has one more reader, until that closes the file.
func (s *Store) reading(f vfs.File, name string) vfs.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.reading[name]++
	return &partReader{f, s, name}
}

// Close ends the reading.
func (r *partReader) Close() error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.mu.reading[r.name]--; r.s.mu.reading[r.name] == 0 {
		delete(r.s.mu.reading, r.name)
	}
	return r.File.Close()
}

// sweep removes at most so many of the parts that are not needed any more and that match chooses. s.fold is held. What cannot be removed is
// tried again later.
func (s *Store) sweep(most int, match func(g *leftover) bool) error {
	s.mu.Lock()
	var chosen []part
	for i := range s.mu.garbage {
		if g := &s.mu.garbage[i]; len(chosen) < most && match(g) {
			g.spare = false
			chosen = append(chosen, g.part)
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
	s.mu.garbage = slices.DeleteFunc(s.mu.garbage, func(g leftover) bool { return gone[g.part] })
	return failed
}

// sweepSome removes at most so many of the parts that are not needed any more, but keeps the newest spares.
func (s *Store) sweepSome(most int) error {
	s.mu.Lock()
	kept, room := make(map[part]bool), uint64(0)
	for i := len(s.mu.garbage) - 1; i >= 0 && len(kept) < s.spares; i-- {
		if g := &s.mu.garbage[i]; g.spare && g.room <= largestSpare && room+g.room <= spareBytes {
			kept[g.part] = true
			room += g.room
		}
	}
	s.mu.Unlock()
	return s.sweep(most, func(g *leftover) bool { return !kept[g.part] })
}

// giveBack removes all spares, unless somebody is changing what is committed; it is for who finds no room on the disk.
func (s *Store) giveBack() error {
	if !s.fold.TryLock() {
		return nil
	}
	defer s.fold.Unlock()
	return s.sweep(math.MaxInt, func(g *leftover) bool { return g.spare })
}

// sweepBeyond takes care that no file looks like what follows on what is held of the task now, before something else does: neither what a dropped
// chain has left nor what a commit that failed has named. What is within that, or before it, cannot be mixed up with what comes: that begins where
// this ends, or is the whole state and ends later. s.fold is held.
func (s *Store) sweepBeyond(t determinant.TaskID) error {
	held := s.Held(t)
	if err := s.takeBack(t); err != nil {
		return err
	}
	return s.sweep(math.MaxInt, func(g *leftover) bool { return g.task == t && g.epoch > held })
}

func (s *Store) sweepTask(t determinant.TaskID) error {
	return s.sweep(math.MaxInt, func(g *leftover) bool { return g.task == t })
}

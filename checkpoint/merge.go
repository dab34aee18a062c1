package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A committed image is written once and then left alone; only when as much has been committed as the whole state has bytes, the two are read
// and written as one. So each byte that changed is written twice in all, in the long run, however small a part of the state changes between two
// checkpoints, and a store has no more than about three and a half times the state, and spares. Many small parts are merged with each other before.
//
// A merge is done in portions, in the wake of commits, of some times as much as was committed. So it takes about the same time in every
// commit, ends before much more has come, and needs neither a goroutine nor a clock.
const (
	// mergeRate is how many bytes are walked over per byte that was committed. Two are needed in the long run.
	mergeRate = 4
	// mergeFloor is how many are, at least: small states are merged at once.
	mergeFloor = 1 << 20
	// maxParts is the length of a chain from which on its newer parts are merged with each other. All are open at once when it is read.
	maxParts = 128
	// maxFailedMerges is how often in a row a merge may fail, for a disk that is full for a while, before a commit says so.
	maxFailedMerges = 8
	// sweepRate is how many files are removed for each that comes: to remove a big one takes a while.
	sweepRate = 4
)

// merge writes some parts of a chain, which follow one another, as one.
type merge struct {
	parts  []part
	into   part
	source *merging
	out    vfs.File
	temp   string
	b      *builder
	table  string
	begun  bool // there was an entry, of that table
}

// due finds the parts of a chain that should be merged: all of them when those on top of the first have grown as big as it is; and when
// there are many, the newest, from the oldest one on that is not bigger than all after it.
func (s *Store) due(chain []part) []part {
	if len(chain) < 2 {
		return nil
	}
	var above uint64
	for _, p := range chain[1:] {
		above += p.bytes
	}
	if above >= max(chain[0].bytes, s.mergeBytes) {
		return chain
	}
	if len(chain) <= maxParts {
		return nil
	}
	for i := range chain[:len(chain)-1] {
		if chain[i].bytes <= above {
			return chain[i:]
		}
		above -= chain[i+1].bytes
	}
	return chain[len(chain)-2:]
}

// mergeSome goes on with merging after so many bytes were committed. s.fold is held.
func (s *Store) mergeSome(committed uint64) error {
	budget := committed*mergeRate + mergeFloor
	for budget > 0 {
		if s.merge == nil {
			if found, err := s.beginMerge(); err != nil {
				return s.mergeFailed(err)
			} else if !found {
				return nil
			}
		}
		from := s.merge.source.passed
		done, err := s.merge.run(from + budget)
		budget -= min(budget, s.merge.source.passed-from)
		if err == nil && done {
			err = s.endMerge()
		}
		if err != nil {
			return s.mergeFailed(err)
		}
	}
	return nil
}

// mergeFailed gives a merge up; another commit begins it again. Nothing is lost, so a commit fails only when that goes on, or when what is
// committed is damaged.
func (s *Store) mergeFailed(err error) error {
	err = errors.Join(err, s.abandonMerge())
	if s.failedMerges++; s.failedMerges < maxFailedMerges && !errors.Is(err, ErrCorrupt) {
		return nil
	}
	return err
}

// beginMerge looks for parts to merge, first of the tasks after the one that was merged last.
func (s *Store) beginMerge() (found bool, err error) {
	s.mu.Lock()
	tasks := slices.Sorted(maps.Keys(s.mu.chains))
	after, _ := slices.BinarySearch(tasks, s.mu.merged+1)
	var parts []part
	for i := range tasks {
		if parts = s.due(s.mu.chains[tasks[(after+i)%len(tasks)]]); parts != nil {
			break
		}
	}
	temp := ""
	if parts != nil {
		temp = s.tempLocked()
		s.mu.merged = parts[0].task
	}
	s.mu.Unlock()
	if parts == nil {
		return false, nil
	}
	files, err := s.openParts(parts)
	if err != nil {
		return false, err
	}
	source, err := newMerging(files, new(pace))
	if err != nil {
		return false, fmt.Errorf("checkpoint: merge: %w", err)
	}
	last := parts[len(parts)-1]
	m := &merge{
		parts: parts, source: source, temp: temp,
		into: part{task: last.task, from: parts[0].from, epoch: last.epoch, inc: last.inc},
	}
	s.merge = m
	out, room, err := s.create(temp, parts[0].bytes)
	if err != nil {
		return false, fmt.Errorf("checkpoint: merge: %w", err)
	}
	m.into.room = room
	m.out = vfs.NewSyncingFile(out, vfs.SyncingFileOptions{NoSyncOnClose: true, BytesPerSync: syncEvery})
	m.b = newBuilder(&source.meta, m.into.from == 0, func(bytes []byte) error {
		n, err := m.out.Write(bytes)
		m.into.bytes += uint64(n)
		m.into.room = max(m.into.room, m.into.bytes)
		s.mu.Lock()
		s.mu.merging = m.into.room
		s.mu.Unlock()
		return err
	})
	return true, nil
}

// run goes on until so much was walked over.
func (m *merge) run(until uint64) (done bool, err error) {
	for m.source.passed < until {
		table, key, value, deleted, ok, err := m.source.next()
		if err != nil {
			return false, fmt.Errorf("checkpoint: merge into %s: %w", m.into.name(), err)
		}
		if !ok {
			return true, nil
		}
		if deleted && m.into.from == 0 {
			continue
		}
		if !m.begun || table != m.table {
			m.begun, m.table = true, table
			err = m.b.table(table)
		}
		if err == nil {
			err = m.b.entry(key, value, deleted)
		}
		if err != nil {
			return false, fmt.Errorf("checkpoint: merge into %s: %w", m.into.name(), err)
		}
	}
	return false, nil
}

// endMerge puts the merged part in the place of those that it was made of.
func (s *Store) endMerge() error {
	m := s.merge
	err := m.b.end()
	if err == nil {
		err = m.out.Sync()
	}
	err = errors.Join(err, m.out.Close())
	m.out = nil
	if err != nil {
		return fmt.Errorf("checkpoint: merge into %s: %w", m.into.name(), err)
	}
	if err := s.fs.Rename(s.path(m.temp), s.path(m.into.name())); err != nil {
		return fmt.Errorf("checkpoint: merge into %s: %w", m.into.name(), err)
	}
	if err := s.sync(); err != nil {
		s.mu.Lock()
		s.discardLocked(false, m.into)
		s.mu.Unlock()
		return err
	}
	s.replace(m.parts, m.into)
	s.failedMerges = 0
	return s.abandonMerge()
}

// replace puts one part in the place of others.
func (s *Store) replace(parts []part, by part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chain := s.mu.chains[by.task]
	i := slices.Index(chain, parts[0])
	if i < 0 || i+len(parts) > len(chain) || !slices.Equal(chain[i:i+len(parts)], parts) {
		panic(fmt.Sprintf("checkpoint: assertion failed: %s is merged of what is not in %v", by.name(), chain))
	}
	next := append(slices.Clone(chain[:i]), by)
	s.mu.chains[by.task] = append(next, chain[i+len(parts):]...)
	s.discardLocked(true, parts...)
	s.usedLocked(by)
}

// abandonMerge ends the merge under way, if there is one, and removes what it has not given a name yet.
func (s *Store) abandonMerge() error {
	m := s.merge
	if m == nil {
		return nil
	}
	s.merge = nil
	s.mu.Lock()
	s.mu.merging = 0
	s.mu.Unlock()
	err := m.source.close()
	if m.out != nil {
		err = errors.Join(err, m.out.Close())
	}
	if m.b != nil {
		m.b.release()
	}
	return errors.Join(err, s.removeIfThere(m.temp))
}

package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A committed image is written once and then left alone. A task that cleans writes again what does not change, so that old parts can be dropped
// (chain.go) and nothing is read. For one that does not, when as much has been committed as the whole state has bytes, the two are read
// and written as one. So each byte that changed is written twice in all, in the long run, however small a part of the state changes between two
// checkpoints, and a store has no more than about three and a half times the state, and spares. If cleaning does not get on, since failures are
// frequent, the same is done at a size that it does not come to otherwise. Many small parts are merged with each other before.
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
	// maxCleaned is that length if its task cleans. If 1% of the state changes from checkpoint to checkpoint, there are some 200 parts.
	maxCleaned = 4 * maxParts
	// cleanedMost is how many times the bytes of the state a chain has before it is merged although its task cleans. Two to three and a bit are usual.
	cleanedMost = 5
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

// dueLocked finds the parts of a chain that should be merged: all of them when those on top of the first have grown as big as it is, or, if its task
// cleans or has said Since, all together much bigger than the state; and when there are many, the newest, from the oldest one on that is not bigger than all
// after it, or, if its task cleans, an eighth of what there may be, where they have the fewest bytes, but for the first. s.mu is held.
func (s *Store) dueLocked(chain []part) []part {
	if len(chain) < 2 {
		return nil
	}
	above := totalBytes(chain[1:])
	newest := &chain[len(chain)-1]
	cleaned := newest.state > 0 || newest.since > 0
	if above >= max(chain[0].bytes, s.mergeBytes) && (!cleaned || chain[0].bytes+above >= cleanedMost*s.mu.whole[newest.task]) {
		return chain
	}
	if over := len(chain) - s.maxCleaned; cleaned && over > 0 {
		return fewestBytes(chain[1:], over+max(1, s.maxCleaned/8))
	}
	if cleaned || len(chain) <= s.maxParts {
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

// fewestBytes finds so many parts that follow one another and have the fewest bytes.
func fewestBytes(chain []part, n int) []part {
	bytes := totalBytes(chain[:n])
	least, at := bytes, 0
	for i := n; i < len(chain); i++ {
		if bytes += chain[i].bytes - chain[i-n].bytes; bytes < least {
			least, at = bytes, i-n+1
		}
	}
	return chain[at : at+n]
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
		if parts = s.dueLocked(s.mu.chains[tasks[(after+i)%len(tasks)]]); parts != nil {
			break
		}
	}
	if parts == nil {
		s.mu.Unlock()
		return false, nil
	}
	m := &merge{parts: parts, into: s.mergedLocked(parts), temp: s.tempLocked()}
	s.mu.merged = m.into.task
	s.mu.Unlock()
	// What a merge has left that failed must not have one end within this one's and one outside (chainOf): it goes, and is gone for good when the
	// name of this one is durable.
	if err := s.sweep(math.MaxInt, func(g *leftover) bool { return g.task == m.into.task && !g.spare }); err != nil {
		return false, err
	}
	files, err := s.openParts(parts)
	if err != nil {
		return false, err
	}
	if m.source, err = newMerging(files, new(pace)); err != nil {
		return false, fmt.Errorf("checkpoint: merge: %w", err)
	}
	s.merge = m
	out, room, err := s.create(m.temp, parts[0].bytes)
	if err != nil {
		return false, fmt.Errorf("checkpoint: merge: %w", err)
	}
	m.into.room = room
	m.out = vfs.NewSyncingFile(out, vfs.SyncingFileOptions{NoSyncOnClose: true, BytesPerSync: syncEvery})
	m.b = newBuilder(&m.source.meta, m.into.from == 0, func(bytes []byte) error {
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

// mergedLocked is what the parts become, without bytes yet. If the first of its chain is among them, that is the whole state, wherever it began. Its
// Meta is that of the newest image, so that a task is given the same whether there was a merge or not; what counts is the name. s.mu is held.
func (s *Store) mergedLocked(parts []part) part {
	last := parts[len(parts)-1]
	into := part{task: last.task, epoch: last.epoch, inc: last.inc, state: last.state}
	if parts[0] != s.mu.chains[last.task][0] {
		into.from, into.since = parts[0].from, sinceOf(parts)
	}
	return into
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
	s.setChainLocked(append(next, chain[i+len(parts):]...))
	if by.from == 0 {
		s.mu.whole[by.task] = by.bytes
	}
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

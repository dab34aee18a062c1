package raftmeta

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

func entryKey(index uint64) []byte { return binary.BigEndian.AppendUint64([]byte{keyEntry}, index) }

func entryIndex(key []byte) (uint64, error) {
	if len(key) != 9 {
		return 0, fmt.Errorf("%w: key %x", ErrCorrupt, key)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

// FirstIndex returns the index of the log's first entry, 0 if it is empty.
func (s *store) FirstIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.first, nil
}

// LastIndex returns the index of the log's last entry, 0 if it is empty.
func (s *store) LastIndex() (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last(), nil
}

// last is LastIndex with s.mu held.
func (s *store) last() uint64 {
	if len(s.mu.entries) == 0 {
		return 0
	}
	return s.mu.first + uint64(len(s.mu.entries)) - 1
}

// GetLog copies an entry. Its slices are the log's.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if index < s.mu.first || index > s.last() {
		return raft.ErrLogNotFound
	}
	*l = s.mu.entries[index-s.mu.first]
	return nil
}

// StoreLog appends an entry.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries. They must follow the last one; or the snapshot, or begin with the snapshot's last one, if the log
// ends before: then they take the place of all of it.
func (s *store) StoreLogs(logs []*raft.Log) error {
	s.mu.RLock()
	last, covered := s.last(), s.mu.snapshot.Index
	s.mu.RUnlock()
	first := logs[0].Index
	anew := last < first && covered > 0 && (first == covered || first == covered+1 && last < covered)
	if !anew && first != last+1 {
		return fmt.Errorf("raftmeta: entry %d cannot follow a log that ends at %d, and a snapshot that ends at %d", first, last, covered)
	}
	b := s.db.NewBatch()
	if anew {
		if err := b.DeleteRange(entryKey(0), entryKey(first), nil); err != nil {
			return fmt.Errorf("raftmeta: begin the log at entry %d: %w", first, err)
		}
	}
	var buf []byte
	for i, l := range logs {
		if l.Index != first+uint64(i) {
			return fmt.Errorf("raftmeta: entry %d in the place of entry %d", l.Index, first+uint64(i))
		}
		buf = appendEntry(buf[:0], l)
		put(b, entryKey(l.Index), buf)
	}
	if err := s.commit(b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if anew {
		s.mu.entries, s.mu.first = nil, first
	}
	for _, l := range logs {
		s.mu.entries = append(s.mu.entries, *l)
	}
	return nil
}

// DeleteRange removes entries at the log's front or at its end, the bounds included.
func (s *store) DeleteRange(low, high uint64) error {
	s.mu.RLock()
	first, last, empty := s.mu.first, s.last(), len(s.mu.entries) == 0
	s.mu.RUnlock()
	if empty || low > last || high < first {
		return nil
	}
	if low > first && high < last {
		return fmt.Errorf("raftmeta: entries %d to %d are in the middle of the log, which has %d to %d", low, high, first, last)
	}
	b := s.db.NewBatch()
	if err := b.DeleteRange(entryKey(low), entryKey(high+1), nil); err != nil {
		return fmt.Errorf("raftmeta: delete entries %d to %d: %w", low, high, err)
	}
	if err := s.commit(b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(low, high)
	return nil
}

// forget is DeleteRange's change in memory, with s.mu held. Entries may have been appended meanwhile, if low is the first.
func (s *store) forget(low, high uint64) {
	low, high = max(low, s.mu.first), min(high, s.last())
	from, to := low-s.mu.first, high-s.mu.first+1
	if from == 0 {
		s.mu.entries = slices.Clone(s.mu.entries[to:]) // the deleted ones' memory goes
		s.mu.first = high + 1
	} else {
		s.mu.entries = slices.Delete(s.mu.entries, int(from), int(to))
	}
	if len(s.mu.entries) == 0 {
		s.mu.first = 0
	}
}

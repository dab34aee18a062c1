package raftmeta

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// load reads all but the snapshot's state, and checks that it belongs together. fresh says that there is nothing.
func (s *store) load(who identity) (fresh bool, err error) {
	text, err := get(s.db, []byte{keyIdentity})
	if err != nil {
		return false, err
	}
	if text == nil {
		return true, s.mustBeEmpty()
	}
	have, err := decodeIdentity(text)
	if err != nil {
		return false, err
	}
	if err := have.matches(who); err != nil {
		return false, err
	}
	if err := s.loadPromises(); err != nil {
		return false, err
	}
	if err := s.loadEntries(); err != nil {
		return false, err
	}
	return false, s.checkLog()
}

func (s *store) mustBeEmpty() error {
	iter, err := s.db.NewIter(nil)
	if err != nil {
		return corruptOr(err)
	}
	if iter.First() {
		err = fmt.Errorf("%w: there is %x, but no identity", ErrCorrupt, iter.Key())
	}
	return errors.Join(err, iter.Error(), iter.Close())
}

// loadPromises reads term, vote, and what the snapshot covers.
func (s *store) loadPromises() error {
	term, err := get(s.db, []byte{keyTerm})
	if err != nil {
		return err
	}
	r := reader{b: term}
	if s.mu.term = r.uvarint(); r.bad || len(r.b) > 0 || s.mu.term == 0 {
		return fmt.Errorf("%w: term is %x", ErrCorrupt, term)
	}
	b, err := get(s.db, []byte{keyVote})
	if err != nil {
		return err
	}
	if b != nil {
		if s.mu.vote, err = decodeVote(b); err != nil {
			return err
		}
	}
	if b, err = get(s.db, []byte{keySnapshot}); err != nil || b == nil {
		return err
	}
	s.mu.snapshot, err = decodeSnapshot(b)
	return err
}

func (s *store) loadEntries() error {
	iter, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEntry}, UpperBound: []byte{keyEntry + 1}})
	if err != nil {
		return corruptOr(err)
	}
	for ok := iter.First(); ok; ok = iter.Next() {
		l, err := loadEntry(iter.Key(), iter.Value())
		if err != nil {
			return errors.Join(err, iter.Close())
		}
		if len(s.mu.entries) == 0 {
			s.mu.first = l.Index
		}
		if want := s.mu.first + uint64(len(s.mu.entries)); l.Index != want {
			return errors.Join(fmt.Errorf("%w: entry %d of the log is missing, the next is %d", ErrCorrupt, want, l.Index), iter.Close())
		}
		s.mu.entries = append(s.mu.entries, l)
	}
	if err := iter.Error(); err != nil {
		return errors.Join(corruptOr(err), iter.Close())
	}
	return iter.Close()
}

func loadEntry(key, sealed []byte) (raft.Log, error) {
	value, err := unseal(key, bytes.Clone(sealed))
	if err != nil {
		return raft.Log{}, err
	}
	index, err := entryIndex(key)
	if err != nil {
		return raft.Log{}, err
	}
	return decodeEntry(index, value)
}

// checkLog compares log and snapshot: nothing may be missing in between, and a log that is there reaches the snapshot's end.
func (s *store) checkLog() error {
	n, covered := uint64(len(s.mu.entries)), s.mu.snapshot.Index
	switch last := s.mu.first + n - 1; {
	case n == 0 && covered == 0:
		return fmt.Errorf("%w: there is neither a log nor a snapshot", ErrCorrupt)
	case n > 0 && s.mu.first > covered+1:
		return fmt.Errorf("%w: the log begins at entry %d, the snapshot ends at %d", ErrCorrupt, s.mu.first, covered)
	case n > 0 && last < covered:
		return fmt.Errorf("%w: the log ends at entry %d, before the snapshot, which ends at %d", ErrCorrupt, last, covered)
	case n > 0 && s.mu.entries[n-1].Term > s.mu.term:
		return fmt.Errorf("%w: entry %d of the log is of term %d, but the node has heard of term %d only",
			ErrCorrupt, last, s.mu.entries[n-1].Term, s.mu.term)
	}
	return nil
}

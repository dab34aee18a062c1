package raftmeta

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// load reads everything, and checks that it belongs together and that no change is gone. fresh says that there is nothing.
func (s *store) load(who identity) (fresh bool, err error) {
	told, there, err := readProgress(s.fs, s.dir)
	if err != nil {
		return false, err
	}
	text, err := get(s.db, []byte{keyIdentity})
	if err == nil && text == nil {
		fresh, err = true, s.mustBeEmpty()
	} else if err == nil {
		err = s.loadAll(who, text)
	}
	switch {
	case err != nil:
	case s.changes < told:
		err = fmt.Errorf("%w: the store's last %d changes, of %d, are gone", ErrCorrupt, told-s.changes, told)
	case !fresh && !there:
		err = fmt.Errorf("%w: there is a log, but no %s", ErrCorrupt, progressFile)
	}
	if err != nil {
		return false, fmt.Errorf("%w (%s)", err, s.dir)
	}
	return fresh, nil
}

func (s *store) loadAll(who identity, text []byte) error {
	have, err := decodeIdentity(text)
	if err != nil {
		return err
	}
	if err := have.matches(who); err != nil {
		return err
	}
	if err := s.loadPromises(); err != nil {
		return err
	}
	if err := s.loadEntries(); err != nil {
		return err
	}
	if err := s.checkLog(); err != nil {
		return err
	}
	if s.mu.snapshot.Index > 0 {
		_, _, err = s.Open(s.mu.snapshot.ID) // checks the state
	}
	return err
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
	b, err := get(s.db, []byte{keyChanges})
	if err != nil {
		return err
	}
	changes := reader{b: b}
	if s.changes = changes.uvarint(); changes.bad {
		return fmt.Errorf("%w: number of changes is %x", ErrCorrupt, b)
	}
	r := reader{b: term}
	if s.mu.term = r.uvarint(); r.bad || len(r.b) > 0 || s.mu.term == 0 {
		return fmt.Errorf("%w: term is %x", ErrCorrupt, term)
	}
	if b, err = get(s.db, []byte{keyVote}); err != nil {
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

// checkLog compares log and snapshot: nothing may be missing in between.
func (s *store) checkLog() error {
	n, covered := uint64(len(s.mu.entries)), s.mu.snapshot.Index
	switch last := s.last(); {
	case n == 0 && covered == 0:
		return fmt.Errorf("%w: there is neither a log nor a snapshot", ErrCorrupt)
	case n > 0 && s.mu.first > covered+1:
		return fmt.Errorf("%w: the log begins at entry %d, the snapshot ends at %d", ErrCorrupt, s.mu.first, covered)
	case n > 0 && s.mu.entries[n-1].Term > s.mu.term:
		return fmt.Errorf("%w: entry %d of the log is of term %d, but the node has heard of term %d only",
			ErrCorrupt, last, s.mu.entries[n-1].Term, s.mu.term)
	}
	return nil
}

// mend drops the log if it has not the snapshot's last entry: the snapshot is a leader's, the log ends before it or is another
// leader's, and the node stopped before the log was made to follow. The paper (figure 13, rules 6 and 7) does this at once when
// the snapshot is installed, but the library would not know of it: see transport.InstallSnapshot.
func (s *store) mend() error {
	covered, last := s.mu.snapshot.Index, s.last()
	if covered == 0 || last == 0 {
		return nil
	}
	if covered <= last && (covered+1 == s.mu.first || s.mu.entries[covered-s.mu.first].Term == s.mu.snapshot.Term) {
		return nil
	}
	return s.DeleteRange(s.mu.first, last)
}

package raftmeta

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// vote is the last vote that the node gave.
type vote struct {
	term      uint64
	candidate []byte
}

func (v vote) encode() []byte { return append(binary.AppendUvarint(nil, v.term), v.candidate...) }

func decodeVote(b []byte) (vote, error) {
	r := reader{b: b}
	v := vote{term: r.uvarint(), candidate: r.b}
	if r.bad || len(v.candidate) == 0 {
		return vote{}, fmt.Errorf("%w: vote is %x", ErrCorrupt, b)
	}
	return v, nil
}

// The names under which the library keeps its promises.
const (
	libraryTerm      = "CurrentTerm"
	libraryVoteTerm  = "LastVoteTerm"
	libraryCandidate = "LastVoteCand"
)

// SetUint64 stores the term. A vote's term it only takes note of: the library writes a vote in two steps, first its term
// and then its candidate, and if the process dies in between, an older vote's candidate stands beside the new term. On the next
// start that candidate would be granted the vote whatever its log lacks. So both are written with the second.
//
// The term's error is not returned: the library ends the process over it. The node has failed then, see fault, and nothing that
// depends on the term leaves it any more.
func (s *store) SetUint64(key []byte, value uint64) error {
	switch string(key) {
	case libraryTerm:
		s.setTerm(value)
		return nil
	case libraryVoteTerm:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.voteTerm = value
		return nil
	}
	return fmt.Errorf("raftmeta: no place for a number under %q", key)
}

func (s *store) setTerm(term uint64) {
	s.mu.RLock()
	same := s.mu.term == term
	s.mu.RUnlock()
	if same {
		return
	}
	b := s.db.NewBatch()
	put(b, []byte{keyTerm}, binary.AppendUvarint(nil, term))
	if s.commit(b) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.term = term
}

// GetUint64 returns the term, or the term of the last vote; 0 if there was none.
func (s *store) GetUint64(key []byte) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch string(key) {
	case libraryTerm:
		return s.mu.term, nil
	case libraryVoteTerm:
		return s.mu.vote.term, nil
	}
	return 0, fmt.Errorf("raftmeta: no number under %q", key)
}

// Set stores a vote's candidate, together with the term that was told before.
func (s *store) Set(key, value []byte) error {
	if string(key) != libraryCandidate {
		return fmt.Errorf("raftmeta: no place for bytes under %q", key)
	}
	s.mu.RLock()
	v := vote{term: s.mu.voteTerm, candidate: bytes.Clone(value)}
	s.mu.RUnlock()
	b := s.db.NewBatch()
	put(b, []byte{keyVote}, v.encode())
	if err := s.commit(b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.vote = v
	return nil
}

// Get returns the candidate of the last vote; nil if there was none.
func (s *store) Get(key []byte) ([]byte, error) {
	if string(key) != libraryCandidate {
		return nil, fmt.Errorf("raftmeta: no bytes under %q", key)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.vote.candidate, nil
}

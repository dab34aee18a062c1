package raftmeta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"
)

const (
	// MaxSnapshot bounds a machine's state, in bytes.
	MaxSnapshot = 256 << 20
	// chunkBytes is how much of a snapshot is under one key.
	chunkBytes = 1 << 20
)

// snapshot says what the snapshot covers, and what its state must be.
type snapshot struct {
	raft.SnapshotMeta // zero: there is none
	checksum          uint32
}

func (s snapshot) chunks() uint32 { return uint32((s.Size + chunkBytes - 1) / chunkBytes) }

func (s snapshot) encode() []byte {
	b := binary.AppendUvarint(nil, s.Index)
	b = binary.AppendUvarint(b, s.Term)
	b = binary.AppendUvarint(b, s.ConfigurationIndex)
	b = binary.AppendUvarint(b, uint64(s.Size))
	b = binary.LittleEndian.AppendUint32(b, s.checksum)
	return append(b, raft.EncodeConfiguration(s.Configuration)...)
}

func decodeSnapshot(b []byte) (snapshot, error) {
	var s snapshot
	r := reader{b: b}
	s.Index, s.Term, s.ConfigurationIndex = r.uvarint(), r.uvarint(), r.uvarint()
	size := r.uvarint()
	if r.bad || len(r.b) < checksumSize || size > MaxSnapshot || s.Index == 0 || s.Term == 0 {
		return s, fmt.Errorf("%w: snapshot record of %d bytes", ErrCorrupt, len(b))
	}
	s.checksum = binary.LittleEndian.Uint32(r.b)
	s.Size, s.Version, s.ID = int64(size), raft.SnapshotVersionMax, snapshotID(s.Index, s.Term)
	var err error
	s.Configuration, err = decodeConfiguration(r.b[checksumSize:])
	return s, err
}

// decodeConfiguration is the library's, which panics, for bytes that cannot be trusted.
func decodeConfiguration(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: configuration: %v", ErrCorrupt, p)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}

func snapshotID(index, term uint64) string { return fmt.Sprintf("%d-%d", term, index) }

func chunkKey(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{keyChunk}, n) }

// List returns what the snapshot covers, if there is one.
func (s *store) List() ([]*raft.SnapshotMeta, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.mu.snapshot.Index == 0 {
		return nil, nil
	}
	meta := s.mu.snapshot.SnapshotMeta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open reads the snapshot.
func (s *store) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	view := s.db.NewSnapshot() // another snapshot may take this one's place meanwhile
	defer func() { _ = view.Close() }()
	b, err := get(view, []byte{keySnapshot})
	if err != nil {
		return nil, nil, err
	}
	snap, err := decodeSnapshot(b)
	if err != nil {
		return nil, nil, err
	}
	if snap.ID != id {
		return nil, nil, fmt.Errorf("raftmeta: snapshot %s has taken the place of %s", snap.ID, id)
	}
	state := make([]byte, 0, snap.Size)
	for n := range snap.chunks() {
		chunk, err := get(view, chunkKey(n))
		if err != nil {
			return nil, nil, err
		}
		state = append(state, chunk...)
	}
	if int64(len(state)) != snap.Size || crc32.Checksum(state, castagnoli) != snap.checksum {
		return nil, nil, fmt.Errorf("%w: state of snapshot %s", ErrCorrupt, id)
	}
	return &snap.SnapshotMeta, io.NopCloser(bytes.NewReader(state)), nil
}

// Create begins a snapshot, of this node's machine or from the leader. It is there when the sink is closed.
func (s *store) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64,
	_ raft.Transport) (raft.SnapshotSink, error) {
	return &snapshotSink{store: s, snapshot: snapshot{SnapshotMeta: raft.SnapshotMeta{
		Version: version, ID: snapshotID(index, term), Index: index, Term: term,
		Configuration: c, ConfigurationIndex: configIndex,
	}}}, nil
}

// snapshotSink takes a snapshot's state. One goroutine uses it.
type snapshotSink struct {
	store    *store
	snapshot snapshot
	state    bytes.Buffer
	closed   bool
}

func (k *snapshotSink) ID() string { return k.snapshot.ID }

func (k *snapshotSink) Write(p []byte) (int, error) {
	if k.state.Len()+len(p) > MaxSnapshot {
		return 0, fmt.Errorf("raftmeta: the state is larger than %d bytes", MaxSnapshot)
	}
	return k.state.Write(p)
}

// Cancel drops what was written.
func (k *snapshotSink) Cancel() error {
	k.closed = true
	return nil
}

// Close puts the snapshot in the place of the former one.
func (k *snapshotSink) Close() error {
	if k.closed {
		return nil
	}
	k.closed = true
	state := k.state.Bytes()
	k.snapshot.Size, k.snapshot.checksum = int64(len(state)), crc32.Checksum(state, castagnoli)
	return k.store.replaceSnapshot(k.snapshot, state)
}

// replaceSnapshot stores a snapshot. The log stays as it is: see mend.
func (s *store) replaceSnapshot(snap snapshot, state []byte) error {
	if covered := s.covered(); covered > snap.Index {
		return fmt.Errorf("raftmeta: snapshot %s ends before the one that is there, at entry %d", snap.ID, covered)
	}
	b := s.db.NewBatch()
	_ = b.DeleteRange(chunkKey(0), []byte{keyChunk + 1}, nil)
	for n := range snap.chunks() {
		from := int(n) * chunkBytes
		put(b, chunkKey(n), bytes.Clone(state[from:min(from+chunkBytes, len(state))]))
	}
	put(b, []byte{keySnapshot}, snap.encode())
	if err := s.commit(b); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.snapshot = snap
	return nil
}

// covered is the index of the last entry that the snapshot covers.
func (s *store) covered() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.snapshot.Index
}

package raftmeta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Keys of the store.
const (
	keyIdentity = 'i' // the identity file's text
	keyChanges  = 'n' // how many changes there were, this one included
	keyTerm     = 't' // the highest term that the node has heard of
	keyVote     = 'v' // its last vote: term and candidate
	keyEntry    = 'e' // and the index, 8 bytes, big-endian: an entry of the log
	keySnapshot = 's' // what the snapshot covers
	keyChunk    = 'c' // and a number, 4 bytes, big-endian: a part of the snapshot
)

// store is Raft's log, its term and vote, and the last snapshot, in one Pebble database: what one change does to several
// of them is done wholly or not at all. It is raft.LogStore, raft.StableStore and raft.SnapshotStore. A change is on disk
// when its method returns nil. Methods may be called from any goroutine.
//
// The log is in memory too, so that reading it cannot fail: the library ends the process if it cannot read a committed entry.
type store struct {
	fs    vfs.FS
	dir   string
	lock  io.Closer
	db    *pebble.DB
	fault *fault

	opened   atomic.Bool
	progress *progress
	changing sync.Mutex // makes one change follow the other; not held with mu
	changes  uint64     // guarded by changing

	mu struct {
		sync.RWMutex
		first    uint64     // Invariant: the index of entries[0]
		entries  []raft.Log // Invariant: without a gap; each is on disk
		term     uint64
		vote     vote
		voteTerm uint64 // of a vote that is being written, see SetUint64
		snapshot snapshot
	}
}

// openStore opens the directory as that node's, or makes it a new one's.
func openStore(fs vfs.FS, dir string, who identity, f *fault) (*store, error) {
	if err := refuseForeign(fs, dir); err != nil {
		return nil, err
	}
	if have, err := readIdentity(fs, dir); err == nil {
		if err := have.matches(who); err != nil {
			return nil, fmt.Errorf("%w (%s)", err, dir)
		}
	}
	if err := makeDir(fs, dir); err != nil {
		return nil, fmt.Errorf("raftmeta: make %s: %w", dir, err)
	}
	lock, err := lockDir(fs, dir)
	if err != nil {
		return nil, err
	}
	s := &store{fs: fs, dir: dir, lock: lock, fault: f}
	if err := s.open(who); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) open(who identity) error {
	have, err := readIdentity(s.fs, s.dir)
	known := err == nil
	switch {
	case known:
		err = have.matches(who)
	case errors.Is(err, os.ErrNotExist):
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%w (%s)", err, s.dir)
	}
	if known {
		return s.reopen(who)
	}
	return s.begin(who)
}

// reopen opens what a node has left. It looks first: Pebble opened for writing replays its WAL, damaged or not, and then
// removes it.
func (s *store) reopen(who identity) error {
	if err := s.openPebble(true); err != nil {
		return err
	}
	fresh, err := s.load(who)
	if err != nil {
		return err
	}
	if fresh {
		return fmt.Errorf("%w: the log of %s is gone; a node that forgot its votes must not vote", ErrCorrupt, s.dir)
	}
	if err := s.closePebble(); err != nil {
		return err
	}
	if s.progress, err = openProgress(s.fs, s.dir); err != nil {
		return err
	}
	if err := s.openPebble(false); err != nil {
		return err
	}
	return s.mend()
}

// begin makes the directory a node's, or goes on with that where a crash ended it. The identity file comes last, so that
// a directory without it has never taken part in anything.
func (s *store) begin(who identity) error {
	if err := s.openPebble(false); err != nil {
		return err
	}
	fresh, err := s.load(who)
	if err != nil {
		return err
	}
	if s.progress, err = openProgress(s.fs, s.dir); err != nil {
		return err
	}
	if fresh {
		if err := s.bootstrap(who); err != nil {
			return fmt.Errorf("raftmeta: begin %s: %w", s.dir, err)
		}
	}
	if err := writeFile(s.fs, s.dir, identityFile, who.encode()); err != nil {
		return fmt.Errorf("raftmeta: write identity of %s: %w", s.dir, err)
	}
	return nil
}

func (s *store) openPebble(readOnly bool) error {
	cache := pebble.NewCache(256 << 10)
	defer cache.Unref()
	o := &pebble.Options{
		FS:                          pebbleFS{s.fs, s.fault},
		Cache:                       cache,
		MemTableSize:                1 << 20,
		MemTableStopWritesThreshold: 4,
		FormatMajorVersion:          pebble.FormatNewest, // with it, damage in the middle of a WAL is told from its end
		CompactionConcurrencyRange:  s.compactions,
		DisableTableStats:           true,
		MaxOpenFiles:                64,
		ErrorIfNotExists:            readOnly,
		ReadOnly:                    readOnly,
		Logger:                      s.fault,
		EventListener: &pebble.EventListener{
			BackgroundError: s.fault.backgroundError,
			DataCorruption:  func(pebble.DataCorruptionInfo) {}, // the reader gets the error
		},
	}
	o.Experimental.FileCacheShards = 1
	s.opened.Store(false)
	path := s.fs.PathJoin(s.dir, storeDir)
	err := s.fault.run(func() (err error) {
		s.db, err = pebble.Open(path, o)
		return err
	})
	switch {
	case err == nil:
		s.opened.Store(true)
		return nil
	case errors.Is(err, pebble.ErrDBDoesNotExist), pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	return fmt.Errorf("raftmeta: open %s: %w", path, err)
}

// compactions is how many of them Pebble may run. Hardly any while it is being opened: if opening fails, Pebble takes from those under
// way what they need, which ends the process.
func (s *store) compactions() (low, high int) {
	if s.opened.Load() {
		return 1, 1
	}
	return 0, 1 // of none, Pebble would take a share
}

// bootstrap makes the first entry of the log, the configuration, which is the same on all nodes.
func (s *store) bootstrap(who identity) error {
	var config raft.Configuration
	for _, id := range who.peers {
		config.Servers = append(config.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	first := raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(config)}
	b := s.db.NewBatch()
	put(b, []byte{keyIdentity}, who.encode())
	put(b, []byte{keyTerm}, binary.AppendUvarint(nil, first.Term))
	put(b, entryKey(first.Index), appendEntry(nil, &first))
	if err := s.commit(b); err != nil {
		return err
	}
	s.mu.term, s.mu.first, s.mu.entries = first.Term, first.Index, []raft.Log{first}
	return nil
}

// put adds a value with its checksum to the batch, which cannot fail.
func put(b *pebble.Batch, key, value []byte) { _ = b.Set(key, seal(key, value), nil) }

// commit makes the batch durable.
func (s *store) commit(b *pebble.Batch) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	put(b, []byte{keyChanges}, binary.AppendUvarint(nil, s.changes+1))
	err := s.fault.run(func() error { return errors.Join(b.Commit(pebble.Sync), s.progress.write(s.changes+1)) })
	if err != nil {
		s.fault.fail(err) // if it is of the progress; what failed in Pebble is there already
		return s.fault.check()
	}
	s.changes++
	return nil
}

// get reads a value, which is the caller's; nil if there is none.
func get(from pebble.Reader, key []byte) ([]byte, error) {
	sealed, closer, err := from.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, corruptOr(err)
	}
	value, err := unseal(key, bytes.Clone(sealed))
	return value, errors.Join(err, closer.Close())
}

// corruptOr adds ErrCorrupt to Pebble's own word for it.
func corruptOr(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("raftmeta: read: %w", err)
}

// close closes the store.
func (s *store) close() error {
	if s.fault.check() != nil {
		s.abandon()
		return nil
	}
	return errors.Join(s.closePebble(), s.unlock())
}

func (s *store) closePebble() error {
	if s.db == nil {
		return nil
	}
	if err := s.fault.run(s.db.Close); err != nil {
		return fmt.Errorf("raftmeta: close %s: %w", s.dir, err)
	}
	s.db = nil
	return nil
}

func (s *store) unlock() error {
	var err error
	if s.progress != nil {
		err = s.progress.close()
	}
	if err := errors.Join(err, s.lock.Close()); err != nil {
		return fmt.Errorf("raftmeta: close %s: %w", s.dir, err)
	}
	return nil
}

// abandon closes a store that has failed, as far as that is possible. Where Pebble hangs, its goroutines and the lock stay
// until the process ends.
func (s *store) abandon() {
	close(s.fault.closing)
	closed := make(chan struct{})
	go func() {
		defer func() {
			if recover() == nil {
				close(closed)
			}
		}()
		if s.db != nil {
			_ = s.db.Close() // its error is the fault once more
		}
		s.fault.running.Wait()
	}()
	late := time.NewTimer(abandonAfter)
	defer late.Stop()
	select {
	case <-closed:
		_ = s.unlock()
	case <-late.C:
	}
}

// abandonAfter is how long closing a store that has failed may take.
const abandonAfter = 2 * time.Second

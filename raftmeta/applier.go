package raftmeta

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// applier is the machine as Raft sees it: it takes batches apart and counts commands. Its methods are called by Open and then
// by Raft's one goroutine for it.
type applier struct {
	machine Machine
	fault   *fault
	applied atomic.Uint64 // number of the last command
	broken  error         // the machine's state is no longer what the log says
}

// Apply carries out the commands of an entry. What it returns is an error if it has not.
func (a *applier) Apply(l *raft.Log) any {
	if a.broken != nil {
		return a.broken
	}
	commands, err := decodeBatch(l.Data)
	if err != nil {
		return a.breakDown(fmt.Errorf("entry %d of the log: %w", l.Index, err))
	}
	n := a.applied.Load()
	for _, c := range commands {
		n++
		a.machine.Apply(n, c)
		a.applied.Store(n)
	}
	return nil
}

func (a *applier) breakDown(err error) error {
	a.broken = err
	a.fault.fail(err)
	return err
}

// stateVersion is the first byte of a snapshot's state; the number of the last command follows, and the machine's state.
const stateVersion = 1

// Snapshot takes the machine's state.
func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if a.broken != nil {
		return nil, a.broken
	}
	state, err := a.machine.Snapshot()
	if err != nil {
		return nil, a.breakDown(fmt.Errorf("the machine's snapshot: %w", err))
	}
	head := binary.AppendUvarint([]byte{stateVersion}, a.applied.Load())
	return &taken{head: head, state: state, fault: a.fault}, nil
}

// Restore puts the machine into a state.
func (a *applier) Restore(from io.ReadCloser) error {
	b, err := io.ReadAll(from)
	if err != nil {
		return a.breakDown(fmt.Errorf("read a snapshot: %w", err))
	}
	r := reader{b: b}
	version, applied := r.byte(), r.uvarint()
	if r.bad || version != stateVersion {
		return a.breakDown(fmt.Errorf("%w: snapshot of version %d, this build reads %d", ErrCorrupt, version, stateVersion))
	}
	if err := a.machine.Restore(r.b); err != nil {
		return a.breakDown(fmt.Errorf("the machine refuses a snapshot: %w", err))
	}
	a.applied.Store(applied)
	return nil
}

// taken is a state on its way to disk.
type taken struct {
	head, state []byte
	fault       *fault
}

// Persist writes the state. The sink's errors fail the node: without snapshots the log grows for ever.
func (t *taken) Persist(sink raft.SnapshotSink) error {
	for _, b := range [][]byte{t.head, t.state} {
		if _, err := sink.Write(b); err != nil {
			t.fault.fail(err)
			return err
		}
	}
	return nil
}

// Release has nothing to do.
func (t *taken) Release() {}

package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Machine is what the log's commands act on. Its methods are called by one goroutine at a time.
type Machine interface {
	// Apply carries out the command with the given number. Numbers count the commands of the cluster's life, from 1 and
	// without a gap, and each node sees the same command under the same number; after a restart, those since the last
	// snapshot are seen again. It must be deterministic. The bytes may be kept but not changed.
	Apply(index uint64, command []byte)
	// Snapshot returns the state after the last command applied. The bytes are the node's from then on. An error fails the
	// node: without snapshots the log would grow for ever.
	Snapshot() ([]byte, error)
	// Restore replaces the state by one that Snapshot returned, on this node or another. The bytes are the machine's from
	// then on. An error fails the node, or Open.
	Restore(state []byte) error
}

// Peer is a node of the cluster. Its ID is for good; its address may be another one each time that nodes are started.
type Peer struct {
	ID      string
	Address string
}

// Options configure a Node. Zero values of the fields that have a default are the default.
type Options struct {
	// Cluster is the cluster's name. A directory belongs to one cluster for good.
	Cluster string
	// ID says which of the peers this node is.
	ID string
	// Peers is every node of the cluster, this one included: one, or three, or more; the order does not count. All have a
	// vote. Their IDs must be the same on each node and on each start.
	Peers []Peer
	// Dir is where log and snapshots are kept. It is made if it does not exist.
	Dir string

	// Heartbeat is how long a follower waits for word of its leader before it asks for an election. Default 100 ms; of a
	// node alone 20 ms, since it waits for nobody.
	Heartbeat time.Duration
	// Election is how long an election may take before the next one. At least Heartbeat; default 100 ms.
	Election time.Duration
	// Lease is how long a leader goes on without word of a majority. At most, and by default, Heartbeat: a shorter one gives up the
	// lead for every hiccup of a disk or a processor, and elects nobody sooner.
	Lease time.Duration
	// SnapshotEvery is the number of log entries after which a snapshot is taken. Default 8192.
	SnapshotEvery uint64

	// Dial makes an authenticated connection to another node, whose Serve gets the other end. It is called from several
	// goroutines and must not outlast ctx. A node alone needs none.
	Dial func(ctx context.Context, to Peer) (net.Conn, error)
	// Logger gets what Raft and the store say about themselves. Default: nobody.
	Logger *slog.Logger
	// FS is the file system of Dir; default the operating system's. Tests give vfs.NewMem, vfs.NewCrashableMem or
	// errorfs.Wrap of one.
	FS vfs.FS
}

const (
	defaultHeartbeat     = 100 * time.Millisecond
	defaultElection      = 100 * time.Millisecond
	defaultSnapshotEvery = 8192

	// aloneHeartbeat is the Heartbeat and Election of a node alone: how long it takes to see that nobody leads.
	aloneHeartbeat = 20 * time.Millisecond

	// maxPeers bounds the size of a cluster, maxName the bytes of an ID, an address or a cluster's name.
	maxPeers = 15
	maxName  = 255
)

// EnsureDefaults fills in the defaults.
func (o *Options) EnsureDefaults() {
	heartbeat, election := defaultHeartbeat, defaultElection
	if len(o.Peers) == 1 {
		heartbeat, election = aloneHeartbeat, aloneHeartbeat
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = heartbeat
	}
	if o.Election == 0 {
		o.Election = max(election, o.Heartbeat)
	}
	if o.Lease == 0 {
		o.Lease = o.Heartbeat
	}
	if o.SnapshotEvery == 0 {
		o.SnapshotEvery = defaultSnapshotEvery
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
}

// Validate says what is wrong with the options, once EnsureDefaults was called.
func (o *Options) Validate() error {
	if err := validName("cluster", o.Cluster); err != nil {
		return err
	}
	if len(o.Peers) == 0 || len(o.Peers) > maxPeers {
		return fmt.Errorf("raftmeta: %d peers, want 1 to %d", len(o.Peers), maxPeers)
	}
	for i, p := range o.Peers {
		if err := validName("peer", p.ID); err != nil {
			return err
		}
		if slices.ContainsFunc(o.Peers[:i], func(q Peer) bool { return q.ID == p.ID }) {
			return fmt.Errorf("raftmeta: two peers have the ID %q", p.ID)
		}
	}
	if !slices.ContainsFunc(o.Peers, func(p Peer) bool { return p.ID == o.ID }) {
		return fmt.Errorf("raftmeta: %q is not among the peers %s", o.ID, strings.Join(idsOf(o.Peers), ", "))
	}
	if o.Dir == "" {
		return errors.New("raftmeta: no directory")
	}
	if o.Dial == nil && len(o.Peers) > 1 {
		return errors.New("raftmeta: no way to dial the other peers")
	}
	return nil
}

func validName(what, name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("raftmeta: the name of a %s has %d bytes, want 1 to %d", what, len(name), maxName)
	}
	return nil
}

// idsOf lists the peers' IDs in order.
func idsOf(peers []Peer) []string {
	ids := make([]string, 0, len(peers))
	for _, p := range peers {
		ids = append(ids, p.ID)
	}
	slices.Sort(ids)
	return ids
}

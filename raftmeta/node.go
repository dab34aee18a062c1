package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// rpcTimeout bounds a request to another node, its disk included; of a snapshot, each 256 KiB.
	rpcTimeout = 5 * time.Second
	// commitEvery is how long a follower may wait for news of what is committed when nothing is proposed.
	commitEvery = 50 * time.Millisecond
	// snapshotCheck is how often a node looks whether a snapshot is due.
	snapshotCheck = 500 * time.Millisecond
	// maxEntries bounds the entries of one request, and maxConns the connections that are kept for the next to each peer.
	maxEntries = 16
	maxConns   = 3
	// leastTrailing is how many entries stay in the log before a snapshot at the least. It must be more than a leader can have
	// written without a majority, since a follower's log is compared back to there.
	leastTrailing = 64
)

// Node is one node of the cluster. All methods may be called from any goroutine.
type Node struct {
	options   Options
	logger    *slog.Logger
	fault     *fault
	store     *store
	applier   *applier
	network   *network
	transport *transport
	raft      *raft.Raft
	proposer  *proposer

	stop     chan struct{}
	stopOnce sync.Once
	ended    chan struct{} // closed when the goroutines are gone
	close    func() error
}

// Stats is what a node says of itself.
type Stats struct {
	State     string // Follower, Candidate, Leader, Failed or Shutdown
	Term      uint64
	Leader    string // ID; "" if unknown
	LastIndex uint64 // of the log
	Committed uint64 // index of the log
	Applied   uint64 // number of the last command that was applied here
	Snapshot  uint64 // index of the log that the last snapshot covers; 0 if there is none
	Pending   int    // proposals that wait for an answer
}

// Open starts the node. An empty directory becomes a new cluster's; each of its nodes does so by itself. The error has
// ErrInUse, ErrOtherCluster, ErrPeersChanged or ErrCorrupt in its chain where that is the cause, and then nothing in the
// directory was changed.
func Open(o Options, m Machine) (*Node, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	n := &Node{options: o, logger: o.Logger, fault: newFault(), stop: make(chan struct{}), ended: make(chan struct{})}
	var err error
	if n.store, err = openStore(o.FS, o.Dir, identityOf(&o), n.fault); err != nil {
		return nil, err
	}
	n.close = sync.OnceValue(n.store.close)
	n.applier = &applier{machine: m, fault: n.fault}
	n.network = newNetwork(&o, n.fault)
	logs := newLogger(o.Logger, len(o.Peers) == 1)
	n.transport = &transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n.network, MaxPool: maxConns, Timeout: rpcTimeout, Logger: logs,
	})}
	n.raft, err = raft.NewRaft(n.config(), n.applier, n.store, n.store, n.store, n.transport)
	if err != nil {
		err = fmt.Errorf("raftmeta: start: %w", errors.Join(err, n.fault.check()))
		return nil, errors.Join(err, n.transport.Close(), n.store.close())
	}
	n.proposer = newProposer(n.raft)
	go n.run()
	return n, nil
}

func (n *Node) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.options.ID)
	c.Logger = newLogger(n.options.Logger, len(n.options.Peers) == 1)
	c.HeartbeatTimeout = n.options.Heartbeat
	c.ElectionTimeout = n.options.Election
	c.LeaderLeaseTimeout = n.options.Lease
	c.CommitTimeout = commitEvery
	c.MaxAppendEntries = maxEntries
	c.SnapshotInterval = snapshotCheck
	c.SnapshotThreshold = n.options.SnapshotEvery
	c.TrailingLogs = max(n.options.SnapshotEvery/8, leastTrailing)
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	return c
}

// run waits for the node's end and carries it out. A node that failed is silent at once, see link, and inert soon.
func (n *Node) run() {
	defer close(n.ended)
	select {
	case <-n.stop:
	case <-n.fault.failed:
		n.logger.Error("raftmeta: the node has failed and takes no part any more", "error", n.fault.err)
		n.network.cutAll()
	}
	n.proposer.close()
	over := n.raft.Shutdown()
	n.network.cutAll()
	if err := over.Error(); err != nil {
		n.logger.Error("raftmeta: end of Raft", "error", err)
	}
	n.network.serving.Wait()
}

// Close ends the node: it answers all proposals, and its goroutines are gone when it returns; unless it has failed, when some of
// the store's may be left. It must not be called from a proposal's done.
func (n *Node) Close() error {
	n.stopOnce.Do(func() { close(n.stop) })
	<-n.ended
	return n.close()
}

// Serve takes a connection that another node's Dial made, and returns when it is no longer used; it is closed then.
func (n *Node) Serve(conn net.Conn) {
	if err := n.network.serve(conn); err != nil && !errors.Is(err, errClosed) {
		n.logger.Warn("raftmeta: connection refused", "from", conn.RemoteAddr(), "error", err)
	}
}

// Propose puts the command into the log, if this node leads. It does not block. done is called exactly once, by another
// goroutine, and must neither block nor wait for the node: with nil when this node's machine has applied the command, otherwise
// with an error that has
// ErrNotLeader, ErrLost, ErrBusy or ErrTooLarge in its chain. Proposals that were taken are answered in the order in
// which they were made. The command is the node's from now on.
func (n *Node) Propose(command []byte, done func(error)) {
	n.propose(proposal{command: command, done: done})
}

func (n *Node) propose(x proposal) {
	if err := n.proposer.propose(x); err != nil {
		go x.done(err) // not here: the caller may hold a lock that done takes
	}
}

// Barrier returns nil when every command that was committed before the call has been applied here. Otherwise the error
// has ErrNotLeader, ErrLost or ErrBusy in its chain, or is that of ctx.
func (n *Node) Barrier(ctx context.Context) error {
	answer := make(chan error, 1)
	n.propose(proposal{barrier: true, done: func(err error) { answer <- err }})
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Lead delivers whether this node leads, each time that it changes. Who is slow gets the latest only: true after true means
// that the lead was lost and won again in between. A new leader's machine may be behind until Barrier returns. Nobody ever
// waits for the receiver, of which there is one. The channel is not closed; its last value, if it led, is false.
func (n *Node) Lead() <-chan bool { return n.raft.LeaderCh() }

// Leader returns the leader's address as far as this node knows, "" if it knows none, and whether it is this node.
func (n *Node) Leader() (address string, self bool) {
	_, id := n.raft.LeaderWithID()
	if n.fault.check() != nil {
		return "", false
	}
	p, _ := n.network.find(string(id))
	return p.Address, string(id) == n.options.ID
}

// Failed is closed when the node has failed; Err says why.
func (n *Node) Failed() <-chan struct{} { return n.fault.failed }

// Err returns nil as long as the node has not failed, then an error with ErrFailed in its chain.
func (n *Node) Err() error { return n.fault.check() }

// Stats returns what the node says of itself.
func (n *Node) Stats() Stats {
	_, id := n.raft.LeaderWithID()
	s := Stats{
		State:     n.raft.State().String(),
		Term:      n.raft.CurrentTerm(),
		Leader:    string(id),
		LastIndex: n.raft.LastIndex(),
		Committed: n.raft.CommitIndex(),
		Applied:   n.applier.applied.Load(),
		Snapshot:  n.store.covered(),
		Pending:   n.proposer.pending(),
	}
	if n.fault.check() != nil {
		s.State, s.Leader = "Failed", ""
	}
	return s
}

package raftmeta

import (
	"context"
	"net"

	_ "github.com/hashicorp/go-hclog" // until the node is there
	_ "github.com/hashicorp/raft"
)

const (
	// MaxPending bounds the proposals that wait for an answer.
	MaxPending = 1 << 16
	// MaxCommand bounds a command, in bytes.
	MaxCommand = 16 << 20
)

// Node is one node of the cluster. All methods may be called from any goroutine.
type Node struct {
	lead   chan bool
	failed chan struct{}
}

// Stats is what a node says of itself.
type Stats struct {
	State     string // follower, candidate, leader, failed, closed
	Term      uint64
	Leader    string // ID; "" if unknown
	LastIndex uint64 // of the log
	Committed uint64 // index of the log
	Applied   uint64 // number of the last command that was applied here
	Snapshot  uint64 // index of the log that the last snapshot covers
	Pending   int    // proposals that wait for an answer
}

// Open starts the node. An empty directory becomes a new cluster's; each of its nodes does so by itself. The error has
// ErrInUse, ErrOtherCluster, ErrPeersChanged or ErrCorrupt in its chain where that is the cause, and then the directory is as
// it was.
func Open(o Options, m Machine) (*Node, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	panic("not written yet")
}

// Serve takes a connection that another node's Dial made, and returns when it is no longer used; it is closed then.
func (n *Node) Serve(conn net.Conn) {}

// Propose puts the command into the log, if this node leads. It does not block. done is called exactly once, by another
// goroutine, in the order of proposals, and must not block: with nil when this node's machine has applied the command,
// otherwise with an error that has ErrNotLeader, ErrLost, ErrBusy or ErrTooLarge in its chain. The command is the node's from now on.
func (n *Node) Propose(command []byte, done func(error)) {}

// Barrier returns nil when every command that was committed before the call has been applied here. Otherwise the error
// has ErrNotLeader or ErrLost in its chain, or is that of ctx.
func (n *Node) Barrier(ctx context.Context) error { return nil }

// Lead delivers whether this node leads, each time that it changes. Who is slow gets the latest only: true after true means
// that the lead was lost and won again in between. A new leader's machine may be behind until Barrier returns. Nobody ever waits for
// the receiver, of which there is one.
func (n *Node) Lead() <-chan bool { return n.lead }

// Leader returns the leader's address as far as this node knows, "" if it knows none, and whether it is this node.
func (n *Node) Leader() (address string, self bool) { return "", false }

// Failed is closed when the node has failed; Err says why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Err returns nil as long as the node has not failed, then an error with ErrFailed in its chain.
func (n *Node) Err() error { return nil }

// Stats returns what the node says of itself.
func (n *Node) Stats() Stats { return Stats{} }

// Close ends the node: it answers all proposals, and its goroutines are gone when it returns.
func (n *Node) Close() error { return nil }

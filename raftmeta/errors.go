package raftmeta

import "errors"

// What becomes of a proposal that was not applied.
var (
	// ErrNotLeader: the command is not in the log and never will be. This node does not lead, has failed or was closed.
	ErrNotLeader = errors.New("raftmeta: not the leader")
	// ErrLost: the command may be in the log, now or later, or never. This node lost the lead, failed or was closed while the
	// command was on its way.
	ErrLost = errors.New("raftmeta: lost the lead; the command's fate is unknown")
	// ErrBusy: the command was not proposed, since MaxPending others wait.
	ErrBusy = errors.New("raftmeta: too many proposals are waiting")
	// ErrTooLarge: the command was not proposed, since it is larger than MaxCommand.
	ErrTooLarge = errors.New("raftmeta: command is too large")
)

// Why Open refuses a directory.
var (
	// ErrInUse: another node, of this process or another, has the directory open.
	ErrInUse = errors.New("raftmeta: directory is in use")
	// ErrOtherCluster: the directory belongs to another cluster, or to another node of this one.
	ErrOtherCluster = errors.New("raftmeta: directory belongs to another cluster")
	// ErrPeersChanged: the directory belongs to a cluster of this name with other peers.
	ErrPeersChanged = errors.New("raftmeta: directory belongs to a cluster with other peers")
	// ErrCorrupt is in the chain of every error about bytes that are not what this package wrote.
	ErrCorrupt = errors.New("raftmeta: corrupt")
)

// ErrFailed: the disk failed under the node, or its machine did. It takes no part in the cluster from then on. What was
// acknowledged is safe in the directory, which another process can open once this one has ended.
var ErrFailed = errors.New("raftmeta: node failed")

// Package raftmeta keeps the commands of a deterministic machine in a log that is replicated by Raft (Ongaro and Ousterhout,
// "In Search of an Understandable Consensus Algorithm", 2014), and applies them in the same order on each node.
//
// It stands beside the record's way: what the job's coordinator decides is a command here, and counts once it is answered.
// Commands and states are bytes to it. A cluster has one node or three; one needs no network and leads some 40 ms after
// its start.
//
//	Propose  -> proposer:  commands that wait together become one entry
//	         -> hashicorp/raft: the entry is written here (store), and sent to the others (transport, network, link)
//	         -> applier:   takes committed entries apart, numbers the commands, hands them to the Machine
//	         -> proposer:  answers, in the order of the proposals
//
// Invariants:
//   - What was answered with nil is on the disks of a majority, synced, and applied here. It is never lost, unless those disks are.
//   - A command that was answered with ErrNotLeader is never applied. One that was answered with ErrLost may be, once.
//   - Command n is the same on each node. A node's machine has applied the commands 1 to Stats.Applied, each once, in order,
//     counted from its last Restore's state on.
//   - A node whose disk or machine has failed says nothing to anybody any more (link), acknowledges nothing, and says why (Failed).
//   - A directory belongs to one node of one cluster with one set of peers (identity). What does not belong together, or is
//     damaged, is an error of Open and stays as it is. A node that has lost its directory must not be started again with an empty
//     one: it would have forgotten what it voted for and what it acknowledged.
//   - The log's memory is bounded by SnapshotEvery and the entries' size; an entry has batchBytes, or one command.
//
// hashicorp/raft v1.8.0 has faults that matter here, and this package stands in their way; the places say how:
//   - it handles heartbeats beside its main goroutine, and logs diverge: transport.SetHeartbeatHandler;
//   - it writes a vote in two steps, and a crash in between makes one of another term of it: store.SetUint64;
//   - it tells followers of commits beyond what it has sent them: clamp;
//   - it leaves the log of a follower as it is when it installs a snapshot, and never gets on: transport.InstallSnapshot, store.mend;
//   - it ends the process when the term cannot be written (store.setTerm) or a committed entry cannot be read (store: the log is in
//     memory);
//   - it leaves futures without an answer when it is shut down: Node.run has it answer all before.
//
// Pebble ends the process in some cases of a failing disk, too: see fault and pebbleFS. One is left: where a directory is opened
// on a disk that fails at that moment, Pebble's goroutines may still panic; nothing is lost by it.
//
// Goroutines: a node has Raft's, two of its proposer, one that waits for its end, and Pebble's. Node's methods may be called from
// any goroutine. The Machine's methods are called by one at a time: Open's, then Raft's for the machine. done is called by the
// proposer's, or by one of its own if the proposal was turned down at once. All are gone when Close returns, except what Pebble
// does not let go of after a fault.
package raftmeta

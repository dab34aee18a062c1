// Package raftmeta keeps a deterministic machine's commands in a replicated log, by Raft (Ongaro and Ousterhout, 2014), and
// applies them in the same order on each node.
package raftmeta

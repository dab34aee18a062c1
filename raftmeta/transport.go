package raftmeta

import (
	"io"

	"github.com/hashicorp/raft"
)

// transport is the library's network transport with three holes closed.
type transport struct {
	*raft.NetworkTransport
}

// SetHeartbeatHandler does not set it. The library would handle heartbeats on a connection's goroutine, beside its main
// one, and a heartbeat of a newer term changes term and role under a leader that is writing an entry: the entry gets a term that
// this node does not lead, and logs diverge (hashicorp/raft issue 695). Without a handler they go where all requests go. The
// price is that a node which waits for its disk does not answer heartbeats, which also has a good side: a follower whose
// disk hangs is not counted as a follower.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntries sends entries, or a heartbeat.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse) error {
	clamp(args)
	return t.NetworkTransport.AppendEntries(id, target, args, resp)
}

// AppendEntriesPipeline sends entries without waiting for the answer to the former ones.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return &pipeline{p}, nil
}

type pipeline struct {
	raft.AppendPipeline
}

func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	clamp(args)
	return p.AppendPipeline.AppendEntries(args, resp)
}

// clamp tells a follower of commits only as far as the request reaches. The library sends the commit index as it is when the
// request is made, which may be beyond the entries that were chosen before, and a follower believes it up to the end of its own
// log: entries of an old leader's that nobody has compared yet would be applied. The paper (figure 2, AppendEntries, rule 5)
// has the follower take the smaller one.
func clamp(args *raft.AppendEntriesRequest) {
	args.LeaderCommitIndex = min(args.LeaderCommitIndex, args.PrevLogEntry+uint64(len(args.Entries)))
}

// InstallSnapshot sends a snapshot, and then its last entry as if it were one of the log. The library replaces the state of a
// follower that gets a snapshot, but not its log: one that has another leader's entry in that place refuses all that follows, and is
// sent the snapshot again, for ever (hashicorp/raft issue 697). An entry, though, which has nothing before it that must fit, takes the
// place of what is there, and of all after it, if the term is another one. What the entry says does not count: the store lets
// it begin the log, so that it is never sent on, and the snapshot covers it.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.NetworkTransport.InstallSnapshot(id, target, args, resp, data); err != nil || !resp.Success {
		return err
	}
	last := raft.AppendEntriesRequest{RPCHeader: args.RPCHeader, Term: args.Term,
		Entries: []*raft.Log{{Index: args.LastLogIndex, Term: args.LastLogTerm, Type: raft.LogNoop}}}
	// If it does not arrive, the follower asks for the snapshot again.
	_ = t.NetworkTransport.AppendEntries(id, target, &last, new(raft.AppendEntriesResponse))
	return nil
}

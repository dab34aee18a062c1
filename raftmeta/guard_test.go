package raftmeta

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// The tests of this file are of what stands between the library and its known faults.

// craft writes the directory of a node with entries 2 to last, of that term from index from on and of term 1 before, and a snapshot
// up to covered; what the snapshot covers is cut from the log, except for the last few entries.
func craft(t *testing.T, id string, from, term, last, covered uint64) vfs.FS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	s, err := openStore(fs, "/node", identity{"test", id, []string{"a", "b", "c"}}, newFault())
	require.NoError(t, err)
	require.NoError(t, s.SetUint64([]byte(libraryTerm), term))
	h := newHistory()
	for i := uint64(2); i <= last; i++ {
		of := uint64(1)
		if i >= from {
			of = term
		}
		c := []byte(fmt.Sprintf("%d in term %d", i, of))
		require.NoError(t, s.StoreLogs([]*raft.Log{{Index: i, Term: of, Data: appendBatch(nil, [][]byte{c})}}))
		if i <= covered {
			h.Apply(i-1, c)
		}
	}
	if covered > 0 {
		state, _ := h.Snapshot()
		state = append(binary.AppendUvarint([]byte{stateVersion}, covered-1), state...)
		var config raft.Configuration
		for _, p := range []string{"a", "b", "c"} {
			config.Servers = append(config.Servers, raft.Server{ID: raft.ServerID(p), Address: raft.ServerAddress(p)})
		}
		sink, err := s.Create(raft.SnapshotVersionMax, covered, term, config, 1, nil)
		require.NoError(t, err)
		_, err = sink.Write(state)
		require.NoError(t, err)
		require.NoError(t, sink.Close())
		require.NoError(t, s.DeleteRange(1, covered-5))
	}
	require.NoError(t, s.close())
	return fs
}

// TestConflictingTail: a follower has entries of an old leader's around the end of the snapshot that it gets, and beyond. Left to
// itself, the library keeps the conflicting entry, refuses all that follows, and is sent the snapshot again, for ever
// (hashicorp/raft issue 697).
func TestConflictingTail(t *testing.T) {
	for _, last := range []uint64{120, 150, 160, 190, 230} { // of the follower's log
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3, nil)
			w.mu.nodes["a"] = &member{id: "a", down: true, fs: craft(t, "a", 100, 3, 200, 150)}
			w.mu.nodes["b"] = &member{id: "b", down: true, fs: craft(t, "b", 100, 3, 200, 150)}
			w.mu.nodes["c"] = &member{id: "c", down: true, fs: craft(t, "c", 100, 2, last, 0)}
			w.open("a")
			w.open("b")
			l := w.leader()
			c := w.open("c")
			require.NoError(t, propose(l.node, "last"))
			want := l.machine.await(t, 200)
			require.Equal(t, want, c.machine.await(t, 200))
			require.Equal(t, 1, c.machine.mu.restores)
			w.kill("c")
			require.Equal(t, want, w.open("c").machine.await(t, 200))
		})
	}
}

// TestHeartbeatsQueue: heartbeats are handled on the library's one goroutine (hashicorp/raft issue 695).
func TestHeartbeatsQueue(t *testing.T) {
	n := newNetwork(&Options{Cluster: "test", ID: "a", Peers: []Peer{{ID: "a"}, {ID: "b"}}}, newFault())
	tr := &transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n, MaxPool: 1, Timeout: time.Second, Logger: newLogger(slog.New(slog.DiscardHandler), false)})}
	tr.SetHeartbeatHandler(func(raft.RPC) { t.Error("a heartbeat came beside the main goroutine") })
	far := newNetwork(&Options{Cluster: "test", ID: "b", Peers: n.peers}, newFault())
	other := &transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: far, MaxPool: 1, Timeout: time.Second, Logger: newLogger(slog.New(slog.DiscardHandler), false)})}
	far.dial = func(context.Context, Peer) (net.Conn, error) {
		near, end := net.Pipe()
		go func() { _ = n.serve(end) }()
		return near, nil
	}
	go func() {
		rpc := <-tr.Consumer()
		rpc.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
	}()
	var resp raft.AppendEntriesResponse
	header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("b"), Addr: []byte("b")}
	require.NoError(t, other.AppendEntries("a", "a", &raft.AppendEntriesRequest{RPCHeader: header, Term: 7}, &resp))
	require.True(t, resp.Success)
	require.NoError(t, tr.Close())
	require.NoError(t, other.Close())
	n.serving.Wait()
	far.serving.Wait()
}

// TestCommitIsClamped: a follower hears of commits only as far as it has been sent the log.
func TestCommitIsClamped(t *testing.T) {
	for _, c := range []struct{ previous, entries, committed, want uint64 }{
		{10, 0, 12, 10}, {10, 1, 12, 11}, {10, 5, 12, 12}, {0, 0, 0, 0},
	} {
		args := &raft.AppendEntriesRequest{PrevLogEntry: c.previous, LeaderCommitIndex: c.committed}
		for range c.entries {
			args.Entries = append(args.Entries, &raft.Log{})
		}
		clamp(args)
		require.Equal(t, c.want, args.LeaderCommitIndex)
	}
}

// TestSilentAfterFailure: nothing leaves a node whose disk has failed, since it may rest on what is not stored.
func TestSilentAfterFailure(t *testing.T) {
	f := newFault()
	n := newNetwork(&Options{ID: "a", Peers: []Peer{{ID: "a"}}}, f)
	var out bytes.Buffer
	l, err := n.track(&bufferConn{Buffer: &out})
	require.NoError(t, err)
	_, err = l.Write([]byte("before"))
	require.NoError(t, err)
	f.fail(errDiskFull)
	_, err = l.Write([]byte("after"))
	require.ErrorIs(t, err, ErrFailed)
	require.Equal(t, "before", out.String())
	require.NoError(t, l.Close())
	n.serving.Done()
	require.NoError(t, n.Close())
}

// bufferConn is a connection of which only Write and Close are used.
type bufferConn struct {
	net.Conn
	*bytes.Buffer
}

func (c *bufferConn) Read(p []byte) (int, error)  { return c.Buffer.Read(p) }
func (c *bufferConn) Write(p []byte) (int, error) { return c.Buffer.Write(p) }
func (c *bufferConn) Close() error                { return nil }

func TestLogger(t *testing.T) {
	var out strings.Builder
	log := newLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})), false)
	log.Trace("t")
	log.Debug("d")
	log.Info("i", "number", 1, "format", hclog.Fmt("%d/%d", 1, 2))
	log.With("node", "a").Named("x").Warn("w", "error", fmt.Errorf("bad"))
	log.Error("e", "state", raft.Leader)
	log.Log(hclog.Off, "never")
	_, err := fmt.Fprintln(log.StandardWriter(nil), "line")
	require.NoError(t, err)
	require.Equal(t, `level=INFO msg=i number=1 format=1/2
level=WARN msg=w node=a error=bad
level=ERROR msg=e state=Leader
level=INFO msg=line
`, out.String())
	require.True(t, log.IsInfo() && log.IsWarn() && log.IsError())
	require.False(t, log.IsTrace() || log.IsDebug())
	require.Equal(t, hclog.Info, log.GetLevel())
	require.Equal(t, hclog.Off, newLogger(slog.New(slog.DiscardHandler), false).GetLevel())
	require.Equal(t, "x.y", log.Named("x").Named("y").Name())
	require.Equal(t, []any{"a", 1, "b", 2}, log.With("a", 1).With("b", 2).ImpliedArgs())
}

// Without a majority the library says the same of every election. It is shown now and then, with how often it was left out.
func TestRepeatsAreLeftOut(t *testing.T) {
	var r repeats
	begin := time.Now()
	failed := func(peer string, term int, after time.Duration) (bool, int) {
		return r.first("failed to make requestVote RPC", []any{"target", peer, "term", term, "backoff time", term}, begin.Add(after))
	}
	shown, _ := failed("a", 1, 0)
	require.True(t, shown)
	shown, _ = failed("b", 1, 0)
	require.True(t, shown, "it is said of somebody else")
	for i := range 100 {
		shown, _ = failed("a", 2+i, time.Duration(i)*time.Millisecond)
		require.False(t, shown)
	}
	shown, leftOut := failed("a", 200, repeatPause)
	require.True(t, shown)
	require.Equal(t, 100, leftOut)
	for i := range 10 * maxRepeats {
		r.first("other", []any{"number", i}, begin)
	}
	require.LessOrEqual(t, len(r.mu.shown), maxRepeats)

	var out strings.Builder
	log := newLogger(slog.New(slog.NewTextHandler(&out, nil)), false)
	for range 10 {
		log.Named("x").With("y", 1).Error("no vote")
		log.Info("progress")
	}
	require.Equal(t, 1, strings.Count(out.String(), "no vote"))
	log.Warn(missedHeartbeat)
	newLogger(slog.New(slog.NewTextHandler(&out, nil)), true).Named("x").With("y", 1).Warn(missedHeartbeat)
	require.Equal(t, 1, strings.Count(out.String(), missedHeartbeat), "a node alone has no leader to miss")
	require.Equal(t, 10, strings.Count(out.String(), "progress"))
}

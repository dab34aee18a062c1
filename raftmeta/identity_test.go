package raftmeta

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func aloneOptions(dir string) Options {
	return Options{Cluster: "test", ID: "a", Peers: []Peer{{ID: "a", Address: "host-a"}}, Dir: dir}
}

func TestOptions(t *testing.T) {
	dial := func(context.Context, Peer) (net.Conn, error) { return nil, errors.New("nobody") }
	for name, change := range map[string]func(o *Options){
		"the name of a cluster has 0 bytes": func(o *Options) { o.Cluster = "" },
		"the name of a peer has 0 bytes":    func(o *Options) { o.Peers = append(o.Peers, Peer{}) },
		"0 peers":                           func(o *Options) { o.Peers = nil },
		"two peers have the ID \"a\"":       func(o *Options) { o.Peers = append(o.Peers, Peer{ID: "a"}) },
		"\"b\" is not among the peers a":    func(o *Options) { o.ID = "b" },
		"no directory":                      func(o *Options) { o.Dir = "" },
		"no way to dial":                    func(o *Options) { o.Peers, o.Dial = append(o.Peers, Peer{ID: "b"}), nil },
		"ElectionTimeout":                   func(o *Options) { o.Heartbeat, o.Election = 10*defaultHeartbeat, defaultElection },
		"LeaderLeaseTimeout":                func(o *Options) { o.Lease = 10 * defaultHeartbeat },
	} {
		o := aloneOptions("/node")
		o.FS, o.Dial = vfs.NewMem(), dial
		change(&o)
		_, err := Open(o, newHistory())
		require.ErrorContains(t, err, name)
	}
}

func TestForeignDirectory(t *testing.T) {
	fs := vfs.NewMem()
	o := aloneOptions("/node")
	o.FS = fs
	n, err := Open(o, newHistory())
	require.NoError(t, err)
	require.True(t, <-n.Lead())
	require.NoError(t, propose(n, "x"))
	require.NoError(t, n.Close())
	before := diskOf(t, fs, "/node")

	dial := func(context.Context, Peer) (net.Conn, error) { return nil, errors.New("nobody") }
	for _, c := range []struct {
		change func(o *Options)
		want   error
	}{
		{func(o *Options) { o.Cluster = "other" }, ErrOtherCluster},
		{func(o *Options) { o.ID, o.Peers = "b", []Peer{{ID: "a"}, {ID: "b"}} }, ErrOtherCluster},
		{func(o *Options) { o.Peers = append(o.Peers, Peer{ID: "b"}) }, ErrPeersChanged},
	} {
		other := aloneOptions("/node")
		other.FS, other.Dial = fs, dial
		c.change(&other)
		_, err := Open(other, newHistory())
		require.ErrorIs(t, err, c.want)
		require.ErrorContains(t, err, "/node")
		require.Equal(t, before, diskOf(t, fs, "/node"))
	}

	// Addresses are no part of it.
	o.Peers = []Peer{{ID: "a", Address: "elsewhere"}}
	n, err = Open(o, newHistory())
	require.NoError(t, err)
	require.NoError(t, n.Close())

	// Something else's directory stays as it is.
	require.NoError(t, fs.MkdirAll("/other/photos", 0o755))
	o.Dir = "/other"
	_, err = Open(o, newHistory())
	require.ErrorIs(t, err, ErrOtherCluster)
	names, err := fs.List("/other")
	require.NoError(t, err)
	require.Equal(t, []string{"photos"}, names)

	// Without its identity, the directory is taken for one that a crash left before the node began; what is in it counts.
	require.NoError(t, fs.Remove("/node/IDENTITY"))
	o.Dir = "/node"
	n, err = Open(o, newHistory())
	require.NoError(t, err)
	require.NoError(t, n.Barrier(waitToLead(t, n)))
	require.Equal(t, uint64(1), n.Stats().Applied)
	require.NoError(t, n.Close())
	require.NoError(t, fs.Remove("/node/IDENTITY"))
	o.Cluster = "other"
	_, err = Open(o, newHistory())
	require.ErrorIs(t, err, ErrOtherCluster)
}

// waitToLead waits until a node alone leads.
func waitToLead(t testing.TB, n *Node) context.Context {
	t.Helper()
	require.True(t, <-n.Lead())
	return t.Context()
}

func TestInUse(t *testing.T) {
	dir := os.Getenv("RAFTMETA_TEST_DIR")
	if dir != "" { // the other process
		_, err := Open(aloneOptions(dir), newHistory())
		require.ErrorIs(t, err, ErrInUse)
		return
	}
	dir = filepath.Join(t.TempDir(), "deep", "node")
	n, err := Open(aloneOptions(dir), newHistory())
	require.NoError(t, err)
	_, err = Open(aloneOptions(dir), newHistory())
	require.ErrorIs(t, err, ErrInUse)
	t.Setenv("RAFTMETA_TEST_DIR", dir)
	require.False(t, inChild(t))
	require.NoError(t, n.Close())
	n, err = Open(aloneOptions(dir), newHistory())
	require.NoError(t, err)
	require.NoError(t, n.Close())
}

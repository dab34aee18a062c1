package raftmeta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

func TestAlone(t *testing.T) {
	w := newWorld(t, 1, nil)
	begin := time.Now()
	m := w.open("a")
	require.True(t, <-m.node.Lead())
	t.Logf("leads after %v", time.Since(begin))
	for i := range 100 {
		require.NoError(t, propose(m.node, fmt.Sprint(i)))
		require.Len(t, m.machine.all(), i+1) // done after Apply
	}
	address, self := m.node.Leader()
	require.Equal(t, "host-a", address)
	require.True(t, self)
	want := m.machine.all()
	w.kill("a")
	require.False(t, <-m.node.Lead())
	require.Equal(t, "Shutdown", m.node.Stats().State)
	require.NoError(t, m.node.Close(), "twice")
	m = w.open("a")
	w.leader()
	require.Equal(t, want, m.machine.all())
}

// TestProposals: each is answered once, in order, though many share an entry.
func TestProposals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil).start()
		l := w.leader()
		before := l.node.Stats().LastIndex
		const n = 5000
		var next atomic.Int64
		var all sync.WaitGroup
		for i := range n {
			all.Add(1)
			l.node.Propose([]byte(fmt.Sprint(i)), func(err error) {
				defer all.Done()
				if err != nil || next.Add(1) != int64(i+1) {
					t.Errorf("proposal %d: answer %d, %v", i, next.Load(), err)
				}
			})
		}
		all.Wait()
		require.Less(t, l.node.Stats().LastIndex-before, uint64(n/50), "proposals share entries")
		for _, m := range w.alive() {
			require.Equal(t, l.machine.all(), m.machine.await(t, n))
			require.Equal(t, uint64(n), m.node.Stats().Applied)
			require.Zero(t, m.node.Stats().Pending)
			address, self := m.node.Leader()
			require.Equal(t, "host-"+l.id, address)
			require.Equal(t, m == l, self)
			if m != l {
				require.ErrorIs(t, propose(m.node, "x"), ErrNotLeader)
				require.ErrorIs(t, m.node.Barrier(t.Context()), ErrNotLeader)
			}
		}
		require.ErrorIs(t, propose(l.node, string(make([]byte, MaxCommand+1))), ErrTooLarge)
		require.NoError(t, propose(l.node, string(make([]byte, MaxCommand/slow)))) // and through the network
		w.kill(l.id)
		require.ErrorIs(t, propose(l.node, "x"), ErrNotLeader)
	})
}

// TestTooManyProposals: without a majority they wait, up to a bound, until the lead is lost; none is forgotten.
func TestTooManyProposals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil).start()
		l := w.leader()
		w.part(l.id, true)
		var mu sync.Mutex
		answers := map[error]int{}
		var all sync.WaitGroup
		const more = 7
		for range MaxPending + more {
			all.Add(1)
			l.node.Propose([]byte("x"), func(err error) {
				defer all.Done()
				mu.Lock()
				defer mu.Unlock()
				for _, is := range []error{ErrBusy, ErrLost, ErrNotLeader} {
					if errors.Is(err, is) {
						answers[is]++
					}
				}
			})
		}
		all.Wait()
		require.Equal(t, MaxPending+more, answers[ErrBusy]+answers[ErrLost]+answers[ErrNotLeader])
		require.GreaterOrEqual(t, answers[ErrBusy], 1)
		require.GreaterOrEqual(t, answers[ErrLost], 1)
		require.LessOrEqual(t, answers[ErrLost], maxInFlight*batchCommands)
	})
}

func TestBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil).start()
		l := w.leader()
		for i := range 10 {
			l.node.Propose([]byte(fmt.Sprint(i)), func(error) {})
		}
		require.NoError(t, l.node.Barrier(t.Context()))
		require.Len(t, l.machine.all(), 10)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w.part(l.id, true)
		require.ErrorIs(t, l.node.Barrier(ctx), context.Canceled)
		require.ErrorIs(t, l.node.Barrier(t.Context()), ErrLost)
	})
}

// TestLead: whoever does not listen gets the last value, and the library is not held up.
func TestLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil).start()
		l := w.leader()
		for range 5 {
			w.part(l.id, true)
			pause(time.Second)
			w.part(l.id, false)
			w.leader()
			pause(time.Second)
		}
		for _, m := range w.alive() {
			_, self := m.node.Leader()
			select {
			case last := <-m.node.Lead():
				require.Equal(t, self, last)
			default:
				require.False(t, self, "the lead was not delivered")
			}
		}
	})
}

// TestFailOver: a leader that dies, or is cut off, has a successor that has all that was acknowledged; when it is back it
// follows.
func TestFailOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil).start()
		var took []time.Duration
		acknowledged := 0
		for round := range 30 {
			l := w.leader()
			for range 10 {
				require.NoError(t, propose(l.node, fmt.Sprint(acknowledged)))
				acknowledged++
			}
			begin := time.Now()
			switch round % 3 {
			case 0:
				w.kill(l.id)
			case 1:
				w.part(l.id, true)
			case 2:
				for _, p := range w.peers {
					w.silence(l.id, p.ID, true)
				}
			}
			next := w.successor(l)
			took = append(took, time.Since(begin))
			require.Len(t, next.machine.all(), acknowledged)
			if round%3 == 0 {
				w.open(l.id)
			}
			w.mend()
			w.member(l.id).machine.await(t, acknowledged)
		}
		logMedian(t, "fail-over", took)
	})
}

// TestAllDie: what was acknowledged is there when all nodes have died at once and are started again, and whatever node is slow to
// come back.
func TestAllDie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil).start()
		n := 0
		for round := range 6 {
			l := w.leader()
			for range 20 {
				require.NoError(t, propose(l.node, fmt.Sprint(n)))
				n++
			}
			for _, p := range w.peers {
				w.kill(p.ID)
			}
			late := w.peers[round%3].ID
			for _, p := range w.peers {
				if p.ID != late {
					w.open(p.ID)
				}
			}
			require.Len(t, w.leader().machine.all(), n)
			w.open(late).machine.await(t, n)
		}
	})
}

// TestFarBehind: a node that was away while the others took snapshots gets one, and so does a new leader's follower.
func TestFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, func(o *Options) { o.SnapshotEvery = 20 }).start()
		l := w.leader()
		away := "a"
		if l.id == away {
			away = "b"
		}
		require.NoError(t, propose(l.node, "before"))
		w.kill(away)
		for i := range 500 {
			require.NoError(t, propose(l.node, fmt.Sprint(i)))
		}
		pause(3 * snapshotCheck)
		require.Greater(t, l.node.Stats().Snapshot, uint64(400))
		m := w.open(away)
		require.Equal(t, l.machine.all(), m.machine.await(t, 501))
		require.Equal(t, 1, m.machine.mu.restores)
		require.Equal(t, l.node.Stats().Snapshot, m.node.Stats().Snapshot)
		w.kill(away)
		m = w.open(away) // from its own snapshot
		m.machine.await(t, 501)
		require.Equal(t, 1, m.machine.mu.restores)
		require.Equal(t, uint64(501), m.node.Stats().Applied)
	})
}

// TestHangingDisk: a follower whose disk hangs is not waited for, a leader's is given up after a while.
func TestHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := map[string]*hangingFS{}
		w := newWorld(t, 3, func(o *Options) {
			disks[o.ID] = &hangingFS{}
			o.FS = errorfs.Wrap(o.FS, disks[o.ID])
		}).start()
		l := w.leader()
		follower := w.peers[0].ID
		if l.id == follower {
			follower = w.peers[1].ID
		}
		disks[follower].hold()
		begin := time.Now()
		require.NoError(t, propose(l.node, "x"))
		require.Less(t, time.Since(begin), time.Second)
		disks[follower].release()
		pause(time.Second)

		disks[l.id].hold()
		answer := make(chan error, 1)
		l.node.Propose([]byte("y"), func(err error) { answer <- err })
		<-l.node.Failed()
		require.Equal(t, 2*stall, time.Since(begin).Truncate(stall))
		require.ErrorContains(t, l.node.Err(), "did not finish a write")
		require.ErrorIs(t, <-answer, ErrLost)
		require.NoError(t, propose(w.successor(l).node, "z"))
		disks[l.id].release()
	})
}

// hangingFS is a file system whose writes may hang.
type hangingFS struct {
	mu   sync.Mutex
	gate chan struct{}
}

func (h *hangingFS) String() string { return "hanging" }

func (h *hangingFS) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = make(chan struct{})
}

func (h *hangingFS) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.gate)
	h.gate = nil
}

func (h *hangingFS) MaybeError(op errorfs.Op) error {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	if gate != nil && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
		<-gate
	}
	return nil
}

// TestStrangers: a connection of a node that takes the cluster for another one, or of no node at all, is refused.
func TestStrangers(t *testing.T) {
	fs := vfs.NewMem()
	o := aloneOptions("/node")
	o.FS, o.Peers = fs, []Peer{{ID: "a"}, {ID: "b"}}
	o.Dial = func(context.Context, Peer) (net.Conn, error) { return nil, errors.New("nobody") }
	n, err := Open(o, newHistory())
	require.NoError(t, err)
	defer func() { require.NoError(t, n.Close()) }()
	right := identityOf(&o).digest()
	wrong := identity{cluster: "other", peers: []string{"a", "b"}}.digest()
	for _, c := range []struct {
		digest   [32]byte
		from, to string
		want     string
	}{
		{right, "b", "a", ""},
		{wrong, "b", "a", "other peers"},
		{right, "b", "c", "another node"},
		{right, "c", "a", "another node"},
		{right, "a", "a", "another node"},
	} {
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() { n.Serve(far); close(served) }()
		err := greet(near, c.digest, c.from, c.to)
		if c.want == "" {
			require.NoError(t, err)
			require.NoError(t, near.Close())
		} else {
			require.ErrorIs(t, err, errPreface)
			require.ErrorContains(t, err, c.want)
		}
		<-served
	}
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() { n.Serve(far); close(served) }()
	_, err = near.Write(make([]byte, maxPreface))
	require.Error(t, err)
	<-served
}

// TestManyConnections: a peer that opens one connection after the other closes its oldest ones.
func TestManyConnections(t *testing.T) {
	o := aloneOptions("/node")
	o.FS, o.Peers = vfs.NewMem(), []Peer{{ID: "a"}, {ID: "b"}}
	o.Dial = func(context.Context, Peer) (net.Conn, error) { return nil, errors.New("nobody") }
	n, err := Open(o, newHistory())
	require.NoError(t, err)
	over := make(chan struct{}, 3*maxServed)
	for range 3 * maxServed {
		near, far := net.Pipe()
		go func() {
			n.Serve(far)
			over <- struct{}{}
		}()
		require.NoError(t, greet(near, identityOf(&o).digest(), "b", "a"))
	}
	for range 2 * maxServed {
		<-over
	}
	n.network.mu.Lock()
	require.Len(t, n.network.mu.served["b"], maxServed)
	n.network.mu.Unlock()
	require.NoError(t, n.Close())
	for range maxServed {
		<-over
	}
	near, far := net.Pipe()
	n.Serve(far) // after Close, it is closed at once
	_, err = near.Read(make([]byte, 1))
	require.Error(t, err)
}

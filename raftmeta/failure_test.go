package raftmeta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

var errDiskFull = errors.New("no space left on device")

// failingFS is a file system whose n-th write from now fails, and all that follow; of files of some name only, if one is given.
type failingFS struct {
	left   atomic.Int64
	suffix string
}

func newFailingFS() *failingFS {
	f := &failingFS{}
	f.mend()
	return f
}

func (f *failingFS) breakAfter(writes int64) { f.left.Store(writes) }
func (f *failingFS) mend()                   { f.left.Store(1 << 60) }
func (f *failingFS) String() string          { return "failing" }

func (f *failingFS) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && strings.HasSuffix(op.Path, f.suffix) &&
		f.left.Add(-1) < 0 {
		return errDiskFull
	}
	return nil
}

// TestStoreFails lets the disk fail at any write: the change reports it, and all after it do; what was done before is there when
// the directory is opened again, and of the change that failed all or nothing.
func TestStoreFails(t *testing.T) {
	for n := range int64(failures) {
		mem, failing := vfs.NewCrashableMem(), newFailingFS()
		s, err := openStore(errorfs.Wrap(mem, failing), "/d", someone, newFault())
		require.NoError(t, err)
		rng, im, terms := rand.New(rand.NewPCG(uint64(n), 5)), imageOf(t, s), map[uint64]uint64{1: 1}
		failing.breakAfter(n)
		var before image
		for err == nil {
			x := randomChange(rng, &im, terms)
			before = im.mended(im.follows(terms))
			x.image(&im)
			err = x.store(s)
		}
		im = im.mended(im.follows(terms))
		require.ErrorIs(t, err, ErrFailed)
		require.ErrorContains(t, err, errDiskFull.Error())
		failing.mend()
		require.ErrorIs(t, takeSnapshot(s, 1000, 1000, "state"), ErrFailed)
		require.ErrorIs(t, s.Set([]byte(libraryCandidate), []byte("b")), ErrFailed)
		require.NoError(t, s.SetUint64([]byte(libraryTerm), 99)) // the library ends the process over an error
		term, _ := s.GetUint64([]byte(libraryTerm))
		require.NotEqual(t, uint64(99), term)
		require.NoError(t, s.close())

		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * rng.IntN(2), RNG: rng})
		s, err = openStore(crashed, "/d", someone, newFault())
		require.NoError(t, err)
		if have := imageOf(t, s); fmt.Sprint(have) != fmt.Sprint(im) {
			require.Equal(t, before, have, "failure at write %d", n)
		}
		require.NoError(t, s.close())
	}
}

// TestOpenFails lets the disk fail while a directory is opened: there is an error, and once the disk is well the directory is
// as it was. Pebble leaves goroutines and a lock behind where it could not be opened, so each is on its own.
func TestOpenFails(t *testing.T) {
	if !inChild(t) {
		return
	}
	whole, want := populated(t)
	for _, d := range []disk{{"/d/LOCK": nil}, whole} {
		opened := false
		for n := int64(0); !opened; n += openStep {
			fs, failing := d.write(t), newFailingFS()
			failing.breakAfter(n)
			s, err := openStore(errorfs.Wrap(fs, failing), "/d", someone, newFault())
			failing.mend()
			if opened = err == nil; opened {
				t.Logf("%d writes to open it", n)
			} else {
				require.ErrorContains(t, err, errDiskFull.Error())
				// In another process, since Pebble keeps its lock.
				fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
				s, err = openStore(fs, "/d", someone, newFault())
				require.NoError(t, err, "after a failure at write %d", n)
			}
			if len(d) > 1 {
				require.Equal(t, want, imageOf(t, s))
			}
			require.NoError(t, s.close())
		}
	}
}

// TestFlushFails lets only the tables fail that Pebble writes in the background.
func TestFlushFails(t *testing.T) {
	mem, failing := vfs.NewCrashableMem(), newFailingFS()
	failing.suffix = ".sst"
	s, err := openStore(errorfs.Wrap(mem, failing), "/d", someone, newFault())
	require.NoError(t, err)
	failing.breakAfter(0)
	last := uint64(1)
	for err == nil {
		require.Less(t, last, uint64(100))
		if err = s.StoreLogs([]*raft.Log{{Index: last + 1, Term: 1, Data: make([]byte, 100<<10)}}); err == nil {
			last++
		}
	}
	require.ErrorIs(t, err, ErrFailed)
	s.abandon()
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	s, err = openStore(crashed, "/d", someone, newFault())
	require.NoError(t, err)
	im := imageOf(t, s)
	require.GreaterOrEqual(t, im.last(), last)
	require.NoError(t, s.close())
}

// TestDiskFull lets the disk of a node alone fail at any write of a stream of proposals: it says why, no longer leads, and what it
// acknowledged is there when it is started again.
func TestDiskFull(t *testing.T) {
	for n := int64(0); n < 40; n += 3 {
		synctest.Test(t, func(t *testing.T) {
			failing := newFailingFS()
			w := newWorld(t, 1, func(o *Options) {
				o.SnapshotEvery = 5
				if _, ok := o.FS.(*vfs.MemFS); ok {
					o.FS = errorfs.Wrap(o.FS, failing)
				}
			})
			m := w.open("a")
			require.True(t, <-m.node.Lead())
			failing.breakAfter(n)
			var acknowledged []string
			for i := 0; m.node.Err() == nil; i++ {
				command := fmt.Sprint(i)
				err := propose(m.node, command)
				if err == nil {
					acknowledged = append(acknowledged, command)
				} else {
					require.True(t, errors.Is(err, ErrLost) || errors.Is(err, ErrNotLeader), "%v", err)
				}
				pause(10 * time.Millisecond) // there are snapshots too
			}
			<-m.node.Failed()
			require.ErrorIs(t, m.node.Err(), ErrFailed)
			require.ErrorContains(t, m.node.Err(), errDiskFull.Error())
			require.ErrorIs(t, propose(m.node, "late"), ErrNotLeader)
			require.False(t, <-m.node.Lead())
			require.Equal(t, "Failed", m.node.Stats().State)
			address, self := m.node.Leader()
			require.Empty(t, address)
			require.False(t, self)
			w.kill("a")

			failing.mend()
			m = w.open("a")
			w.leader()
			have := m.machine.all()
			require.GreaterOrEqual(t, len(have), len(acknowledged))
			require.True(t, slices.Equal(acknowledged, have[:len(acknowledged)]))
			require.LessOrEqual(t, len(have), len(acknowledged)+1)
		})
	}
}

// TestLeaderDiskFull: the others take over from a leader whose disk fails.
func TestLeaderDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := map[string]*failingFS{}
		w := newWorld(t, 3, func(o *Options) {
			if disks[o.ID] == nil {
				disks[o.ID] = newFailingFS()
				o.FS = errorfs.Wrap(o.FS, disks[o.ID])
			}
		}).start()
		n := 0
		for range 6 {
			l := w.leader()
			for range 10 {
				require.NoError(t, propose(l.node, fmt.Sprint(n)))
				n++
			}
			disks[l.id].breakAfter(0)
			require.ErrorIs(t, propose(l.node, "lost"), ErrLost)
			<-l.node.Failed()
			next := w.successor(l)
			require.Len(t, next.machine.all(), n) // it never left the leader
			w.kill(l.id)
			disks[l.id].mend()
			w.open(l.id).machine.await(t, n)
			if have := w.leader().machine.all(); len(have) > n {
				t.Fatalf("a command that was not stored is applied: %q", have[n:])
			}
		}
	})
}

// brokenMachine refuses to be saved or restored.
type brokenMachine struct {
	history
	snapshot, restore error
}

func (b *brokenMachine) Snapshot() ([]byte, error) {
	if b.snapshot != nil {
		return nil, b.snapshot
	}
	return b.history.Snapshot()
}

func (b *brokenMachine) Restore(state []byte) error {
	if b.restore != nil {
		return b.restore
	}
	return b.history.Restore(state)
}

func TestMachineFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := aloneOptions("/node")
		o.FS, o.SnapshotEvery = vfs.NewMem(), 5
		m := &brokenMachine{history: *newHistory(), snapshot: errors.New("cannot be saved")}
		n, err := Open(o, m)
		require.NoError(t, err)
		require.True(t, <-n.Lead())
		for i := 0; n.Err() == nil; i++ {
			_ = propose(n, fmt.Sprint(i))
			pause(10 * time.Millisecond)
		}
		require.ErrorIs(t, n.Err(), ErrFailed)
		require.ErrorIs(t, n.Err(), m.snapshot)
		require.NoError(t, n.Close())
		acknowledged := len(m.all())

		m = &brokenMachine{history: *newHistory()}
		n, err = Open(o, m)
		require.NoError(t, err)
		require.True(t, <-n.Lead())
		require.NoError(t, n.Barrier(t.Context()))
		require.Len(t, m.all(), acknowledged)
		for n.Stats().Snapshot == 0 {
			pause(snapshotCheck)
		}
		require.NoError(t, n.Close())

		m = &brokenMachine{history: *newHistory(), restore: errors.New("cannot be restored")}
		_, err = Open(o, m)
		require.ErrorIs(t, err, m.restore)
	})
}

package raftmeta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

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
		var before *image
		for err == nil {
			x := randomChange(rng, &im, terms)
			before = im.clone()
			x.image(&im)
			err = x.store(s)
		}
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
			require.Equal(t, *before, have, "failure at write %d", n)
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

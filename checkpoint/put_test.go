package checkpoint

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// fickleFS is a file system of which some syncs of directories fail.
type fickleFS struct {
	vfs.FS
	syncs, failing atomic.Int64 // fails each failing-th; 0: none
}

var errFickle = errors.New("the disk does not take it")

func (f *fickleFS) OpenDir(dir string) (vfs.File, error) {
	file, err := f.FS.OpenDir(dir)
	return &fickleDir{file, f}, err
}

type fickleDir struct {
	vfs.File
	fs *fickleFS
}

func (d *fickleDir) Sync() error {
	n, each := d.fs.syncs.Add(1), d.fs.failing.Load()
	if each > 0 && n%each == 0 {
		return errFickle
	}
	return d.File.Sync()
}

// An image comes twice at once when its sender cannot know that it has arrived. What one call has acknowledged stays, whatever becomes of
// the others.
func TestOneImagePutTwiceAtOnce(t *testing.T) {
	const calls = 4
	acknowledged := 0
	for round := range 100 {
		fs := &fickleFS{FS: vfs.NewMem()}
		s, err := OpenStore("d", StoreOptions{FS: fs, Identity: "j"})
		require.NoError(t, err)
		fs.failing.Store(int64(2 + round%2))
		im := image(t, Meta{Task: 1, Epoch: 1, Incarnation: 1}, false, "a=1")
		errs := make([]error, calls)
		var all sync.WaitGroup
		for i := range calls {
			all.Go(func() { errs[i] = s.Put(im) })
		}
		all.Wait()
		fs.failing.Store(0)
		taken := false
		for _, err := range errs {
			if err != nil {
				require.ErrorIs(t, err, errFickle)
			}
			taken = taken || err == nil
		}
		if taken {
			acknowledged++
			require.NoError(t, s.Commit(1, []Life{{Task: 1, Incarnation: 1}}))
			require.EqualValues(t, 1, s.Held(1))
		}
		require.NoError(t, s.DropAbove(1), "nothing is left that cannot be removed")
		require.NoError(t, s.Close())
	}
	require.Positive(t, acknowledged)
}

package checkpoint

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Images that were put are folded from memory; those that have no room there, or were put before the store was opened, from their files. It comes
// to the same, and memory is given back.
func TestStoreRecentImages(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	first := image(t, Meta{Task: 1, Incarnation: 1, Epoch: 1}, false, "a=1", "b=2")
	require.NoError(t, s.Put(first))
	require.Equal(t, len(first), s.mu.recentBytes)
	second := image(t, Meta{Task: 1, Incarnation: 2, Epoch: 1}, false, "a=3")
	require.NoError(t, s.Put(second)) // in the place of the first
	require.Equal(t, len(second), s.mu.recentBytes)
	require.NoError(t, s.Commit(1, []Life{{1, 2}}))
	require.Zero(t, s.mu.recentBytes)
	require.Empty(t, s.mu.recent)
	require.Equal(t, "@1/2 a=3", restored(t, s, 1, 1, 2))

	s.mu.recentBytes = maxRecent // as if others were there
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 2, Epoch: 2, Base: 1}, false, "c=4")))
	require.Empty(t, s.mu.recent)
	s.mu.recentBytes = 0
	require.NoError(t, s.Commit(2, []Life{{1, 2}}))
	require.Equal(t, "@2/2 a=3 c=4", restored(t, s, 1, 2, 2))

	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 2, Epoch: 3, Base: 2}, false, "a=5")))
	require.NoError(t, s.Close())
	s = openMem(t, fs)
	require.Zero(t, s.mu.recentBytes)
	require.NoError(t, s.Commit(3, []Life{{1, 2}}))
	require.Equal(t, "@3/2 a=5 c=4", restored(t, s, 1, 3, 2))
	require.NoError(t, s.DropAbove(0))
	require.NoError(t, s.Close())
}

// Values that are kept apart from their keys come back, also after they were replaced.
func TestStoreBigValues(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	big := func(c string) string { return strings.Repeat(c, 10*separation.MinimumSize) }
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 1}, false, "a="+big("x"), "b="+big("y"))))
	require.NoError(t, s.Commit(1, []Life{{1, 1}}))
	require.NoError(t, s.db.Flush())
	require.Positive(t, s.db.Metrics().BlobFiles.LiveCount, "nothing is kept apart")
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 2, Base: 1}, false, "a="+big("z"))))
	require.NoError(t, s.Commit(2, []Life{{1, 1}}))
	require.NoError(t, s.db.Flush())
	require.NoError(t, s.Close())
	s = openMem(t, fs)
	require.Equal(t, "@2/1 a="+big("z")+" b="+big("y"), restored(t, s, 1, 2, 1))
	require.NoError(t, s.Close())
}

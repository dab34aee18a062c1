package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/understudy-stream/understudy/determinant"
)

// resident tells how many pages of a file the system has in memory.
func resident(t *testing.T, path string) uint64 {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	var all unix.CachestatRange
	var has unix.Cachestat_t
	err = unix.Cachestat(uint(f.Fd()), &all, &has, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("the system does not tell: %v", err)
	}
	require.NoError(t, err)
	return has.Cache
}

// A large image is read soon where a task may begin with it, and not where its task is.
func TestLargeImagesAreForgotten(t *testing.T) {
	dir := t.TempDir()
	var at unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &at))
	if at.Type == unix.TMPFS_MAGIC {
		t.Skip("this file system is in memory")
	}
	probe := filepath.Join(dir, "probe")
	require.NoError(t, os.WriteFile(probe, make([]byte, forgottenFrom), 0o600))
	all := resident(t, probe)
	if all == 0 {
		t.Skip("this file system does not tell, or keeps nothing")
	}
	s, err := OpenStore(filepath.Join(dir, "store"), StoreOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	large := "key=" + strings.Repeat("v", forgottenFrom)
	for i, c := range []struct {
		name  string
		entry string
		put   func([]byte) error
		kept  bool
	}{
		{"of a task that is here", large, s.PutEncoded, false},
		{"from elsewhere", large, s.Put, true},
		{"small", large[:forgottenFrom/2], s.PutEncoded, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := Meta{Task: determinant.TaskID(i), Incarnation: 1, Epoch: 1}
			require.NoError(t, c.put(image(t, m, true, c.entry)))
			pages := resident(t, s.path(imageName(imageID{m.Task, m.Epoch}, m.Incarnation)))
			if c.kept {
				require.GreaterOrEqual(t, pages, all/4)
			} else {
				require.Less(t, pages, all/10) // the system may be busy with some
			}
			require.NoError(t, s.Commit(1, []Life{{Task: m.Task, Incarnation: 1}}))
			require.Equal(t, "@1/1 "+c.entry, restored(t, s, m.Task, 1, 1))
		})
	}
}

package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/understudy-stream/understudy/determinant"
)

// resident tells how many pages of a file the system has in memory (mincore, which all kernels and file systems know).
func resident(t *testing.T, path string) (pages int) {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	info, err := f.Stat()
	require.NoError(t, err)
	bytes, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(bytes)) }()
	has := make([]byte, (len(bytes)+os.Getpagesize()-1)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&bytes[0])), uintptr(len(bytes)), uintptr(unsafe.Pointer(&has[0])))
	require.Zero(t, errno)
	for _, page := range has {
		pages += int(page & 1)
	}
	return pages
}

// cached tells how many pages of a new file of forgottenFrom bytes are in memory. Where that is all there is of a file, it skips the test.
func cached(t *testing.T, path string) int {
	f, err := os.Create(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	_, err = f.Write(make([]byte, forgottenFrom))
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	all := resident(t, path)
	require.NotZero(t, all)
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	if resident(t, path) == all {
		t.Skip("files are in memory only here: set TMPDIR to a directory on a disk")
	}
	return all
}

// A large image is read soon where a task may begin with it, or where it may be merged, and not where its task is and cleans its state.
func TestLargeImagesAreForgotten(t *testing.T) {
	dir := t.TempDir()
	all := cached(t, filepath.Join(dir, "probe"))
	s, err := OpenStore(filepath.Join(dir, "store"), StoreOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	large := "key=" + strings.Repeat("v", forgottenFrom)
	for i, c := range []struct {
		name  string
		entry string
		state uint64
		put   func([]byte) error
		kept  bool
	}{
		{"of a task that is here", large, forgottenFrom, s.PutEncoded, false},
		{"that may be merged", large, 0, s.PutEncoded, true},
		{"from elsewhere", large, forgottenFrom, s.Put, true},
		{"small", large[:forgottenFrom/2], forgottenFrom, s.PutEncoded, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := Meta{Task: determinant.TaskID(i), Incarnation: 1, Epoch: 1, State: c.state}
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

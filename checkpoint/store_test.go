package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

func openMem(t require.TestingT, fs vfs.FS) *Store {
	s, err := OpenStore("w/store", StoreOptions{FS: fs, Identity: "job"})
	require.NoError(t, err)
	return s
}

// image builds an image with one table. Entries are k=v to set, k to delete.
func image(t require.TestingT, m Meta, full bool, entries ...string) []byte {
	var items []item
	for _, e := range entries {
		k, v, ok := strings.Cut(e, "=")
		items = append(items, item{key: k, value: v, deleted: !ok})
	}
	b, err := Encode(m, full, frozen(table{"t", items}))
	require.NoError(t, err)
	return b
}

// restored gives what the store restores, as k=v words, or the error's sentinel.
func restored(t require.TestingT, s *Store, task determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation) string {
	var words []string
	var m Meta
	err := s.RestoreAt(task, e, inc, &m, func(table string, key, value []byte) error {
		words = append(words, fmt.Sprintf("%s=%s", key, value))
		return nil
	})
	if errors.Is(err, ErrNotHeld) {
		return "not held"
	}
	require.NoError(t, err)
	require.Equal(t, task, m.Task)
	return fmt.Sprintf("@%d/%d %s", m.Epoch, m.Incarnation, strings.Join(words, " "))
}

func TestStoreFoldsImages(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	require.Equal(t, determinant.Epoch(0), s.Held(1))
	require.Equal(t, "@0/0 ", restored(t, s, 1, 0, 1))
	require.Equal(t, "not held", restored(t, s, 1, 1, 1))

	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 1}, false, "a=1", "b=2")))
	require.NoError(t, s.Put(image(t, Meta{Task: 2, Incarnation: 1, Epoch: 1}, true, "z=9")))
	require.Equal(t, determinant.Epoch(0), s.Held(1), "put is not commit")
	require.Equal(t, "@0/0 ", restored(t, s, 1, 0, 1), "the newer image is not committed")
	require.NoError(t, s.Commit(1, []Life{{1, 1}, {2, 1}, {3, 1}}))
	require.Equal(t, []Holding{{1, 1, 1}, {2, 1, 1}}, s.Holdings())
	require.Equal(t, "@1/1 a=1 b=2", restored(t, s, 1, 1, 1))
	require.NoError(t, s.Commit(1, []Life{{1, 1}, {2, 1}, {3, 1}}))

	// Epoch 2 was abandoned; 3 has its changes too. Task 2 is replaced whole.
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 2, Base: 1}, false, "a=7")))
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 3, Base: 1}, false, "a", "c=3")))
	require.NoError(t, s.Put(image(t, Meta{Task: 2, Incarnation: 1, Epoch: 3}, true, "y=8")))
	require.NoError(t, s.Commit(3, []Life{{1, 1}, {2, 1}}))
	whole, newest := s.Sizes(1)
	require.Greater(t, whole, newest)
	require.Positive(t, newest)
	whole, newest = s.Sizes(2)
	require.Equal(t, whole, newest, "all of it changed")
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Close(), ErrClosed)
	require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 4, Base: 3}, false)), ErrClosed)

	s = openMem(t, fs)
	require.Equal(t, "@3/1 b=2 c=3", restored(t, s, 1, 3, 1))
	require.Equal(t, "@3/1 y=8", restored(t, s, 2, 3, 1))
	require.Equal(t, "not held", restored(t, s, 1, 2, 1))
	names, err := fs.List("w/store/images")
	require.NoError(t, err)
	slices.Sort(names)
	require.Equal(t, []string{"1-0-1-1-0.part", "1-1-3-1-0.part", "2-0-1-1-0.part", "2-0-3-1-0.part"}, names, "one that was replaced is a spare")
	require.NoError(t, s.Close())
}

func TestStoreRefusesWhatDoesNotFit(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	defer func() { require.NoError(t, s.Close()) }()
	require.ErrorIs(t, s.Put([]byte("no image")), ErrCorrupt)
	require.ErrorIs(t, s.Import([]byte("no image")), ErrCorrupt)
	require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Epoch: 0}, true)), ErrCorrupt)
	require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Epoch: 2, Base: 2}, false)), ErrCorrupt)
	require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 3, Base: 2}, false)), ErrBase)
	require.ErrorIs(t, s.Import(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 3}, false)), ErrNotFull)

	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 2, Epoch: 3}, false, "a=2")))
	require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 3}, false, "a=1")), ErrStale)
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 2, Epoch: 3}, false, "a=2")), "again")
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 3, Epoch: 3}, false, "a=3")), "a higher life replaces it")
	require.NoError(t, s.Commit(3, []Life{{1, 3}}))
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 3, Epoch: 3}, false, "a=3")), "again, after the commit")
	require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Incarnation: 4, Epoch: 3}, false)), ErrStale)
	require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Incarnation: 3, Epoch: 2}, true)), ErrStale)
	require.ErrorIs(t, s.Import(image(t, Meta{Task: 1, Incarnation: 3, Epoch: 2}, true)), ErrStale)
	require.Equal(t, "@3/3 a=3", restored(t, s, 1, 3, 3))
}

// TestStoreCommitWithoutTheImage: the store then holds an old checkpoint, says so, and is refreshed by a full image.
func TestStoreCommitWithoutTheImage(t *testing.T) {
	s, other := openMem(t, vfs.NewMem()), openMem(t, vfs.NewMem())
	for _, st := range []*Store{s, other} {
		require.NoError(t, st.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 1}, false, "a=1", "b=1")))
		require.NoError(t, st.Commit(1, []Life{{1, 1}}))
	}
	require.NoError(t, other.Put(image(t, Meta{Task: 1, Incarnation: 2, Epoch: 2, Base: 1, Records: 5}, false, "a=2")))
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 2, Base: 1}, false, "a=void")))
	lives := []Life{{1, 2}}
	require.NoError(t, s.Commit(2, lives))
	require.NoError(t, other.Commit(2, lives))
	require.Equal(t, determinant.Epoch(1), s.Held(1))
	require.Equal(t, "not held", restored(t, s, 1, 2, 2))
	require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Incarnation: 2, Epoch: 3, Base: 2}, false)), ErrBase)

	full, err := other.Export(1)
	require.NoError(t, err)
	require.NoError(t, s.Import(full))
	require.NoError(t, s.Import(full), "again")
	require.Equal(t, "@2/2 a=2 b=1", restored(t, s, 1, 2, 2))
	again, err := s.Export(1)
	require.NoError(t, err)
	require.Equal(t, full, again)
	empty, err := s.Export(9)
	require.NoError(t, err)
	require.NoError(t, other.Import(empty))
	require.Equal(t, determinant.Epoch(0), other.Held(9))
	require.NoError(t, s.Close())
	require.NoError(t, other.Close())
}

// TestStoreRestoreAtFoldsFirst: a worker that hears of a commit by way of a restore has the image already.
func TestStoreRestoreAtFoldsFirst(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 2, Epoch: 4}, false, "a=1")))
	require.Equal(t, "not held", restored(t, s, 1, 4, 1), "the image is by another life")
	require.Equal(t, "not held", restored(t, s, 1, 3, 2))
	var m Meta
	require.ErrorIs(t, s.Restore(1, 4, &m, nil), ErrNotHeld)
	require.Equal(t, "@4/2 a=1", restored(t, s, 1, 4, 2))
	require.Equal(t, determinant.Epoch(4), s.Held(1))
}

// TestStoreRestoreUncommitted is the mutation: the newest image counts though nobody committed it.
func TestStoreRestoreUncommitted(t *testing.T) {
	for _, m := range []mutation.Set{0, mutation.RestoreUncommitted} {
		s, err := OpenStore("w", StoreOptions{FS: vfs.NewMem(), Mutations: m})
		require.NoError(t, err)
		require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 1}, false, "a=1", "b=1")))
		require.NoError(t, s.Commit(1, []Life{{1, 1}}))
		require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 2, Base: 1}, false, "a=2")))
		var meta Meta
		require.NoError(t, s.RestoreAt(1, 1, 1, &meta, func(string, []byte, []byte) error { return nil }))
		want := determinant.Epoch(1)
		if m != 0 {
			want = 2
		}
		require.Equal(t, want, meta.Epoch)
		require.NoError(t, s.Close())
	}
}

func TestStoreDrops(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 1}, false, "a=1")))
	require.NoError(t, s.Put(image(t, Meta{Task: 2, Incarnation: 1, Epoch: 1}, false, "b=1")))
	require.NoError(t, s.Commit(1, []Life{{1, 1}, {2, 1}}))
	for _, e := range []determinant.Epoch{2, 3} {
		require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: e, Base: 1}, false, "a=2")))
		require.NoError(t, s.Put(image(t, Meta{Task: 2, Incarnation: 1, Epoch: e, Base: 1}, false, "b=2")))
	}
	require.NoError(t, s.DropAbove(2))
	require.Equal(t, "not held", restored(t, s, 2, 3, 1))
	require.NoError(t, s.Drop(1))
	require.NoError(t, s.Drop(1), "again")
	require.NoError(t, s.Close())
	s = openMem(t, fs)
	require.Equal(t, []Holding{{2, 1, 1}}, s.Holdings())
	require.Equal(t, "not held", restored(t, s, 1, 2, 1))
	require.Equal(t, "not held", restored(t, s, 2, 3, 1))
	require.Equal(t, "@2/1 b=2", restored(t, s, 2, 2, 1))
	require.NoError(t, s.Close())
}

// TestStoreTables: names of tables and keys may hold any bytes and keep their order.
func TestStoreTables(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	defer func() { require.NoError(t, s.Close()) }()
	names := []string{"", "\x00", "\x00\x01", "\x00\xff", "\x01", "a", "a\x00", "a\x00b", "ab", "\xff"}
	var tables []table
	for _, n := range names {
		tables = append(tables, table{n, []item{{"\x00\x01", n, false}, {"", n, false}, {"\xff", n, false}}})
	}
	for _, task := range []determinant.TaskID{0, 0xff, 0xffffffff} {
		in, err := Encode(Meta{Task: task, Incarnation: 1, Epoch: 1}, true, frozen(tables...))
		require.NoError(t, err)
		require.NoError(t, s.Import(in))
		out, err := s.Export(task)
		require.NoError(t, err)
		require.Equal(t, in, out)
	}
}

func TestStoreIsLocked(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/a/b"
			s, err := OpenStore(dir, StoreOptions{FS: fs})
			require.NoError(t, err)
			_, err = OpenStore(dir, StoreOptions{FS: fs})
			require.ErrorIs(t, err, ErrLocked)
			require.NoError(t, s.Close())
			s, err = OpenStore(dir, StoreOptions{FS: fs})
			require.NoError(t, err)
			require.NoError(t, s.Close())
		})
	}
}

func TestStoreBelongsToOneJob(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 1}, false, "a=1")))
	require.NoError(t, s.Close())
	_, err := OpenStore("w/store", StoreOptions{FS: fs, Identity: "other"})
	require.ErrorIs(t, err, ErrWrongJob)
	require.ErrorContains(t, err, `is of job "job", not of job "other"`)
	s = openMem(t, fs)
	require.Equal(t, "@1/1 a=1", restored(t, s, 1, 1, 1))
	require.NoError(t, s.Close())
}

// TestStoreDamagedImage: one damaged file is named, stays, and does not keep other tasks from being committed.
func TestStoreDamagedImage(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	for task := range determinant.TaskID(3) {
		require.NoError(t, s.Put(image(t, Meta{Task: task, Incarnation: 1, Epoch: 1}, false, "a=1")))
	}
	f, err := fs.Create("w/store/images/1-1-1.image", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write([]byte("USIMAGE\nnot"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, s.Close())
	s = openMem(t, fs) // what was put before is read from its file now
	err = s.Commit(1, []Life{{0, 1}, {1, 1}, {2, 1}})
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "1-1-1.image")
	require.Equal(t, []Holding{{0, 1, 1}, {2, 1, 1}}, s.Holdings())
	_, err = fs.Stat("w/store/images/1-1-1.image")
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// TestStoreImageWritesFail: each write to an image file fails once; every failure is an error, after which the same call
// does its work.
func TestStoreImageWritesFail(t *testing.T) {
	var left atomic.Int64
	inj := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !strings.Contains(op.Path, "images") || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		if left.Add(-1) == 0 {
			return errorfs.ErrInjected
		}
		return nil
	})
	s := openMem(t, errorfs.Wrap(vfs.NewMem(), inj))
	failures := 0
	insist := func(f func() error) {
		for n := int64(1); ; n++ {
			left.Store(n)
			err := f()
			left.Store(0)
			if err == nil {
				return
			}
			require.ErrorIs(t, err, errorfs.ErrInjected)
			failures++
		}
	}
	for e := determinant.Epoch(1); e < 6; e++ {
		insist(func() error {
			return s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1}, false, fmt.Sprintf("k%d=%d", e, e)))
		})
		insist(func() error { return s.Commit(e, []Life{{1, 1}}) })
	}
	insist(func() error { return s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 9, Base: 5}, false)) })
	insist(func() error { return s.DropAbove(5) })
	require.Equal(t, "@5/1 k1=1 k2=2 k3=3 k4=4 k5=5", restored(t, s, 1, 5, 1))
	require.Greater(t, failures, 20)
	require.NoError(t, s.Close())
}

package checkpoint

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// counting counts the calls that make files and remove them.
type counting struct{ created, reused, removed atomic.Int64 }

func (c *counting) String() string { return "count" }

func (c *counting) MaybeError(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpCreate:
		c.created.Add(1)
	case errorfs.OpReuseForWrite:
		c.reused.Add(1)
	case errorfs.OpRemove:
		c.removed.Add(1)
	}
	return nil
}

// A job that goes on makes no files and removes none: those of images that were merged are written anew. What is read is what was written last,
// shorter than what was there before or not, also by whoever opens the store again.
func TestStoreWritesSparesAnew(t *testing.T) {
	fs, c := vfs.NewMem(), new(counting)
	s := openCounting(t, fs, c)
	const tasks = 3
	value := func(e determinant.Epoch) string { return fmt.Sprint(e, strings.Repeat("v", 1000+int(e*7)%100)) }
	round := func(e determinant.Epoch) {
		var lives []Life
		for task := range determinant.TaskID(tasks) {
			require.NoError(t, s.Put(image(t, Meta{Task: task, Incarnation: 1, Epoch: e, Base: e - 1}, false, "a="+value(e))))
			lives = append(lives, Life{task, 1})
		}
		require.NoError(t, s.Commit(e, lives))
	}
	e := determinant.Epoch(1)
	for ; e < 20; e++ {
		round(e)
	}
	created, removed, reused := c.created.Load(), c.removed.Load(), c.reused.Load()
	for ; e < 120; e++ {
		round(e)
		if e%25 == 0 {
			require.NoError(t, s.Close())
			s = openCounting(t, fs, c)
		}
		for task := range determinant.TaskID(tasks) {
			require.Equal(t, fmt.Sprintf("@%d/1 a=%s", e, value(e)), restored(t, s, task, e, 1))
		}
	}
	const opened = 4 // each time, the lock and its note
	require.LessOrEqual(t, c.created.Load()-created, int64(2*opened))
	require.LessOrEqual(t, c.removed.Load()-removed, int64(2*opened))
	require.Greater(t, c.reused.Load()-reused, int64(100*tasks))
	require.NoError(t, s.Close())
}

func openCounting(t *testing.T, fs vfs.FS, c *counting) *Store {
	s, err := OpenStore("w/store", StoreOptions{FS: errorfs.Wrap(fs, c), Identity: "job", MergeBytes: 2000})
	require.NoError(t, err)
	return s
}

// The file of a part that somebody reads is not written anew before that one is done, whatever is committed meanwhile.
func TestSparesAreNotRead(t *testing.T) {
	fs, c := vfs.NewMem(), new(counting)
	s := openCounting(t, fs, c)
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 1}, "a="+strings.Repeat("1", 3000))
	files, err := s.openHeld(1, 1, math.MaxInt)
	require.NoError(t, err)
	again := func(e determinant.Epoch) {
		require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: e}, true, "a="+strings.Repeat(fmt.Sprint(e%10), 3000))))
		require.NoError(t, s.Commit(e, []Life{{1, 1}}))
	}
	for e := determinant.Epoch(2); e < 10; e++ {
		again(e)
	}
	require.Positive(t, c.reused.Load(), "of others")
	require.Len(t, s.mu.garbage, 2, "the one that is read and the one that was replaced last")
	m, err := newMerging(files, new(pace))
	require.NoError(t, err)
	_, key, got, _, ok, err := m.next()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "a "+strings.Repeat("1", 3000), string(key)+" "+string(got))
	require.NoError(t, m.close())
	require.Empty(t, s.mu.reading)
	again(10)
	again(11)
	again(12)
	require.Len(t, s.mu.garbage, 2, "now it was taken")
	require.NoError(t, s.Close())
}

// A big file is not kept, nor written anew for little.
func TestSparesFit(t *testing.T) {
	fs, c := vfs.NewMem(), new(counting)
	s := openCounting(t, fs, c)
	replace := func(task determinant.TaskID, e determinant.Epoch, bytes int) {
		require.NoError(t, s.Put(image(t, Meta{Task: task, Incarnation: 1, Epoch: e}, true, "a="+strings.Repeat("v", bytes))))
		require.NoError(t, s.Commit(e, []Life{{task, 1}}))
	}
	replace(1, 1, smallFile+1)
	replace(1, 2, smallFile+1)
	require.Len(t, s.mu.garbage, 1)
	replace(2, 3, 10)
	require.Zero(t, c.reused.Load(), "it is too big")
	replace(2, 4, smallFile)
	require.EqualValues(t, 1, c.reused.Load())
	replace(1, 5, largestSpare+1)
	replace(1, 6, largestSpare+1)
	require.NoError(t, s.Commit(7, nil))
	for _, g := range s.mu.garbage {
		require.LessOrEqual(t, g.room, uint64(largestSpare))
	}
	require.Less(t, s.DiskBytes(), uint64(2*largestSpare), "they were removed")
	require.NoError(t, s.Close())
}

// All spares together are bounded, in files and in bytes: the newest are kept.
func TestSparesAreBounded(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	for e := range determinant.Epoch(100) {
		s.discardLocked(true, part{task: 1, from: e, epoch: e + 1, room: largestSpare})
	}
	require.NoError(t, s.sweepSome(1000))
	require.Len(t, s.mu.garbage, spareBytes/largestSpare)
	require.EqualValues(t, spareBytes, s.DiskBytes())
	for e := range determinant.Epoch(100) {
		s.discardLocked(true, part{task: 2, from: e, epoch: e + 1, room: 10})
	}
	require.NoError(t, s.sweepSome(1000))
	require.Len(t, s.mu.garbage, spareFiles)
	require.EqualValues(t, 10*spareFiles, s.DiskBytes())
	require.NoError(t, s.Close())
}

// A file that cannot be written anew is made.
func TestSpareFails(t *testing.T) {
	fs := vfs.NewMem()
	s, err := OpenStore("w/store", StoreOptions{FS: errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpReuseForWrite {
			return errorfs.ErrInjected
		}
		return nil
	})), Identity: "job"})
	require.NoError(t, err)
	for e := determinant.Epoch(1); e < 9; e++ {
		require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: e}, true, fmt.Sprintf("a=%d", e))))
		require.NoError(t, s.Commit(e, []Life{{1, 1}}))
		require.Equal(t, fmt.Sprintf("@%d/1 a=%d", e, e), restored(t, s, 1, e, 1))
	}
	require.Less(t, len(files(t, fs)), 4)
	require.NoError(t, s.Close())
}

// Who finds no room gets that of the spares, the next time.
func TestSparesAreGivenBack(t *testing.T) {
	fs := vfs.NewMem()
	var full atomic.Bool
	s, err := OpenStore("w/store", StoreOptions{FS: errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite) {
			return errorfs.ErrInjected
		}
		return nil
	})), Identity: "job"})
	require.NoError(t, err)
	replace := func(task determinant.TaskID, e determinant.Epoch, bytes int) error {
		if err := s.Put(image(t, Meta{Task: task, Incarnation: 1, Epoch: e}, true, "a="+strings.Repeat("v", bytes))); err != nil {
			return err
		}
		return s.Commit(e, []Life{{task, 1}})
	}
	for task := range determinant.TaskID(4) {
		require.NoError(t, replace(task, 1, smallFile+1))
		require.NoError(t, replace(task, 2, smallFile+1))
	}
	require.Len(t, s.mu.garbage, 1, "each takes that of the one before")
	full.Store(true)
	require.ErrorIs(t, replace(9, 3, 10), errorfs.ErrInjected)
	require.Empty(t, s.mu.garbage)
	require.Len(t, files(t, fs), 4, "no temporary file is left")
	full.Store(false)
	require.NoError(t, replace(9, 3, 10))
	require.NoError(t, s.Close())
}

// A file that holds another image than its name says is damage, for a restore as for a merge, however whole that image is.
func TestPartOfAnother(t *testing.T) {
	fs := vfs.NewMem()
	s := openMerging(t, fs, 1)
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 1}, "a=1")
	putCommit(t, s, Meta{Task: 2, Incarnation: 1, Epoch: 2}, "a=2")
	require.NoError(t, fs.Rename("w/store/images/2-0-2-1-0.part", "w/store/images/1-0-1-1-0.part"))
	err := s.Restore(1, 1, &Meta{}, func(string, []byte, []byte) error { return nil })
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "1-0-1-1-0.part: checkpoint: corrupt: holds task 2 epoch 2 incarnation 1")
	require.ErrorIs(t, s.MetaAt(1, 1, 1, &Meta{}), ErrCorrupt)
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 3, Base: 1}, false, "a=3")))
	require.ErrorIs(t, s.Commit(3, []Life{{1, 1}}), ErrCorrupt)
	require.NoError(t, s.Close())
}

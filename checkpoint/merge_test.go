package checkpoint

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

// put puts and commits the image of one task.
func putCommit(t require.TestingT, s *Store, m Meta, entries ...string) {
	require.NoError(t, s.Put(image(t, m, false, entries...)))
	require.NoError(t, s.Commit(m.Epoch, []Life{{m.Task, m.Incarnation}}))
}

// files lists what is in the store's directory of images.
func files(t require.TestingT, fs vfs.FS) []string {
	names, err := fs.List("w/store/images")
	require.NoError(t, err)
	slices.Sort(names)
	return names
}

func openMerging(t require.TestingT, fs vfs.FS, mergeBytes int) *Store {
	s, err := OpenStore("w/store", StoreOptions{FS: fs, Identity: "job", MergeBytes: mergeBytes, SpareFiles: -1})
	require.NoError(t, err)
	return s
}

// A state and as much on top of it are written as one, without what was deleted; what they were made of is removed, and the directory
// says the same to whoever opens it.
func TestStoreMerges(t *testing.T) {
	fs := vfs.NewMem()
	s := openMerging(t, fs, 1)
	v := strings.Repeat("v", 1000)
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 1}, "a="+v, "b=1", "c=1")
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 2, Base: 1}, "b=2", "c")
	require.Equal(t, []string{"1-0-1-1-0.part", "1-1-2-1-0.part"}, files(t, fs), "little came")
	putCommit(t, s, Meta{Task: 1, Incarnation: 2, Epoch: 4, Base: 2, Records: 9}, "a", "d="+v)
	require.Equal(t, []string{"1-0-4-2-0.part"}, files(t, fs))
	for range 2 {
		require.Equal(t, "@4/2 b=2 d="+v, restored(t, s, 1, 4, 2))
		whole, err := s.Export(1)
		require.NoError(t, err)
		require.NotContains(t, dump(t, whole), "deleted")
		m, full, err := Verify(whole)
		require.NoError(t, err)
		require.True(t, full)
		require.Equal(t, Meta{Task: 1, Incarnation: 2, Epoch: 4, Base: 2, Records: 9}, m)
		info, err := fs.Stat("w/store/images/1-0-4-2-0.part")
		require.NoError(t, err)
		require.EqualValues(t, info.Size(), s.DiskBytes())
		require.NoError(t, s.Close())
		s = openMerging(t, fs, 1)
	}
	require.NoError(t, s.Close())
}

// Many small parts are merged with each other, though they are little beside the state; deletions stay in what they become, since they hide
// what is below.
func TestStoreMergesSmallParts(t *testing.T) {
	fs := vfs.NewMem()
	s := openMerging(t, fs, 1<<30)
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 1}, "a="+strings.Repeat("v", 100_000), "b=1")
	var want []string
	most := 0
	for e := determinant.Epoch(2); e < 5*maxParts; e++ {
		putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1}, "b", fmt.Sprintf("c%04d=%d", e, e))
		want = append(want, fmt.Sprintf("c%04d=%d", e, e))
		most = max(most, len(files(t, fs)))
	}
	require.Less(t, most, 2*maxParts)
	require.Contains(t, files(t, fs), "1-0-1-1-0.part", "the big one was left alone")
	require.Equal(t, fmt.Sprintf("@%d/1 a=%s %s", 5*maxParts-1, strings.Repeat("v", 100_000), strings.Join(want, " ")), restored(t, s, 1, 5*maxParts-1, 1))
	require.NoError(t, s.Close())
}

// A merge of much takes place in portions of what is committed, and the state is whole all the while: for who reads it, who replaces it, and
// after a crash. In the end the disk has not much more than the state.
func TestStoreMergesInPortions(t *testing.T) {
	for name, during := range map[string]func(t *testing.T, s *Store) bool{
		"nothing": func(*testing.T, *Store) bool { return true },
		"replaced": func(t *testing.T, s *Store) bool {
			require.NoError(t, s.Import(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 999}, true, "a=1")))
			return false
		},
		"dropped": func(t *testing.T, s *Store) bool { require.NoError(t, s.Drop(1)); return false },
		"closed":  func(*testing.T, *Store) bool { return false },
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			s := openMerging(t, fs, 1)
			rng := rand.New(rand.NewPCG(1, 1))
			state := map[string]string{}
			change := func(e determinant.Epoch, from, to int) {
				var entries []string
				for i := from; i < to; i++ {
					v := fmt.Sprint(e, strings.Repeat(string(rune('a'+rng.IntN(26))), 10_000))
					entries, state[fmt.Sprintf("k%04d", i)] = append(entries, fmt.Sprintf("k%04d=%s", i, v)), v
				}
				putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1}, entries...)
			}
			const keys, step = 800, 40
			change(1, 0, keys)
			e, begun := determinant.Epoch(1), 0
			for ; e < 1+4*keys/step; e++ {
				change(e+1, int(e-1)*step%keys, int(e-1)*step%keys+step)
				if s.merge == nil {
					continue
				}
				begun++
				require.Len(t, s.merge.parts, keys/step+1)
				var words []string
				for _, k := range slices.Sorted(maps.Keys(state)) {
					words = append(words, k+"="+state[k])
				}
				require.Equal(t, fmt.Sprintf("@%d/1 %s", e+1, strings.Join(words, " ")), restored(t, s, 1, e+1, 1))
				require.Less(t, s.DiskBytes(), uint64(7*keys*10_000/2))
				if begun == 2 && !during(t, s) {
					break
				}
			}
			require.Greater(t, begun, 1)
			if name == "replaced" || name == "dropped" {
				require.Nil(t, s.merge)
			}
			require.NoError(t, s.Close())
			for _, name := range files(t, fs) {
				require.True(t, strings.HasSuffix(name, partSuffix), name)
			}
		})
	}
}

// A merge that fails is begun again and does no harm; only if it goes on failing does a commit say so, which is done nevertheless.
func TestStoreMergeFails(t *testing.T) {
	var failing atomic.Bool
	mem := vfs.NewMem()
	s := openMerging(t, errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && op.Kind == errorfs.OpOpen { // a merge opens the parts
			return errorfs.ErrInjected
		}
		return nil
	})), 1)
	failing.Store(true)
	var err error
	e := determinant.Epoch(0)
	for err == nil {
		e++
		require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1}, false, fmt.Sprintf("k%d=1", e))))
		err = s.Commit(e, []Life{{1, 1}})
		require.Equal(t, e, s.Held(1))
	}
	require.ErrorIs(t, err, errorfs.ErrInjected)
	require.EqualValues(t, maxFailedMerges+1, e)
	failing.Store(false)
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: e + 1, Base: e})
	require.Zero(t, s.failedMerges)
	require.Contains(t, files(t, mem), fmt.Sprintf("1-0-%d-1-0.part", e+1))
	for range e { // what is not needed goes bit by bit
		require.NoError(t, s.Commit(e+1, nil))
	}
	require.Equal(t, []string{fmt.Sprintf("1-0-%d-1-0.part", e+1)}, files(t, mem))
	require.NoError(t, s.Close())
}

// Damage to what is committed is an error that names the file, for a merge as for a restore.
func TestStoreDamagedPart(t *testing.T) {
	fs := vfs.NewMem()
	s := openMerging(t, fs, 1)
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 1}, "a=1")
	data, err := fs.UnsafeGetFileDataBuffer("w/store/images/1-0-1-1-0.part")
	require.NoError(t, err)
	data[len(data)-20] ^= 1
	err = s.Restore(1, 1, &Meta{}, func(string, []byte, []byte) error { return nil })
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "1-0-1-1-0.part")
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 2, Base: 1}, false, "a=2")))
	require.ErrorIs(t, s.Commit(2, []Life{{1, 1}}), ErrCorrupt)
	require.Equal(t, determinant.Epoch(2), s.Held(1))
	require.NoError(t, s.Close())
}

// What is merged is what a map would have after the same changes, whatever the images are and however big their sections.
func TestMergingIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]string{}
		var open []partFile
		fs := vfs.NewMem()
		for n := range rapid.IntRange(1, 9).Draw(t, "images") {
			tables := map[string][]item{}
			for range rapid.IntRange(0, 12).Draw(t, "entries") {
				name, key := rapid.SampledFrom([]string{"a", "b\x00", "b"}).Draw(t, "table"), fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "key"))
				value := strings.Repeat(fmt.Sprint(n), rapid.SampledFrom([]int{0, 1, sectionFull / 3, 2 * sectionFull}).Draw(t, "size"))
				deleted := rapid.Bool().Draw(t, "deleted")
				tables[name] = append(tables[name], item{key, value, deleted})
				if want[name+"/"+key] = value; deleted {
					delete(want, name+"/"+key)
				}
			}
			var all []table
			for name, items := range tables {
				all = append(all, table{name, items})
			}
			b, err := Encode(Meta{Task: 1, Epoch: determinant.Epoch(n + 1)}, false, frozen(all...))
			require.NoError(t, err)
			f, err := fs.Create(fmt.Sprint(n), vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = f.Write(bytes.Clone(b))
			require.NoError(t, errors.Join(err, f.Close()))
			in, err := fs.Open(fmt.Sprint(n))
			require.NoError(t, err)
			open = append(open, partFile{part{task: 1, from: determinant.Epoch(n), epoch: determinant.Epoch(n + 1), bytes: uint64(len(b))}, in})
		}
		m, err := newMerging(open, new(pace))
		require.NoError(t, err)
		require.EqualValues(t, len(open), m.meta.Epoch)
		got, lastTable, last := map[string]string{}, "", ""
		for {
			name, key, value, deleted, ok, err := m.next()
			require.NoError(t, err)
			if !ok {
				break
			}
			require.Negative(t, cmp.Or(strings.Compare(lastTable, name), strings.Compare(last, string(key))))
			lastTable, last = name, string(key)
			if !deleted {
				got[name+"/"+string(key)] = string(value)
			}
		}
		require.Equal(t, want, got)
		require.NoError(t, m.close())
	})
}

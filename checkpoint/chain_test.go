package checkpoint

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

func TestPartNames(t *testing.T) {
	p := part{task: 1<<32 - 1, from: 7, epoch: 1 << 63, inc: 3, since: 5}
	back, ok := parsePartName(p.name())
	require.True(t, ok)
	require.Equal(t, p, back)
	for _, name := range []string{"1-0-1.part", "1-0-1-1.part", "1-1-1-1-0.part", "1-0-1-1-1.part", "01-0-1-1-0.part", "4294967296-0-1-1-0.part", "1-0-1-1-0", "1-0-1-1-0.image", "-1-0-1-1-0.part", "1-0-1-1-x.part"} {
		_, ok := parsePartName(name)
		require.False(t, ok, name)
	}
}

// The chain that is found is the one that a crash may have left: widest first, and what does not fit is for the broom.
func TestChainOf(t *testing.T) {
	p := func(from, epoch determinant.Epoch) part { return part{from: from, epoch: epoch} }
	q := func(from, epoch, since determinant.Epoch) part { return part{from: from, epoch: epoch, since: since} }
	for _, c := range []struct{ there, chain, rest []part }{
		{nil, nil, nil},
		{[]part{p(0, 1), p(1, 2)}, []part{p(0, 1), p(1, 2)}, nil},
		{[]part{p(1, 2), p(2, 3)}, nil, []part{p(1, 2), p(2, 3)}},                                                          // dropped
		{[]part{p(0, 1), p(0, 3), p(1, 2), p(2, 3), p(3, 4)}, []part{p(0, 3), p(3, 4)}, []part{p(0, 1), p(1, 2), p(2, 3)}}, // merged
		{[]part{p(0, 1), p(1, 2), p(1, 3), p(2, 3)}, []part{p(0, 1), p(1, 3)}, []part{p(1, 2), p(2, 3)}},                   // the newer ones merged
		{[]part{p(0, 5), p(0, 9), p(5, 6)}, []part{p(0, 9)}, []part{p(0, 5), p(5, 6)}},                                     // replaced
		{[]part{p(0, 4), p(0, 9), p(4, 5), p(5, 10)}, []part{p(0, 4), p(4, 5), p(5, 10)}, []part{p(0, 9)}},                 // one that leads nowhere
		{[]part{p(0, 5), p(5, 6), q(6, 7, 5)}, []part{p(5, 6), q(6, 7, 5)}, []part{p(0, 5)}},                               // written again
		{[]part{p(5, 6), q(6, 7, 5)}, []part{p(5, 6), q(6, 7, 5)}, nil},                                                    // and dropped
		{[]part{p(0, 5), p(6, 7), q(7, 8, 6)}, []part{p(6, 7), q(7, 8, 6)}, []part{p(0, 5)}},                               // in any order
		{[]part{p(4, 6), q(6, 7, 5), p(7, 8)}, []part{p(4, 6), q(6, 7, 5), p(7, 8)}, nil},                                  // between two images
		{[]part{p(6, 7), q(7, 8, 5)}, nil, []part{p(6, 7), q(7, 8, 5)}},                                                    // its first was dropped
		{[]part{p(5, 6), q(6, 7, 5), p(0, 7), p(7, 8)}, []part{p(0, 7), p(7, 8)}, []part{p(5, 6), q(6, 7, 5)}},             // merged to the whole
		{[]part{q(5, 9, 4), p(6, 7), p(7, 8), p(8, 9), q(9, 10, 6)}, []part{q(5, 9, 4), q(9, 10, 6)}, []part{p(6, 7), p(7, 8), p(8, 9)}},
		{[]part{q(1, 2, 0), q(2, 3, 1), q(2, 3, 0)}, []part{q(1, 2, 0), q(2, 3, 1)}, []part{q(2, 3, 0)}},
	} {
		chain, rest := chainOf(c.there)
		require.Equal(t, c.chain, chain)
		require.Equal(t, c.rest, rest)
	}
}

// Whatever a chain has been through, and whichever of the parts that it had are still there, it is what is found, and all else may be written anew.
func TestChainOfWithAnyGarbage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var chain, garbage []part
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			held := determinant.Epoch(0)
			if len(chain) > 0 {
				held = chain[len(chain)-1].epoch
			}
			epoch := held + determinant.Epoch(rapid.IntRange(1, 2).Draw(t, "ahead"))
			switch n := rapid.IntRange(0, 9).Draw(t, "step"); {
			case n == 0: // the whole
				garbage, chain = append(garbage, chain...), []part{{epoch: epoch}}
			case n < 3 && len(chain) > 1: // merge the newest
				i := rapid.IntRange(0, len(chain)-2).Draw(t, "merge")
				into := part{epoch: held}
				if i > 0 {
					into.from, into.since = chain[i].from, sinceOf(chain[i:])
				}
				garbage = append(garbage, chain[i:]...)
				chain = append(slices.Clone(chain[:i]), into)
			default:
				p := part{from: held, epoch: epoch}
				if held > 0 {
					p.since = determinant.Epoch(rapid.IntRange(max(0, int(held)-8), int(held)-1).Draw(t, "since"))
				}
				var old []part
				old, chain = trim(append(slices.Clone(chain), p))
				garbage = append(garbage, old...)
			}
		}
		last := garbage[max(0, len(garbage)-7):]
		for subset := range 1 << len(last) {
			there := slices.Clone(chain)
			for i, p := range last {
				if subset>>i&1 != 0 {
					there = append(there, p)
				}
			}
			for _, p := range garbage[:len(garbage)-len(last)] {
				if rapid.Bool().Draw(t, "there") {
					there = append(there, p)
				}
			}
			found, rest := chainOf(rapid.Permutation(there).Draw(t, "order"))
			require.Equal(t, chain, found)
			for _, p := range rest {
				require.Equal(t, len(found) > 0, mayBeWritten(p, found), "%v", p)
			}
		}
	})
}

// Parts go when an image says that what they have was written again, without a merge; who opens the store finds the rest.
func TestStoreDropsWhatWasWrittenAgain(t *testing.T) {
	fs := vfs.NewMem()
	s := openMerging(t, fs, 1<<30)
	v := strings.Repeat("v", 1000)
	m := func(e, since determinant.Epoch) Meta {
		return Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1, Since: since, State: 5000}
	}
	putCommit(t, s, m(1, 0), "a="+v, "b="+v, "c="+v)
	whole, _ := s.Sizes(1)
	require.Greater(t, whole, uint64(3000))
	putCommit(t, s, m(2, 0), "a="+v)
	putCommit(t, s, m(3, 0), "b="+v, "c")
	again, _ := s.Sizes(1)
	require.EqualValues(t, 5000, again)
	putCommit(t, s, m(4, 1), "d="+v)
	require.Equal(t, []string{"1-1-2-1-0.part", "1-2-3-1-0.part", "1-3-4-1-1.part"}, files(t, fs))
	whole, newest := s.Sizes(1)
	require.EqualValues(t, 5000, whole)
	require.Less(t, newest, whole)
	for range 2 {
		require.Equal(t, fmt.Sprintf("@4/1 a=%s b=%s d=%s", v, v, v), restored(t, s, 1, 4, 1))
		require.NoError(t, s.Close())
		s = openMerging(t, fs, 1<<30)
		got, newest := s.Sizes(1)
		require.Equal(t, s.DiskBytes(), got, "no more than that, until an image says it")
		require.Zero(t, newest)
	}
	// One that says less changes nothing.
	putCommit(t, s, m(5, 0), "e=1")
	require.EqualValues(t, 1, s.mu.chains[1][0].from)
	whole, err := uint64(0), s.Drop(1)
	require.NoError(t, err)
	got, _ := s.Sizes(1)
	require.Equal(t, whole, got)
	require.NoError(t, s.Close())
}

// An image that would have all since its base, or since itself, is damaged, unless it is full: then it says nothing.
func TestStoreRefusesSince(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 4}, "a=1")
	for _, since := range []determinant.Epoch{4, 5, 9} {
		require.ErrorIs(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 5, Base: 4, Since: since}, false)), ErrCorrupt)
	}
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 5, Base: 4, Since: 9}, true, "b=1")))
	require.NoError(t, s.Commit(5, []Life{{1, 1}}))
	require.Equal(t, "@5/1 b=1", restored(t, s, 1, 5, 1))
	require.Zero(t, s.mu.chains[1][0].since)
	require.NoError(t, s.Close())
}

// The state of a task that cleans is merged only when it takes much more than it is; then it begins at checkpoint 0 again, without what was deleted.
func TestStoreMergesWhatIsNotCleaned(t *testing.T) {
	fs := vfs.NewMem()
	s := openMerging(t, fs, 1)
	v := strings.Repeat("v", 1000)
	m := func(e, since determinant.Epoch) Meta {
		return Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1, Since: since, State: 1000}
	}
	putCommit(t, s, m(1, 0), "a="+v)
	putCommit(t, s, m(2, 0), "a="+v)
	putCommit(t, s, m(3, 0), "a="+v)
	putCommit(t, s, m(4, 1), "a="+v)
	require.Len(t, s.mu.chains[1], 3, "three times the state, and its first part was dropped")
	whole, _ := s.Sizes(1)
	require.EqualValues(t, 1000, whole)
	e := determinant.Epoch(5)
	for ; s.mu.chains[1][0].from > 0; e++ {
		require.Less(t, totalBytes(s.mu.chains[1]), cleanedMost*whole)
		putCommit(t, s, m(e, 0), "b="+v, "c")
	}
	require.EqualValues(t, 7, e)
	whole, _ = s.Sizes(1)
	require.Equal(t, []part{{task: 1, epoch: 6, inc: 1, bytes: whole, room: whole, state: 1000}}, s.mu.chains[1])
	image, err := fs.UnsafeGetFileDataBuffer("w/store/images/1-0-6-1-0.part")
	require.NoError(t, err)
	_, full, err := Verify(image)
	require.NoError(t, err)
	require.True(t, full)
	require.Equal(t, fmt.Sprintf("t/a=%s\nt/b=%s\n", v, v), dump(t, image))

	// Without cleaning, as much on top of the state is enough.
	putCommit(t, s, Meta{Task: 1, Incarnation: 2, Epoch: 7, Base: 6}, "a="+v, "b="+v, "d=1")
	require.Len(t, s.mu.chains[1], 1)
	require.NoError(t, s.Close())
}

// What is due of a chain, by what its newest part says.
func TestDue(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	s.mergeBytes = 1
	s.mu.whole[0] = 100
	for _, c := range []struct {
		newest part
		bytes  []uint64
		due    int
	}{
		{part{}, []uint64{100, 99}, 0},
		{part{}, []uint64{100, 100}, 2},
		{part{state: 1000}, []uint64{100, 300, 99}, 0},
		{part{state: 1000}, []uint64{100, 300, 100}, 3},
		{part{since: 1}, []uint64{100, 300, 99}, 0},
		{part{since: 1}, []uint64{100, 300, 100}, 3},
		{part{state: 1000}, []uint64{500, 499}, 0},
		{part{state: 1000}, []uint64{500}, 0},
		{part{}, append([]uint64{300}, slices.Repeat([]uint64{1}, maxParts-1)...), 0},
		{part{}, append([]uint64{300}, slices.Repeat([]uint64{1}, maxParts)...), maxParts},
		{part{state: 1000}, append([]uint64{300}, slices.Repeat([]uint64{0}, maxCleaned-1)...), 0},
		{part{state: 1000}, append([]uint64{300}, slices.Repeat([]uint64{0}, maxCleaned)...), maxCleaned/8 + 1},
	} {
		var chain []part
		for i, n := range c.bytes {
			chain = append(chain, part{from: determinant.Epoch(i), epoch: determinant.Epoch(i + 1), bytes: n})
		}
		last := &chain[len(chain)-1]
		last.state, last.since = c.newest.state, c.newest.since
		require.Equal(t, c.due, len(s.dueLocked(chain)), "%d parts, %+v", len(chain), c.newest)
	}
	require.NoError(t, s.Close())
}

func TestFewestBytes(t *testing.T) {
	sizes := func(parts []part) (n []uint64) {
		for _, p := range parts {
			n = append(n, p.bytes)
		}
		return n
	}
	var chain []part
	for _, n := range []uint64{5, 1, 9, 2, 1, 1, 7} {
		chain = append(chain, part{bytes: n})
	}
	require.Equal(t, []uint64{1, 1}, sizes(fewestBytes(chain, 2)))
	require.Equal(t, []uint64{2, 1, 1}, sizes(fewestBytes(chain, 3)))
	require.Equal(t, []uint64{2, 1, 1, 7}, sizes(fewestBytes(chain, 4)))
	require.Equal(t, []uint64{5, 1, 9, 2, 1, 1}, sizes(fewestBytes(chain, 6)))
	require.Len(t, fewestBytes(chain, 7), 7)
}

// A merge under way is given up when one of its parts is dropped, and goes on when only those before are; what newer parts become says what they said.
func TestStoreMergesWhatIsDropped(t *testing.T) {
	for _, since := range []determinant.Epoch{1, 2, 3} {
		fs := vfs.NewMem()
		s := openMerging(t, fs, 1<<30)
		put := func(e, since determinant.Epoch) {
			big := "z"
			if e == 2 { // it is too big to be merged
				big += "=" + strings.Repeat("v", 5000)
			}
			putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1, Since: since, State: 1000},
				"a="+strings.Repeat("v", 1000), fmt.Sprintf("k%d=1", e), fmt.Sprintf("k%d", e-3), big)
		}
		for e := range determinant.Epoch(4) {
			put(e+1, 0)
		}
		put(5, 1)
		require.EqualValues(t, 1, s.mu.chains[1][0].from)
		s.fold.Lock()
		s.maxParts, s.maxCleaned = 2, 2
		found, err := s.beginMerge()
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, part{task: 1, from: 2, epoch: 5, inc: 1, since: 1, state: 1000}, s.merge.into)
		s.maxParts, s.maxCleaned = maxParts, maxCleaned
		s.fold.Unlock()
		merging := s.merge
		require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 6, Base: 5, Since: since, State: 1000}, false, "k3=1", "k4=1")))
		require.Equal(t, "@6/1 a="+strings.Repeat("v", 1000)+" k3=1 k4=1 k5=1", restored(t, s, 1, 6, 1)) // which commits
		if since < 3 {
			require.Same(t, merging, s.merge)
		} else {
			require.Nil(t, s.merge)
		}
		require.NoError(t, s.Commit(6, nil)) // which goes on
		var from []determinant.Epoch
		for _, p := range s.mu.chains[1] {
			from = append(from, p.from)
		}
		require.Equal(t, map[determinant.Epoch][]determinant.Epoch{1: {1, 2, 5}, 2: {2, 5}, 3: {3, 4, 5}}[since], from)
		require.Equal(t, since, sinceOf(s.mu.chains[1]))
		for range 2 {
			require.Equal(t, "@6/1 a="+strings.Repeat("v", 1000)+" k3=1 k4=1 k5=1", restored(t, s, 1, 6, 1))
			require.NoError(t, s.Close())
			s = openMerging(t, fs, 1<<30)
		}
		require.NoError(t, s.Close())
	}
}

// An image that says a checkpoint too late loses what was last written just before: nobody else would notice.
func TestStoreBelievesSince(t *testing.T) {
	for since, want := range map[determinant.Epoch]string{1: "@4/1 a=1 b=1 c=1", 2: "@4/1 b=1 c=1"} {
		s := openMem(t, vfs.NewMem())
		putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 1}, "a=0", "b=0")
		putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 2, Base: 1}, "a=1")
		putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 3, Base: 2}, "b=1")
		putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 4, Base: 3, Since: since}, "c=1")
		require.Equal(t, want, restored(t, s, 1, 4, 1))
		require.NoError(t, s.Close())
	}
}

// Images that a commit has named, but could not make durable, are no parts when something else is committed.
func TestStoreTakesNamesBack(t *testing.T) {
	fs := &fickleFS{FS: vfs.NewMem()}
	s := openMerging(t, fs, 1<<30)
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 1}, "a=1")
	require.NoError(t, s.Put(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 5, Base: 1}, false, "a=5")))
	fs.failing.Store(1)
	require.Error(t, s.Commit(5, []Life{{1, 1}}))
	require.Contains(t, files(t, fs), "1-1-5-1-0.part")
	fs.failing.Store(0)
	require.NoError(t, s.Import(image(t, Meta{Task: 1, Incarnation: 1, Epoch: 3}, true, "a=3")))
	require.Contains(t, files(t, fs), "1-5-1.image")
	require.NotContains(t, files(t, fs), "1-1-5-1-0.part")
	require.NoError(t, s.Commit(5, []Life{{1, 1}}))
	require.Equal(t, "@5/1 a=5", restored(t, s, 1, 5, 1))
	require.Contains(t, files(t, fs), "1-3-5-1-0.part")
	require.NoError(t, s.Close())
}

// What a merge has left that failed is gone before another gets its name: together with it, parts that this one replaces would look like a chain.
func TestStoreRemovesAFailedMergeFirst(t *testing.T) {
	fs := &fickleFS{FS: vfs.NewMem()}
	s := openMerging(t, fs, 1<<30)
	putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: 1}, "a="+strings.Repeat("v", 5000))
	for e := determinant.Epoch(2); e < 5; e++ {
		putCommit(t, s, Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1}, fmt.Sprintf("k%d=1", e))
	}
	s.maxParts, s.maxCleaned = 2, 2
	fs.failing.Store(1)
	s.fold.Lock()
	require.NoError(t, s.mergeSome(0))
	fs.failing.Store(0)
	require.Equal(t, 1, s.failedMerges)
	require.Contains(t, files(t, fs), "1-1-4-1-0.part")
	found, err := s.beginMerge()
	require.NoError(t, err)
	require.True(t, found)
	require.NotContains(t, files(t, fs), "1-1-4-1-0.part")
	require.NoError(t, s.mergeSome(0))
	s.fold.Unlock()
	require.Contains(t, files(t, fs), "1-1-4-1-0.part")
	require.NoError(t, s.Close())
}

// A store that is opened removes parts that have one end within one of the chain and one outside, and keeps what may be written anew.
func TestStoreOpensWithAnyGarbage(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	write := func(from, epoch, since determinant.Epoch) {
		p := part{task: 1, from: from, epoch: epoch, inc: 1, since: since}
		f, err := fs.Create("w/store/images/"+p.name(), vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = f.Write(image(t, Meta{Task: 1, Incarnation: 1, Epoch: epoch}, from == 0, fmt.Sprintf("k%d=1", epoch)))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	require.NoError(t, s.Close())
	write(0, 5, 0)  // dropped
	write(4, 6, 0)  // of no use
	write(5, 9, 0)  // the chain
	write(6, 7, 0)  // merged
	write(8, 10, 0) // leads nowhere
	write(9, 11, 6)
	s = openMem(t, fs)
	require.Equal(t, "@11/1 k11=1 k9=1", restored(t, s, 1, 11, 1))
	require.Equal(t, []string{"1-0-5-1-0.part", "1-4-6-1-0.part", "1-5-9-1-0.part", "1-6-7-1-0.part", "1-9-11-1-6.part"}, files(t, fs))
	require.NoError(t, s.Close())
}

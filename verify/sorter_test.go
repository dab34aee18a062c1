package verify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type pair struct{ key, value string }

// sorted runs pairs through a sorter and returns what comes out.
func sorted(t require.TestingT, s *Sorter, in []pair) []pair {
	for _, p := range in {
		if err := s.Add([]byte(p.key), []byte(p.value)); err != nil {
			require.NoError(t, err)
		}
	}
	var out []pair
	require.NoError(t, s.Merge(background, func(r Record) error {
		if first := len(out) == 0 || out[len(out)-1].key != string(r.Key); first != r.First {
			return fmt.Errorf("record %d: First is %v", len(out), r.First)
		}
		out = append(out, pair{string(r.Key), string(r.Value)})
		return nil
	}))
	return out
}

// reference brings equal keys together, in the sorter's order of keys.
func reference(in []pair, byValue bool) []pair {
	out := slices.Clone(in)
	slices.SortStableFunc(out, func(a, b pair) int {
		if x, y := rank([]byte(a.key)), rank([]byte(b.key)); x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return compareRecords([]byte(a.key), []byte(b.key), []byte(a.value), []byte(b.value), byValue)
	})
	return out
}

// TestSorterAgainstReference sorts random records with every size of budget, from one block to several passes over runs.
func TestSorterAgainstReference(t *testing.T) {
	for _, c := range []struct {
		records, keys, longest int
		memory                 int64
	}{
		{0, 1, 1, MinMemory}, {1, 1, 1, MinMemory}, {1000, 10, 20, MinMemory}, {20_000, 1, 3, MinMemory / 4},
		{100_000, 3000, 40, MinMemory / 4}, {100_000, 1 << 30, 10, MinMemory / 4}, {300, 100, MaxRecord / 2, MinMemory / 4},
		{30_000, 5000, 300, MinMemory / 4}, {60_000, 60_000, 20, 8 << 20},
	} {
		for _, byValue := range []bool{false, true} {
			name := fmt.Sprintf("%d records, %d keys, up to %d bytes, memory %d, by value %v", c.records, c.keys, c.longest, c.memory, byValue)
			rnd := rand.New(rand.NewPCG(1, uint64(c.records)))
			in := make([]pair, c.records)
			for i := range in {
				in[i].key = fmt.Sprint(rnd.IntN(c.keys))
				in[i].value = string(bytes.Repeat([]byte{byte(rnd.IntN(256))}, rnd.IntN(c.longest)))
			}
			s, err := NewSorter(SorterOptions{Memory: c.memory, TempDir: t.TempDir(), ByValue: byValue})
			require.NoError(t, err, name)
			require.True(t, slices.Equal(reference(in, byValue), sorted(t, s, in)), name)
			require.LessOrEqual(t, s.Peak(), c.memory, name)
			require.NoError(t, s.Close())
		}
	}
}

// TestSorterStaysWithinItsBudget gives a sorter of 1 MiB a hundred times as much.
func TestSorterStaysWithinItsBudget(t *testing.T) {
	const n = 2_000_000
	dir := t.TempDir()
	s, err := NewSorter(SorterOptions{Memory: MinMemory, TempDir: dir})
	require.NoError(t, err)
	var bytesIn int64
	for i := range n {
		key := fmt.Appendf(nil, "some-longer-key-%032d", i%(n/2))
		bytesIn += int64(len(key)) + 4
		if err := s.Add(key, []byte("1234")); err != nil || s.Peak() > MinMemory {
			t.Fatalf("record %d: %d bytes held, %v", i, s.Peak(), err)
		}
	}
	got, keys := 0, 0
	require.NoError(t, s.Merge(background, func(r Record) error {
		if r.First {
			keys++
		}
		got++
		return nil
	}))
	require.Equal(t, n, got)
	require.Equal(t, n/2, keys)
	require.Equal(t, int64(n), s.Records())
	require.Greater(t, bytesIn, int64(90*MinMemory))
	require.Greater(t, s.Runs(), 100, "several merge passes")
	require.LessOrEqual(t, s.Peak(), int64(MinMemory))
	require.NoError(t, s.Close())
	requireEmpty(t, dir)
}

func requireEmpty(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestRadixSortIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 2000).Draw(t, "n")
		spread := rapid.SampledFrom([]uint64{1, 3, 300, 1 << 40, ^uint64(0)}).Draw(t, "spread")
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		entries := make([]entry, n)
		for i := range entries {
			entries[i] = entry{rnd.Uint64N(spread), uint32(i)}
		}
		want := slices.Clone(entries)
		slices.SortStableFunc(want, func(a, b entry) int {
			return cmp.Compare(a.rank, b.rank)
		})
		radixSort(entries, make([]entry, n), 56)
		if !slices.Equal(entries, want) {
			t.Fatal("not the order of a stable sort")
		}
	})
}

// TestHashCollisions sorts two keys that share a rank, which the hash alone would mix up.
func TestHashCollisions(t *testing.T) {
	b := newBlock(MinMemory)
	for _, p := range []pair{{"b", "1"}, {"a", "1"}, {"b", "2"}, {"a", "2"}} {
		require.True(t, b.add(7, []byte(p.key), []byte(p.value)))
	}
	b.sort(false)
	var got []pair
	for _, e := range b.entries {
		k, v := b.record(e)
		got = append(got, pair{string(k), string(v)})
	}
	require.Equal(t, []pair{{"a", "1"}, {"a", "2"}, {"b", "1"}, {"b", "2"}}, got)
}

func TestSorterRefuses(t *testing.T) {
	_, err := NewSorter(SorterOptions{Memory: MinMemory/4 - 1})
	require.ErrorContains(t, err, "below the least")
	s, err := NewSorter(SorterOptions{})
	require.NoError(t, err)
	require.ErrorContains(t, s.Add(make([]byte, MaxRecord), []byte("x")), "longer than")
	require.NoError(t, s.Add(make([]byte, MaxRecord-1), []byte("x")))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
}

// fill adds more records than fit in the memory of a small sorter.
func fill(s *Sorter) error {
	for i := range 50_000 {
		if err := s.Add(fmt.Appendf(nil, "key-%d", i), []byte("value")); err != nil {
			return err
		}
	}
	return nil
}

func TestSorterWithoutTempDir(t *testing.T) {
	s, err := NewSorter(SorterOptions{Memory: MinMemory / 4, TempDir: filepath.Join(t.TempDir(), "gone")})
	require.NoError(t, err)
	require.ErrorIs(t, fill(s), os.ErrNotExist)
	require.NoError(t, s.Close())
}

// TestSorterReportsWriteErrors closes the temporary file under the sorter, which fails as a full disk does.
func TestSorterReportsWriteErrors(t *testing.T) {
	s, err := NewSorter(SorterOptions{Memory: MinMemory / 4, TempDir: t.TempDir()})
	require.NoError(t, err)
	for s.spiller == nil {
		require.NoError(t, s.Add([]byte("key"), []byte("value")))
	}
	require.NoError(t, s.spiller.file.f.Close())
	err = fill(s)
	if err == nil {
		err = s.Merge(background, func(Record) error { return nil })
	}
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorContains(t, err, "temporary folder")
	require.ErrorIs(t, s.Close(), os.ErrClosed)
}

// TestSorterNoticesDamage cuts the temporary file under the sorter.
func TestSorterNoticesDamage(t *testing.T) {
	s, err := NewSorter(SorterOptions{Memory: MinMemory / 4, TempDir: t.TempDir()})
	require.NoError(t, err)
	require.NoError(t, fill(s))
	s.spiller.full <- s.filling
	s.filling = <-s.spiller.empty
	<-s.spiller.empty // the other block: all is written
	s.spiller.empty <- newBlock(s.blockSize)
	require.NoError(t, s.spiller.file.f.Truncate(s.spiller.file.end/2))
	require.ErrorContains(t, s.Merge(background, func(Record) error { return nil }), "reading the temporary file")
	require.NoError(t, s.Close())
}

func TestSorterStopsWhenTold(t *testing.T) {
	dir := t.TempDir()
	s, err := NewSorter(SorterOptions{Memory: MinMemory / 4, TempDir: dir})
	require.NoError(t, err)
	require.NoError(t, fill(s))
	ctx, cancel := context.WithCancelCause(background)
	cause := errors.New("told to")
	seen := 0
	err = s.Merge(ctx, func(Record) error {
		if seen++; seen == 10 {
			cancel(cause)
		}
		return nil
	})
	require.ErrorIs(t, err, cause)
	require.Less(t, seen, 50_000)
	require.NoError(t, s.Close())
	requireEmpty(t, dir)
	stop := errors.New("enough")
	s, err = NewSorter(SorterOptions{})
	require.NoError(t, err)
	require.NoError(t, s.Add([]byte("x"), nil))
	require.ErrorIs(t, s.Merge(background, func(Record) error { return stop }), stop)
	require.NoError(t, s.Close())
}

// TestSorterCloseWithoutMerge leaves neither a goroutine nor a file behind.
func TestSorterCloseWithoutMerge(t *testing.T) {
	dir := t.TempDir()
	s, err := NewSorter(SorterOptions{Memory: MinMemory / 4, TempDir: dir})
	require.NoError(t, err)
	require.NoError(t, fill(s))
	require.NoError(t, s.Close())
	requireEmpty(t, dir)
}

// FuzzFrame takes records apart that may be damaged.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{1, 1, 'k', 'v'})
	f.Add([]byte{0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, text []byte) {
		n, key, value := frame(text)
		require.LessOrEqual(t, n, len(text))
		require.LessOrEqual(t, len(key)+len(value), n)
	})
}

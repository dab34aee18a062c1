package checkpoint

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the files in testdata")

// item is one entry; table is a Frozen made of items.
type item struct {
	key, value string
	deleted    bool
}

type table struct {
	name  string
	items []item
}

func (t table) Table() string { return t.name }

func (t table) Entries(yield func(key, value []byte, deleted bool) error) error {
	var key, value []byte // reused, as the contract of Frozen allows
	for _, it := range t.items {
		key, value = append(key[:0], it.key...), append(value[:0], it.value...)
		if err := yield(key, value, it.deleted); err != nil {
			return err
		}
	}
	return nil
}

func frozen(tables ...table) []Frozen {
	list := make([]Frozen, len(tables))
	for i := range tables {
		list[i] = tables[i]
	}
	return list
}

// dump gives an image's entries, one a line.
func dump(t require.TestingT, image []byte) string {
	var b strings.Builder
	require.NoError(t, Entries(image, func(table string, key, value []byte, deleted bool) error {
		fmt.Fprintf(&b, "%s/%s=%s", table, key, value)
		if deleted {
			b.WriteString(" deleted")
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

func fullMeta() Meta {
	return Meta{
		Task: 7, Incarnation: 3, Epoch: 12, Base: 11, Since: 5, State: 1000, Mode: determinant.AtLeastOnce, Depth: determinant.Full,
		Log: 1 << 40, Time: 1700000000123, Watermark: math.MinInt64, Ended: true, Records: 99,
		Inputs:          []determinant.Cursor{{Next: 5, Epoch: 12, Bytes: 100, CRC: 0xdeadbeef}, {Next: 1 << 60}},
		InputWatermarks: []int64{-5, math.MaxInt64}, InputIdle: []bool{true, false}, InputEnded: []bool{false, true},
		Outputs: []determinant.Cursor{{Next: 77, Epoch: 13}},
	}
}

func TestImageRoundTrip(t *testing.T) {
	image, err := Encode(fullMeta(), false, frozen(
		table{"timers", []item{{"b", "2", false}, {"a", "1", false}, {"c", "", true}}},
		table{"empty", nil},
		table{"count", []item{{"x", "", false}, {"", "nokey", false}}},
		table{"timers", []item{{"c", "3", false}, {"a", "", true}}},
	))
	require.NoError(t, err)
	meta, full, err := Verify(image)
	require.NoError(t, err)
	require.False(t, full)
	require.Equal(t, fullMeta(), meta)
	meta, full, err = DecodeMeta(image)
	require.NoError(t, err)
	require.False(t, full)
	require.Equal(t, fullMeta(), meta)
	require.Equal(t, "count/=nokey\ncount/x=\ntimers/a= deleted\ntimers/b=2\ntimers/c=3\n", dump(t, image))
}

func TestFullImageHasNoDeletions(t *testing.T) {
	image, err := Encode(Meta{Task: 1, Epoch: 1}, true, frozen(
		table{"t", []item{{"a", "1", false}, {"b", "", true}, {"c", "3", false}}},
		table{"t", []item{{"c", "", true}}},
		table{"u", []item{{"z", "", true}}},
	))
	require.NoError(t, err)
	_, full, err := Verify(image)
	require.NoError(t, err)
	require.True(t, full)
	require.Equal(t, "t/a=1\n", dump(t, image))
}

func TestEncodeStopsAtAnError(t *testing.T) {
	broken := errors.New("broken")
	_, err := Encode(Meta{Task: 4, Epoch: 2}, false, []Frozen{failing{broken}})
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, `task 4 epoch 2 table "failing"`)
	image, err := Encode(Meta{}, false, frozen(table{"t", []item{{"a", "1", false}}}))
	require.NoError(t, err)
	require.ErrorIs(t, Entries(image, func(string, []byte, []byte, bool) error { return broken }), broken)
}

type failing struct{ err error }

func (failing) Table() string                                   { return "failing" }
func (f failing) Entries(func(_, _ []byte, _ bool) error) error { return f.err }

// TestImageDependsOnEntriesAlone: the order in which state yields its entries, and how they are split over Frozens, leave
// no trace.
func TestImageDependsOnEntriesAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(rapid.StringN(0, 4, 8), 0, 30, rapid.ID[string]).Draw(t, "keys")
		full := rapid.Bool().Draw(t, "full")
		var items []item
		for i, k := range keys {
			it := item{key: k, deleted: !full && i%5 == 0}
			if !it.deleted {
				it.value = fmt.Sprint(i)
			}
			items = append(items, it)
		}
		slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.key, b.key) })
		want, err := Encode(Meta{Task: 1, Epoch: 3, Base: 2}, full, frozen(table{"a", items}, table{"b\x00", items}))
		require.NoError(t, err)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		cut := rng.IntN(len(items) + 1)
		got, err := Encode(Meta{Task: 1, Epoch: 3, Base: 2}, full, frozen(
			table{"b\x00", items[:cut]}, table{"a", items}, table{"b\x00", items[cut:]}))
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// A big table is cut into sections, in the same places whatever the order in which its entries came, and is read back from memory and from a
// file, of which little is in memory at a time.
func TestImageOfManySections(t *testing.T) {
	var items []item
	want := ""
	for i := range 2000 {
		items = append(items, item{fmt.Sprintf("k%05d", i), strings.Repeat("v", i%97), i%13 == 0})
	}
	items = append(items, item{"l", strings.Repeat("long", sectionFull), false}, item{"m", "1", false})
	for _, it := range items {
		want += "t/" + it.key + "=" + it.value
		if it.deleted {
			want = strings.TrimSuffix(want, it.value) + " deleted"
		}
		want += "\n"
	}
	sorted, err := Encode(fullMeta(), false, frozen(table{"t", items}))
	require.NoError(t, err)
	require.Equal(t, want, dump(t, sorted))
	back := slices.Clone(items)
	slices.Reverse(back[len(back)/2:]) // the first sections are there when the disorder begins
	mixed, err := Encode(fullMeta(), false, frozen(table{"t", back}))
	require.NoError(t, err)
	require.Equal(t, sorted, mixed)

	r, err := openImageFile(iotest.OneByteReader(bytes.NewReader(sorted)), uint64(len(sorted)))
	require.NoError(t, err)
	n := 0
	for {
		key, value, deleted, ok, err := r.next()
		require.NoError(t, err)
		if !ok {
			break
		}
		if deleted {
			value = []byte(items[n].value)
		}
		require.Equal(t, items[n], item{string(key), string(value), deleted})
		n++
	}
	require.Equal(t, len(items), n)
	require.Greater(t, r.tables, uint64(2))
	require.Less(t, cap(r.s.buf), 5*sectionFull+readBytes)
	for _, size := range []int{0, 5, headerBytes, len(sorted) / 2, len(sorted) - 1} {
		r, err := openImageFile(bytes.NewReader(sorted), uint64(size))
		if err == nil {
			err = r.verify()
		}
		require.ErrorIs(t, err, ErrCorrupt, "cut at %d", size)
	}
}

// Sections that are cut in other places than an encoder cuts them are refused: one state has one image.
func TestSectionsAreCutInOnePlace(t *testing.T) {
	for what, sizes := range map[string][]int{"early": {100, 100}, "late": {sectionFull, 10, 10}} {
		b := newBuilder(&Meta{Task: 1}, false, nil)
		require.NoError(t, b.table("t"))
		for i, size := range sizes {
			require.NoError(t, b.entry([]byte{byte(i)}, make([]byte, size), false))
			if what == "late" {
				b.unsorted = true // then no section is begun
			} else if i == 0 {
				b.seal(b.section)
				b.more()
			}
		}
		b.unsorted = false
		cut, err := b.finish()
		require.NoError(t, err)
		_, _, err = Verify(cut)
		require.ErrorIs(t, err, ErrCorrupt, what)
	}
}

// TestEveryDamagedByteIsNoticed flips each bit and cuts at each length.
func TestEveryDamagedByteIsNoticed(t *testing.T) {
	image, err := Encode(fullMeta(), false, frozen(
		table{"a", []item{{"k", "v", false}, {"l", "", true}}}, table{"b", []item{{"k", "v", false}}}))
	require.NoError(t, err)
	for i := range image {
		for bit := range 8 {
			bad := bytes.Clone(image)
			bad[i] ^= 1 << bit
			_, _, err := Verify(bad)
			require.ErrorIs(t, err, ErrCorrupt, "byte %d bit %d", i, bit)
		}
		_, _, err := Verify(image[:i])
		require.ErrorIs(t, err, ErrCorrupt, "cut at %d", i)
	}
	_, _, err = Verify(append(bytes.Clone(image), 0))
	require.ErrorIs(t, err, ErrCorrupt)
	_, _, err = Verify(append(bytes.Clone(image), image...))
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestUnknownVersionIsNamed(t *testing.T) {
	image, err := Encode(Meta{}, true, nil)
	require.NoError(t, err)
	image[len(magic)] = 9
	_, _, err = DecodeMeta(image)
	require.ErrorContains(t, err, "version 9")
}

// TestImageGolden holds the bytes of format version 3 still: stores on disk have them.
func TestImageGolden(t *testing.T) {
	image, err := Encode(fullMeta(), false, frozen(
		table{"count", []item{{"apple", "1", false}, {"pear", "", true}}}, table{"timers", []item{{"t", "x", false}}}))
	require.NoError(t, err)
	path := filepath.Join("testdata", "image-v3.bin")
	if *rewrite {
		require.NoError(t, os.WriteFile(path, image, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, image)
}

// FuzzImage: no bytes make the decoders panic, and what they accept is canonical.
func FuzzImage(f *testing.F) {
	image, err := Encode(fullMeta(), false, frozen(table{"a", []item{{"k", "v", false}, {"l", "", true}}}))
	require.NoError(f, err)
	f.Add(image)
	f.Add(image[:len(image)-1])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, src []byte) {
		meta, full, err := Verify(src)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		b := newBuilder(&meta, full, nil)
		last := ""
		require.NoError(t, Entries(src, func(table string, key, value []byte, deleted bool) error {
			if !b.open || table != last {
				require.NoError(t, b.table(table))
				last = table
			}
			return b.entry(key, value, deleted)
		}))
		again, err := b.finish()
		require.NoError(t, err)
		require.Equal(t, src, again)
	})
}

// FuzzMeta does the same without the CRC in the way.
func FuzzMeta(f *testing.F) {
	m := fullMeta()
	f.Add(appendMeta(nil, &m))
	f.Add(appendMeta(nil, &Meta{}))
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := decodeMeta(src)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.Equal(t, src, appendMeta(nil, &m))
	})
}

// FuzzSections builds an image with right CRCs around bytes that are not, to get behind them.
func FuzzSections(f *testing.F) {
	f.Add([]byte{1, 'a', 2, 'k', 1, 'v'}, []byte{1, 'b', 3, 'k'}, []byte{2, 2})
	f.Fuzz(func(t *testing.T, first, second, end []byte) {
		b := newBuilder(&Meta{Task: 1}, false, nil)
		for i, payload := range [][]byte{first, second, end} {
			kind := byte(sectionTable)
			if i == 2 {
				kind = sectionEnd
			}
			b.begin(kind)
			b.buf = append(b.buf, payload...)
			b.seal(b.section)
		}
		if _, _, err := Verify(b.buf); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	for _, order := range []string{"sorted", "shuffled"} {
		items := make([]item, 100_000)
		for i := range items {
			items[i] = item{key: fmt.Sprintf("key-%08d", i), value: strings.Repeat("v", 100)}
		}
		if order == "shuffled" {
			rng := rand.New(rand.NewPCG(1, 2))
			rng.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		}
		b.Run(fmt.Sprintf("entries=%d/%s", len(items), order), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				image, err := Encode(Meta{}, false, frozen(table{"t", items}))
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(image)))
			}
		})
	}
}

// sized says how big a table is, rightly or not.
type sized struct {
	Frozen
	bytes int
}

func (s sized) Bytes() int { return s.bytes }

// What a table says about its size makes no difference to the image, and little to how much memory that keeps.
func TestEncodeBelievesSizesWithCare(t *testing.T) {
	var items []item
	for i := range 4000 {
		items = append(items, item{fmt.Sprintf("%06d", i), strings.Repeat("v", 100), i%50 == 0})
	}
	meta := fullMeta()
	want, err := Encode(meta, false, frozen(table{"t", items}))
	require.NoError(t, err)
	for _, c := range []struct {
		bytes []int // that tables say they have
		stays bool  // the image is where it was built
	}{
		{[]int{0, 0}, false},
		{[]int{-1, len(want)}, false},
		{[]int{len(want), -1}, false},
		{[]int{expectFrom - 1, 0}, false},
		{[]int{len(want) * 63 / 64, 0}, true},
		{[]int{len(want) / 2, len(want) / 2}, true},
		{[]int{3 * len(want), 0}, false},
		{[]int{MaxImageBytes, MaxImageBytes}, false},
	} {
		parts := []Frozen{sized{table{"t", items[2000:]}, c.bytes[0]}, sized{table{"t", items[:2000]}, c.bytes[1]}} // to be sorted
		got, err := Encode(meta, false, parts)
		require.NoError(t, err)
		require.Equal(t, want, got)
		b := newBuilder(&meta, false, nil)
		b.expect(parts)
		require.NoError(t, b.table("t"))
		for _, p := range parts {
			require.NoError(t, p.Entries(b.entry))
		}
		got, err = b.finish()
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, c.stays, &got[0] == &b.buf[0], "%v", c.bytes)
		require.LessOrEqual(t, cap(b.buf), 2*maxScratch)
	}
	got, err := Encode(meta, false, []Frozen{sized{table{"t", items}, 1 << 20}, table{"u", nil}})
	require.NoError(t, err)
	require.Equal(t, want, got, "one does not know its size")
}

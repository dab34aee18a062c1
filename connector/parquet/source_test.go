package parquet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

var ctx = context.Background()

type sale struct {
	ID    int64     `parquet:"id"`
	Name  string    `parquet:"name,dict"`
	Price *float64  `parquet:"price,optional"`
	Tags  []string  `parquet:"tags"`
	At    time.Time `parquet:"at"`
	Place struct {
		Lat float32 `parquet:"lat"`
	} `parquet:"place"`
}

func sales(n int) []sale {
	rows := make([]sale, n)
	for i := range rows {
		rows[i] = sale{ID: int64(i), Name: fmt.Sprint("n", i%5), Tags: []string{"a", "b"}[: i%3 : i%3], At: time.Unix(int64(i), 0).UTC()}
		if rows[i].Place.Lat = float32(i); i%2 == 0 {
			price := float64(i) / 4
			rows[i].Price = &price
		}
	}
	return rows
}

// encode makes a file with ten rows in a row group, unless the options say otherwise.
func encode[T any](t require.TestingT, rows []T, o ...parquet.WriterOption) []byte {
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, append([]parquet.WriterOption{parquet.MaxRowsPerRowGroup(10)}, o...)...)
	_, err := w.Write(rows)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func write(t require.TestingT, name string, data []byte) string {
	require.NoError(t, os.WriteFile(name, data, 0o666))
	return name
}

func drain[T any](t require.TestingT, s operator.Source[T], split string, offset uint64) (rows []T, offsets []uint64) {
	r, err := s.Open(ctx, split, offset)
	require.NoError(t, err)
	for {
		v, next, err := r.Next()
		if err == io.EOF {
			require.NoError(t, r.Close())
			return rows, offsets
		}
		require.NoError(t, err)
		rows, offsets = append(rows, v), append(offsets, next)
	}
}

func TestRowsFromEveryOffset(t *testing.T) {
	want := sales(33)
	for name, codec := range map[string]parquet.WriterOption{
		"plain": parquet.Compression(&parquet.Uncompressed), "snappy": parquet.Compression(&parquet.Snappy),
		"zstd": parquet.Compression(&parquet.Zstd), "small pages": parquet.PageBufferSize(64),
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a.parquet"), encode(t, want, codec))
		write(t, filepath.Join(dir, "empty.parquet"), encode(t, []sale{}))
		for _, batch := range []int{1, 4, 0} {
			s := Rows[sale](filepath.Join(dir, "*.parquet")).With(SourceOptions{BatchRows: batch})
			splits, err := s.Splits(ctx)
			require.NoError(t, err)
			require.Len(t, splits, 4, "row groups with rows")
			var got []sale
			for _, split := range splits {
				rows, offsets := drain(t, s, split, 0)
				for i, offset := range offsets {
					require.EqualValues(t, i+1, offset)
					again, _ := drain(t, s, split, offset)
					require.Equal(t, rows[i+1:], append([]sale{}, again...), "%s: %s at %d", name, split, offset)
				}
				got = append(got, rows...)
			}
			for i := range got {
				require.EqualValues(t, len(want[i].Tags), len(got[i].Tags))
				got[i].Tags = append([]string{}, got[i].Tags...)
				want[i].Tags = append([]string{}, want[i].Tags...)
				got[i].At = got[i].At.UTC()
			}
			require.Equal(t, want, got, name)
		}
	}
}

func TestMaps(t *testing.T) {
	s := Rows[map[string]any](write(t, filepath.Join(t.TempDir(), "a.parquet"), encode(t, sales(12))))
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	first, _ := drain(t, s, splits[0], 0)
	require.Len(t, first, 10)
	second, _ := drain(t, s, splits[1], 1)
	require.Len(t, second, 1)
	require.Equal(t, int64(11), second[0]["id"])
	require.Equal(t, "n1", second[0]["name"])
	require.Nil(t, second[0]["price"])
	require.Equal(t, []any{"a", "b"}, second[0]["tags"])
	require.Equal(t, map[string]any{"lat": float32(11)}, second[0]["place"])
}

func TestColumnsThatDoNotFit(t *testing.T) {
	name := write(t, filepath.Join(t.TempDir(), "a.parquet"), encode(t, sales(3)))
	refuse := func(s interface {
		Splits(context.Context) ([]string, error)
	}, text string) {
		_, err := s.Splits(ctx)
		require.ErrorIs(t, err, ErrSchema)
		require.ErrorIs(t, err, operator.ErrPermanent)
		require.ErrorContains(t, err, text)
	}
	refuse(Rows[struct {
		X int64 `parquet:"x"`
	}](name), "has no column x")
	refuse(Rows[struct {
		ID int32 `parquet:"id"`
	}](name), "column id of "+name+" is INT(64,true), the field is INT(32,true)")
	refuse(Rows[struct {
		Name []string `parquet:"name"`
	}](name), "the field is repeated STRING")
	refuse(Rows[int](name), "cannot become a int")
	refuse(Rows[struct {
		C chan int `parquet:"c"`
	}](name), "cannot be filled")
	type fewer struct {
		Place struct {
			Lat float32 `parquet:"lat"`
		} `parquet:"place"`
		Other *int64 `parquet:"other,optional"`
		ID    int64  `parquet:"id"`
	}
	s := Rows[fewer](name)
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	rows, _ := drain(t, s, splits[0], 2)
	require.Len(t, rows, 1)
	require.EqualValues(t, 2, rows[0].ID)
	require.EqualValues(t, 2, rows[0].Place.Lat)
	require.Nil(t, rows[0].Other)
}

func TestErrorsOfFiles(t *testing.T) {
	dir := t.TempDir()
	_, err := Rows[sale](filepath.Join(dir, "*.parquet")).Splits(ctx)
	require.ErrorIs(t, err, file.ErrNoMatch)
	name := write(t, filepath.Join(dir, "a.parquet"), encode(t, sales(12)))
	_, err = Rows[sale](name).With(SourceOptions{BatchRows: -1}).Splits(ctx)
	require.ErrorContains(t, err, "-1 rows")
	s := Rows[sale](name).With(SourceOptions{BatchRows: 2})
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	require.Contains(t, s.InputOf(splits[1]), "row group 1")
	_, err = s.Open(ctx, splits[1], 3)
	require.ErrorIs(t, err, ErrOffset)
	r, err := s.Open(ctx, splits[1], 2)
	require.NoError(t, err)
	_, next, err := r.Next()
	require.Equal(t, io.EOF, err)
	require.EqualValues(t, 2, next)
	require.NoError(t, r.Close())

	r, err = s.Open(ctx, splits[1], 0)
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(name, time.Time{}, time.Unix(1, 0)))
	for err == nil {
		_, _, err = r.Next()
	}
	require.ErrorIs(t, err, file.ErrChanged)
	require.NoError(t, r.Close())
	_, err = s.Open(ctx, splits[1], 0)
	require.ErrorIs(t, err, file.ErrChanged)
	require.NoError(t, os.Remove(name))
	_, err = s.Open(ctx, splits[1], 0)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestDamage cuts a file at many lengths and changes many of its bytes. What is wrong is told; a changed byte that no checksum
// covers may pass, but nothing panics, and no row is lost in silence.
func TestDamage(t *testing.T) {
	whole := encode(t, sales(12), parquet.Compression(&parquet.Uncompressed))
	name := filepath.Join(t.TempDir(), "a.parquet")
	read := func() (n int, err error) {
		s := Rows[sale](name)
		splits, err := s.Splits(ctx)
		for _, split := range splits {
			r, err := s.Open(ctx, split, 0)
			if err != nil {
				return n, err
			}
			for err == nil {
				if _, _, err = r.Next(); err == nil {
					n++
				}
			}
			_ = r.Close()
			if err != io.EOF {
				return n, err
			}
		}
		return n, err
	}
	for length := 0; length < len(whole); length += 7 {
		write(t, name, whole[:length])
		_, err := read()
		require.ErrorIs(t, err, ErrCorrupt, "cut to %d bytes", length)
		require.ErrorIs(t, err, operator.ErrPermanent)
		require.ErrorContains(t, err, name)
	}
	told, tried := 0, 0
	for i := 0; i < len(whole); i += 5 {
		tried++
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x55
		write(t, name, damaged)
		if _, err := read(); err != nil {
			require.ErrorContains(t, err, name)
			told++
		}
	}
	require.Greater(t, told, tried/2)
}

func TestConforms(t *testing.T) {
	type row struct {
		N int64  `parquet:"n"`
		X string `parquet:"x"`
	}
	var rows []row
	for n := range int64(25) {
		rows = append(rows, row{n, fmt.Sprint("x", n)})
	}
	connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[row] {
		name := write(t, filepath.Join(t.TempDir(), "a.parquet"), encode(t, rows))
		return connectortest.SourceInput[row]{
			Source:     func() operator.Source[row] { return Rows[row](name).With(SourceOptions{BatchRows: 3}) },
			Records:    rows,
			BadSplits:  []string{split{name, 0, 10, 1, 1}.String(), split{name + ".no", 0, 10, 1, 1}.String()},
			BadOffsets: []uint64{11},
		}
	})
}

func TestSourceURL(t *testing.T) {
	glob, o, err := ParseSourceURL("file:///in/*.parquet?batch-rows=7")
	require.NoError(t, err)
	require.Equal(t, "/in/*.parquet", glob)
	require.Equal(t, SourceOptions{BatchRows: 7}, o)
	glob, _, err = ParseSourceURL("file:in/x?format=parquet")
	require.NoError(t, err)
	require.Equal(t, "in/x", glob)
	for _, text := range []string{"file:x.csv", "file:x.parquet?batch-rows=0", "file:x.parquet?rows=1", "http:x.parquet", "file:%zz"} {
		_, _, err := ParseSourceURL(text)
		require.ErrorIs(t, err, file.ErrURL, text)
	}
}

func FuzzParseSplit(f *testing.F) {
	f.Add(split{"a \" b\n", 1, 2, 3, -4}.String())
	f.Add(`"a" group 0 with 1 rows of 1 at 5`)
	f.Fuzz(func(t *testing.T, identity string) {
		if s, err := parseSplit(identity); err == nil && s.String() != identity {
			t.Fatalf("%q became %q", identity, s)
		}
	})
}

func TestParseSplitRefuses(t *testing.T) {
	for _, identity := range []string{"", "a", `"a" group 0 with 0 rows of 1 at 5`, `"a" group -1 with 1 rows of 1 at 5`, `"a" group 0 with 1 rows of 1 at 5 `} {
		_, err := parseSplit(identity)
		require.Error(t, err, identity)
	}
}

func ExampleRows() {
	dir, _ := os.MkdirTemp("", "rows")
	defer os.RemoveAll(dir)
	type city struct {
		Name   string `parquet:"name"`
		People int64  `parquet:"people"`
	}
	_ = parquet.WriteFile(filepath.Join(dir, "a.parquet"), []city{{"Ulm", 129_000}, {"Rom", 2_746_000}})
	s := Rows[city](filepath.Join(dir, "*.parquet"))
	splits, _ := s.Splits(context.Background())
	r, _ := s.Open(context.Background(), splits[0], 1)
	defer r.Close()
	v, next, _ := r.Next()
	fmt.Println(next, v.Name, v.People)
	// Output:
	// 2 Rom 2746000
}

func BenchmarkRows(b *testing.B) {
	const rows = 20_000
	data := encode(b, sales(rows), parquet.MaxRowsPerRowGroup(5000))
	name := write(b, filepath.Join(b.TempDir(), "a.parquet"), data)
	s := Rows[sale](name)
	splits, err := s.Splits(ctx)
	require.NoError(b, err)
	for b.Loop() {
		n := 0
		for _, split := range splits {
			all, _ := drain(b, s, split, 0)
			n += len(all)
		}
		require.Equal(b, rows, n)
	}
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
}

package file

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/operator"
)

// openOnly opens the one split of a source.
func openOnly[T any](t require.TestingT, s operator.Source[T], offset uint64) operator.Reader[T] {
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	require.Len(t, splits, 1)
	r, err := s.Open(ctx, splits[0], offset)
	require.NoError(t, err)
	return r
}

func TestCSVRowsWhateverTheyHold(t *testing.T) {
	dir := t.TempDir()
	field := rapid.StringMatching(`[ab",\n é]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		o := CSVOptions{Comma: rapid.SampledFrom([]rune{',', ';', '\t', '→'}).Draw(t, "comma")}
		rows := rapid.SliceOf(rapid.Custom(func(t *rapid.T) []string {
			return []string{"x" + field.Draw(t, "a"), field.Draw(t, "b")}
		})).Draw(t, "rows")
		var text bytes.Buffer
		if rapid.Bool().Draw(t, "mark") {
			text.WriteString(byteOrderMark)
		}
		w := csv.NewWriter(&text)
		w.Comma, w.UseCRLF = o.Comma, rapid.Bool().Draw(t, "crlf")
		require.NoError(t, w.Write([]string{"a", "b\nb"}))
		require.NoError(t, w.WriteAll(rows))
		all := strings.TrimPrefix(text.String(), byteOrderMark)
		oracle := csv.NewReader(strings.NewReader(all))
		oracle.Comma = o.Comma
		want, err := oracle.ReadAll()
		require.NoError(t, err)
		content := text.String()
		if rapid.Bool().Draw(t, "unended") {
			content = strings.TrimSuffix(content, "\n")
		}
		name := filepath.Join(dir, "a.csv")
		if rapid.Bool().Draw(t, "gzip") {
			name, content = name+".gz", zip(t, content)
		}
		write(t, name, content)
		s := DecodedCSV[[]string](Lines(name).With(SourceOptions{SplitBytes: 3, BufferBytes: rapid.IntRange(1, 40).Draw(t, "buffer")}), o)
		got, offsets := drain(t, openOnly(t, s, 0))
		require.Equal(t, append([][]string{}, want[1:]...), append([][]string{}, got...))
		for i, offset := range offsets {
			again, at := drain(t, openOnly(t, s, offset))
			require.Equal(t, got[i+1:], append([][]string{}, again...))
			require.Equal(t, offsets[i+1:], append([]uint64{}, at...))
		}
	})
}

type csvRow struct {
	ID    int64 `csv:"id"`
	Name  string
	Price *float64  `csv:"price"`
	At    time.Time `csv:"at"`
	Small uint8     `csv:"small,optional"`
	Yes   bool      `csv:"yes,optional"`
	Not   string    `csv:"-"`
	csvInner
}

type csvInner struct {
	Inner float32 `csv:"inner,optional"`
}

func TestCSVStruct(t *testing.T) {
	name := write(t, filepath.Join(t.TempDir(), "a.csv"), "extra,Name,id,price,at,yes,inner\n"+
		",\"Ann\n\"\"A\"\"\",7,1.5,2026-01-02T03:04:05Z,true,0.5\n\nx,,,,,,\n")
	rows, _ := drain(t, openOnly(t, CSV[csvRow](name), 0))
	price := 1.5
	require.Equal(t, []csvRow{
		{ID: 7, Name: "Ann\n\"A\"", Price: &price, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Yes: true, csvInner: csvInner{0.5}},
		{},
	}, rows)
	maps, _ := drain(t, openOnly(t, CSV[map[string]string](name), 0))
	require.Equal(t, map[string]string{"extra": "x", "Name": "", "id": "", "price": "", "at": "", "yes": "", "inner": ""}, maps[1])

	bare := write(t, filepath.Join(t.TempDir(), "b.csv"), "#no\n1|x\n")
	o := CSVOptions{Comma: '|', Comment: '#', Columns: []string{"id", "name"}}
	maps, _ = drain(t, openOnly(t, DecodedCSV[map[string]string](Lines(bare), o), 0))
	require.Equal(t, []map[string]string{{"id": "1", "name": "x"}}, maps)
}

func TestCSVRowsThatCannotBeDecoded(t *testing.T) {
	name := write(t, filepath.Join(t.TempDir(), "a.csv"), "id,n\n1,1\n2\n3,300\nx\"y,4\n5,5\n6,\"open\n7,7\n")
	type row struct {
		ID string `csv:"id"`
		N  uint8  `csv:"n"`
	}
	s := CSV[row](name)
	r := openOnly(t, s, 0)
	var told []string
	var offsets []uint64
	for {
		v, next, err := r.Next()
		offsets = append(offsets, next)
		if err == io.EOF {
			break
		}
		var bad *DecodeError
		if err == nil {
			told = append(told, fmt.Sprint(v))
		} else {
			require.ErrorAs(t, err, &bad)
			require.Zero(t, v)
			told = append(told, strings.TrimPrefix(err.Error(), "file: "+name+":"))
		}
	}
	require.Equal(t, []string{
		"{1 1}", `9: wrong number of fields: 1 instead of 2 in "2"`,
		`11: column "n": strconv.ParseUint: parsing "300": value out of range in "3,300"`,
		`17: column 2: bare " in non-quoted-field in ""`, "{5 5}", `27: column 5: extraneous or missing " in quoted-field in "6"`,
	}, told)
	require.NoError(t, r.Close())
	again := openOnly(t, s, offsets[2])
	defer again.Close()
	_, next, err := again.Next()
	require.ErrorIs(t, err, csv.ErrBareQuote)
	require.Equal(t, offsets[3], next)
	var syntax *strconv.NumError
	first := openOnly(t, s, offsets[1])
	defer first.Close()
	_, _, err = first.Next()
	require.ErrorAs(t, err, &syntax)
}

func TestCSVHeadersThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	type row struct {
		ID int `csv:"id"`
	}
	refuse := func(s interface {
		Splits(context.Context) ([]string, error)
	}, text string) {
		_, err := s.Splits(ctx)
		require.ErrorIs(t, err, ErrHeader)
		require.ErrorIs(t, err, operator.ErrPermanent)
		require.ErrorContains(t, err, text)
	}
	other := write(t, filepath.Join(dir, "a.csv"), "x,y\n1,2\n")
	refuse(CSV[row](other), `no column "id"`)
	twice := write(t, filepath.Join(dir, "b.csv"), "x,x\n1,2\n")
	refuse(CSV[map[string]string](twice), `two columns are named "x"`)
	refuse(CSV[int](other), "cannot become a int")
	refuse(CSV[struct {
		X chan int `csv:"x"`
	}](other), "text cannot become a chan int")
	refuse(CSV[struct {
		X int `csv:"x,omitempty"`
	}](other), `tag option "omitempty"`)
	_, err := DecodedCSV[[]string](Lines(other), CSVOptions{Comma: '"'}).Splits(ctx)
	require.ErrorContains(t, err, "comma")
	_, err = DecodedCSV[[]string](Lines(other), CSVOptions{Comment: ','}).Splits(ctx)
	require.ErrorContains(t, err, "comma and comment")
	empty := write(t, filepath.Join(dir, "c.csv.gz"), zip(t, ""))
	rows, _ := drain(t, openOnly(t, CSV[row](empty), 0))
	require.Empty(t, rows)
}

func TestCSVBoundsARow(t *testing.T) {
	text := "a,b\n1,2\n3,\"" + strings.Repeat("x\n", 5000)
	name := write(t, filepath.Join(t.TempDir(), "a.csv"), text)
	s := DecodedCSV[[]string](Lines(name).With(SourceOptions{MaxLine: 1000, BufferBytes: 64}), CSVOptions{})
	r := openOnly(t, s, 0)
	defer r.Close()
	_, _, err := r.Next()
	require.NoError(t, err)
	for range 2 {
		_, _, err = r.Next()
		require.ErrorIs(t, err, ErrLineTooLong)
		require.ErrorContains(t, err, name+":8")
	}
}

func TestCSVFilesThatChange(t *testing.T) {
	dir := t.TempDir()
	name := write(t, filepath.Join(dir, "a.csv"), "a,b\n1,2\n")
	s := CSV[[]string](name)
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	r, err := s.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(name, time.Time{}, time.Unix(1, 0)))
	_, _, err = r.Next()
	require.NoError(t, err)
	_, _, err = r.Next()
	require.ErrorIs(t, err, ErrChanged)
	require.NoError(t, r.Close())
	_, err = s.Open(ctx, splits[0], 0)
	require.ErrorIs(t, err, ErrChanged)

	for _, name := range []string{write(t, filepath.Join(dir, "b.csv"), "a,b\n1,2\n3,4"), write(t, filepath.Join(dir, "b.csv.gz"), zip(t, "a,b\n1,2\n3,4"))} {
		s := CSV[[]string](name)
		splits, err := s.Splits(ctx)
		require.NoError(t, err)
		for _, offset := range []uint64{1, 3, 5, 9, 12, 1000} {
			_, err := s.Open(ctx, splits[0], offset)
			require.ErrorIs(t, err, ErrOffset, "%s at %d", name, offset)
		}
	}
	torn := zip(t, strings.Repeat("a,b\n", 100))
	_, err = CSV[[]string](write(t, filepath.Join(dir, "c.csv.gz"), torn[:12])).Splits(ctx)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

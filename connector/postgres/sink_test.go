package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

var ctx = context.Background()

const epochRecords = 10 // an epoch of the tests' stream

// cursorAt is the cursor of the tests' stream before record n: epochs of ten records, no barriers counted.
func cursorAt(n int) determinant.Cursor {
	return determinant.Cursor{
		Next: determinant.Seq(n), Epoch: determinant.Epoch(1 + n/epochRecords), Bytes: uint64(n % epochRecords),
		CRC: uint32(n % epochRecords * 7),
	}
}

// stream is output as a generation makes it: a rollback to record n changes what comes from n on.
type stream []int

func (s stream) record(n int) []byte {
	generation := 0
	for g, from := range s {
		if n >= from {
			generation = g + 1
		}
	}
	return fmt.Appendf(nil, `{"n":%d,"g":%d,"x":"%s"}`, n, generation, strings.Repeat("x", n%7))
}

// rows is the output of the first n records as psql shows the table.
func (s stream) rows(n int) []string {
	var rows []string
	for i := range n {
		rows = append(rows, string(s.record(i)))
	}
	return rows
}

// write is the write of records from..to, with a delta that says so.
func (s stream) write(from, to int) operator.StoreWrite {
	w := operator.StoreWrite{Start: cursorAt(from), End: cursorAt(to), Delta: fmt.Appendf(nil, "%d %d", from, to)}
	for n := from; n < to; n++ {
		w.Records = append(w.Records, s.record(n))
	}
	return w
}

// covers checks that the deltas tell of every record in from..to.
func covers(t require.TestingT, deltas [][]byte, from, to int) {
	told := make(map[int]bool)
	for _, d := range deltas {
		var a, b int
		_, err := fmt.Sscanf(string(d), "%d %d", &a, &b)
		require.NoError(t, err)
		for n := a; n < b; n++ {
			told[n] = true
		}
	}
	for n := from; n < to; n++ {
		require.True(t, told[n], "record %d is visible without determinants in %q", n, deltas)
	}
}

// place is a table of a test's own.
type place struct {
	*server
	table string
}

// newPlace makes an empty table for records of the tests' stream, with columns of the user's own.
func newPlace(t testing.TB) *place {
	p := &place{server: use(t), table: freshName()}
	p.exec(t, fmt.Sprintf(`CREATE TABLE %s (n bigint NOT NULL, g integer, x text, at timestamptz DEFAULT now(), id bigint GENERATED ALWAYS AS IDENTITY,
		twice bigint GENERATED ALWAYS AS (2 * n) STORED, understudy_task integer, understudy_row bigint)`, p.table))
	return p
}

var tables int

func freshName() string {
	tables++
	return fmt.Sprintf("output%d", tables)
}

func (p *place) options() SinkOptions {
	return SinkOptions{Access: p.access(), Table: p.table, Identity: "job", Patience: 50 * time.Millisecond}
}

func open(t require.TestingT, o SinkOptions) operator.CausalStore {
	s, err := Sink(o).Open(ctx, 3, 4)
	require.NoError(t, err)
	return s
}

// openHere opens a store that is closed with the test.
func openHere(t testing.TB, o SinkOptions) operator.CausalStore {
	s := open(t, o)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func fence(t require.TestingT, s operator.CausalStore, i determinant.Incarnation) operator.Stored {
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: i})
	require.NoError(t, err)
	return stored
}

// query asks for task 3's output, in order.
func (p *place) query() string {
	return fmt.Sprintf(`SELECT format('{"n":%%s,"g":%%s,"x":"%%s"}', n, g, x) FROM %s WHERE understudy_task = 3 ORDER BY understudy_row`, p.table)
}

// shownRows is what PostgreSQL's own client sees of it.
func (p *place) shownRows(t testing.TB) []string { return p.psql(t, p.query()) }

func TestWriteAndReadBack(t *testing.T) {
	p := newPlace(t)
	s := open(t, p.options())
	require.Equal(t, operator.Stored{Deltas: [][]byte{}}, fence(t, s, 1))
	var str stream
	for n := 0; n < 30; n += 5 {
		require.NoError(t, s.Write(ctx, 1, str.write(n, n+5)))
		require.Equal(t, str.rows(n+5), p.shownRows(t), "visible at once")
	}
	stored := fence(t, s, 1)
	require.Equal(t, cursorAt(30), stored.Cursor)
	require.Len(t, stored.Deltas, 6)
	require.NoError(t, s.Write(ctx, 1, str.write(30, 31)), "a read beside the writer does not stop it")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Write(ctx, 1, str.write(31, 32)), os.ErrClosed)
	_, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorIs(t, s.Truncate(ctx, 1, nil), os.ErrClosed)

	s = openHere(t, p.options())
	stored = fence(t, s, 2)
	require.Equal(t, cursorAt(31), stored.Cursor)
	covers(t, stored.Deltas, 0, 31)
	require.NoError(t, s.Write(ctx, 2, str.write(31, 40)))
	require.Equal(t, str.rows(40), p.shownRows(t))
	require.Equal(t, []string{"40|40|40|39"}, p.psql(t, fmt.Sprintf(
		`SELECT count(*), count(at), count(id), max(understudy_row) FROM %s WHERE twice = 2 * n`, p.table)), "the user's own columns")
}

func TestWhatAWriteRefuses(t *testing.T) {
	p := newPlace(t)
	s := openHere(t, p.options())
	var str stream
	require.ErrorIs(t, s.Write(ctx, 1, str.write(0, 1)), ErrUnfenced)
	fence(t, s, 2)
	require.ErrorIs(t, s.Write(ctx, 1, str.write(0, 1)), operator.ErrFenced)
	require.ErrorIs(t, s.Write(ctx, 3, str.write(0, 1)), ErrUnfenced)
	_, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, operator.ErrFenced)
	require.NoError(t, s.Write(ctx, 2, str.write(0, 5)))
	require.ErrorIs(t, s.Write(ctx, 2, str.write(4, 6)), ErrGap)
	require.ErrorIs(t, s.Write(ctx, 2, str.write(6, 7)), ErrGap)
	w := str.write(5, 6)
	w.Start.CRC++
	require.ErrorIs(t, s.Write(ctx, 2, w), operator.ErrContradiction)
	w = str.write(9, 11)
	w.Start = determinant.Cursor{Next: 5, Epoch: 2, Bytes: 1}
	require.ErrorIs(t, s.Write(ctx, 2, w), operator.ErrContradiction, "not the beginning of its epoch")
	require.Equal(t, str.rows(5), p.shownRows(t))
	w = operator.StoreWrite{Start: cursorAt(5), End: cursorAt(5), Delta: []byte("5 5")}
	require.NoError(t, s.Write(ctx, 2, w), "determinants alone")
	require.NoError(t, s.Write(ctx, 2, str.write(5, 6)))
	require.Equal(t, str.rows(6), p.shownRows(t))
	for _, task := range []int{-1, 4} {
		_, err = Sink(p.options()).Open(ctx, task, 4)
		require.Error(t, err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = Sink(p.options()).Open(ended, 3, 4)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Write(ended, 2, str.write(6, 7)), context.Canceled)
	require.NoError(t, s.Write(ctx, 2, str.write(6, 7)))
}

func TestRecordsThatDoNotFit(t *testing.T) {
	p := newPlace(t)
	s := openHere(t, p.options())
	fence(t, s, 1)
	for name, record := range map[string]string{
		"no JSON": `{"n":`, "no object": `[1]`, "null": `null`, "no such column": `{"n":1,"y":2}`, "a column with a default": `{"n":1,"at":"2026-01-01"}`,
		"the sink's own": `{"n":1,"understudy_row":7}`, "another type": `{"n":"one"}`, "null where none may be": `{"g":1}`,
		"a zero byte": `{"n":1,"x":"\u0000"}`, "no UTF-8": "{\"n\":1,\"x\":\"\xff\"}", "too great": `{"n":1e30}`,
	} {
		err := s.Write(ctx, 1, operator.StoreWrite{End: cursorAt(2), Records: [][]byte{[]byte(`{"n":0}`), []byte(record)}})
		require.ErrorIs(t, err, ErrRecord, name)
		require.ErrorIs(t, err, operator.ErrPermanent, name)
	}
	require.Empty(t, p.shownRows(t))
	require.NoError(t, s.Write(ctx, 1, stream{}.write(0, 3)), "the store can still be used")
	require.Equal(t, stream{}.rows(3), p.shownRows(t))
}

// A record's fields become what PostgreSQL makes of them, whatever the columns' types are.
func TestColumnTypes(t *testing.T) {
	p := newPlace(t)
	p.exec(t, fmt.Sprintf(`DROP TABLE %s; CREATE TABLE %[1]s (understudy_row bigint, a numeric(30, 10), b double precision, c boolean, d date,
		e timestamptz, f uuid, g jsonb, h text[], i varchar(5), j text DEFAULT 'none', "K L" integer, understudy_task bigint)`, p.table))
	o := p.options()
	o.Columns = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "K L"}
	s := openHere(t, o)
	fence(t, s, 1)
	require.NoError(t, s.Write(ctx, 1, operator.StoreWrite{End: cursorAt(2), Records: [][]byte{
		[]byte(`{"a":12345678901234567890.5,"b":1e-7,"c":true,"d":"2026-02-28","e":"2026-02-28T01:02:03.000004Z","f":"6f9619ff-8b86-d011-b42d-00cf4fc964ff",
			"g":{"z":[1,null]},"h":["one","two, three",null],"i":"ä\"\\€","j":null,"K L":-7}`), []byte(`{}`)}}))
	require.Equal(t, []string{
		`12345678901234567890.5000000000|1e-07|t|2026-02-28|2026-02-28 01:02:03.000004+00|6f9619ff-8b86-d011-b42d-00cf4fc964ff|{"z": [1, null]}|{one,"two, three",NULL}|ä"\€||-7`,
		strings.Repeat("|", 10),
	}, p.psql(t, fmt.Sprintf(`SET timezone = 'UTC'; SELECT a, b, c, d, e, f, g, h, i, j, "K L" FROM %s ORDER BY understudy_row`, p.table)))
	err := s.Write(ctx, 1, operator.StoreWrite{Start: cursorAt(2), End: cursorAt(3), Records: [][]byte{[]byte(`{"i":"longer than five"}`)}})
	require.ErrorIs(t, err, ErrRecord, "nothing is cut off")
}

func TestWholeRecords(t *testing.T) {
	for kind, records := range map[string][]string{
		"":      {`{"b": 1, "a": 2}`, `[]`},
		"jsonb": {`{"b": 1, "a": 2}`, `[]`},
		"json":  {`{"b":1,  "a":2}`, `"x"`},
		"text":  {"a\nb\\.", "", "NULL"},
		"bytea": {"\x00\xff", "", "x"},
	} {
		p := &place{server: use(t), table: freshName()}
		o := p.options()
		o.Column, o.TaskColumn, o.RowColumn = "Whole", "t", "r"
		if kind != "" {
			p.exec(t, fmt.Sprintf(`CREATE TABLE %s (t integer, r bigint, "Whole" %s)`, p.table, kind))
		}
		s := openHere(t, o)
		fence(t, s, 1)
		w := operator.StoreWrite{End: cursorAt(len(records))}
		var want []string
		for _, r := range records {
			w.Records = append(w.Records, []byte(r))
			want = append(want, fmt.Sprintf("%x", r))
		}
		require.NoError(t, s.Write(ctx, 1, w), kind)
		column := map[string]string{"": `convert_to(replace("Whole"::text, '{"a": 2, "b": 1}', '{"b": 1, "a": 2}'), 'UTF8')`, "bytea": `"Whole"`}
		column["jsonb"] = column[""] // jsonb has an order of its own
		expression, special := column[kind]
		if !special {
			expression = `convert_to("Whole"::text, 'UTF8')`
		}
		require.Equal(t, want, p.psql(t, fmt.Sprintf(`SELECT encode(%s, 'hex') FROM %s WHERE t = 3 ORDER BY r`, expression, p.table)), kind)
		if kind == "" {
			err := s.Write(ctx, 1, operator.StoreWrite{Start: w.End, End: cursorAt(3), Records: [][]byte{[]byte("{")}})
			require.ErrorIs(t, err, ErrRecord)
		}
	}
}

func TestCut(t *testing.T) {
	p := newPlace(t)
	p.exec(t, fmt.Sprintf(`INSERT INTO %s (n) VALUES (-1)`, p.table))
	s, neighbour := openHere(t, p.options()), openHere(t, p.options())
	fence(t, s, 1)
	other, err := Sink(p.options()).Open(ctx, 0, 4)
	require.NoError(t, err)
	defer other.Close()
	fence(t, other, 1)
	require.NoError(t, other.Write(ctx, 1, stream{}.write(0, 9)))
	before, after := stream{}, stream{20}
	for n := 0; n < 30; n += 5 {
		require.NoError(t, s.Write(ctx, 1, before.write(n, n+5)))
		if n == 15 {
			require.NoError(t, s.Truncate(ctx, 1, nil))
		}
	}
	_, err = s.Fence(ctx, operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{Cursor: cursorAt(17)}})
	require.ErrorIs(t, err, ErrCorrupt, "no write ended there")
	require.Equal(t, before.rows(30), p.shownRows(t))
	cut := operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{Cursor: cursorAt(20)}}
	for range 2 {
		stored, err := neighbour.Fence(ctx, cut)
		require.NoError(t, err)
		require.Equal(t, operator.Stored{Cursor: cursorAt(20), Deltas: [][]byte{}}, stored)
		require.Equal(t, before.rows(20), p.shownRows(t))
	}
	require.ErrorIs(t, s.Write(ctx, 1, before.write(30, 35)), operator.ErrFenced)
	require.NoError(t, s.Write(ctx, 2, after.write(20, 25)))
	stored, err := s.Fence(ctx, cut)
	require.NoError(t, err, "a cut that was applied is not applied again")
	require.Equal(t, cursorAt(25), stored.Cursor)
	cut.Incarnation = 3
	stored, err = s.Fence(ctx, cut)
	require.NoError(t, err)
	require.Equal(t, cursorAt(25), stored.Cursor)
	require.Equal(t, after.rows(25), p.shownRows(t))
	_, err = s.Fence(ctx, operator.Fence{Incarnation: 4})
	require.ErrorIs(t, err, operator.ErrFenced, "an older generation")

	cut.Generation = 2
	stored, err = s.Fence(ctx, cut)
	require.NoError(t, err, "again to where the last rollback went")
	require.Equal(t, cursorAt(20), stored.Cursor)
	require.Equal(t, after.rows(20), p.shownRows(t))
	stored, err = s.Fence(ctx, operator.Fence{Incarnation: 4, Generation: 3, Cut: &operator.Cut{}})
	require.NoError(t, err, "to the empty checkpoint")
	require.Equal(t, operator.Stored{Deltas: [][]byte{}}, stored)
	require.Empty(t, p.shownRows(t))
	require.Equal(t, []string{"10"}, p.psql(t, "SELECT count(*) FROM "+p.table), "rows of others stay")
}

func TestRestart(t *testing.T) {
	p := newPlace(t)
	s := openHere(t, p.options())
	fence(t, s, 1)
	for n := 0; n < 30; n += 5 {
		require.NoError(t, s.Write(ctx, 1, stream{}.write(n, n+5)))
	}
	at := cursorAt(20)
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: 2, Restart: &at})
	require.NoError(t, err)
	require.Equal(t, operator.Stored{Cursor: at, Deltas: [][]byte{}}, stored)
	again := stream{20}
	require.NoError(t, s.Write(ctx, 2, again.write(20, 25)))
	require.NoError(t, s.Write(ctx, 2, again.write(25, 30)))
	shownTwice := append(stream{}.rows(30), again.rows(30)[20:]...)
	require.Equal(t, shownTwice, p.shownRows(t), "what is shown stays, and is shown again")
	_, err = s.Fence(ctx, operator.Fence{Incarnation: 3, Generation: 1, Cut: &operator.Cut{Cursor: cursorAt(25)}})
	require.NoError(t, err)
	require.Equal(t, shownTwice[:35], p.shownRows(t), "a cut counts by what the new life has numbered")
}

func TestTruncateBoundsTheDeterminants(t *testing.T) {
	p := newPlace(t)
	s := openHere(t, p.options())
	fence(t, s, 1)
	var str stream
	for n := 0; n < 200; n += 5 {
		require.NoError(t, s.Write(ctx, 1, str.write(n, n+5)))
		if n%epochRecords == 0 && n > 0 {
			e := determinant.Epoch(n / epochRecords)
			require.NoError(t, s.Truncate(ctx, e, nil))
			require.NoError(t, s.Truncate(ctx, e-1, nil), "a late one changes nothing")
			stored := fence(t, s, 1)
			require.LessOrEqual(t, len(stored.Deltas), 6)
			covers(t, stored.Deltas, max(0, n-epochRecords), n+5)
		}
	}
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{Cursor: cursorAt(190)}})
	require.NoError(t, err, "the last committed checkpoint")
	require.Equal(t, cursorAt(190), stored.Cursor)
	require.Equal(t, str.rows(190), p.shownRows(t))
}

func TestTwoJobs(t *testing.T) {
	p := newPlace(t)
	o := p.options()
	s := openHere(t, o)
	fence(t, s, 1)
	require.NoError(t, s.Write(ctx, 1, stream{}.write(0, 5)))
	o.Identity = "another job"
	other := openHere(t, o)
	_, err := other.Fence(ctx, operator.Fence{Incarnation: 9})
	require.ErrorIs(t, err, ErrJob)
	require.ErrorIs(t, err, operator.ErrPermanent)
	require.ErrorContains(t, err, `"job"`)
	require.ErrorIs(t, other.Write(ctx, 9, stream{}.write(5, 6)), ErrJob)
	require.ErrorIs(t, other.Truncate(ctx, 1, nil), ErrJob)
	require.NoError(t, s.Write(ctx, 1, stream{}.write(5, 6)))

	o.Identity = ""
	sink := Sink(o)
	_, err = sink.Open(ctx, 3, 4)
	require.ErrorIs(t, err, ErrIdentity)
	require.NoError(t, sink.Identify("job"))
	mine, err := sink.Open(ctx, 3, 4)
	require.NoError(t, err)
	require.NoError(t, sink.Identify("job"))
	require.ErrorIs(t, sink.Identify("another job"), ErrJob)
	fence(t, mine, 2)
	require.NoError(t, mine.Close())
	require.NoError(t, sink.Identify("another job"))
	require.Equal(t, stream{}.rows(6), p.shownRows(t))

	p.exec(t, fmt.Sprintf("DROP TABLE %s__job, %[1]s__sink, %[1]s__determinants", p.table))
	_, err = openHere(t, p.options()).Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, ErrForeign, "output without determinants")
}

func TestTablesThatCannotBeUsed(t *testing.T) {
	p := newPlace(t)
	p.exec(t, fmt.Sprintf(`CREATE TABLE %s_bare (n bigint); CREATE VIEW %[1]s_view AS SELECT * FROM %[1]s; CREATE TABLE %[1]s_full
		(n bigint DEFAULT 1, understudy_task integer, understudy_row bigint)`, p.table))
	for name, change := range map[string]func(o *SinkOptions){
		"missing":             func(o *SinkOptions) { o.Table = "nowhere" },
		"without its columns": func(o *SinkOptions) { o.Table += "_bare" },
		"a view":              func(o *SinkOptions) { o.Table += "_view" },
		"all with defaults":   func(o *SinkOptions) { o.Table += "_full" },
		"no such column":      func(o *SinkOptions) { o.Columns = []string{"n", "nothing"} },
		"a generated column":  func(o *SinkOptions) { o.Columns = []string{"n", "twice"} },
		"no such whole":       func(o *SinkOptions) { o.Column = "nothing" },
		"whole of no type":    func(o *SinkOptions) { o.Column = "n" },
		"no row column":       func(o *SinkOptions) { o.RowColumn = "g" },
		"too long a name":     func(o *SinkOptions) { o.Table, o.Column = strings.Repeat("t", 55), "c" },
	} {
		o := p.options()
		change(&o)
		_, err := openHere(t, o).Fence(ctx, operator.Fence{Incarnation: 1})
		require.ErrorIs(t, err, ErrTable, name)
		require.ErrorIs(t, err, operator.ErrPermanent, name)
	}
	for name, change := range map[string]func(o *SinkOptions){
		"no table": func(o *SinkOptions) { o.Table = "" }, "a dot": func(o *SinkOptions) { o.Table = "a." },
		"twice":  func(o *SinkOptions) { o.Columns = []string{"understudy_row"} },
		"either": func(o *SinkOptions) { o.Columns, o.Column = []string{"n"}, "g" },
		"time":   func(o *SinkOptions) { o.Patience = -1 },
		"URL":    func(o *SinkOptions) { o.URL = "postgres://h:no/" },
	} {
		o := p.options()
		change(&o)
		_, err := Sink(o).Open(ctx, 0, 1)
		require.Error(t, err, name)
	}
}

func TestNames(t *testing.T) {
	for text, want := range map[string]string{
		`a`: `"a"`, `a.b`: `"a"."b"`, `"a.b".c`: `"a.b"."c"`, `"say ""x"""`: `"say ""x"""`, `A b`: `"A b"`,
	} {
		n, err := parseName(text)
		require.NoError(t, err)
		require.Equal(t, want, n.String())
	}
	for _, text := range []string{``, `.`, `a.`, `.a`, `a.b.c`, `"a`, `"a"b`, `""`, strings.Repeat("x", 64), "a\x00"} {
		_, err := parseName(text)
		require.ErrorIs(t, err, ErrTable, text)
	}
	p := &place{server: use(t), table: freshName()}
	p.exec(t, `CREATE SCHEMA "Other one"`)
	o := p.options()
	o.Table, o.Column = `"Other one".T"x`, "c"
	s := openHere(t, o)
	fence(t, s, 1)
	require.NoError(t, s.Write(ctx, 1, stream{}.write(0, 1)))
	require.Len(t, p.psql(t, `SELECT * FROM "Other one"."T""x"`), 1)
}

// TestFenceUnderConcurrency has writers that do not know when they are replaced.
func TestFenceUnderConcurrency(t *testing.T) {
	p := newPlace(t)
	var str stream
	var wg sync.WaitGroup
	const incarnations = 8
	for i := determinant.Incarnation(1); i <= incarnations; i++ {
		s := open(t, p.options())
		stored := fence(t, s, i)
		n := int(stored.Cursor.Next)
		covers(t, stored.Deltas, 0, n)
		enough := make(chan struct{})
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer s.Close()
			for start := n; ; n += 3 {
				err := s.Write(ctx, i, str.write(n, n+3))
				if n == start+9 {
					close(enough)
				}
				if errors.Is(err, operator.ErrFenced) || n > start+300 {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		}()
		<-enough
	}
	wg.Wait()
	s := openHere(t, p.options())
	stored := fence(t, s, incarnations+1)
	require.Equal(t, str.rows(int(stored.Cursor.Next)), p.shownRows(t))
}

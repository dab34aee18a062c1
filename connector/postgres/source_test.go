package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/operator"
)

// input is a table of a test's own that a source reads.
type input struct {
	*server
	table string
}

func newInput(t testing.TB, rows int) *input {
	in := &input{server: use(t), table: freshName()}
	in.exec(t, fmt.Sprintf(`CREATE TABLE %s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, at timestamptz)`, in.table))
	in.exec(t, fmt.Sprintf(`INSERT INTO %s (name, at) SELECT 'row ' || g, '2026-01-02 03:04:05+02' FROM generate_series(1, %d) g`, in.table, rows))
	return in
}

func (in *input) options() SourceOptions {
	return SourceOptions{Access: in.access(), Table: in.table, Key: "id", Splits: 3, PageRows: 7, Poll: time.Millisecond}
}

func (in *input) row(n int) Row {
	return Row{Key: int64(n), JSON: fmt.Sprintf(`{"id":%d,"name":"row %[1]d","at":"2026-01-02T01:04:05+00:00"}`, n)}
}

// next waits for a reader's next record.
func next[T any](t testing.TB, r operator.Reader[T]) (T, uint64, error) {
	t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		v, offset, err := r.Next()
		if err != operator.ErrNotReady {
			return v, offset, err
		}
		select {
		case <-r.Ready():
		case <-timeout:
			t.Fatal("no record is ready")
		}
	}
}

func splitsOf(t testing.TB, s *Source) []string {
	t.Helper()
	splits, err := s.Splits(ctx)
	require.NoError(t, err)
	return splits
}

// readAll reads a split to its end.
func readAll(t testing.TB, s *Source, split string, offset uint64) (rows []Row, offsets []uint64, err error) {
	t.Helper()
	r, err := s.Open(ctx, split, offset)
	require.NoError(t, err)
	defer r.Close()
	for {
		v, at, err := next(t, r)
		if err == io.EOF {
			return rows, offsets, nil
		}
		if err != nil {
			return rows, offsets, err
		}
		rows, offsets = append(rows, v), append(offsets, at)
	}
}

func TestSourceReadsAgainFromAnyOffset(t *testing.T) {
	in := newInput(t, 50)
	in.exec(t, fmt.Sprintf("DELETE FROM %s WHERE id %% 5 = 0 OR id = 1", in.table)) // gaps, also at the ends
	s := Rows(in.options())
	var all []Row
	splits := splitsOf(t, s)
	require.Len(t, splits, 3)
	require.Equal(t, splits, splitsOf(t, s))
	require.Equal(t, fmt.Sprintf(`"\"%s\"" by "id" from 2 to 17, 13 rows`, in.table), splits[0])
	for _, split := range splits {
		rows, offsets, err := readAll(t, s, split, 0)
		require.NoError(t, err)
		all = append(all, rows...)
		for i, offset := range offsets {
			again, _, err := readAll(t, Rows(in.options()), split, offset)
			require.NoError(t, err)
			require.Equal(t, rows[i+1:], append([]Row{}, again...))
		}
	}
	var want []Row
	for n := 2; n <= 50; n++ {
		if n%5 != 0 {
			want = append(want, in.row(n))
		}
	}
	require.Equal(t, want, all)
}

func TestSourceOfOtherKinds(t *testing.T) {
	in := newInput(t, 20)
	for name, c := range map[string]struct {
		change func(o *SourceOptions)
		first  string
		n      int
	}{
		"columns": {func(o *SourceOptions) { o.Columns = []string{"name"} }, `{"id":1,"name":"row 1"}`, 20},
		"query": {func(o *SourceOptions) {
			o.Table, o.Query = "", "SELECT (id - 11)::smallint AS id FROM "+in.table+" WHERE id % 2 = 1 -- odd ones\n;\n"
		}, `{"id":-10}`, 10},
		"view": {func(o *SourceOptions) {
			in.exec(t, fmt.Sprintf("CREATE VIEW %s_view AS SELECT id::integer AS n FROM %[1]s", in.table))
			o.Table, o.Key = "public."+in.table+"_view", "n"
		}, `{"n":1}`, 20},
		"extremes": {func(o *SourceOptions) {
			o.Table, o.Query = "", fmt.Sprintf("SELECT (%d)::bigint AS id UNION ALL SELECT %d UNION ALL SELECT 0", math.MinInt64+1, math.MaxInt64)
		}, fmt.Sprintf(`{"id":%d}`, math.MinInt64+1), 3},
	} {
		o := in.options()
		c.change(&o)
		s, rows := Rows(o), []Row(nil)
		for _, split := range splitsOf(t, s) {
			more, offsets, err := readAll(t, s, split, 0)
			require.NoError(t, err, name)
			rows = append(rows, more...)
			none, _, err := readAll(t, s, split, offsets[len(offsets)-1])
			require.NoError(t, err, name)
			require.Empty(t, none, name)
		}
		require.Len(t, rows, c.n, name)
		require.Equal(t, c.first, rows[0].JSON, name)
	}
	o := in.options()
	o.Query, o.Table = "SELECT 1 AS id WHERE false", ""
	require.Empty(t, splitsOf(t, Rows(o)))
}

func TestDecoded(t *testing.T) {
	in := newInput(t, 3)
	o := in.options()
	o.Splits = 1
	s := Rows(o)
	type named struct{ Name string }
	r, err := DecodedJSON[named](s).Open(ctx, splitsOf(t, s)[0], 1)
	require.NoError(t, err)
	defer r.Close()
	v, at, err := next(t, r)
	require.NoError(t, err)
	require.Equal(t, named{"row 2"}, v)
	require.EqualValues(t, 2, at)

	bad := errors.New("bad")
	r2, err := Decoded(s, func(r Row) (int, error) {
		if r.Key == 2 {
			return 7, bad
		}
		return int(r.Key), nil
	}).Open(ctx, splitsOf(t, s)[0], 1)
	require.NoError(t, err)
	defer r2.Close()
	_, at, err = next(t, r2)
	require.EqualValues(t, 2, at, "the offset after it")
	var decode *DecodeError
	require.ErrorAs(t, err, &decode)
	require.ErrorIs(t, err, bad)
	require.EqualValues(t, 2, decode.Key)
	n, _, err := next(t, r2)
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func TestWhatASourceRefuses(t *testing.T) {
	in := newInput(t, 20)
	in.exec(t, fmt.Sprintf(`CREATE TABLE %s_b (id integer, k integer, t text); INSERT INTO %[1]s_b SELECT g, g / 12, g FROM generate_series(1, 20) g`, in.table))
	in.exec(t, fmt.Sprintf(`CREATE TABLE %s_null (id integer); INSERT INTO %[1]s_null VALUES (1), (NULL)`, in.table))
	for name, c := range map[string]struct {
		change func(o *SourceOptions)
		want   error
	}{
		"text key":        {func(o *SourceOptions) { o.Table, o.Key = o.Table+"_b", "t" }, ErrKey},
		"null":            {func(o *SourceOptions) { o.Table += "_null" }, ErrKey},
		"not unique":      {func(o *SourceOptions) { o.Table, o.Key, o.Splits = o.Table+"_b", "k", 10 }, ErrKey},
		"missing":         {func(o *SourceOptions) { o.Table = "nowhere" }, operator.ErrPermanent},
		"no such key":     {func(o *SourceOptions) { o.Key = "nothing" }, operator.ErrPermanent},
		"follow a query":  {func(o *SourceOptions) { o.Follow, o.Query, o.Table = true, "SELECT 1 AS id", "" }, ErrFollow},
		"follow any key":  {func(o *SourceOptions) { o.Follow, o.Table = true, o.Table+"_b" }, ErrFollow},
		"follow cached":   {func(o *SourceOptions) { o.Follow, o.Table = true, sequenced(t, in, "CACHE 2") }, ErrFollow},
		"follow cycle":    {func(o *SourceOptions) { o.Follow, o.Table = true, sequenced(t, in, "CYCLE") }, ErrFollow},
		"follow downward": {func(o *SourceOptions) { o.Follow, o.Table = true, sequenced(t, in, "INCREMENT -1") }, ErrFollow},
	} {
		o := in.options()
		c.change(&o)
		_, err := Rows(o).Splits(ctx)
		require.ErrorIs(t, err, c.want, name)
		require.ErrorIs(t, err, operator.ErrPermanent, name)
	}
	o := in.options()
	o.Table, o.Key, o.Splits = in.table+"_b", "k", 1
	_, _, err := readAll(t, Rows(o), splitsOf(t, Rows(o))[0], 0)
	require.ErrorIs(t, err, ErrKey, "not unique, seen while reading")

	s := Rows(in.options())
	split := splitsOf(t, s)[0]
	for _, bad := range []string{"", split + " ", strings.Replace(split, `"id"`, `"name"`, 1), strings.Replace(split, in.table, "other", 1),
		fmt.Sprintf(`"\"%s\"" by "id" from 1, followed`, in.table), fmt.Sprintf(`"\"%s\"" by "id" from 7 to 1, 7 rows`, in.table)} {
		_, err := s.Open(ctx, bad, 0)
		require.Error(t, err, bad)
	}
	_, err = s.Open(ctx, split, 8)
	require.ErrorIs(t, err, ErrOffset)
	in.exec(t, fmt.Sprintf("DELETE FROM %s WHERE id = 3", in.table))
	_, _, err = readAll(t, s, split, 3)
	require.ErrorIs(t, err, ErrOffset, "no row has this key")
	_, _, err = readAll(t, s, split, 0)
	require.ErrorIs(t, err, ErrChanged)
}

func sequenced(t testing.TB, in *input, how string) string {
	table := freshName()
	in.exec(t, fmt.Sprintf("CREATE TABLE %s (id bigint GENERATED ALWAYS AS IDENTITY (%s))", table, how))
	return table
}

// TestALateCommitIsNotLost has transactions commit in another order than that in which they drew their keys, as a table is
// followed.
func TestALateCommitIsNotLost(t *testing.T) {
	in := newInput(t, 0)
	in.exec(t, fmt.Sprintf(`CREATE FUNCTION %s_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.name = 'gated' THEN PERFORM pg_advisory_xact_lock_shared(710); END IF; RETURN NEW; END $$;
		CREATE TRIGGER gate BEFORE INSERT ON %[1]s FOR EACH ROW EXECUTE FUNCTION %[1]s_gate()`, in.table))
	o := in.options()
	o.Follow = true
	s := Rows(o)
	splits := splitsOf(t, s)
	require.Equal(t, []string{fmt.Sprintf(`"\"%s\"" by "id" from 1, followed`, in.table)}, splits)
	r, err := s.Open(ctx, splits[0], 0)
	require.NoError(t, err)
	defer r.Close()
	insert := fmt.Sprintf("INSERT INTO %s (name) VALUES ($1)", in.table)
	expect := func(key int64) {
		v, at, err := next(t, r)
		require.NoError(t, err)
		require.Equal(t, key, v.Key)
		require.EqualValues(t, key, at)
	}
	nothing := func() {
		for range 2 { // the source looks at the table again, after whatever it had begun before
			in.until(t, fmt.Sprintf(`SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'understudy source'
				AND query LIKE '%%pg_locks%%' AND query_start > '%s'::timestamptz`, in.rows(t, "SELECT clock_timestamp()::text")[0]), "true")
		}
		_, _, err := r.Next()
		require.Equal(t, operator.ErrNotReady, err)
	}

	in.exec(t, insert, "1")
	expect(1)
	late, err := in.connect(t).Begin(ctx)
	require.NoError(t, err)
	_, err = late.Exec(ctx, insert, "2, which commits late")
	require.NoError(t, err)
	in.exec(t, insert, "3")
	nothing()
	require.NoError(t, late.Commit(ctx))
	expect(2)
	expect(3)

	// A transaction that has drawn its key and has no id yet: no snapshot shows it.
	gate := in.connect(t)
	_, err = gate.Exec(ctx, "SELECT pg_advisory_lock(710)")
	require.NoError(t, err)
	done := make(chan error, 1)
	gated := in.connect(t)
	go func() {
		_, err := gated.Exec(ctx, insert, "gated")
		done <- err
	}()
	in.until(t, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'", "1")
	in.until(t, "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND pid <> pg_backend_pid()", "0")
	in.exec(t, insert, "5")
	nothing()
	_, err = gate.Exec(ctx, "SELECT pg_advisory_unlock(710)")
	require.NoError(t, err)
	require.NoError(t, <-done)
	expect(4)
	expect(5)

	rolledBack, err := in.connect(t).Begin(ctx)
	require.NoError(t, err)
	_, err = rolledBack.Exec(ctx, insert, "6, which is taken back")
	require.NoError(t, err)
	in.exec(t, insert, "7")
	nothing()
	in.kill(t)
	in.start(t) // the transaction is over
	expect(7)
	in.exec(t, insert, "from 8 on, perhaps with a gap")
	v, _, err := next(t, r)
	require.NoError(t, err)
	require.Greater(t, v.Key, int64(7))
}

// TestSplitsWaitForOpenTransactions lists splits while rows are being added, of which all belong to them.
func TestSplitsWaitForOpenTransactions(t *testing.T) {
	in := newInput(t, 10)
	tx, err := in.connect(t).Begin(ctx)
	require.NoError(t, err)
	_, err = tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s (name) VALUES ('11')", in.table))
	require.NoError(t, err)
	in.exec(t, fmt.Sprintf("INSERT INTO %s (name) VALUES ('12')", in.table))
	o := in.options()
	o.Splits = 1
	listed := make(chan []string, 1)
	go func() {
		splits, _ := Rows(o).Splits(ctx) // a failure lists none
		listed <- splits
	}()
	in.until(t, "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'understudy source' AND query LIKE '%pg_locks%'", "true")
	require.Empty(t, listed)
	require.NoError(t, tx.Commit(ctx))
	require.Equal(t, []string{fmt.Sprintf(`"\"%s\"" by "id" from 1 to 12, 12 rows`, in.table)}, <-listed)
}

// TestFollowedSplitsHaveNoGap follows a table that has rows already.
func TestFollowedSplitsHaveNoGap(t *testing.T) {
	in := newInput(t, 30)
	o := in.options()
	o.Follow = true
	s := Rows(o)
	splits := splitsOf(t, s)
	require.Len(t, splits, 3)
	for i, split := range splits[:2] {
		rows, _, err := readAll(t, s, split, 0)
		require.NoError(t, err)
		require.Len(t, rows, 10)
		require.Equal(t, in.row(10*i+1), rows[0])
	}
	r, err := s.Open(ctx, splits[2], 0)
	require.NoError(t, err)
	for n := 21; n <= 35; n++ {
		if n > 30 {
			in.exec(t, fmt.Sprintf(`INSERT INTO %s (name, at) SELECT 'row %d', '2026-01-02 03:04:05+02'`, in.table, n))
		}
		v, _, err := next(t, r)
		require.NoError(t, err)
		require.Equal(t, in.row(n), v)
	}
	require.NoError(t, r.Close())
	r, err = s.Open(ctx, splits[2], 15)
	require.NoError(t, err)
	_, _, err = r.Next()
	require.Equal(t, operator.ErrNotReady, err)
	require.NoError(t, r.Close())
}

// TestASourceBeginsWhenTheServerIsThere lists splits while the server is away; what no wait can mend is said at once.
func TestASourceBeginsWhenTheServerIsThere(t *testing.T) {
	in := newInput(t, 20)
	in.kill(t)
	defer in.start(t)
	o := in.options()
	waiting, goesOn := make(chan struct{}, 1000), make(chan struct{}, 1)
	o.Waiting = func(err error) {
		if err == nil {
			goesOn <- struct{}{}
			return
		}
		assert.NotContains(t, err.Error(), "\n")
		waiting <- struct{}{}
	}
	ending, cancel := context.WithCancel(ctx)
	result := make(chan error)
	list := func(ctx context.Context) {
		_, err := Rows(o).Splits(ctx)
		result <- err
	}
	go list(ending)
	<-waiting
	cancel()
	require.ErrorIs(t, <-result, context.Canceled)
	go list(ctx)
	<-waiting
	<-waiting
	require.Empty(t, goesOn)
	in.start(t)
	require.NoError(t, <-result)
	<-goesOn
	o.Key = "nothing"
	go list(ctx)
	require.ErrorIs(t, <-result, operator.ErrPermanent)
}

// TestSourceOutage kills the server while it is read from.
func TestSourceOutage(t *testing.T) {
	in := newInput(t, 200)
	o := in.options()
	o.Splits = 1
	waiting := make(chan struct{}, 1000)
	o.Waiting = func(error) { waiting <- struct{}{} }
	s := Rows(o)
	split := splitsOf(t, s)[0]
	r, err := s.Open(ctx, split, 0)
	require.NoError(t, err)
	defer r.Close()
	for n := 1; n <= 200; n++ {
		if n == 50 || n == 150 {
			in.kill(t)
			for {
				if _, _, err := r.Next(); err == operator.ErrNotReady {
					break
				}
				n++
			}
			<-waiting
			require.Eventually(t, func() bool { return r.(operator.Waiter).Waiting() != "" }, 20*time.Second, time.Millisecond)
			in.start(t)
			require.Eventually(t, func() bool { return r.(operator.Waiter).Waiting() == "" }, 20*time.Second, time.Millisecond)
		}
		v, _, err := next(t, r)
		require.NoError(t, err)
		require.Equal(t, in.row(n), v)
	}
	_, _, err = next(t, r)
	require.Equal(t, io.EOF, err)
}

func TestSourceConforms(t *testing.T) {
	for _, follow := range []bool{false, true} {
		t.Run(fmt.Sprintf("follow=%v", follow), func(t *testing.T) {
			connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[Row] {
				in := newInput(t, 30)
				o := in.options()
				o.Follow = follow
				suite := connectortest.SourceInput[Row]{
					Source: func() operator.Source[Row] { return Rows(o) }, BadSplits: []string{"", "x"},
				}
				for n := 1; n <= 30; n++ {
					suite.Records = append(suite.Records, in.row(n))
				}
				if !follow {
					suite.BadOffsets = []uint64{1000}
					return suite
				}
				o.Splits = 1
				conn := in.connect(t)
				var mu sync.Mutex
				suite.Add = func() Row {
					mu.Lock()
					defer mu.Unlock()
					var n int
					query := fmt.Sprintf("INSERT INTO %s (at) VALUES ('2026-01-02 03:04:05+02') RETURNING id", in.table)
					if err := conn.QueryRow(ctx, query).Scan(&n); err != nil {
						t.Error(err)
					}
					return Row{Key: int64(n), JSON: fmt.Sprintf(`{"id":%d,"name":null,"at":"2026-01-02T01:04:05+00:00"}`, n)}
				}
				return suite
			})
		})
	}
}

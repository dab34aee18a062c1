package postgres

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// durable starts a server that flushes what it commits, as one in use does.
func durable(b *testing.B) *server {
	s := newServer(b)
	s.start(b)
	b.Cleanup(s.remove)
	return s
}

// batch is a write of n records from record first on, with a delta of a usual size.
func batch(first uint64, n int) operator.StoreWrite {
	at := func(n uint64) determinant.Cursor {
		return determinant.Cursor{Next: determinant.Seq(n), Epoch: 1, Bytes: n}
	}
	w := operator.StoreWrite{Start: at(first), End: at(first + uint64(n)), Delta: make([]byte, n/4)}
	for i := range n {
		w.Records = append(w.Records, fmt.Appendf(nil, `{"word":"word%d","count":%d,"at":"2026-01-02T03:04:05.678Z"}`, i%100, i))
	}
	return w
}

// wordTable makes a table for the records of batch.
func wordTable(b *testing.B, s *server) string {
	table := freshName()
	s.exec(b, fmt.Sprintf(`CREATE TABLE %s (word text, count bigint, at timestamptz, understudy_task integer, understudy_row bigint,
		PRIMARY KEY (understudy_task, understudy_row))`, table))
	return table
}

// BenchmarkSink writes batches of records of 60 bytes, one after the other, to columns by their names.
func BenchmarkSink(b *testing.B) {
	s := durable(b)
	for _, n := range []int{10, 100, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			store := open(b, SinkOptions{Access: s.access(), Table: wordTable(b, s), Identity: "bench"})
			defer store.Close()
			fence(b, store, 1)
			at := uint64(0)
			for b.Loop() {
				require.NoError(b, store.Write(ctx, 1, batch(at, n)))
				at += uint64(n)
			}
			b.ReportMetric(float64(at)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkCopy is what BenchmarkSink would be with COPY: the sink's statement without rows, and COPY of lines that are ready, in
// one transaction.
func BenchmarkCopy(b *testing.B) {
	s := durable(b)
	conn := s.connect(b)
	for _, n := range []int{10, 100, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o := SinkOptions{Access: s.access(), Table: wordTable(b, s), Identity: "bench"}
			o.EnsureDefaults()
			l, err := prepare(ctx, conn, &o, "bench")
			require.NoError(b, err)
			_, err = conn.Exec(ctx, l.sql.begin, 3)
			require.NoError(b, err)
			writes := int64(0)
			for b.Loop() {
				copyBatch(ctx, b, conn, l, writes, n)
				writes++
			}
			b.ReportMetric(float64(writes)*float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func copyBatch(ctx context.Context, b *testing.B, conn *pgx.Conn, l *layout, writes int64, n int) {
	w := batch(0, n)
	var lines bytes.Buffer
	for i := range n {
		fmt.Fprintf(&lines, "word%d\t%d\t2026-01-02T03:04:05.678Z\t3\t%d\n", i%100, i, writes*int64(n)+int64(i))
	}
	tx, err := conn.Begin(ctx)
	require.NoError(b, err)
	var moved int
	require.NoError(b, tx.QueryRow(ctx, l.sql.write, 3, 0, writes, 0, 0, 0, 0, 0, w.Delta, []string{}, 0).Scan(&moved))
	require.Equal(b, 1, moved)
	_, err = conn.PgConn().CopyFrom(ctx, &lines, "COPY "+l.table.String()+" FROM STDIN")
	require.NoError(b, err)
	require.NoError(b, tx.Commit(ctx))
}

// BenchmarkSource reads a table of a million rows by its key.
func BenchmarkSource(b *testing.B) {
	s := durable(b)
	const rows = 1000000
	s.exec(b, `CREATE TABLE source AS SELECT g::bigint AS id, 'word' || g % 100 AS word, now() AS at FROM generate_series(1, $1) g`, rows)
	s.exec(b, `ALTER TABLE source ADD PRIMARY KEY (id)`)
	source := Rows(SourceOptions{Access: s.access(), Table: "source", Key: "id", Splits: 1})
	split := splitsOf(b, source)[0]
	r, err := source.Open(ctx, split, 0)
	require.NoError(b, err)
	read := 0
	for b.Loop() {
		if read%rows == 0 && read > 0 {
			require.NoError(b, r.Close())
			r, err = source.Open(ctx, split, 0)
			require.NoError(b, err)
		}
		_, _, err := next[Row](b, r)
		require.NoError(b, err)
		read++
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "rows/s")
	require.NoError(b, r.Close())
}

// BenchmarkLatency writes a record at a time and waits until another session sees it.
func BenchmarkLatency(b *testing.B) {
	s := durable(b)
	table := wordTable(b, s)
	reader := s.connect(b)
	store := open(b, SinkOptions{Access: s.access(), Table: table, Identity: "bench"})
	defer store.Close()
	fence(b, store, 1)
	at, worst := uint64(0), time.Duration(0)
	for b.Loop() {
		began := time.Now()
		require.NoError(b, store.Write(ctx, 1, batch(at, 1)))
		at++
		var seen uint64
		require.NoError(b, reader.QueryRow(ctx, fmt.Sprintf("SELECT rows FROM %s__sink WHERE task = 3", table)).Scan(&seen))
		require.Equal(b, at, seen)
		worst = max(worst, time.Since(began))
	}
	b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
}

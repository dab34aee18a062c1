package postgres

import (
	"context"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/understudy-stream/understudy/operator"
)

// reader reads a split page by page. A goroutine asks the server, as long as it takes; Next gives what has come.
type reader struct {
	operator.Waits
	source  *Source
	split   split
	offset  uint64 // after the last row that Next gave
	page    page
	pages   chan page
	ready   chan struct{}
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// page is rows in order. The last page of a reader has an error.
type page struct {
	rows []Row
	err  error
}

func newReader(ctx context.Context, s *Source, sp split, from int64, offset uint64) *reader {
	r := &reader{source: s, split: sp, offset: offset, pages: make(chan page, 1), ready: make(chan struct{}, 1)}
	ctx, r.cancel = context.WithCancel(ctx)
	f := &fetcher{source: s, split: sp, call: r.Call(), session: s.session(), next: from, ended: offset > 0 && from-1 == sp.Last, settled: math.MinInt64}
	f.check = offset > 0 && !s.options.Follow
	r.running.Go(func() {
		defer f.session.close()
		for {
			p := f.fetch(ctx)
			select {
			case r.pages <- p:
			case <-ctx.Done():
				return
			}
			select {
			case r.ready <- struct{}{}:
			default: // it is set
			}
			if p.err != nil {
				return
			}
		}
	})
	return r
}

// Next implements operator.Reader.
func (r *reader) Next() (Row, uint64, error) {
	for len(r.page.rows) == 0 {
		if r.page.err != nil {
			return Row{}, r.offset, r.page.err
		}
		select {
		case r.page = <-r.pages:
		default:
			return Row{}, r.offset, operator.ErrNotReady
		}
	}
	row := r.page.rows[0]
	r.page.rows = r.page.rows[1:]
	r.offset = r.split.after(row.Key)
	return row, r.offset, nil
}

// Ready implements operator.Reader.
func (r *reader) Ready() <-chan struct{} { return r.ready }

// Close implements operator.Reader.
func (r *reader) Close() error {
	r.cancel()
	r.running.Wait()
	return nil
}

// fetcher asks the server for the pages of a split.
type fetcher struct {
	source  *Source
	call    *operator.Wait
	split   split
	session *session
	next    int64 // the first key that was not asked for
	ended   bool  // all keys of the split were asked for
	check   bool  // the row before next must be there
	settled int64 // following: rows up to this key are complete
	pending *horizon
}

// fetch gives a page that has rows or an error. It waits while there are none.
func (f *fetcher) fetch(ctx context.Context) (p page) {
	err := f.source.options.patient(ctx, f.call, func(ctx context.Context) error {
		for len(p.rows) == 0 {
			if f.ended {
				if f.split.Rows < 0 {
					return io.EOF
				}
				if err := f.session.do(ctx, f.compare); err != nil {
					return err
				}
				return io.EOF
			}
			err := f.session.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return f.more(ctx, conn, &p) })
			if err != nil {
				f.pending = nil // who was adding rows, a server that started again does not know
				return err
			}
			f.call.Say("") // rows that are yet to be added are no outage
			if len(p.rows) == 0 && !f.ended && !wait(ctx, f.source.options.Poll) {
				return ctx.Err()
			}
		}
		return nil
	})
	p.err = err
	return p
}

// more reads the next page, as far as rows are complete.
func (f *fetcher) more(ctx context.Context, conn *pgx.Conn, p *page) error {
	if f.check {
		if err := f.source.present(ctx, conn, f.next-1); err != nil {
			return err
		}
		f.check = false
	}
	last := f.split.Last
	if f.split.Rows < 0 {
		if f.settled < f.next {
			if err := f.advance(ctx, conn); err != nil {
				return err
			}
		}
		if last = min(last, f.settled); last < f.next {
			return nil
		}
	}
	rows, err := f.source.read(ctx, conn, f.next, last)
	if err != nil {
		return err
	}
	end := last
	if n := f.source.options.PageRows; len(rows) > n {
		rows, end = rows[:n], rows[n-1].Key
	}
	p.rows = rows
	if f.ended = end == f.split.Last; !f.ended {
		f.next = end + 1
	}
	return nil
}

// read gives the first rows with keys from first to last: one more than a page has, if there are so many.
func (s *Source) read(ctx context.Context, conn *pgx.Conn, first, last int64) ([]Row, error) {
	query := fmt.Sprintf(`SELECT %s::bigint, to_json(r)::text FROM %s WHERE %[1]s >= $1 AND %[1]s <= $2 ORDER BY %[1]s LIMIT $3`, s.key(), s.from())
	found, err := conn.Query(ctx, query, first, last, s.options.PageRows+1)
	if err != nil {
		return nil, err
	}
	rows, err := pgx.CollectRows(found, func(row pgx.CollectableRow) (r Row, err error) {
		err = row.Scan(&r.Key, &r.JSON)
		return r, err
	})
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(rows); i++ {
		if rows[i].Key == rows[i-1].Key {
			return nil, verdict{s.notUnique(rows[i].Key)}
		}
	}
	return rows, nil
}

// present makes sure that an offset is behind a row.
func (s *Source) present(ctx context.Context, conn *pgx.Conn, key int64) error {
	var there bool
	query := fmt.Sprintf(`SELECT EXISTS (SELECT FROM %s WHERE %s = $1)`, s.from(), s.key())
	if err := conn.QueryRow(ctx, query, key).Scan(&there); err != nil {
		return err
	}
	if !there {
		return verdict{fmt.Errorf("%w: there is no row with the key %d in %s", ErrOffset, key, s.input())}
	}
	return nil
}

// compare makes sure at a split's end that it has as many rows as when the job began.
func (f *fetcher) compare(ctx context.Context, conn *pgx.Conn) error {
	s := f.source
	var rows int64
	query := fmt.Sprintf(`SELECT count(*) FROM %s WHERE %s >= $1 AND %[2]s <= $2`, s.from(), s.key())
	if err := conn.QueryRow(ctx, query, f.split.First, f.split.Last).Scan(&rows); err != nil {
		return err
	}
	if rows != f.split.Rows {
		return verdict{fmt.Errorf("%w: %s has %d rows with keys from %d to %d, had %d", ErrChanged, s.input(), rows, f.split.First,
			f.split.Last, f.split.Rows)}
	}
	return nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Fence raises the fence in one transaction, which waits for a write under way, and then reads what is stored in another, so that
// nobody waits while much is read.
func (s *store) Fence(ctx context.Context, f operator.Fence) (stored operator.Stored, err error) {
	ctx, done, err := s.during(ctx)
	if err != nil {
		return stored, err
	}
	defer done()
	l, err := s.tables(ctx)
	if err != nil {
		return stored, err
	}
	err = s.options.patient(ctx, s.Call(), func(ctx context.Context) error {
		return s.side.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			defer s.unblock(ctx, conn)()
			return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
				return s.raise(ctx, tx, l, f)
			})
		})
	})
	if err != nil {
		return stored, err
	}
	err = s.options.patient(ctx, s.Call(), func(ctx context.Context) error {
		return s.side.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
			return pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) (err error) {
				stored, err = s.read(ctx, tx, l, f)
				return err
			})
		})
	})
	return stored, err
}

// raise moves the fence if f is beyond it. Doing it again changes nothing but the number of fences, so that it does not matter
// whether a commit whose answer was lost came to pass. That number keeps a Write that was given up from coming to pass after a
// Fence of the same incarnation has said where the output ends.
func (s *store) raise(ctx context.Context, tx pgx.Tx, l *layout, f operator.Fence) error {
	if _, err := tx.Exec(ctx, l.sql.begin, s.task); err != nil {
		return err
	}
	st, err := scan(tx.QueryRow(ctx, l.sql.lock, s.task))
	if err != nil {
		return err
	}
	if f.Incarnation < st.incarnation || f.Generation < st.generation {
		return verdict{s.behind(f, st)}
	}
	fresh := st.incarnation == 0
	newer := fresh || f.Incarnation > st.incarnation || f.Generation > st.generation
	switch {
	case !newer:
		f.Incarnation, f.Generation = st.incarnation, st.generation
	case f.Restart != nil:
		err = s.move(ctx, tx, l, &st, *f.Restart, st.rows)
	case f.Cut != nil && (fresh || f.Generation > st.generation):
		err = s.cut(ctx, tx, l, &st, f.Cut.Cursor)
	}
	if err != nil {
		return err
	}
	c := st.cursor
	_, err = tx.Exec(ctx, l.sql.raise, s.task, int64(f.Incarnation), int64(f.Generation), int64(c.Next), int64(c.Epoch), int64(c.Bytes),
		int64(c.CRC), st.rows, st.writes)
	return err
}

func (s *store) behind(f operator.Fence, st state) error {
	return fmt.Errorf("%w: fence for incarnation %d, generation %d of task %d, which is at %d, %d", operator.ErrFenced, f.Incarnation,
		f.Generation, s.task, st.incarnation, st.generation)
}

// cut takes the rows beyond a checkpoint away: the one place where visible output goes.
func (s *store) cut(ctx context.Context, tx pgx.Tx, l *layout, st *state, to determinant.Cursor) error {
	rows := int64(0)
	if to.Next > 0 {
		err := tx.QueryRow(ctx, l.sql.find, s.task, int64(to.Next)).Scan(&rows)
		if errors.Is(err, pgx.ErrNoRows) {
			return verdict{fmt.Errorf("%w: %s, task %d, cannot be cut to %v: no write ended there", ErrCorrupt, l.table, s.task, to)}
		}
		if err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, l.sql.cut, s.task, rows); err != nil {
		return err
	}
	return s.move(ctx, tx, l, st, to, rows)
}

// move lets the output go on from a cursor after so many rows. What was stored of determinants belongs to another past. Where it
// goes on from here is where a later rollback may cut.
func (s *store) move(ctx context.Context, tx pgx.Tx, l *layout, st *state, to determinant.Cursor, rows int64) error {
	if _, err := tx.Exec(ctx, l.sql.forget, s.task); err != nil {
		return err
	}
	st.cursor, st.rows, st.writes = to, rows, st.writes+1
	_, err := tx.Exec(ctx, l.sql.mark, s.task, st.writes, int64(to.Epoch), int64(to.Next), rows)
	return err
}

// read gives what is stored at one moment, if f is still the fence then.
func (s *store) read(ctx context.Context, tx pgx.Tx, l *layout, f operator.Fence) (stored operator.Stored, err error) {
	st, err := scan(tx.QueryRow(ctx, l.sql.state, s.task))
	if err != nil {
		return stored, err
	}
	if st.incarnation != f.Incarnation || st.generation != f.Generation {
		return stored, verdict{s.behind(f, st)}
	}
	rows, err := tx.Query(ctx, l.sql.deltas, s.task)
	if err != nil {
		return stored, err
	}
	stored.Cursor = st.cursor
	stored.Deltas, err = pgx.CollectRows(rows, pgx.RowTo[[]byte])
	return stored, err
}

// unblock ends sessions of sinks that keep conn waiting and have not been heard of as long as there is patience, until the
// returned function is called: their process may have been stopped, or cut off, between a statement and the end of its
// transaction. Sessions that are at work, and those of others, are waited for.
func (s *store) unblock(ctx context.Context, conn *pgx.Conn) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	pid := conn.PgConn().PID()
	running.Go(func() {
		helper := session{access: &s.options.Access, name: sessionName, bound: s.options.call}
		defer helper.close()
		for wait(ctx, s.options.Patience) {
			if err := s.terminate(ctx, &helper, pid); err != nil && ctx.Err() == nil && s.options.Waiting != nil {
				s.options.Waiting(err)
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

func (s *store) terminate(ctx context.Context, helper *session, blocked uint32) error {
	return helper.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
			WHERE a.pid = ANY (pg_blocking_pids($1::integer)) AND a.application_name = $2 AND a.usename = current_user
			AND a.wait_event_type = 'Client' AND a.state_change < clock_timestamp() - $3::bigint * interval '1 microsecond'`,
			int32(blocked), sessionName, s.options.Patience.Microseconds())
		return err
	})
}

package outside

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/understudy-stream/understudy/connector/postgres"
	"github.com/understudy-stream/understudy/operator"
)

// table is one of PostgreSQL.
type table struct {
	options postgres.SinkOptions
	tasks   int
}

// newTable takes records whole: the sink makes the table.
func newTable(url, suffix string, tasks int) (*table, error) {
	options, err := postgres.SinkFromURL(url)
	if err != nil {
		return nil, err
	}
	if strings.Contains(options.Table, `"`) {
		return nil, fmt.Errorf("outside: the table %s: want a name without quotes", options.Table)
	}
	options.Table += suffix
	if options.Column == "" {
		options.Column, options.Columns = "record", nil
	}
	return &table{options, tasks}, nil
}

func (t *table) Causal() operator.CausalSink { return postgres.Sink(t.options) }

func (t *table) Transactional() operator.TransactionalSink { return nil }

// pollEvery is how often a table is asked for more.
const pollEvery = 2 * time.Millisecond

// errRowMissing says that a row was there and the one before it was not.
var errRowMissing = errors.New("outside: a row is missing before one that can be seen")

// Follow asks again and again, each time in a snapshot of its own, for the rows behind those that it has.
func (t *table) Follow(ctx context.Context, see See) error {
	conn, err := t.options.Access.Connect(ctx, "a reader from outside")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it was only read
	sql := fmt.Sprintf(`SELECT %s, %s::text FROM %s WHERE %s = $1 AND %[1]s >= $2 ORDER BY %[1]s`,
		quoted(t.options.RowColumn), quoted(t.options.Column), quoted(strings.Split(t.options.Table, ".")...), quoted(t.options.TaskColumn))
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	next := make([]int64, t.tasks)
	for {
		for task := range next {
			if err := follow(ctx, conn, sql, task, &next[task], see); err != nil {
				return ended(ctx, err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func follow(ctx context.Context, conn *pgx.Conn, sql string, task int, next *int64, see See) error {
	rows, err := conn.Query(ctx, sql, task, *next)
	if err != nil {
		return notThere(err)
	}
	defer rows.Close()
	part := partName(task)
	for rows.Next() {
		at := time.Now()
		var row int64
		var record []byte
		if err := rows.Scan(&row, &record); err != nil {
			return err
		}
		if row != *next {
			return fmt.Errorf("%w: row %d of task %d, and not row %d", errRowMissing, row, task, *next)
		}
		*next++
		if err := see(part, record, at); err != nil {
			return err
		}
	}
	return notThere(rows.Err())
}

// notThere passes over the error of a table that has not been made yet.
func notThere(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && e.Code == "42P01" {
		return nil
	}
	return err
}

func quoted(name ...string) string { return pgx.Identifier(name).Sanitize() }

func (t *table) Remove(ctx context.Context) error {
	conn, err := t.options.Access.Connect(ctx, "a reader from outside")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the session has nothing open
	for _, of := range []string{"", "__job", "__sink", "__determinants"} {
		name := quoted(strings.Split(t.options.Table+of, ".")...)
		if _, derr := conn.Exec(ctx, "DROP TABLE IF EXISTS "+name); derr != nil {
			err = errors.Join(err, derr)
		}
	}
	return err
}

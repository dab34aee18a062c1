package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/understudy-stream/understudy/operator"
)

// Row is one row of a table or query.
type Row struct {
	Key  int64
	JSON string // the row as a JSON object, by the server's to_json; times are in UTC
}

// SourceOptions says what a source reads. URL, Key, and Table or Query are required.
type SourceOptions struct {
	Access
	// Table is the table that is read, as in SinkOptions. Or Query is a query, which must give the same rows whenever it is run.
	Table, Query string
	// Columns are what a row has besides its key. Default: all. Of a table only.
	Columns []string
	// Key is the column that gives the order: a whole number (smallint, integer, bigint), unique, never null. It should have an
	// index. Keys of other types are not supported.
	Key string
	// Splits is how many ranges of keys the rows are cut into, of about as many rows each. Default 16. Every split that is being
	// read has a connection.
	Splits int
	// PageRows is how many rows one query asks for. Default 1000.
	PageRows int
	// Follow makes a source without an end: it waits for rows that are added. See docs/connectors/postgres.md for the rule by which
	// no row is passed over. The key must be a column GENERATED ALWAYS AS IDENTITY, unless TrustKeys is set.
	Follow bool
	// TrustKeys vouches for what a column that is generated always makes sure of: each row's key is drawn within the INSERT
	// that adds the row, from a sequence that only rises and caches nothing.
	TrustKeys bool
	// Poll is how often a source that follows looks for more. Default 20 ms.
	Poll time.Duration
}

// EnsureDefaults fills in what is zero.
func (o *SourceOptions) EnsureDefaults() {
	o.Access.EnsureDefaults()
	if o.Splits == 0 {
		o.Splits = 16
	}
	if o.PageRows == 0 {
		o.PageRows = 1000
	}
	if o.Poll == 0 {
		o.Poll = 20 * time.Millisecond
	}
}

// Validate tells what is wrong with the options.
func (o *SourceOptions) Validate() error {
	if err := o.Access.Validate(); err != nil {
		return err
	}
	switch {
	case (o.Table == "") == (o.Query == ""):
		return errors.New("postgres: a source needs a table or a query")
	case o.Key == "":
		return errors.New("postgres: a source needs a key")
	case o.Query != "" && len(o.Columns) > 0:
		return errors.New("postgres: a query says itself which columns it has")
	case o.Query != "" && o.Follow:
		return fmt.Errorf("%w: a query has no lock to see by who is adding rows", ErrFollow)
	case o.Splits < 0 || o.PageRows < 0 || o.Poll < 0:
		return fmt.Errorf("postgres: negative option: %d splits, %d rows, poll every %v", o.Splits, o.PageRows, o.Poll)
	}
	if o.Table == "" {
		return nil
	}
	_, err := parseName(o.Table)
	return err
}

// Source reads the rows of a table or query in the order of a key. It implements operator.Source[Row].
type Source struct{ options SourceOptions }

var (
	_ operator.Source[Row] = (*Source)(nil)
	_ operator.InputNamer  = (*Source)(nil)
)

// Rows reads rows. A row must not change, go, or get in between others while the job is not finished; a range that has another
// number of rows at its end than when the job began is ErrChanged. Rows added behind the last key are not read, unless the
// source follows.
func Rows(o SourceOptions) *Source {
	o.EnsureDefaults()
	return &Source{options: o}
}

const sourceSession = "understudy source"

func (s *Source) session() *session {
	return &session{access: &s.options.Access, name: sourceSession}
}

// input is the table or query as it stands in a split's identity.
func (s *Source) input() string {
	if s.options.Query != "" {
		return s.options.Query
	}
	n, err := parseName(s.options.Table)
	if err != nil {
		return s.options.Table // Validate refuses it
	}
	return n.String()
}

// from is what a FROM clause selects from, under the name r.
func (s *Source) from() string {
	if s.options.Query != "" {
		return "(" + strings.TrimRight(s.options.Query, "; \t\n") + "\n) AS r"
	}
	columns := "*"
	if len(s.options.Columns) > 0 {
		var names []string
		for _, c := range append([]string{s.options.Key}, s.options.Columns...) {
			if len(names) == 0 || c != s.options.Key {
				names = append(names, quote(c))
			}
		}
		columns = strings.Join(names, ", ")
	}
	return "(SELECT " + columns + " FROM " + s.input() + ") AS r"
}

func (s *Source) key() string { return "r." + quote(s.options.Key) }

// Splits cuts the rows that are there into ranges of keys. Of a table that could be followed, it first waits for transactions
// that are adding rows. It waits for the server.
func (s *Source) Splits(ctx context.Context) ([]string, error) {
	if err := s.options.Validate(); err != nil {
		return nil, err
	}
	session := s.session()
	defer session.close()
	var splits []split
	err := s.options.patient(ctx, new(operator.Waits).Call(), func(ctx context.Context) error {
		return session.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			splits, err = s.cut(ctx, conn)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(splits))
	for i := range splits {
		names[i] = splits[i].String()
	}
	return names, nil
}

// cut cuts the rows that are there.
func (s *Source) cut(ctx context.Context, conn *pgx.Conn) (splits []split, err error) {
	if err := s.checkKey(ctx, conn); err != nil {
		return nil, err
	}
	first, why, err := s.followable(ctx, conn)
	switch {
	case err != nil:
		return nil, err
	case why != nil && s.options.Follow:
		return nil, verdict{why}
	case why == nil:
		if err := s.settle(ctx, conn); err != nil {
			return nil, err
		}
	}
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		splits, err = s.list(ctx, tx)
		if err == nil && s.options.Follow {
			splits = s.followed(splits, first)
		}
		return err
	})
	return splits, err
}

// checkKey makes sure that the key is a whole number.
func (s *Source) checkKey(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, fmt.Sprintf(`SELECT %s, r.* FROM %s LIMIT 0`, s.key(), s.from()))
	if err != nil {
		return err
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	switch rows.FieldDescriptions()[0].DataTypeOID {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		return nil
	}
	return verdict{fmt.Errorf("%w: %s of %s is no smallint, integer or bigint; no other keys are supported", ErrKey,
		quote(s.options.Key), s.input())}
}

// list cuts what a transaction sees.
func (s *Source) list(ctx context.Context, tx pgx.Tx) ([]split, error) {
	var null bool
	query := fmt.Sprintf(`SELECT EXISTS (SELECT FROM %s WHERE %s IS NULL)`, s.from(), s.key())
	if err := tx.QueryRow(ctx, query).Scan(&null); err != nil {
		return nil, err
	}
	if null {
		return nil, verdict{fmt.Errorf("%w: %s of %s is null in some row", ErrKey, quote(s.options.Key), s.input())}
	}
	query = fmt.Sprintf(`SELECT min(k), max(k), count(*) FROM (
			SELECT %s::bigint AS k, row_number() OVER (ORDER BY %[1]s) - 1 AS n, count(*) OVER () AS total FROM %s) AS keys
		GROUP BY n * $1::bigint / total ORDER BY 1, 2`, s.key(), s.from())
	rows, err := tx.Query(ctx, query, s.options.Splits)
	if err != nil {
		return nil, err
	}
	splits, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (split, error) {
		sp := split{Input: s.input(), Key: s.options.Key}
		err := row.Scan(&sp.First, &sp.Last, &sp.Rows)
		return sp, err
	})
	if err != nil {
		return nil, err
	}
	for i := 1; i < len(splits); i++ {
		if splits[i].First <= splits[i-1].Last {
			return nil, verdict{s.notUnique(splits[i].First)}
		}
		splits[i].First = splits[i-1].Last + 1 // without gaps, so that a row that gets in between is noticed
	}
	return splits, nil
}

func (s *Source) notUnique(key int64) error {
	return fmt.Errorf("%w: %s of %s is %d in several rows", ErrKey, quote(s.options.Key), s.input(), key)
}

// followed makes the splits of a source that follows: the last has no end, and every key from the first possible one on is in one.
func (s *Source) followed(splits []split, first int64) []split {
	if len(splits) == 0 {
		return []split{{Input: s.input(), Key: s.options.Key, First: first, Last: math.MaxInt64, Rows: -1}}
	}
	for i := range splits {
		splits[i].Rows = -1
	}
	splits[0].First = min(first, splits[0].First)
	splits[len(splits)-1].Last = math.MaxInt64
	return splits
}

// InputOf implements operator.InputNamer: it names the range and its rows.
func (s *Source) InputOf(identity string) string {
	if s.options.Follow {
		return s.input() // it goes on for ever
	}
	return identity
}

// Open reads a split from an offset. It does not wait for the server.
func (s *Source) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[Row], error) {
	r, err := s.open(ctx, identity, offset)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *Source) open(ctx context.Context, identity string, offset uint64) (*reader, error) {
	if err := s.options.Validate(); err != nil {
		return nil, err
	}
	sp, err := parseSplit(identity)
	if err != nil {
		return nil, err
	}
	if sp.Input != s.input() || sp.Key != s.options.Key || sp.Rows < 0 != s.options.Follow {
		return nil, fmt.Errorf("postgres: the split is one of another source: %s", identity)
	}
	from, ok := sp.from(offset)
	if !ok {
		return nil, fmt.Errorf("%w: %d of %s", ErrOffset, offset, identity)
	}
	return newReader(ctx, s, sp, from, offset), nil
}

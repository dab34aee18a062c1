package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// formatVersion is that of the sink's own tables.
const formatVersion = 1

// once is for statements that a session runs once: the server need not keep them.
const once = pgx.QueryExecModeExec

// layout is what the sink knows of its tables: the user's, and its own beside it.
//
//	T                the user's rows; which task a row comes from, and which of its rows it is
//	T__job           whose output it is, one row
//	T__sink          one row per task: who may write, and where the output ends. It is locked by whoever writes or fences
//	T__determinants  one row per write: its determinants, and where the output ended with it
type layout struct {
	table  name
	column string          // that takes whole records, with its type
	kind   string          //
	fields map[string]bool // columns that take fields, if column is empty
	sql    statements
}

// column is one of the user's table.
type column struct {
	name, kind           string
	hasDefault, computed bool
}

// prepare finds or makes the tables, and makes sure that they are this job's.
func prepare(ctx context.Context, conn *pgx.Conn, o *SinkOptions, identity string) (*layout, error) {
	var l *layout
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
		l, err = prepareIn(ctx, tx, o, identity)
		return err
	})
	return l, err
}

func prepareIn(ctx context.Context, tx pgx.Tx, o *SinkOptions, identity string) (*layout, error) {
	wanted, err := parseName(o.Table)
	if err != nil {
		return nil, verdict{err}
	}
	// Two processes that make the tables at the same time would make one of them fail.
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('understudy sink', 0))`, once); err != nil {
		return nil, err
	}
	table, err := find(ctx, tx, wanted)
	if errors.Is(err, pgx.ErrNoRows) {
		if table, err = create(ctx, tx, wanted, o); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	columns, err := columnsOf(ctx, tx, table)
	if err != nil {
		return nil, err
	}
	l := &layout{table: table}
	if err := l.choose(columns, o); err != nil {
		return nil, verdict{err}
	}
	if l.sql, err = l.statements(columns, o); err != nil {
		return nil, verdict{err}
	}
	return l, l.claim(ctx, tx, o, identity)
}

// find gives the full name of a table that is there.
func find(ctx context.Context, tx pgx.Tx, wanted name) (found name, err error) {
	var kind string
	err = tx.QueryRow(ctx, `SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = to_regclass($1)`, once, wanted.String()).Scan(&found.schema, &found.table, &kind)
	if err == nil && kind != "r" && kind != "p" {
		err = verdict{fmt.Errorf("%w: %s is no table", ErrTable, wanted)}
	}
	return found, err
}

// create makes the table of a sink that shows whole records.
func create(ctx context.Context, tx pgx.Tx, wanted name, o *SinkOptions) (name, error) {
	if o.Column == "" {
		return name{}, verdict{fmt.Errorf("%w: there is no table %s: make one with the columns of the records, or name a Column "+
			"that is to take them whole", ErrTable, wanted)}
	}
	_, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE %s (%s integer NOT NULL, %s bigint NOT NULL, %s jsonb NOT NULL, PRIMARY KEY (%[2]s, %[3]s))`,
		wanted, quote(o.TaskColumn), quote(o.RowColumn), quote(o.Column)))
	if err != nil {
		return name{}, err
	}
	return find(ctx, tx, wanted)
}

func columnsOf(ctx context.Context, tx pgx.Tx, table name) ([]column, error) {
	rows, err := tx.Query(ctx, `SELECT attname, format_type(atttypid, atttypmod), atthasdef OR attidentity <> '', attgenerated <> ''
		FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, once, table.String())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c column, err error) {
		err = row.Scan(&c.name, &c.kind, &c.hasDefault, &c.computed)
		return c, err
	})
}

// choose decides which columns take what.
func (l *layout) choose(columns []column, o *SinkOptions) error {
	kinds := map[string]string{}
	for _, c := range columns {
		kinds[c.name] = c.kind
	}
	if !slices.Contains([]string{"integer", "bigint"}, kinds[o.TaskColumn]) || kinds[o.RowColumn] != "bigint" {
		return fmt.Errorf("%w: %s needs two columns that say where a row comes from: ALTER TABLE %[2]s ADD %s integer, ADD %s bigint",
			ErrTable, l.table, quote(o.TaskColumn), quote(o.RowColumn))
	}
	if o.Column != "" {
		l.column, l.kind = o.Column, kinds[o.Column]
		if !slices.Contains([]string{"json", "jsonb", "text", "bytea"}, l.kind) {
			return fmt.Errorf("%w: column %s of %s is to take whole records, and is not of type json, jsonb, text or bytea (%q)",
				ErrTable, quote(o.Column), l.table, l.kind)
		}
		return nil
	}
	l.fields = map[string]bool{}
	for _, c := range columns {
		own := c.name == o.TaskColumn || c.name == o.RowColumn
		if !own && !c.computed && (slices.Contains(o.Columns, c.name) || len(o.Columns) == 0 && !c.hasDefault) {
			l.fields[c.name] = true
		}
	}
	for _, wanted := range o.Columns {
		if !l.fields[wanted] {
			return fmt.Errorf("%w: %s has no column %s that takes a value", ErrTable, l.table, quote(wanted))
		}
	}
	if len(l.fields) == 0 {
		return fmt.Errorf("%w: %s has no column for the fields of a record", ErrTable, l.table)
	}
	return nil
}

// claim makes the sink's own tables if they are not there, and tells whose they are.
func (l *layout) claim(ctx context.Context, tx pgx.Tx, o *SinkOptions, identity string) error {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, once, l.sql.job).Scan(&exists); err != nil {
		return err
	}
	if !exists {
		var foreign bool
		query := fmt.Sprintf(`SELECT EXISTS (SELECT FROM %s WHERE %s IS NOT NULL)`, l.table, quote(o.RowColumn))
		if err := tx.QueryRow(ctx, query, once).Scan(&foreign); err != nil {
			return err
		}
		if foreign {
			return verdict{fmt.Errorf("%w: %s has rows with a %s, but there is no %s: nothing was written", ErrForeign, l.table,
				quote(o.RowColumn), l.sql.job)}
		}
		for _, ddl := range l.sql.ddl {
			if _, err := tx.Exec(ctx, ddl, once); err != nil {
				return err
			}
		}
	}
	if _, err := tx.Exec(ctx, l.sql.enter, once, identity, formatVersion); err != nil {
		return err
	}
	var owner string
	var format int
	if err := tx.QueryRow(ctx, l.sql.owner, once).Scan(&owner, &format); err != nil {
		return err
	}
	switch {
	case format != formatVersion:
		return verdict{fmt.Errorf("%w: %s has format %d, this program knows %d", ErrTable, l.sql.job, format, formatVersion)}
	case owner != identity:
		return verdict{fmt.Errorf("%w: %s has the output of job %q, this is job %q: nothing was written", ErrJob, l.table, owner, identity)}
	}
	return nil
}

// statements are the sink's SQL.
type statements struct {
	job                     string // name of a table
	ddl                     []string
	enter, owner            string
	begin, lock, raise      string
	find, cut, forget, mark string
	state, deltas, write    string
	commit, prune           string
}

func (l *layout) statements(columns []column, o *SinkOptions) (s statements, err error) {
	var names [3]string
	for i, suffix := range []string{"__job", "__sink", "__determinants"} {
		n, err := l.table.beside(suffix)
		if err != nil {
			return s, err
		}
		names[i] = n.String()
	}
	s.job = names[0]
	r := strings.NewReplacer("{table}", l.table.String(), "{job}", names[0], "{sink}", names[1], "{determinants}", names[2],
		"{task}", quote(o.TaskColumn), "{row}", quote(o.RowColumn))
	s.ddl = []string{
		r.Replace(`CREATE TABLE {job} (one boolean PRIMARY KEY CHECK (one), identity text NOT NULL, format integer NOT NULL)`),
		r.Replace(`CREATE TABLE {sink} (task integer PRIMARY KEY, incarnation bigint NOT NULL, generation bigint NOT NULL,
			next bigint NOT NULL, epoch bigint NOT NULL, bytes bigint NOT NULL, crc bigint NOT NULL,
			rows bigint NOT NULL, writes bigint NOT NULL, fences bigint NOT NULL,
			committed bigint NOT NULL, before bigint NOT NULL) WITH (fillfactor = 20)`),
		r.Replace(`CREATE TABLE {determinants} (task integer NOT NULL, number bigint NOT NULL, epoch bigint NOT NULL, next bigint NOT NULL,
			rows bigint NOT NULL, delta bytea, PRIMARY KEY (task, number))`),
	}
	s.enter = r.Replace(`INSERT INTO {job} VALUES (true, $1, $2) ON CONFLICT DO NOTHING`)
	s.owner = r.Replace(`SELECT identity, format FROM {job}`)
	s.begin = r.Replace(`INSERT INTO {sink} VALUES ($1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING`)
	s.state = r.Replace(`SELECT incarnation, generation, next, epoch, bytes, crc, rows, writes, fences FROM {sink} WHERE task = $1`)
	s.lock = s.state + ` FOR UPDATE`
	s.raise = r.Replace(`UPDATE {sink} SET incarnation = $2, generation = $3, next = $4, epoch = $5, bytes = $6, crc = $7, rows = $8,
		writes = $9, fences = fences + 1 WHERE task = $1`)
	s.find = r.Replace(`SELECT rows FROM {determinants} WHERE task = $1 AND next = $2 ORDER BY number DESC LIMIT 1`)
	s.cut = r.Replace(`DELETE FROM {table} WHERE {task} = $1 AND {row} >= $2`)
	s.forget = r.Replace(`DELETE FROM {determinants} WHERE task = $1`)
	s.mark = r.Replace(`INSERT INTO {determinants} VALUES ($1, $2, $3, $4, $5, NULL)`)
	s.deltas = r.Replace(`SELECT delta FROM {determinants} WHERE task = $1 AND delta IS NOT NULL ORDER BY number`)
	s.commit = r.Replace(`UPDATE {sink} SET before = committed, committed = $2 WHERE task = $1 AND committed < $2`)
	s.prune = r.Replace(`DELETE FROM {determinants} d USING {sink} s WHERE s.task = $1 AND d.task = $1 AND d.epoch <= s.before`)
	s.write = r.Replace(`WITH fence AS (
			UPDATE {sink} SET next = $4, epoch = $5, bytes = $6, crc = $7, rows = rows + $8::bigint, writes = writes + 1
			WHERE task = $1::integer AND incarnation = $2 AND writes = $3::bigint AND fences = $11 RETURNING rows - $8::bigint AS first),
		stored AS (INSERT INTO {determinants} SELECT $1::integer, $3::bigint + 1, $5, $4, first + $8::bigint, $9::bytea FROM fence),
		shown AS (INSERT INTO {table} ({task}, {row}, ` + l.targets(columns) + `)
			SELECT $1::integer, first + record.ordinal - 1, ` + l.values(columns) + `)
		SELECT count(*) FROM fence`)
	return s, nil
}

// targets lists the columns that a write fills.
func (l *layout) targets(columns []column) string {
	var names []string
	for _, c := range columns {
		if l.column == c.name || l.fields[c.name] {
			names = append(names, quote(c.name))
		}
	}
	return strings.Join(names, ", ")
}

// values is what they are filled with, and where that comes from: $10 has the records.
func (l *layout) values(columns []column) string {
	switch {
	case l.kind == "bytea":
		return `record.whole FROM fence, unnest($10::bytea[]) WITH ORDINALITY AS record (whole, ordinal)`
	case l.column != "":
		return `record.whole::` + l.kind + ` FROM fence, unnest($10::text[]) WITH ORDINALITY AS record (whole, ordinal)`
	}
	var names, typed []string
	for _, c := range columns {
		if l.fields[c.name] {
			names = append(names, "field."+quote(c.name))
			typed = append(typed, quote(c.name)+" "+c.kind)
		}
	}
	return strings.Join(names, ", ") + ` FROM fence, unnest($10::text[]) WITH ORDINALITY AS record (whole, ordinal), ` +
		`jsonb_to_record(record.whole::jsonb) AS field (` + strings.Join(typed, ", ") + `)`
}

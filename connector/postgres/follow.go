package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// A table is followed up to its horizon, a key up to which its rows are complete. A row that is committed late may have a smaller
// key than one that was read already: keys are handed out when a row is inserted, and rows are seen when they are committed.
//
// The rule is that of CREATE INDEX CONCURRENTLY. An INSERT takes the table's lock (ROW EXCLUSIVE, or a stronger one was taken
// before) when it is analysed, and draws its key from the sequence later, when it runs; the lock is held to the end of the
// transaction, and let go after the transaction's rows can be seen. Let h be the greatest key that can be seen at some moment. A
// row with a smaller key drew it before that moment, since the sequence rises, and its transaction had the lock by then. So once
// all transactions have ended that had the lock after that moment, all rows up to h can be seen that ever will be. Looking at
// the transactions' ids (xmin) would not do: a transaction gets its id only after it has drawn a key.
//
// Invariant: no row with a key up to fetcher.settled is committed after it was set.

// horizon is a key, and who may yet commit rows below it.
type horizon struct {
	key     int64
	writers []string // virtual transactions
}

// look gives the greatest key that can be seen, and then who has the table's lock. The key is that of the statement's snapshot,
// which is taken before the locks are looked at. The table's partitions and heirs are looked at with it.
func (s *Source) look(ctx context.Context, conn *pgx.Conn) (h *horizon, err error) {
	query := fmt.Sprintf(`WITH RECURSIVE tree (id) AS (
			SELECT $1::text::regclass::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.id)
		SELECT (SELECT max(%s)::bigint FROM %s), ARRAY (
			SELECT DISTINCT l.virtualtransaction FROM pg_locks l JOIN tree ON l.relation = tree.id
			WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))`, s.key(), s.from())
	var key *int64
	h = &horizon{}
	if err := conn.QueryRow(ctx, query, s.input()).Scan(&key, &h.writers); err != nil {
		return nil, err
	}
	if key == nil {
		return nil, nil
	}
	h.key = *key
	return h, nil
}

// advance sets settled if it can be moved.
func (f *fetcher) advance(ctx context.Context, conn *pgx.Conn) error {
	seen, err := f.source.look(ctx, conn)
	if err != nil || seen == nil {
		return err
	}
	if f.pending != nil {
		f.pending.wait(seen)
		if len(f.pending.writers) > 0 {
			return nil
		}
		f.settled, f.pending = max(f.settled, f.pending.key), nil
	}
	if seen.key > f.settled {
		f.pending = seen
		if len(seen.writers) == 0 {
			f.settled, f.pending = seen.key, nil
		}
	}
	return nil
}

// wait strikes out the writers that have ended by the time that a later look was taken.
func (h *horizon) wait(later *horizon) {
	h.writers = slices.DeleteFunc(h.writers, func(w string) bool { return !slices.Contains(later.writers, w) })
}

// settle waits until all rows can be seen that have a smaller key than the greatest that can be seen now.
func (s *Source) settle(ctx context.Context, conn *pgx.Conn) error {
	h, err := s.look(ctx, conn)
	for err == nil && h != nil && len(h.writers) > 0 {
		if !wait(ctx, s.options.Poll) {
			return ctx.Err()
		}
		var later *horizon
		if later, err = s.look(ctx, conn); later != nil {
			h.wait(later)
		}
	}
	return err
}

// followable tells why a table cannot be followed exactly, nil if it can, and from which key on.
func (s *Source) followable(ctx context.Context, conn *pgx.Conn) (first int64, why, err error) {
	if s.options.Query != "" {
		return 0, fmt.Errorf("%w: a query has no lock to see by who is adding rows", ErrFollow), nil
	}
	var identity, kind string
	var standby bool
	err = conn.QueryRow(ctx, `SELECT a.attidentity::text, c.relkind::text, pg_is_in_recovery() FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE a.attrelid = $1::text::regclass AND a.attname = $2`, s.input(), s.options.Key).Scan(&identity, &kind, &standby)
	if err != nil {
		return 0, nil, err
	}
	refuse := func(why string) (int64, error, error) {
		return 0, fmt.Errorf("%w: %s by %s: %s", ErrFollow, s.input(), quote(s.options.Key), why), nil
	}
	switch {
	case kind != "r" && kind != "p":
		return refuse("it is no table")
	case standby:
		return refuse("the server is a standby, and the locks of those who add rows are at the primary")
	case identity != "a" && !s.options.TrustKeys:
		return refuse("the key is not GENERATED ALWAYS AS IDENTITY, so that a row may be added with a key below one that was read")
	}
	var increment, cache int64
	var cycle bool
	err = conn.QueryRow(ctx, `SELECT seqmin, seqincrement, seqcache, seqcycle FROM pg_sequence
		WHERE seqrelid = pg_get_serial_sequence($1, $2)::regclass`, s.input(), s.options.Key).Scan(&first, &increment, &cache, &cycle)
	switch {
	case errors.Is(err, pgx.ErrNoRows) && identity != "a":
		return 1, nil, nil // vouched for
	case err != nil:
		return 0, nil, err
	case increment <= 0 || cycle:
		return refuse("its sequence does not only rise")
	case cache != 1:
		return refuse(fmt.Sprintf("its sequence hands out %d keys at a time, and who has got them may use them late", cache))
	}
	return first, nil, nil
}

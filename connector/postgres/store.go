package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// sessionName is the application_name of a sink's sessions: a Fence ends no others.
const sessionName = "understudy sink"

// store is the output of one sink task. Two sessions, so that a Fence does not wait for a Write of this process that waits for
// the server.
type store struct {
	operator.Waits
	sink     *Output
	options  *SinkOptions
	identity string
	task     int
	life     context.Context // ends with Close
	end      context.CancelCauseFunc
	closed   sync.Once
	writer   session
	side     session // for all but writing

	layout struct { // set once
		sync.Mutex
		*layout
	}
	mu struct { // held during a Write
		sync.Mutex
		known *state // where the last Write left the output; nil: ask
	}
}

// state is a task's row of the sink's own table.
type state struct {
	incarnation determinant.Incarnation
	generation  determinant.Generation
	cursor      determinant.Cursor
	rows        int64 // that the task has shown
	writes      int64 // changes of the output and its cursor, ever: no two states of the output have the same
	fences      int64 // calls of Fence, ever
}

var (
	_ operator.CausalStore = (*store)(nil)
	_ operator.Waiter      = (*store)(nil)
)

func newStore(sink *Output, identity string, task int) *store {
	s := &store{sink: sink, options: &sink.options, identity: identity, task: task}
	s.life, s.end = context.WithCancelCause(context.Background())
	for _, session := range []*session{&s.writer, &s.side} {
		session.access, session.name, session.bound, session.step = &s.options.Access, sessionName, s.options.call, s.options.step
		session.settings = map[string]string{"synchronous_commit": s.options.SynchronousCommit, "default_transaction_read_only": "off"}
	}
	return s
}

// during ties a call to the store's life.
func (s *store) during(ctx context.Context) (context.Context, func(), error) {
	if s.life.Err() != nil {
		return nil, nil, os.ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(os.ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }, nil
}

// Close ends calls that are under way.
func (s *store) Close() error {
	s.closed.Do(func() {
		s.end(os.ErrClosed)
		s.writer.close()
		s.side.close()
		s.sink.release()
	})
	return nil
}

// tables finds out about the tables once.
func (s *store) tables(ctx context.Context) (*layout, error) {
	s.layout.Lock()
	defer s.layout.Unlock()
	if s.layout.layout != nil {
		return s.layout.layout, nil
	}
	err := s.options.patient(ctx, s.Call(), func(ctx context.Context) error {
		return s.side.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			defer s.unblock(ctx, conn)()
			s.layout.layout, err = prepare(ctx, conn, s.options, s.identity)
			return err
		})
	})
	if err != nil {
		s.layout.layout = nil
	}
	return s.layout.layout, err
}

// scan reads a task's row.
func scan(row pgx.Row) (st state, err error) {
	var incarnation, generation, next, epoch, bytes, crc int64
	if err = row.Scan(&incarnation, &generation, &next, &epoch, &bytes, &crc, &st.rows, &st.writes, &st.fences); err != nil {
		return st, err
	}
	st.incarnation, st.generation = determinant.Incarnation(incarnation), determinant.Generation(generation)
	st.cursor = determinant.Cursor{Next: determinant.Seq(next), Epoch: determinant.Epoch(epoch), Bytes: uint64(bytes), CRC: uint32(crc)}
	return st, nil
}

// Write shows a batch. Its statement moves the task's row from the state that the writer knows to the next, and only if it
// did, stores the determinants and the rows. So it does not matter when the statement of a try that was given up reaches the
// server: after another try, or a Fence, the state is another one.
func (s *store) Write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	ctx, done, err := s.during(ctx)
	if err != nil {
		return err
	}
	defer done()
	l, err := s.tables(ctx)
	if err != nil {
		return err
	}
	records, err := l.encode(w.Records)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &attempt{incarnation: incarnation, write: &w, records: records, tried: -1}
	return s.options.patient(ctx, s.Call(), func(ctx context.Context) error {
		return s.writer.do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return s.write(ctx, conn, l, a) })
	})
}

// attempt is a Write under way.
type attempt struct {
	incarnation determinant.Incarnation
	write       *operator.StoreWrite
	records     any   // as the statement takes them
	tried       int64 // the state.writes that a statement began from whose outcome is not known, -1 if there is none
}

// write makes one try: in one statement from the state that is known, and if there is none, or it is out of date, in a transaction
// that locks the task's row and so finds it as it is. Only that is a reason to refuse.
func (s *store) write(ctx context.Context, conn *pgx.Conn, l *layout, a *attempt) error {
	known := s.mu.known
	s.mu.known = nil // until the outcome is known
	if known != nil && s.refuse(l, a, known) == nil {
		next, err := s.step(ctx, conn, l, a, known)
		if err != nil {
			return err
		}
		if next != nil {
			s.mu.known = next
			return nil
		}
	}
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
		known, err = s.locked(ctx, tx, l, a)
		return err
	})
	if err == nil {
		s.mu.known = known
	}
	return err
}

// locked is a write in a transaction. It gives the state that it leaves.
func (s *store) locked(ctx context.Context, tx pgx.Tx, l *layout, a *attempt) (*state, error) {
	st, err := scan(tx.QueryRow(ctx, l.sql.lock, s.task))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, verdict{fmt.Errorf("%w: incarnation %d of task %d", ErrUnfenced, a.incarnation, s.task)}
	}
	if err != nil {
		return nil, err
	}
	if a.tried >= 0 && a.incarnation == st.incarnation && st.writes == a.tried+1 && st.cursor == a.write.End {
		return &st, nil // it was done, and only the answer was lost
	}
	if err := s.refuse(l, a, &st); err != nil {
		return nil, verdict{err}
	}
	next, err := s.step(ctx, tx, l, a, &st)
	if err == nil && next == nil {
		panic(fmt.Sprintf("postgres: the row of task %d of %s changed while it was locked", s.task, l.table))
	}
	return next, err
}

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// step makes the statement of a write. It gives the next state, nil if the output is in another than it was thought to be.
func (s *store) step(ctx context.Context, q querier, l *layout, a *attempt, known *state) (*state, error) {
	a.tried = known.writes
	c := a.write.End
	var moved int
	err := q.QueryRow(ctx, l.sql.write, s.task, int64(a.incarnation), known.writes, int64(c.Next), int64(c.Epoch), int64(c.Bytes),
		int64(c.CRC), int64(len(a.write.Records)), notNil(a.write.Delta), a.records, known.fences).Scan(&moved)
	if err != nil {
		return nil, refused(err)
	}
	if moved == 0 {
		return nil, nil
	}
	next := *known
	next.cursor, next.rows, next.writes = c, known.rows+int64(len(a.write.Records)), known.writes+1
	return &next, nil
}

// refuse tells why a write does not continue a state.
func (s *store) refuse(l *layout, a *attempt, st *state) error {
	if err := s.admit(a.incarnation, st.incarnation); err != nil {
		return err
	}
	if err := follows(st.cursor, a.write.Start, a.write.End); err != nil {
		return fmt.Errorf("%s, task %d: %w", l.table, s.task, err)
	}
	return nil
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// refused marks what the server says of records that do not fit.
func refused(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err
	}
	if class := e.Code[:2]; class == "22" || class == "23" {
		return verdict{fmt.Errorf("%w: %w", ErrRecord, redacted(err, ""))}
	}
	return err
}

// admit compares a writer's incarnation with that which the store was fenced for.
func (s *store) admit(incarnation, fenced determinant.Incarnation) error {
	switch {
	case incarnation < fenced:
		return fmt.Errorf("%w: incarnation %d of task %d, now %d", operator.ErrFenced, incarnation, s.task, fenced)
	case incarnation > fenced:
		return fmt.Errorf("%w: incarnation %d of task %d, the fence is at %d", ErrUnfenced, incarnation, s.task, fenced)
	}
	return nil
}

// follows tells whether a write from start to end continues an output that ends at cursor. Lengths and checksums count from
// an epoch's start: where only start is in the next epoch, they must be those of its beginning.
func follows(cursor, start, end determinant.Cursor) error {
	switch {
	case start.Next != cursor.Next || start.Epoch < cursor.Epoch || end.Next < start.Next || end.Epoch < start.Epoch:
		return fmt.Errorf("%w: it goes from %v to %v, the output ends at %v", ErrGap, start, end, cursor)
	case start.Epoch == cursor.Epoch && start != cursor, start.Epoch > cursor.Epoch && (start.Bytes != 0 || start.CRC != 0):
		return fmt.Errorf("%w: the write begins at %v, the output ends at %v", operator.ErrContradiction, start, cursor)
	}
	return nil
}

// encode makes the statement's parameter of records, and refuses fields without a column: the server would pass over them.
func (l *layout) encode(records [][]byte) (any, error) {
	if l.kind == "bytea" {
		if records == nil {
			records = [][]byte{}
		}
		return records, nil
	}
	texts := make([]string, len(records))
	for i, r := range records {
		texts[i] = string(r)
		if l.column != "" {
			continue
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(r, &fields); err != nil || fields == nil {
			return nil, fmt.Errorf("%w: record %d of the write is no JSON object: %s", ErrRecord, i, shown(r))
		}
		for name := range fields {
			if !l.fields[name] {
				return nil, fmt.Errorf("%w: %s has no column for field %q of %s", ErrRecord, l.table, name, shown(r))
			}
		}
	}
	return texts, nil
}

const maxShown = 200

// shown is a record, cut to a length for people.
func shown(record []byte) string {
	if len(record) <= maxShown {
		return string(record)
	}
	return strings.ToValidUTF8(string(record[:maxShown]), "") + "…"
}

// Truncate forgets what is no longer needed. A row of epoch e may hold determinants of later epochs of tasks that were ahead when
// it was written, and deltas are opaque here. So rows go only up to the checkpoint before: its barriers had all arrived before
// those of e set out.
func (s *store) Truncate(ctx context.Context, e determinant.Epoch, _ []determinant.LogOffset) error {
	ctx, done, err := s.during(ctx)
	if err != nil {
		return err
	}
	defer done()
	l, err := s.tables(ctx)
	if err != nil {
		return err
	}
	return s.options.patient(ctx, s.Call(), func(ctx context.Context) error {
		return s.side.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			// Two statements, so that writes wait for the short one only. What is not pruned now is pruned next time.
			if _, err := conn.Exec(ctx, l.sql.commit, s.task, int64(e)); err != nil {
				return err
			}
			_, err := conn.Exec(ctx, l.sql.prune, s.task)
			return err
		})
	})
}

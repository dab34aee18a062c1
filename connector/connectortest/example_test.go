package connectortest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// What follows is a whole causal sink, for a database whose transactions show all that they did or nothing. Most of it is
// the same for any such system: docs/connectors/own.md walks through it.

// database stands for the system outside: a table per task, changed in transactions, one after the other.
type database struct {
	mu     sync.Mutex
	tables map[int]*table
}

// table is what there is of one task.
type table struct {
	incarnation determinant.Incarnation // the fence
	generation  determinant.Generation
	committed   determinant.Epoch
	cursor      determinant.Cursor
	rows        []row
	deltas      []delta
}

type row struct {
	text string
	end  determinant.Seq // of its write; 0 if no rollback removes it any more
}

type delta struct {
	end   determinant.Epoch // of its write
	bytes []byte
}

// transaction changes a copy of a task's table, and puts it in place if there was no error.
func (db *database) transaction(ctx context.Context, task int, change func(t *table) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	t := table{}
	if was := db.tables[task]; was != nil {
		t = *was
		t.rows, t.deltas = slices.Clone(was.rows), slices.Clone(was.deltas)
	}
	if err := change(&t); err != nil {
		return err
	}
	db.tables[task] = &t
	return nil
}

// texts is what a reader outside sees.
func (db *database) texts(task int) (texts []string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if t := db.tables[task]; t != nil {
		for _, r := range t.rows {
			texts = append(texts, r.text)
		}
	}
	return texts
}

// databaseSink implements operator.CausalSink.
type databaseSink struct{ db *database }

func (s databaseSink) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	if task < 0 || task >= n {
		return nil, fmt.Errorf("database: there is no task %d of %d", task, n)
	}
	return &databaseStore{db: s.db, task: task}, ctx.Err()
}

// databaseStore implements operator.CausalStore.
type databaseStore struct {
	db   *database
	task int
	mu   struct {
		sync.Mutex
		closed bool
	}
}

var (
	errClosed   = errors.New("database: the store is closed")
	errGap      = errors.New("database: the write does not begin where the output ends")
	errUnfenced = errors.New("database: the writer has not fenced the store")
)

// transaction is one of the store's table, unless the store is closed.
func (s *databaseStore) transaction(ctx context.Context, change func(t *table) error) error {
	s.mu.Lock()
	closed := s.mu.closed
	s.mu.Unlock()
	if closed {
		return errClosed
	}
	return s.db.transaction(ctx, s.task, change)
}

func (s *databaseStore) Fence(ctx context.Context, f operator.Fence) (stored operator.Stored, err error) {
	err = s.transaction(ctx, func(t *table) error {
		if f.Incarnation < t.incarnation || f.Generation < t.generation {
			return operator.ErrFenced
		}
		switch {
		case f.Restart != nil && f.Incarnation > t.incarnation:
			t.cursor, t.deltas = *f.Restart, nil
			for i := range t.rows {
				t.rows[i].end = 0
			}
		case f.Cut != nil && f.Generation > t.generation:
			t.rows = slices.DeleteFunc(t.rows, func(r row) bool { return r.end > f.Cut.Cursor.Next })
			t.cursor, t.deltas = f.Cut.Cursor, nil
		}
		t.incarnation, t.generation = f.Incarnation, f.Generation
		stored.Cursor = t.cursor
		for _, d := range t.deltas {
			stored.Deltas = append(stored.Deltas, bytes.Clone(d.bytes))
		}
		return nil
	})
	return stored, err
}

func (s *databaseStore) Write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	return s.transaction(ctx, func(t *table) error {
		start := t.cursor
		if start == (determinant.Cursor{}) {
			start.Epoch = 1 // nothing was written yet
		}
		switch {
		case incarnation < t.incarnation:
			return operator.ErrFenced
		case incarnation > t.incarnation:
			return errUnfenced
		case w.Start.Next != start.Next:
			return fmt.Errorf("%w: it begins at %v, the output ends at %v", errGap, w.Start, start)
		case w.Start != start:
			return fmt.Errorf("%w: %v, and not %v", operator.ErrContradiction, w.Start, start)
		}
		for _, r := range w.Records {
			t.rows = append(t.rows, row{text: string(r), end: w.End.Next})
		}
		if len(w.Delta) > 0 {
			t.deltas = append(t.deltas, delta{end: w.End.Epoch, bytes: bytes.Clone(w.Delta)})
		}
		t.cursor = w.End
		return nil
	})
}

func (s *databaseStore) Truncate(ctx context.Context, e determinant.Epoch, _ []determinant.LogOffset) error {
	return s.transaction(ctx, func(t *table) error {
		if e <= t.committed {
			return nil
		}
		// What was stored since the checkpoint before stays: it may hold determinants of tasks that were ahead.
		t.deltas = slices.DeleteFunc(t.deltas, func(d delta) bool { return d.end <= t.committed })
		t.committed = e
		return nil
	})
}

func (s *databaseStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	return nil
}

// TestDatabaseSinkConforms is all that a connector's own tests need to call.
func TestDatabaseSinkConforms(t *testing.T) {
	connectortest.CausalSink(t, func(testing.TB) connectortest.CausalPlace {
		db := &database{tables: map[int]*table{}}
		return connectortest.CausalPlace{
			Sink: func() operator.CausalSink { return databaseSink{db} },
			Read: db.texts,
		}
	})
}

// Example has a life of a sink task replaced by another, which goes on where the output ends.
func Example() {
	ctx := context.Background()
	db := &database{tables: map[int]*table{}}
	store, _ := databaseSink{db}.Open(ctx, 0, 1)
	_, _ = store.Fence(ctx, operator.Fence{Incarnation: 1})
	end := determinant.Cursor{Next: 2, Epoch: 1, Bytes: 8, CRC: 7}
	write := operator.StoreWrite{
		Start: determinant.Cursor{Epoch: 1}, End: end, Records: [][]byte{[]byte("one"), []byte("two")}, Delta: []byte("choices"),
	}
	fmt.Println(store.Write(ctx, 1, write))

	next, _ := databaseSink{db}.Open(ctx, 0, 1)
	stored, _ := next.Fence(ctx, operator.Fence{Incarnation: 2})
	fmt.Printf("%v %q\n", stored.Cursor, stored.Deltas)
	fmt.Println(store.Write(ctx, 1, operator.StoreWrite{Start: end, End: end}))
	fmt.Println(db.texts(0))
	// Output:
	// <nil>
	// 2@1(8,00000007) ["choices"]
	// operator: the writer was fenced off by a later incarnation
	// [one two]
}

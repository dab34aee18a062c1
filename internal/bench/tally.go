package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Tally is what is known of a query's output: how many rows and bytes, and a sum that does not depend on their order.
type Tally struct {
	Rows  uint64 `json:"rows"`
	Bytes uint64 `json:"bytes"`
	Sum   uint64 `json:"sum"` // of the rows' hashes, or of what stands for them: see sumOf
}

func (t *Tally) add(row []byte, sum func([]byte) uint64) {
	t.Rows++
	t.Bytes += uint64(len(row))
	t.Sum += sum(row)
}

func (t *Tally) merge(o Tally) {
	t.Rows += o.Rows
	t.Bytes += o.Bytes
	t.Sum += o.Sum
}

// tallySink is a causal sink in memory. It takes part in the protocol as any does, and keeps the determinants that it is given, but of
// the output only a Tally, so that what it costs is next to nothing and the same in every mode. It is for jobs that nothing befalls:
// it refuses to be cut back.
type tallySink struct {
	sum func(row []byte) uint64
	mu  struct {
		sync.Mutex
		stores map[int]*tallyStore
	}
}

var _ operator.CausalSink = (*tallySink)(nil)

func newTallySink(sum func([]byte) uint64) *tallySink {
	s := &tallySink{sum: sum}
	s.mu.stores = map[int]*tallyStore{}
	return s
}

// Open implements operator.CausalSink. All who open the store of a task get the same.
func (s *tallySink) Open(_ context.Context, task, _ int) (operator.CausalStore, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	store := s.mu.stores[task]
	if store == nil {
		store = &tallyStore{sum: s.sum}
		s.mu.stores[task] = store
	}
	return store, nil
}

// seen is the output so far, and when the last of it came.
func (s *tallySink) seen() (all Tally, last time.Time, deltas uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, store := range s.mu.stores {
		store.mu.Lock()
		all.merge(store.mu.tally)
		deltas += store.mu.deltaBytes
		if store.mu.last.After(last) {
			last = store.mu.last
		}
		store.mu.Unlock()
	}
	return all, last, deltas
}

// tallyStore is the store of one task.
type tallyStore struct {
	sum func(row []byte) uint64
	mu  struct {
		sync.Mutex
		fenced     determinant.Incarnation
		cursor     determinant.Cursor
		deltas     []keptDelta
		deltaBytes uint64 // of all that were ever written
		tally      Tally
		last       time.Time
	}
}

// keptDelta is a delta and the epoch in which its write ended.
type keptDelta struct {
	epoch determinant.Epoch
	bytes []byte
}

// errCutBack is why a measurement is void.
var errCutBack = errors.New("bench: the job was rolled back while it was measured")

// Fence implements operator.CausalStore.
func (s *tallyStore) Fence(_ context.Context, f operator.Fence) (operator.Stored, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Cut != nil {
		return operator.Stored{}, errCutBack
	}
	s.mu.fenced = max(s.mu.fenced, f.Incarnation)
	if f.Restart != nil {
		s.mu.cursor = *f.Restart
	}
	stored := operator.Stored{Cursor: s.mu.cursor}
	for _, d := range s.mu.deltas {
		stored.Deltas = append(stored.Deltas, d.bytes)
	}
	return stored, nil
}

// Write implements operator.CausalStore.
func (s *tallyStore) Write(_ context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if incarnation < s.mu.fenced {
		return operator.ErrFenced
	}
	if s.mu.cursor != (determinant.Cursor{}) && w.Start != s.mu.cursor {
		return fmt.Errorf("%w: a write begins at %v, the output ends at %v", operator.ErrContradiction, w.Start, s.mu.cursor)
	}
	if len(w.Delta) > 0 {
		s.mu.deltas = append(s.mu.deltas, keptDelta{epoch: w.End.Epoch, bytes: append([]byte(nil), w.Delta...)})
		s.mu.deltaBytes += uint64(len(w.Delta))
	}
	for _, row := range w.Records {
		s.mu.tally.add(row, s.sum)
	}
	s.mu.cursor, s.mu.last = w.End, time.Now()
	return nil
}

// Truncate implements operator.CausalStore. A delta may hold choices of later epochs than its own, of tasks that were ahead: it goes
// one checkpoint later.
func (s *tallyStore) Truncate(_ context.Context, e determinant.Epoch, _ []determinant.LogOffset) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.mu.deltas[:0]
	for _, d := range s.mu.deltas {
		if d.epoch >= e {
			kept = append(kept, d)
		}
	}
	clear(s.mu.deltas[len(kept):])
	s.mu.deltas = kept
	return nil
}

// Close implements operator.CausalStore. The store stays, for whoever opens it next.
func (s *tallyStore) Close() error { return nil }

package bench

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"sync"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// held is the transactional form of a causal sink whose connector has none: output is held in memory, and written to the sink when the
// checkpoint of its epoch is committed. So it is shown when that of any transactional sink is, and a little sooner than by one that
// would have to make it durable first. It is for jobs that nothing befalls: what is held dies with the process.
type held struct{ causal operator.CausalSink }

var (
	_ operator.TransactionalSink = held{}
	_ operator.SinkIdentifier    = held{}
)

// Identify implements operator.SinkIdentifier.
func (h held) Identify(job string) error {
	if s, ok := h.causal.(operator.SinkIdentifier); ok {
		return s.Identify(job)
	}
	return nil
}

// OpenTransactions implements operator.TransactionalSink.
func (h held) OpenTransactions(ctx context.Context, task, n int) (operator.TransactionalStore, error) {
	store, err := h.causal.Open(ctx, task, n)
	if err != nil {
		return nil, err
	}
	s := &heldStore{CausalStore: store}
	s.mu.prepared = map[string][][]byte{}
	return s, nil
}

// heldStore is the store of one task.
type heldStore struct {
	operator.CausalStore // what is shown
	cursor               determinant.Cursor
	mu                   struct {
		sync.Mutex
		open     [][]byte
		prepared map[string][][]byte // by handle
	}
}

// errHeldLost is why a measurement is void.
var errHeldLost = errors.New("bench: a sink task began again, or moved, while it was measured")

// Fence implements operator.TransactionalStore.
func (s *heldStore) Fence(ctx context.Context, incarnation determinant.Incarnation) ([]operator.Transaction, error) {
	stored, err := s.CausalStore.Fence(ctx, operator.Fence{Incarnation: incarnation})
	if err != nil {
		return nil, err
	}
	if stored.Cursor.Next > 0 {
		return nil, fmt.Errorf("%w: %w", operator.ErrPermanent, errHeldLost)
	}
	s.cursor = determinant.Cursor{Epoch: 1}
	return nil, nil
}

// Write implements operator.TransactionalStore.
func (s *heldStore) Write(_ context.Context, _ determinant.Incarnation, records [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.mu.open = append(s.mu.open, append([]byte(nil), r...))
	}
	return nil
}

// Prepare implements operator.TransactionalStore.
func (s *heldStore) Prepare(_ context.Context, _ determinant.Incarnation, e determinant.Epoch) (operator.Transaction, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := operator.Transaction{Epoch: e, Handle: strconv.FormatUint(uint64(e), 10)}
	s.mu.prepared[t.Handle], s.mu.open = s.mu.open, nil
	return t, nil
}

// Commit implements operator.TransactionalStore.
func (s *heldStore) Commit(ctx context.Context, incarnation determinant.Incarnation, t operator.Transaction) error {
	s.mu.Lock()
	records, found := s.mu.prepared[t.Handle]
	s.mu.Unlock()
	switch {
	case t.Epoch < s.cursor.Epoch:
		return nil // it was committed
	case !found:
		return fmt.Errorf("%w: %w", operator.ErrPermanent, errHeldLost)
	}
	for s.cursor.Epoch <= t.Epoch {
		var of [][]byte
		if s.cursor.Epoch == t.Epoch {
			of = records
		}
		if err := s.show(ctx, incarnation, of); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.prepared, t.Handle)
	return nil
}

// heldWrite is about how many bytes a write has, as the engine makes them.
const heldWrite = 256 << 10

// show writes the records of an epoch, and that it ends.
func (s *heldStore) show(ctx context.Context, incarnation determinant.Incarnation, records [][]byte) error {
	for last := false; !last; {
		w := operator.StoreWrite{Start: s.cursor, End: s.cursor}
		n, size := 0, 0
		for n < len(records) && size < heldWrite {
			size += len(records[n])
			w.End.CRC = crc32.Update(w.End.CRC, crc32.MakeTable(crc32.Castagnoli), records[n])
			n++
		}
		w.Records, records = records[:n], records[n:]
		w.End.Next += determinant.Seq(n)
		w.End.Bytes += uint64(size)
		if last = len(records) == 0; last {
			w.End = determinant.Cursor{Next: w.End.Next + 1, Epoch: w.End.Epoch + 1}
		}
		if err := s.CausalStore.Write(ctx, incarnation, w); err != nil {
			return err
		}
		s.cursor = w.End
	}
	return nil
}

// Abort implements operator.TransactionalStore.
func (s *heldStore) Abort(_ context.Context, _ determinant.Incarnation, t operator.Transaction) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.prepared, t.Handle)
	return nil
}

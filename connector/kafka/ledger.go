package kafka

import (
	"bytes"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// ledger is what a part knows of its journal: pure, without the brokers.
type ledger struct {
	entries   int // how many were added
	last      entry
	kept      []keptEntry       // those that may still be needed, in order
	deltas    [][]byte          // since the last that begins anew
	committed determinant.Epoch // newest committed checkpoint; ahead of last.Committed until an entry says so
	next      int64             // offset from which the journal was not read yet
}

// keptEntry is what is remembered of an entry besides its determinants.
type keptEntry struct {
	offset int64
	end    determinant.Cursor
	count  uint64
}

// add takes in the entry that follows the last one. Its delta is copied.
func (l *ledger) add(offset int64, e *entry) error {
	if l.entries > 0 {
		if e.Serial != l.last.Serial+1 {
			return fmt.Errorf("%w: entry %d follows entry %d", ErrCorrupt, e.Serial, l.last.Serial)
		}
		if !e.Begins && e.Start != l.last.End {
			if err := follows(l.last.End, e.Start, e.End); err != nil {
				return fmt.Errorf("%w: entry %d: %w", ErrCorrupt, e.Serial, err)
			}
		}
	}
	if e.Begins {
		l.deltas = nil
	}
	if len(e.Delta) > 0 {
		l.deltas = append(l.deltas, bytes.Clone(e.Delta))
	}
	l.last = *e
	l.last.Delta = nil
	l.entries++
	l.kept = append(l.kept, keptEntry{offset: offset, end: e.End, count: e.Count})
	l.committed = max(l.committed, e.Committed)
	return nil
}

// check tells whether the journal, which begins at that offset, has lost entries that are needed.
func (l *ledger) check(start int64) error {
	switch {
	case l.entries == 0 && start > 0:
		return fmt.Errorf("%w: its records were removed up to offset %d, all of them", ErrCorrupt, start)
	case l.entries > 0 && start > int64(l.last.Keep):
		return fmt.Errorf("%w: its records were removed up to offset %d, those from %d on are needed", ErrCorrupt, start, l.last.Keep)
	}
	return nil
}

// truncate takes in that checkpoint e is committed. An entry of epoch e may hold determinants of later epochs of tasks that were
// ahead when it was written, and deltas are opaque here. So entries go only up to the checkpoint before: its barriers had all
// arrived before those of e set out.
func (l *ledger) truncate(e determinant.Epoch) {
	if e <= l.committed {
		return
	}
	if l.committed > 0 {
		n := 0
		for n < len(l.kept)-1 && l.kept[n].end.Epoch <= l.committed {
			n++
		}
		l.kept = append(l.kept[:0], l.kept[n:]...)
	}
	l.committed = e
}

// keep gives the offset below which nothing is needed.
func (l *ledger) keep() uint64 {
	if len(l.kept) == 0 {
		return l.last.Keep
	}
	return max(l.last.Keep, uint64(l.kept[0].offset))
}

// countAt gives how many records had been shown when the output ended at a cursor.
func (l *ledger) countAt(c determinant.Cursor) (uint64, bool) {
	for i := len(l.kept) - 1; i >= 0; i-- {
		if l.kept[i].end.Next == c.Next {
			return l.kept[i].count, true
		}
	}
	return 0, c.Next == 0
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

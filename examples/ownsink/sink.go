package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// table is a causal sink. It has a partition per sink task.
type table struct {
	mu         sync.Mutex
	partitions map[int]*partition
}

// Open gives the partition of a task. Every worker opens it, whether to write or to read the determinants in it.
func (t *table) Open(_ context.Context, task, _ int) (operator.CausalStore, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.partitions[task] == nil {
		t.partitions[task] = &partition{}
	}
	return t.partitions[task], nil
}

// partition is what one sink task has written.
type partition struct {
	mu     sync.Mutex
	fence  operator.Fence
	cursor determinant.Cursor    // after the last row
	writes []operator.StoreWrite // the rows, with the position of each batch
	deltas [][]byte              // the determinants that they depend on
}

// Fence makes writes of earlier incarnations fail, takes back what a rollback has cut off, and only then tells what is there.
func (p *partition) Fence(_ context.Context, f operator.Fence) (operator.Stored, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.Incarnation < p.fence.Incarnation || f.Generation < p.fence.Generation {
		return operator.Stored{}, operator.ErrFenced
	}
	if f.Generation > p.fence.Generation && f.Cut != nil {
		p.writes = slices.DeleteFunc(p.writes, func(w operator.StoreWrite) bool { return w.Start.Next >= f.Cut.Cursor.Next })
		p.cursor, p.deltas = f.Cut.Cursor, nil
	}
	if f.Restart != nil { // at-least-once: what is shown stays, and is counted anew
		p.cursor = *f.Restart
	}
	p.fence = f
	return operator.Stored{Cursor: p.cursor, Deltas: slices.Clone(p.deltas)}, nil
}

// Write stores determinants and rows together. The engine begins where Fence said that the rows end.
func (p *partition) Write(_ context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if incarnation < p.fence.Incarnation {
		return operator.ErrFenced
	}
	if p.cursor != (determinant.Cursor{}) && w.Start != p.cursor {
		return fmt.Errorf("table: a write at %v, but the rows end at %v", w.Start, p.cursor)
	}
	rows := make([][]byte, len(w.Records)) // the records are the caller's again when Write returns
	for i, r := range w.Records {
		rows[i] = bytes.Clone(r)
	}
	if len(w.Delta) > 0 {
		p.deltas = append(p.deltas, bytes.Clone(w.Delta))
	}
	p.writes = append(p.writes, operator.StoreWrite{Start: w.Start, End: w.End, Records: rows})
	p.cursor = w.End
	return nil
}

// Truncate may forget determinants that a checkpoint covers. This table is small and keeps them.
func (p *partition) Truncate(context.Context, determinant.Epoch, []determinant.LogOffset) error {
	return nil
}

// Close leaves the rows: other workers have the partition open too.
func (p *partition) Close() error { return nil }

// rows are all rows of the table.
func (t *table) rows() (rows [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.partitions {
		p.mu.Lock()
		for _, w := range p.writes {
			rows = append(rows, w.Records...)
		}
		p.mu.Unlock()
	}
	return rows
}

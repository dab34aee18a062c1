package connectortest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// heldPatience bounds how long the suite waits for committed output to be seen.
const heldPatience = 30 * time.Second

// heldTasks is how many parallel tasks the sink of the suite has.
const heldTasks = 2

// heldWorld is the engine and its ledger, as far as one sink task can tell, and what must be seen of it.
type heldWorld struct {
	t     testing.TB
	suite *heldSuite
	place TransactionalPlace
	task  int

	lives    determinant.Incarnation
	complete determinant.Epoch      // the last completed checkpoint
	named    []operator.Transaction // that it names
	want     []string               // what is seen when all that is complete is committed
	borders  []int                  // lengths of want at which a transaction ends
	sure     int                    // so much of it was committed, and the answer came
	made     int
	listed   int                          // by the last fence
	handles  map[string]determinant.Epoch // given out so far
}

// heldLife is one life of the sink task.
type heldLife struct {
	w     *heldWorld
	store operator.TransactionalStore
	inc   determinant.Incarnation
	next  determinant.Epoch // the epoch under way
	open  []string          // written in it
	held  []heldEpoch       // prepared, and not known to be committed
}

type heldEpoch struct {
	operator.Transaction
	lines []string
}

func (s *heldSuite) world(t testing.TB) *heldWorld { return s.worldIn(t, s.place(t), 0) }

func (s *heldSuite) worldIn(t testing.TB, place TransactionalPlace, task int) *heldWorld {
	if place.Record == nil {
		place.Record = heldRecord
	}
	return &heldWorld{t: t, suite: s, place: place, task: task, handles: map[string]determinant.Epoch{}}
}

func (w *heldWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("task %d: %v", w.task, err)
	}
}

// process starts a process and opens the task's store there.
func (w *heldWorld) process() operator.TransactionalStore { return w.opened(w.place.Sink()) }

func (w *heldWorld) opened(sink operator.TransactionalSink) operator.TransactionalStore {
	w.t.Helper()
	if i, ok := sink.(operator.SinkIdentifier); ok {
		w.must(i.Identify("the suite's job"))
	}
	store, err := sink.OpenTransactions(context.Background(), w.task, heldTasks)
	w.must(err)
	w.t.Cleanup(func() {
		if err := store.Close(); err != nil {
			w.t.Logf("closing a store: %v", err)
		}
	})
	return store
}

// begin gives the task another life, which settles what former ones have left.
func (w *heldWorld) begin(store operator.TransactionalStore) (*heldLife, error) {
	ctx := context.Background()
	w.lives++
	l := &heldLife{w: w, store: store, inc: w.lives, next: w.complete + 1}
	listed, err := store.Fence(ctx, l.inc)
	if err != nil {
		return nil, fmt.Errorf("fence %d: %w", l.inc, err)
	}
	w.listed = len(listed)
	for _, t := range w.named {
		if err := store.Commit(ctx, l.inc, t); err != nil {
			return nil, fmt.Errorf("commit of %v, which checkpoint %d names: %w", t, w.complete, err)
		}
	}
	for _, t := range listed {
		if slices.ContainsFunc(w.named, func(n operator.Transaction) bool { return n.Handle == t.Handle }) {
			continue
		}
		if err := store.Abort(ctx, l.inc, t); err != nil {
			return nil, fmt.Errorf("abort of %v: %w", t, err)
		}
	}
	w.sure = len(w.want)
	return l, nil
}

func (w *heldWorld) mustBegin() *heldLife {
	w.t.Helper()
	l, err := w.begin(w.process())
	w.must(err)
	return l
}

// write writes n new records.
func (l *heldLife) write(n int) error {
	var records [][]byte
	var lines []string
	for range n {
		l.w.made++
		r := l.w.place.Record(l.w.made, int(l.inc))
		records, lines = append(records, slices.Clone(r)), append(lines, string(r))
	}
	if err := l.store.Write(context.Background(), l.inc, records); err != nil {
		return fmt.Errorf("write of %d records by incarnation %d: %w", n, l.inc, err)
	}
	for _, r := range records { // they were the store's for the call only
		for i := range r {
			r[i] = '#'
		}
	}
	l.open = append(l.open, lines...)
	return nil
}

// end ends the epoch under way.
func (l *heldLife) end() error {
	t, err := l.store.Prepare(context.Background(), l.inc, l.next)
	if err != nil {
		return fmt.Errorf("prepare of epoch %d by incarnation %d: %w", l.next, l.inc, err)
	}
	switch e, used := l.w.handles[t.Handle]; {
	case t.Epoch != l.next:
		l.w.t.Fatalf("epoch %d was prepared as %v", l.next, t)
	case t.Handle == "" && len(l.open) > 0:
		l.w.t.Fatalf("%d records of epoch %d were prepared without a handle", len(l.open), l.next)
	case used && t.Handle != "":
		l.w.t.Fatalf("handle %q of epoch %d was given out for epoch %d before: a late commit could meet the wrong one", t.Handle, l.next, e)
	}
	l.w.handles[t.Handle] = t.Epoch
	l.held, l.open, l.next = append(l.held, heldEpoch{t, l.open}), nil, l.next+1
	return nil
}

// completes has the ledger commit the checkpoint of all that is prepared.
func (l *heldLife) completes() {
	w := l.w
	w.named = nil
	for _, h := range l.held {
		w.named = append(w.named, h.Transaction)
		if h.Epoch > w.complete {
			w.want = append(w.want, h.lines...)
			w.borders = append(w.borders, len(w.want))
		}
	}
	w.complete = l.next - 1
}

// commit commits the first transaction that is due; it does nothing if none is.
func (l *heldLife) commit() error {
	if len(l.held) == 0 || l.held[0].Epoch > l.w.complete {
		return nil
	}
	h := l.held[0]
	if err := l.store.Commit(context.Background(), l.inc, h.Transaction); err != nil {
		return fmt.Errorf("commit of %v by incarnation %d: %w", h.Transaction, l.inc, err)
	}
	l.held, l.w.sure = l.held[1:], l.w.sure+len(h.lines)
	return nil
}

// commits commits all that is due.
func (l *heldLife) commits() error {
	for len(l.held) > 0 && l.held[0].Epoch <= l.w.complete {
		if err := l.commit(); err != nil {
			return err
		}
	}
	return nil
}

// epoch is a whole epoch with n records, complete and committed.
func (l *heldLife) epoch(n int) {
	l.w.t.Helper()
	l.w.must(l.write(n))
	l.w.must(l.end())
	l.completes()
	l.w.must(l.commits())
	l.w.look()
}

// look reads what can be seen, and compares. What is committed may take a while to get to a reader; what is not must never.
func (w *heldWorld) look() {
	w.t.Helper()
	patience := heldPatience
	if w.suite.hasty {
		patience = 0
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		seen := w.place.Read(w.task)
		if n := min(len(seen), len(w.want)); !slices.Equal(seen[:n], w.want[:n]) || len(seen) > n {
			w.t.Fatalf("task %d shows %s\ncheckpoint %d makes it %s", w.task, heldText(seen), w.complete, heldText(w.want))
		}
		if len(seen) >= w.sure {
			if len(seen) > 0 && !slices.Contains(w.borders, len(seen)) {
				w.t.Fatalf("task %d shows %d records: a part of a transaction", w.task, len(seen))
			}
			return
		}
		select {
		case <-again.C:
		case <-deadline.C:
			w.t.Fatalf("task %d shows %d records, %d are committed", w.task, len(seen), w.sure)
		}
	}
}

// finish has one more life settle everything, and go on for an epoch.
func (w *heldWorld) finish() {
	w.t.Helper()
	l := w.mustBegin()
	w.look()
	l.epoch(2)
}

// fenced checks that a life is refused, whatever it tries.
func (l *heldLife) fenced() {
	l.w.t.Helper()
	ctx := context.Background()
	check := func(call string, err error) {
		l.w.t.Helper()
		if !errors.Is(err, operator.ErrFenced) {
			l.w.t.Fatalf("%s of incarnation %d, after that of %d was fenced: %v, not ErrFenced", call, l.inc, l.w.lives, err)
		}
	}
	check("Write", l.store.Write(ctx, l.inc, [][]byte{l.w.place.Record(-1, int(l.inc))}))
	_, err := l.store.Prepare(ctx, l.inc, l.next)
	check("Prepare", err)
	for _, h := range l.held {
		if h.Handle != "" {
			check("Commit", l.store.Commit(ctx, l.inc, h.Transaction))
			check("Abort", l.store.Abort(ctx, l.inc, h.Transaction))
		}
	}
	_, err = l.store.Fence(ctx, l.inc)
	check("Fence", err)
	l.w.look()
}

func heldText(lines []string) string {
	const most = 12
	if len(lines) <= most {
		return fmt.Sprintf("%q", lines)
	}
	return fmt.Sprintf("%q and so on, %d in all, up to %q", lines[:most], len(lines), lines[len(lines)-1])
}

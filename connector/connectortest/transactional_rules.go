package connectortest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/understudy-stream/understudy/operator"
)

// caseHeldBack: nothing can be seen before it is committed, and then all can.
func caseHeldBack(t testing.TB, s *heldSuite) {
	w := s.world(t)
	l := w.mustBegin()
	for range 3 {
		w.must(l.write(2))
		w.look()
		w.must(l.write(1))
		w.must(l.end())
		w.look()
		l.completes()
		w.look()
		w.must(l.commits())
		w.look()
	}
	w.finish()
}

// caseHeldOrder: output is seen in the order of its writing, also where several epochs wait for their checkpoints.
func caseHeldOrder(t testing.TB, s *heldSuite) {
	w := s.world(t)
	l := w.mustBegin()
	for range 4 {
		w.must(l.write(3))
		w.must(l.write(2))
		w.must(l.end())
	}
	w.look()
	l.completes()
	w.must(l.write(4))
	for range 4 {
		w.must(l.commit())
		w.look()
	}
	w.must(l.end())
	w.look()
	l.completes()
	w.must(l.commits())
	w.finish()
}

// caseHeldLarge: records and epochs of some size.
func caseHeldLarge(t testing.TB, s *heldSuite) {
	w := s.world(t)
	record := w.place.Record
	w.place.Record = func(n, g int) []byte {
		if n%50 > 0 {
			return record(n, g)
		}
		return slices.Repeat(record(n, g), 5000)
	}
	l := w.mustBegin()
	for range 2 {
		for range 4 {
			w.must(l.write(60))
		}
		w.must(l.end())
	}
	l.completes()
	w.must(l.commits())
	w.look()
	w.finish()
}

// caseEmptyEpochs: an epoch without records is prepared and committed like others.
func caseEmptyEpochs(t testing.TB, s *heldSuite) {
	w := s.world(t)
	l := w.mustBegin()
	for i := range 6 {
		if i%3 == 1 {
			w.must(l.write(2))
		}
		w.must(l.end())
		l.completes()
		w.must(l.commits())
		w.look()
	}
	w.must(l.end())
	l = w.mustBegin()
	w.must(l.end())
	w.must(l.write(1))
	w.must(l.end())
	l.completes()
	w.must(l.commits())
	w.look()
	w.finish()
}

// caseCommitAgain: a commit may be repeated, whatever came since, and shows nothing twice nor anything else.
func caseCommitAgain(t testing.TB, s *heldSuite) {
	w, ctx := s.world(t), context.Background()
	l := w.mustBegin()
	w.must(l.write(2))
	w.must(l.end())
	first := l.held[0].Transaction
	l.completes()
	again := func() {
		t.Helper()
		w.must(l.store.Commit(ctx, l.inc, first))
		w.look()
	}
	again()
	w.must(l.commits())
	again()
	w.must(l.write(1))
	again()
	w.must(l.end())
	again()
	l.completes()
	w.must(l.commits())
	again()
	w.must(l.write(1))
	l = w.mustBegin()
	again()
	w.must(l.write(3))
	again()
	w.must(l.end())
	again()
	l.completes()
	w.must(l.commits())
	again()
	w.finish()
}

// caseAbort: what is aborted is never seen, and a commit of it says that it is lost; what was committed stays.
func caseAbort(t testing.TB, s *heldSuite) {
	w, ctx := s.world(t), context.Background()
	l := w.mustBegin()
	l.epoch(2)
	shown := w.named[0]
	w.must(l.write(3))
	w.must(l.end())
	lost := l.held[0].Transaction
	l = w.mustBegin() // aborts it
	w.look()
	w.must(l.store.Abort(ctx, l.inc, lost))
	w.must(l.store.Abort(ctx, l.inc, shown))
	w.look()
	if err := l.store.Commit(ctx, l.inc, lost); !errors.Is(err, operator.ErrPermanent) {
		t.Fatalf("a commit of %v, which was aborted: %v, not ErrPermanent", lost, err)
	}
	w.look()
	l.epoch(2)
	w.must(l.store.Commit(ctx, l.inc, shown))
	w.finish()
}

// caseHeldFence: a life that was replaced can do nothing any more, in its own process or elsewhere.
func caseHeldFence(t testing.TB, s *heldSuite) {
	w := s.world(t)
	first, other := w.process(), w.process()
	old, err := w.begin(first)
	w.must(err)
	old.epoch(1)
	w.must(old.write(2))
	w.must(old.end())
	w.must(old.write(1))
	now, err := w.begin(first)
	w.must(err)
	old.fenced()
	w.must(now.write(1))
	next, err := w.begin(other)
	w.must(err)
	old.fenced()
	now.fenced()
	next.epoch(2)
	now.store = other
	now.fenced()
	w.lives += 5 // lives that never got here
	last := w.mustBegin()
	next.fenced()
	last.epoch(1)
	w.finish()
}

// caseFenceLists: a fence lists what is prepared and undecided, by epoch, also one that is there already.
func caseFenceLists(t testing.TB, s *heldSuite) {
	w, ctx := s.world(t), context.Background()
	l := w.mustBegin()
	l.epoch(1)
	for range 3 {
		w.must(l.write(1))
		w.must(l.end())
	}
	check := func(store operator.TransactionalStore, want []operator.Transaction) {
		t.Helper()
		listed, err := store.Fence(ctx, l.inc)
		w.must(err)
		if !slices.Equal(listed, want) {
			t.Fatalf("a fence lists %v, undecided are %v", listed, want)
		}
		l.store = store
	}
	var all []operator.Transaction
	for _, h := range l.held {
		all = append(all, h.Transaction)
	}
	check(l.store, all)
	check(w.process(), all)
	w.must(l.store.Abort(ctx, l.inc, all[2]))
	check(l.store, all[:2])
	l.held, l.next = l.held[:2], l.next-1
	l.completes()
	w.must(l.commit())
	check(w.process(), all[1:2])
	w.must(l.commit())
	check(l.store, nil)
	w.look()
	w.finish()
}

// caseFenceUndoes: what was written and not prepared is gone with the next fence, be it the same again.
func caseFenceUndoes(t testing.TB, s *heldSuite) {
	w, ctx := s.world(t), context.Background()
	l := w.mustBegin()
	w.must(l.write(2))
	for _, store := range []operator.TransactionalStore{l.store, w.process()} {
		listed, err := store.Fence(ctx, l.inc)
		w.must(err)
		for _, u := range listed { // it cannot tell what was prepared
			w.must(store.Abort(ctx, l.inc, u))
		}
		l.store, l.open = store, nil
		l.epoch(1)
		w.must(l.write(1))
	}
	l = w.mustBegin()
	l.epoch(1)
	w.must(l.write(1))
	w.finish()
}

// caseAnotherProcess: what one process has prepared, any other commits, which knows nothing but the handle.
func caseAnotherProcess(t testing.TB, s *heldSuite) {
	w := s.world(t)
	for range 3 {
		l := w.mustBegin()
		w.must(l.write(2))
		w.must(l.end())
		w.must(l.write(1))
		w.must(l.end())
		l.completes()
		w.must(l.write(1))
		w.must(l.store.Close())
	}
	w.finish()
}

// caseCommitBesideAWrite: a commit may overlap with writes and a prepare of a later epoch.
func caseCommitBesideAWrite(t testing.TB, s *heldSuite) {
	w, ctx := s.world(t), context.Background()
	l := w.mustBegin()
	for range 10 {
		w.must(l.write(2))
		w.must(l.end())
		l.completes()
		var committed error
		var beside sync.WaitGroup
		due := l.held[0]
		beside.Go(func() { committed = l.store.Commit(ctx, l.inc, due.Transaction) })
		wrote := errors.Join(l.write(2), l.write(1), l.end())
		beside.Wait()
		w.must(errors.Join(committed, wrote))
		l.held, w.sure = l.held[1:], w.sure+len(due.lines)
		w.look()
		l.completes()
		w.must(l.commits())
		w.look()
	}
	w.finish()
}

// caseHeldTasks: the tasks of a sink have nothing to do with one another.
func caseHeldTasks(t testing.TB, s *heldSuite) {
	place := s.place(t)
	a, b := s.worldIn(t, place, 0), s.worldIn(t, place, 1)
	b.made = 1000
	la, lb := a.mustBegin(), b.mustBegin()
	a.must(la.write(2))
	b.must(lb.write(1))
	a.mustBegin()
	la = a.mustBegin()
	b.must(lb.write(1))
	b.must(lb.end())
	a.must(la.write(3))
	a.must(la.end())
	la = a.mustBegin()
	lb.completes()
	b.must(lb.commits())
	a.look()
	b.look()
	la.epoch(1)
	lb.epoch(1)
	a.finish()
	b.finish()
}

// caseHeldClose: a store that is closed refuses, and what it has prepared stays.
func caseHeldClose(t testing.TB, s *heldSuite) {
	w, ctx := s.world(t), context.Background()
	l, other := w.mustBegin(), w.process()
	w.must(l.write(2))
	w.must(l.end())
	w.must(l.store.Close())
	w.must(l.store.Close())
	if err := l.store.Write(ctx, l.inc, [][]byte{w.place.Record(-1, 0)}); err == nil {
		t.Fatalf("a store that is closed takes a write")
	}
	if err := l.store.Commit(ctx, l.inc, l.held[0].Transaction); err == nil {
		t.Fatalf("a store that is closed commits")
	}
	l.completes()
	w.look()
	_, err := w.begin(other)
	w.must(err)
	w.look()
	w.finish()
}

// caseHeldCancelled: a call whose context has ended fails, and says why; the next life finds a sound store.
func caseHeldCancelled(t testing.TB, s *heldSuite) {
	w := s.world(t)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	l := w.mustBegin()
	l.epoch(1)
	w.must(l.write(1))
	if err := l.store.Write(ended, l.inc, [][]byte{w.place.Record(-1, 0)}); !errors.Is(err, context.Canceled) {
		t.Fatalf("a write whose context has ended: %v", err)
	}
	l = w.mustBegin()
	w.must(l.write(1))
	if _, err := l.store.Prepare(ended, l.inc, l.next); !errors.Is(err, context.Canceled) {
		t.Fatalf("a prepare whose context has ended: %v", err)
	}
	l = w.mustBegin()
	w.must(l.write(2))
	w.must(l.end())
	l.completes()
	if err := l.store.Commit(ended, l.inc, l.held[0].Transaction); !errors.Is(err, context.Canceled) {
		t.Fatalf("a commit whose context has ended: %v", err)
	}
	w.look()
	w.finish()
}

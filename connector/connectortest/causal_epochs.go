package connectortest

import (
	"context"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Cases about checkpoints: what they let go of, and going back to them.

// epoch writes to the end of the present epoch and commits its checkpoint. Its last write but one is stored with determinants of
// the next epoch: a task upstream was ahead.
func (l *life) epoch() determinant.Epoch {
	l.w.t.Helper()
	e := l.w.out.epochAt(l.at)
	for l.at < l.w.out.border(e) {
		l.mustWrite(min(l.upTo(4), max(l.w.out.border(e)-1, l.at+1)))
	}
	l.w.must(l.w.commit(l.p, e))
	return e
}

// caseTruncate commits checkpoints: what is needed stays, and what is stored does not grow for ever.
func caseTruncate(t testing.TB, s *causalSuite) {
	const epochs, bound, writes = 24, 12, 4
	w := s.world(t)
	p, other := w.process(), w.process()
	l := w.mustBegin(p)
	w.must(w.truncate(p, 0)) // the empty checkpoint
	for range epochs {
		e := l.epoch()
		w.watch()
		w.look(other)
		l.mustWrite(l.upTo(2))
		w.must(w.truncate(p, e)) // once more
		w.must(w.truncate(other, e))
		if e > 3 {
			w.must(w.truncate(p, e-2)) // late
		}
		w.watch()
		w.look(w.process())
		if e == epochs/2 {
			l = w.mustBegin(w.process())
			w.must(w.truncate(p, e-1)) // by a process that was replaced
			w.look(other)
			p = l.p
		}
	}
	var stored operator.Stored
	w.must(w.call(func(ctx context.Context) (err error) { stored, err = p.store.Fence(ctx, w.fence()); return err }))
	if n := len(stored.Deltas); n > bound*writes {
		t.Fatalf("%d deltas are stored after %d epochs, %d were given in the last %d", n, epochs, bound*writes, bound)
	}
	w.finish()
}

// caseCut rolls back once and again, in processes that know and in others.
func caseCut(t testing.TB, s *causalSuite) {
	w := s.world(t)
	p, other := w.process(), w.process()
	l := w.mustBegin(p)
	l.epoch()
	l.epoch()
	l.mustWrite(l.upTo(4))
	old := l

	w.rollBack()
	l = w.mustBegin(other)
	old.wakes()
	w.look(p)
	l.mustWrite(l.upTo(4))
	w.look(p) // a cut that was done is not done again
	w.look(w.process())
	l = w.mustBegin(p)
	l.mustWrite(l.upTo(3))
	l = w.mustBegin(w.process())
	l.epoch()
	l.mustWrite(l.upTo(2))

	w.rollBack() // with nothing written since the border but what goes away
	l = w.mustBegin(w.process())
	w.rollBack() // and with nothing at all
	l = w.mustBegin(w.process())
	l.mustWrite(l.upTo(4))
	old.wakes()
	w.finish()
}

// caseCutToStart rolls back to the empty checkpoint.
func caseCutToStart(t testing.TB, s *causalSuite) {
	w := s.world(t)
	l := w.mustBegin(w.process())
	for range 3 {
		l.mustWrite(l.upTo(4))
	}
	w.rollBack()
	l = w.mustBegin(w.process())
	l.mustWrite(l.upTo(4))
	w.look(w.process())
	w.rollBack()
	w.incarnation++
	w.look(w.process()) // somebody who reads does it
	l = w.mustBegin(w.process())
	l.epoch()
	l.mustWrite(l.upTo(4))
	w.finish()
	new := s.world(t) // a store that nobody has written to can be cut too
	new.rollBack()
	new.mustBegin(new.process())
	new.finish()
}

// caseRestart lets lives repeat what former ones have shown, in at-least-once mode.
func caseRestart(t testing.TB, s *causalSuite) {
	w := s.world(t)
	w.repeat()
	l := w.mustBegin(w.process())
	l.mustWrite(l.upTo(3))
	old := l
	w.repeat() // from the start
	l = w.mustBegin(w.process())
	old.wakes()
	l.mustWrite(l.upTo(4))
	w.look(w.process()) // the same incarnation without Restart: nothing is repeated
	l.epoch()
	l.epoch()
	l.mustWrite(l.upTo(3))
	w.repeat()
	l = w.mustBegin(l.p)
	l.mustWrite(l.upTo(2))
	l = w.mustBegin(w.process()) // exactly once again
	l.epoch()
	l.mustWrite(l.upTo(3))
	w.finish()

	w = s.world(t)
	l = w.mustBegin(w.process())
	l.epoch()
	l.mustWrite(l.upTo(3))
	w.rollBack()
	l = w.mustBegin(w.process())
	l.mustWrite(l.upTo(4))
	w.repeat() // the generation's cut is done: it must not be done again
	l = w.mustBegin(w.process())
	l.mustWrite(l.upTo(3))
	w.finish()
}

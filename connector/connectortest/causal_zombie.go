package connectortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Cases in which several processes call at the same time.

// caseZombies replaces writers that are in the middle of writing and do not know.
func caseZombies(t testing.TB, s *causalSuite) {
	const incarnations, writes, atLeast = 6, 120, 4
	for _, apart := range []bool{false, true} {
		w := s.world(t)
		w.out.produce(incarnations * writes * 2)
		var wg sync.WaitGroup
		ends := make(chan error, incarnations)
		p := w.process()
		for i := determinant.Incarnation(1); i <= incarnations; i++ {
			if apart {
				p = w.process()
			}
			at, sent := w.takeOver(p, i)
			going := make(chan struct{})
			l := &life{w: w, p: p, incarnation: i, at: at, sent: sent}
			wg.Go(func() { ends <- l.writeOn(writes, atLeast, going) })
			<-going
		}
		at, _ := w.takeOver(w.process(), incarnations+1)
		wg.Wait()
		close(ends)
		for err := range ends {
			w.must(err)
		}
		w.incarnation, w.unordered = incarnations+1, true
		w.out.produce(at + 2)
		w.shown, w.at = w.out.records(0, at), at
		w.tries, w.failed = []determinant.Seq{w.out.upTo(at, 2)}, true
		w.beyond = w.out.records(at, w.out.upTo(at, 2))
		w.finish()
	}
}

// writeOn writes until it is replaced or has written so much. It says when it has written at least so much.
func (l *life) writeOn(writes, atLeast int, going chan<- struct{}) error {
	for i := range writes {
		if i == atLeast {
			close(going)
		}
		to := l.upTo(2)
		err := l.store(context.Background(), l.compose(to))
		if errors.Is(err, operator.ErrFenced) && i >= atLeast {
			return nil
		}
		if err != nil {
			if i < atLeast {
				close(going)
			}
			return err
		}
		l.at = to
	}
	return nil
}

// takeOver fences for an incarnation whose predecessors go on writing. All that is shown must be stored.
func (w *causalWorld) takeOver(p *process, i determinant.Incarnation) (determinant.Seq, offsets) {
	w.t.Helper()
	var stored operator.Stored
	w.must(w.call(func(ctx context.Context) (err error) {
		stored, err = p.store.Fence(ctx, operator.Fence{Incarnation: i})
		return err
	}))
	at := stored.Cursor.Next
	if at >= determinant.Seq(len(w.out.cursors)) || at > 0 && w.out.cursors[at] != stored.Cursor {
		w.t.Fatalf("Fence: Stored.Cursor is %v, there is no such position", stored.Cursor)
	}
	seen := w.place.Read(w.task)
	to := max(at, w.out.after(len(seen)))
	if want := w.out.records(0, to); len(want) < len(seen) {
		w.t.Fatalf("%d records are seen, %d were written", len(seen), len(want))
	}
	sent, err := w.out.covers(stored.Deltas, to)
	w.must(err)
	return at, sent
}

// caseReader reads what is stored beside a writer: it is never behind what could be seen before.
func caseReader(t testing.TB, s *causalSuite) {
	const rounds, elements = 20, 600
	w := s.world(t)
	w.out.produce(elements)
	reader := w.process()
	l := w.mustBegin(w.process())
	var done atomic.Bool
	end := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !done.Load() && l.at < elements {
			to := l.upTo(3)
			if err = l.store(context.Background(), l.compose(to)); err == nil {
				l.at = to
			}
		}
		end <- err
	}()
	for range rounds {
		if problem := w.readBeside(reader); problem != "" {
			done.Store(true)
			t.Fatalf("beside a writer: %s (the writer: %v)", problem, <-end)
		}
	}
	done.Store(true)
	w.must(<-end)
	w.shown, w.at, w.unordered = w.out.records(0, l.at), l.at, true
	w.watch()
	w.finish()
}

// readBeside compares what is seen with what is stored a moment later.
func (w *causalWorld) readBeside(p *process) string {
	seen := w.place.Read(w.task)
	var stored operator.Stored
	err := w.call(func(ctx context.Context) (err error) {
		stored, err = p.store.Fence(ctx, w.fence())
		return err
	})
	if err != nil {
		return fmt.Sprintf("Fence: %v", err)
	}
	if _, err := w.out.covers(stored.Deltas, w.out.after(len(seen))); err != nil {
		return fmt.Sprintf("%d records were seen, and then: %v", len(seen), err)
	}
	to := min(stored.Cursor.Next, determinant.Seq(len(w.out.elements)))
	want := len(w.out.records(0, to))
	for end := time.Now().Add(w.patience); len(w.place.Read(w.task)) < want; <-time.After(firstWait) {
		if time.Now().After(end) {
			return fmt.Sprintf("Stored.Cursor is %v, but fewer records are seen", stored.Cursor)
		}
	}
	return ""
}

// caseCancelled cancels calls, before and while they are made. What a call that was cancelled has done is like what a failed one
// has done: the next Fence tells.
func caseCancelled(t testing.TB, s *causalSuite) {
	w := s.world(t)
	p := w.process()
	l := w.mustBegin(p)
	l.mustWrite(l.upTo(3))
	none, cancel := context.WithCancel(context.Background())
	cancel()
	check := func(what string, err error) bool {
		t.Helper()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("%s with a cancelled context failed without context.Canceled in its error: %v", what, err)
		}
		return err != nil
	}
	sink := w.place.Sink()
	w.must(w.identify(sink))
	store, err := sink.Open(none, 0, sinkTasks)
	if !check("Open", err) {
		w.must(store.Close())
	}
	for i := range 12 {
		ctx, cancel := context.WithCancel(context.Background())
		if i%3 == 0 {
			ctx = none
		} else {
			go cancel()
		}
		to := l.upTo(2)
		if check("Write", l.send(ctx, l.compose(to), to)) {
			w.must(l.again())
		}
		check("Truncate", p.store.Truncate(ctx, 0, make([]determinant.LogOffset, logTasks)))
		w.incarnation++
		_, err := p.store.Fence(ctx, w.fence())
		check("Fence", err)
		cancel()
		l = w.mustBegin(p)
		l.mustWrite(l.upTo(1))
	}
	w.finish()
}

// brake stops a process at one of its steps until it may go on.
type brake struct {
	armed         atomic.Bool
	steps         atomic.Int64
	at            int64
	stopped, goOn chan struct{}
}

// do is a Steps.
func (b *brake) do(step, _ func() error) error {
	if b.armed.Load() && b.steps.Add(1) == b.at {
		close(b.stopped)
		<-b.goOn
	}
	return step()
}

// caseStopped stops a writer at each step of a write, replaces it, and lets it go on: it must show nothing more.
func caseStopped(t testing.TB, s *causalSuite) {
	for _, rollBack := range []bool{false, true} {
		for at := int64(1); s.stop(t, at, rollBack); at++ {
		}
	}
}

// stop is caseStopped for one step. It tells whether the write has that step.
func (s *causalSuite) stop(t testing.TB, at int64, rollBack bool) bool {
	w := s.world(t)
	b := &brake{at: at, stopped: make(chan struct{}), goOn: make(chan struct{})}
	release := sync.OnceFunc(func() { close(b.goOn) })
	t.Cleanup(release)
	p, err := w.open(w.place.Faulty(b.do))
	w.must(err)
	l := w.mustBegin(p)
	l.epoch()
	l.mustWrite(l.upTo(1))

	b.armed.Store(true)
	to := l.upTo(3)
	write := l.compose(to)
	w.given, w.beyond = append(w.given, bytes.Clone(write.Delta)), w.out.records(l.at, to)
	w.tries, w.failed = append(w.tries, to), true
	result := make(chan error, 1)
	go func() { result <- l.store(context.Background(), write) }()
	select {
	case err := <-result:
		b.armed.Store(false)
		w.must(err)
		w.must(l.again())
		w.finish()
		return false
	case <-b.stopped:
	}
	if rollBack {
		w.rollBack()
	}
	next := w.mustBegin(w.process())
	done := !rollBack && next.at == to
	next.mustWrite(next.upTo(2))
	next = w.mustBegin(w.process())
	next.mustWrite(next.upTo(2))
	release()
	if err := <-result; err != nil || !done {
		l.fenced(err)
	}
	w.watch()
	l.fenced(l.store(context.Background(), operator.StoreWrite{Start: write.End, End: write.End}))
	next.mustWrite(next.upTo(2))
	w.look(p)
	w.mustBegin(p)
	w.finish()
	return true
}

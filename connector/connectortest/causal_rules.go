package connectortest

import (
	"context"
	"errors"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Cases without misfortunes: what every call promises by itself.

// world is one task in an empty place.
func (s *causalSuite) world(t testing.TB) *causalWorld { return newWorld(t, s, s.place(t), 0) }

// finish lets everything that was dropped or replaced come to its end, and a last life show that all is well.
func (w *causalWorld) finish() {
	const wake = 2
	w.t.Helper()
	p := w.process()
	l := w.mustBegin(p)
	for range 3 {
		l.mustWrite(l.upTo(4))
	}
	w.must(p.close())
	for _, old := range w.replaced[max(0, len(w.replaced)-wake):] {
		if !old.p.closed {
			old.wakes()
		}
	}
	w.look(w.process())
}

// caseOrder writes batches of all sizes, with and without records.
func caseOrder(t testing.TB, s *causalSuite) {
	w := s.world(t)
	if seen := w.watch(); len(seen) != 0 {
		t.Fatalf("a new place shows %d records", len(seen))
	}
	l := w.mustBegin(w.process())
	for n := determinant.Seq(1); n <= epochElements; n++ {
		for range 3 {
			l.mustWrite(l.upTo(n))
		}
	}
	l.mustWrite(l.upTo(epochElements))
	l.mustWrite(l.upTo(epochRecords)) // the barrier is left: a write without records
	l.mustWrite(l.upTo(1))
	l.mustWrite(l.at) // determinants alone, or nothing at all
	w.look(w.process())
	w.finish()
}

// caseLarge writes what piles up while the system outside cannot be reached: as many records as the engine puts into one write, and
// more determinants than it would ever have otherwise.
func caseLarge(t testing.TB, s *causalSuite) {
	const records, determinants = 256 << 10, 2 << 20 // bytes
	w := s.world(t)
	w.out.epoch = 10_000
	l := w.mustBegin(w.process())
	l.mustWrite(l.upTo(2))
	w.out.log(1, determinants)
	l.mustWrite(l.upTo(2))
	w.look(w.process())
	to := l.at
	for size := 0; size < records && to < l.upTo(w.out.epoch); to++ {
		w.out.produce(to + 1)
		size += len(w.out.elements[to])
	}
	l.mustWrite(to)
	w.finish()
}

// caseEqualFence raises a fence again and again, here and elsewhere, beside a writer that goes on.
func caseEqualFence(t testing.TB, s *causalSuite) {
	w := s.world(t)
	mine, other := w.process(), w.process()
	w.incarnation++
	w.look(other) // who reads for a recovery may come first
	w.incarnation--
	l := w.mustBegin(mine)
	for range 8 {
		l.mustWrite(l.upTo(4))
		w.look(mine)
		w.look(other)
		w.look(other)
		l.mustWrite(l.upTo(1))
	}
	w.look(w.process())
	l.mustWrite(l.upTo(2))
	w.finish()
}

// caseFence replaces writers, in their own process and in others.
func caseFence(t testing.TB, s *causalSuite) {
	w := s.world(t)
	here, there := w.process(), w.process()
	var old []*life
	for i := range 6 {
		p := here
		if i%3 == 2 {
			p = there
		}
		l := w.mustBegin(p)
		for _, o := range old {
			o.wakes()
		}
		l.mustWrite(l.upTo(4))
		for _, o := range old {
			o.wakes()
			w.refuses(o.p, operator.Fence{Incarnation: o.incarnation})
		}
		l.mustWrite(l.upTo(4))
		old = append(old, l)
	}
	w.incarnation++
	w.refuses(there, operator.Fence{Incarnation: 1})
	w.look(there) // a fence alone replaces, before its writer has come
	for _, o := range old[:5] {
		o.wakes()
	}
	w.finish()
}

// refuses checks that a fence below the one that is there is refused.
func (w *causalWorld) refuses(p *process, f operator.Fence) {
	w.t.Helper()
	err := w.call(func(ctx context.Context) error { _, err := p.store.Fence(ctx, f); return err })
	if !errors.Is(err, operator.ErrFenced) {
		w.t.Fatalf("a Fence for incarnation %d after one for %d must give ErrFenced: %v", f.Incarnation, w.incarnation, err)
	}
}

// caseContradiction writes what does not follow from what is shown.
func caseContradiction(t testing.TB, s *causalSuite) {
	w := s.world(t)
	p := w.process()
	l := w.mustBegin(p)
	l.mustWrite(l.upTo(3))
	wrong := func(what string, change func(write *operator.StoreWrite)) {
		t.Helper()
		write := l.peek(l.upTo(2))
		change(&write)
		if err := l.store(context.Background(), write); !errors.Is(err, operator.ErrContradiction) {
			t.Fatalf("a write %s must give ErrContradiction: %v", what, err)
		}
		w.watch()
		w.must(l.again())
	}
	wrong("that begins at the same element, other bytes", func(write *operator.StoreWrite) { write.Start.Bytes++ })
	wrong("that begins at the same element, another checksum", func(write *operator.StoreWrite) { write.Start.CRC ^= 1 })
	l.mustWrite(l.upTo(1))
	gap := l.peek(l.upTo(2))
	gap.Start.Next, gap.End.Next = gap.Start.Next+1, gap.End.Next+1
	if err := l.store(context.Background(), gap); err == nil {
		t.Fatalf("a write succeeded that begins one element behind the end of the output")
	}
	w.watch()
	w.must(l.again())
	again := l.peek(l.upTo(1))
	again.Start = w.out.cursors[l.at-1]
	again.Records = append([][]byte{[]byte(w.shown[len(w.shown)-1])}, again.Records...)
	if err := l.store(context.Background(), again); err == nil {
		t.Fatalf("a write succeeded that begins one element before the end of the output")
	}
	w.watch()
	w.must(l.again())
	l.mustWrite(l.upTo(1))
	w.finish()
}

// peek is compose for a write that will not count.
func (l *life) peek(to determinant.Seq) operator.StoreWrite {
	was := l.sent
	write := l.compose(to)
	l.sent = was
	return write
}

// caseTasks gives several tasks their outputs side by side.
func caseTasks(t testing.TB, s *causalSuite) {
	place := s.place(t)
	var worlds []*causalWorld
	var lives []*life
	sink := place.Sink()
	for task := range sinkTasks {
		w := newWorld(t, s, place, task)
		w.out.choices = 100 * task // each has other records
		p, err := w.open(sink)
		w.must(err)
		worlds, lives = append(worlds, w), append(lives, w.mustBegin(p))
	}
	for round := range 6 {
		for task, w := range worlds {
			lives[task].mustWrite(lives[task].upTo(determinant.Seq(1 + task)))
			switch {
			case round == 2 && task == 1:
				lives[task] = w.mustBegin(lives[task].p)
				lives[task] = w.mustBegin(w.process())
			case round == 4 && task == 1:
				w.rollBack()
				lives[task] = w.mustBegin(lives[task].p)
			}
		}
	}
	for _, w := range worlds {
		w.watch()
		w.finish()
	}
	for _, task := range []int{-1, sinkTasks} {
		store, err := sink.Open(context.Background(), task, sinkTasks)
		if err == nil {
			_ = store.Close()
			t.Fatalf("Open succeeded for task %d of %d", task, sinkTasks)
		}
	}
}

// caseClose closes stores that others have open too.
func caseClose(t testing.TB, s *causalSuite) {
	w := s.world(t)
	sink := w.place.Sink()
	one, err := w.open(sink)
	w.must(err)
	two, err := w.open(sink)
	w.must(err)
	l := w.mustBegin(one)
	l.mustWrite(l.upTo(4))
	w.look(two)
	w.must(two.close())
	l.mustWrite(l.upTo(4)) // another open of the same task lives on
	write := l.peek(l.upTo(2))
	w.must(one.close())
	_ = one.close() // it must not panic
	if err := l.store(context.Background(), write); err == nil {
		t.Fatalf("Write succeeded after Close")
	}
	w.watch()
	w.incarnation++
	if err := w.call(func(ctx context.Context) error { _, err := one.store.Fence(ctx, w.fence()); return err }); err == nil {
		t.Fatalf("Fence succeeded after Close")
	}
	again, err := w.open(sink)
	w.must(err)
	l = w.mustBegin(again)
	l.mustWrite(l.upTo(4))
	w.finish()
}

// caseIdentity lets another job come to the same place.
func caseIdentity(t testing.TB, s *causalSuite) {
	w := s.world(t)
	if _, ok := w.place.Sink().(operator.SinkIdentifier); !ok {
		t.Skip("the sink is no operator.SinkIdentifier: nothing keeps two jobs from writing to one place")
	}
	p := w.process()
	l := w.mustBegin(p)
	l.mustWrite(l.upTo(4))
	for range 2 { // while the first runs, and after
		other := newWorld(t, s, w.place, 0)
		other.job = "another job"
		if q, err := other.open(w.place.Sink()); err == nil {
			err = w.call(func(ctx context.Context) error {
				_, err := q.store.Fence(ctx, operator.Fence{Incarnation: w.incarnation + 10})
				return err
			})
			if err == nil {
				t.Fatalf("another job has fenced the store")
			}
		}
		_ = p.close()
	}
	w.finish()
}

package connectortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// splits lists the splits in several processes.
func (r *sourceRun[T]) splits() {
	one, two := r.in.Source(), r.in.Source()
	first := r.names(one)
	for _, s := range []operator.Source[T]{one, two, r.in.Source()} {
		if again := r.names(s); !slices.Equal(again, first) {
			r.t.Fatalf("Splits: %q in one process or call, %q in another", first, again)
		}
	}
	sorted := slices.Clone(first)
	slices.Sort(sorted)
	if unique := slices.Compact(slices.Clone(sorted)); len(unique) != len(first) {
		r.t.Fatalf("Splits: one is there twice: %q", first)
	}
	a, ok := one.(operator.InputNamer)
	if !ok {
		return
	}
	for _, name := range first {
		of, again := a.InputOf(name), two.(operator.InputNamer).InputOf(name)
		if of != again || of == "" {
			r.t.Fatalf("InputOf(%q) is %q in one process, %q in another", name, of, again)
		}
	}
}

// read reads everything, and finds the end again and again.
func (r *sourceRun[T]) read() {
	if len(r.in.Records) < 2 {
		r.t.Fatalf("the suite needs an input of at least two records")
	}
	s := r.in.Source()
	names, items := r.contents(s)
	for i, name := range names {
		seen := map[uint64]bool{0: true}
		for _, it := range items[i] {
			if seen[it.next] {
				r.t.Fatalf("split %q: two records end at offset %d, or one at 0, the start", name, it.next)
			}
			seen[it.next] = true
		}
		if r.in.Add != nil {
			continue
		}
		reader := r.open(s, name, 0)
		_, err := r.take(reader, -1)
		r.must(err)
		for range 3 {
			if _, _, err := reader.Next(); err != io.EOF {
				r.t.Fatalf("split %q: Next at the end must give io.EOF again and again: %v", name, err)
			}
		}
		r.must(reader.Close())
	}
}

// readAgain reads every split again, in other processes, from every offset that was given.
func (r *sourceRun[T]) readAgain() {
	const whole = 20 // of this many offsets all that follows is read, of the others a little
	names, items := r.contents(r.in.Source())
	s := r.in.Source()
	for i, name := range names {
		for k, it := range items[i] {
			rest := items[i][k+1:]
			if k >= whole && len(rest) > whole {
				rest = rest[:whole]
			}
			if k%10 == 0 {
				s = r.in.Source()
			}
			reader := r.open(s, name, it.next)
			got, err := r.take(reader, len(rest))
			if err == nil {
				err = same(got, rest)
			}
			if err != nil {
				r.t.Fatalf("split %q from offset %d: %v", name, it.next, err)
			}
			if k+1 == len(items[i]) {
				r.nothing(reader)
			}
			r.must(reader.Close())
		}
	}
}

// nothing checks that a reader has no more.
func (r *sourceRun[T]) nothing(reader operator.Reader[T]) {
	r.t.Helper()
	if r.in.Add != nil {
		r.notReady(reader)
		return
	}
	items, err := r.take(reader, -1)
	if err == nil && len(items) > 0 {
		err = fmt.Errorf("%d records came behind the last", len(items))
	}
	r.must(err)
}

// notReady checks that a reader has to wait. The engine compares with ErrNotReady itself.
func (r *sourceRun[T]) notReady(reader operator.Reader[T]) {
	r.t.Helper()
	if _, _, err := reader.Next(); err != operator.ErrNotReady {
		r.t.Fatalf("Next behind the last record must give ErrNotReady itself: %v", err)
	}
	r.waiting = true
}

// atATime reads all splits at once, each by several readers, from several goroutines.
func (r *sourceRun[T]) atATime() {
	const readers = 3
	names, items := r.contents(r.in.Source())
	s := r.in.Source()
	var wg sync.WaitGroup
	failed := make(chan error, len(names)*readers)
	for i, name := range names {
		for k := range readers {
			wg.Go(func() {
				failed <- r.readFrom(s, name, items[i], k*len(items[i])/readers)
			})
		}
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		r.must(err)
	}
}

// readFrom reads a split from behind its first n records.
func (r *sourceRun[T]) readFrom(s operator.Source[T], name string, items []item[T], n int) error {
	offset := uint64(0)
	if n > 0 {
		offset = items[n-1].next
	}
	reader, err := s.Open(context.Background(), name, offset)
	if err != nil {
		return fmt.Errorf("Open of split %q at offset %d: %w", name, offset, err)
	}
	defer reader.Close()
	got, err := r.take(reader, len(items)-n)
	if err == nil {
		err = same(got, items[n:])
	}
	if err != nil {
		return fmt.Errorf("split %q from offset %d, beside other readers: %w", name, offset, err)
	}
	return nil
}

// close closes readers in the middle, beside others.
func (r *sourceRun[T]) close() {
	names, items := r.contents(r.in.Source())
	s := r.in.Source()
	for i, name := range names {
		if len(items[i]) < 2 {
			continue
		}
		one, two := r.open(s, name, 0), r.open(s, name, 0)
		_, err := r.take(one, 1)
		r.must(err)
		_, err = r.take(two, 1)
		r.must(err)
		r.must(one.Close())
		got, err := r.take(two, len(items[i])-1)
		if err == nil {
			err = same(got, items[i][1:])
		}
		if err != nil {
			r.t.Fatalf("split %q, after another reader of it was closed: %v", name, err)
		}
		r.must(two.Close())
	}
}

// refused asks for what there is not.
func (r *sourceRun[T]) refused() {
	first := r.names(r.in.Source())[0]
	for _, name := range append([]string{"", "no split of this name", first + "x", "\x00"}, r.in.BadSplits...) {
		if err := r.refusal(name, 0); err == nil {
			r.t.Fatalf("split %q can be read, but there is none", name)
		}
	}
	for _, offset := range append([]uint64{math.MaxUint64}, r.in.BadOffsets...) {
		if err := r.refusal(first, offset); err == nil {
			r.t.Fatalf("split %q can be read from offset %d, which no Reader has returned", first, offset)
		}
	}
}

// cancelled reads with contexts that have ended, before and meanwhile.
func (r *sourceRun[T]) cancelled() {
	s := r.in.Source()
	name := r.names(s)[0]
	check := func(what string, err error) {
		r.t.Helper()
		if err != nil && !errors.Is(err, context.Canceled) {
			r.t.Fatalf("%s with a cancelled context failed without context.Canceled in its error: %v", what, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	reader, err := s.Open(ctx, name, 0)
	r.must(err)
	cancel()
	for range len(r.in.Records) {
		_, _, err := reader.Next()
		if err == io.EOF || err == operator.ErrNotReady {
			break
		}
		check("Next", err)
	}
	r.must(reader.Close())
	reader, err = s.Open(ctx, name, 0)
	check("Open", err)
	if err == nil {
		r.must(reader.Close())
	}
	_, err = s.Splits(ctx)
	check("Splits", err)
	r.contents(s)
}

// last opens the last split where nothing is left to read.
func (r *sourceRun[T]) last() (open func() operator.Reader[T]) {
	r.t.Helper()
	names, items := r.contents(r.in.Source())
	name, of, end := names[len(names)-1], items[len(items)-1], uint64(0)
	if len(of) > 0 {
		end = of[len(of)-1].next
	}
	return func() operator.Reader[T] { r.t.Helper(); return r.open(r.in.Source(), name, end) }
}

// added adds records before anybody waits for them.
func (r *sourceRun[T]) added() { r.wait(func(add func()) { add() }) }

// addedWhileWaiting adds records while somebody waits for them.
func (r *sourceRun[T]) addedWhileWaiting() { r.wait(func(add func()) { go add() }) }

// wait reads records that come later, as the engine does: after ErrNotReady it calls Next when Ready has a value.
func (r *sourceRun[T]) wait(run func(add func())) {
	const rounds, batch = 5, 3
	open := r.last()
	reader := open()
	r.notReady(reader)
	ready := reader.Ready()
	if ready == nil {
		r.t.Fatalf("Ready is nil, but Next has returned ErrNotReady")
	}
	var all []T
	var got []item[T]
	for range rounds {
		added := make(chan T, batch)
		run(func() {
			for range batch {
				added <- r.in.Add()
			}
			close(added)
		})
		for range batch {
			got = append(got, r.ready(reader, ready))
		}
		for v := range added {
			all = append(all, v)
		}
		r.notReady(reader)
		if reader.Ready() != ready {
			r.t.Fatalf("Ready has given two channels: the engine asks for it once")
		}
	}
	r.must(reader.Close())
	r.equal("what was added", got, all)
	reader = open()
	after, err := r.take(reader, len(got))
	r.must(err)
	r.must(same(after, got))
	r.must(reader.Close())
}

// ready waits until Ready has a value, and takes the next record when there is one. It is called where Next has returned
// ErrNotReady, or a record behind which there may be more.
func (r *sourceRun[T]) ready(reader operator.Reader[T], ready <-chan struct{}) item[T] {
	r.t.Helper()
	for {
		if r.waiting {
			select {
			case <-ready:
			case <-time.After(r.patience):
				r.t.Fatalf("a record was added, but Ready has no value after ErrNotReady")
			}
		}
		v, next, err := reader.Next()
		r.waiting = err == operator.ErrNotReady
		if err == nil {
			return item[T]{v, next}
		}
		if !r.waiting {
			r.t.Fatalf("Next: %v", err)
		}
	}
}

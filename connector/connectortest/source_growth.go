package connectortest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// looks is how often a source is asked for new splits that does not have any.
const looks = 5

// growing makes a source in a process of its own.
func (r *sourceRun[T]) growing() (operator.Source[T], operator.Growing) {
	r.t.Helper()
	s := r.in.Source()
	g, ok := s.(operator.Growing)
	if !ok {
		r.t.Fatalf("the input has a Grow, and the source is no operator.Growing")
	}
	if d, again := g.DiscoveryInterval(), r.in.Source().(operator.Growing).DiscoveryInterval(); d <= 0 || d != again {
		r.t.Fatalf("DiscoveryInterval is %v in one process and %v in another, it must be above 0", d, again)
	}
	return s, g
}

// discover asks a source for new splits, and gives those that the engine would take in.
func (r *sourceRun[T]) discover(g operator.Growing, known []string) (added []string) {
	r.t.Helper()
	found, _, err := g.Discover(context.Background(), slices.Clone(known))
	if err != nil {
		r.t.Fatalf("Discover: %v", err)
	}
	for _, name := range found {
		if !slices.Contains(known, name) && !slices.Contains(added, name) {
			added = append(added, name)
		}
	}
	return added
}

// await asks until so many splits are found. A source may need several looks.
func (r *sourceRun[T]) await(g operator.Growing, known []string, n int) []string {
	r.t.Helper()
	var added []string
	for end := time.Now().Add(r.patience); len(added) < n; <-time.After(firstWait) {
		if time.Now().After(end) {
			r.t.Fatalf("%d splits were added, Discover finds %q", n, added)
		}
		added = append(added, r.discover(g, slices.Concat(known, added))...)
	}
	if len(added) != n {
		r.t.Fatalf("%d splits were added, Discover finds %q", n, added)
	}
	return added
}

// settled checks that nothing more is found.
func (r *sourceRun[T]) settled(g operator.Growing, known []string) {
	r.t.Helper()
	for range looks {
		if more := r.discover(g, known); len(more) > 0 {
			r.t.Fatalf("no split was added beyond %q, and Discover finds %q", known, more)
		}
	}
}

// nothingNew looks for splits where none was added, also when those that are known were read or have got more records.
func (r *sourceRun[T]) nothingNew() {
	s, g := r.growing()
	known := r.names(s)
	r.settled(g, known)
	if r.in.Add != nil {
		r.in.Add()
	}
	r.settled(g, known)
	_, other := r.growing()
	r.settled(other, known)
}

// newSplits adds splits, and reads them.
func (r *sourceRun[T]) newSplits() {
	s, g := r.growing()
	known := r.names(s)
	before := len(known)
	var want [][]T
	for range 2 {
		added := r.in.Grow()
		want = append(want, added...)
		known = append(known, r.await(g, known, len(added))...)
		r.settled(g, known)
	}
	var got [][]item[T]
	if r.in.Add != nil {
		total := 0
		for _, records := range want {
			total += len(records)
		}
		got = r.until(s, known[before:], total)
	}
	for i, name := range known[before:] {
		if r.in.Add == nil {
			reader := r.open(s, name, 0)
			all, err := r.take(reader, -1)
			r.must(err)
			r.must(reader.Close())
			got = append(got, all)
		}
		r.readLater(name, got[i])
	}
	// In which order splits are found that came together is the source's affair.
	for _, records := range want {
		at := slices.IndexFunc(got, func(items []item[T]) bool { return len(items) == len(records) && alike(items, records) })
		if at < 0 {
			r.t.Fatalf("no new split has the records %v: they have %v", records, got)
		}
		got = slices.Delete(got, at, at+1)
	}
}

// readLater reads a new split again, in other processes, from each offset.
func (r *sourceRun[T]) readLater(name string, items []item[T]) {
	r.t.Helper()
	for k := range items {
		reader := r.open(r.in.Source(), name, items[k].next)
		got, err := r.take(reader, len(items)-k-1)
		if err == nil {
			err = same(got, items[k+1:])
		}
		if err != nil {
			r.t.Fatalf("new split %q from offset %d: %v", name, items[k].next, err)
		}
		r.must(reader.Close())
	}
}

func alike[T any](items []item[T], records []T) bool {
	got := make([]item[T], len(records))
	for i, v := range records {
		got[i] = item[T]{v, items[i].next}
	}
	return same(items, got) == nil
}

// newSplitsElsewhere finds the same new splits in several processes: whoever coordinates the job may have found them, and not have
// told anybody before it died.
func (r *sourceRun[T]) newSplitsElsewhere() {
	s, g := r.growing()
	known := r.names(s)
	n := len(r.in.Grow())
	first := r.await(g, known, n)
	_, other := r.growing()
	second := r.await(other, known, n)
	slices.Sort(first)
	slices.Sort(second)
	if !slices.Equal(first, second) {
		r.t.Fatalf("the new splits are %q in one process and %q in another: a change of coordinators would have them read twice", first, second)
	}
}

// listingCancelled lists with a context that has ended.
func (r *sourceRun[T]) listingCancelled() {
	s, g := r.growing()
	known := r.names(s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	done := make(chan error, 1)
	go func() {
		_, _, err := g.Discover(ctx, known)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, context.Canceled) {
			r.t.Fatalf("Discover with a cancelled context failed without context.Canceled in its error: %v", err)
		}
	case <-time.After(r.patience):
		r.t.Fatalf("Discover does not return when its context has ended")
	}
	r.settled(g, known)
}

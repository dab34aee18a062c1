package connectortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// item is what Next returned.
type item[T any] struct {
	v    T
	next uint64
}

func (r *sourceRun[T]) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v", err)
	}
}

// names lists the splits.
func (r *sourceRun[T]) names(s operator.Source[T]) []string {
	r.t.Helper()
	names, err := s.Splits(context.Background())
	if err != nil {
		r.t.Fatalf("Splits: %v", err)
	}
	if len(names) == 0 {
		r.t.Fatalf("Splits: there are none")
	}
	return names
}

// open opens a split.
func (r *sourceRun[T]) open(s operator.Source[T], split string, offset uint64) operator.Reader[T] {
	r.t.Helper()
	reader, err := s.Open(context.Background(), split, offset)
	if err != nil {
		r.t.Fatalf("Open of split %q at offset %d: %v", split, offset, err)
	}
	return reader
}

// take reads n items, or to the end if n is negative. A reader that is not ready is asked again for a while.
func (r *sourceRun[T]) take(reader operator.Reader[T], n int) (items []item[T], err error) {
	wait, end := firstWait, time.Now().Add(r.patience)
	for len(items) != n {
		v, next, err := reader.Next()
		switch {
		case err == nil:
			items = append(items, item[T]{v, next})
			wait, end = firstWait, time.Now().Add(r.patience)
		case err == operator.ErrNotReady:
			if time.Now().After(end) {
				return items, fmt.Errorf("no record came after %d", len(items))
			}
			<-time.After(wait)
			wait = min(2*wait, lastWait)
		case err == io.EOF && n < 0:
			return items, nil
		default:
			return items, fmt.Errorf("next after %d records: %w", len(items), err)
		}
	}
	return items, nil
}

// contents reads all splits, and compares what is there with what must be.
func (r *sourceRun[T]) contents(s operator.Source[T]) (names []string, items [][]item[T]) {
	r.t.Helper()
	names = r.names(s)
	if r.in.Add == nil {
		for _, name := range names {
			reader := r.open(s, name, 0)
			got, err := r.take(reader, -1)
			if err != nil {
				r.t.Fatalf("split %q: %v", name, err)
			}
			r.must(reader.Close())
			items = append(items, got)
		}
	} else {
		items = r.endless(s, names)
	}
	var all []item[T]
	for _, of := range items {
		all = append(all, of...)
	}
	r.equal("all splits one after the other", all, r.in.Records)
	return names, items
}

// endless reads splits that do not end until as many records came as there must be.
func (r *sourceRun[T]) endless(s operator.Source[T], names []string) [][]item[T] {
	r.t.Helper()
	return r.until(s, names, len(r.in.Records))
}

// until reads splits that do not end until so many records came.
func (r *sourceRun[T]) until(s operator.Source[T], names []string, want int) [][]item[T] {
	r.t.Helper()
	items := make([][]item[T], len(names))
	readers := make([]operator.Reader[T], len(names))
	for i, name := range names {
		readers[i] = r.open(s, name, 0)
	}
	total := 0
	for end := time.Now().Add(r.patience); total < want; {
		before := total
		for i, reader := range readers {
			v, next, err := reader.Next()
			if err == nil {
				items[i] = append(items[i], item[T]{v, next})
				total++
			} else if err != operator.ErrNotReady {
				r.t.Fatalf("Next of split %q after %d records: %v", names[i], len(items[i]), err)
			}
		}
		if total == before {
			if time.Now().After(end) {
				r.t.Fatalf("%d records came, there must be %d", total, want)
			}
			<-time.After(firstWait)
		}
	}
	for _, reader := range readers {
		r.notReady(reader)
		r.must(reader.Close())
	}
	return items
}

// equal compares records with those that must be.
func (r *sourceRun[T]) equal(what string, got []item[T], want []T) {
	r.t.Helper()
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i].v, want[i]) {
			r.t.Fatalf("%s: record %d is %v, it must be %v", what, i, got[i].v, want[i])
		}
	}
	if len(got) != len(want) {
		r.t.Fatalf("%s: %d records, there must be %d", what, len(got), len(want))
	}
}

// same compares what was read with what was read before.
func same[T any](got, want []item[T]) error {
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i], want[i]) {
			return fmt.Errorf("record %d is %v with %d behind it, before it was %v with %d", i, got[i].v, got[i].next, want[i].v,
				want[i].next)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d records, before there were %d", len(got), len(want))
	}
	return nil
}

// refusal tells whether a split or offset is refused: by Open, or by the first Next where that has to look.
func (r *sourceRun[T]) refusal(split string, offset uint64) error {
	reader, err := r.in.Source().Open(context.Background(), split, offset)
	if err != nil {
		return err
	}
	defer reader.Close()
	for end := time.Now().Add(r.patience); time.Now().Before(end); <-time.After(firstWait) {
		_, _, err = reader.Next()
		if !errors.Is(err, operator.ErrNotReady) {
			break
		}
	}
	if errors.Is(err, operator.ErrNotReady) || err == io.EOF {
		return nil
	}
	return err
}

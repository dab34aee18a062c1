package main

import (
	"context"
	"time"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// namedSource is what every connector's source is.
type namedSource[T any] interface {
	operator.Source[T]
	operator.InputNamer
}

// place is where a record stands.
type place struct {
	split  string // the split's identity
	before uint64 // the offset before the record
}

// linesOf reads another source's records as lines. What line makes of a record must depend on nothing but its arguments, of which
// place is the same whenever the record is read.
func linesOf[T any](s namedSource[T], line func(place, T) (file.Line, error)) operator.Source[file.Line] {
	return &lineSource[T]{of: s, line: line}
}

type lineSource[T any] struct {
	of   namedSource[T]
	line func(place, T) (file.Line, error)
}

// Splits implements operator.Source.
func (s *lineSource[T]) Splits(ctx context.Context) ([]string, error) { return s.of.Splits(ctx) }

// DiscoveryInterval implements operator.Growing.
func (s *lineSource[T]) DiscoveryInterval() time.Duration {
	if of, ok := s.of.(operator.Growing); ok {
		return of.DiscoveryInterval()
	}
	return 0
}

// Discover implements operator.Growing.
func (s *lineSource[T]) Discover(ctx context.Context, known []string) (splits []string, all bool, err error) {
	if of, ok := s.of.(operator.Growing); ok {
		return of.Discover(ctx, known)
	}
	return nil, true, nil
}

// InputOf implements operator.InputNamer.
func (s *lineSource[T]) InputOf(split string) string { return s.of.InputOf(split) }

// Open implements operator.Source.
func (s *lineSource[T]) Open(ctx context.Context, split string, offset uint64) (operator.Reader[file.Line], error) {
	r, err := s.of.Open(ctx, split, offset)
	if err != nil {
		return nil, err
	}
	return &lineReader[T]{of: r, line: s.line, at: place{split: split, before: offset}}, nil
}

type lineReader[T any] struct {
	of   operator.Reader[T]
	line func(place, T) (file.Line, error)
	at   place
}

// Next implements operator.Reader.
func (r *lineReader[T]) Next() (l file.Line, next uint64, err error) {
	v, next, err := r.of.Next()
	at := r.at
	if next != 0 { // also with the error of a record that cannot be decoded, behind which reading goes on
		r.at.before = next
	}
	if err != nil {
		return l, next, err
	}
	l, err = r.line(at, v)
	return l, next, err
}

// Ready implements operator.Reader.
func (r *lineReader[T]) Ready() <-chan struct{} { return r.of.Ready() }

// Close implements operator.Reader.
func (r *lineReader[T]) Close() error { return r.of.Close() }

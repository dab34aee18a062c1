package main

import (
	"context"
	"io"

	"github.com/understudy-stream/understudy/operator"
)

// numbers is a source of the numbers 1 to n in two splits, odd ones and even ones. The offset in a split is how many numbers
// of it were given.
type numbers struct{ n uint64 }

func (s numbers) Splits(context.Context) ([]string, error) { return []string{"odd", "even"}, nil }

func (s numbers) Open(_ context.Context, split string, offset uint64) (operator.Reader[uint64], error) {
	first := uint64(1)
	if split == "even" {
		first = 2
	}
	return &numberReader{first: first, n: s.n, offset: offset}, nil
}

type numberReader struct{ first, n, offset uint64 }

func (r *numberReader) Next() (v, next uint64, err error) {
	v = r.first + 2*r.offset
	if v > r.n {
		return 0, 0, io.EOF
	}
	r.offset++
	return v, r.offset, nil
}

// Ready is nil: Next never has to wait.
func (r *numberReader) Ready() <-chan struct{} { return nil }
func (r *numberReader) Close() error           { return nil }

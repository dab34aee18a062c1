package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/understudy-stream/understudy/operator"
)

// DecodeError is what a Reader returns for a row that cannot be decoded. The offset that Next returns with it is the one after the
// row, and the next call of Next goes on there.
type DecodeError struct {
	Input string // table or query
	Key   int64
	Text  string // the row, cut to a length for people
	Err   error
}

// Error names the table and the key.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("postgres: %s, key %d: %v in %s", e.Input, e.Key, e.Err, e.Text)
}

// Unwrap gives the decoder's own error.
func (e *DecodeError) Unwrap() error { return e.Err }

// Decoded is a source of what f makes of each row. f must be deterministic. Its error is wrapped in a DecodeError.
func Decoded[T any](s *Source, f func(Row) (T, error)) operator.Source[T] {
	return decoded[T]{Source: s, decode: f}
}

// DecodedJSON is a source of values that are decoded from the rows' JSON.
func DecodedJSON[T any](s *Source) operator.Source[T] {
	return Decoded(s, func(r Row) (v T, err error) {
		err = json.Unmarshal([]byte(r.JSON), &v)
		return v, err
	})
}

type decoded[T any] struct {
	*Source
	decode func(Row) (T, error)
}

func (d decoded[T]) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[T], error) {
	r, err := d.Source.open(ctx, identity, offset)
	if err != nil {
		return nil, err
	}
	return &decodedReader[T]{reader: r, decode: d.decode}, nil
}

type decodedReader[T any] struct {
	*reader
	decode func(Row) (T, error)
}

func (r *decodedReader[T]) Next() (v T, next uint64, err error) {
	row, next, err := r.reader.Next()
	if err != nil {
		return v, next, err
	}
	if v, err = r.decode(row); err != nil {
		var zero T
		return zero, next, &DecodeError{Input: r.source.input(), Key: row.Key, Text: shown([]byte(row.JSON)), Err: err}
	}
	return v, next, nil
}

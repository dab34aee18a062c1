package kafka

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/understudy-stream/understudy/operator"
)

// DecodeError is what a Reader returns for a record that cannot be decoded. The offset that Next returns with it is the one
// after the record, and the next call of Next goes on there: whoever may set records aside can.
type DecodeError struct {
	Topic     string
	Partition int32
	Offset    int64
	Text      string // the value, cut to a length for people
	Err       error
}

const maxShown = 200

// Error names the place.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("kafka: %s/%d:%d: %v in %q", e.Topic, e.Partition, e.Offset, e.Err, e.Text)
}

// Unwrap gives the decoder's own error.
func (e *DecodeError) Unwrap() error { return e.Err }

// Decoded is a source of what f makes of each record. f must be deterministic. Its error is wrapped in a DecodeError.
func Decoded[T any](s *Source, f func(Record) (T, error)) operator.Source[T] {
	return decoded[T]{Source: s, decode: f}
}

// JSON is a source of the JSON values that are the records' values. Tombstones are passed over.
func JSON[T any](s *Source) operator.Source[T] {
	return decoded[T]{Source: s, passTombstones: true, decode: func(r Record) (v T, err error) {
		err = json.Unmarshal(r.Value, &v)
		return v, err
	}}
}

type decoded[T any] struct {
	*Source
	passTombstones bool
	decode         func(Record) (T, error)
}

func (d decoded[T]) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[T], error) {
	r, err := d.Source.open(ctx, identity, offset)
	if err != nil {
		return nil, err
	}
	return &decodedReader[T]{source: d, reader: r}, nil
}

type decodedReader[T any] struct {
	source decoded[T]
	*reader
}

func (r *decodedReader[T]) Next() (v T, next uint64, err error) {
	k, next, err := r.reader.next()
	for err == nil && r.source.passTombstones && k.Value == nil {
		k, next, err = r.reader.next()
	}
	if err != nil {
		return v, 0, err
	}
	if v, err = r.source.decode(recordOf(k)); err != nil {
		var zero T
		shown := string(k.Value[:min(len(k.Value), maxShown)])
		if len(k.Value) > maxShown {
			shown += "…"
		}
		return zero, next, &DecodeError{Topic: k.Topic, Partition: k.Partition, Offset: k.Offset, Text: shown, Err: err}
	}
	return v, next, nil
}

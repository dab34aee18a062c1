package nats

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/understudy-stream/understudy/operator"
)

// DecodeError is what a Reader returns for a message that cannot be decoded. The offset that Next returns with it is the one
// after the message, and the next call of Next goes on there: whoever may set records aside can.
type DecodeError struct {
	Stream   string
	Sequence uint64
	Text     string // the message, cut to a length for people
	Err      error
}

const maxShown = 200

// Error names the stream and the sequence.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("nats: message %d of %s: %v in %q", e.Sequence, e.Stream, e.Err, e.Text)
}

// Unwrap gives the decoder's own error.
func (e *DecodeError) Unwrap() error { return e.Err }

// Decoded is a source of what f makes of each message. f must be deterministic. Its error is wrapped in a DecodeError.
func Decoded[T any](s *Source, f func(Message) (T, error)) operator.Source[T] {
	return decoded[T]{s, f}
}

// JSON is a source of JSON values, one per message. A message that cannot be decoded is a DecodeError.
func JSON[T any](s *Source) operator.Source[T] {
	return decoded[T]{s, func(m Message) (v T, err error) {
		err = json.Unmarshal(m.Data, &v)
		return v, err
	}}
}

type decoded[T any] struct {
	*Source
	decode func(Message) (T, error)
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
	decode func(Message) (T, error)
}

func (r *decodedReader[T]) Next() (v T, next uint64, err error) {
	m, next, err := r.reader.Next()
	if err != nil {
		return v, next, err
	}
	if v, err = r.decode(m); err != nil {
		shown := string(m.Data[:min(len(m.Data), maxShown)])
		if len(m.Data) > maxShown {
			shown += "…"
		}
		var zero T
		return zero, next, &DecodeError{Stream: m.Stream, Sequence: m.Sequence, Text: shown, Err: err}
	}
	return v, next, nil
}

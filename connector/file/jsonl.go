package file

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/understudy-stream/understudy/operator"
)

// DecodeError is what a Reader returns for a line that cannot be decoded. The offset that Next returns with it is the one
// after the line, and the next call of Next goes on there: whoever may set records aside can.
type DecodeError struct {
	File   string
	Offset uint64
	Text   string // the line, cut to a length for people
	Err    error
}

const maxShown = 200

// Error names the file and the offset.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("file: %s:%d: %v in %q", e.File, e.Offset, e.Err, e.Text)
}

// Unwrap gives the decoder's own error.
func (e *DecodeError) Unwrap() error { return e.Err }

func newDecodeError(file string, offset uint64, text []byte, err error) *DecodeError {
	shown := string(text[:min(len(text), maxShown)])
	if len(text) > maxShown {
		shown += "…"
	}
	return &DecodeError{File: file, Offset: offset, Text: shown, Err: err}
}

// Decoded is a source of what f makes of each line. f must be deterministic. Its error is wrapped in a DecodeError.
func Decoded[T any](s *Source, f func(Line) (T, error)) operator.Source[T] {
	return decoded[T]{Source: s, decode: func(l *scanner, text []byte, at uint64) (T, error) {
		return f(Line{File: l.split.File, Offset: at, Text: string(text)})
	}}
}

// JSONL is a source of JSON values, one per line. Lines of nothing but white space are passed over. A line that cannot be
// decoded is a DecodeError. For options: DecodedJSON(Lines(…).With(…)).
func JSONL[T any](globs ...string) operator.Source[T] { return DecodedJSON[T](Lines(globs...)) }

// DecodedJSON is JSONL over a source with options.
func DecodedJSON[T any](s *Source) operator.Source[T] {
	return decoded[T]{Source: s, passBlank: true, decode: func(_ *scanner, text []byte, _ uint64) (v T, err error) {
		err = json.Unmarshal(text, &v)
		return v, err
	}}
}

type decoded[T any] struct {
	*Source
	passBlank bool
	decode    func(l *scanner, text []byte, at uint64) (T, error)
}

func (d decoded[T]) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[T], error) {
	l, err := d.Source.open(ctx, identity, offset)
	if err != nil {
		return nil, err
	}
	return &decodedReader[T]{source: d, scanner: l}, nil
}

type decodedReader[T any] struct {
	source  decoded[T]
	scanner *scanner
}

func (r *decodedReader[T]) Next() (v T, next uint64, err error) {
	l := r.scanner
	text, at, err := l.next()
	for err == nil && r.source.passBlank && len(bytes.TrimSpace(text)) == 0 {
		text, at, err = l.next()
	}
	if err != nil {
		return v, l.offset(), err
	}
	if v, err = r.source.decode(l, text, at); err != nil {
		var zero T
		return zero, l.offset(), newDecodeError(l.split.File, at, text, err)
	}
	return v, l.offset(), nil
}

func (r *decodedReader[T]) Ready() <-chan struct{} { return nil }

func (r *decodedReader[T]) Close() error { return r.scanner.file.Close() }

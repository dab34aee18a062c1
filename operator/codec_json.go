package operator

import (
	"bytes"
	"encoding/json"
)

// JSON is a codec for output that people or other programs read: one JSON value, without a line end and without HTML
// escapes. Package json sorts the keys of maps. A type with a MarshalJSON of its own must be deterministic in it.
func JSON[T any]() Codec[T] { return jsonCodec[T]{} }

type jsonCodec[T any] struct{}

func (jsonCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	w := bytes.NewBuffer(dst)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(w.Bytes(), []byte("\n")), nil
}

func (jsonCodec[T]) Decode(src []byte) (T, error) {
	var v T
	err := json.Unmarshal(src, &v)
	return v, err
}

package operator

import (
	"errors"
	"reflect"
)

// ErrEncoding is what a default codec returns for bytes that it cannot have written.
var ErrEncoding = errors.New("operator: corrupt encoding")

// Codec turns values into bytes and back. Equal values must give equal bytes, whatever the process, the order of a map or
// what was encoded before: consumers prove by a checksum that a replay gave the same output. CheckDeterministic tests that.
// A Codec is shared by all tasks of a process and must be safe for concurrent use.
type Codec[T any] interface {
	// Append appends the encoding of v to dst and returns it. It must not keep dst, nor change v.
	Append(dst []byte, v T) ([]byte, error)
	// Decode reads back all of src. The value must not alias src. It must return an error, and not panic, for bytes that Append
	// did not write. It may be called for a record before those in front of it have run.
	Decode(src []byte) (T, error)
}

// MsgPack is the default codec: MessagePack, made deterministic. Strings, byte slices, numbers and booleans take a short way; a
// string or byte slice by itself is its bytes. In other types, structs are arrays of their exported fields in order (a field
// added at the end is zero when older bytes are read), maps are sorted by their encoded keys whatever the kind of key, and
// time.Time is read back in UTC. A type that implements encoding.BinaryMarshaler or TextMarshaler and the inverse is encoded
// by that. A field with the tag `msgpack:"-"` is left out.
//
// Interfaces, functions, channels and structs with unexported fields are refused.
func MsgPack[T any]() (Codec[T], error) {
	var zero T
	if c, ok := scalarCodec(any(zero)).(Codec[T]); ok {
		return c, nil
	}
	return newReflectCodec[T](reflect.TypeFor[T]())
}

// scalarCodec gives the direct codec of a predeclared type, otherwise nil.
func scalarCodec(zero any) any {
	switch zero.(type) {
	case string:
		return stringCodec{}
	case []byte:
		return bytesCodec{}
	case bool:
		return boolCodec{}
	case int:
		return signedCodec[int]{}
	case int8:
		return signedCodec[int8]{}
	case int16:
		return signedCodec[int16]{}
	case int32:
		return signedCodec[int32]{}
	case int64:
		return signedCodec[int64]{}
	case uint:
		return unsignedCodec[uint]{}
	case uint8:
		return unsignedCodec[uint8]{}
	case uint16:
		return unsignedCodec[uint16]{}
	case uint32:
		return unsignedCodec[uint32]{}
	case uint64:
		return unsignedCodec[uint64]{}
	case float32:
		return float32Codec{}
	case float64:
		return float64Codec{}
	}
	return nil
}

type stringCodec struct{}

func (stringCodec) Append(dst []byte, v string) ([]byte, error) { return append(dst, v...), nil }
func (stringCodec) Decode(src []byte) (string, error)           { return string(src), nil }

// bytesCodec does not tell nil from empty.
type bytesCodec struct{}

func (bytesCodec) Append(dst []byte, v []byte) ([]byte, error) { return append(dst, v...), nil }
func (bytesCodec) Decode(src []byte) ([]byte, error) {
	return append(make([]byte, 0, len(src)), src...), nil
}

type boolCodec struct{}

func (boolCodec) Append(dst []byte, v bool) ([]byte, error) { return appendBool(dst, v), nil }
func (boolCodec) Decode(src []byte) (bool, error) {
	v, rest, err := readBool(src)
	return v, whole(rest, err)
}

type signedCodec[T ~int | ~int8 | ~int16 | ~int32 | ~int64] struct{}

func (signedCodec[T]) Append(dst []byte, v T) ([]byte, error) { return appendInt(dst, int64(v)), nil }
func (signedCodec[T]) Decode(src []byte) (T, error) {
	v, rest, err := readInt(src)
	if err == nil && int64(T(v)) != v {
		err = ErrEncoding
	}
	return T(v), whole(rest, err)
}

type unsignedCodec[T ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64] struct{}

func (unsignedCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	return appendUint(dst, uint64(v)), nil
}
func (unsignedCodec[T]) Decode(src []byte) (T, error) {
	v, rest, err := readUint(src)
	if err == nil && uint64(T(v)) != v {
		err = ErrEncoding
	}
	return T(v), whole(rest, err)
}

type float32Codec struct{}

func (float32Codec) Append(dst []byte, v float32) ([]byte, error) { return appendFloat32(dst, v), nil }
func (float32Codec) Decode(src []byte) (float32, error) {
	v, rest, err := readFloat32(src)
	return v, whole(rest, err)
}

type float64Codec struct{}

func (float64Codec) Append(dst []byte, v float64) ([]byte, error) { return appendFloat64(dst, v), nil }
func (float64Codec) Decode(src []byte) (float64, error) {
	v, rest, err := readFloat64(src)
	return v, whole(rest, err)
}

// whole refuses bytes after the value.
func whole(rest []byte, err error) error {
	if err == nil && len(rest) != 0 {
		return ErrEncoding
	}
	return err
}

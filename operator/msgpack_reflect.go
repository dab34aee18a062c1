package operator

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"
)

// maxDepth bounds how deeply a value of a recursive type may nest.
const maxDepth = 1000

// reflectCodec codes any type that compileType accepts. The type is inspected once; coding a value walks closures.
type reflectCodec[T any] struct {
	compiled *compiled
	slots    *sync.Pool // of *slot[T]: values that reflection can see without an allocation per record
}

type slot[T any] struct {
	v  T
	rv reflect.Value // of v
}

func newReflectCodec[T any](t reflect.Type) (Codec[T], error) {
	c, err := compileType(t)
	if err != nil {
		return nil, err
	}
	pool := &sync.Pool{New: func() any {
		s := new(slot[T])
		s.rv = reflect.ValueOf(&s.v).Elem()
		return s
	}}
	return &reflectCodec[T]{compiled: c, slots: pool}, nil
}

func (c *reflectCodec[T]) Append(dst []byte, v T) ([]byte, error) {
	s := c.slots.Get().(*slot[T])
	s.v = v
	dst, err := c.compiled.encode(dst, s.rv, 0)
	c.release(s)
	return dst, err
}

func (c *reflectCodec[T]) Decode(src []byte) (T, error) {
	s := c.slots.Get().(*slot[T])
	rest, err := c.compiled.decode(src, s.rv, 0)
	v := s.v
	c.release(s)
	if err = whole(rest, err); err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

func (c *reflectCodec[T]) release(s *slot[T]) {
	var zero T
	s.v = zero
	c.slots.Put(s)
}

// compiled codes values of one type. decode is given a zero value to fill.
type compiled struct {
	encode func(dst []byte, v reflect.Value, depth int) ([]byte, error)
	decode func(src []byte, v reflect.Value, depth int) ([]byte, error)
}

func compileType(t reflect.Type) (*compiled, error) {
	c := &compiler{known: map[reflect.Type]*compiled{}}
	out, err := c.of(t)
	if err != nil {
		return nil, fmt.Errorf("type %v: %w; give it a codec of its own with WithCodec", t, err)
	}
	return out, nil
}

type compiler struct {
	known map[reflect.Type]*compiled // also those under way: a recursive type meets itself here
}

func (c *compiler) of(t reflect.Type) (*compiled, error) {
	if k := c.known[t]; k != nil {
		return k, nil
	}
	k := &compiled{}
	c.known[t] = k
	if err := c.fill(k, t); err != nil {
		return nil, err
	}
	return k, nil
}

var timeType = reflect.TypeFor[time.Time]()

func (c *compiler) fill(k *compiled, t reflect.Type) error {
	if t == timeType {
		compileTime(k)
		return nil
	}
	if done, err := compileMarshaler(k, t); done || err != nil {
		return err
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64:
		compileScalar(k, t.Kind())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		compileInteger(k, t.Kind())
	case reflect.Slice, reflect.Array:
		return c.list(k, t)
	case reflect.Map:
		return c.mapping(k, t)
	case reflect.Pointer:
		return c.pointer(k, t)
	case reflect.Struct:
		return c.structure(k, t)
	default:
		if t.Kind() == reflect.Interface {
			return errors.New("an interface can't be encoded in one way only")
		}
		return fmt.Errorf("a %v can't be encoded in one way only", t.Kind())
	}
	return nil
}

func compileTime(k *compiled) {
	k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
		return appendTime(dst, v.Interface().(time.Time)), nil
	}
	k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
		x, rest, err := readTime(src)
		if err == nil {
			v.Set(reflect.ValueOf(x))
		}
		return rest, err
	}
}

func compileScalar(k *compiled, kind reflect.Kind) {
	switch kind {
	case reflect.Bool:
		k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) { return appendBool(dst, v.Bool()), nil }
		k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
			x, rest, err := readBool(src)
			v.SetBool(x)
			return rest, err
		}
	case reflect.Float32:
		k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
			return appendFloat32(dst, float32(v.Float())), nil
		}
		k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
			x, rest, err := readFloat32(src)
			v.SetFloat(float64(x))
			return rest, err
		}
	case reflect.Float64:
		k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) { return appendFloat64(dst, v.Float()), nil }
		k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
			x, rest, err := readFloat64(src)
			v.SetFloat(x)
			return rest, err
		}
	case reflect.String:
		k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
			s := v.String()
			return append(strTags.append(dst, len(s)), s...), nil
		}
		k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
			n, rest, err := strTags.read(src)
			if err != nil {
				return nil, err
			}
			v.SetString(string(rest[:n]))
			return rest[n:], nil
		}
	}
}

func compileInteger(k *compiled, kind reflect.Kind) {
	if kind >= reflect.Uint && kind <= reflect.Uint64 {
		k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) { return appendUint(dst, v.Uint()), nil }
		k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
			x, rest, err := readUint(src)
			if err == nil && v.OverflowUint(x) {
				return nil, fmt.Errorf("%w: %d overflows %v", ErrEncoding, x, v.Type())
			}
			v.SetUint(x)
			return rest, err
		}
		return
	}
	k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) { return appendInt(dst, v.Int()), nil }
	k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
		x, rest, err := readInt(src)
		if err == nil && v.OverflowInt(x) {
			return nil, fmt.Errorf("%w: %d overflows %v", ErrEncoding, x, v.Type())
		}
		v.SetInt(x)
		return rest, err
	}
}

func (c *compiler) pointer(k *compiled, t reflect.Type) error {
	elem, err := c.of(t.Elem())
	if err != nil {
		return err
	}
	if e := t.Elem().Kind(); e == reflect.Pointer || e == reflect.Slice || e == reflect.Map {
		return fmt.Errorf("%v does not tell a nil %v from a nil pointer", t, e)
	}
	k.encode = func(dst []byte, v reflect.Value, depth int) ([]byte, error) {
		if v.IsNil() {
			return append(dst, tagNil), nil
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("operator: a %v nests more than %d levels deep", t, maxDepth)
		}
		return elem.encode(dst, v.Elem(), depth+1)
	}
	k.decode = func(src []byte, v reflect.Value, depth int) ([]byte, error) {
		if len(src) > 0 && src[0] == tagNil {
			return src[1:], nil
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("%w: nests more than %d levels deep", ErrEncoding, maxDepth)
		}
		v.Set(reflect.New(t.Elem()))
		return elem.decode(src, v.Elem(), depth+1)
	}
	return nil
}

func (c *compiler) list(k *compiled, t reflect.Type) error {
	if t.Elem().Kind() == reflect.Uint8 {
		compileBytes(k, t)
		return nil
	}
	elem, err := c.of(t.Elem())
	if err != nil {
		return err
	}
	isSlice := t.Kind() == reflect.Slice
	k.encode = func(dst []byte, v reflect.Value, depth int) ([]byte, error) {
		if isSlice && v.IsNil() {
			return append(dst, tagNil), nil
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("operator: a %v nests more than %d levels deep", t, maxDepth)
		}
		n := v.Len()
		dst = arrayTags.append(dst, n)
		var err error
		for i := 0; i < n && err == nil; i++ {
			dst, err = elem.encode(dst, v.Index(i), depth+1)
		}
		return dst, err
	}
	k.decode = func(src []byte, v reflect.Value, depth int) ([]byte, error) {
		if isSlice && len(src) > 0 && src[0] == tagNil {
			return src[1:], nil
		}
		n, rest, err := arrayTags.read(src)
		if err != nil {
			return nil, err
		}
		if depth > maxDepth || !isSlice && n != v.Len() {
			return nil, fmt.Errorf("%w: array of %d for %v at depth %d", ErrEncoding, n, t, depth)
		}
		if isSlice {
			v.Set(reflect.MakeSlice(t, n, n))
		}
		for i := 0; i < n && err == nil; i++ {
			rest, err = elem.decode(rest, v.Index(i), depth+1)
		}
		return rest, err
	}
	return nil
}

func compileBytes(k *compiled, t reflect.Type) {
	if t.Kind() == reflect.Array {
		k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
			dst = binTags.append(dst, v.Len())
			for i := range v.Len() {
				dst = append(dst, byte(v.Index(i).Uint()))
			}
			return dst, nil
		}
		k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
			n, rest, err := binTags.read(src)
			if err == nil && n != v.Len() {
				err = fmt.Errorf("%w: %d bytes for %v", ErrEncoding, n, t)
			}
			if err != nil {
				return nil, err
			}
			for i := range n {
				v.Index(i).SetUint(uint64(rest[i]))
			}
			return rest[n:], nil
		}
		return
	}
	k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
		if v.IsNil() {
			return append(dst, tagNil), nil
		}
		return append(binTags.append(dst, v.Len()), v.Bytes()...), nil
	}
	k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
		if len(src) > 0 && src[0] == tagNil {
			return src[1:], nil
		}
		n, rest, err := binTags.read(src)
		if err != nil {
			return nil, err
		}
		v.SetBytes(append(make([]byte, 0, n), rest[:n]...))
		return rest[n:], nil
	}
}

// mapping codes a map as its entries in the order of their bytes. Two keys that are different but have the same bytes (only
// NaNs can) are ordered by value.
func (c *compiler) mapping(k *compiled, t reflect.Type) error {
	key, err := c.of(t.Key())
	if err != nil {
		return fmt.Errorf("map key: %w", err)
	}
	elem, err := c.of(t.Elem())
	if err != nil {
		return fmt.Errorf("map value: %w", err)
	}
	if holdsPointer(t.Key()) {
		return fmt.Errorf("map key: %v holds a pointer, which compares by address", t.Key())
	}
	k.encode = func(dst []byte, v reflect.Value, depth int) ([]byte, error) {
		if v.IsNil() {
			return append(dst, tagNil), nil
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("operator: a %v nests more than %d levels deep", t, maxDepth)
		}
		entries := make([][]byte, 0, v.Len())
		for it := v.MapRange(); it.Next(); {
			e, err := key.encode(nil, it.Key(), depth+1)
			if err == nil {
				e, err = elem.encode(e, it.Value(), depth+1)
			}
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
		// No encoded key is a proper prefix of another, so ordering whole entries orders by key first.
		slices.SortFunc(entries, bytes.Compare)
		dst = mapTags.append(dst, len(entries))
		for _, e := range entries {
			dst = append(dst, e...)
		}
		return dst, nil
	}
	k.decode = func(src []byte, v reflect.Value, depth int) ([]byte, error) {
		if len(src) > 0 && src[0] == tagNil {
			return src[1:], nil
		}
		n, rest, err := mapTags.read(src)
		if err != nil {
			return nil, err
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("%w: nests more than %d levels deep", ErrEncoding, maxDepth)
		}
		v.Set(reflect.MakeMapWithSize(t, n))
		for range n {
			mk, mv := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
			if rest, err = key.decode(rest, mk, depth+1); err != nil {
				return nil, err
			}
			if rest, err = elem.decode(rest, mv, depth+1); err != nil {
				return nil, err
			}
			v.SetMapIndex(mk, mv)
		}
		return rest, nil
	}
	return nil
}

// holdsPointer tells whether values of a key type compare by address somewhere.
func holdsPointer(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer:
		return true
	case reflect.Array:
		return holdsPointer(t.Elem())
	case reflect.Struct:
		if t == timeType {
			return true // its location
		}
		for i := range t.NumField() {
			if holdsPointer(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}

func (c *compiler) structure(k *compiled, t reflect.Type) error {
	var index []int
	var fields []*compiled
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("msgpack") == "-" || f.Name == "_" {
			continue
		}
		if !f.IsExported() {
			return fmt.Errorf("field %s of %v is not exported (export it, or leave it out with the tag `msgpack:\"-\"`)", f.Name, t)
		}
		field, err := c.of(f.Type)
		if err != nil {
			return fmt.Errorf("field %s of %v: %w", f.Name, t, err)
		}
		index, fields = append(index, i), append(fields, field)
	}
	k.encode = func(dst []byte, v reflect.Value, depth int) ([]byte, error) {
		dst = arrayTags.append(dst, len(fields))
		var err error
		for i := 0; i < len(fields) && err == nil; i++ {
			dst, err = fields[i].encode(dst, v.Field(index[i]), depth)
		}
		return dst, err
	}
	k.decode = func(src []byte, v reflect.Value, depth int) ([]byte, error) {
		n, rest, err := arrayTags.read(src)
		if err != nil {
			return nil, err
		}
		if n > len(fields) {
			return nil, fmt.Errorf("%w: %d fields for %v, which has %d", ErrEncoding, n, t, len(fields))
		}
		for i := 0; i < n && err == nil; i++ {
			rest, err = fields[i].decode(rest, v.Field(index[i]), depth)
		}
		return rest, err
	}
	return nil
}

var (
	binaryMarshaler   = reflect.TypeFor[encoding.BinaryMarshaler]()
	binaryUnmarshaler = reflect.TypeFor[encoding.BinaryUnmarshaler]()
	textMarshaler     = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// compileMarshaler codes types that bring both directions of their own encoding.
func compileMarshaler(k *compiled, t reflect.Type) (bool, error) {
	p := reflect.PointerTo(t)
	isBinary := p.Implements(binaryMarshaler) && p.Implements(binaryUnmarshaler)
	isText := p.Implements(textMarshaler) && p.Implements(textUnmarshaler)
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface || !isBinary && !isText {
		return false, nil
	}
	if e := embeddedMarshaler(t); e != nil {
		return false, fmt.Errorf("%v embeds %v, whose own encoding would leave out the other fields", t, e)
	}
	marshal := func(p any) ([]byte, error) { return p.(encoding.TextMarshaler).MarshalText() }
	unmarshal := func(p any, src []byte) error { return p.(encoding.TextUnmarshaler).UnmarshalText(src) }
	if isBinary {
		marshal = func(p any) ([]byte, error) { return p.(encoding.BinaryMarshaler).MarshalBinary() }
		unmarshal = func(p any, src []byte) error { return p.(encoding.BinaryUnmarshaler).UnmarshalBinary(src) }
	}
	k.encode = func(dst []byte, v reflect.Value, _ int) ([]byte, error) {
		if !v.CanAddr() {
			fresh := reflect.New(t).Elem()
			fresh.Set(v)
			v = fresh
		}
		b, err := marshal(v.Addr().Interface())
		if err != nil {
			return nil, err
		}
		return append(binTags.append(dst, len(b)), b...), nil
	}
	k.decode = func(src []byte, v reflect.Value, _ int) ([]byte, error) {
		n, rest, err := binTags.read(src)
		if err != nil {
			return nil, err
		}
		return rest[n:], unmarshal(v.Addr().Interface(), bytes.Clone(rest[:n]))
	}
	return true, nil
}

// embeddedMarshaler finds an embedded field that a struct may have its encoding from.
func embeddedMarshaler(t reflect.Type) reflect.Type {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		p := reflect.PointerTo(t.Field(i).Type)
		if t.Field(i).Anonymous && (p.Implements(binaryMarshaler) || p.Implements(textMarshaler)) {
			return t.Field(i).Type
		}
	}
	return nil
}

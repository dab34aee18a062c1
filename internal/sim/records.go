package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/understudy-stream/understudy/operator"
)

// derived marks the ids of records that are made of several others, or of none: they cannot be counted by hand.
const derived = 1 << 40

// pathShift is added to a record's id on each further way to a sink, so that the copies can be told apart.
const pathShift = 1 << 20

// record is what flows through every job here.
type record struct {
	ID    uint64
	Key   uint64
	Value uint64 // depends on all that the record met
}

// recordCodec encodes a record as three varints.
type recordCodec struct{}

// Append implements operator.Codec.
func (recordCodec) Append(dst []byte, r record) ([]byte, error) {
	dst = binary.AppendUvarint(dst, r.ID)
	dst = binary.AppendUvarint(dst, r.Key)
	return binary.AppendUvarint(dst, r.Value), nil
}

// Decode implements operator.Codec.
func (recordCodec) Decode(src []byte) (r record, err error) {
	for _, field := range []*uint64{&r.ID, &r.Key, &r.Value} {
		v, n := binary.Uvarint(src)
		if n <= 0 {
			return r, errors.New("sim: corrupt record")
		}
		*field, src = v, src[n:]
	}
	if len(src) > 0 {
		return r, errors.New("sim: bytes after a record")
	}
	return r, nil
}

// show gives an encoded record in a readable form.
func show(encoded []byte) string {
	r, err := recordCodec{}.Decode(encoded)
	if err != nil {
		return err.Error()
	}
	if r.ID >= derived {
		return fmt.Sprintf("derived key %d value %x", r.Key, r.Value)
	}
	return fmt.Sprintf("id %d key %d value %x", r.ID, r.Key, r.Value)
}

// mix hashes two numbers into one.
func mix(a, b uint64) uint64 {
	x := a*0x9E3779B97F4A7C15 ^ (b + 0x7F4A7C15)
	x ^= x >> 29
	x *= 0xBF58476D1CE4E5B9
	return x ^ x>>32
}

// small keeps values short in traces and on the wire.
func small(x uint64) uint64 { return x & 0xffffff }

// source is a source of splits with as many records as the seed says. Its readers have a record only now and then.
type source struct {
	world  *World
	splits int
	each   int
}

// Splits implements operator.Source.
func (s *source) Splits(context.Context) ([]string, error) {
	var names []string
	for i := range s.splits {
		names = append(names, splitName(i))
	}
	return names, nil
}

// Open implements operator.Source.
func (s *source) Open(_ context.Context, split string, offset uint64) (operator.Reader[record], error) {
	var i uint64
	if _, err := fmt.Sscanf(split, "split%d", &i); err != nil {
		return nil, fmt.Errorf("sim: split %q: %w", split, err)
	}
	return &reader{source: s, split: i, next: offset}, nil
}

// reader reads one split.
type reader struct {
	source *source
	split  uint64
	next   uint64
}

// Next implements operator.Reader.
func (r *reader) Next() (v record, next uint64, err error) {
	if r.next >= uint64(r.source.each) {
		return v, 0, io.EOF
	}
	if !r.source.world.chance(r.source.world.plan.dry) {
		return v, 0, operator.ErrNotReady
	}
	id := r.split*1000 + r.next
	r.next++
	return record{ID: id, Key: mix(id, 5) % r.source.world.keys(), Value: small(mix(id, 9))}, r.next, nil
}

// Ready implements operator.Reader. The scheduler asks again anyway.
func (r *reader) Ready() <-chan struct{} { return nil }

// Close implements operator.Reader.
func (r *reader) Close() error { return nil }

// ids lists the ids of all records.
func (s *source) ids() []uint64 {
	var ids []uint64
	for split := range s.splits {
		for i := range s.each {
			ids = append(ids, uint64(split*1000+i))
		}
	}
	return ids
}

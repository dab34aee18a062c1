package determinant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// MaxBytes is the longest Determinant.Bytes that the format takes: the result of an external call, or a split's identity.
const MaxBytes = 64 << 20

var (
	// ErrShort says that the bytes end in the middle of a determinant.
	ErrShort = errors.New("determinant: ends in the middle")
	// ErrCorrupt says that the bytes are no determinant in canonical form.
	ErrCorrupt = errors.New("determinant: corrupt")
)

const (
	kindBits    = 4
	kindMask    = 1<<kindBits - 1
	flag        = 1 << kindBits // Source: the offset rose by N. Async, Call: failed. Split: removed
	wideShift   = kindBits      // a number of 4 bits in the tag
	wideEscape  = 15
	narrowShift = kindBits + 1 // a number of 3 bits in the tag, beside the flag
	narrowEsc   = 7
	hashSize    = 8
	splitSlots  = 16
)

// context is what delta coding remembers between two determinants of one epoch. The zero value is the state at an epoch's
// start. Its size is fixed, so that it can be copied and needs no memory of its own.
type context struct {
	time   uint64 // of the last Timers or Time
	splits [splitSlots]splitOffset
}

// splitOffset is the last offset of a split. A slot is shared by all splits with the same index modulo splitSlots; the
// latest has it and the others start from zero again.
type splitOffset struct {
	split  uint32
	offset uint64
}

func (c *context) offset(split uint32) uint64 {
	if s := &c.splits[split%splitSlots]; s.split == split {
		return s.offset
	}
	return 0
}

func (c *context) setOffset(split uint32, offset uint64) {
	c.splits[split%splitSlots] = splitOffset{split, offset}
}

// Encoder encodes the determinants of one log, one after the other. The zero value stands at the start of an epoch.
type Encoder struct{ ctx context }

// Append appends the encoding of d to dst and returns the extended slice. It allocates nothing but dst's growth, copies
// d.Bytes, and ignores the fields that do not count for d.Kind.
//
// A determinant that the format cannot express (unknown kind or mode, more than MaxBytes) is a bug of the caller: Append
// panics.
func (e *Encoder) Append(dst []byte, d *Determinant) []byte {
	switch d.Kind {
	case KindInput:
		dst = appendWide(dst, KindInput, uint64(d.Channel))
		return binary.AppendUvarint(dst, d.N)
	case KindSource:
		return e.appendSource(dst, d)
	case KindTimers, KindTime:
		dst = appendWide(dst, d.Kind, uint64(d.Time)-e.ctx.time)
		e.ctx.time = uint64(d.Time)
		return dst
	case KindCheckpoint, KindSkipCheckpoint:
		if d.Mode > None {
			panic(fmt.Sprintf("determinant: assertion: unknown mode %d", d.Mode))
		}
		dst = append(dst, byte(d.Kind)|byte(d.Mode)<<wideShift)
		dst = binary.AppendUvarint(dst, uint64(d.Epoch))
		return binary.AppendUvarint(dst, uint64(d.Depth+1)) // full wraps to zero
	case KindAsync:
		dst = appendNarrow(dst, KindAsync, d.Failed, uint64(d.Pending))
		dst = binary.LittleEndian.AppendUint64(dst, d.Hash)
		return appendBytes(dst, d.Bytes)
	case KindCall:
		dst = appendNarrow(dst, KindCall, d.Failed, 0)
		dst = binary.LittleEndian.AppendUint64(dst, d.Hash)
		return appendBytes(dst, d.Bytes)
	case KindRandom:
		dst = append(dst, byte(KindRandom))
		return binary.LittleEndian.AppendUint64(dst, d.Seed)
	case KindSplit:
		dst = appendNarrow(dst, KindSplit, d.Removed, uint64(d.Split))
		if d.Removed {
			return dst
		}
		return appendBytes(dst, d.Bytes)
	case KindSkip:
		dst = appendNarrow(dst, KindSkip, d.Failed, uint64(d.Channel))
		return binary.AppendUvarint(dst, uint64(d.Seq))
	case KindMark:
		e.ctx = context{}
		dst = append(dst, byte(KindMark))
		return binary.AppendUvarint(dst, uint64(d.Epoch))
	}
	panic(fmt.Sprintf("determinant: assertion: unknown kind %d", d.Kind))
}

func (e *Encoder) appendSource(dst []byte, d *Determinant) []byte {
	rise := d.Offset - e.ctx.offset(d.Split)
	dense := rise == d.N
	dst = appendNarrow(dst, KindSource, dense, uint64(d.Split))
	dst = binary.AppendUvarint(dst, d.N)
	if !dense {
		dst = binary.AppendUvarint(dst, rise)
	}
	e.ctx.setOffset(d.Split, d.Offset)
	return dst
}

// appendWide appends a tag with v in its upper four bits, or the escape and the rest of v.
func appendWide(dst []byte, k Kind, v uint64) []byte {
	if v < wideEscape {
		return append(dst, byte(k)|byte(v)<<wideShift)
	}
	dst = append(dst, byte(k)|wideEscape<<wideShift)
	return binary.AppendUvarint(dst, v-wideEscape)
}

// appendNarrow appends a tag with a flag and v in its upper three bits, or the escape and the rest of v.
func appendNarrow(dst []byte, k Kind, set bool, v uint64) []byte {
	tag := byte(k)
	if set {
		tag |= flag
	}
	if v < narrowEsc {
		return append(dst, tag|byte(v)<<narrowShift)
	}
	dst = append(dst, tag|narrowEsc<<narrowShift)
	return binary.AppendUvarint(dst, v-narrowEsc)
}

func appendBytes(dst, p []byte) []byte {
	if len(p) > MaxBytes {
		panic(fmt.Sprintf("determinant: assertion: %d bytes, at most %d", len(p), MaxBytes))
	}
	dst = binary.AppendUvarint(dst, uint64(len(p)))
	return append(dst, p...)
}

// Decoder decodes the determinants of one log, one after the other. The zero value stands at the start of an epoch.
type Decoder struct{ ctx context }

// Next decodes the determinant at the start of src into out and returns its length. out.Bytes is part of src, or nil when
// empty. The error is ErrShort or ErrCorrupt; then the decoder is as it was before, and out's content is undefined.
func (d *Decoder) Next(src []byte, out *Determinant) (n int, err error) {
	if len(src) == 0 {
		return 0, ErrShort
	}
	r := reader{src: src, n: 1}
	tag := src[0]
	*out = Determinant{Kind: Kind(tag & kindMask)}
	switch out.Kind {
	case KindInput:
		out.Channel = r.narrow32(r.wide(tag))
		out.N = r.uvarint()
	case KindSource:
		d.source(&r, tag, out)
	case KindTimers, KindTime:
		out.Time = int64(d.ctx.time + r.wide(tag))
	case KindCheckpoint, KindSkipCheckpoint:
		r.checkpoint(tag, out)
	case KindAsync:
		out.Pending = r.narrow32(r.narrow(tag))
		out.Failed = tag&flag != 0
		out.Hash = r.uint64()
		out.Bytes = r.bytes()
	case KindCall:
		r.refuse(tag>>narrowShift != 0)
		out.Failed = tag&flag != 0
		out.Hash = r.uint64()
		out.Bytes = r.bytes()
	case KindRandom:
		r.refuse(tag>>kindBits != 0)
		out.Seed = r.uint64()
	case KindSplit:
		out.Split = r.narrow32(r.narrow(tag))
		out.Removed = tag&flag != 0
		if !out.Removed {
			out.Bytes = r.bytes()
		}
	case KindSkip:
		out.Channel = r.narrow32(r.narrow(tag))
		out.Failed = tag&flag != 0
		out.Seq = Seq(r.uvarint())
	case KindMark:
		r.refuse(tag>>kindBits != 0)
		out.Epoch = Epoch(r.uvarint())
	default:
		return 0, ErrCorrupt
	}
	if r.err != nil {
		return 0, r.err
	}
	d.advance(out)
	return r.n, nil
}

// advance moves the context past out.
func (d *Decoder) advance(out *Determinant) {
	switch out.Kind {
	case KindSource:
		d.ctx.setOffset(out.Split, out.Offset)
	case KindTimers, KindTime:
		d.ctx.time = uint64(out.Time)
	case KindMark:
		d.ctx = context{}
	}
}

func (d *Decoder) source(r *reader, tag byte, out *Determinant) {
	out.Split = r.narrow32(r.narrow(tag))
	out.N = r.uvarint()
	rise := out.N
	if tag&flag == 0 {
		rise = r.uvarint()
		r.refuse(rise == out.N) // the flag would have said so
	}
	out.Offset = d.ctx.offset(out.Split) + rise
}

func (r *reader) checkpoint(tag byte, out *Determinant) {
	out.Mode = Mode(tag >> wideShift)
	r.refuse(out.Mode > None)
	out.Epoch = Epoch(r.uvarint())
	depth := r.uvarint()
	r.refuse(depth > math.MaxUint16)
	out.Depth = Depth(depth) - 1
}

// reader takes fields off the front of src and keeps the first error; after an error it gives zeros.
type reader struct {
	src []byte
	n   int
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) refuse(bad bool) {
	if bad {
		r.fail(ErrCorrupt)
	}
}

// uvarint takes a varint of at most 64 bits with no superfluous bytes.
func (r *reader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	if r.n < len(r.src) && r.src[r.n] < 0x80 {
		r.n++
		return uint64(r.src[r.n-1])
	}
	v, n := binary.Uvarint(r.src[r.n:])
	switch {
	case n == 0 && len(r.src)-r.n < binary.MaxVarintLen64:
		r.fail(ErrShort)
		return 0
	case n <= 0, n > 1 && r.src[r.n+n-1] == 0:
		r.fail(ErrCorrupt)
		return 0
	}
	r.n += n
	return v
}

func (r *reader) wide(tag byte) uint64 {
	if v := uint64(tag >> wideShift); v < wideEscape {
		return v
	}
	return r.escaped(wideEscape)
}

func (r *reader) narrow(tag byte) uint64 {
	if v := uint64(tag >> narrowShift); v < narrowEsc {
		return v
	}
	return r.escaped(narrowEsc)
}

func (r *reader) escaped(least uint64) uint64 {
	rest := r.uvarint()
	r.refuse(rest > math.MaxUint64-least)
	return rest + least
}

func (r *reader) narrow32(v uint64) uint32 {
	r.refuse(v > math.MaxUint32)
	return uint32(v)
}

func (r *reader) uint64() uint64 {
	if r.err != nil {
		return 0
	}
	if len(r.src)-r.n < hashSize {
		r.fail(ErrShort)
		return 0
	}
	r.n += hashSize
	return binary.LittleEndian.Uint64(r.src[r.n-hashSize:])
}

func (r *reader) bytes() []byte {
	size := r.uvarint()
	r.refuse(size > MaxBytes)
	if r.err == nil && size > uint64(len(r.src)-r.n) {
		r.fail(ErrShort)
	}
	if r.err != nil || size == 0 {
		return nil
	}
	r.n += int(size)
	return r.src[r.n-int(size) : r.n : r.n]
}

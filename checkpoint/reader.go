package checkpoint

import (
	"encoding/binary"
	"errors"

	"github.com/understudy-stream/understudy/determinant"
)

// reader takes fields from the front of bytes that came from outside. After the first fault it returns zeroes and keeps
// the fault in err, so that a caller checks once.
type reader struct {
	src []byte
	err error
}

func (r *reader) fail(why string) {
	if r.err == nil {
		r.err = errors.New(why)
	}
	r.src = nil
}

func (r *reader) byte() byte {
	if len(r.src) == 0 {
		r.fail("short")
		return 0
	}
	b := r.src[0]
	r.src = r.src[1:]
	return b
}

func (r *reader) bool() bool {
	b := r.byte()
	if b > 1 {
		r.fail("flag is neither 0 nor 1")
	}
	return b == 1
}

// uvarint takes a varint in its shortest form; a longer one is a fault, so that bytes stay canonical.
func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.src)
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	if n > 1 && r.src[n-1] == 0 {
		r.fail("varint is not in its shortest form")
		return 0
	}
	r.src = r.src[n:]
	return v
}

func (r *reader) uvarintMax(limit uint64) uint64 {
	v := r.uvarint()
	if v > limit {
		r.fail("number out of range")
		return 0
	}
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) uint32() uint32 {
	if len(r.src) < 4 {
		r.fail("short")
		return 0
	}
	v := binary.LittleEndian.Uint32(r.src)
	r.src = r.src[4:]
	return v
}

func (r *reader) uint64() uint64 {
	if len(r.src) < 8 {
		r.fail("short")
		return 0
	}
	v := binary.LittleEndian.Uint64(r.src)
	r.src = r.src[8:]
	return v
}

// take returns the next n bytes without copying them.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.src)) {
		r.fail("short")
		return nil
	}
	b := r.src[:n:n]
	r.src = r.src[n:]
	return b
}

// count takes the length of a list whose items have at least size bytes each. A length that cannot fit in what is left
// is a fault, so that no decoder allocates more than a multiple of its input.
func (r *reader) count(size uint64) uint64 {
	n := r.uvarint()
	if n > uint64(len(r.src))/size {
		r.fail("list is longer than its bytes")
		return 0
	}
	return n
}

func (r *reader) bools() []bool {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	list := make([]bool, n)
	for i := range list {
		list[i] = r.bool()
	}
	return list
}

func (r *reader) cursors() []determinant.Cursor {
	const smallest = 3 + 4 // three varints and a CRC
	n := r.count(smallest)
	if n == 0 {
		return nil
	}
	list := make([]determinant.Cursor, n)
	for i := range list {
		list[i] = determinant.Cursor{
			Next:  determinant.Seq(r.uvarint()),
			Epoch: determinant.Epoch(r.uvarint()),
			Bytes: r.uvarint(),
			CRC:   r.uint32(),
		}
	}
	return list
}

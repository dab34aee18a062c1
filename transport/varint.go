package transport

import "encoding/binary"

// decoder takes numbers from the front of some bytes. After the first that is not there, or not in its shortest form, bad is
// set and all that follows is zero.
type decoder struct {
	p   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	x, n := binary.Uvarint(d.p)
	if d.bad || n <= 0 || n > 1 && d.p[n-1] == 0 {
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[n:]
	return x
}

// below takes a number that must be less than limit.
func (d *decoder) below(limit uint64) uint64 {
	x := d.uvarint()
	if x >= limit {
		d.bad, d.p = true, nil
		return 0
	}
	return x
}

// count takes the number of things that follow, each of which has at least size bytes.
func (d *decoder) count(size int) int { return int(d.below(uint64(len(d.p)/size) + 1)) }

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.p)) {
		d.bad, d.p = true, nil
		return nil
	}
	p := d.p[:n:n]
	d.p = d.p[n:]
	return p
}

func (d *decoder) uint32() uint32 {
	if p := d.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

// bytes takes a length and as many bytes, which alias the input.
func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

func appendBytes[S string | []byte](dst []byte, s S) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

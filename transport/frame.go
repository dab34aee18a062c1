package transport

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
)

// A frame is a header and a body; docs/format/wire.md shows it.
//
//	0  uint32  bytes of the body
//	4  byte    kind
//	5  uint24  low 24 bits of the CRC-32C of the five bytes before
//	8  uint32  CRC-32C of the body
//
// The header has a checksum of its own, so that a length is known to be right before anybody waits for as many bytes.
const frameHeader = 12

// MaxFrame bounds the body of a frame, in bytes.
const MaxFrame = 1 << 30

const (
	tinyPart  = 512      // a part up to this long is copied: cheaper than an entry of its own in the system call
	arenaSize = 4 << 10  // what is copied goes into pieces of memory of at least this size
	keptArena = 64 << 10 // a bigger one is not kept for the next flush
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func putHeader(h []byte, kind byte, length int, sum uint32) {
	binary.LittleEndian.PutUint32(h, uint32(length))
	h[4] = kind
	check := crc32.Checksum(h[:5], castagnoli)
	h[5], h[6], h[7] = byte(check), byte(check>>8), byte(check>>16)
	binary.LittleEndian.PutUint32(h[8:], sum)
}

// parseHeader reads the header at the start of h, which has frameHeader bytes.
func parseHeader(h []byte) (kind byte, length int, sum uint32, err error) {
	check := crc32.Checksum(h[:5], castagnoli)
	if h[5] != byte(check) || h[6] != byte(check>>8) || h[7] != byte(check>>16) {
		return 0, 0, 0, fmt.Errorf("%w: checksum of a frame's header", ErrCorrupt)
	}
	n := binary.LittleEndian.Uint32(h)
	if n > MaxFrame {
		return 0, 0, 0, fmt.Errorf("%w: frame of %d bytes, at most %d", ErrCorrupt, n, MaxFrame)
	}
	return h[4], int(n), binary.LittleEndian.Uint32(h[8:]), nil
}

// checkBody compares a body with the checksum in its header.
func checkBody(kind byte, body []byte, sum uint32) error {
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return fmt.Errorf("%w: frame of kind %d and %d bytes has checksum %08x, header says %08x", ErrCorrupt, kind, len(body), got, sum)
	}
	return nil
}

// nextFrame reads the frame at the start of src. The body aliases src.
func nextFrame(src []byte) (kind byte, body, rest []byte, err error) {
	if len(src) < frameHeader {
		return 0, nil, nil, fmt.Errorf("%w: %d bytes are no frame", ErrCorrupt, len(src))
	}
	kind, n, sum, err := parseHeader(src)
	if err != nil {
		return 0, nil, nil, err
	}
	if n > len(src)-frameHeader {
		return 0, nil, nil, fmt.Errorf("%w: frame of %d bytes, %d left", ErrCorrupt, n, len(src)-frameHeader)
	}
	end := frameHeader + n
	body = src[frameHeader:end:end]
	return kind, body, src[end:], checkBody(kind, body, sum)
}

// vector gathers frames for one system call. Headers and tiny parts lie one after the other in the arena; everything else is
// referred to where it is.
type vector struct {
	bufs   net.Buffers
	arena  []byte
	open   bool // the last of bufs ends where the arena does, and grows with it
	bytes  int
	frames int
	header [frameHeader]byte // of the frame that is being added
}

// add appends a frame. head is copied; the parts are not, unless they are tiny.
func (v *vector) add(kind byte, head []byte, parts ...[]byte) error {
	length, sum := len(head), crc32.Update(0, castagnoli, head)
	for _, p := range parts {
		if len(p) > MaxFrame-length {
			return fmt.Errorf("%w: a frame of more than %d bytes", ErrTooLong, MaxFrame)
		}
		length += len(p)
		sum = crc32.Update(sum, castagnoli, p)
	}
	putHeader(v.header[:], kind, length, sum)
	v.copied(v.header[:])
	v.copied(head)
	for _, p := range parts {
		if len(p) <= tinyPart {
			v.copied(p)
			continue
		}
		v.bufs, v.open = append(v.bufs, p), false
	}
	v.bytes += frameHeader + length
	v.frames++
	return nil
}

func (v *vector) copied(p []byte) {
	if len(p) == 0 {
		return
	}
	if cap(v.arena)-len(v.arena) < len(p) {
		v.arena, v.open = make([]byte, 0, max(arenaSize, 2*cap(v.arena), len(p))), false
	}
	at := len(v.arena)
	v.arena = append(v.arena, p...)
	if last := len(v.bufs) - 1; v.open {
		v.bufs[last] = v.bufs[last][:len(v.bufs[last])+len(p)]
		return
	}
	v.bufs, v.open = append(v.bufs, v.arena[at:]), true
}

// reset forgets what was gathered and lets go of what it refers to.
func (v *vector) reset(bufs net.Buffers) {
	clear(bufs)
	v.bufs, v.arena, v.open, v.bytes, v.frames = bufs[:0], v.arena[:0], false, 0, 0
	if cap(v.arena) > keptArena {
		v.arena = nil
	}
}

package file

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/understudy-stream/understudy/determinant"
)

// The sidecar's bytes: docs/format/file-sink.md. A segment is one head and any number of frames, each in a chunk:
// 4 bytes of magic, 4 of length, 4 of CRC-32C over the body, the body.

const (
	headMagic     = 0x68645355 // "USdh"
	frameMagic    = 0x72665355 // "USfr"
	formatVersion = 1
	chunkOverhead = 12
	maxChunk      = 1 << 30
	maxKept       = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn says that the bytes do not hold a whole chunk: a torn tail, or damage.
var errTorn = errors.New("file: no whole chunk")

// head opens a segment. It says where the output stood and which earlier segments still count, and up to which length.
type head struct {
	Task        uint64
	Number      uint64
	Incarnation determinant.Incarnation
	Generation  determinant.Generation
	Lock        uint64            // number of the writer lock
	Committed   determinant.Epoch // newest committed checkpoint that the store was told of
	Cut         bool              // the output was cut to Position when this segment began
	Cursor      determinant.Cursor
	Position    uint64 // byte of the output at Cursor
	Covered     uint64 // byte of the output up to which some frame holds determinants
	Kept        []kept // earlier segments, in order
}

// kept is an earlier segment that still counts.
type kept struct {
	Number uint64
	Length uint64            // what of it counts; anything beyond was written by a replaced incarnation
	Last   determinant.Epoch // highest epoch in which one of its frames ends
}

// frame is stored before the lines of one write.
type frame struct {
	Incarnation determinant.Incarnation
	Position    uint64 // byte of the output where the lines start
	Length      uint64 // bytes of the lines
	Start, End  determinant.Cursor
	Delta       []byte // when decoded, aliases what was decoded
}

func (f *frame) end() uint64 { return f.Position + f.Length }

// beginChunk reserves a chunk's first bytes; endChunk fills them in once the body is appended.
func beginChunk(dst []byte) []byte { return append(dst, make([]byte, chunkOverhead)...) }

func endChunk(dst []byte, from int, magic uint32) []byte {
	body := dst[from+chunkOverhead:]
	binary.LittleEndian.PutUint32(dst[from:], magic)
	binary.LittleEndian.PutUint32(dst[from+4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[from+8:], crc32.Checksum(body, castagnoli))
	return dst
}

// chunk gives the body of the chunk at the start of src and its length with overhead. The body aliases src.
func chunk(src []byte, magic uint32) (body []byte, n int, err error) {
	if len(src) < chunkOverhead || binary.LittleEndian.Uint32(src) != magic {
		return nil, 0, errTorn
	}
	length := binary.LittleEndian.Uint32(src[4:])
	if length > maxChunk || int(length) > len(src)-chunkOverhead {
		return nil, 0, errTorn
	}
	body = src[chunkOverhead : chunkOverhead+int(length)]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(src[8:]) {
		return nil, 0, errTorn
	}
	return body, chunkOverhead + int(length), nil
}

func appendCursor(dst []byte, c determinant.Cursor) []byte {
	dst = binary.AppendUvarint(dst, uint64(c.Next))
	dst = binary.AppendUvarint(dst, uint64(c.Epoch))
	dst = binary.AppendUvarint(dst, c.Bytes)
	return binary.LittleEndian.AppendUint32(dst, c.CRC)
}

func appendFrame(dst []byte, f *frame) []byte {
	from := len(dst)
	dst = beginChunk(dst)
	dst = binary.AppendUvarint(dst, uint64(f.Incarnation))
	dst = binary.AppendUvarint(dst, f.Position)
	dst = binary.AppendUvarint(dst, f.Length)
	dst = appendCursor(dst, f.Start)
	dst = appendCursor(dst, f.End)
	dst = append(dst, f.Delta...)
	return endChunk(dst, from, frameMagic)
}

func appendHead(dst []byte, h *head) []byte {
	from := len(dst)
	dst = beginChunk(dst)
	cut := uint64(0)
	if h.Cut {
		cut = 1
	}
	for _, v := range []uint64{formatVersion, h.Task, h.Number, uint64(h.Incarnation), uint64(h.Generation), h.Lock,
		uint64(h.Committed), cut} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = appendCursor(dst, h.Cursor)
	dst = binary.AppendUvarint(dst, h.Position)
	dst = binary.AppendUvarint(dst, h.Covered)
	dst = binary.AppendUvarint(dst, uint64(len(h.Kept)))
	for _, k := range h.Kept {
		dst = binary.AppendUvarint(dst, k.Number)
		dst = binary.AppendUvarint(dst, k.Length)
		dst = binary.AppendUvarint(dst, uint64(k.Last))
	}
	return endChunk(dst, from, headMagic)
}

// body reads the fields of a chunk. After the first failure everything it gives is zero and bad is set.
type body struct {
	rest []byte
	bad  bool
}

func (b *body) uvarint() uint64 {
	v, n := binary.Uvarint(b.rest)
	if n <= 0 || b.bad {
		b.bad = true
		return 0
	}
	b.rest = b.rest[n:]
	return v
}

func (b *body) cursor() determinant.Cursor {
	c := determinant.Cursor{Next: determinant.Seq(b.uvarint()), Epoch: determinant.Epoch(b.uvarint()), Bytes: b.uvarint()}
	if b.bad || len(b.rest) < 4 {
		b.bad = true
		return determinant.Cursor{}
	}
	c.CRC = binary.LittleEndian.Uint32(b.rest)
	b.rest = b.rest[4:]
	return c
}

// decodeFrame decodes the frame at the start of src and gives its length. f.Delta aliases src.
func decodeFrame(src []byte, f *frame) (int, error) {
	payload, n, err := chunk(src, frameMagic)
	if err != nil {
		return 0, err
	}
	b := body{rest: payload}
	*f = frame{Incarnation: determinant.Incarnation(b.uvarint()), Position: b.uvarint(), Length: b.uvarint(),
		Start: b.cursor(), End: b.cursor()}
	if b.bad || f.end() < f.Position {
		return 0, errTorn
	}
	f.Delta = b.rest
	return n, nil
}

// errVersion says that the segment was written by another version of this package.
var errVersion = errors.New("file: unknown format version")

// decodeHead decodes the head at the start of src and gives its length.
func decodeHead(src []byte, h *head) (int, error) {
	payload, n, err := chunk(src, headMagic)
	if err != nil {
		return 0, err
	}
	b := body{rest: payload}
	if b.uvarint() != formatVersion && !b.bad {
		return 0, errVersion
	}
	*h = head{Task: b.uvarint(), Number: b.uvarint(), Incarnation: determinant.Incarnation(b.uvarint()),
		Generation: determinant.Generation(b.uvarint()), Lock: b.uvarint(), Committed: determinant.Epoch(b.uvarint())}
	cut := b.uvarint()
	h.Cut = cut == 1
	h.Cursor, h.Position, h.Covered = b.cursor(), b.uvarint(), b.uvarint()
	count := b.uvarint()
	if b.bad || cut > 1 || count > maxKept || h.Position > h.Covered {
		return 0, errTorn
	}
	for range count {
		h.Kept = append(h.Kept, kept{Number: b.uvarint(), Length: b.uvarint(), Last: determinant.Epoch(b.uvarint())})
		if b.bad {
			return 0, errTorn
		}
	}
	if len(b.rest) != 0 {
		return 0, errTorn
	}
	return n, nil
}

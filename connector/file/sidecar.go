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
	formatVersion = 2
	chunkOverhead = 12
	maxChunk      = 1 << 30
	maxKept       = 1 << 20
	maxStreams    = 1 << 20
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
	Turn        uint64            // whose holder may write behind this head
	Committed   determinant.Epoch // newest committed checkpoint that the store was told of
	Cut         bool              // the output was cut to the streams' positions when this segment began
	Cursor      determinant.Cursor
	Streams     []place // where each stream stood at Cursor, by folder; those that no frame that counts is of may be left out
	Kept        []kept  // earlier segments, in order
}

// place is where a stream stands.
type place struct {
	Folder   string
	Position uint64            // byte of the stream at the cursor
	Covered  uint64            // byte of the stream up to which some frame holds determinants
	Last     determinant.Epoch // highest epoch in which a frame with lines of it ends
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
	Start, End  determinant.Cursor
	Pieces      []piece // in the order in which they are shown
	Delta       []byte  // when decoded, aliases what was decoded
}

// piece is what a write adds to one stream.
type piece struct {
	Folder   string
	Position uint64 // byte of the stream where the lines start
	Length   uint64 // bytes of the lines
}

func (p *piece) end() uint64 { return p.Position + p.Length }

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

func appendFolder(dst []byte, folder string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(folder)))
	return append(dst, folder...)
}

func appendFrame(dst []byte, f *frame) []byte {
	from := len(dst)
	dst = beginChunk(dst)
	dst = binary.AppendUvarint(dst, uint64(f.Incarnation))
	dst = appendCursor(dst, f.Start)
	dst = appendCursor(dst, f.End)
	dst = binary.AppendUvarint(dst, uint64(len(f.Pieces)))
	for _, p := range f.Pieces {
		dst = appendFolder(dst, p.Folder)
		dst = binary.AppendUvarint(dst, p.Position)
		dst = binary.AppendUvarint(dst, p.Length)
	}
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
	for _, v := range []uint64{formatVersion, h.Task, h.Number, uint64(h.Incarnation), uint64(h.Generation), h.Turn,
		uint64(h.Committed), cut} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = appendCursor(dst, h.Cursor)
	dst = binary.AppendUvarint(dst, uint64(len(h.Streams)))
	for _, s := range h.Streams {
		dst = appendFolder(dst, s.Folder)
		dst = binary.AppendUvarint(dst, s.Position)
		dst = binary.AppendUvarint(dst, s.Covered)
		dst = binary.AppendUvarint(dst, uint64(s.Last))
	}
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

func (b *body) folder() string {
	n := b.uvarint()
	if b.bad || n > uint64(len(b.rest)) {
		b.bad = true
		return ""
	}
	folder := string(b.rest[:n])
	b.rest = b.rest[n:]
	return folder
}

// count reads how many things follow, of which each takes a byte at least.
func (b *body) count(most uint64) uint64 {
	n := b.uvarint()
	if n > most || n > uint64(len(b.rest)) {
		b.bad = true
		return 0
	}
	return n
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
	*f = frame{Incarnation: determinant.Incarnation(b.uvarint()), Start: b.cursor(), End: b.cursor()}
	for range b.count(maxStreams) {
		p := piece{Folder: b.folder(), Position: b.uvarint(), Length: b.uvarint()}
		if b.bad || p.end() < p.Position || !isFolder(p.Folder) {
			return 0, errTorn
		}
		f.Pieces = append(f.Pieces, p)
	}
	if b.bad {
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
		Generation: determinant.Generation(b.uvarint()), Turn: b.uvarint(), Committed: determinant.Epoch(b.uvarint())}
	cut := b.uvarint()
	h.Cut, h.Cursor = cut == 1, b.cursor()
	for range b.count(maxStreams) {
		s := place{Folder: b.folder(), Position: b.uvarint(), Covered: b.uvarint(), Last: determinant.Epoch(b.uvarint())}
		if b.bad || s.Position > s.Covered || !isFolder(s.Folder) {
			return 0, errTorn
		}
		h.Streams = append(h.Streams, s)
	}
	for range b.count(maxKept) {
		h.Kept = append(h.Kept, kept{Number: b.uvarint(), Length: b.uvarint(), Last: determinant.Epoch(b.uvarint())})
		if b.bad {
			return 0, errTorn
		}
	}
	if b.bad || cut > 1 || len(b.rest) != 0 {
		return 0, errTorn
	}
	return n, nil
}

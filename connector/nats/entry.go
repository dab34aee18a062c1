package nats

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// What is on the hidden subject of a stream: docs/format/nats-sink.md has the bytes.
const (
	formatVersion = 1
	kindHead      = 'H'
	kindFrame     = 'F'
	maxParts      = 1 << 20 // of one frame
	maxIdentity   = 1 << 10
)

var errEntry = errors.New("nats: not an entry of the sink")

// head begins an incarnation, or a checkpoint of one. It says where the output stands and which frames still count.
type head struct {
	Job         string
	Task        uint64
	Incarnation determinant.Incarnation
	Generation  determinant.Generation
	Committed   determinant.Epoch // newest committed checkpoint that the store was told of
	Cut         bool              // records between Position and this head do not count: a global rollback took them back
	Cursor      determinant.Cursor
	Position    uint64 // sequence of the last record at Cursor
	Index       uint64 // how many records the output has at Cursor
	Ahead       uint64 // how many records are visible beyond Cursor: the start of a write that was cut short
	Origin      uint64 // sequence of the head of the last cut or restart, or of the first head: what was numbered before does not count
	First, Next uint64 // frames numbered First up to but not including Next are stored before this head and still count
}

// frame is stored before the records of one write. Each part is a message.
type frame struct {
	Incarnation determinant.Incarnation
	Number      uint64
	Part, Parts uint64
	Start, End  determinant.Cursor
	Shown       uint64 // how many of the write's records are visible already
	Count       uint64 // how many follow the last part
	Position    uint64 // sequence of the last record at End if Count is 0
	Index       uint64 // how many records the output has at End
	Delta       []byte // of this part; when decoded, aliases what was decoded
}

func appendCursor(dst []byte, c determinant.Cursor) []byte {
	dst = binary.AppendUvarint(dst, uint64(c.Next))
	dst = binary.AppendUvarint(dst, uint64(c.Epoch))
	dst = binary.AppendUvarint(dst, c.Bytes)
	return binary.LittleEndian.AppendUint32(dst, c.CRC)
}

func appendHead(dst []byte, h *head) []byte {
	dst = append(dst, kindHead, formatVersion)
	dst = binary.AppendUvarint(dst, uint64(len(h.Job)))
	dst = append(dst, h.Job...)
	cut := uint64(0)
	if h.Cut {
		cut = 1
	}
	for _, v := range []uint64{h.Task, uint64(h.Incarnation), uint64(h.Generation), uint64(h.Committed), cut} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = appendCursor(dst, h.Cursor)
	for _, v := range []uint64{h.Position, h.Index, h.Ahead, h.Origin, h.First, h.Next} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func appendFrame(dst []byte, f *frame) []byte {
	dst = append(dst, kindFrame, formatVersion)
	for _, v := range []uint64{uint64(f.Incarnation), f.Number, f.Part, f.Parts} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = appendCursor(dst, f.Start)
	dst = appendCursor(dst, f.End)
	for _, v := range []uint64{f.Shown, f.Count, f.Position, f.Index} {
		dst = binary.AppendUvarint(dst, v)
	}
	return append(dst, f.Delta...)
}

// body reads the fields of an entry. After the first failure everything it gives is zero and bad is set.
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

func (b *body) take(n uint64) []byte {
	if b.bad || n > uint64(len(b.rest)) {
		b.bad = true
		return nil
	}
	p := b.rest[:n]
	b.rest = b.rest[n:]
	return p
}

func (b *body) cursor() determinant.Cursor {
	c := determinant.Cursor{Next: determinant.Seq(b.uvarint()), Epoch: determinant.Epoch(b.uvarint()), Bytes: b.uvarint()}
	crc := b.take(4)
	if b.bad {
		return determinant.Cursor{}
	}
	c.CRC = binary.LittleEndian.Uint32(crc)
	return c
}

// decodeEntry decodes a message of the hidden subject: exactly one of what it gives is not nil unless it fails.
func decodeEntry(data []byte) (*head, *frame, error) {
	if len(data) < 2 || data[0] != kindHead && data[0] != kindFrame {
		return nil, nil, errEntry
	}
	if data[1] != formatVersion {
		return nil, nil, fmt.Errorf("%w: format version %d", errEntry, data[1])
	}
	b := &body{rest: data[2:]}
	if data[0] == kindHead {
		h := decodeHead(b)
		if b.bad || len(b.rest) > 0 || h.First > h.Next {
			return nil, nil, errEntry
		}
		return h, nil, nil
	}
	f := &frame{Incarnation: determinant.Incarnation(b.uvarint()), Number: b.uvarint(), Part: b.uvarint(), Parts: b.uvarint(),
		Start: b.cursor(), End: b.cursor(), Shown: b.uvarint(), Count: b.uvarint(), Position: b.uvarint(),
		Index: b.uvarint()}
	if b.bad || f.Part >= f.Parts || f.Parts > maxParts {
		return nil, nil, errEntry
	}
	f.Delta = b.rest
	return nil, f, nil
}

func decodeHead(b *body) *head {
	h := &head{}
	size := b.uvarint()
	if size > maxIdentity {
		b.bad = true
	}
	h.Job = string(b.take(size))
	h.Task, h.Incarnation, h.Generation = b.uvarint(), determinant.Incarnation(b.uvarint()), determinant.Generation(b.uvarint())
	h.Committed = determinant.Epoch(b.uvarint())
	cut := b.uvarint()
	h.Cut = cut == 1
	b.bad = b.bad || cut > 1
	h.Cursor = b.cursor()
	h.Position, h.Index, h.Ahead, h.Origin = b.uvarint(), b.uvarint(), b.uvarint(), b.uvarint()
	h.First, h.Next = b.uvarint(), b.uvarint()
	return h
}

package transport

import (
	"encoding/binary"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// Kinds of the frames between workers. A message is a head, then the rest of its delta, then its batches.
const (
	kindHead  = 1
	kindDelta = 2
	kindBatch = 3
	kindPing  = 4
	kindSmall = 5 // a piece of the stream of small items
	kindBulk  = 6 // a piece of the stream of bulk items
	kindTaken = 7 // how far the items were taken
)

const (
	// deltaPiece is how much of a delta goes into one frame: a pause between frames is where a reader sees that the peer lives.
	deltaPiece = 256 << 10
	maxDelta   = 1<<31 - 1 // bytes of the delta of one message
	maxFrames  = 1 << 16   // batches of one message
	maxMessage = 1 << 32   // bytes of one message: it is in memory whole before the first of it is handled

	flagAdopt     = 1 // of a subscription
	flagControl   = 1 // of a batch: the last element is a barrier, skip or end
	flagEndsEpoch = 2 // of a batch: the last element is a barrier or skip. Only with flagControl

	minSubscription = 5 + cursorSize // bytes
	minCredit       = 4
	cursorSize      = 3 + 4 // at least
)

// Limits are what a decoder of messages accepts: ids must be below them.
type Limits struct {
	Tasks    int
	Channels int
}

// AppendMessage appends the frames of a message, as a link carries them. The error is ErrTooLong, or ErrCorrupt for a batch
// that contradicts itself.
func AppendMessage(dst []byte, m *Message) ([]byte, error) {
	var v vector
	if _, err := v.message(m, nil); err != nil {
		return nil, err
	}
	for _, p := range v.bufs {
		dst = append(dst, p...)
	}
	return dst, nil
}

// message adds the frames of a message. scratch is memory to work in; it comes back to be used again.
func (v *vector) message(m *Message, scratch []byte) ([]byte, error) {
	if len(m.Delta) > maxDelta || len(m.Frames) > maxFrames {
		return scratch, fmt.Errorf("%w: a message with %d bytes of delta and %d frames", ErrTooLong, len(m.Delta), len(m.Frames))
	}
	before := v.bytes
	scratch = appendHead(scratch[:0], m)
	first := min(len(m.Delta), deltaPiece)
	if err := v.add(kindHead, scratch, m.Delta[:first]); err != nil {
		return scratch, err
	}
	for rest := m.Delta[first:]; len(rest) > 0; {
		n := min(len(rest), deltaPiece)
		if err := v.add(kindDelta, nil, rest[:n]); err != nil {
			return scratch, err
		}
		rest = rest[n:]
	}
	for i := range m.Frames {
		var err error
		if scratch, err = appendBatchHead(scratch[:0], &m.Frames[i]); err != nil {
			return scratch, err
		}
		if err = v.add(kindBatch, scratch, m.Frames[i].Batch.Payload); err != nil {
			return scratch, err
		}
	}
	if uint64(v.bytes-before) > maxMessage {
		return scratch, fmt.Errorf("%w: a message of more than %d bytes", ErrTooLong, uint64(maxMessage))
	}
	return scratch, nil
}

// appendHead appends the head of a message, without the first piece of its delta, which is all that follows.
func appendHead(dst []byte, m *Message) []byte {
	uv := binary.AppendUvarint
	dst = uv(dst, uint64(m.From))
	dst = uv(dst, uint64(m.Generation))
	if m.Have == nil {
		dst = append(dst, 0)
	} else {
		dst = uv(dst, uint64(len(m.Have))+1)
		for _, h := range m.Have {
			dst = uv(dst, uint64(h))
		}
	}
	dst = uv(dst, uint64(len(m.Subscriptions)))
	for _, s := range m.Subscriptions {
		dst = uv(uv(uv(uv(dst, uint64(s.Channel)), s.Number), uint64(s.Producer)), uint64(s.Consumer))
		flags := byte(0)
		if s.Adopt {
			flags = flagAdopt
		}
		dst = append(dst, flags)
		dst = uv(uv(uv(dst, uint64(s.Cursor.Next)), uint64(s.Cursor.Epoch)), s.Cursor.Bytes)
		dst = binary.LittleEndian.AppendUint32(dst, s.Cursor.CRC)
	}
	dst = uv(dst, uint64(len(m.Credits)))
	for _, c := range m.Credits {
		dst = uv(uv(uv(uv(dst, uint64(c.Channel)), c.Number), uint64(c.Consumer)), uint64(c.Taken))
	}
	return uv(uv(dst, uint64(len(m.Delta))), uint64(len(m.Frames)))
}

// appendBatchHead appends what stands before a batch's payload. What follows from the rest is left out, so that no two fields
// can contradict each other on the wire.
func appendBatchHead(dst []byte, f *Frame) ([]byte, error) {
	uv := binary.AppendUvarint
	b := f.Batch
	flags := byte(0)
	if b.Control {
		flags |= flagControl
	}
	if b.End.Epoch != b.Epoch {
		flags |= flagEndsEpoch
	}
	if !consistent(b) {
		return dst, fmt.Errorf("%w: batch %v to %v of channel %d with %d elements", ErrCorrupt, b.Start, b.End, f.Channel, b.Count)
	}
	dst = uv(uv(uv(uv(dst, uint64(f.Channel)), f.Number), uint64(f.Producer)), uint64(f.Consumer))
	dst = append(dst, flags)
	dst = uv(uv(uv(uv(dst, uint64(b.First)), uint64(b.Count)), uint64(b.Epoch)), b.Start.Bytes)
	dst = binary.LittleEndian.AppendUint32(dst, b.Start.CRC)
	if flags&flagEndsEpoch == 0 {
		dst = binary.LittleEndian.AppendUint32(dst, b.End.CRC)
	}
	return dst, nil
}

func consistent(b *inflightlog.Batch) bool {
	return b.Count > 0 && uint64(b.Count) <= uint64(len(b.Payload)) && b.Start == startOf(b) && b.End == endOf(b, b.End.Epoch != b.Epoch, b.End.CRC) &&
		(b.Control || b.End.Epoch == b.Epoch)
}

func startOf(b *inflightlog.Batch) determinant.Cursor {
	return determinant.Cursor{Next: b.First, Epoch: b.Epoch, Bytes: b.Start.Bytes, CRC: b.Start.CRC}
}

func endOf(b *inflightlog.Batch, endsEpoch bool, crc uint32) determinant.Cursor {
	next := b.First + determinant.Seq(b.Count)
	if endsEpoch {
		return determinant.Cursor{Next: next, Epoch: b.Epoch + 1}
	}
	return determinant.Cursor{Next: next, Epoch: b.Epoch, Bytes: b.Start.Bytes + uint64(len(b.Payload)), CRC: crc}
}

// DecodeMessage reads one message from the frames at the start of src and returns what follows. The message aliases src. The
// error is ErrCorrupt.
func DecodeMessage(src []byte, l Limits) (m *Message, rest []byte, err error) {
	a := assembler{limits: l}
	for rest = src; m == nil; {
		var kind byte
		var body []byte
		if kind, body, rest, err = nextFrame(rest); err != nil {
			return nil, nil, err
		}
		if m, err = a.add(kind, body); err != nil {
			return nil, nil, err
		}
	}
	return m, rest, nil
}

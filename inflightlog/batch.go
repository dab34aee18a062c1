package inflightlog

import (
	"fmt"
	"hash/crc32"

	"github.com/understudy-stream/understudy/determinant"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Origin is where every channel starts when its job does: before element 0, in epoch 1.
var Origin = determinant.Cursor{Epoch: 1}

// Batch is a run of consecutive elements of one channel and one epoch. It is shared by reference between the log, its
// consumer in the same process and the network writer, and nobody changes it.
type Batch struct {
	First determinant.Seq
	// Count is at least 1. Invariant: First+Count == End.Next.
	Count uint32
	// Epoch is the epoch of every element. Invariant: a batch never spans epochs.
	Epoch determinant.Epoch
	// Payload is the bytes of the elements, one after the other. Invariant: immutable after seal. It belongs to nobody and
	// is valid for as long as anyone refers to it.
	Payload []byte
	// Start and End are the positions before the first and after the last element. After a barrier or skip, End is the start
	// of the next epoch: zero bytes, zero checksum.
	Start, End determinant.Cursor
	// Control tells that the last element is a barrier, a skip or an end. No other element of the batch is one.
	Control bool
	// Tag is for tests' checkers: what Options.Tag returned. It does not leave the process.
	Tag any
}

// At gives the position before element seq of the batch, or the batch's end if seq is End.Next. It walks the elements.
func (b *Batch) At(seq determinant.Seq) (determinant.Cursor, error) {
	switch {
	case seq == b.First:
		return b.Start, nil
	case seq == b.End.Next:
		return b.End, nil
	case seq < b.First || seq > b.End.Next:
		return determinant.Cursor{}, fmt.Errorf("%w: %d of [%d,%d)", ErrOutside, seq, b.First, b.End.Next)
	}
	var e Element
	at := 0
	for s := b.First; s < seq; s++ {
		n, err := Decode(b.Payload[at:], &e)
		if err != nil {
			return determinant.Cursor{}, fmt.Errorf("inflightlog: element %d of batch [%d,%d): %w", s, b.First, b.End.Next, err)
		}
		at += n
	}
	return determinant.Cursor{
		Next:  seq,
		Epoch: b.Epoch,
		Bytes: b.Start.Bytes + uint64(at),
		CRC:   crc32.Update(b.Start.CRC, castagnoli, b.Payload[:at]),
	}, nil
}

// From gives the rest of the batch from element seq on. It shares the batch's bytes; From(First) is the batch itself. An
// empty rest is ErrOutside.
func (b *Batch) From(seq determinant.Seq) (*Batch, error) {
	if seq == b.First {
		return b, nil
	}
	if seq == b.End.Next {
		return nil, fmt.Errorf("%w: %d of [%d,%d)", ErrOutside, seq, b.First, b.End.Next)
	}
	start, err := b.At(seq)
	if err != nil {
		return nil, err
	}
	rest := *b
	rest.First = seq
	rest.Count = uint32(b.End.Next - seq)
	rest.Payload = b.Payload[start.Bytes-b.Start.Bytes:]
	rest.Start = start
	return &rest, nil
}

// Check tells whether the batch continues at the consumer's position at and its bytes lead to its End. A consumer calls it
// before it takes a batch, and is at b.End afterwards. It returns a *Mismatch or nil and costs one pass of CRC-32C.
func (b *Batch) Check(channel determinant.ChannelID, at determinant.Cursor) error {
	if b.Start != at {
		return &Mismatch{Channel: channel, Have: b.Start, Want: at}
	}
	end := determinant.Cursor{
		Next:  at.Next + determinant.Seq(b.Count),
		Epoch: at.Epoch,
		Bytes: at.Bytes + uint64(len(b.Payload)),
		CRC:   crc32.Update(at.CRC, castagnoli, b.Payload),
	}
	if b.End.Epoch == at.Epoch+1 && b.Control {
		end.Epoch, end.Bytes, end.CRC = at.Epoch+1, 0, 0
	}
	if end != b.End || b.First != at.Next || b.Epoch != at.Epoch {
		return &Mismatch{Channel: channel, Have: b.End, Want: end}
	}
	return nil
}

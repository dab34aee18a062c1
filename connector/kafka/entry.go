package kafka

import (
	"encoding/binary"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// The bytes of what sinks keep beside their output: docs/format/kafka-sink.md.

const (
	formatVersion     = 1
	kindCausal        = 1
	kindTransactional = 2
	maxIdentity       = 1 << 12
	maxListed         = 1 << 16
)

// entry is what a causal sink stores with each write, and when its fence is raised.
type entry struct {
	Identity    string
	Task        uint64
	Serial      uint64 // one more than that of the entry before
	Incarnation determinant.Incarnation
	Generation  determinant.Generation
	Committed   determinant.Epoch  // newest committed checkpoint that the writer was told of
	Keep        uint64             // offset below which nothing is needed, so that it may have been removed
	Count       uint64             // records shown since the place was made, those of this entry included
	Shown       uint64             // records that the newest cut found shown beyond itself
	Begins      bool               // the output's numbering begins anew at Start: a cut, or a life that repeats
	Start, End  determinant.Cursor // equal for an entry that raises the fence
	Delta       []byte             // when decoded, aliases what was decoded
}

func appendCursor(dst []byte, c determinant.Cursor) []byte {
	for _, v := range []uint64{uint64(c.Next), uint64(c.Epoch), c.Bytes, uint64(c.CRC)} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func appendHeader(dst []byte, kind uint64, identity string) []byte {
	dst = binary.AppendUvarint(dst, formatVersion)
	dst = binary.AppendUvarint(dst, kind)
	dst = binary.AppendUvarint(dst, uint64(len(identity)))
	return append(dst, identity...)
}

func appendEntry(dst []byte, e *entry) []byte {
	dst = appendHeader(dst, kindCausal, e.Identity)
	begins := uint64(0)
	if e.Begins {
		begins = 1
	}
	for _, v := range []uint64{e.Task, e.Serial, uint64(e.Incarnation), uint64(e.Generation), uint64(e.Committed), e.Keep, e.Count,
		e.Shown, begins} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = appendCursor(appendCursor(dst, e.Start), e.End)
	return append(dst, e.Delta...)
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

// below gives a number, which must be less than n.
func (b *body) below(n uint64) uint64 {
	v := b.uvarint()
	if v >= n {
		b.bad = true
		return 0
	}
	return v
}

func (b *body) text(longest uint64) string {
	n := b.below(longest + 1)
	if b.bad || n > uint64(len(b.rest)) {
		b.bad = true
		return ""
	}
	s := string(b.rest[:n])
	b.rest = b.rest[n:]
	return s
}

func (b *body) cursor() determinant.Cursor {
	return determinant.Cursor{
		Next: determinant.Seq(b.uvarint()), Epoch: determinant.Epoch(b.uvarint()), Bytes: b.uvarint(), CRC: uint32(b.below(1 << 32)),
	}
}

// header gives the identity of an entry of that kind.
func (b *body) header(kind uint64) (string, error) {
	if v := b.uvarint(); v != formatVersion && !b.bad {
		return "", fmt.Errorf("%w: format version %d", ErrCorrupt, v)
	}
	got := b.uvarint()
	identity := b.text(maxIdentity)
	if !b.bad && got != kind {
		return identity, fmt.Errorf("%w: a causal sink is one place, a transactional sink another", ErrJob)
	}
	return identity, nil
}

func decodeEntry(src []byte) (entry, error) {
	b := body{rest: src}
	identity, err := b.header(kindCausal)
	if err != nil {
		return entry{}, err
	}
	e := entry{Identity: identity, Task: b.uvarint(), Serial: b.uvarint(), Incarnation: determinant.Incarnation(b.uvarint()),
		Generation: determinant.Generation(b.uvarint()), Committed: determinant.Epoch(b.uvarint()), Keep: b.uvarint(),
		Count: b.uvarint(), Shown: b.uvarint(), Begins: b.below(2) == 1, Start: b.cursor(), End: b.cursor(), Delta: b.rest}
	if b.bad {
		return entry{}, fmt.Errorf("%w: an entry is cut short", ErrCorrupt)
	}
	return e, nil
}

// prepared is a transaction that was prepared and neither committed nor aborted.
type prepared struct {
	Epoch    determinant.Epoch
	Number   uint64 // no other transaction of the task has it
	Slot     slot
	Producer int64
	Fencing  int16 // the producer's epoch
}

// slot is a transactional id: number Index of an incarnation.
type slot struct {
	Incarnation determinant.Incarnation
	Index       uint64
}

// register is all that a transactional sink keeps beside its output. Each entry is the whole register, so the last one counts.
type register struct {
	Identity    string
	Task        uint64
	Serial      uint64
	Incarnation determinant.Incarnation
	Next        uint64     // number of the next transaction
	Slots       uint64     // how many slots this incarnation has
	Former      []slot     // by incarnation, how many slots earlier ones had that may have open transactions
	Prepared    []prepared // in the order of their numbers
	Aborted     []uint64   // numbers of transactions that were aborted, rising
}

func appendRegister(dst []byte, r *register) []byte {
	dst = appendHeader(dst, kindTransactional, r.Identity)
	for _, v := range []uint64{r.Task, r.Serial, uint64(r.Incarnation), r.Next, r.Slots, uint64(len(r.Former))} {
		dst = binary.AppendUvarint(dst, v)
	}
	for _, s := range r.Former {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(s.Incarnation)), s.Index)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Prepared)))
	for _, p := range r.Prepared {
		for _, v := range []uint64{uint64(p.Epoch), p.Number, uint64(p.Slot.Incarnation), p.Slot.Index, uint64(p.Producer),
			uint64(p.Fencing)} {
			dst = binary.AppendUvarint(dst, v)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Aborted)))
	for _, n := range r.Aborted {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func decodeRegister(src []byte) (register, error) {
	b := body{rest: src}
	identity, err := b.header(kindTransactional)
	if err != nil {
		return register{}, err
	}
	r := register{Identity: identity, Task: b.uvarint(), Serial: b.uvarint(), Incarnation: determinant.Incarnation(b.uvarint()),
		Next: b.uvarint(), Slots: b.uvarint()}
	for n := b.below(maxListed); n > 0 && !b.bad; n-- {
		r.Former = append(r.Former, slot{determinant.Incarnation(b.uvarint()), b.uvarint()})
	}
	for n := b.below(maxListed); n > 0 && !b.bad; n-- {
		r.Prepared = append(r.Prepared, prepared{Epoch: determinant.Epoch(b.uvarint()), Number: b.uvarint(),
			Slot: slot{determinant.Incarnation(b.uvarint()), b.uvarint()}, Producer: int64(b.below(1 << 63)),
			Fencing: int16(b.below(1 << 15))})
	}
	for n := b.below(maxListed); n > 0 && !b.bad; n-- {
		r.Aborted = append(r.Aborted, b.uvarint())
	}
	if b.bad || len(b.rest) > 0 {
		return register{}, fmt.Errorf("%w: a register is cut short", ErrCorrupt)
	}
	return r, nil
}

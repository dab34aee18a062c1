package http

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/understudy-stream/understudy/determinant"
)

// journal is what the journal of a sink task says: a head, what was stored before it was posted, and what was posted. A life of
// the task begins with a new one.
type journal struct {
	head   journalHead
	frames []frame
	cursor determinant.Cursor // after the last write that the receiver has taken
	count  uint64             // records of the branch up to there
	length int64              // bytes up to the last whole entry
}

// journalHead begins a journal.
type journalHead struct {
	Task        uint64
	Incarnation determinant.Incarnation
	Generation  determinant.Generation
	// Branch counts how often the output began anew at an earlier place, with records that may be others: it is a part of every id.
	Branch uint64
	Cursor determinant.Cursor // where the journal begins; all before was taken
	Count  uint64             // records of the branch up to there
	Shown  uint64             // records beyond the last cut that were taken before it
}

// frame is a write that may have been posted.
type frame struct {
	Start, End determinant.Cursor
	Count      uint64   // records of the branch up to Start
	Sums       []uint32 // of its records
	Delta      []byte
}

const (
	journalVersion = 1
	entryHead      = 8 // length and checksum
	maxEntry       = 1 << 30
	entryBegin     = 'B' // journalHead
	entryFrame     = 'F' // frame
	entryTaken     = 'T' // the receiver has taken everything up to a frame's end
)

// appendEntry appends an entry whose payload fill appends.
func appendEntry(dst []byte, kind byte, fill func([]byte) []byte) []byte {
	from := len(dst)
	dst = append(dst, make([]byte, entryHead)...)
	dst = fill(append(dst, kind))
	rest := dst[from+entryHead:]
	binary.LittleEndian.PutUint32(dst[from:], uint32(len(rest)))
	binary.LittleEndian.PutUint32(dst[from+4:], crc32.Checksum(rest, castagnoli))
	return dst
}

func appendCursor(dst []byte, c determinant.Cursor) []byte {
	dst = binary.AppendUvarint(dst, uint64(c.Next))
	dst = binary.AppendUvarint(dst, uint64(c.Epoch))
	dst = binary.AppendUvarint(dst, c.Bytes)
	return binary.LittleEndian.AppendUint32(dst, c.CRC)
}

func (h *journalHead) append(dst []byte) []byte {
	return appendEntry(dst, entryBegin, func(dst []byte) []byte {
		for _, v := range []uint64{journalVersion, h.Task, uint64(h.Incarnation), uint64(h.Generation), h.Branch, h.Count, h.Shown} {
			dst = binary.AppendUvarint(dst, v)
		}
		return appendCursor(dst, h.Cursor)
	})
}

func (f *frame) append(dst []byte) []byte {
	return appendEntry(dst, entryFrame, func(dst []byte) []byte {
		dst = appendCursor(appendCursor(dst, f.Start), f.End)
		dst = binary.AppendUvarint(dst, f.Count)
		dst = binary.AppendUvarint(dst, uint64(len(f.Sums)))
		for _, s := range f.Sums {
			dst = binary.LittleEndian.AppendUint32(dst, s)
		}
		return append(dst, f.Delta...)
	})
}

func appendTaken(dst []byte, end determinant.Cursor, count uint64) []byte {
	return appendEntry(dst, entryTaken, func(dst []byte) []byte {
		return binary.AppendUvarint(appendCursor(dst, end), count)
	})
}

// fields reads the payload of an entry. After the first failure everything it gives is zero and bad is set.
type fields struct {
	rest []byte
	bad  bool
}

func (b *fields) uvarint() uint64 {
	v, n := binary.Uvarint(b.rest)
	if n <= 0 || b.bad {
		b.bad = true
		return 0
	}
	b.rest = b.rest[n:]
	return v
}

func (b *fields) uint32() uint32 {
	if b.bad || len(b.rest) < 4 {
		b.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint32(b.rest)
	b.rest = b.rest[4:]
	return v
}

func (b *fields) cursor() determinant.Cursor {
	return determinant.Cursor{Next: determinant.Seq(b.uvarint()), Epoch: determinant.Epoch(b.uvarint()), Bytes: b.uvarint(), CRC: b.uint32()}
}

// decodeJournal takes in the entries of data up to the first that is not whole. What it gives aliases data.
func decodeJournal(data []byte) (*journal, error) {
	j := &journal{}
	for at := 0; ; {
		rest := data[at:]
		if len(rest) < entryHead {
			break
		}
		length := binary.LittleEndian.Uint32(rest)
		if length == 0 || length > maxEntry || int(length) > len(rest)-entryHead {
			break
		}
		payload := rest[entryHead : entryHead+int(length)]
		if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(rest[4:]) {
			break
		}
		if err := j.take(at == 0, payload); err != nil {
			return nil, err
		}
		at += entryHead + int(length)
		j.length = int64(at)
	}
	if j.length == 0 {
		return nil, fmt.Errorf("%w: a journal without a head", ErrCorrupt)
	}
	return j, nil
}

// take takes in an entry.
func (j *journal) take(first bool, payload []byte) error {
	b := fields{rest: payload[1:]}
	if first != (payload[0] == entryBegin) {
		return fmt.Errorf("%w: a journal with an entry %q (the first: %v)", ErrCorrupt, payload[0], first)
	}
	switch payload[0] {
	case entryBegin:
		if v := b.uvarint(); v != journalVersion && !b.bad {
			return fmt.Errorf("%w: a journal of version %d", ErrCorrupt, v)
		}
		j.head = journalHead{Task: b.uvarint(), Incarnation: determinant.Incarnation(b.uvarint()), Generation: determinant.Generation(b.uvarint()),
			Branch: b.uvarint(), Count: b.uvarint(), Shown: b.uvarint(), Cursor: b.cursor()}
		j.cursor, j.count = j.head.Cursor, j.head.Count
	case entryFrame:
		f := frame{Start: b.cursor(), End: b.cursor(), Count: b.uvarint()}
		n := b.uvarint()
		if b.bad || n > uint64(len(b.rest)/4) {
			return fmt.Errorf("%w: a frame of a journal", ErrCorrupt)
		}
		for range n {
			f.Sums = append(f.Sums, b.uint32())
		}
		f.Delta = b.rest
		j.frames = append(j.frames, f)
	case entryTaken:
		j.cursor, j.count = b.cursor(), b.uvarint()
	default:
		return fmt.Errorf("%w: a journal with an entry %q", ErrCorrupt, payload[0])
	}
	if b.bad {
		return fmt.Errorf("%w: an entry %q of a journal", ErrCorrupt, payload[0])
	}
	return nil
}

// bytes is the journal as a file that begins with its head, with its frames.
func (j *journal) bytes() []byte {
	data := j.head.append(nil)
	for i := range j.frames {
		data = j.frames[i].append(data)
	}
	if j.cursor != j.head.Cursor || j.count != j.head.Count {
		data = appendTaken(data, j.cursor, j.count)
	}
	return data
}

// countAt gives how many records of the branch come before a place where a write ended, as far as that is known.
func (j *journal) countAt(next determinant.Seq) uint64 {
	count := j.head.Count
	for i := range j.frames {
		if f := &j.frames[i]; f.End.Next <= next {
			count = max(count, f.Count+uint64(len(f.Sums)))
		}
	}
	return min(count, j.count)
}

// drop forgets frames of epochs up to e that were taken.
func (j *journal) drop(e determinant.Epoch) bool {
	n := 0
	for n < len(j.frames) && j.frames[n].End.Epoch <= e && j.frames[n].End.Next <= j.cursor.Next {
		n++
	}
	if n == 0 {
		return false
	}
	f := &j.frames[n-1]
	if f.End.Next > j.head.Cursor.Next {
		j.head.Cursor, j.head.Count = f.End, f.Count+uint64(len(f.Sums))
	}
	j.frames = j.frames[n:]
	return true
}

// deltas are the stored determinants, in order.
func (j *journal) deltas() [][]byte {
	var out [][]byte
	for i := range j.frames {
		if len(j.frames[i].Delta) > 0 {
			out = append(out, j.frames[i].Delta)
		}
	}
	return out
}

// readJournal reads a task's journal; nil if there is none.
func readJournal(name string, task int) (*journal, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	j, err := decodeJournal(data)
	if err == nil && j.head.Task != uint64(task) {
		err = fmt.Errorf("%w: it is that of task %d", ErrCorrupt, j.head.Task)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return j, nil
}

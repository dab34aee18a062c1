package inflightlog

import (
	"hash/crc32"
	"math"

	"github.com/understudy-stream/understudy/determinant"
)

// open is the part of a log that is not sealed yet. It belongs to the task's goroutine.
//
//	chunk: | sealed batches ... | committed elements | appended elements | free |
//	                            ^start               ^committed          ^len   ^cap
//
// Several small batches share one chunk of memory, so a channel with little traffic does not allocate a chunk per batch.
type open struct {
	chunk     []byte
	start     int
	committed int
	// sealAt is the length of chunk from which on Commit seals.
	sealAt int
	count  uint32 // elements since start, appended
	kept   uint32 // elements since start, committed
	// at is the position at start, except that its checksum already covers chunk[start:summed].
	at     determinant.Cursor
	first  determinant.Cursor // the position at start
	summed int
	retain bool
}

// Record appends a record. The payload is copied. It becomes part of the log at the next Commit.
func (l *Log) Record(ts int64, hasTime bool, payload []byte) {
	o := &l.open
	if need := maxRecordHeader + len(payload); cap(o.chunk)-len(o.chunk) < need {
		l.grow(need)
	}
	o.chunk = AppendRecord(o.chunk, ts, hasTime, payload)
	o.count++
}

// Control appends an element that is not a record. A watermark, idle or active waits for the next Commit. A barrier, skip or
// end commits everything appended so far and itself, and seals. A barrier or skip must be that of the present epoch; the next
// epoch starts after it.
func (l *Log) Control(e Element) {
	o := &l.open
	if cap(o.chunk)-len(o.chunk) < maxRecordHeader {
		l.grow(maxRecordHeader)
	}
	if e.Kind.EndsEpoch() {
		assert(e.Epoch == o.at.Epoch, "channel %d: %v %d in epoch %d", l.o.Channel, e.Kind, e.Epoch, o.at.Epoch)
	}
	o.chunk = AppendControl(o.chunk, e)
	o.count++
	if e.Kind.Seals() {
		o.committed, o.kept = len(o.chunk), o.count
		l.seal(e.Kind)
	}
}

// Commit says that the input element that caused what was appended is complete: it may now be sealed, and is if the batch is
// full.
func (l *Log) Commit() {
	o := &l.open
	o.committed, o.kept = len(o.chunk), o.count
	if o.committed >= o.sealAt && o.kept > 0 {
		l.seal(0)
	}
}

// Rewind drops what was appended since the last Commit: an element that failed leaves nothing behind.
func (l *Log) Rewind() {
	o := &l.open
	o.chunk, o.count = o.chunk[:o.committed], o.kept
}

// Seal makes committed elements visible to the consumer. A task calls it when it has nothing else to do. Elements appended
// since the last Commit stay open.
func (l *Log) Seal() {
	if l.open.kept > 0 {
		l.seal(0)
	}
}

// Retain says whether batches stay after they were sent, from the present epoch on. It may change only where an epoch
// starts, that is, right after a barrier or skip opened an epoch of another mode.
func (l *Log) Retain(on bool) {
	o := &l.open
	assert(on == o.retain || o.count == 0 && o.first.Bytes == 0, "channel %d: retention changed within epoch %d", l.o.Channel, o.at.Epoch)
	o.retain = on
}

// Pending tells whether committed elements wait for Seal.
func (l *Log) Pending() bool { return l.open.kept > 0 }

// End gives the position after the last committed element, sealed or not. After a barrier or skip that is the start of the
// next epoch.
func (l *Log) End() determinant.Cursor {
	o := &l.open
	o.sum()
	c := o.at
	c.Next += determinant.Seq(o.kept)
	c.Bytes += uint64(o.committed - o.start)
	return c
}

// Ahead tells whether the consumer expects an element beyond those committed here, sealed or not. While it does, a task that
// would have to make a new choice has lost determinants.
func (l *Log) Ahead() bool {
	o := &l.open
	return determinant.Seq(l.expected.Load()) > o.first.Next+determinant.Seq(o.kept)
}

// sum brings the checksum up to the last committed byte.
func (o *open) sum() {
	o.at.CRC = crc32.Update(o.at.CRC, castagnoli, o.chunk[o.summed:o.committed])
	o.summed = o.committed
}

// seal cuts the committed elements off as a batch and hands it to the log. last is the kind of the last one if it seals.
func (l *Log) seal(last Kind) {
	o := &l.open
	o.sum()
	assert(o.kept > 0 && o.kept <= o.count && o.count < math.MaxUint32, "channel %d: sealing %d of %d elements", l.o.Channel, o.kept, o.count)
	end := o.at
	end.Next += determinant.Seq(o.kept)
	end.Bytes += uint64(o.committed - o.start)
	if last.EndsEpoch() {
		end = determinant.Cursor{Next: end.Next, Epoch: end.Epoch + 1}
	}
	b := &Batch{
		First:   o.first.Next,
		Count:   o.kept,
		Epoch:   o.first.Epoch,
		Payload: o.chunk[o.start:o.committed:o.committed],
		Start:   o.first,
		End:     end,
		Control: last.Seals(),
	}
	o.at, o.first = end, end
	o.start, o.summed = o.committed, o.committed
	o.count -= o.kept
	o.kept = 0
	l.nextChunk()
	if l.o.Tag != nil {
		b.Tag = l.o.Tag(l, b)
	}
	l.publish(b, o.retain)
}

// slack is the room beyond SealBytes in a chunk, so that the record that fills a batch does not move it.
func (l *Log) slack() int { return 64 + l.o.SealBytes/8 }

// nextChunk decides where the next batch goes: behind the last one if a useful part of the chunk is free.
func (l *Log) nextChunk() {
	o := &l.open
	switch free := cap(o.chunk) - o.start; {
	case free >= l.slack()+l.o.SealBytes/4:
		o.sealAt = min(o.start+l.o.SealBytes, cap(o.chunk)-l.slack())
	case len(o.chunk) > o.start:
		l.grow(0)
	default:
		*o = open{at: o.at, first: o.first, retain: o.retain} // the next element allocates
	}
}

// grow moves what is open to a new chunk with room for n bytes more.
func (l *Log) grow(n int) {
	o := &l.open
	tail := o.chunk[o.start:]
	size := l.o.SealBytes + l.slack()
	if len(tail)+n > size {
		size = 2*len(tail) + n + l.slack()
	}
	o.chunk = append(make([]byte, 0, size), tail...)
	o.committed -= o.start
	o.summed -= o.start
	o.start = 0
	o.sealAt = l.o.SealBytes
}

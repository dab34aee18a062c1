package inflightlog

import (
	"errors"
	"fmt"
	"io"

	"github.com/understudy-stream/understudy/determinant"
)

// writer is the spilling side of a log. It belongs to the task's goroutine.
type writer struct {
	segment *segment // where the next frame goes, unless it is removed or complete
	frame   []byte   // reused
}

// maxKeptFrame bounds the buffer that a writer keeps between spills.
const maxKeptFrame = 256 << 10

// segment is one file of frames, all of one epoch, so that truncation frees it whole. It is under the log's mutex, except
// name, file and epoch, which never change.
type segment struct {
	name    string
	file    File
	epoch   determinant.Epoch
	size    int64
	live    int // entries of the log that are in it
	readers int
	writing bool
	removed bool
}

func memoryOf(b *Batch) int64 { return int64(len(b.Payload)) + BatchOverhead }

// charge accounts for the batch that was just published: in memory if the budget allows, otherwise the oldest batches of the
// log spill until it does, in the end this one. What cannot be written stays in memory all the same.
func (l *Log) charge(b *Batch) {
	for !l.hold(b, false) {
		if !l.spill() {
			l.hold(b, true)
			return
		}
	}
}

// hold takes memory for the newest batch. It is true if the batch is accounted for.
func (l *Log) hold(b *Batch, force bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.mu.held.newest()
	if e == nil || e.segment != nil {
		return true // sent and dropped meanwhile, or on disk
	}
	assert(e.batch == b && e.charged == 0, "channel %d: batch at %v is not the newest", l.o.Channel, b.Start)
	if force {
		l.o.Budget.forceMemory(memoryOf(b))
	} else if !l.o.Budget.takeMemory(memoryOf(b)) {
		return false
	}
	e.charged = memoryOf(b)
	l.mu.memory += e.charged
	return true
}

// spill writes the oldest batch that is in memory, together with as many after it as make one full batch, to the segment
// file. It is false if nothing could be written.
func (l *Log) spill() bool {
	if l.o.Budget.files == nil {
		return false
	}
	run := l.oldest()
	if len(run) == 0 {
		return false
	}
	last := run[len(run)-1]
	size := int64(frameHeader)
	payload := make([][]byte, len(run))
	for i, b := range run {
		payload[i] = b.Payload
		size += int64(len(b.Payload))
	}
	if !l.o.Budget.takeDisk(size) {
		return false
	}
	merged := *run[0]
	merged.Count, merged.End, merged.Control, merged.Payload = uint32(last.End.Next-merged.First), last.End, last.Control, nil
	frame := appendFrame(l.disk.frame[:0], &merged, payload...)
	if cap(frame) <= maxKeptFrame {
		l.disk.frame = frame
	}
	s, offset, err := l.writeSegment(merged.Epoch)
	if err == nil {
		_, err = s.file.WriteAt(frame, offset)
	}
	if err != nil {
		err = fmt.Errorf("inflightlog: channel %d: spilling: %w", l.o.Channel, err)
		l.o.Budget.freeDisk(size)
	}
	l.o.Budget.wrote(err)
	l.written(s, &merged, len(run), size, err == nil)
	return err == nil
}

// oldest gives the batches that spill next: contiguous, of one epoch since none but the last ends with a control element,
// together at most a full batch unless the first alone is bigger. Batches with a tag go alone, since tags cannot be merged.
func (l *Log) oldest() []*Batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	var run []*Batch
	size := 0
	for _, e := range l.mu.held.memory {
		if len(run) > 0 {
			last := run[len(run)-1]
			if last.Control || last.Tag != nil || e.batch.Tag != nil || size+e.bytes > l.o.SealBytes {
				break
			}
		}
		run = append(run, e.batch)
		size += e.bytes
	}
	return run
}

// writeSegment gives the segment for a frame of that epoch, and the offset. The segment counts as being written.
func (l *Log) writeSegment(epoch determinant.Epoch) (*segment, int64, error) {
	s := l.disk.segment
	if s != nil {
		l.mu.Lock()
		offset := s.size
		if !s.removed && s.epoch == epoch && offset < l.o.SegmentBytes {
			s.writing = true
			l.mu.Unlock()
			return s, offset, nil
		}
		l.mu.Unlock()
	}
	l.disk.segment = nil
	name := fmt.Sprintf("channel-%d-%d%s", l.o.Channel, l.o.Budget.named.Add(1), spillSuffix)
	file, err := l.o.Budget.files.Create(name)
	if err != nil {
		return nil, 0, err
	}
	s = &segment{name: name, file: file, epoch: epoch, writing: true}
	l.disk.segment = s
	return s, 0, nil
}

// written puts the merged batch, which is on disk now, in the place of those it was made of.
func (l *Log) written(s *segment, merged *Batch, n int, size int64, ok bool) {
	if s == nil {
		return
	}
	l.mu.Lock()
	defer l.unlock()
	s.writing = false
	defer l.retire(s)
	if !ok {
		return
	}
	offset := s.size
	s.size += size
	l.mu.disk += size
	memory := l.mu.held.memory
	if len(memory) == 0 || memory[0].batch.First != merged.First {
		return // sent or truncated during the write: the frame is dead
	}
	for _, e := range memory[:n] {
		l.uncharge(e.charged)
	}
	l.mu.held.spill(n, entry{
		batch:   merged,
		bytes:   int(size) - frameHeader,
		at:      memory[0].at,
		retain:  memory[0].retain,
		segment: s,
		offset:  offset,
	})
	s.live++
}

// retire has the segment's file removed if nobody needs it any more. The mutex is held.
func (l *Log) retire(s *segment) {
	if s.live == 0 && s.readers == 0 && !s.writing && !s.removed {
		s.removed = true
		l.mu.disk -= s.size
		l.mu.dead = append(l.mu.dead, s)
	}
}

// remove deletes a segment's file.
func (b *Budget) remove(s *segment) {
	err := errors.Join(s.file.Close(), b.files.Remove(s.name))
	b.freeDisk(s.size)
	if err != nil {
		b.wrote(fmt.Errorf("inflightlog: removing %s: %w", s.name, err))
	}
}

// load gives the batch that holds element seq, which the log must hold. The mutex is held, but given up while a spilled batch
// is read.
func (l *Log) load(seq determinant.Seq) (*Batch, error) {
	i := l.mu.held.find(seq)
	e := l.mu.held.get(i)
	if e.segment == nil {
		return e.batch, nil
	}
	if b := l.cached(e.batch.First); b != nil {
		return b, nil
	}
	s, offset, number := e.segment, e.offset, l.mu.sub.number
	want := l.readRun(i)
	s.readers++
	l.unlock()
	got, err := readFrames(s, offset, want)
	l.mu.Lock()
	s.readers--
	l.retire(s)
	keep := min(len(got), 1)
	if l.mu.sub.number == number {
		keep = len(got)
		l.mu.sub.cache = append(l.mu.sub.cache, got[min(1, keep):]...)
	}
	for _, w := range want[max(1, keep):] {
		l.uncharge(int64(w.bytes) + BatchOverhead)
	}
	if err != nil {
		return nil, err
	}
	return got[0], nil
}

// cached takes the batch from what was read ahead. The mutex is held.
func (l *Log) cached(first determinant.Seq) *Batch {
	sub := &l.mu.sub
	for len(sub.cache) > 0 && sub.cache[0].First <= first {
		b := sub.cache[0]
		sub.cache = sub.cache[1:]
		l.uncharge(memoryOf(b))
		if b.First == first {
			return b
		}
	}
	return nil
}

// readRun gives the entries to read at once: i, which goes straight on to the consumer, and, if there is a consumer, those
// next to it in the file as far as read-ahead and budget allow, for which memory is taken. The mutex is held.
func (l *Log) readRun(i int) []entry {
	first := *l.mu.held.get(i)
	ahead := l.mu.sub.active && len(l.mu.sub.cache) == 0
	size := 0
	return l.mu.held.onDisk(i, func(e *entry) bool {
		frame := frameHeader + e.bytes
		if size > 0 {
			if !ahead || e.segment != first.segment || e.offset != first.offset+int64(size) || size+frame > l.o.ReadAhead {
				return false
			}
			n := int64(e.bytes) + BatchOverhead
			if !l.o.Budget.takeMemory(n) {
				return false
			}
			l.mu.memory += n
		}
		size += frame
		return true
	})
}

// readFrames reads the batches of adjacent entries in one go. It is an error if the first cannot be had; others that cannot
// are left out, and will be an error when they are first.
func readFrames(s *segment, offset int64, want []entry) ([]*Batch, error) {
	size := 0
	for _, w := range want {
		size += frameHeader + w.bytes
	}
	buf := make([]byte, size)
	n, err := s.file.ReadAt(buf, offset)
	buf = buf[:n]
	var got []*Batch
	for _, w := range want {
		size := frameHeader + w.bytes
		if len(buf) < size {
			if err != nil && !errors.Is(err, io.EOF) {
				err = fmt.Errorf("inflightlog: reading %s at offset %d: %w", s.name, w.offset, err)
			} else {
				err = &Corruption{s.name, w.offset, fmt.Sprintf("%d bytes of %d", len(buf), size)}
			}
			return got, onlyFirst(got, err)
		}
		b, wrong := decodeFrame(buf[:size:size])
		if wrong == "" && (b.Start != w.batch.Start || b.End != w.batch.End || b.Count != w.batch.Count || b.Control != w.batch.Control) {
			wrong = fmt.Sprintf("it is batch %v to %v, not %v to %v", b.Start, b.End, w.batch.Start, w.batch.End)
		}
		if wrong != "" {
			return got, onlyFirst(got, &Corruption{s.name, w.offset, wrong})
		}
		b.Tag = w.batch.Tag
		got = append(got, &b)
		buf = buf[size:]
	}
	return got, nil
}

func onlyFirst(got []*Batch, err error) error {
	if len(got) > 0 {
		return nil
	}
	return err
}

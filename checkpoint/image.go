package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// Frozen is a part of a task's state as it was at a barrier; operator.Frozen is one. Entries calls yield for each entry
// that belongs in the image, in any order, and stops with yield's error; key and value need to stay unchanged only until
// yield returns. A later entry of the same key overrides an earlier one.
type Frozen interface {
	Table() string
	Entries(yield func(key, value []byte, deleted bool) error) error
}

// Sized is a Frozen that tells about how many bytes its entries have, -1 if it does not know.
type Sized interface{ Bytes() int }

// The image format; docs/format/checkpoint-image.md explains it.
const (
	magic         = "USIMAGE\n"
	formatVersion = 3
	flagFull      = 1

	headerBytes  = len(magic) + 2 // magic, version, flags
	sectionBytes = 1 + 8          // kind, length
	sumBytes     = 4

	sectionMeta  = 1
	sectionTable = 2
	sectionEnd   = 3
)

// sectionFull is how many bytes of entries a section of a table has before the next entry begins another one, so that a reader needs
// little memory.
const sectionFull = 32 << 10

// MaxImageBytes bounds one image that is made in memory, by Encode or Export.
const MaxImageBytes = 1 << 30

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode builds the image of one task. full says that the entries are the whole state; otherwise they are what changed
// since checkpoint meta.Base. Several Frozen may have one table; a later one overrides an earlier one. A full image has no
// use for deletions and leaves them out. The bytes depend on meta and the surviving entries alone, not on their order.
//
// The caller owns the image. Encode may run on any goroutine.
func Encode(meta Meta, full bool, frozen []Frozen) ([]byte, error) {
	ordered := slices.Clone(frozen)
	slices.SortStableFunc(ordered, func(a, b Frozen) int { return strings.Compare(a.Table(), b.Table()) })
	b := newBuilder(&meta, full, nil)
	defer b.release()
	b.expect(ordered)
	for i, f := range ordered {
		if i == 0 || f.Table() != ordered[i-1].Table() {
			if err := b.table(f.Table()); err != nil {
				return nil, err
			}
		}
		if err := f.Entries(b.entry); err != nil {
			return nil, fmt.Errorf("checkpoint: encode task %d epoch %d table %q: %w", meta.Task, meta.Epoch, f.Table(), err)
		}
	}
	return b.finish()
}

// builder writes one image into one growing buffer. Entries of a table go in as they come; only if they came out of order
// does the end of the table sort them, with a second copy of that table alone. With a sink, it keeps no more than a few sections.
type builder struct {
	buf  []byte
	own  bool               // buf is not from scratch, and as long as the image will be, about
	sink func([]byte) error // takes what is built; nil: it stays in buf. The bytes are valid until sink returns
	full bool

	section  int    // where the section under way starts
	first    int    // where its entries start
	name     string // of the open table
	open     bool   // there is an open table
	start    int    // where its first section starts
	sections uint64 // that it has, the one under way included
	count    uint64 // entries that it has, overridden ones included
	last     []byte // its last key
	unsorted bool   // it needs sorting, or has entries that do not stay; Invariant: false with a sink
	pace     pace

	tables  uint64 // sections of tables written
	entries uint64 // entries written
}

// sinkBytes is how much is given to a builder's sink at once, about.
const sinkBytes = 256 << 10

func newBuilder(meta *Meta, full bool, sink func([]byte) error) *builder {
	b := &builder{full: full, sink: sink}
	if sink == nil { // else it stays small
		b.buf = scratch.take()
	}
	b.buf = append(b.buf, magic...)
	b.buf = append(b.buf, formatVersion, 0)
	if full {
		b.buf[len(b.buf)-1] |= flagFull
	}
	b.begin(sectionMeta)
	b.buf = appendMeta(b.buf, meta)
	b.section = 0 // the CRC of the first section covers the header too
	b.seal(headerBytes)
	return b
}

// expectFrom is how many bytes an image has that is built where it stays. Smaller ones are copied, which takes less than to find memory for them.
const expectFrom = 256 << 10

// expect has the image built in memory of its own, if all that goes into it says how much that is.
func (b *builder) expect(frozen []Frozen) {
	bytes := 0
	for _, f := range frozen {
		s, ok := f.(Sized)
		if !ok || s.Bytes() < 0 {
			return
		}
		bytes += s.Bytes()
	}
	if bytes < expectFrom {
		return
	}
	bytes = min(bytes, maxScratch) // it is an estimate
	buf := append(make([]byte, 0, len(b.buf)+bytes+bytes/32), b.buf...)
	b.release()
	b.buf, b.own = buf, true
}

// release gives the memory back.
func (b *builder) release() {
	if b.sink == nil && !b.own {
		scratch.give(b.buf)
	}
	b.buf = nil
}

// begin starts a section whose length is not known yet.
func (b *builder) begin(kind byte) {
	b.section = len(b.buf)
	b.buf = append(b.buf, kind, 0, 0, 0, 0, 0, 0, 0, 0)
}

// seal fills in the length of the section whose kind byte is at head and appends the CRC of everything from b.section on.
func (b *builder) seal(head int) {
	binary.LittleEndian.PutUint64(b.buf[head+1:], uint64(len(b.buf)-head-sectionBytes))
	b.buf = binary.LittleEndian.AppendUint32(b.buf, crc32.Checksum(b.buf[b.section:], castagnoli))
}

// table ends the open table and starts the next one, whose name must be higher.
func (b *builder) table(name string) error {
	if err := b.closeTable(); err != nil {
		return err
	}
	b.open, b.name, b.start, b.sections, b.count, b.unsorted = true, name, len(b.buf), 0, 0, false
	b.more()
	return nil
}

// more starts a section of the open table.
func (b *builder) more() {
	b.begin(sectionTable)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(b.name)))
	b.buf = append(b.buf, b.name...)
	b.first = len(b.buf)
	b.sections++
}

// entry appends an entry to the open table.
func (b *builder) entry(key, value []byte, deleted bool) error {
	if b.sink == nil && len(b.buf)+len(key)+len(value) > MaxImageBytes {
		return fmt.Errorf("checkpoint: image exceeds %d bytes", int64(MaxImageBytes))
	}
	if deleted && b.full && !b.unsorted && (b.count == 0 || bytes.Compare(b.last, key) < 0) {
		return nil // no earlier entry has the key
	}
	if deleted && b.full || b.count > 0 && bytes.Compare(b.last, key) >= 0 {
		b.unsorted = true
		if b.sink != nil {
			return fmt.Errorf("checkpoint: assertion failed: key %x after %x in table %q, deleted %v", key, b.last, b.name, deleted)
		}
	}
	if err := b.room(); err != nil {
		return err
	}
	head := uint64(len(key)) << 1
	if deleted {
		head |= 1
	}
	b.buf = binary.AppendUvarint(b.buf, head)
	b.buf = append(b.buf, key...)
	if !deleted {
		b.buf = binary.AppendUvarint(b.buf, uint64(len(value)))
		b.buf = append(b.buf, value...)
	}
	b.last = append(b.last[:0], key...)
	b.count++
	b.pace.did(len(key) + len(value))
	return nil
}

// room begins another section of the open table if the one under way is full. What has to be sorted is cut when it has been.
func (b *builder) room() error {
	if b.unsorted || len(b.buf)-b.first < sectionFull {
		return nil
	}
	b.seal(b.section)
	if err := b.drain(sinkBytes); err != nil {
		return err
	}
	b.more()
	return nil
}

// drain gives what is built to the sink, once it is so much. No section is under way.
func (b *builder) drain(least int) error {
	if b.sink == nil || len(b.buf) < least {
		return nil
	}
	err := b.sink(b.buf)
	b.buf, b.start = b.buf[:0], 0
	return err
}

func (b *builder) closeTable() error {
	if !b.open {
		return nil
	}
	b.open = false
	if b.unsorted {
		b.sort()
	}
	if b.count == 0 { // a table without entries is not in the image
		b.buf = b.buf[:b.start]
		return nil
	}
	b.entries += b.count
	b.tables += b.sections
	b.seal(b.section)
	return b.drain(sinkBytes)
}

// sort brings the open table's entries into key order and drops those that do not stay.
func (b *builder) sort() {
	type span struct {
		key, whole []byte
		place      int32 // among the entries as they came
		deleted    bool
	}
	spans := make([]span, 0, b.count)
	r := reader{src: bytes.Clone(b.buf[b.start:])}
	for i := range b.sections {
		entries := reader{src: r.src[sectionBytes:]}
		if i+1 < b.sections { // sealed
			r.byte()
			entries.src = r.take(r.uint64())
			r.uint32()
		}
		entries.take(entries.uvarint()) // the name
		for len(entries.src) > 0 {
			rest := entries.src
			key, _, deleted := entries.entry()
			spans = append(spans, span{key: key, whole: rest[:len(rest)-len(entries.src)], place: int32(len(spans)), deleted: deleted})
		}
	}
	slices.SortFunc(spans, func(x, y span) int { // not SortStableFunc: it takes three times as long
		return cmp.Or(bytes.Compare(x.key, y.key), cmp.Compare(x.place, y.place))
	})
	b.buf, b.count, b.sections, b.unsorted = b.buf[:b.start], 0, 0, false
	b.more()
	for i, s := range spans {
		overridden := i+1 < len(spans) && bytes.Equal(s.key, spans[i+1].key)
		if overridden || s.deleted && b.full {
			continue
		}
		_ = b.room() // which fails with a sink only
		b.buf = append(b.buf, s.whole...)
		b.count++
	}
}

// end completes the image.
func (b *builder) end() error {
	if err := b.closeTable(); err != nil {
		return err
	}
	b.begin(sectionEnd)
	b.buf = binary.AppendUvarint(b.buf, b.tables)
	b.buf = binary.AppendUvarint(b.buf, b.entries)
	b.seal(b.section)
	return b.drain(0)
}

// finish completes the image and gives it, in memory that is not much more than it needs.
func (b *builder) finish() ([]byte, error) {
	if err := b.end(); err != nil {
		return nil, err
	}
	if b.own && cap(b.buf)-len(b.buf) <= len(b.buf)/8 {
		return b.buf[:len(b.buf):len(b.buf)], nil
	}
	return bytes.Clone(b.buf), nil
}

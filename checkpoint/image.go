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

// The image format; docs/format/checkpoint-image.md explains it.
const (
	magic         = "USIMAGE\n"
	formatVersion = 1
	flagFull      = 1

	headerBytes  = len(magic) + 2 // magic, version, flags
	sectionBytes = 1 + 8          // kind, length

	sectionMeta  = 1
	sectionTable = 2
	sectionEnd   = 3
)

// MaxImageBytes bounds one image. A fold is one Pebble batch, whose limit is 4 GiB with the keys spelled out.
const MaxImageBytes = 1 << 30

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode builds the image of one task. full says that the entries are the whole state; otherwise they are what changed
// since checkpoint meta.Base. Several Frozen may have one table; a later one overrides an earlier one. A full image has no
// use for deletions and leaves them out. The bytes depend on meta and the surviving entries alone, not on their order.
//
// The caller owns the image. Encode may run on any goroutine.
func Encode(meta Meta, full bool, frozen []Frozen) ([]byte, error) {
	return EncodeSized(meta, full, frozen, 0)
}

// EncodeSized is Encode for a caller that expects about so many bytes, such as those of the image before: a buffer that grows is copied
// again and again.
func EncodeSized(meta Meta, full bool, frozen []Frozen, bytes int) ([]byte, error) {
	ordered := slices.Clone(frozen)
	slices.SortStableFunc(ordered, func(a, b Frozen) int { return strings.Compare(a.Table(), b.Table()) })
	b := newBuilder(&meta, full, bytes)
	for i, f := range ordered {
		if i == 0 || f.Table() != ordered[i-1].Table() {
			b.table(f.Table())
		}
		if err := f.Entries(b.entry); err != nil {
			return nil, fmt.Errorf("checkpoint: encode task %d epoch %d table %q: %w", meta.Task, meta.Epoch, f.Table(), err)
		}
	}
	return b.finish(), nil
}

// builder writes one image into one growing buffer. Entries of a table go in as they come; only if they came out of order
// does the end of the table sort them, with a second copy of that table alone.
type builder struct {
	buf      []byte
	full     bool
	section  int    // where the open section starts; 0: none
	first    int    // where the open table's entries start
	lastFrom int    // where the last entry's key lies in buf
	lastTo   int    //
	count    int    // entries of the open table, overridden ones included
	unsorted bool   // the open table needs sorting, or has entries that do not stay
	tables   uint64 // tables written
	entries  uint64 // entries written
}

func newBuilder(meta *Meta, full bool, expect int) *builder {
	b := &builder{buf: make([]byte, 0, min(max(expect, 1024), MaxImageBytes)), full: full}
	b.buf = append(b.buf, magic...)
	b.buf = append(b.buf, formatVersion, 0)
	if full {
		b.buf[len(b.buf)-1] |= flagFull
	}
	b.open(sectionMeta)
	b.buf = appendMeta(b.buf, meta)
	b.section = 0 // the CRC of the first section covers the header too
	b.seal(headerBytes)
	return b
}

// open starts a section whose length is not known yet.
func (b *builder) open(kind byte) {
	b.section = len(b.buf)
	b.buf = append(b.buf, kind, 0, 0, 0, 0, 0, 0, 0, 0)
}

// seal fills in the length of the section whose kind byte is at head and appends the CRC of everything from b.section on.
func (b *builder) seal(head int) {
	binary.LittleEndian.PutUint64(b.buf[head+1:], uint64(len(b.buf)-head-sectionBytes))
	b.buf = binary.LittleEndian.AppendUint32(b.buf, crc32.Checksum(b.buf[b.section:], castagnoli))
	b.section = 0
}

// table ends the open table and starts the next one, whose name must be higher.
func (b *builder) table(name string) {
	b.closeTable()
	b.open(sectionTable)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(name)))
	b.buf = append(b.buf, name...)
	b.first, b.count, b.unsorted = len(b.buf), 0, false
}

// entry appends an entry to the open table.
func (b *builder) entry(key, value []byte, deleted bool) error {
	if len(b.buf)+len(key)+len(value) > MaxImageBytes {
		return fmt.Errorf("checkpoint: image exceeds %d bytes", int64(MaxImageBytes))
	}
	if deleted && b.full || b.count > 0 && bytes.Compare(b.buf[b.lastFrom:b.lastTo], key) >= 0 {
		b.unsorted = true
	}
	head := uint64(len(key)) << 1
	if deleted {
		head |= 1
	}
	b.buf = binary.AppendUvarint(b.buf, head)
	b.lastFrom = len(b.buf)
	b.buf = append(b.buf, key...)
	b.lastTo = len(b.buf)
	if !deleted {
		b.buf = binary.AppendUvarint(b.buf, uint64(len(value)))
		b.buf = append(b.buf, value...)
	}
	b.count++
	return nil
}

func (b *builder) closeTable() {
	if b.section == 0 {
		return
	}
	if b.unsorted {
		b.sort()
	}
	if b.count == 0 { // a table without entries is not in the image
		b.buf = b.buf[:b.section]
		b.section = 0
		return
	}
	b.entries += uint64(b.count)
	b.tables++
	b.seal(b.section)
}

// sort brings the open table's entries into key order and drops those that do not stay.
func (b *builder) sort() {
	type span struct {
		key, whole []byte
		place      int32 // among the entries as they came
		deleted    bool
	}
	r := reader{src: bytes.Clone(b.buf[b.first:])}
	spans := make([]span, 0, b.count)
	for len(r.src) > 0 {
		rest := r.src
		key, _, deleted := r.entry()
		spans = append(spans, span{key: key, whole: rest[:len(rest)-len(r.src)], place: int32(len(spans)), deleted: deleted})
	}
	slices.SortFunc(spans, func(x, y span) int { // not SortStableFunc: it takes three times as long
		return cmp.Or(bytes.Compare(x.key, y.key), cmp.Compare(x.place, y.place))
	})
	b.buf, b.count = b.buf[:b.first], 0
	for i, s := range spans {
		overridden := i+1 < len(spans) && bytes.Equal(s.key, spans[i+1].key)
		if overridden || s.deleted && b.full {
			continue
		}
		b.buf = append(b.buf, s.whole...)
		b.count++
	}
}

// finish ends the image and hands it over.
func (b *builder) finish() []byte {
	b.closeTable()
	b.open(sectionEnd)
	b.buf = binary.AppendUvarint(b.buf, b.tables)
	b.buf = binary.AppendUvarint(b.buf, b.entries)
	b.seal(b.section)
	return b.buf
}

package checkpoint

import (
	"bytes"
	"fmt"
	"io"
)

// imageReader walks an image from its front. Every check that the format allows is made.
type imageReader struct {
	s     sections
	full  bool
	meta  Meta
	table string // of the entries that next returns

	entries reader // rest of the open section
	filled  bool   // the open section had an entry; Invariant: a section of a table is never empty
	length  int    // bytes of entries in the open section
	key     []byte // last key of the open table, if it had one
	started bool   // the open table had an entry
	before  []byte // the memory of key, if it is of a section before
	tables  uint64
	count   uint64
}

// openImage checks the header and reads the Meta. An error has ErrCorrupt in its chain.
func openImage(image []byte) (*imageReader, error) { return readImage(sections{src: image}) }

// openImageFile is openImage for an image in a file of that size, in bytes, of which little is in memory at a time. The file may be longer
// than the image.
func openImageFile(f io.Reader, size uint64) (*imageReader, error) {
	return readImage(sections{file: f, left: size})
}

func readImage(s sections) (*imageReader, error) {
	if err := s.need(min(uint64(headerBytes), s.rest())); err != nil {
		return nil, err
	}
	head := s.src
	if len(head) < headerBytes || string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: not a checkpoint image", ErrCorrupt)
	}
	if v := head[len(magic)]; v != formatVersion {
		return nil, fmt.Errorf("%w: image has format version %d, this build reads %d", ErrCorrupt, v, formatVersion)
	}
	flags := head[len(magic)+1]
	if flags&^flagFull != 0 {
		return nil, fmt.Errorf("%w: image has unknown flags %#x", ErrCorrupt, flags)
	}
	d := &imageReader{s: s, full: flags&flagFull != 0}
	d.s.front = headerBytes
	kind, payload, err := d.s.next()
	if err != nil {
		return nil, err
	}
	if kind != sectionMeta {
		return nil, fmt.Errorf("%w: image starts with section %d", ErrCorrupt, kind)
	}
	d.meta, err = decodeMeta(payload)
	return d, err
}

// next returns the next entry, or ok false at the image's end. The slices are valid until the following call.
func (d *imageReader) next() (key, value []byte, deleted, ok bool, err error) {
	for len(d.entries.src) == 0 {
		more, err := d.nextSection()
		if err != nil || !more {
			return nil, nil, false, false, err
		}
	}
	taken := d.length - len(d.entries.src)
	key, value, deleted = d.entries.entry()
	switch {
	case d.entries.err != nil:
		return nil, nil, false, false, fmt.Errorf("%w: image table %q: %v", ErrCorrupt, d.table, d.entries.err)
	case d.started && bytes.Compare(d.key, key) >= 0:
		return nil, nil, false, false, fmt.Errorf("%w: image table %q is not in key order", ErrCorrupt, d.table)
	case deleted && d.full:
		return nil, nil, false, false, fmt.Errorf("%w: full image with a deletion in table %q", ErrCorrupt, d.table)
	case taken >= sectionFull:
		return nil, nil, false, false, fmt.Errorf("%w: image table %q has a section that is too long", ErrCorrupt, d.table)
	}
	d.key, d.filled, d.started = key, true, true
	d.count++
	return key, value, deleted, true, nil
}

// nextSection opens the next section of a table, or checks the end of the image.
func (d *imageReader) nextSection() (more bool, err error) {
	if d.tables > 0 && !d.filled {
		return false, fmt.Errorf("%w: image table %q has an empty section", ErrCorrupt, d.table)
	}
	d.before = append(d.before[:0], d.key...)
	d.key = d.before
	kind, payload, err := d.s.next()
	if err != nil {
		return false, err
	}
	r := reader{src: payload}
	switch kind {
	case sectionTable:
		name := r.take(r.uvarint())
		again := d.tables > 0 && string(name) == d.table
		if r.err != nil || d.tables > 0 && string(name) < d.table || again && d.length < sectionFull {
			return false, fmt.Errorf("%w: image table %q after %q: bad name or order", ErrCorrupt, name, d.table)
		}
		if !again {
			d.table, d.started = string(name), false
		}
		d.entries, d.length, d.filled = r, len(r.src), false
		d.tables++
		return true, nil
	case sectionEnd:
		tables, entries := r.uvarint(), r.uvarint()
		if r.err != nil || len(r.src) > 0 || d.s.file == nil && d.s.rest() > 0 || tables != d.tables || entries != d.count {
			return false, fmt.Errorf("%w: image end: %d sections of tables and %d entries, want %d and %d, %d bytes left over",
				ErrCorrupt, d.tables, d.count, tables, entries, uint64(len(r.src))+d.s.rest())
		}
		return false, nil
	}
	return false, fmt.Errorf("%w: image has unknown section %d", ErrCorrupt, kind)
}

// entry takes one entry of a table.
func (r *reader) entry() (key, value []byte, deleted bool) {
	head := r.uvarint()
	key = r.take(head >> 1)
	if head&1 != 0 {
		return key, nil, true
	}
	return key, r.take(r.uvarint()), false
}

// DecodeMeta reads the Meta at the front of an image, tells whether it is full, and checks nothing behind that. An error has ErrCorrupt in
// its chain.
func DecodeMeta(image []byte) (meta Meta, full bool, err error) {
	d, err := openImage(image)
	if err != nil {
		return Meta{}, false, err
	}
	return d.meta, d.full, nil
}

// Verify checks every byte of an image and tells whether it is full. An error has ErrCorrupt in its chain.
func Verify(image []byte) (meta Meta, full bool, err error) {
	d, err := openImage(image)
	if err == nil {
		err = d.verify()
	}
	if err != nil {
		return Meta{}, false, err
	}
	return d.meta, d.full, nil
}

// verify reads to the end.
func (d *imageReader) verify() error {
	var p pace
	for {
		key, value, _, ok, err := d.next()
		if err != nil || !ok {
			return err
		}
		p.did(len(key) + len(value))
	}
}

// Entries calls yield for each entry of the image, in (table, key) order. It stops with yield's error, or with one that has
// ErrCorrupt in its chain when it meets a fault; entries before the fault have been yielded by then, so call Verify first
// where that matters. Key and value alias the image; value is nil if deleted.
func Entries(image []byte, yield func(table string, key, value []byte, deleted bool) error) error {
	d, err := openImage(image)
	if err != nil {
		return err
	}
	for {
		key, value, deleted, ok, err := d.next()
		if err != nil || !ok {
			return err
		}
		if err := yield(d.table, key, value, deleted); err != nil {
			return err
		}
	}
}

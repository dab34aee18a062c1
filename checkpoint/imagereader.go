package checkpoint

import (
	"bytes"
	"fmt"
	"hash/crc32"
)

// imageReader walks an image from its front. Every check that the format allows is made; nothing is copied.
type imageReader struct {
	r     reader
	full  bool
	known bool // its checksums are right: they were checked before
	meta  Meta
	table string // of the entries that next returns

	entries reader // rest of the open table
	key     []byte // last key of the open table
	filled  bool   // the open table had an entry; Invariant: a table section is never empty
	tables  uint64
	count   uint64
}

// openImage checks the header and reads the Meta. An error has ErrCorrupt in its chain.
func openImage(image []byte) (*imageReader, error) {
	if len(image) < headerBytes || string(image[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: not a checkpoint image", ErrCorrupt)
	}
	if v := image[len(magic)]; v != formatVersion {
		return nil, fmt.Errorf("%w: image has format version %d, this build reads %d", ErrCorrupt, v, formatVersion)
	}
	flags := image[len(magic)+1]
	if flags&^flagFull != 0 {
		return nil, fmt.Errorf("%w: image has unknown flags %#x", ErrCorrupt, flags)
	}
	d := &imageReader{r: reader{src: image[headerBytes:]}, full: flags&flagFull != 0}
	kind, payload, err := d.section(image)
	if err != nil {
		return nil, err
	}
	if kind != sectionMeta {
		return nil, fmt.Errorf("%w: image starts with section %d", ErrCorrupt, kind)
	}
	d.meta, err = decodeMeta(payload)
	return d, err
}

// section takes the next section and checks its CRC, which covers from on: what lies in front of the section's payload.
func (d *imageReader) section(from []byte) (kind byte, payload []byte, err error) {
	kind = d.r.byte()
	length := d.r.uint64()
	payload = d.r.take(length)
	covered := len(from) - len(d.r.src)
	sum := d.r.uint32()
	if d.r.err != nil {
		return 0, nil, fmt.Errorf("%w: image section: %v", ErrCorrupt, d.r.err)
	}
	if d.known {
		return kind, payload, nil
	}
	if got := crc32.Checksum(from[:covered], castagnoli); got != sum {
		return 0, nil, fmt.Errorf("%w: image section %d has CRC %08x, want %08x", ErrCorrupt, kind, got, sum)
	}
	return kind, payload, nil
}

// next returns the next entry, or ok false at the image's end. The slices alias the image.
func (d *imageReader) next() (key, value []byte, deleted, ok bool, err error) {
	for len(d.entries.src) == 0 {
		more, err := d.nextTable()
		if err != nil || !more {
			return nil, nil, false, false, err
		}
	}
	key, value, deleted = d.entries.entry()
	switch {
	case d.entries.err != nil:
		return nil, nil, false, false, fmt.Errorf("%w: image table %q: %v", ErrCorrupt, d.table, d.entries.err)
	case d.filled && bytes.Compare(d.key, key) >= 0:
		return nil, nil, false, false, fmt.Errorf("%w: image table %q is not in key order", ErrCorrupt, d.table)
	case deleted && d.full:
		return nil, nil, false, false, fmt.Errorf("%w: full image with a deletion in table %q", ErrCorrupt, d.table)
	}
	d.key, d.filled = key, true
	d.count++
	return key, value, deleted, true, nil
}

// nextTable opens the next table, or checks the end of the image.
func (d *imageReader) nextTable() (more bool, err error) {
	if d.tables > 0 && !d.filled {
		return false, fmt.Errorf("%w: image table %q is empty", ErrCorrupt, d.table)
	}
	kind, payload, err := d.section(d.r.src)
	if err != nil {
		return false, err
	}
	r := reader{src: payload}
	switch kind {
	case sectionTable:
		name := string(r.take(r.uvarint()))
		if r.err != nil || d.tables > 0 && name <= d.table {
			return false, fmt.Errorf("%w: image table %q after %q: bad name or order", ErrCorrupt, name, d.table)
		}
		d.table, d.entries, d.filled = name, r, false
		d.tables++
		return true, nil
	case sectionEnd:
		tables, entries := r.uvarint(), r.uvarint()
		if r.err != nil || len(r.src) > 0 || len(d.r.src) > 0 || tables != d.tables || entries != d.count {
			return false, fmt.Errorf("%w: image end: %d tables and %d entries, want %d and %d, %d bytes left over",
				ErrCorrupt, d.tables, d.count, tables, entries, len(r.src)+len(d.r.src))
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

// DecodeMeta reads the Meta at the front of an image and checks nothing behind it. An error has ErrCorrupt in its chain.
func DecodeMeta(image []byte) (Meta, error) {
	d, err := openImage(image)
	if err != nil {
		return Meta{}, err
	}
	return d.meta, nil
}

// Verify checks every byte of an image and tells whether it is full. An error has ErrCorrupt in its chain.
func Verify(image []byte) (meta Meta, full bool, err error) {
	d, err := openImage(image)
	if err != nil {
		return Meta{}, false, err
	}
	for {
		_, _, _, ok, err := d.next()
		if err != nil {
			return Meta{}, false, err
		}
		if !ok {
			return d.meta, d.full, nil
		}
	}
}

// Entries calls yield for each entry of the image, in (table, key) order. It stops with yield's error, or with one that has
// ErrCorrupt in its chain when it meets a fault; entries before the fault have been yielded by then, so call Verify first
// where that matters. Key and value alias the image; value is nil if deleted.
func Entries(image []byte, yield func(table string, key, value []byte, deleted bool) error) error {
	return entries(image, false, yield)
}

// entries is Entries. known tells that the image was verified, so that its checksums need not be computed again.
func entries(image []byte, known bool, yield func(table string, key, value []byte, deleted bool) error) error {
	d, err := openImage(image)
	if err != nil {
		return err
	}
	d.known = known
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

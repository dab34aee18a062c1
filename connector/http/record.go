package http

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// kind says what a record of a log is.
type kind byte

const (
	kindLines kind = 1 // the lines of one request
	kindEnd   kind = 2 // the log ends here
)

// record is what one request leaves in a log.
type record struct {
	Kind  kind
	Term  uint64 // of the owner that took it
	Time  int64  // when, in milliseconds since the Unix epoch
	First uint64 // how many lines of the log come before
	Lines uint64
	Key   string // the request's idempotency key, "" if it has none
	Body  []byte // the lines, each with its "\n"
}

// sum identifies the body in the check that a key is not used for two requests.
func (r *record) sum() uint64 {
	return uint64(len(r.Body))<<32 | uint64(crc32.Checksum(r.Body, castagnoli))
}

const (
	recordHead = 8         // length and checksum of the rest
	maxRecord  = 128 << 20 // bytes after the head
	maxKey     = 255       // bytes of an idempotency key
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn says that bytes do not hold a whole record.
var errTorn = errors.New("http: not a whole record")

// appendRecord appends the record's bytes: docs/format/http.md.
func appendRecord(dst []byte, r *record) []byte {
	from := len(dst)
	dst = append(dst, make([]byte, recordHead)...)
	dst = append(dst, byte(r.Kind))
	dst = binary.AppendUvarint(dst, r.Term)
	dst = binary.AppendUvarint(dst, uint64(r.Time))
	dst = binary.AppendUvarint(dst, r.First)
	dst = binary.AppendUvarint(dst, r.Lines)
	dst = append(dst, byte(len(r.Key)))
	dst = append(dst, r.Key...)
	dst = append(dst, r.Body...)
	rest := dst[from+recordHead:]
	binary.LittleEndian.PutUint32(dst[from:], uint32(len(rest)))
	binary.LittleEndian.PutUint32(dst[from+4:], crc32.Checksum(rest, castagnoli))
	return dst
}

// decodeRecord decodes the record at the start of src and gives its length. r.Body aliases src.
func decodeRecord(src []byte, r *record) (int, error) {
	if len(src) < recordHead {
		return 0, errTorn
	}
	length := binary.LittleEndian.Uint32(src)
	if length > maxRecord || int(length) > len(src)-recordHead {
		return 0, errTorn
	}
	rest := src[recordHead : recordHead+int(length)]
	if len(rest) == 0 || crc32.Checksum(rest, castagnoli) != binary.LittleEndian.Uint32(src[4:]) {
		return 0, errTorn
	}
	*r = record{Kind: kind(rest[0])}
	rest = rest[1:]
	var fields [4]uint64
	for i := range fields {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, errTorn
		}
		fields[i], rest = v, rest[n:]
	}
	r.Term, r.Time, r.First, r.Lines = fields[0], int64(fields[1]), fields[2], fields[3]
	if len(rest) == 0 || len(rest)-1 < int(rest[0]) {
		return 0, errTorn
	}
	r.Key, r.Body = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
	return recordHead + int(length), r.check()
}

// check tells whether a record whose checksum is right makes sense.
func (r *record) check() error {
	switch {
	case r.Kind != kindLines && r.Kind != kindEnd,
		r.Kind == kindEnd && (r.Lines != 0 || len(r.Body) != 0),
		r.Kind == kindLines && r.Lines != uint64(bytes.Count(r.Body, newline)),
		len(r.Body) > 0 && r.Body[len(r.Body)-1] != '\n',
		r.First+r.Lines < r.First:
		return fmt.Errorf("%w: kind %d with %d lines in %d bytes", errTorn, r.Kind, r.Lines, len(r.Body))
	}
	return nil
}

var newline = []byte{'\n'}

// eachRecord calls f for every record of data with its position in data. Data that does not end with a record's end is errTorn, after
// f has had all whole ones.
func eachRecord(data []byte, f func(at int, r *record) error) error {
	for at := 0; at < len(data); {
		var r record
		n, err := decodeRecord(data[at:], &r)
		if err != nil {
			return err
		}
		if err := f(at, &r); err != nil {
			return err
		}
		at += n
	}
	return nil
}

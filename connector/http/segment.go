package http

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
)

// segment is one file of a log: a head, then records.
type segment struct {
	name string
	file *os.File
	head segmentHead
	end  uint64 // position after its last record
	last int64  // newest Time of its records
	// marks are some of its records, in order, the first among them; about one per markBytes.
	marks []mark
}

// segmentHead is what a segment begins with: where it stands in the log.
type segmentHead struct {
	Base uint64 // position of the first record; positions count the bytes of records since the log began
	Line uint64 // how many lines come before
	Term uint64 // of the record before
}

// mark is a record's place.
type mark struct{ position, line uint64 }

const (
	segmentHeadBytes = 36
	segmentMagic     = "UDYHTTP1"
	markBytes        = 64 << 10
)

func (h *segmentHead) append(dst []byte) []byte {
	from := len(dst)
	dst = append(dst, segmentMagic...)
	for _, v := range []uint64{h.Base, h.Line, h.Term} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[from:], castagnoli))
}

func (h *segmentHead) decode(src []byte) error {
	if len(src) < segmentHeadBytes || string(src[:8]) != segmentMagic ||
		crc32.Checksum(src[:32], castagnoli) != binary.LittleEndian.Uint32(src[32:]) {
		return errTorn
	}
	h.Base = binary.LittleEndian.Uint64(src[8:])
	h.Line = binary.LittleEndian.Uint64(src[16:])
	h.Term = binary.LittleEndian.Uint64(src[24:])
	return nil
}

// offset gives the place in the file of a position in the log.
func (s *segment) offset(position uint64) int64 {
	return int64(position-s.head.Base) + segmentHeadBytes
}

// note takes in the record at a position.
func (s *segment) note(position uint64, r *record, length int) {
	if n := len(s.marks); n == 0 || position-s.marks[n-1].position >= markBytes {
		s.marks = append(s.marks, mark{position, r.First})
	}
	s.end = position + uint64(length)
	s.last = max(s.last, r.Time)
}

// before gives the last mark that a test holds for, the segment's beginning if there is none.
func (s *segment) before(holds func(mark) bool) mark {
	i := sort.Search(len(s.marks), func(i int) bool { return !holds(s.marks[i]) })
	if i == 0 {
		return mark{s.head.Base, s.head.Line}
	}
	return s.marks[i-1]
}

// read reads whole records from a position on: at most so many bytes if more than one, none at or beyond limit. Both are ends
// of records.
func (s *segment) read(position, limit uint64, most int) ([]byte, error) {
	left := min(limit, s.end) - position
	data := make([]byte, min(left, uint64(max(most, recordHead))))
	if _, err := s.file.ReadAt(data, s.offset(position)); err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	whole := 0
	for whole+recordHead <= len(data) {
		next := whole + recordHead + int(binary.LittleEndian.Uint32(data[whole:]))
		if next > len(data) {
			if whole == 0 && uint64(next) <= left {
				return s.read(position, limit, next)
			}
			break
		}
		whole = next
	}
	if whole == 0 && left > 0 {
		return nil, fmt.Errorf("%w: %s has no record at position %d", ErrCorrupt, s.name, position)
	}
	return data[:whole], nil
}

func segmentName(dir string, base uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d.log", base))
}

// createSegment makes a new segment. It appears whole, by a rename, or not at all.
func createSegment(dir string, h segmentHead) (*segment, error) {
	name := segmentName(dir, h.Base)
	f, err := os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	_, err = f.Write(h.append(nil))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("http: %w", errors.Join(err, f.Close()))
	}
	return &segment{name: name, file: f, head: h, end: h.Base}, nil
}

// openSegment reads a segment and calls f for each record. In the log's last segment, a record that is not whole is where a write was
// cut short: it and what is behind it is cut off. Anywhere else it is ErrCorrupt.
func openSegment(name string, isLast bool, f func(s *segment, position uint64, r *record, length int) error) (s *segment, err error) {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	s = &segment{name: name, file: file}
	head := make([]byte, segmentHeadBytes)
	if _, err = io.ReadFull(file, head); err != nil || s.head.decode(head) != nil || segmentName(filepath.Dir(name), s.head.Base) != name {
		return nil, fmt.Errorf("%w: %s: bad head", ErrCorrupt, name)
	}
	s.end = s.head.Base
	size, err := scanRecords(file, func(at uint64, r *record, length int) error { return f(s, s.head.Base+at, r, length) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if size == int64(s.end-s.head.Base) {
		return s, nil
	}
	if !isLast {
		return nil, fmt.Errorf("%w: %s has a bad record at byte %d", ErrCorrupt, name, s.offset(s.end))
	}
	if err = file.Truncate(s.offset(s.end)); err == nil {
		err = file.Sync()
	}
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	return s, nil
}

// scanRecords calls f for each whole record from the reader's place on, and gives how many bytes there are in all.
func scanRecords(from io.Reader, f func(at uint64, r *record, length int) error) (int64, error) {
	const chunk = 1 << 20
	var buf []byte
	at, size, want := uint64(0), int64(0), chunk
	for torn := false; ; {
		free := len(buf)
		buf = append(buf, make([]byte, want)...)
		n, err := io.ReadFull(from, buf[free:])
		size += int64(n)
		buf = buf[:free+n]
		ended := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !ended {
			return 0, fmt.Errorf("http: %w", err)
		}
		used := 0
		for !torn && used+recordHead <= len(buf) {
			var r record
			length := recordHead + int64(binary.LittleEndian.Uint32(buf[used:]))
			if length > int64(len(buf)-used) && length <= maxRecord+recordHead && !ended {
				break // more of it may come
			}
			k, err := decodeRecord(buf[used:], &r)
			if err != nil {
				torn = true
				break
			}
			if err := f(at, &r, k); err != nil {
				return 0, err
			}
			at, used = at+uint64(k), used+k
		}
		if ended {
			return size, nil
		}
		buf = buf[:copy(buf, buf[used:])]
		if torn {
			buf = buf[:0]
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

package checkpoint

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// sections cuts an image, which is in memory or in a file, into its sections.
type sections struct {
	src   []byte    // what is at hand and was not taken yet
	front int       // bytes at its beginning that belong to no section, and that the next section's CRC covers
	file  io.Reader // has what comes after src; nil: nothing
	left  uint64    // bytes that file still has
	buf   []byte    // where what was read from file lies
}

// readBytes is how much is read from a file at once.
const readBytes = 64 << 10

// need has at least n bytes at hand. What was taken before is not valid any more.
func (s *sections) need(n uint64) error {
	have := uint64(len(s.src))
	if n <= have {
		return nil
	}
	if n-have > s.left {
		return fmt.Errorf("%w: image ends within a section", ErrCorrupt)
	}
	if uint64(cap(s.buf)) < n {
		s.buf = make([]byte, max(n, min(readBytes, have+s.left)))
	}
	s.buf = s.buf[:cap(s.buf)]
	copy(s.buf, s.src)
	more := min(uint64(len(s.buf))-have, s.left)
	_, err := io.ReadFull(s.file, s.buf[have:have+more])
	s.left -= more
	s.src = s.buf[:have+more]
	if err != nil {
		s.src = nil
		return fmt.Errorf("checkpoint: read image: %w", err)
	}
	return nil
}

// next takes the next section. The payload is valid until the following call.
func (s *sections) next() (kind byte, payload []byte, err error) {
	front := uint64(s.front)
	if err := s.need(front + sectionBytes); err != nil {
		return 0, nil, err
	}
	kind = s.src[front]
	length := binary.LittleEndian.Uint64(s.src[front+1:])
	if length > uint64(len(s.src))+s.left {
		return 0, nil, fmt.Errorf("%w: image ends within section %d", ErrCorrupt, kind)
	}
	covered := front + sectionBytes + length
	if err := s.need(covered + sumBytes); err != nil {
		return 0, nil, err
	}
	want := binary.LittleEndian.Uint32(s.src[covered:])
	if got := crc32.Checksum(s.src[:covered], castagnoli); got != want {
		return 0, nil, fmt.Errorf("%w: image section %d has CRC %08x, want %08x", ErrCorrupt, kind, got, want)
	}
	payload = s.src[front+sectionBytes : covered : covered]
	s.src, s.front = s.src[covered+sumBytes:], 0
	return kind, payload, nil
}

// rest is how many bytes were not taken.
func (s *sections) rest() uint64 { return uint64(len(s.src)) + s.left }

package file

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/understudy-stream/understudy/determinant"
)

// snapshot is what a part's files say.
type snapshot struct {
	head     head   // of the newest segment; Number 0 if the part is new
	length   uint64 // of the newest segment, up to its last whole frame
	torn     bool   // the newest segment has more bytes than that
	frames   int    // in the newest segment
	last     determinant.Epoch
	cursor   determinant.Cursor // after the last write of which every byte is visible
	position uint64             // byte of the output there
	covered  uint64             // byte of the output up to which determinants are stored
	visible  uint64             // length of the output
	uncut    bool               // the cut that the newest segment began with is not done yet
	deltas   [][]byte
	borders  []border
}

// border is where a write ended.
type border struct {
	next     determinant.Seq
	position uint64
}

// scan reads a part's files and changes nothing. The output's length is read first: whatever it shows then has its frame
// already, so that scan may also run beside a writer.
func (p *part) scan() (s snapshot, err error) {
	const attempts = 5 // a segment may be gone because a checkpoint was committed in between
	for range attempts {
		if s, err = p.scanOnce(); !errors.Is(err, os.ErrNotExist) {
			return s, err
		}
	}
	return s, fmt.Errorf("%w: a segment of %s is missing: %w", ErrCorrupt, p.name, err)
}

func (p *part) scanOnce() (s snapshot, err error) {
	if s.visible, err = size(p.output()); err != nil {
		return s, fmt.Errorf("file: %w", err)
	}
	newest, err := p.newest()
	if err != nil {
		return s, err
	}
	if newest == 0 {
		if s.visible > 0 {
			return s, fmt.Errorf("%w: %s has %d bytes and no determinants", ErrForeign, p.output(), s.visible)
		}
		return s, nil
	}
	data, err := p.read(newest)
	if err != nil {
		return s, err
	}
	n, err := p.decodeHead(data, newest, &s.head)
	if err != nil {
		return s, err
	}
	for _, k := range s.head.Kept {
		if err := p.scanKept(&s, k); err != nil {
			return s, err
		}
	}
	s.cursor, s.position, s.covered = s.head.Cursor, s.head.Position, s.head.Covered
	s.borders = append(s.borders, border{s.cursor.Next, s.position})
	s.frames, s.last = 0, 0
	if err := p.scanFrames(&s, data, n, newest); err != nil {
		return s, err
	}
	s.torn = s.length < uint64(len(data))
	return s, p.judge(&s)
}

// judge compares the output with the sidecar.
func (p *part) judge(s *snapshot) error {
	if s.head.Cut && s.frames == 0 && s.visible > s.position {
		s.uncut, s.visible = true, s.position
	}
	if s.visible > s.covered {
		return fmt.Errorf("%w: %s shows %d bytes, but determinants are stored for %d", ErrCorrupt, p.output(), s.visible, s.covered)
	}
	if s.visible < s.head.Position {
		return fmt.Errorf("%w: %s shows %d bytes and once showed %d", ErrCorrupt, p.output(), s.visible, s.head.Position)
	}
	return nil
}

// scanKept takes in an earlier segment up to its sealed length. Every frame of it must be whole.
func (p *part) scanKept(s *snapshot, k kept) error {
	data, err := p.read(k.Number)
	if err != nil {
		return err
	}
	if k.Length > uint64(len(data)) {
		return fmt.Errorf("%w: %s has %d bytes, was sealed at %d", ErrCorrupt, p.segment(k.Number), len(data), k.Length)
	}
	var h head
	n, err := p.decodeHead(data[:k.Length], k.Number, &h)
	if err != nil {
		return err
	}
	s.borders = append(s.borders, border{h.Cursor.Next, h.Position})
	s.covered = h.Covered
	if err := p.scanFrames(s, data[:k.Length], n, k.Number); err != nil {
		return err
	}
	if s.length != k.Length {
		return fmt.Errorf("%w: %s has a bad frame at byte %d", ErrCorrupt, p.segment(k.Number), s.length)
	}
	return nil
}

// scanFrames takes in the frames of a segment from byte at on, up to the first that is not whole.
func (p *part) scanFrames(s *snapshot, data []byte, at int, number uint64) error {
	for {
		var f frame
		n, err := decodeFrame(data[at:], &f)
		if err != nil {
			s.length = uint64(at)
			return nil
		}
		if f.Position > s.covered {
			return fmt.Errorf("%w: %s: the frame at byte %d begins at byte %d of the output, determinants are stored for %d",
				ErrCorrupt, p.segment(number), at, f.Position, s.covered)
		}
		at += n
		s.frames++
		s.covered = max(s.covered, f.end())
		s.last = max(s.last, f.End.Epoch)
		s.borders = append(s.borders, border{f.End.Next, f.end()})
		if f.end() <= s.visible {
			s.cursor, s.position = f.End, f.end()
		}
		if len(f.Delta) > 0 {
			s.deltas = append(s.deltas, f.Delta)
		}
	}
}

// find gives the byte of the output at a cursor that a checkpoint names.
func (s *snapshot) find(c determinant.Cursor) (uint64, bool) {
	if c.Next == 0 {
		return 0, true
	}
	for i := len(s.borders) - 1; i >= 0; i-- {
		if s.borders[i].next == c.Next {
			return s.borders[i].position, true
		}
	}
	return 0, false
}

// newest gives the highest number of a segment, 0 if there is none.
func (p *part) newest() (uint64, error) {
	numbers, err := p.segments()
	if err != nil || len(numbers) == 0 {
		return 0, err
	}
	highest := uint64(0)
	for _, n := range numbers {
		highest = max(highest, n)
	}
	return highest, nil
}

// segments lists the numbers of the segments there are.
func (p *part) segments() ([]uint64, error) {
	entries, err := os.ReadDir(p.hidden)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	var numbers []uint64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), p.name+".det.")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

func (p *part) read(number uint64) ([]byte, error) {
	data, err := os.ReadFile(p.segment(number))
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return data, nil
}

func (p *part) decodeHead(data []byte, number uint64, h *head) (int, error) {
	n, err := decodeHead(data, h)
	switch {
	case errors.Is(err, errVersion):
		return 0, fmt.Errorf("%w: %s: unknown format version", ErrCorrupt, p.segment(number))
	case err != nil:
		return 0, fmt.Errorf("%w: %s: bad head", ErrCorrupt, p.segment(number))
	case h.Task != uint64(p.task) || h.Number != number:
		return 0, fmt.Errorf("%w: %s: the head is that of segment %d of task %d", ErrCorrupt, p.segment(number), h.Number, h.Task)
	}
	return n, nil
}

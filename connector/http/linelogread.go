package http

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sort"
)

func len32(src []byte) uint32 { return binary.LittleEndian.Uint32(src) }

// segmentAt gives the segment that has a position, or would have it next. The caller holds mu.
func (l *lineLog) segmentAt(position uint64) *segment {
	i := sort.Search(len(l.mu.segments), func(i int) bool { return l.mu.segments[i].head.Base > position })
	return l.mu.segments[max(0, i-1)]
}

// readAt reads whole records from a position on, of one segment: nothing if there is none. What it gives is the caller's.
func (l *lineLog) readAt(position uint64, most int) ([]byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if err := l.mu.broken; errors.Is(err, os.ErrClosed) {
		return nil, err
	}
	if base := l.mu.segments[0].head.Base; position < base || position > l.mu.end {
		return nil, fmt.Errorf("%w: position %d; the log has %d to %d", ErrTruncated, position, base, l.mu.end)
	}
	return l.segmentAt(position).read(position, l.mu.end, most)
}

// readLines reads whole readable records, the first of which holds the line with a number, and gives the position after them. It gives
// nothing, and a channel that is closed when there may be something, if the line is not readable yet.
func (l *lineLog) readLines(line uint64, most int) (data []byte, position uint64, wait <-chan struct{}, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if err := l.mu.broken; errors.Is(err, os.ErrClosed) {
		return nil, 0, nil, err
	}
	if base := l.mu.segments[0].head.Line; line < base {
		return nil, 0, nil, fmt.Errorf("%w: line %d; the first one kept is %d", ErrTruncated, line, base)
	}
	i := sort.Search(len(l.mu.segments), func(i int) bool { return l.mu.segments[i].head.Line > line })
	s := l.mu.segments[max(0, i-1)]
	for at := s.before(func(m mark) bool { return m.line <= line }).position; at < l.mu.readable; {
		if s = l.segmentAt(at); at >= s.end {
			return nil, at, l.mu.changed, nil
		}
		data, err := s.read(at, l.mu.readable, most+markBytes)
		if err != nil {
			return nil, 0, nil, err
		}
		skip, err := skipTo(data, line)
		if err != nil {
			return nil, 0, nil, fmt.Errorf("%w: %s, from position %d on: %w", ErrCorrupt, s.name, at, err)
		}
		if skip < len(data) {
			return data[skip:], at + uint64(len(data)), nil, nil
		}
		at += uint64(len(data))
	}
	return nil, l.mu.readable, l.mu.changed, nil
}

// skipTo gives the place in data of the first record that a reader at a line needs: one with the line, or the end behind it.
func skipTo(data []byte, line uint64) (int, error) {
	skip := len(data)
	err := eachRecord(data, func(at int, r *record) error {
		if r.First+r.Lines > line || r.Kind == kindEnd {
			skip = min(skip, at)
		}
		return nil
	})
	return skip, err
}

// positionOf gives a position at or a little below a line's record, for what only counts bytes. The caller holds mu.
func (l *lineLog) positionOf(line uint64) uint64 {
	if line >= l.mu.lines {
		return l.mu.end
	}
	i := sort.Search(len(l.mu.segments), func(i int) bool { return l.mu.segments[i].head.Line > line })
	return l.mu.segments[max(0, i-1)].before(func(m mark) bool { return m.line <= line }).position
}

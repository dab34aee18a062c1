package http

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// cut takes away what the log holds from a position on, the end of a record. Nobody may have been given it.
func (l *lineLog) cut(position uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if position < l.mu.readable {
		panic(fmt.Sprintf("http: %s would be cut to %d, and is readable up to %d", l.dir, position, l.mu.readable))
	}
	if position < l.mu.segments[0].head.Base || position > l.mu.end {
		return fmt.Errorf("%w: %s cannot be cut to %d", ErrDiverged, l.dir, position)
	}
	for n := len(l.mu.segments); n > 1 && l.tail().head.Base >= position; n = len(l.mu.segments) {
		if err := l.remove(n - 1); err != nil {
			return err
		}
	}
	s := l.tail()
	err := s.file.Truncate(s.offset(position))
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil {
		err = s.file.Close()
	}
	if err != nil {
		l.mu.broken = err
		return fmt.Errorf("http: %w", err)
	}
	// The last segment is read again: that gives its lines and marks.
	l.mu.segments = l.mu.segments[:len(l.mu.segments)-1]
	l.mu.end, l.mu.lines, l.mu.ended = s.head.Base, s.head.Line, false
	l.mu.keys.from(s.head.Base)
	for n := len(l.mu.terms); n > 0 && l.mu.terms[n-1].Start >= s.head.Base; n-- {
		l.mu.terms = l.mu.terms[:n-1]
	}
	if err := l.load(s.name, true); err != nil {
		l.mu.broken = err
		return err
	}
	if l.mu.end != position {
		return fmt.Errorf("%w: %s was to be cut to %d and ends at %d", ErrCorrupt, l.dir, position, l.mu.end)
	}
	return nil
}

// remove deletes the i-th segment: the first or the last. The caller holds mu.
func (l *lineLog) remove(i int) error {
	s := l.mu.segments[i]
	err := errors.Join(s.file.Close(), os.Remove(s.name), syncDir(l.dir))
	if err != nil {
		l.mu.broken = err
		return fmt.Errorf("http: %w", err)
	}
	l.mu.segments = append(l.mu.segments[:i:i], l.mu.segments[i+1:]...)
	return nil
}

// drop deletes the oldest segments as long as they end at or below a position and a test, if any, holds.
func (l *lineLog) drop(position uint64, old func(last int64, bytes uint64) bool) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.mu.segments) > 1 {
		s := l.mu.segments[0]
		if s.end > min(position, l.mu.readable) || old != nil && !old(s.last, l.mu.end-s.head.Base) {
			break
		}
		if err := l.remove(0); err != nil {
			return err
		}
	}
	base := l.mu.segments[0].head.Base
	l.mu.keys.below(base)
	for len(l.mu.terms) > 1 && l.mu.terms[1].Start <= base {
		l.mu.terms = l.mu.terms[1:]
	}
	return nil
}

// reset makes the log an empty one that begins elsewhere: it takes over from a log whose beginning is gone. It must hold nothing.
func (l *lineLog) reset(h segmentHead) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.mu.segments); n != 1 || l.mu.end != l.mu.segments[0].head.Base {
		return fmt.Errorf("%w: %s is not empty: it has %d bytes", ErrDiverged, l.dir, l.mu.end-l.mu.segments[0].head.Base)
	}
	if h == l.tail().head {
		return nil
	}
	// A crash between the two leaves an empty directory or the new segment.
	if err := l.remove(0); err != nil {
		return err
	}
	l.mu.segments = nil
	s, err := createSegment(l.dir, h)
	if err != nil {
		l.mu.broken = err
		return err
	}
	l.mu.terms = nil
	err = l.join(h)
	l.mu.segments = []*segment{s}
	return err
}

// segmentsIn lists the segments of a directory in order, and removes what a crash left half made.
func segmentsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	var names []string // in order: the digits of a name are as many in each
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch filepath.Ext(name) {
		case ".log":
			names = append(names, name)
		case ".new":
			if err := os.Remove(name); err != nil {
				return nil, fmt.Errorf("http: %w", err)
			}
		}
	}
	return names, nil
}

package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/klauspost/compress/gzip"
)

// scanner finds the lines of one split. It is the source's hot path: one search for the newline per line, one read per
// buffer, no allocation.
type scanner struct {
	split   split
	file    *os.File
	in      io.Reader // the file from where buf ends, or its decompressor
	maxLine int
	limit   uint64 // from here on lines belong to the next split

	buf        []byte // buf[head:tail] is read and not yet given
	head, tail int
	at         uint64 // offset of buf[head]
	searched   int    // no newline in buf[head:head+searched]
	eof        bool
	err        error // sticky
}

// begin places the scanner at an offset that it gave, or for 0 at the split's first line.
func (l *scanner) begin(ctx context.Context, offset uint64) error {
	if err := l.split.check(l.file); err != nil {
		return err
	}
	if !l.split.Gzip {
		l.limit = uint64(l.split.End)
		return l.beginPlain(offset)
	}
	l.limit = math.MaxUint64
	z, err := gzip.NewReader(l.file)
	if err != nil {
		return fmt.Errorf("file: %s: %w", l.split.File, err)
	}
	l.in = z
	if offset == 0 {
		return nil
	}
	// What stands before the offset is decompressed once more, up to the byte that must end a line.
	if err := l.discard(ctx, offset-1); err != nil {
		return err
	}
	return l.endsLine(offset)
}

func (l *scanner) beginPlain(offset uint64) error {
	start := uint64(l.split.Start)
	if offset > uint64(l.split.Size) || offset != 0 && offset < start {
		return fmt.Errorf("%w: %d in %s", ErrOffset, offset, l.split)
	}
	l.in = l.file
	if offset == 0 && start == 0 {
		return nil
	}
	from := offset
	if offset == 0 {
		from = start
	}
	if _, err := l.file.Seek(int64(from)-1, io.SeekStart); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	l.at = from - 1
	if offset != 0 {
		return l.endsLine(offset)
	}
	return l.skipLine()
}

// endsLine takes one byte, which must be the end of a line if anything follows it.
func (l *scanner) endsLine(offset uint64) error {
	if ok, err := l.some(); err != nil {
		return err
	} else if !ok {
		return fmt.Errorf("%w: %d is beyond the end of %s", ErrOffset, offset, l.split)
	}
	newline := l.buf[l.head] == '\n'
	l.take(1)
	if newline {
		return nil
	}
	ok, err := l.some()
	if ok {
		return fmt.Errorf("%w: %d is inside a line of %s", ErrOffset, offset, l.split)
	}
	return err
}

// some reads until there is a byte to look at. It is false at the end of the file.
func (l *scanner) some() (bool, error) {
	for l.head == l.tail && !l.eof {
		if err := l.fill(); err != nil {
			return false, err
		}
	}
	return l.head < l.tail, nil
}

// skipLine moves to the first line that starts after the present byte, or to the split's limit if none does before it.
func (l *scanner) skipLine() error {
	for l.at < l.limit {
		if i := bytes.IndexByte(l.buf[l.head:l.tail], '\n'); i >= 0 {
			l.take(i + 1)
			return nil
		}
		l.take(l.tail - l.head)
		if l.eof {
			return nil
		}
		if err := l.fill(); err != nil {
			return err
		}
	}
	return nil
}

// discard drops bytes until the offset is reached.
func (l *scanner) discard(ctx context.Context, offset uint64) error {
	for l.at < offset {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ok, err := l.some(); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("%w: %d is beyond the end of %s", ErrOffset, offset, l.split)
		}
		l.take(int(min(uint64(l.tail-l.head), offset-l.at)))
	}
	return nil
}

func (l *scanner) take(n int) {
	l.head += n
	l.at += uint64(n)
	l.searched = 0
}

// offset is where the next line starts.
func (l *scanner) offset() uint64 { return l.at }

// whole takes lines that are read already, at most that many bytes of them, each with its newline. It gives none where the
// next line is longer or not read yet, ends in the next split, or might be too long: that is for next. The bytes are the
// scanner's and valid until the next call.
func (l *scanner) whole(most int) []byte {
	if l.err != nil || l.at >= l.limit || most > l.maxLine {
		return nil
	}
	n := min(uint64(most), uint64(l.tail-l.head), l.limit-l.at)
	lines := l.buf[l.head : l.head+int(n)]
	lines = lines[:bytes.LastIndexByte(lines, '\n')+1]
	if len(lines) > 0 {
		l.take(len(lines))
	}
	return lines
}

// next gives the next line and where it starts. The bytes are the scanner's and valid until the next call.
func (l *scanner) next() ([]byte, uint64, error) {
	start := l.at
	if l.err != nil {
		return nil, start, l.err
	}
	if rest := l.buf[l.head:l.tail]; start < l.limit && l.searched == 0 {
		if i := bytes.IndexByte(rest, '\n'); uint(i) <= uint(l.maxLine) { // nearly always: a whole line is there
			l.head += i + 1
			l.at += uint64(i) + 1
			return rest[:i:i], start, nil
		}
	}
	return l.nextSlow()
}

// nextSlow is next where more must be read, or nothing is left.
func (l *scanner) nextSlow() ([]byte, uint64, error) {
	start := l.at
	for start < l.limit {
		rest := l.buf[l.head:l.tail]
		if i := bytes.IndexByte(rest[l.searched:], '\n'); i >= 0 {
			n := l.searched + i
			if n > l.maxLine {
				break
			}
			l.take(n + 1)
			return rest[:n:n], start, nil
		}
		l.searched = len(rest)
		if l.searched > l.maxLine {
			break
		}
		if l.eof {
			if len(rest) == 0 {
				return nil, start, l.finish(io.EOF)
			}
			l.take(len(rest))
			return rest[:len(rest):len(rest)], start, nil
		}
		if err := l.fill(); err != nil {
			return nil, start, l.finish(err)
		}
	}
	if start >= l.limit {
		return nil, start, l.finish(io.EOF)
	}
	return nil, start, l.finish(fmt.Errorf("%w: more than %d bytes at %s:%d", ErrLineTooLong, l.maxLine, l.split.File, start))
}

// finish makes the scanner give err from now on. The end of a split only counts if the file is still the same.
func (l *scanner) finish(err error) error {
	if err == io.EOF {
		if changed := l.split.check(l.file); changed != nil {
			err = changed
		}
	}
	l.err = err
	return err
}

// fill reads more behind buf[head:tail], making room first.
func (l *scanner) fill() error {
	if l.tail == len(l.buf) {
		if l.head > 0 && l.head >= len(l.buf)/2 {
			l.tail = copy(l.buf, l.buf[l.head:l.tail])
		} else {
			grown := make([]byte, 2*len(l.buf)) // bounded: next gives up beyond maxLine
			l.tail = copy(grown, l.buf[l.head:l.tail])
			l.buf = grown
		}
		l.head = 0
	}
	n, err := l.in.Read(l.buf[l.tail:])
	l.tail += n
	switch {
	case err == io.EOF:
		l.eof = true
		if !l.split.Gzip && l.at+uint64(l.tail-l.head) < uint64(l.split.Size) {
			return fmt.Errorf("%w: %s ended at %d of %d bytes", ErrChanged, l.split.File, l.at+uint64(l.tail-l.head), l.split.Size)
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("file: %s: the compressed data ends too early: %w", l.split.File, err)
	case err != nil:
		return fmt.Errorf("file: %s: %w", l.split.File, err)
	}
	return nil
}

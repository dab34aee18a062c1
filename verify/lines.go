package verify

import (
	"bytes"
	"fmt"
	"io"
)

const lineBuffer = 256 << 10 // first size of the read buffer; it grows to the longest line

// lineReader splits a stream into lines and knows where each begins.
type lineReader struct {
	r     io.Reader
	buf   []byte
	lo    int // buf[lo:hi] is read but not handed out
	hi    int
	base  int64 // offset in the stream of buf[lo]
	count int64 // lines handed out
	err   error // of the reader, sticky
}

// line is one line of a file.
type line struct {
	text   []byte // without the newline; belongs to the reader, valid until the next call
	number int64  // from 1
	offset int64  // of the first byte, in the unpacked file
	ended  bool   // a newline stood behind it
}

// reset begins a new stream and keeps the buffer.
func (l *lineReader) reset(r io.Reader) {
	if l.buf == nil {
		l.buf = make([]byte, lineBuffer)
	}
	*l = lineReader{r: r, buf: l.buf}
}

// next returns the next line, or io.EOF behind the last one.
func (l *lineReader) next() (line, error) {
	scanned := 0
	for {
		if i := bytes.IndexByte(l.buf[l.lo+scanned:l.hi], '\n'); i >= 0 {
			return l.take(scanned+i, true), nil
		}
		scanned = l.hi - l.lo
		if l.err != nil {
			if l.err == io.EOF && scanned > 0 {
				return l.take(scanned, false), nil
			}
			return line{}, l.err
		}
		if err := l.fill(); err != nil {
			return line{}, err
		}
	}
}

func (l *lineReader) take(n int, ended bool) line {
	l.count++
	ln := line{text: l.buf[l.lo : l.lo+n : l.lo+n], number: l.count, offset: l.base, ended: ended}
	if ended {
		n++
	}
	l.lo += n
	l.base += int64(n)
	return ln
}

// fill reads more bytes behind buf[hi], moving and growing the buffer as needed.
func (l *lineReader) fill() error {
	if l.lo > 0 {
		l.hi = copy(l.buf, l.buf[l.lo:l.hi])
		l.lo = 0
	}
	if l.hi == len(l.buf) {
		if l.hi >= MaxLine {
			return fmt.Errorf("line %d is longer than %d bytes", l.count+1, MaxLine)
		}
		grown := make([]byte, min(2*len(l.buf), MaxLine))
		copy(grown, l.buf)
		l.buf = grown
	}
	for range 100 {
		n, err := l.r.Read(l.buf[l.hi:])
		l.hi += n
		l.err = err
		if n > 0 || err != nil {
			return nil
		}
	}
	return io.ErrNoProgress
}

package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// runFile is a temporary file with sorted runs one behind the other.
type runFile struct {
	f    *os.File
	path string // still to be removed; empty if that is done
	end  int64
}

// span is where a run lies in its file.
type span struct{ from, to int64 }

func newRunFile(dir string) (*runFile, error) {
	f, err := os.CreateTemp(dir, "understudy-verify-*")
	if err != nil {
		return nil, fmt.Errorf("verify: temporary file: %w", err)
	}
	r := &runFile{f: f, path: f.Name()}
	if os.Remove(r.path) == nil { // an open file needs no name, and a killed process then leaves none
		r.path = ""
	}
	return r, nil
}

func (r *runFile) Write(p []byte) (int, error) {
	n, err := r.f.Write(p)
	r.end += int64(n)
	if err != nil {
		return n, fmt.Errorf("verify: writing sorted records to the temporary folder: %w", err)
	}
	return n, nil
}

func (r *runFile) close() error {
	if r == nil {
		return nil
	}
	err := r.f.Close()
	if r.path != "" {
		err = errors.Join(err, os.Remove(r.path))
	}
	return err
}

// spiller sorts full blocks and writes them to disk, on a goroutine of its own.
type spiller struct {
	file    *runFile
	byValue bool
	buf     []byte
	full    chan *block // blocks to be written
	empty   chan *block // blocks that are written; as roomy as there are blocks, so that sending never waits
	done    chan struct{}
	stopped bool   // full is closed
	spans   []span // owned by the goroutine until done is closed
	mu      struct {
		sync.Mutex
		err error // first failure
	}
}

func newSpiller(dir string, buffer int, byValue bool) (*spiller, error) {
	file, err := newRunFile(dir)
	if err != nil {
		return nil, err
	}
	s := &spiller{
		file:    file,
		byValue: byValue,
		buf:     make([]byte, 0, buffer),
		full:    make(chan *block),
		empty:   make(chan *block, 2),
		done:    make(chan struct{}),
	}
	go s.run()
	return s, nil
}

func (s *spiller) run() {
	defer close(s.done)
	for b := range s.full {
		if s.failed() == nil {
			if err := s.write(b); err != nil {
				s.mu.Lock()
				s.mu.err = err
				s.mu.Unlock()
			}
		}
		b.empty()
		s.empty <- b
	}
}

// write sorts a block and appends it to the file as a run.
func (s *spiller) write(b *block) error {
	b.sort(s.byValue)
	w := runWriter{file: s.file, buf: s.buf[:0], from: s.file.end}
	for _, e := range b.entries {
		key, value := b.record(e)
		if err := w.add(key, value); err != nil {
			return err
		}
	}
	span, err := w.finish()
	if err == nil && span.to > span.from {
		s.spans = append(s.spans, span)
	}
	return err
}

// failed returns the first error of the goroutine so far.
func (s *spiller) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.err
}

// finish waits until everything is written.
func (s *spiller) finish() ([]span, error) {
	if !s.stopped {
		s.stopped = true
		close(s.full)
	}
	<-s.done
	return s.spans, s.failed()
}

func (s *spiller) close() error {
	s.finish() // its error was given to whoever added or merged
	err := s.file.close()
	s.file = nil
	return err
}

// runWriter appends one run to a file.
type runWriter struct {
	file *runFile
	buf  []byte
	from int64
}

func (w *runWriter) add(key, value []byte) error {
	if cap(w.buf)-len(w.buf) < len(key)+len(value)+maxFrame-MaxRecord {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(len(key)))
	w.buf = binary.AppendUvarint(w.buf, uint64(len(value)))
	w.buf = append(w.buf, key...)
	w.buf = append(w.buf, value...)
	return nil
}

func (w *runWriter) flush() error {
	_, err := w.file.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *runWriter) finish() (span, error) {
	err := w.flush()
	return span{w.from, w.file.end}, err
}

// runReader reads one run, a bufferful at a time.
type runReader struct {
	file io.ReaderAt
	span
	buf    []byte
	lo, hi int

	rank       uint64
	key, value []byte // in buf, valid until the next call of next
	over       bool
}

// next moves to the next record, or sets over.
func (r *runReader) next() error {
	n, key, value := frame(r.buf[r.lo:r.hi])
	if n == 0 {
		if r.from == r.to && r.lo == r.hi {
			r.over = true
			return nil
		}
		if err := r.fill(); err != nil {
			return err
		}
		if n, key, value = frame(r.buf[r.lo:r.hi]); n == 0 {
			return fmt.Errorf("verify: temporary file is damaged near byte %d", r.from)
		}
	}
	r.lo += n
	r.rank, r.key, r.value = rank(key), key, value
	return nil
}

func (r *runReader) fill() error {
	r.hi = copy(r.buf, r.buf[r.lo:r.hi])
	r.lo = 0
	want := int(min(int64(len(r.buf)-r.hi), r.to-r.from))
	n, err := r.file.ReadAt(r.buf[r.hi:r.hi+want], r.from)
	if n < want {
		return fmt.Errorf("verify: reading the temporary file: %w", err)
	}
	r.hi += n
	r.from += int64(n)
	return nil
}

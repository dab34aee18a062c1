package outside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// files is a directory of files of lines.
type files struct {
	dir     string
	options file.SinkOptions
}

func newFiles(url, suffix string) (*files, error) {
	dir, options, err := file.ParseSinkURL(url)
	if err != nil {
		return nil, err
	}
	return &files{filepath.Join(dir, suffix), options}, nil
}

func (f *files) Causal() operator.CausalSink { return file.Sink(f.dir, f.options) }

func (f *files) Transactional() operator.TransactionalSink { return nil }

// lookEvery is how often files are looked at.
const lookEvery = time.Millisecond

func (f *files) Follow(ctx context.Context, see See) error {
	tail := NewTail(filepath.Join(f.dir, "part-*.jsonl"))
	defer tail.Close() //nolint:errcheck // files that were only read
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if err := tail.Look(see); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (f *files) Remove(context.Context) error { return os.RemoveAll(f.dir) }

// Tail reads the lines of files as they grow.
//
// A look costs a few system calls for each file: names are listed again only when the directory has changed, and a file stays open as long
// as its name stands for it.
type Tail struct {
	pattern string
	grown   []*grown  // sorted by name
	changed time.Time // the directory, when it was listed
	listed  time.Time // by the clock
	buf     []byte
}

// grown is a file, and how far it was read.
type grown struct {
	name   string
	part   string      // its last element
	file   *os.File    // nil: none was there yet
	info   os.FileInfo // of file
	offset int64       // Invariant: a line begins here
}

const (
	readAtMost = 1 << 20 // bytes at once, unless a line is longer
	// clockStep is more than the step of the clock by which file systems say when a directory was changed: what was changed in the step
	// in which it was listed may have come later.
	clockStep = 100 * time.Millisecond
)

// NewTail reads the files that match a pattern of filepath.Glob, of which only the last element may have wildcards. Close it.
func NewTail(pattern string) *Tail {
	return &Tail{pattern: pattern, buf: make([]byte, readAtMost)}
}

// Close closes the files.
func (t *Tail) Close() (err error) {
	for _, g := range t.grown {
		err = errors.Join(err, g.close())
	}
	return err
}

func (g *grown) close() error {
	if g.file == nil {
		return nil
	}
	err := g.file.Close()
	g.file = nil
	return err
}

// Look calls see with each line that has come since the last look, by the name of its file. All lines of a file that one look finds
// have one time.
func (t *Tail) Look(see See) error {
	return t.Text(func(part string, text []byte, at time.Time) error {
		for len(text) > 0 {
			line, rest, _ := bytes.Cut(text, []byte("\n"))
			if err := see(part, line, at); err != nil {
				return err
			}
			text = rest
		}
		return nil
	})
}

// Text is as Look, for who takes lines apart: see gets whole lines, each with its end.
func (t *Tail) Text(see See) error {
	if err := t.list(); err != nil {
		return err
	}
	for _, g := range t.grown {
		if err := t.read(g, see); err != nil {
			return fmt.Errorf("%s: %w", g.part, err)
		}
	}
	return nil
}

// list finds the files, if there may be others than before.
func (t *Tail) list() error {
	now := time.Now()
	info, err := os.Stat(filepath.Dir(t.pattern))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if changed := info.ModTime(); changed.Equal(t.changed) && t.listed.Sub(changed) > clockStep {
		return nil
	}
	names, err := filepath.Glob(t.pattern)
	if err != nil {
		return err
	}
	for _, name := range names {
		i, known := slices.BinarySearchFunc(t.grown, name, func(g *grown, name string) int { return strings.Compare(g.name, name) })
		if !known {
			t.grown = slices.Insert(t.grown, i, &grown{name: name, part: filepath.Base(name)})
		}
	}
	t.changed, t.listed = info.ModTime(), now
	return nil
}

// read reads what has come. It looks first for which file the name stands, and how long that is: a fence may put a copy in a file's place,
// and what is written to the old one after that is not to be seen.
func (t *Tail) read(g *grown, see See) error {
	info, err := os.Stat(g.name)
	if err == nil && (g.file == nil || !os.SameFile(info, g.info)) {
		info, err = g.open()
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	at, end := time.Now(), info.Size()
	for g.offset < end {
		n, err := g.file.ReadAt(t.buf[:min(int64(len(t.buf)), end-g.offset)], g.offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		whole := bytes.LastIndexByte(t.buf[:n], '\n') + 1
		switch {
		case whole > 0:
			g.offset += int64(whole)
			if err := see(g.part, t.buf[:whole], at); err != nil {
				return err
			}
		case n < len(t.buf):
			return nil // the end of the line is not there
		default:
			t.buf = make([]byte, 2*len(t.buf))
		}
	}
	return nil
}

// open opens the file for which the name stands now.
func (g *grown) open() (os.FileInfo, error) {
	err := g.close()
	if err != nil {
		return nil, err
	}
	if g.file, err = os.Open(g.name); err != nil {
		return nil, err
	}
	g.info, err = g.file.Stat()
	return g.info, err
}

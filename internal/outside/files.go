package outside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
type Tail struct {
	pattern string
	grown   map[string]*grown
	buf     []byte
}

// grown is how far a file was read.
type grown struct {
	offset int64
	rest   []byte // the beginning of a line whose end is not there
}

const readAtMost = 1 << 20

// NewTail reads the files that match a pattern of filepath.Glob.
func NewTail(pattern string) *Tail {
	return &Tail{pattern: pattern, grown: map[string]*grown{}, buf: make([]byte, readAtMost)}
}

// Look calls see with each line that has come since the last look, by the name of its file. All lines of a file that one look finds
// have one time. Files are opened by name each time: a fence may put a copy in a file's place.
func (t *Tail) Look(see See) error {
	names, err := filepath.Glob(t.pattern)
	if err != nil {
		return err
	}
	for _, name := range names {
		g := t.grown[name]
		if g == nil {
			g = &grown{}
			t.grown[name] = g
		}
		if err := t.read(name, g, see); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

func (t *Tail) read(name string, g *grown, see See) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	at, part := time.Now(), filepath.Base(name)
	for {
		n, err := f.ReadAt(t.buf, g.offset)
		g.offset += int64(n)
		if serr := g.lines(t.buf[:n], func(line []byte) error { return see(part, line, at) }); serr != nil {
			return serr
		}
		if errors.Is(err, io.EOF) || n < len(t.buf) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// lines takes text apart.
func (g *grown) lines(text []byte, see func(line []byte) error) error {
	if len(g.rest) > 0 {
		text = append(g.rest, text...)
	}
	for {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			break
		}
		if err := see(line); err != nil {
			return err
		}
		text = rest
	}
	g.rest = append([]byte(nil), text...)
	return nil
}

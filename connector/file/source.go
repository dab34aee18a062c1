package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// Errors of the source that a caller may branch on.
var (
	// ErrNoMatch is returned when a pattern matches no file.
	ErrNoMatch = errors.New("file: no file matches")
	// ErrChanged is returned when a file is no longer what it was when its splits were listed.
	ErrChanged = permanent("file: the file has changed since the job began")
	// ErrOffset is returned when a split is opened at an offset at which no line of it starts.
	ErrOffset = errors.New("file: no line of the split starts at the offset")
	// ErrLineTooLong is returned for a line longer than SourceOptions.MaxLine.
	ErrLineTooLong = permanent("file: line too long")
)

// Line is one line of a file.
type Line struct {
	File   string // the path as the pattern gave it
	Offset uint64 // where the line starts, in bytes; in a compressed file, in uncompressed bytes
	Text   string // the line without its "\n"; a "\r" before it is part of the text
}

// SourceOptions tunes a Source. The zero value is the default.
type SourceOptions struct {
	SplitBytes  int64 // length of the byte ranges that a file is cut into; default 16 MiB
	MaxLine     int   // longest line in bytes, without its "\n"; default 16 MiB
	BufferBytes int   // what one read asks for; default 256 KiB
	// Watch is the time between two looks for new files that match. 0: there are none but those that are there when the job begins, and the
	// input ends when they are read. With Watch it does not end, and a pattern need not match anything yet.
	Watch time.Duration
}

// EnsureDefaults fills in what is zero.
func (o *SourceOptions) EnsureDefaults() {
	if o.SplitBytes == 0 {
		o.SplitBytes = 16 << 20
	}
	if o.MaxLine == 0 {
		o.MaxLine = 16 << 20
	}
	if o.BufferBytes == 0 {
		o.BufferBytes = 256 << 10
	}
}

// Validate tells what is wrong with the options.
func (o *SourceOptions) Validate() error {
	if o.Watch != 0 && o.Watch < time.Millisecond {
		return fmt.Errorf("file: looking for new files every %v: want at least 1ms", o.Watch)
	}
	if o.SplitBytes < 0 || o.MaxLine < 0 || o.BufferBytes < 0 {
		return fmt.Errorf("file: negative option: split %d, line %d, buffer %d bytes", o.SplitBytes, o.MaxLine, o.BufferBytes)
	}
	if o.MaxLine > math.MaxInt/4 {
		return fmt.Errorf("file: a line of %d bytes does not fit in memory", o.MaxLine)
	}
	return nil
}

// Source reads the lines of files. It implements operator.Source[Line].
type Source struct {
	globs   []string
	options SourceOptions
	mu      struct {
		sync.Mutex
		looks map[string]split // what the last look found that was new
	}
}

var (
	_ operator.Source[Line] = (*Source)(nil)
	_ operator.InputNamer   = (*Source)(nil)
	_ operator.Growing      = (*Source)(nil)
)

// Lines reads the lines of every file that matches a pattern. A pattern is that of path.Match for each path segment; the
// segment ** stands for any number of directories, none included. As in a shell, a wildcard does not match a name that
// begins with a dot, and ** does not follow symbolic links. Each pattern must match at least one file, unless new ones are looked
// for (SourceOptions.Watch). Files whose name
// ends in .gz are decompressed; each is one split.
//
// The last line of a file need not end in "\n". Blank lines are lines. Files must not change while the job lives: a
// change of length or modification time is ErrChanged.
func Lines(globs ...string) *Source { return &Source{globs: globs} }

// With returns a source of the same files with these options.
func (s *Source) With(o SourceOptions) *Source { return &Source{globs: s.globs, options: o} }

// Splits lists the splits in the order of path and range. It is also where files that cannot be read are noticed.
func (s *Source) Splits(ctx context.Context) ([]string, error) {
	o := s.options
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	files, err := expandAll(ctx, s.globs, o.Watch > 0)
	if err != nil {
		return nil, err
	}
	var splits []string
	for _, name := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		whole, err := describe(name)
		if err != nil {
			return nil, err
		}
		splits = append(splits, whole.cut(o.SplitBytes)...)
	}
	return splits, nil
}

// InputOf implements operator.InputNamer: it names the file as it was when the splits were listed.
func (s *Source) InputOf(identity string) string {
	sp, err := parseSplit(identity)
	if err != nil {
		return identity
	}
	return fmt.Sprintf("%s, %d bytes of %s", sp.File, sp.Size, time.Unix(0, sp.Modified).UTC().Format(timeFormat))
}

// describe gives the split that is a whole file.
func describe(name string) (split, error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() { // to open a pipe is to wait for its other end
		return split{}, fmt.Errorf("file: %s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return split{}, fmt.Errorf("file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return split{}, fmt.Errorf("file: %w", err)
	}
	return split{
		File: name, End: info.Size(), Size: info.Size(), Modified: info.ModTime().UnixNano(),
		Gzip: strings.HasSuffix(name, ".gz"),
	}, nil
}

// Open reads a split from an offset.
func (s *Source) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[Line], error) {
	l, err := s.open(ctx, identity, offset)
	if err != nil {
		return nil, err
	}
	return &lineReader{scanner: l}, nil
}

func (s *Source) open(ctx context.Context, identity string, offset uint64) (*scanner, error) {
	o := s.options
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	sp, err := parseSplit(identity)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(sp.File)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	l := &scanner{split: sp, file: f, maxLine: o.MaxLine, buf: make([]byte, o.BufferBytes)}
	if err := l.begin(ctx, offset); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// blockBytes is how much text is copied at once. What keeps one line alive keeps that much alive at most.
const blockBytes = 8 << 10

// lineReader gives the lines of a split as strings that do not change. An allocation for each line would cost more than
// finding it, so short lines are parts of a block.
type lineReader struct {
	scanner *scanner
	block   string // whole lines
	given   int    // what of block was given
	start   uint64 // offset of block
}

func (r *lineReader) Next() (Line, uint64, error) {
	if r.given == len(r.block) {
		r.start = r.scanner.offset()
		r.block, r.given = string(r.scanner.whole(blockBytes)), 0
	}
	from := r.given
	if i := strings.IndexByte(r.block[from:], '\n'); i >= 0 {
		r.given += i + 1
		return Line{File: r.scanner.split.File, Offset: r.start + uint64(from), Text: r.block[from : from+i]},
			r.start + uint64(r.given), nil
	}
	text, at, err := r.scanner.next()
	if err != nil {
		return Line{}, r.scanner.offset(), err
	}
	return Line{File: r.scanner.split.File, Offset: at, Text: string(text)}, r.scanner.offset(), nil
}

// Ready is nil: Next never waits for more.
func (r *lineReader) Ready() <-chan struct{} { return nil }

func (r *lineReader) Close() error { return r.scanner.file.Close() }

var _ io.Closer = (*lineReader)(nil)

package file

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"

	"github.com/understudy-stream/understudy/operator"
)

// ErrHeader is returned for a CSV file whose first row does not name the columns that are needed, or one of them twice.
var ErrHeader = permanent("file: the header does not fit")

// CSVOptions tunes a CSV source. The zero value is the default.
type CSVOptions struct {
	Comma   rune // what parts fields; default ','
	Comment rune // lines that begin with it are passed over; default none
	// Columns names the columns of files that have no header row. Without it, the first row of each file names them.
	Columns []string
	// LazyQuotes and TrimLeadingSpace are those of encoding/csv.
	LazyQuotes, TrimLeadingSpace bool
}

// EnsureDefaults fills in what is zero.
func (o *CSVOptions) EnsureDefaults() {
	if o.Comma == 0 {
		o.Comma = ','
	}
}

// Validate tells what is wrong with the options.
func (o *CSVOptions) Validate() error {
	for _, r := range []rune{o.Comma, o.Comment} {
		if r == '"' || r == '\r' || r == '\n' || r == utf8.RuneError || r != 0 && !utf8.ValidRune(r) {
			return fmt.Errorf("file: %q can be neither comma nor comment", r)
		}
	}
	if o.Comma == o.Comment {
		return fmt.Errorf("file: %q cannot be comma and comment", o.Comma)
	}
	return nil
}

// CSV is a source of the rows of CSV files, as package encoding/csv reads them: a quoted field may hold newlines, and blank lines are
// passed over. The first row of each file names its columns. T is map[string]string, []string, or a struct whose fields are
// filled by name: see DecodedCSV.
func CSV[T any](globs ...string) operator.Source[T] {
	return DecodedCSV[T](Lines(globs...), CSVOptions{})
}

// DecodedCSV is CSV over a source with options. Of those, MaxLine is the longest row in bytes.
//
// A field of a struct T takes the column that its tag names, or its own name without a tag: `csv:"id"`. With `csv:"id,optional"` the
// column may be missing, and `csv:"-"` leaves the field alone. It may be a string, bool, number, encoding.TextUnmarshaler, or a
// pointer to one, which is nil where the row has nothing. Elsewhere nothing is the zero value. Columns that no field takes are
// passed over. []string has the row as it is.
//
// A file is one split, since no part of it tells whether a newline stands within quotes. Offsets are bytes of the (decompressed)
// file. A row that cannot be decoded is a DecodeError, and reading may go on behind it.
func DecodedCSV[T any](s *Source, o CSVOptions) operator.Source[T] {
	o.EnsureDefaults()
	o.Columns = slices.Clone(o.Columns)
	whole := s.options
	whole.SplitBytes = math.MaxInt64
	return csvSource[T]{Source: s.With(whole), csv: o}
}

type csvSource[T any] struct {
	*Source
	csv CSVOptions
}

// Splits lists the files, and reads the header of each.
func (s csvSource[T]) Splits(ctx context.Context) ([]string, error) {
	splits, err := s.Source.Splits(ctx)
	if err != nil {
		return nil, err
	}
	return splits, s.headers(ctx, splits)
}

// Discover lists new files, and reads the header of each.
func (s csvSource[T]) Discover(ctx context.Context, known []string) (splits []string, all bool, err error) {
	splits, all, err = s.Source.Discover(ctx, known)
	if err != nil {
		return nil, false, err
	}
	return splits, all, s.headers(ctx, splits)
}

// headers reads the header of each file: one that cannot be read is noticed before the job has it.
func (s csvSource[T]) headers(ctx context.Context, splits []string) error {
	for _, split := range splits {
		r, err := s.Open(ctx, split, 0)
		if err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	return nil
}

func (s csvSource[T]) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[T], error) {
	o := s.options
	o.EnsureDefaults()
	if err := errors.Join(o.Validate(), s.csv.Validate()); err != nil {
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
	r := &csvReader[T]{csv: s.csv, guard: rowGuard{split: sp, file: f, most: uint64(o.MaxLine)}, buffer: o.BufferBytes}
	if err := r.begin(ctx, offset); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// rowGuard is what a CSV reader reads from: the file, or what is in it, as long as no row is too long. An unclosed quote would otherwise
// take in the rest of the file.
type rowGuard struct {
	split split
	file  *os.File
	in    io.Reader
	most  uint64
	read  uint64 // bytes of the (decompressed) file
	row   uint64 // where the present row starts
}

func (g *rowGuard) Read(p []byte) (int, error) {
	if g.read-g.row > g.most {
		return 0, fmt.Errorf("%w: a row of more than %d bytes at %s:%d", ErrLineTooLong, g.most, g.split.File, g.row)
	}
	n, err := g.in.Read(p)
	g.read += uint64(n)
	switch {
	case err == io.EOF:
		if changed := g.split.check(g.file); changed != nil {
			return n, changed
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("file: %s: the compressed data ends too early: %w", g.split.File, err)
	case err != nil:
		return n, fmt.Errorf("file: %s: %w", g.split.File, err)
	}
	return n, err
}

// rewind goes to the start of the file.
func (g *rowGuard) rewind() error {
	if _, err := g.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	g.read, g.row, g.in = 0, 0, g.file
	if !g.split.Gzip {
		return nil
	}
	z, err := gzip.NewReader(g.file)
	if err != nil {
		return fmt.Errorf("file: %s: %w", g.split.File, err)
	}
	g.in = z
	return nil
}

// seek goes to an offset behind the first row, before which a row must end.
func (g *rowGuard) seek(ctx context.Context, offset uint64) error {
	if g.split.Gzip {
		return g.skip(ctx, offset)
	}
	if offset > uint64(g.split.Size) {
		return fmt.Errorf("%w: %d is beyond the end of %s", ErrOffset, offset, g.split)
	}
	if _, err := g.file.Seek(int64(offset)-1, io.SeekStart); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	g.read = offset - 1
	return g.endsRow(offset)
}

// skip is seek in compressed data: what stands before the offset is decompressed once more.
func (g *rowGuard) skip(ctx context.Context, offset uint64) error {
	if err := g.rewind(); err != nil {
		return err
	}
	for g.read < offset-1 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(io.Discard, g.in, int64(min(offset-1-g.read, 1<<20)))
		g.read += uint64(n)
		if err == io.EOF {
			return fmt.Errorf("%w: %d is beyond the end of %s", ErrOffset, offset, g.split)
		}
		if err != nil {
			return fmt.Errorf("file: %s: %w", g.split.File, err)
		}
	}
	return g.endsRow(offset)
}

// endsRow takes the byte before the offset: a newline, or the last one of the file.
func (g *rowGuard) endsRow(offset uint64) error {
	var one [1]byte
	_, err := io.ReadFull(g.in, one[:])
	if err == nil && one[0] != '\n' {
		if _, err = io.ReadFull(g.in, one[:]); err == nil {
			return fmt.Errorf("%w: %d is inside a row of %s", ErrOffset, offset, g.split)
		} else if err == io.EOF {
			err = nil
		}
	} else if err == io.EOF {
		return fmt.Errorf("%w: %d is beyond the end of %s", ErrOffset, offset, g.split)
	}
	if err != nil {
		return fmt.Errorf("file: %s: %w", g.split.File, err)
	}
	g.read, g.row = offset, offset
	return nil
}

type csvReader[T any] struct {
	csv    CSVOptions
	guard  rowGuard
	buffer int
	rows   *csv.Reader
	base   uint64 // offset at which rows began to read
	fill   rowFiller[T]
	err    error // sticky
}

// byteOrderMark is what some programs put before the text of a file.
const byteOrderMark = "\ufeff"

// begin reads the header and goes to the offset.
func (r *csvReader[T]) begin(ctx context.Context, offset uint64) error {
	if err := r.guard.split.check(r.guard.file); err != nil {
		return err
	}
	if err := r.guard.rewind(); err != nil {
		return err
	}
	in := bufio.NewReaderSize(&r.guard, r.buffer)
	mark, err := in.Peek(len(byteOrderMark))
	if err != nil && err != io.EOF {
		return err
	}
	if bytes.Equal(mark, []byte(byteOrderMark)) {
		if _, err := in.Discard(len(mark)); err != nil {
			return err
		}
		r.base = uint64(len(mark))
	}
	r.readRows(in, r.base)
	columns := r.csv.Columns
	if columns == nil {
		if columns, err = r.rows.Read(); err == io.EOF { // nothing in it, not even a header
			r.err = err
			return nil
		}
		if err != nil {
			return r.wrap(r.base, nil, err)
		}
		columns = slices.Clone(columns)
		r.guard.row = r.offset()
	}
	if r.fill, err = newRowFiller[T](columns); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrHeader, r.guard.split.File, err)
	}
	r.rows.FieldsPerRecord = len(columns)
	if offset == 0 || offset == r.offset() {
		return nil
	}
	if offset < r.offset() {
		return fmt.Errorf("%w: %d is in the header of %s", ErrOffset, offset, r.guard.split)
	}
	if err := r.guard.seek(ctx, offset); err != nil {
		return err
	}
	r.readRows(bufio.NewReaderSize(&r.guard, r.buffer), offset)
	r.rows.FieldsPerRecord = len(columns)
	return nil
}

func (r *csvReader[T]) readRows(in *bufio.Reader, base uint64) {
	r.base = base
	r.rows = csv.NewReader(in)
	r.rows.Comma, r.rows.Comment = r.csv.Comma, r.csv.Comment
	r.rows.LazyQuotes, r.rows.TrimLeadingSpace = r.csv.LazyQuotes, r.csv.TrimLeadingSpace
	r.rows.ReuseRecord = true
}

func (r *csvReader[T]) offset() uint64 { return r.base + uint64(r.rows.InputOffset()) }

func (r *csvReader[T]) Next() (v T, next uint64, err error) {
	if r.err != nil {
		return v, r.offset(), r.err
	}
	at := r.offset()
	fields, err := r.rows.Read()
	r.guard.row = r.offset()
	if err == nil {
		err = r.fill.fill(fields, &v)
	}
	if err != nil {
		var zero T
		err = r.wrap(at, fields, err)
		if bad := (*DecodeError)(nil); !errors.As(err, &bad) {
			r.err = err
		}
		return zero, r.offset(), err
	}
	return v, r.offset(), nil
}

// wrap makes a DecodeError of what is wrong with a row, and leaves other errors as they are.
func (r *csvReader[T]) wrap(at uint64, fields []string, err error) error {
	var parse *csv.ParseError
	var field *fieldError
	if !errors.As(err, &parse) && !errors.As(err, &field) {
		return err
	}
	if parse != nil {
		err = fmt.Errorf("column %d: %w", parse.Column, parse.Err) // its line counts from where reading began
		if errors.Is(parse.Err, csv.ErrFieldCount) {
			err = fmt.Errorf("%w: %d instead of %d", parse.Err, len(fields), r.rows.FieldsPerRecord)
		}
	}
	return newDecodeError(r.guard.split.File, at, []byte(strings.Join(fields, string(r.csv.Comma))), err)
}

func (r *csvReader[T]) Ready() <-chan struct{} { return nil }

func (r *csvReader[T]) Close() error { return r.guard.file.Close() }

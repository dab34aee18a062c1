package parquet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

// Errors that a caller may branch on. A pattern that matches nothing is file.ErrNoMatch, and a file that is no longer what it was
// file.ErrChanged.
var (
	// ErrCorrupt is returned for a file that is no Parquet file, or a damaged one.
	ErrCorrupt = permanent("parquet: corrupt")
	// ErrSchema is returned for a file whose columns do not fit the type of the records.
	ErrSchema = permanent("parquet: the columns do not fit")
	// ErrOffset is returned when a split is opened at an offset beyond its last row.
	ErrOffset = errors.New("parquet: the row group has no such row")
)

// permanent makes an error that ends the job: whoever tries again gets it again.
func permanent(text string) error { return permanentError(text) }

type permanentError string

func (e permanentError) Error() string        { return string(e) }
func (e permanentError) Is(target error) bool { return target == operator.ErrPermanent }

// SourceOptions tunes a source. The zero value is the default.
type SourceOptions struct {
	BatchRows int // how many rows are decoded at once; default 128
}

// EnsureDefaults fills in what is zero.
func (o *SourceOptions) EnsureDefaults() {
	if o.BatchRows == 0 {
		o.BatchRows = 128
	}
}

// Validate tells what is wrong with the options.
func (o *SourceOptions) Validate() error {
	if o.BatchRows < 0 {
		return fmt.Errorf("parquet: batches of %d rows", o.BatchRows)
	}
	return nil
}

// Source reads the rows of files. It implements operator.Source[T].
type Source[T any] struct {
	globs   []string
	options SourceOptions
}

var (
	_ operator.Source[map[string]any] = (*Source[map[string]any])(nil)
	_ operator.InputNamer             = (*Source[map[string]any])(nil)
)

// Rows reads the rows of every file that matches a pattern, as those of file.Lines do. T is map[string]any, which has all columns
// by name, or a struct, whose fields are filled by the names in their `parquet:"…"` tags. A column that the tag does not call optional
// must be in every file, with the type of the field.
//
// Each row group is a split, and its offsets count rows. Files must not change while the job lives: a change of length or
// modification time is file.ErrChanged.
func Rows[T any](globs ...string) *Source[T] { return &Source[T]{globs: globs} }

// With returns a source of the same files with these options.
func (s *Source[T]) With(o SourceOptions) *Source[T] { return &Source[T]{globs: s.globs, options: o} }

// Splits lists the row groups in the order of path and place. It is also where files that cannot be read, or do not fit, are
// noticed.
func (s *Source[T]) Splits(ctx context.Context) ([]string, error) {
	o := s.options
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	names, err := file.Glob(ctx, s.globs...)
	if err != nil {
		return nil, err
	}
	var splits []string
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		groups, err := s.groups(name)
		if err != nil {
			return nil, err
		}
		splits = append(splits, groups...)
	}
	return splits, nil
}

// groups lists the row groups of a file that have rows.
func (s *Source[T]) groups(name string) (splits []string, err error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() { // to open a pipe is to wait for its other end
		return nil, fmt.Errorf("parquet: %s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("parquet: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("parquet: %w", err)
	}
	p, err := openFile(name, f, info.Size())
	if err != nil {
		return nil, err
	}
	if err := fits[T](name, p); err != nil {
		return nil, err
	}
	for i, g := range p.RowGroups() {
		if g.NumRows() > 0 {
			splits = append(splits, split{name, i, g.NumRows(), info.Size(), info.ModTime().UnixNano()}.String())
		}
	}
	return splits, nil
}

// InputOf implements operator.InputNamer: it names the row group and the file as it was when the splits were listed.
func (s *Source[T]) InputOf(identity string) string {
	sp, err := parseSplit(identity)
	if err != nil {
		return identity
	}
	return fmt.Sprintf("%s, %d bytes of %s, row group %d", sp.File, sp.Size, time.Unix(0, sp.Modified).UTC().Format(timeFormat), sp.Group)
}

// Open reads a split from an offset, a number of rows.
func (s *Source[T]) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[T], error) {
	o := s.options
	o.EnsureDefaults()
	if err := errors.Join(o.Validate(), ctx.Err()); err != nil {
		return nil, err
	}
	sp, err := parseSplit(identity)
	if err != nil {
		return nil, err
	}
	if offset > uint64(sp.Rows) {
		return nil, fmt.Errorf("%w: %d of %s", ErrOffset, offset, sp)
	}
	f, err := os.Open(sp.File)
	if err != nil {
		return nil, fmt.Errorf("parquet: %w", err)
	}
	r := &reader[T]{split: sp, file: f, batch: o.BatchRows}
	if err := r.begin(offset); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// guarded calls f. The library panics on some damaged files; that is an error of the file, and not of the program.
func guarded(name string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s: %v", ErrCorrupt, name, p)
		}
	}()
	return f()
}

// openFile reads a file's footer.
func openFile(name string, f *os.File, size int64) (p *parquet.File, err error) {
	err = guarded(name, func() error {
		p, err = parquet.OpenFile(f, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
		var system syscall.Errno // where the library asks for bytes that no file has, there is none
		if err != nil && !errors.As(err, &system) {
			err = fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
		} else if err != nil {
			err = fmt.Errorf("parquet: %w", err)
		}
		return err
	})
	return p, err
}

// fits compares the columns of a file with T. The library would fill in zeros for what is missing, and turn any type into any
// other, so that a mistake would not be seen.
func fits[T any](name string, p *parquet.File) error {
	if isMap[T]() {
		return nil
	}
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("%w: a row cannot become a %v: only map[string]any or a struct", ErrSchema, t)
	}
	var wanted *parquet.Schema
	if err := guarded(name, func() error { wanted = parquet.SchemaOf(*new(T)); return nil }); err != nil {
		return fmt.Errorf("%w: %v cannot be filled from columns: %w", ErrSchema, t, err)
	}
	for _, path := range wanted.Columns() {
		want, _ := wanted.Lookup(path...)
		have, ok := p.Schema().Lookup(path...)
		column := strings.Join(path, ".")
		switch {
		case !ok && want.Node.Optional():
		case !ok:
			return fmt.Errorf("%w: %s has no column %s", ErrSchema, name, column)
		case have.Node.Type().Kind() != want.Node.Type().Kind() || have.MaxRepetitionLevel != want.MaxRepetitionLevel:
			return fmt.Errorf("%w: column %s of %s is %s, the field is %s", ErrSchema, column, name, describe(have), describe(want))
		}
	}
	return nil
}

func describe(c parquet.LeafColumn) string {
	text := c.Node.Type().String()
	if c.MaxRepetitionLevel > 0 {
		text = "repeated " + text
	}
	return text
}

func isMap[T any]() bool {
	_, ok := any((*T)(nil)).(*map[string]any)
	return ok
}

var _ io.Closer = (*reader[any])(nil)

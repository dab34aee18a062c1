package parquet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/parquet-go/parquet-go"
)

// rowReader is what the library reads rows with, for either kind of T.
type rowReader[T any] interface {
	Read(rows []T) (int, error)
	SeekToRow(int64) error
	Close() error
}

// maps reads rows as maps. The library makes a map only for whoever asks for any.
type maps[T any] struct {
	*parquet.GenericReader[any]
	rows []any
}

func (m *maps[T]) Read(rows []T) (int, error) {
	if len(m.rows) < len(rows) {
		m.rows = make([]any, len(rows))
	}
	clear(m.rows)
	n, err := m.GenericReader.Read(m.rows[:len(rows)])
	for i, row := range m.rows[:n] {
		v, ok := row.(T)
		if !ok {
			return i, fmt.Errorf("the library gave a row as a %T", row)
		}
		rows[i] = v
	}
	return n, err
}

// reader gives the rows of a split.
type reader[T any] struct {
	split split
	file  *os.File
	in    rowReader[T]
	batch int
	rows  []T
	given int    // how many of rows were given
	row   uint64 // the next row to give
	err   error  // what came behind rows; sticky
}

// begin places the reader at a row.
func (r *reader[T]) begin(row uint64) error {
	if err := r.split.check(r.file); err != nil {
		return err
	}
	p, err := openFile(r.split.File, r.file, r.split.Size)
	if err != nil {
		return err
	}
	if err := fits[T](r.split.File, p); err != nil {
		return err
	}
	groups := p.RowGroups()
	if r.split.Group >= len(groups) || groups[r.split.Group].NumRows() != r.split.Rows {
		return fmt.Errorf("%w: %s has %d row groups, and no longer that of %s", ErrCorrupt, r.split.File, len(groups), r.split)
	}
	r.row = row
	return guarded(r.split.File, func() error {
		group := groups[r.split.Group]
		if isMap[T]() {
			r.in = &maps[T]{GenericReader: parquet.NewGenericRowGroupReader[any](group)}
		} else {
			r.in = parquet.NewGenericRowGroupReader[T](group)
		}
		if err := r.in.SeekToRow(int64(row)); err != nil {
			return r.wrap(err)
		}
		return nil
	})
}

func (r *reader[T]) Next() (v T, next uint64, err error) {
	for r.given == len(r.rows) {
		if r.err != nil {
			return v, r.row, r.err
		}
		r.fill()
	}
	v = r.rows[r.given]
	r.given++
	r.row++
	return v, r.row, nil
}

// fill reads the next rows. They are new each time: a record that was given belongs to whoever got it.
func (r *reader[T]) fill() {
	first := r.row
	left := uint64(r.split.Rows) - first
	if left == 0 {
		r.err = r.split.check(r.file)
		if r.err == nil {
			r.err = io.EOF
		}
		return
	}
	r.rows, r.given = make([]T, min(uint64(r.batch), left)), 0
	n := 0
	err := guarded(r.split.File, func() (err error) {
		n, err = r.in.Read(r.rows)
		return err
	})
	r.rows = r.rows[:n]
	switch {
	case err == nil && n == 0, err == io.EOF && uint64(n) < left:
		r.err = r.wrap(fmt.Errorf("it has only %d of %d rows: %w", first+uint64(n), r.split.Rows, io.ErrUnexpectedEOF))
	case err != nil && err != io.EOF:
		r.err = r.wrap(err)
	}
}

// wrap tells what of the file cannot be read. A file that has been changed is not called corrupt.
func (r *reader[T]) wrap(err error) error {
	if changed := r.split.check(r.file); changed != nil {
		return changed
	}
	var system syscall.Errno // where the library asks for bytes that no file has, there is none
	if errors.As(err, &system) {
		return fmt.Errorf("parquet: %w", err)
	}
	if errors.Is(err, ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %s, row group %d, after row %d: %w", ErrCorrupt, r.split.File, r.split.Group, r.row, err)
}

// Ready is nil: Next never waits for more.
func (r *reader[T]) Ready() <-chan struct{} { return nil }

func (r *reader[T]) Close() error {
	var err error
	if r.in != nil {
		err = guarded(r.split.File, r.in.Close)
	}
	return errors.Join(err, r.file.Close())
}

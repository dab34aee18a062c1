package sim

import (
	"fmt"
	"io"

	"github.com/understudy-stream/understudy/inflightlog"
)

// scratch is where a worker's output logs spill. It implements inflightlog.Files.
type scratch struct {
	world *World
	files map[string]*scratchFile
}

// scratchFile is one segment file.
type scratchFile struct{ bytes []byte }

// newBudget bounds what a worker keeps of sent output, in worlds that spill.
func (w *World) newBudget() *inflightlog.Budget {
	const plenty = 1 << 30
	if w.plan.memory == 0 {
		return inflightlog.NewBudget(plenty, 0, plenty, nil)
	}
	return inflightlog.NewBudget(w.plan.memory, w.plan.spill, plenty, &scratch{world: w, files: map[string]*scratchFile{}})
}

// Create implements inflightlog.Files.
func (s *scratch) Create(name string) (inflightlog.File, error) {
	if s.files[name] != nil {
		return nil, fmt.Errorf("sim: file %s was there before", name)
	}
	f := &scratchFile{}
	s.files[name] = f
	s.world.result.Spills++
	return f, nil
}

// Remove implements inflightlog.Files.
func (s *scratch) Remove(name string) error {
	if s.files[name] == nil {
		return fmt.Errorf("sim: no file %s", name)
	}
	delete(s.files, name)
	return nil
}

// ReadAt implements io.ReaderAt.
func (f *scratchFile) ReadAt(p []byte, at int64) (int, error) {
	if at >= int64(len(f.bytes)) {
		return 0, io.EOF
	}
	n := copy(p, f.bytes[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *scratchFile) WriteAt(p []byte, at int64) (int, error) {
	if end := at + int64(len(p)); end > int64(len(f.bytes)) {
		f.bytes = append(f.bytes, make([]byte, end-int64(len(f.bytes)))...)
	}
	return copy(f.bytes[at:], p), nil
}

// Close implements io.Closer.
func (f *scratchFile) Close() error { return nil }

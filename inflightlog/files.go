package inflightlog

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Files is where batches spill. Calls come from several goroutines, but never two for one name at the same time.
type Files interface {
	// Create makes an empty file. A name is never used twice in the life of a Budget.
	Create(name string) (File, error)
	// Remove deletes a file, which is closed.
	Remove(name string) error
}

// File is one segment file. Reads may run while a write does, never of the same range. What was written must be readable at
// once but need not survive the process: nothing is synced.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

const spillSuffix = ".spill"

// OSFiles keeps segment files in a directory that no other process or Budget uses, which it creates if need be. It deletes
// the segment files of an earlier process there: spilled batches are scratch, a restarted process makes its logs anew by
// replay.
func OSFiles(dir string) (Files, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("inflightlog: spill directory: %w", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("inflightlog: spill directory: %w", err)
	}
	for _, f := range left {
		if f.Type().IsRegular() && strings.HasSuffix(f.Name(), spillSuffix) {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, fmt.Errorf("inflightlog: clearing the spill directory: %w", err)
			}
		}
	}
	return osFiles(dir), nil
}

type osFiles string

func (d osFiles) Create(name string) (File, error) {
	return os.OpenFile(filepath.Join(string(d), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
}

func (d osFiles) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

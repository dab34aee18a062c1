package raftmeta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	progressFile = "PROGRESS"
	progressSize = 8 + checksumSize
)

// progress is the number of changes that are in the store, in a file of its own. A log that is read up to its first
// damaged record cannot tell damage from the torn end of a crash, and what was acknowledged would be gone without a word. The file
// is written after each change and not synced: when the machine lost its power it may tell less than the store has, but never more.
type progress struct {
	file vfs.File
}

// openProgress opens the file, and makes it if there is none.
func openProgress(fs vfs.FS, dir string) (*progress, error) {
	path := fs.PathJoin(dir, progressFile)
	if _, err := fs.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := writeFile(fs, dir, progressFile, encodeProgress(0)); err != nil {
			return nil, fmt.Errorf("raftmeta: make %s: %w", path, err)
		}
	}
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("raftmeta: open %s: %w", path, err)
	}
	return &progress{file: f}, nil
}

// readProgress returns the number in the file, and whether there is one.
func readProgress(fs vfs.FS, dir string) (n uint64, there bool, err error) {
	path := fs.PathJoin(dir, progressFile)
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("raftmeta: read %s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, progressSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, false, fmt.Errorf("raftmeta: read %s: %w", path, err)
	}
	value, err := unseal([]byte(progressFile), b)
	if err != nil || len(value) != 8 {
		return 0, false, fmt.Errorf("%w: %s", ErrCorrupt, path)
	}
	return binary.LittleEndian.Uint64(value), true, nil
}

func encodeProgress(n uint64) []byte {
	return seal([]byte(progressFile), binary.LittleEndian.AppendUint64(nil, n))
}

func (p *progress) write(n uint64) error {
	_, err := p.file.WriteAt(encodeProgress(n), 0)
	return err
}

func (p *progress) close() error { return p.file.Close() }

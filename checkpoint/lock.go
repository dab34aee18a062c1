package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// holderSuffix is what the name of the file that says who has a lock has more than the lock's own, which is empty: whoever tries to
// take a lock truncates it.
const holderSuffix = ".holder"

// LockDir takes the lock of that name in a directory, until it is closed or the process ends. If another process has it, or this one,
// the error has inUse in its chain and names the process, if that can be known.
func LockDir(fs FS, dir, name string, inUse error) (io.Closer, error) {
	note := fs.PathJoin(dir, name+holderSuffix)
	lock, err := fs.Lock(fs.PathJoin(dir, name))
	switch {
	case err == nil:
	case isHeld(err):
		return nil, fmt.Errorf("%w: %s is held by %s", inUse, dir, holder(fs, note))
	default:
		return nil, fmt.Errorf("checkpoint: lock %s: %w", dir, err)
	}
	if err := writeHolder(fs, note); err != nil {
		return nil, errors.Join(fmt.Errorf("checkpoint: lock %s: %w", dir, err), lock.Close())
	}
	return lock, nil
}

// isHeld tells why a lock cannot be had. Held by another process: EAGAIN, or EACCES that is not about opening the file. By this one: an
// error without a type.
func isHeld(err error) bool {
	var path *os.PathError
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) && !errors.As(err, &path) ||
		strings.Contains(err.Error(), "lock held by current process")
}

// maxHolder bounds what is read of a note.
const maxHolder = 100

// holder reads who has a lock. It is for people: between the taking of a lock and the note of it, an older one is read.
func holder(fs FS, note string) string {
	f, err := fs.Open(note)
	if err != nil {
		return "a process that has not said its name"
	}
	text, err := io.ReadAll(io.LimitReader(f, maxHolder))
	if err := errors.Join(err, f.Close()); err != nil || len(text) == 0 {
		return "a process that has not said its name"
	}
	return strings.TrimSpace(string(text))
}

func writeHolder(fs FS, note string) error {
	f, err := fs.Create(note, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "pid %d\n", os.Getpid())
	return errors.Join(err, f.Close())
}

package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// disk is everything that the sink changes. Tests put one in its place that fails, cuts short, or stops at a chosen call.
type disk interface {
	Open(name string, flag int) (handle, error)
	Rename(from, to string) error
	// Link gives a file a second name, which must not be there yet.
	Link(from, to string) error
	Mkdir(name string) error
	// Remove removes a file, or a folder with nothing in it.
	Remove(name string) error
	SyncDir(name string) error
}

// handle is an open file of the sink. Write appends.
type handle interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

type osDisk struct{}

func (osDisk) Open(name string, flag int) (handle, error) { return os.OpenFile(name, flag, 0o666) }
func (osDisk) Rename(from, to string) error               { return os.Rename(from, to) }
func (osDisk) Link(from, to string) error                 { return os.Link(from, to) }
func (osDisk) Mkdir(name string) error                    { return os.Mkdir(name, 0o777) }
func (osDisk) Remove(name string) error                   { return os.Remove(name) }

func (osDisk) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// exists tells whether there is a file of that name.
func exists(name string) (bool, error) {
	for {
		err := unix.Access(name, unix.F_OK)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.ENOENT):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, &os.PathError{Op: "access", Path: name, Err: err}
		}
	}
}

// size is the length of a file, 0 if there is none.
func size(name string) (uint64, error) {
	info, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return uint64(info.Size()), nil
}

// fileLock is a flock on a file that has no other use. It holds between processes, between two opens in one process, and
// goes with the process.
type fileLock struct {
	file *os.File
	name string
}

func openLock(name string) (*fileLock, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return &fileLock{file: f, name: name}, nil
}

// try takes the lock if that is possible at once.
func (l *fileLock) try(how int) (bool, error) {
	for {
		err := unix.Flock(int(l.file.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, fmt.Errorf("file: lock %s: %w", l.name, err)
		}
	}
}

// Waits between two tries for a lock.
const (
	firstWait = 100 * time.Microsecond
	lastWait  = 10 * time.Millisecond
)

// take takes the lock exclusively. It gives up, without error, after patience if that is above zero.
func (l *fileLock) take(ctx context.Context, patience time.Duration) (bool, error) {
	var timer *time.Timer
	for wait, waited := firstWait, time.Duration(0); ; wait, waited = min(2*wait, lastWait), waited+wait {
		if ok, err := l.try(unix.LOCK_EX); ok || err != nil {
			return ok, err
		}
		if patience > 0 && waited >= patience {
			return false, nil
		}
		if timer == nil {
			timer = time.NewTimer(wait)
			defer timer.Stop()
		} else {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("file: lock %s: %w", l.name, ctx.Err())
		case <-timer.C:
		}
	}
}

func (l *fileLock) release() error { return unix.Flock(int(l.file.Fd()), unix.LOCK_UN) }

func (l *fileLock) close() error { return l.file.Close() }

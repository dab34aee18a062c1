package raftmeta

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// stall is how long a write to disk may take. One that takes twice as long has failed: a leader that waits for its disk
// keeps its followers quiet and would stop the cluster for good. Twice, so that a process that was stopped in the middle
// of a write and goes on later has the same time again.
const stall = 5 * time.Second

// fault is the end of a node: the first thing that went wrong with its disk or its machine. It is also what turns
// Pebble's way of dying (a fatal log line, a panic, a flush that is tried again for ever) into an error: it is the Logger of
// the store's Pebble and hears of its background errors. A goroutine of Pebble that meets the fault ends or waits, maybe with
// a lock, and the database is not touched again but to close it.
type fault struct {
	once    sync.Once
	failed  chan struct{} // closed once err is set
	err     error
	closing chan struct{}  // closed when the store is about to be closed after a fault
	running sync.WaitGroup // counts the goroutines of run
}

func newFault() *fault { return &fault{failed: make(chan struct{}), closing: make(chan struct{})} }

func (f *fault) fail(err error) {
	f.once.Do(func() {
		f.err = fmt.Errorf("%w: %w", ErrFailed, err)
		close(f.failed)
	})
}

// check returns the fault's error, if there is one.
func (f *fault) check() error {
	select {
	case <-f.failed:
		return f.err
	default:
		return nil
	}
}

// run calls op, which may write to Pebble, on a goroutine of its own, and waits for it or for a fault. It is not called
// for reads: those report errors properly.
func (f *fault) run(op func() error) error {
	if err := f.check(); err != nil {
		return err
	}
	done := make(chan error, 1)
	f.running.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				f.fail(fmt.Errorf("panic: %v", p))
			}
		}()
		done <- op()
	})
	late := time.NewTimer(stall)
	defer late.Stop()
	for range 2 {
		select {
		case err := <-done:
			return err
		case <-f.failed:
			return f.err
		case <-late.C:
			late.Reset(stall)
		}
	}
	f.fail(fmt.Errorf("the disk did not finish a write in %v", 2*stall))
	return f.err
}

// Infof drops Pebble's chatter.
func (f *fault) Infof(string, ...any) {}

// Errorf drops Pebble's complaints; those that matter come back as errors too.
func (f *fault) Errorf(string, ...any) {}

// Fatalf ends the calling goroutine: Pebble relies on it not returning.
func (f *fault) Fatalf(format string, args ...any) {
	f.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// backgroundError holds back a flush or a compaction, which would be tried again at once, until the store is closed.
func (f *fault) backgroundError(err error) {
	f.fail(err)
	<-f.closing
}

// pebbleFS is the file system as Pebble sees it. Pebble ends the process if it cannot sync a directory, on a goroutine of its
// own too; here the goroutine ends instead.
type pebbleFS struct {
	vfs.FS
	fault *fault
}

// OpenDir opens a directory to sync it.
func (p pebbleFS) OpenDir(name string) (vfs.File, error) {
	f, err := p.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return directory{f, p.fault}, nil
}

// Unwrap returns the file system below.
func (p pebbleFS) Unwrap() vfs.FS { return p.FS }

type directory struct {
	vfs.File
	fault *fault
}

// Sync makes what was done to the directory durable.
func (d directory) Sync() error {
	if err := d.File.Sync(); err != nil {
		d.fault.Fatalf("sync a directory: %w", err)
	}
	return nil
}

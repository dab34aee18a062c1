package checkpoint

import "errors"

// Sentinel errors that a caller branches on.
var (
	// ErrBase: the store does not hold the committed checkpoint that an incremental image is relative to. It needs a full
	// image first (Import), or has yet to be told of a commit.
	ErrBase = errors.New("checkpoint: base of the image is not held here")
	// ErrNotHeld: the store does not hold that checkpoint of that task.
	ErrNotHeld = errors.New("checkpoint: not held here")
	// ErrStale: a newer checkpoint or a higher incarnation is already here; what was offered is of no use.
	ErrStale = errors.New("checkpoint: superseded")
	// ErrNotFull: an image that must stand alone is incremental.
	ErrNotFull = errors.New("checkpoint: image is not full")
	// ErrLocked: another store, of this process or another, has the directory open.
	ErrLocked = errors.New("checkpoint: directory is in use")
	// ErrWrongJob: the directory belongs to another job.
	ErrWrongJob = errors.New("checkpoint: directory belongs to another job")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("checkpoint: store is closed")
)

// ErrCorrupt is in the chain of every error about bytes that are not what this package wrote.
var ErrCorrupt = errors.New("checkpoint: corrupt")

package inflightlog

import (
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// Sentinel errors that a caller branches on.
var (
	// ErrBelow says that the log no longer holds, or never held, the position that a consumer asked for.
	ErrBelow = errors.New("inflightlog: position is below what the log holds")
	// ErrReplaced says that another subscription took this one's place while it was being set up.
	ErrReplaced = errors.New("inflightlog: subscription was replaced")
	// ErrClosed says that the log was closed.
	ErrClosed = errors.New("inflightlog: log is closed")
	// ErrOutside says that a batch does not hold the sequence number it was asked for.
	ErrOutside = errors.New("inflightlog: sequence number is outside the batch")
	// ErrMismatch is what every *Mismatch is, for errors.Is.
	ErrMismatch = errors.New("inflightlog: cursor does not match")
	// ErrCorrupt is what every corruption is, for errors.Is: element bytes that no encoder wrote, or a *Corruption.
	ErrCorrupt = errors.New("inflightlog: corrupt")
)

// Mismatch says that producer and consumer do not mean the same bytes by one sequence number: determinants were lost or the
// producer's replay diverged.
type Mismatch struct {
	Channel determinant.ChannelID
	Have    determinant.Cursor // the producer's
	Want    determinant.Cursor // the consumer's
}

// Error names the channel and both cursors.
func (m *Mismatch) Error() string {
	return fmt.Sprintf("inflightlog: channel %d: consumer is at %v, log has %v there", m.Channel, m.Want, m.Have)
}

// Is makes errors.Is(err, ErrMismatch) true.
func (m *Mismatch) Is(target error) bool { return target == ErrMismatch }

// Corruption says that a spilled batch did not come back as it was written.
type Corruption struct {
	File   string
	Offset int64
	What   string
}

// Error names file and offset.
func (c *Corruption) Error() string {
	return fmt.Sprintf("inflightlog: corrupt batch in %s at offset %d: %s", c.File, c.Offset, c.What)
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (c *Corruption) Is(target error) bool { return target == ErrCorrupt }

// assert panics if an invariant of this package does not hold: a bug here or in the calling task, never bad input.
func assert(ok bool, format string, args ...any) {
	if !ok {
		panic("inflightlog: assertion: " + fmt.Sprintf(format, args...))
	}
}

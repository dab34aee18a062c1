package transport

import (
	"net"
	"time"
)

// MaxFrame bounds the body of a frame, in bytes.
const MaxFrame = 1 << 30

// Conn is an authenticated connection that carries frames: a kind, which is the user's, and bytes. One goroutine at a time may
// write and one may read; Close and the deadlines may be called from any.
type Conn struct{}

// Write sends one frame, and those queued before it, with one system call if the system takes it all. The parts are one body;
// they are not copied and not changed.
func (c *Conn) Write(kind byte, parts ...[]byte) error { return nil }

// Queue adds a frame to those that the next Flush or Write sends together. The parts must not change until then. The error is
// ErrTooLong, and then nothing was added.
func (c *Conn) Queue(kind byte, parts ...[]byte) error { return nil }

// Queued is the number of bytes that wait for Flush.
func (c *Conn) Queued() int { return 0 }

// Flush sends what was queued, with one system call if the system takes it all.
func (c *Conn) Flush() error { return nil }

// Read returns the next frame. The body is valid until the next Read. The error of a frame that is not whole or not as it was
// written is ErrCorrupt or io.ErrUnexpectedEOF; io.EOF says that the peer closed the connection between two frames.
func (c *Conn) Read() (kind byte, body []byte, err error) { return 0, nil, nil }

// ReadKept is Read with a body that is never reused: it belongs to the caller.
func (c *Conn) ReadKept() (kind byte, body []byte, err error) { return 0, nil, nil }

// Raw gives the connection without frames, for a protocol that brings its own. What was read ahead comes first. The Conn must
// not be used any more afterwards, except for Close.
func (c *Conn) Raw() net.Conn { return nil }

// SetReadDeadline and SetWriteDeadline are those of net.Conn. The zero time means none.
func (c *Conn) SetReadDeadline(t time.Time) error { return nil }

// SetWriteDeadline bounds the writes to come.
func (c *Conn) SetWriteDeadline(t time.Time) error { return nil }

// RemoteAddr is the address of the other side.
func (c *Conn) RemoteAddr() net.Addr { return nil }

// Close ends the connection. It does not block; what was written may still be on its way.
func (c *Conn) Close() error { return nil }

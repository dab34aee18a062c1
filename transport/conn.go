package transport

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	stageSize    = 64 << 10 // TLS has no vectored write: what is to be sent is copied together
	silentRounds = 2        // periods without a byte after which a peer counts as silent
)

// Conn is an authenticated connection that carries frames: a kind, which is the user's, and bytes. One goroutine at a time may
// write and one may read; Close and the deadlines may be called from any.
type Conn struct {
	net    net.Conn // a *tls.Conn with TLS
	closer net.Conn // what Close closes: with TLS the connection beneath, which does not wait to say goodbye
	out    vector
	stage  []byte
	in     chunk
	// silence is how long a Read may wait for a byte, silentRounds times; 0: as the deadlines say.
	silence time.Duration
	raw     atomic.Bool
}

func newConn(c net.Conn) *Conn {
	conn := &Conn{net: c, closer: c}
	if t, ok := c.(*tls.Conn); ok {
		conn.closer = t.NetConn()
		conn.stage = make([]byte, 0, stageSize)
	}
	return conn
}

// Write sends one frame, and those queued before it, with one system call if the system takes it all. The parts are one body.
func (c *Conn) Write(kind byte, parts ...[]byte) error {
	if err := c.Queue(kind, parts...); err != nil {
		return err
	}
	return c.Flush()
}

// Queue adds a frame to those that the next Flush or Write sends together. The parts are one body and must not change until
// then. The error is ErrTooLong, and then nothing was added.
func (c *Conn) Queue(kind byte, parts ...[]byte) error { return c.out.add(kind, nil, parts...) }

// Queued is the number of bytes that wait for Flush.
func (c *Conn) Queued() int { return c.out.bytes }

// Flush sends what was queued, with one system call if the system takes it all. After an error the connection is of no use.
func (c *Conn) Flush() error {
	if c.out.bytes == 0 {
		return nil
	}
	bufs := c.out.bufs
	defer c.out.reset(bufs)
	if c.stage != nil {
		return c.flushStaged(bufs)
	}
	_, err := c.out.bufs.WriteTo(c.net) // consumes c.out.bufs; bufs still has them all
	return err
}

func (c *Conn) flushStaged(bufs net.Buffers) error {
	for _, p := range bufs {
		for len(p) > 0 {
			n := min(len(p), stageSize-len(c.stage))
			c.stage, p = append(c.stage, p[:n]...), p[n:]
			if len(c.stage) == stageSize {
				if err := c.flushStage(); err != nil {
					return err
				}
			}
		}
	}
	return c.flushStage()
}

func (c *Conn) flushStage() error {
	_, err := c.net.Write(c.stage)
	c.stage = c.stage[:0]
	return err
}

// Read returns the next frame. The body is valid until the next Read. The error of a frame that is not whole or not as it was
// written is ErrCorrupt or io.ErrUnexpectedEOF; io.EOF says that the peer closed the connection between two frames.
func (c *Conn) Read() (kind byte, body []byte, err error) {
	if err := c.in.fill(c.readSome, frameHeader); err != nil {
		return 0, nil, err
	}
	kind, n, sum, err := parseHeader(c.in.take(frameHeader))
	if err != nil {
		return 0, nil, err
	}
	if err := c.in.fill(c.readSome, n); err != nil {
		return 0, nil, midway(err)
	}
	body = c.in.take(n)
	return kind, body, checkBody(kind, body, sum)
}

// ReadKept is Read with a body that is never reused: it belongs to the caller. It keeps alive up to 256 KiB of its neighbours.
func (c *Conn) ReadKept() (kind byte, body []byte, err error) {
	kind, body, err = c.Read()
	c.in.lent = true
	return kind, body, err
}

// readSome is one system call. With a bound on silence it waits in several rounds: a process that was stopped finds the first
// one over, and then must look whether something came in the meantime.
func (c *Conn) readSome(p []byte) (int, error) {
	if c.silence == 0 {
		return c.net.Read(p)
	}
	for range silentRounds {
		if err := c.net.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
		n, err := c.net.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
	return 0, ErrSilent
}

// Raw gives the connection without frames, for a protocol that brings its own, and to its caller: who must close it, since
// neither the Conn nor the Server that accepted it will. What was read ahead comes first. The Conn must not be used any more.
func (c *Conn) Raw() net.Conn {
	c.raw.Store(true)
	if ahead := c.in.rest(); len(ahead) > 0 {
		return &rawConn{Conn: c.net, ahead: ahead}
	}
	return c.net
}

// rawConn is a connection of which some bytes were read already.
type rawConn struct {
	net.Conn
	ahead []byte
}

// Read gives what was read ahead before it reads on.
func (r *rawConn) Read(p []byte) (int, error) {
	if len(r.ahead) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.ahead)
	r.ahead = r.ahead[n:]
	return n, nil
}

// SetReadDeadline bounds the reads that are under way and to come. The zero time means no bound.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.net.SetReadDeadline(t) }

// SetWriteDeadline bounds the writes that are under way and to come. The zero time means no bound.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.net.SetWriteDeadline(t) }

// RemoteAddr is the address of the other side.
func (c *Conn) RemoteAddr() net.Addr { return c.net.RemoteAddr() }

// Close ends the connection. It does not block; what was written may still be on its way.
func (c *Conn) Close() error {
	if c.raw.Load() {
		return nil
	}
	return c.closer.Close()
}

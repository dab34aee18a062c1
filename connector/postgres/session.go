package postgres

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// callTimeout bounds a call of a sink's session, so that a connection is given up of which nobody hears any more. A call that
	// takes longer is tried again with twice the time.
	callTimeout    = 30 * time.Second
	maxCallTimeout = 15 * time.Minute
	closeTimeout   = time.Second // for saying goodbye
	// maxConnectTimeout bounds how long a try to connect may take that was given more and more time: a server that was away and is back
	// is noticed within it.
	maxConnectTimeout = 30 * time.Second
)

// steps is what each call of the server goes through in tests: it calls step and returns its error, or fails in some way.
type steps func(step, half func() error) error

// session is a connection that is made when it is needed, and again when it has broken. One call uses it at a time.
type session struct {
	access   *Access
	name     string // application_name
	settings map[string]string
	bound    time.Duration // of a call, at first; 0 for none
	step     steps         // nil outside tests
	mu       struct {
		sync.Mutex
		conn    *pgx.Conn
		closed  bool
		timeout time.Duration // of the next call, if it is longer than bound
		connect time.Duration // of the next try to connect, if it is longer than Access.ConnectTimeout
	}
}

// do calls f with a connection. What f returns is an error of the client library, or one of ours in a verdict.
func (s *session) do(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return os.ErrClosed
	}
	if s.mu.conn == nil {
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	if s.step == nil {
		return s.call(ctx, f)
	}
	return s.step(func() error { return s.call(ctx, f) }, nil)
}

// connect opens the connection. A server that is too slow for that gets twice the time at the next try. The caller holds mu.
func (s *session) connect(ctx context.Context) error {
	access := *s.access
	access.ConnectTimeout = max(access.ConnectTimeout, s.mu.connect)
	conn, err := access.connect(ctx, s.name, s.settings)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			s.mu.connect = max(access.ConnectTimeout, min(2*access.ConnectTimeout, maxConnectTimeout))
		}
		return err
	}
	s.mu.conn, s.mu.connect = conn, 0
	return nil
}

// call is one call within the time that it may take. The caller holds mu.
func (s *session) call(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	conn, within := s.mu.conn, ctx
	if s.bound > 0 {
		s.mu.timeout = max(s.mu.timeout, s.bound)
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, s.mu.timeout)
		defer cancel()
	}
	err := f(within, conn)
	if err == nil {
		s.mu.timeout = 0
		return nil
	}
	broken, late := conn.IsClosed(), within.Err() != nil && ctx.Err() == nil
	if late {
		s.mu.timeout = min(2*s.mu.timeout, maxCallTimeout)
	}
	if broken || within.Err() != nil || conn.PgConn().TxStatus() != 'I' {
		s.drop()
	}
	if v, ok := err.(verdict); ok {
		return v.err
	}
	e := redacted(err, conn.Config().Password)
	switch {
	case e.err != nil:
		classified(e)
	case late:
		e.again, e.cause = true, nil
	default:
		e.again = broken // what the client library refuses, it refuses again
	}
	return e
}

// verdict carries an error of this package out of a call.
type verdict struct{ err error }

func (v verdict) Error() string { return v.err.Error() }

// drop lets the connection go. The server undoes what was not committed. The caller holds mu.
func (s *session) drop() {
	conn := s.mu.conn
	s.mu.conn = nil
	if conn == nil || conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // whatever comes of it, nobody uses the connection again
}

// close ends the session. Calls must have been told to end.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	s.drop()
}

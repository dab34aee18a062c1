package transport

import (
	"fmt"
	"sync"
)

// line is the succession of connections of one kind with one peer. At most one is in use; a newer one ends it and waits until
// everything that it had begun is over.
type line struct {
	mu struct {
		sync.Mutex
		closed           error // why no connection is used any more
		session, attempt uint64
		last             *strand
	}
}

// strand is one connection of a line.
type strand struct {
	conn *Conn
	done chan struct{} // closed when it is not in use any more
	mu   struct {
		sync.Mutex
		cause error // why it broke
	}
}

// fail breaks the connection. The first cause counts.
func (s *strand) fail(cause error) {
	s.mu.Lock()
	if s.mu.cause == nil {
		s.mu.cause = cause
	}
	s.mu.Unlock()
	hangUp(s.conn)
}

func (s *strand) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.cause
}

// newer tells whether a connection that was dialled as that attempt of that session is newer than those that were used.
// Handshakes may overtake each other.
func (l *line) newer(session, attempt uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newerLocked(session, attempt)
}

func (l *line) newerLocked(session, attempt uint64) error {
	if l.mu.closed != nil {
		return l.mu.closed
	}
	if session < l.mu.session || session == l.mu.session && attempt <= l.mu.attempt {
		return fmt.Errorf("transport: attempt %d.%d is older than %d.%d", session, attempt, l.mu.session, l.mu.attempt)
	}
	return nil
}

// use runs run with the connection, when the one before is not in use any more. It returns why the connection broke, when
// run has returned; run must do so soon after the connection is closed.
func (l *line) use(session, attempt uint64, c *Conn, run func(s *strand)) error {
	s := &strand{conn: c, done: make(chan struct{})}
	defer close(s.done)
	l.mu.Lock()
	if err := l.newerLocked(session, attempt); err != nil {
		l.mu.Unlock()
		s.fail(err)
		return err
	}
	before := l.mu.last
	l.mu.session, l.mu.attempt, l.mu.last = session, attempt, s
	l.mu.Unlock()
	if before != nil {
		before.fail(fmt.Errorf("%w: the peer connected again", ErrClosed))
		<-before.done
	}
	if s.cause() == nil {
		run(s)
	}
	s.fail(ErrClosed) // if nothing else did
	return s.cause()
}

// cut breaks the connection that is in use, or about to be.
func (l *line) cut(cause error) {
	l.mu.Lock()
	s := l.mu.last
	l.mu.Unlock()
	if s != nil {
		s.fail(cause)
	}
}

// close ends the line for good.
func (l *line) close(cause error) {
	l.mu.Lock()
	l.mu.closed = cause
	l.mu.Unlock()
	l.cut(cause)
}

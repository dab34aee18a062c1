package transport

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Bounds of a server. Each is the default of the option of that name.
const (
	DefaultHandshakeTimeout = 5 * time.Second
	DefaultMaxPending       = 256
	DefaultMaxConns         = 4096
)

const (
	minAcceptPause = 5 * time.Millisecond // after a failure of the system to give a connection
	maxAcceptPause = time.Second
)

// ServerOptions are a server's.
type ServerOptions struct {
	Security Security
	// Handle decides about a peer that has proved itself. serve has the connection until it returns; then the connection is
	// closed, unless Conn.Raw took it. An error refuses the peer, who is told its text. Called from any goroutine, possibly
	// several at once.
	Handle func(h Hello) (reply Hello, serve func(*Conn), err error)

	HandshakeTimeout time.Duration // how long a peer may take to prove itself
	MaxPending       int           // handshakes at once; one more ends the oldest
	MaxConns         int           // authenticated connections at once; one more is refused

	// Stranger is called for each connection that did not get through the handshake, and AcceptFailed when the system gives no
	// connection. Both may be nil, may be called from several goroutines at once, and must not block.
	Stranger     func(from net.Addr, err error)
	AcceptFailed func(err error)
}

func (o *ServerOptions) ensureDefaults() {
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if o.MaxPending == 0 {
		o.MaxPending = DefaultMaxPending
	}
	if o.MaxConns == 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.Stranger == nil {
		o.Stranger = func(net.Addr, error) {}
	}
	if o.AcceptFailed == nil {
		o.AcceptFailed = func(error) {}
	}
}

// Server accepts connections of peers on one port. All its methods may be called from any goroutine.
type Server struct {
	o        ServerOptions
	tls      *tls.Config // nil: none
	listener net.Listener
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu struct {
		sync.Mutex
		closed  bool
		pending list.List // of net.Conn, the oldest first
		conns   map[*Conn]struct{}
	}
}

// Listen starts a server on addr (host:port; port 0 lets the system choose). A port in use is syscall.EADDRINUSE.
func Listen(addr string, o ServerOptions) (*Server, error) {
	if err := o.Security.Validate(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	return newServer(l, o), nil
}

func newServer(l net.Listener, o ServerOptions) *Server {
	o.ensureDefaults()
	s := &Server{o: o, listener: l}
	if o.Security.TLS != nil {
		s.tls = o.Security.config()
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.conns = map[*Conn]struct{}{}
	s.running.Go(s.accept)
	return s
}

// Addr is where the server listens, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends the server and all its connections, and returns when every serve has. It must not be called from one.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.mu.closed
	s.mu.closed = true
	for e := s.mu.pending.Front(); e != nil; e = e.Next() {
		hangUp(e.Value.(net.Conn))
	}
	for c := range s.mu.conns {
		hangUp(c)
	}
	s.mu.Unlock()
	s.cancel()
	var err error
	if first {
		err = s.listener.Close()
	}
	s.running.Wait()
	return err
}

// hangUp closes a connection that is of no use any more: whatever comes of it, nothing follows from it.
func hangUp(c interface{ Close() error }) { _ = c.Close() }

func (s *Server) accept() {
	pause := minAcceptPause
	for {
		c, err := s.listener.Accept()
		switch {
		case err == nil:
			pause = minAcceptPause
			s.admit(c)
		case errors.Is(err, net.ErrClosed):
			return
		default: // too many files, most likely
			s.o.AcceptFailed(fmt.Errorf("transport: %w", err))
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
			}
			pause = min(2*pause, maxAcceptPause)
		}
	}
}

// admit begins a handshake. If there are too many the oldest ends: a peer needs a few round trips, so who has been at it
// for longest is a stranger.
func (s *Server) admit(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		hangUp(c)
		return
	}
	if s.mu.pending.Len() >= s.o.MaxPending {
		hangUp(s.mu.pending.Remove(s.mu.pending.Front()).(net.Conn))
	}
	place := s.mu.pending.PushBack(c)
	s.running.Go(func() { s.greet(c, place) })
}

// greet runs the handshake on a new connection and what comes after it.
func (s *Server) greet(c net.Conn, place *list.Element) {
	g, err := s.prove(c)
	s.mu.Lock()
	s.mu.pending.Remove(place) // does nothing if admit did
	s.mu.Unlock()
	if err != nil {
		hangUp(c)
		s.o.Stranger(c.RemoteAddr(), err)
		return
	}
	conn := newConn(g.conn)
	if err := s.receive(g, conn); err != nil {
		s.o.Stranger(c.RemoteAddr(), err)
	}
	s.mu.Lock()
	delete(s.mu.conns, conn)
	s.mu.Unlock()
	hangUp(conn)
}

// prove has the other side prove itself in time.
func (s *Server) prove(c net.Conn) (*guest, error) {
	if err := c.SetDeadline(time.Now().Add(s.o.HandshakeTimeout)); err != nil {
		return nil, err
	}
	if s.tls == nil {
		return s.o.Security.serverHandshake(c, nil)
	}
	t := tls.Server(c, s.tls)
	if err := t.HandshakeContext(s.ctx); err != nil {
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) && string(plain.RecordHeader[:]) == wireMagic[:len(plain.RecordHeader)] {
			p := preamble{version: wireVersion, flags: flagTLS} // no nonce: this goes no further
			_, werr := c.Write(p.encode())
			err = errors.Join(err, werr)
		}
		return nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	binding, err := bindingOf(t)
	if err != nil {
		return nil, err
	}
	return s.o.Security.serverHandshake(t, binding)
}

// receive gives a peer its verdict and serves it. The error is one of the handshake.
func (s *Server) receive(g *guest, conn *Conn) error {
	reply, serve, err := Hello{}, (func(*Conn))(nil), s.enlist(conn)
	if err == nil {
		reply, serve, err = s.o.Handle(g.hello)
	}
	// Whoever asked what to say may have taken its time.
	if derr := g.conn.SetDeadline(time.Now().Add(s.o.HandshakeTimeout)); derr != nil {
		return derr
	}
	if err != nil {
		return g.refuse(err.Error())
	}
	if err := g.accept(reply); err != nil {
		return err
	}
	if err := g.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	serve(conn)
	return nil
}

// enlist counts a connection among those that Close closes.
func (s *Server) enlist(conn *Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return ErrClosed
	}
	if len(s.mu.conns) >= s.o.MaxConns {
		return fmt.Errorf("transport: %d connections are open already", len(s.mu.conns))
	}
	s.mu.conns[conn] = struct{}{}
	return nil
}

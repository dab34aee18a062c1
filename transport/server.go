package transport

import (
	"net"
	"time"
)

// Bounds of a server. Each is the default of the option of that name.
const (
	DefaultHandshakeTimeout = 5 * time.Second
	DefaultMaxPending       = 256
	DefaultMaxConns         = 4096
)

// ServerOptions are a server's.
type ServerOptions struct {
	Security Security
	// Handle decides about a peer that has proved itself. serve has the connection until it returns; then the connection is
	// closed. An error refuses the peer, who is told its text. Called from any goroutine, possibly several at once.
	Handle func(h Hello) (reply Hello, serve func(*Conn), err error)

	HandshakeTimeout time.Duration // how long a peer may take to prove itself
	MaxPending       int           // handshakes at once; one more ends the oldest
	MaxConns         int           // authenticated connections at once; one more is refused

	// Stranger is called for each connection that did not get through the handshake, and AcceptFailed when the system gives no
	// connection. Both may be nil, may be called from several goroutines at once, and must not block.
	Stranger     func(from net.Addr, err error)
	AcceptFailed func(err error)
}

// Server accepts connections of peers on one port. All its methods may be called from any goroutine.
type Server struct{}

// Listen starts a server on addr (host:port; port 0 lets the system choose). A port in use is syscall.EADDRINUSE.
func Listen(addr string, o ServerOptions) (*Server, error) { return nil, ErrInsecure }

// Addr is where the server listens.
func (s *Server) Addr() string { return "" }

// Close ends the server and all its connections, and returns when every serve has. It must not be called from one.
func (s *Server) Close() error { return nil }

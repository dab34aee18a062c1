package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Server takes POSTs of JSON lines into a log, keeps the copy of another server's, and gives both to a Source.
type Server struct {
	options  ServerOptions
	self     int // of options.Nodes
	lock     *os.File
	caller   *caller
	owner    *owner
	copies   map[string]*copyLog // by log; of the servers whose copy this one keeps
	reads    sync.Map            // log name to *reading
	buffered atomic.Int64        // bytes of bodies under way
	http     http.Server
	listener net.Listener
	ctx      context.Context // ends when the server is closed
	cancel   context.CancelFunc
	running  sync.WaitGroup
	close    func() error
}

// Listen opens the logs and serves until Close. It returns when requests can come; until the log has been compared with its copy they
// are answered with 503.
func Listen(o ServerOptions) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{options: o, self: indexOf(o.Nodes, o.Name), copies: make(map[string]*copyLog)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.close = sync.OnceValue(s.end)
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.running.Go(func() {
		if err := s.owner.run(s.ctx); err != nil && o.Failed != nil {
			o.Failed(err)
		}
	})
	s.running.Go(s.upkeep)
	s.running.Go(func() {
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) && s.ctx.Err() == nil && o.Failed != nil {
			o.Failed(fmt.Errorf("http: %w", err))
		}
	})
	return s, nil
}

// open takes the directory and the address, and opens the logs. What it has taken when it fails, end lets go.
func (s *Server) open() (err error) {
	o := &s.options
	token, err := o.Access.token()
	if err != nil {
		return err
	}
	if s.caller, err = o.Access.caller(connectionsPerNode); err != nil {
		return err
	}
	dir := filepath.Join(o.Dir, o.Name)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if s.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return err
	}
	if s.listener, err = s.listen(); err != nil {
		return err
	}
	logs := logOptions{SegmentBytes: o.SegmentBytes, MaxKeys: o.MaxKeys}
	own, err := openLog(filepath.Join(dir, "own"), logs)
	if err != nil {
		return err
	}
	var k *keeper
	if at := keeperOf(o.Nodes, s.self); at != s.self {
		k = &keeper{node: o.Nodes[at], log: o.Name, caller: s.caller, timeout: o.AckTimeout}
	}
	s.owner = newOwner(own, k, o)
	for i, n := range o.Nodes {
		if i == s.self || keeperOf(o.Nodes, i) != s.self {
			continue
		}
		if s.copies[n.Name], err = openCopy(filepath.Join(dir, "copy-"+n.Name), logs); err != nil {
			return err
		}
	}
	s.http.Handler = guard(token, s.routes())
	s.http.ReadHeaderTimeout, s.http.ReadTimeout, s.http.IdleTimeout = headerTimeout, bodyTimeout, 2*time.Minute
	s.http.MaxHeaderBytes = 64 << 10
	s.http.BaseContext = func(net.Listener) context.Context { return s.ctx }
	return nil
}

const (
	connectionsPerNode = 16
	headerTimeout      = 10 * time.Second
	bodyTimeout        = time.Minute
)

// listen opens the server's address.
func (s *Server) listen() (net.Listener, error) {
	address := s.options.Listen
	if address == "" {
		u, err := url.Parse(s.options.Nodes[s.self].URL)
		if err != nil {
			return nil, errors.New("http: the server's own URL cannot be read")
		}
		if address = u.Host; u.Port() == "" {
			address = net.JoinHostPort(u.Hostname(), u.Scheme)
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	if s.options.Access.Cert == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(s.options.Access.Cert, s.options.Access.Key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrAccess, err), l.Close())
	}
	return tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	}), nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Name is the name of the server's log.
func (s *Server) Name() string { return s.options.Name }

// Close ends the server. Requests that are not durable yet are in doubt, as at the death of a process.
func (s *Server) Close() error { return s.close() }

func (s *Server) end() error {
	s.cancel()
	var errs []error
	if s.listener != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second) // handlers see that s.ctx has ended
		if s.http.Shutdown(ctx) != nil {
			errs = append(errs, s.http.Close())
		}
		cancel()
		errs = append(errs, closeListener(s.listener))
	}
	s.running.Wait()
	if s.owner != nil {
		errs = append(errs, s.owner.log.close())
	}
	for _, n := range s.options.Nodes { // in order, so that errors are
		if c := s.copies[n.Name]; c != nil {
			errs = append(errs, c.log.close())
		}
	}
	if s.caller != nil {
		s.caller.close()
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// closeListener closes a listener that http.Server may have closed.
func closeListener(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// lockFile locks a file for this process. It is unlocked when the file is closed, or the process dies.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: %s", ErrInUse, name)
	} else if err != nil {
		err = fmt.Errorf("http: lock %s: %w", name, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ListenAny listens as the first of the servers whose directory nobody uses and whose address is one of this machine and free: processes
// that are started alike, on one machine or several, become one server each. ErrInUse: none was left.
func ListenAny(o ServerOptions) (*Server, error) {
	errs := []error{fmt.Errorf("%w: no ingest server is left for this process", ErrInUse)}
	for _, n := range o.Nodes {
		o.Name = n.Name
		s, err := Listen(o)
		switch {
		case err == nil:
			return s, nil
		case !errors.Is(err, ErrInUse) && !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL):
			return nil, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

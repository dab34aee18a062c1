package postgres

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fault is what a proxy does to a request.
type fault int

const (
	pass      fault = iota
	lost            // the connection breaks before the server gets the request
	torn            // the server gets half of it
	unheard         // the server has answered, and the connection breaks before the client gets the answer
	heldBack        // the server gets it when released
	endHeld         // the server gets all but the last message, which ends the transaction, and that when released
	syncBytes = 5   // the length of that message
)

// proxy stands between a client and the server.
type proxy struct {
	to       string
	delay    time.Duration // before a connection is taken on
	listener net.Listener
	running  sync.WaitGroup
	mu       struct {
		sync.Mutex
		conns    map[net.Conn]bool
		requests int // chunks that clients have sent
		at       int // the request that has the fault
		fault    fault
	}
	held    chan struct{} // is closed when a request is held
	release chan struct{}
}

func newProxy(t testing.TB, s *server) *proxy {
	p := &proxy{to: fmt.Sprintf("127.0.0.1:%d", s.port), held: make(chan struct{}), release: make(chan struct{})}
	p.mu.conns = map[net.Conn]bool{}
	var err error
	p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.running.Go(func() {
		for {
			client, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(p.close)
	return p
}

func (p *proxy) close() {
	_ = p.listener.Close() // a test's own
	p.mu.Lock()
	for c := range p.mu.conns {
		_ = c.Close() // a test's own
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *proxy) access(s *server) Access {
	a := s.access()
	a.URL = fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", p.listener.Addr())
	return a
}

// next lets the n-th request from now on meet with a fault; 0 is the next.
func (p *proxy) next(n int, f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.at, p.mu.fault = p.mu.requests+n, f
}

// happened tells whether the fault has come.
func (p *proxy) happened() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.fault == pass
}

func (p *proxy) register(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.mu.conns[c] = true
	}
}

// request counts one and gives its fault.
func (p *proxy) request() fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.requests++
	if p.mu.fault == pass || p.mu.requests-1 < p.mu.at {
		return pass
	}
	f := p.mu.fault
	p.mu.fault = pass
	return f
}

func (p *proxy) serve(client net.Conn) {
	<-time.After(p.delay)
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = client.Close() // as the server would refuse it
		return
	}
	p.register(client, server)
	var deaf atomic.Bool // the client must not hear the answer
	answered := make(chan struct{})
	p.running.Go(func() {
		defer close(answered)
		defer func() { _, _ = client.Close(), server.Close() }() // one of them has gone
		buffer := make([]byte, 1<<20)
		for {
			n, err := server.Read(buffer)
			if err != nil || deaf.Load() {
				return
			}
			if _, err = client.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	defer func() { _, _ = client.Close(), server.Close() }() // one of them has gone
	buffer := make([]byte, 1<<20)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		data := buffer[:n]
		switch p.request() {
		case lost:
			return
		case torn:
			_, _ = server.Write(data[:n/2]) // then it breaks anyway
			return
		case unheard:
			deaf.Store(true)
			_, _ = server.Write(data) // then it breaks anyway
			<-answered
			return
		case heldBack:
			close(p.held)
			<-p.release
		case endHeld:
			if _, err := server.Write(data[:n-syncBytes]); err != nil {
				return
			}
			data = data[n-syncBytes:]
			close(p.held)
			<-p.release
		}
		if _, err := server.Write(data); err != nil {
			return
		}
	}
}

package transport

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between two workers and does to their connections what a network may do.
type proxy struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup
	frozen   atomic.Bool     // takes bytes and passes none on
	passed   atomic.Int64    // bytes, over all
	most     [2]atomic.Int64 // bytes that a connection passed on, up and down; of all the most

	mu struct {
		sync.Mutex
		closed bool
		open   map[net.Conn]struct{}
		seen   int // connections
		// after gives how many bytes connection number n passes on in each direction before it is cut; nil or negative: no bound.
		// It is called by one goroutine at a time.
		after func(n int) (up, down int)
	}
}

func newProxy(t testing.TB, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, to: to}
	p.mu.open = map[net.Conn]struct{}{}
	p.running.Go(p.accept)
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) cutAfter(after func(n int) (up, down int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.seen, p.mu.after = 0, after
}

func (p *proxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = from.Close()
			continue
		}
		p.pass(from, to)
	}
}

func (p *proxy) pass(from, to net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		_, _ = from.Close(), to.Close()
		return
	}
	p.mu.open[from], p.mu.open[to] = struct{}{}, struct{}{}
	up, down := -1, -1
	if p.mu.after != nil {
		up, down = p.mu.after(p.mu.seen)
	}
	p.mu.seen++
	p.running.Go(func() { p.copy(to, from, up, &p.most[0]) })
	p.running.Go(func() { p.copy(from, to, down, &p.most[1]) })
}

// copy is one direction of a connection: it passes bytes on until either side closes or limit is reached; then it cuts both.
func (p *proxy) copy(to, from net.Conn, limit int, most *atomic.Int64) {
	passed := int64(0)
	defer func() {
		for m := most.Load(); m < passed && !most.CompareAndSwap(m, passed); m = most.Load() {
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		_ = from.Close()
		delete(p.mu.open, from)
		if !p.frozen.Load() { // a frozen network does not pass on either that a side has closed
			_ = to.Close()
		}
	}()
	buf := make([]byte, 64<<10)
	for limit != 0 {
		room := buf
		if limit > 0 {
			room = buf[:min(limit, len(buf))]
		}
		n, err := from.Read(room)
		if n > 0 && !p.frozen.Load() {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
			passed += int64(n)
			p.passed.Add(int64(n))
		}
		if limit > 0 {
			limit -= n
		}
		if err != nil {
			return
		}
	}
}

// cut closes all connections that are open.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.mu.open {
		_ = c.Close()
	}
}

func (p *proxy) close() {
	p.mu.Lock()
	p.mu.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.cut()
	p.running.Wait()
}

package transport

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds how long a test waits for what must happen.
const patience = 60 * time.Second

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, patience, time.Millisecond, what)
}

func TestPortInUse(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly()})
	_, err := Listen(h.Addr(), ServerOptions{Security: secretOnly()})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, h.Addr())
}

func TestStrangersGetNothing(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly(), HandshakeTimeout: 100 * time.Millisecond})
	p := newPreamble()
	for name, says := range map[string]string{
		"nothing":          "",
		"a little":         "un",
		"another protocol": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"half a greeting":  string(p.encode()[:20]),
	} {
		c, err := net.Dial("tcp", h.Addr())
		require.NoError(t, err)
		_, err = c.Write([]byte(says))
		require.NoError(t, err)
		got, err := io.ReadAll(c)
		if !errors.Is(err, syscall.ECONNRESET) { // what it said was not all read
			require.NoError(t, err, name)
		}
		require.Empty(t, got, name)
		require.Error(t, <-h.strangers)
		require.NoError(t, c.Close())
	}
	// Who can greet gets the challenge.
	h = newHost(t, ServerOptions{Security: secretOnly(), HandshakeTimeout: 2 * time.Second})
	c, err := net.Dial("tcp", h.Addr())
	require.NoError(t, err)
	_, err = c.Write(append(p.encode(), 10, 0, 0, 0, 1, 2, 3))
	require.NoError(t, err)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Len(t, got, preambleSize)
	require.NoError(t, c.Close())
	require.Zero(t, h.handled())
}

// A thousand connections that say nothing cost a bounded number of goroutines and descriptors, and peers get through.
func TestStrangersInNumbers(t *testing.T) {
	const pending = 32
	h := newHost(t, ServerOptions{Security: secretOnly(), MaxPending: pending, HandshakeTimeout: time.Hour})
	before := runtime.NumGoroutine()
	var open []net.Conn
	for i := range 1000 {
		c, err := net.Dial("tcp", h.Addr())
		require.NoError(t, err)
		open = append(open, c)
		if i%100 == 99 {
			_, _, err := dial(t, secretOnly(), h.Addr())
			require.NoError(t, err)
		}
	}
	eventually(t, "strangers are sent away", func() bool { return len(h.strangers) >= 1000-pending })
	h.Server.mu.Lock()
	waiting := h.Server.mu.pending.Len()
	h.Server.mu.Unlock()
	require.LessOrEqual(t, waiting, pending)
	eventually(t, "their goroutines end", func() bool { return runtime.NumGoroutine() <= before+pending+2 })
	for _, c := range open {
		require.NoError(t, c.Close())
	}
}

func TestTooManyConnections(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly(), MaxConns: 2})
	h.serve = func(c *Conn) { _, _, _ = c.Read() }
	first, _, err := dial(t, secretOnly(), h.Addr())
	require.NoError(t, err)
	_, _, err = dial(t, secretOnly(), h.Addr())
	require.NoError(t, err)
	_, _, err = dial(t, secretOnly(), h.Addr())
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "2 connections are open already")
	require.NoError(t, first.Close())
	eventually(t, "there is room again", func() bool {
		_, _, err := dial(t, secretOnly(), h.Addr())
		return err == nil
	})
}

func TestCloseEndsAll(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly()})
	var serving atomic.Int32
	h.serve = func(c *Conn) {
		serving.Add(1)
		defer serving.Add(-1)
		_, _, _ = c.Read()
	}
	c, _, err := dial(t, secretOnly(), h.Addr())
	require.NoError(t, err)
	stranger, err := net.Dial("tcp", h.Addr())
	require.NoError(t, err)
	defer stranger.Close()
	eventually(t, "it serves", func() bool { return serving.Load() == 1 })
	require.NoError(t, h.Server.Close())
	require.Zero(t, serving.Load())
	_, _, err = c.Read()
	require.Error(t, err)
	_, _, err = dial(t, secretOnly(), h.Addr())
	require.Error(t, err)
	require.NoError(t, h.Server.Close(), "closing twice does nothing")
}

// A connection that Raw took lives on without the server.
func TestRawOutlivesServe(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly()})
	raw := make(chan net.Conn, 1)
	h.serve = func(c *Conn) { raw <- c.Raw() }
	c, _, err := dial(t, secretOnly(), h.Addr())
	require.NoError(t, err)
	other := <-raw
	mine := c.Raw()
	_, err = mine.Write([]byte("ping"))
	require.NoError(t, err)
	require.NoError(t, mine.Close())
	got, err := io.ReadAll(other)
	require.NoError(t, err)
	require.Equal(t, "ping", string(got))
	require.NoError(t, other.Close())
}

// moody is a listener that fails before it accepts.
type moody struct {
	net.Listener
	failures atomic.Int32
}

func (m *moody) Accept() (net.Conn, error) {
	if m.failures.Add(-1) >= 0 {
		return nil, syscall.EMFILE
	}
	return m.Listener.Accept()
}

func TestServerOutlivesLackOfDescriptors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m := &moody{Listener: l}
	m.failures.Store(3)
	failed := make(chan error, 3)
	s := newServer(m, ServerOptions{
		Security:     secretOnly(),
		Handle:       func(Hello) (Hello, func(*Conn), error) { return Hello{}, func(*Conn) {}, nil },
		AcceptFailed: func(err error) { failed <- err },
	})
	for range 3 {
		require.ErrorIs(t, <-failed, syscall.EMFILE)
	}
	_, _, err = dial(t, secretOnly(), s.Addr())
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

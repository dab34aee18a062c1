package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// host is a server for tests that says hello back and keeps what strangers did.
type host struct {
	*Server
	mu        sync.Mutex
	strangers chan error
	served    []Hello
	serve     func(*Conn)
	refuse    error
}

func newHost(t testing.TB, o ServerOptions) *host {
	h := &host{strangers: make(chan error, 5000), serve: func(*Conn) {}}
	o.Handle = func(hello Hello) (Hello, func(*Conn), error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.served = append(h.served, hello)
		return Hello{Purpose: "answer", From: hello.To, To: hello.From, Body: []byte("welcome")}, h.serve, h.refuse
	}
	o.Stranger = func(from net.Addr, err error) { h.strangers <- err }
	var err error
	h.Server, err = Listen("127.0.0.1:0", o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

func (h *host) handled() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.served)
}

var testHello = Hello{Purpose: "test", Cluster: "c", From: 7, To: 1 << 40, Instance: "i", Body: []byte{0, 1}}

func dial(t testing.TB, s Security, addr string) (*Conn, Hello, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, h, err := s.Dial(ctx, addr, testHello)
	if c != nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, h, err
}

func TestHandshake(t *testing.T) {
	ca := newAuthority(t)
	both := ca.security(t)
	both.Secret = secretOnly().Secret
	for name, s := range map[string]Security{"secret": secretOnly(), "TLS": ca.security(t), "both": both} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, ServerOptions{Security: s})
			h.serve = func(c *Conn) {
				kind, body, err := c.Read()
				if err == nil {
					_ = c.Write(kind+1, body, []byte(" back"))
				}
				_, _, _ = c.Read() // until the other side hangs up
			}
			c, reply, err := dial(t, s, h.Addr())
			require.NoError(t, err)
			require.Equal(t, Hello{Purpose: "answer", From: 1 << 40, To: 7, Body: []byte("welcome")}, reply)
			require.Equal(t, []Hello{testHello}, h.served)
			big := bytes.Repeat([]byte("0123456789"), 30_000)
			require.NoError(t, c.Write(4, big))
			kind, body, err := c.Read()
			require.NoError(t, err)
			require.Equal(t, byte(5), kind)
			require.Equal(t, string(big)+" back", string(body))
		})
	}
}

func TestRefusal(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly()})
	h.refuse = errors.New("not today")
	_, _, err := dial(t, secretOnly(), h.Addr())
	require.ErrorIs(t, err, ErrRefused)
	var r *Refused
	require.ErrorAs(t, err, &r)
	require.Equal(t, "not today", r.Reason)
}

func TestWrongSecret(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly()})
	_, _, err := dial(t, Security{Secret: []byte("another secret, as long")}, h.Addr())
	require.ErrorIs(t, err, ErrSecret)
	require.ErrorIs(t, <-h.strangers, ErrSecret)
	require.Zero(t, h.handled())
}

// A server without the secret is found out, whatever it answers.
func TestServerMustProveItself(t *testing.T) {
	for name, answer := range map[string]func(c net.Conn, proof []byte){
		"its own":   func(c net.Conn, _ []byte) { _ = writeProved(c, []byte{accepted, 0, 0, 0, 0, 0, 0}, make([]byte, 32)) },
		"reflected": func(c net.Conn, proof []byte) { _ = writeProved(c, []byte{accepted, 0, 0, 0, 0, 0, 0}, proof) },
		"nothing":   func(net.Conn, []byte) {},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			if _, err := readPreamble(c); err != nil {
				return
			}
			p := newPreamble()
			_, _ = c.Write(p.encode())
			_, proof, _ := readProved(c, MaxHello)
			answer(c, proof)
		}()
		_, _, err = dial(t, secretOnly(), l.Addr().String())
		require.ErrorIs(t, err, ErrSecret, name)
		<-done
		require.NoError(t, l.Close())
	}
}

// wiretap passes one connection on and records what the dialler said.
func wiretap(t *testing.T, to string) (addr string, said func() []byte) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var said1 bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		from, err := l.Accept()
		if err != nil {
			return
		}
		defer from.Close()
		c, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer c.Close()
		back := make(chan struct{})
		go func() { defer close(back); _, _ = io.Copy(from, c); _ = from.Close() }()
		_, _ = io.Copy(c, io.TeeReader(from, &said1))
		_ = c.Close()
		<-back
	}()
	return l.Addr().String(), func() []byte {
		require.NoError(t, l.Close())
		<-done
		return said1.Bytes()
	}
}

func TestReplayedHandshakeIsAStranger(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly()})
	tap, said := wiretap(t, h.Addr())
	c, _, err := dial(t, secretOnly(), tap)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	recorded := said()
	require.Equal(t, 1, h.handled())
	replay, err := net.Dial("tcp", h.Addr())
	require.NoError(t, err)
	defer replay.Close()
	_, err = replay.Write(recorded)
	require.NoError(t, err)
	answer, err := io.ReadAll(replay)
	require.NoError(t, err)
	require.Len(t, answer, preambleSize, "a stranger gets the challenge and nothing else")
	require.ErrorIs(t, <-h.strangers, ErrSecret)
	require.Equal(t, 1, h.handled())
}

// A proof over TLS is good for that connection only: whoever sits between two of them cannot pass it on.
func TestProofIsBoundToTLS(t *testing.T) {
	one := transcript{secret: secretOnly().Secret, binding: []byte("one connection"), hello: []byte("hello")}
	other := one
	other.binding = []byte("another connection")
	require.NotEqual(t, one.prove(dialler, nil), other.prove(dialler, nil))
	moved := transcript{secret: one.secret, binding: []byte("one connectio"), dialler: []byte("n"), hello: []byte("hello")}
	require.NotEqual(t, one.prove(dialler, nil), moved.prove(dialler, nil))
	require.NotEqual(t, one.prove(dialler, nil), one.prove(listener, nil))
}

func TestOtherVersions(t *testing.T) {
	h := newHost(t, ServerOptions{Security: secretOnly()})
	c, err := net.Dial("tcp", h.Addr())
	require.NoError(t, err)
	defer c.Close()
	p := newPreamble()
	p.version = wireVersion + 1
	_, err = c.Write(p.encode())
	require.NoError(t, err)
	theirs, err := readPreamble(c)
	require.NoError(t, err)
	require.EqualValues(t, wireVersion, theirs.version, "a dialler of another version can tell its user")
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	require.ErrorIs(t, <-h.strangers, ErrVersion)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write(p.encode())
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	_, _, err = dial(t, secretOnly(), l.Addr().String())
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "theirs is 2, ours is 1")
}

func TestTLSOnOneSideOnly(t *testing.T) {
	ca := newAuthority(t)
	plain, encrypted := newHost(t, ServerOptions{Security: secretOnly()}), newHost(t, ServerOptions{Security: ca.security(t)})
	_, _, err := dial(t, secretOnly(), encrypted.Addr())
	require.ErrorIs(t, err, ErrTLS)
	require.ErrorContains(t, err, "the other side uses TLS and this one does not")
	require.ErrorIs(t, <-encrypted.strangers, ErrTLS)
	_, _, err = dial(t, ca.security(t), plain.Addr())
	require.ErrorIs(t, err, ErrTLS)
	require.ErrorIs(t, <-plain.strangers, ErrTLS)
}

func TestCertificatesOfAnotherAuthority(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	h := newHost(t, ServerOptions{Security: ours.security(t)})
	_, _, err := dial(t, theirs.security(t), h.Addr())
	require.ErrorIs(t, err, ErrTLS, "the dialler does not trust the server")
	require.ErrorIs(t, <-h.strangers, ErrTLS)

	mixed := theirs.security(t)
	mixed.TLS.RootCAs = ours.security(t).TLS.RootCAs
	_, _, err = dial(t, mixed, h.Addr())
	require.ErrorIs(t, err, ErrTLS, "the server does not trust the dialler")
	require.ErrorIs(t, <-h.strangers, ErrTLS)

	bare := ours.security(t)
	bare.TLS.Certificates = nil
	_, _, err = dial(t, bare, h.Addr())
	require.ErrorIs(t, err, ErrTLS, "a dialler without a certificate")
	require.ErrorIs(t, <-h.strangers, ErrTLS)
	require.Zero(t, h.handled())
}

// Settings that would let anybody in are not left to chance.
func TestCarelessTLSIsMadeMutual(t *testing.T) {
	ca := newAuthority(t)
	careless := ca.security(t)
	careless.TLS.ClientAuth, careless.TLS.InsecureSkipVerify = 0, true
	h := newHost(t, ServerOptions{Security: careless})
	bare := ca.security(t)
	bare.TLS.Certificates = nil
	_, _, err := dial(t, bare, h.Addr())
	require.ErrorIs(t, err, ErrTLS)

	imposter := newHost(t, ServerOptions{Security: newAuthority(t).security(t)})
	_, _, err = dial(t, careless, imposter.Addr())
	require.ErrorIs(t, err, ErrTLS)
}

func TestInsecureSettings(t *testing.T) {
	everybody := newAuthority(t).security(t)
	everybody.TLS.ClientCAs = nil
	for name, s := range map[string]Security{"nothing": {}, "short": {Secret: []byte("123")}, "everybody's authorities": everybody} {
		_, err := Listen("127.0.0.1:0", ServerOptions{Security: s})
		require.ErrorIs(t, err, ErrInsecure, name)
		_, _, err = dial(t, s, "127.0.0.1:1")
		require.ErrorIs(t, err, ErrInsecure, name)
	}
}

func TestLoadTLSFails(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "127.0.0.1")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, files := range [][3]string{{"absent", cert, key}, {empty, cert, key}, {ca.file, "absent", key}, {ca.file, cert, empty}, {ca.file, key, cert}} {
		_, err := LoadTLS(files[0], files[1], files[2])
		require.Error(t, err, "%v", files)
	}
}

func TestDialIsBoundedByItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, in the system, and never answers
	require.NoError(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		if c, err := l.Accept(); err == nil {
			_, _ = readPreamble(c)
			cancel()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	s := secretOnly()
	_, _, err = s.Dial(ctx, l.Addr().String(), testHello)
	require.ErrorIs(t, err, context.Canceled)
	<-accepted
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, _, err = dial(t, secretOnly(), l.Addr().String())
	var op *net.OpError
	require.ErrorAs(t, err, &op)
}

func TestHelloComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := Hello{
			Purpose: rapid.String().Draw(t, "purpose"), Cluster: rapid.String().Draw(t, "cluster"), From: rapid.Uint64().Draw(t, "from"),
			To: rapid.Uint64().Draw(t, "to"), Instance: rapid.String().Draw(t, "instance"),
		}
		if body := rapid.SliceOf(rapid.Byte()).Draw(t, "body"); len(body) > 0 {
			h.Body = body
		}
		p, err := appendHello(nil, h)
		require.NoError(t, err)
		got, err := decodeHello(p)
		require.NoError(t, err)
		require.Equal(t, h, got)
	})
}

func TestHelloIsBounded(t *testing.T) {
	s := secretOnly()
	h := newHost(t, ServerOptions{Security: s})
	_, _, err := s.Dial(context.Background(), h.Addr(), Hello{Body: make([]byte, MaxHello)})
	require.ErrorIs(t, err, ErrTooLong)

	c, err := net.Dial("tcp", h.Addr())
	require.NoError(t, err)
	defer c.Close()
	p := newPreamble()
	_, err = c.Write(binary.LittleEndian.AppendUint32(p.encode(), MaxHello+1))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(h.strangers) > 0 }, 30*time.Second, time.Millisecond)
	for err := range h.strangers {
		if errors.Is(err, ErrCorrupt) {
			break
		}
	}
}

func FuzzHello(f *testing.F) {
	p, err := appendHello(nil, testHello)
	require.NoError(f, err)
	f.Add(p)
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := decodeHello(in)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		again, err := appendHello(nil, h)
		require.NoError(t, err)
		require.Equal(t, in, again)
	})
}

// FuzzServerHandshake is what a stranger may say, after its greeting.
func FuzzServerHandshake(f *testing.F) {
	s := secretOnly()
	p := preamble{version: wireVersion}
	hello, err := appendHello(nil, testHello)
	require.NoError(f, err)
	f.Add(append(append(binary.LittleEndian.AppendUint32(p.encode(), uint32(len(hello))), hello...), make([]byte, 32)...))
	f.Add([]byte("\x16\x03\x01 and so on"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := &tape{}
		var out bytes.Buffer
		r.Buffer.Write(in)
		g, err := s.serverHandshake(&exchange{tape: r, out: &out}, nil)
		require.Error(t, err)
		require.Nil(t, g)
		require.LessOrEqual(t, out.Len(), preambleSize)
	})
}

// exchange reads from one tape and writes to another.
type exchange struct {
	*tape
	out *bytes.Buffer
}

func (e *exchange) Write(p []byte) (int, error) { return e.out.Write(p) }

// What is on the wire must not change without a new wireVersion.
func TestHandshakeFormatIsFrozen(t *testing.T) {
	p := preamble{version: wireVersion, flags: flagTLS}
	p.nonce[31] = 7
	require.Equal(t, "756e647374756479"+"0100"+"0100"+strings.Repeat("00", 31)+"07", hex.EncodeToString(p.encode()))
	hello, err := appendHello(nil, Hello{Purpose: "link", Cluster: "c", From: 300, To: 2, Instance: "i", Body: []byte{9}})
	require.NoError(t, err)
	require.Equal(t, "046c696e6b"+"0163"+"ac02"+"02"+"0169"+"0109", hex.EncodeToString(hello))
	proof := transcript{secret: []byte("secret"), binding: []byte("b"), dialler: []byte("1"), other: []byte("2"), hello: []byte("h")}
	require.Equal(t, "521902908a0ab1018572570a2abca1bcdf5917ffd97999d974c20211e2f9d845", hex.EncodeToString(proof.prove(dialler, nil)))
	require.Equal(t, "02c44bedff5e96091019e8f0dc7d0a5def8c86a2fa41a4c411c473e121b1b97d", hex.EncodeToString(proof.prove(listener, []byte{accepted})))
	i := invitation{kind: items, attempt: 1, standing: standing{session: 2, known: 3, received: [classes]uint64{4, 5}, begin: [classes]uint64{6, 7}}}
	require.Equal(t, "01"+"01"+"02"+"03"+"0406"+"0507", hex.EncodeToString(i.encode()))
}

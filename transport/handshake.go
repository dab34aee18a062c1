package transport

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// The handshake; docs/format/wire.md shows it. The dialler speaks first and proves itself first: a stranger gets 44 bytes that
// tell nothing, and only if it knows how to ask.
//
//	dialler                          other side
//	preamble            ->
//	                    <-           preamble
//	hello, proof        ->
//	                    <-           verdict and hello, or reason; proof
const (
	wireMagic    = "undstudy"
	wireVersion  = 1
	nonceSize    = 32
	preambleSize = len(wireMagic) + 2 + 2 + nonceSize

	flagTLS = 1 // in a preamble without TLS: this side speaks with TLS only

	accepted = 0 // verdicts
	refused  = 1

	maxReason = 1 << 10

	dialler  = "understudy dialler"
	listener = "understudy listener"
)

// preamble is what each side says before the other has proved anything.
type preamble struct {
	version, flags uint16
	nonce          [nonceSize]byte
}

func newPreamble() preamble {
	p := preamble{version: wireVersion}
	rand.Read(p.nonce[:]) // never fails: the process would end
	return p
}

func (p *preamble) encode() []byte {
	b := append(make([]byte, 0, preambleSize), wireMagic...)
	b = binary.LittleEndian.AppendUint16(b, p.version)
	b = binary.LittleEndian.AppendUint16(b, p.flags)
	return append(b, p.nonce[:]...)
}

func readPreamble(r io.Reader) (p preamble, err error) {
	var b [preambleSize]byte
	// The first bytes alone: a stranger's whole greeting may be shorter than ours.
	if _, err := io.ReadFull(r, b[:len(wireMagic)]); err != nil {
		return p, err
	}
	if string(b[:3]) == "\x16\x03\x01" {
		return p, fmt.Errorf("%w: the other side uses TLS and this one does not", ErrTLS)
	}
	if string(b[:len(wireMagic)]) != wireMagic {
		return p, fmt.Errorf("%w: it begins with %q", ErrStranger, b[:len(wireMagic)])
	}
	rest := b[len(wireMagic):]
	if _, err := io.ReadFull(r, rest); err != nil {
		return p, err
	}
	p.version, p.flags = binary.LittleEndian.Uint16(rest), binary.LittleEndian.Uint16(rest[2:])
	copy(p.nonce[:], rest[4:])
	return p, nil
}

func (p *preamble) check() error {
	if p.version != wireVersion {
		return fmt.Errorf("%w: theirs is %d, ours is %d", ErrVersion, p.version, wireVersion)
	}
	if p.flags&flagTLS != 0 {
		return fmt.Errorf("%w: the other side uses TLS and this one does not", ErrTLS)
	}
	return nil
}

// transcript is what both sides have seen. A proof covers all of it, so it is good for this connection only, and for one
// direction.
type transcript struct {
	secret, binding []byte
	dialler, other  []byte // preambles
	hello           []byte // the dialler's
}

// prove is the proof of the side named who. last is what that side says with it, beyond the dialler's hello.
func (t *transcript) prove(who string, last []byte) []byte {
	m := hmac.New(sha256.New, t.secret)
	for _, p := range [][]byte{[]byte(who), t.binding, t.dialler, t.other, t.hello, last} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(p)))
		m.Write(n[:])
		m.Write(p)
	}
	return m.Sum(nil)
}

// writeProved sends a body with its length before and its proof behind.
func writeProved(w io.Writer, body, proof []byte) error {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)+len(proof)), uint32(len(body)))
	b = append(append(b, body...), proof...)
	_, err := w.Write(b)
	return err
}

func readProved(r io.Reader, limit int) (body, proof []byte, err error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, nil, err
	}
	size := binary.LittleEndian.Uint32(n[:])
	if size > uint32(limit) {
		return nil, nil, fmt.Errorf("%w: %d bytes in a handshake, at most %d", ErrCorrupt, size, limit)
	}
	b := make([]byte, int(size)+sha256.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, nil, midway(err)
	}
	return b[:size:size], b[size:], nil
}

func midway(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// clientHandshake is the dialler's side.
func (s *Security) clientHandshake(c net.Conn, binding []byte, h Hello) (Hello, error) {
	hello, err := appendHello(nil, h)
	if err != nil {
		return Hello{}, err
	}
	mine := newPreamble()
	if _, err := c.Write(mine.encode()); err != nil {
		return Hello{}, fmt.Errorf("transport: %w", err)
	}
	theirs, err := readPreamble(c)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		err = fmt.Errorf("%w, or it dies: it hung up on our greeting: %w", ErrStranger, err)
	}
	if err == nil {
		err = theirs.check()
	}
	if err != nil {
		return Hello{}, fmt.Errorf("transport: %w", err)
	}
	t := transcript{secret: s.Secret, binding: binding, dialler: mine.encode(), other: theirs.encode(), hello: hello}
	if err := writeProved(c, hello, t.prove(dialler, nil)); err != nil {
		return Hello{}, fmt.Errorf("transport: %w", err)
	}
	verdict, proof, err := readProved(c, 1+max(MaxHello, maxReason))
	if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
		return Hello{}, fmt.Errorf("%w: the other side hung up on our proof", ErrSecret)
	}
	if err != nil {
		return Hello{}, fmt.Errorf("transport: %w", err)
	}
	if !hmac.Equal(proof, t.prove(listener, verdict)) {
		return Hello{}, fmt.Errorf("%w: the other side's proof is wrong", ErrSecret)
	}
	return readVerdict(verdict)
}

func readVerdict(v []byte) (Hello, error) {
	switch {
	case len(v) > 0 && v[0] == accepted:
		return decodeHello(v[1:])
	case len(v) > 0 && v[0] == refused:
		return Hello{}, &Refused{Reason: string(v[1:])}
	}
	return Hello{}, fmt.Errorf("%w: verdict of a handshake", ErrCorrupt)
}

// guest is a dialler that has proved itself and waits for the verdict.
type guest struct {
	conn  net.Conn
	proof transcript
	hello Hello
}

// serverHandshake is the other side, up to the verdict.
func (s *Security) serverHandshake(c net.Conn, binding []byte) (*guest, error) {
	theirs, err := readPreamble(c)
	if err != nil {
		return nil, err
	}
	mine := newPreamble()
	if _, err := c.Write(mine.encode()); err != nil {
		return nil, err
	}
	if err := theirs.check(); err != nil {
		return nil, err // after ours, so that the other side can tell its user
	}
	hello, proof, err := readProved(c, MaxHello)
	if err != nil {
		return nil, err
	}
	t := transcript{secret: s.Secret, binding: binding, dialler: theirs.encode(), other: mine.encode(), hello: hello}
	if !hmac.Equal(proof, t.prove(dialler, nil)) {
		return nil, fmt.Errorf("%w: wrong proof", ErrSecret)
	}
	h, err := decodeHello(hello)
	if err != nil {
		return nil, err
	}
	return &guest{conn: c, proof: t, hello: h}, nil
}

func (g *guest) accept(reply Hello) error {
	v, err := appendHello([]byte{accepted}, reply)
	if err != nil {
		return err
	}
	return writeProved(g.conn, v, g.proof.prove(listener, v))
}

func (g *guest) refuse(reason string) error {
	v := append([]byte{refused}, reason[:min(len(reason), maxReason)]...)
	return writeProved(g.conn, v, g.proof.prove(listener, v))
}

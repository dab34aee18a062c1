package transport

import "errors"

// Errors that callers branch on. What Dial, Conn and Server return wraps one of them, or an error of package net.
var (
	// ErrSecret says that the two sides do not share a secret. A dialler learns it by the other side hanging up on its proof;
	// a peer that dies in that very moment looks the same, so a caller tries a second time before it gives up.
	ErrSecret = errors.New("transport: the cluster secrets differ")
	// ErrVersion says that the other side speaks another version of this protocol.
	ErrVersion = errors.New("transport: the versions of the wire protocol differ")
	// ErrTLS says that the TLS handshake failed, or that one side uses TLS and the other does not.
	ErrTLS = errors.New("transport: no TLS connection")
	// ErrStranger says that the other side does not speak this protocol.
	ErrStranger = errors.New("transport: the other side speaks another protocol")
	// ErrRefused is what a *Refused is: the other side knows us and does not want the connection.
	ErrRefused = errors.New("transport: refused")
	// ErrInsecure says that a Security has neither a secret nor TLS, or a secret that is too short.
	ErrInsecure = errors.New("transport: neither a shared secret nor mutual TLS")
	// ErrCorrupt says that bytes from the wire are not what a peer of this version writes.
	ErrCorrupt = errors.New("transport: corrupt")
	// ErrTooLong says that something exceeds a limit of the wire format and was not sent.
	ErrTooLong = errors.New("transport: too long for the wire")
	// ErrSilent says that nothing came from the peer for longer than the keepalive allows.
	ErrSilent = errors.New("transport: the peer is silent")
	// ErrCut says that Mesh.Cut closed the connection.
	ErrCut = errors.New("transport: cut")
	// ErrClosed says that the Server, Mesh or Conn was closed on this side.
	ErrClosed = errors.New("transport: closed")
)

// Refused is why an authenticated peer does not want a connection. errors.Is(err, ErrRefused) finds it too.
type Refused struct{ Reason string }

// Error gives the reason in the words of the other side.
func (r *Refused) Error() string { return ErrRefused.Error() + ": " + r.Reason }

// Is matches ErrRefused.
func (r *Refused) Is(target error) bool { return target == ErrRefused }

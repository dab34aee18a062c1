package transport

import (
	"context"
	"crypto/tls"
)

// MinSecret is how many bytes a cluster secret must have. It should be drawn at random: whoever records a handshake can try
// secrets against it.
const MinSecret = 16

// Security is how processes of a cluster know each other: by a shared secret, by mutual TLS, or by both. A secret alone keeps
// strangers out; against those who can read or alter what is under way use TLS. It must not be changed once it is in use, and
// may be copied and used from any goroutine.
type Security struct {
	Secret []byte      // at least MinSecret bytes; may be empty with TLS
	TLS    *tls.Config // as LoadTLS makes it; nil: none
}

// LoadTLS reads the files of a cluster's mutual TLS, all PEM: the authority that signs the certificates of all processes, and
// this process's certificate, good for both client and server, and key. The certificate must name the address at which others
// reach this process. Only TLS 1.3 is spoken.
func LoadTLS(ca, cert, key string) (*tls.Config, error) { return nil, ErrTLS }

// Dial connects to addr (host:port), proves itself, and has the other side prove itself. It returns the connection and what
// the other side says of itself. ctx bounds dialling and handshake only. The errors are ErrSecret, ErrVersion, ErrTLS,
// ErrStranger, ErrInsecure, *Refused, or of package net.
func (s *Security) Dial(ctx context.Context, addr string, h Hello) (*Conn, Hello, error) {
	return nil, Hello{}, ErrStranger
}

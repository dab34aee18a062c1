package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
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

// Validate tells what is wrong with the settings: ErrInsecure, or nil.
func (s *Security) Validate() error {
	switch n := len(s.Secret); {
	case n == 0 && s.TLS == nil:
		return ErrInsecure
	case n > 0 && n < MinSecret:
		return fmt.Errorf("%w: a secret of %d bytes, at least %d", ErrInsecure, n, MinSecret)
	case s.TLS != nil && (s.TLS.RootCAs == nil || s.TLS.ClientCAs == nil):
		return fmt.Errorf("%w: TLS without an authority of the cluster's own trusts everybody's", ErrInsecure)
	}
	return nil
}

// LoadTLS reads the files of a cluster's mutual TLS, all PEM: the authority that signs the certificates of all processes, and
// this process's certificate, good for both client and server, and key. The certificate must name the address at which others
// reach this process; whoever wants one name for all sets ServerName. Only TLS 1.3 is spoken.
func LoadTLS(ca, cert, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("transport: reading the certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("transport: %s has no certificate in PEM", ca)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("transport: reading certificate and key: %w", err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
	}, nil
}

// config is the TLS configuration as it is used. Mutual authentication and TLS 1.3 are not left to the caller: the one is what
// makes TLS enough without a secret, the other binds the handshake to the connection.
func (s *Security) config() *tls.Config {
	c := s.TLS.Clone()
	c.MinVersion, c.ClientAuth = tls.VersionTLS13, tls.RequireAndVerifyClientCert
	c.InsecureSkipVerify = false
	c.SessionTicketsDisabled = true         // a ticket would outlive the certificate that earned it
	c.DynamicRecordSizingDisabled = true    // batches, not pages: records may be long from the start
	c.NextProtos = []string{"understudy/1"} // so that another protocol's client with a good certificate gets no further
	return c
}

// Dial connects to addr (host:port), proves itself, and has the other side prove itself. It returns the connection and what
// the other side says of itself. ctx bounds dialling and handshake only; the handshake takes DefaultHandshakeTimeout at most. The errors are ErrSecret, ErrVersion, ErrTLS,
// ErrStranger, ErrInsecure, ErrTooLong, *Refused, ctx's, or of package net.
func (s *Security) Dial(ctx context.Context, addr string, h Hello) (*Conn, Hello, error) {
	if err := s.Validate(); err != nil {
		return nil, Hello{}, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, Hello{}, fmt.Errorf("transport: %w", err)
	}
	conn, reply, err := s.client(ctx, c, addr, h)
	if err != nil {
		return nil, Hello{}, errors.Join(err, c.Close())
	}
	return conn, reply, nil
}

// client runs the dialler's side of the handshake on c, within ctx.
func (s *Security) client(ctx context.Context, c net.Conn, addr string, h Hello) (*Conn, Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, DefaultHandshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(time.Unix(1, 0)) // fails if the connection is closed, which serves as well
	})
	conn, reply, err := s.greet(ctx, c, addr, h)
	if !stop() {
		return nil, Hello{}, fmt.Errorf("transport: handshake with %s: %w", addr, ctx.Err())
	}
	if err != nil {
		return nil, Hello{}, fmt.Errorf("handshake with %s: %w", addr, err)
	}
	return conn, reply, nil
}

func (s *Security) greet(ctx context.Context, c net.Conn, addr string, h Hello) (*Conn, Hello, error) {
	var binding []byte
	if s.TLS != nil {
		config := s.config()
		if config.ServerName == "" {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, Hello{}, fmt.Errorf("transport: %w", err)
			}
			config.ServerName = host
		}
		t := tls.Client(c, config)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, Hello{}, fmt.Errorf("%w: %w", ErrTLS, err)
		}
		var err error
		if binding, err = bindingOf(t); err != nil {
			return nil, Hello{}, err
		}
		c = t
	}
	reply, err := s.clientHandshake(c, binding, h)
	if err != nil {
		return nil, Hello{}, tlsReason(err)
	}
	return newConn(c), reply, nil
}

// bindingOf is a value that both ends of one TLS connection have, and nobody else.
func bindingOf(t *tls.Conn) ([]byte, error) {
	state := t.ConnectionState()
	binding, err := state.ExportKeyingMaterial("EXPORTER-understudy", nil, 32)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return binding, nil
}

// tlsReason marks what the other side's TLS says: a server refuses a client's certificate only after the client is through.
func tlsReason(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return err
}

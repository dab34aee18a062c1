package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/understudy-stream/understudy/transport"
)

// MinSecret is how many bytes a secret has at least.
const MinSecret = transport.MinSecret

// Errors of credentials.
var (
	ErrShortSecret   = errors.New("supervisor: the secret is too short")
	ErrNoCredentials = errors.New("supervisor: neither a secret nor TLS was given")
)

// Credentials are how the processes of a cluster know each other.
type Credentials struct {
	Secret     []byte // at least MinSecret bytes. Empty: from SecretFile
	SecretFile string // white space around the secret does not count
	// CA, Certificate and Key are PEM files for mutual TLS, all three or none.
	CA, Certificate, Key string
}

// Validate tells what is wrong with the credentials, without opening files.
func (c *Credentials) Validate() error {
	given := 0
	for _, file := range []string{c.CA, c.Certificate, c.Key} {
		if file != "" {
			given++
		}
	}
	switch {
	case given != 0 && given != 3:
		return errors.New("supervisor: TLS needs the files of an authority, a certificate and its key, all three")
	case len(c.Secret) > 0 && len(c.Secret) < MinSecret:
		return fmt.Errorf("%w: %d bytes, want at least %d", ErrShortSecret, len(c.Secret), MinSecret)
	}
	return nil
}

// Security reads the files.
func (c *Credentials) Security() (transport.Security, error) {
	if err := c.Validate(); err != nil {
		return transport.Security{}, err
	}
	s := transport.Security{Secret: c.Secret}
	var err error
	if len(s.Secret) == 0 && c.SecretFile != "" {
		if s.Secret, err = ReadSecret(c.SecretFile); err != nil {
			return s, err
		}
	}
	if c.CA != "" {
		if s.TLS, err = transport.LoadTLS(c.CA, c.Certificate, c.Key); err != nil {
			return s, err
		}
	}
	if len(s.Secret) == 0 && s.TLS == nil {
		return s, ErrNoCredentials
	}
	return s, nil
}

// ReadSecret reads a secret from a file.
func ReadSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("supervisor: secret: %w", err)
	}
	secret := bytes.TrimSpace(text)
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("%w: %s has %d bytes, want at least %d", ErrShortSecret, path, len(secret), MinSecret)
	}
	return secret, nil
}

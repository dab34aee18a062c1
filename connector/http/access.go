package http

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// ErrAccess is returned when the other side refuses the token, or a secret cannot be had.
var ErrAccess = permanent("http: access")

// Access is how two sides of a connection know each other. The zero value is plain HTTP without a token. Secrets are in files or in the
// environment and are never printed.
type Access struct {
	TokenFile string // a file whose first line is the token that goes with every request
	TokenEnv  string // or the environment variable that has it
	CA        string // PEM file of the authorities that a server's certificate is checked with; default: those of the system
	Cert, Key string // PEM files; a server with them speaks TLS
}

// Validate tells what is wrong with the options.
func (a *Access) Validate() error {
	if a.TokenFile != "" && a.TokenEnv != "" {
		return errors.New("http: a token is in a file or in a variable, not in both")
	}
	if (a.Cert == "") != (a.Key == "") {
		return errors.New("http: a certificate needs its key, and a key its certificate")
	}
	return nil
}

// token reads the token; empty if there is none.
func (a *Access) token() (string, error) {
	text := ""
	switch {
	case a.TokenFile != "":
		data, err := os.ReadFile(a.TokenFile)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrAccess, err)
		}
		text, _, _ = strings.Cut(string(data), "\n")
	case a.TokenEnv != "":
		text = os.Getenv(a.TokenEnv)
	default:
		return "", nil
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", fmt.Errorf("%w: the token in %s%s is empty", ErrAccess, a.TokenFile, a.TokenEnv)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < '!' || r > '~' }) {
		return "", fmt.Errorf("%w: the token in %s%s has characters that no header can carry", ErrAccess, a.TokenFile, a.TokenEnv)
	}
	return text, nil
}

// caller makes requests with the token. Its client follows no redirect: a POST would become another request.
type caller struct {
	client *http.Client
	bearer string
}

func (a *Access) caller(connections int) (*caller, error) {
	token, err := a.token()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext,
		TLSHandshakeTimeout: dialTimeout, IdleConnTimeout: time.Minute,
		MaxIdleConnsPerHost: connections,
	}
	if a.CA != "" {
		pem, err := os.ReadFile(a.CA)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAccess, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s has no certificate", ErrAccess, a.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c := &caller{client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if token != "" {
		c.bearer = "Bearer " + token
	}
	return c, nil
}

const (
	dialTimeout = 5 * time.Second
	keepAlive   = 15 * time.Second
)

// do sends a request with the token.
func (c *caller) do(r *http.Request) (*http.Response, error) {
	if c.bearer != "" {
		r.Header.Set("Authorization", c.bearer)
	}
	return c.client.Do(r)
}

func (c *caller) close() { c.client.CloseIdleConnections() }

// guard lets only requests with the token through to next.
func guard(token string, next http.Handler) http.Handler {
	if token == "" {
		return next
	}
	want := sha256.Sum256([]byte("Bearer " + token)) // of equal length, so that the comparison tells nothing
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "the token is missing or wrong")
			return
		}
		next.ServeHTTP(w, r)
	})
}

package kafka

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/understudy-stream/understudy/operator"
)

// Names of the SASL mechanisms that ClientOptions.Mechanism may have.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// ClientOptions says how to reach the brokers. No field holds a secret: a password is in a file or in the environment, and is read
// each time a client is made, so that it may be changed while the job runs.
type ClientOptions struct {
	// Brokers are the addresses, host:port, of some brokers; the others are learnt from them. Required.
	Brokers []string
	// ClientID is how the brokers' logs and quotas call the client. Default "understudy".
	ClientID string

	// TLS encrypts connections. It is implied by each of the three files.
	TLS bool
	// CAFile has the certificates, in PEM, that sign the brokers'. Default: those of the system.
	CAFile string
	// CertFile and KeyFile have this client's certificate and key, in PEM. Both or none.
	CertFile, KeyFile string

	// Mechanism is Plain, ScramSHA256 or ScramSHA512; "" is no SASL.
	Mechanism string
	// User is the SASL user.
	User string
	// PasswordFile has the SASL password; one newline at its end is cut off.
	PasswordFile string
	// PasswordEnv is the environment variable that has the SASL password. One of the two.
	PasswordEnv string

	dial        dialer        // of tests: what connects; nil is the network
	metadataAge time.Duration // of tests: 0 is metadataAge
	unreachable func(error)   // is told of each connection that cannot be made; may be nil
}

// connects tells of connections that cannot be made: a client that waits for its brokers says so nowhere else.
type connects struct{ unreachable func(error) }

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (c connects) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		c.unreachable(fmt.Errorf("kafka: %w", err))
	}
}

// EnsureDefaults fills in what is zero.
func (o *ClientOptions) EnsureDefaults() {
	if o.ClientID == "" {
		o.ClientID = "understudy"
	}
	if o.CAFile != "" || o.CertFile != "" || o.KeyFile != "" {
		o.TLS = true
	}
}

// Validate tells what is wrong with the options. It does not look at files.
func (o *ClientOptions) Validate() error {
	if len(o.Brokers) == 0 {
		return errors.New("kafka: no broker is named")
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("kafka: a certificate needs its key, and the key its certificate")
	}
	switch strings.ToUpper(o.Mechanism) {
	case "":
		if o.User != "" || o.PasswordFile != "" || o.PasswordEnv != "" {
			return fmt.Errorf("kafka: a user or password without a mechanism: %s, %s or %s", Plain, ScramSHA256, ScramSHA512)
		}
	case Plain, ScramSHA256, ScramSHA512:
		if o.User == "" || (o.PasswordFile == "") == (o.PasswordEnv == "") {
			return fmt.Errorf("kafka: %s needs a user, and a password from either a file or the environment", o.Mechanism)
		}
	default:
		return fmt.Errorf("kafka: unknown mechanism %q: %s, %s or %s", o.Mechanism, Plain, ScramSHA256, ScramSHA512)
	}
	return nil
}

// password reads the password. It is never part of an error.
func (o *ClientOptions) password() (string, error) {
	if o.PasswordEnv != "" {
		p, ok := os.LookupEnv(o.PasswordEnv)
		if !ok || p == "" {
			return "", fmt.Errorf("kafka: the environment variable %s holds no password", o.PasswordEnv)
		}
		return p, nil
	}
	data, err := os.ReadFile(o.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("kafka: %w", err)
	}
	p := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if p == "" {
		return "", fmt.Errorf("kafka: %s holds no password", o.PasswordFile)
	}
	return p, nil
}

// sasl gives the mechanism, nil if there is none.
func (o *ClientOptions) sasl() (sasl.Mechanism, error) {
	if o.Mechanism == "" {
		return nil, nil
	}
	p, err := o.password()
	if err != nil {
		return nil, err
	}
	switch strings.ToUpper(o.Mechanism) {
	case ScramSHA256:
		return scram.Auth{User: o.User, Pass: p}.AsSha256Mechanism(), nil
	case ScramSHA512:
		return scram.Auth{User: o.User, Pass: p}.AsSha512Mechanism(), nil
	}
	return plain.Auth{User: o.User, Pass: p}.AsMechanism(), nil
}

// tls gives the configuration of connections, nil if they are plain.
func (o *ClientOptions) tls() (*tls.Config, error) {
	if !o.TLS {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kafka: %s holds no certificate", o.CAFile)
		}
	}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Waits of a client between two tries of one request, and between two looks at the metadata.
const (
	firstRetry  = 5 * time.Millisecond
	lastRetry   = time.Second
	metadataAge = 100 * time.Millisecond
)

// backoff is the wait before the next try, after tries that failed.
func backoff(tries int) time.Duration {
	return min(lastRetry, firstRetry<<min(max(tries-1, 0), 10))
}

// NewClient makes a client as those of sources and sinks are, with more options: for a program that reads or writes there by itself.
// The caller closes it.
func (o *ClientOptions) NewClient(more ...kgo.Opt) (*kgo.Client, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Brokers...), kgo.ClientID(o.ClientID), kgo.DisableClientMetrics(),
		kgo.RetryBackoffFn(backoff), kgo.MetadataMinAge(cmp.Or(o.metadataAge, metadataAge)),
	}
	if o.unreachable != nil {
		opts = append(opts, kgo.WithHooks(connects{o.unreachable}))
	}
	secure, err := o.tls()
	if err != nil {
		return nil, err
	}
	switch {
	case o.dial != nil:
		opts = append(opts, kgo.Dialer(o.dial))
	case secure != nil:
		opts = append(opts, kgo.DialTLSConfig(secure))
	}
	mechanism, err := o.sasl()
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	c, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w: %w", operator.ErrPermanent, err)
	}
	return c, nil
}

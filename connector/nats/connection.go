package nats

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/understudy-stream/understudy/operator"
)

// The environment variables that credentials are taken from where a Connection names no file.
const (
	EnvToken    = "UNDERSTUDY_NATS_TOKEN"
	EnvPassword = "UNDERSTUDY_NATS_PASSWORD" // goes with Connection.User
)

// Errors that a caller may branch on, of the source and of the sink.
var (
	// ErrNoStream is returned when there is no stream of that name and it is not to be made.
	ErrNoStream = permanent("nats: there is no such stream")
	// ErrUnfit is returned for a stream that is set up so that nothing can be guaranteed: with work-queue retention, say.
	ErrUnfit = permanent("nats: the stream is not set up for this")
)

// permanent makes an error that ends the job: whoever tries again gets it again.
func permanent(text string) error { return permanentError(text) }

type permanentError string

func (e permanentError) Error() string        { return string(e) }
func (e permanentError) Is(target error) bool { return target == operator.ErrPermanent }

// Connection says how to reach the servers. No secret is in it: secrets are read from files, or from the environment, whenever a
// connection is made, so that they may be renewed while a job runs.
type Connection struct {
	// Servers are addresses such as host:4222, nats://host:4222 or tls://host:4222, of which one that answers is used. Default
	// 127.0.0.1:4222. An address with a password or token in it is refused.
	Servers []string
	// CredentialsFile has a user's JWT and seed, NKeyFile a seed, TokenFile a token; PasswordFile has the password of User.
	CredentialsFile, NKeyFile, TokenFile string
	User, PasswordFile                   string
	// TLSCA, TLSCert and TLSKey are files in PEM: who is trusted, and who this is. With any of them the connection is encrypted.
	TLSCA, TLSCert, TLSKey string
	// Domain is the JetStream domain, if it is not that of the servers.
	Domain string
	// Timeout bounds one request to the server, in which an outage is noticed, and not how long one is waited for. Default 5 s.
	Timeout time.Duration
}

// EnsureDefaults fills in what is zero.
func (c *Connection) EnsureDefaults() {
	if len(c.Servers) == 0 {
		c.Servers = []string{"127.0.0.1:4222"}
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
}

// Validate tells what is wrong with the options, without a word of what may be secret.
func (c *Connection) Validate() error {
	for i, s := range c.Servers {
		if strings.Contains(s, "@") {
			return fmt.Errorf("nats: server %d has credentials in its address: they belong in a file or in %s", i, EnvPassword)
		}
		if _, err := c.address(s); err != nil {
			return fmt.Errorf("nats: server %d: %w", i, err)
		}
	}
	ways := 0
	for _, file := range []string{c.CredentialsFile, c.NKeyFile, c.TokenFile, c.User} {
		if file != "" {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errors.New("nats: more than one of credentials, nkey, token and user")
	case c.PasswordFile != "" && c.User == "":
		return errors.New("nats: a password file without a user")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("nats: a TLS certificate goes with its key")
	case c.Timeout < 0:
		return fmt.Errorf("nats: negative timeout %v", c.Timeout)
	}
	return nil
}

// address makes a server's address a URL.
func (c *Connection) address(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", errors.New("the address is no URL") // the parser's error repeats it
	}
	if u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return "", fmt.Errorf("the address is not one of nats://host:port, with scheme %q and host %q", u.Scheme, u.Host)
	}
	return u.Scheme + "://" + u.Host, nil
}

// prefix is what the subjects of the JetStream API begin with.
func (c *Connection) prefix() string {
	if c.Domain != "" {
		return "$JS." + c.Domain + ".API."
	}
	return "$JS.API."
}

// secret reads a secret from a file, or else from the environment.
func secret(file, variable string) (string, error) {
	if file == "" {
		return os.Getenv(variable), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("nats: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// authentication looks at every secret once, so that a file that is missing is noticed, and has it read again at each connect.
func (c *Connection) authentication() ([]client.Option, error) {
	var opts []client.Option
	again := func(file, variable string) func() string {
		return func() string {
			s, err := secret(file, variable)
			if err != nil {
				return "" // the server refuses, which is said
			}
			return s
		}
	}
	switch {
	case c.CredentialsFile != "":
		if _, err := secret(c.CredentialsFile, ""); err != nil {
			return nil, err
		}
		opts = append(opts, client.UserCredentials(c.CredentialsFile))
	case c.NKeyFile != "":
		o, err := client.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("nats: the nkey file %s cannot be used", c.NKeyFile)
		}
		opts = append(opts, o)
	case c.User != "":
		if _, err := secret(c.PasswordFile, EnvPassword); err != nil {
			return nil, err
		}
		password := again(c.PasswordFile, EnvPassword)
		opts = append(opts, client.UserInfoHandler(func() (string, string) { return c.User, password() }))
	case c.TokenFile != "" || os.Getenv(EnvToken) != "":
		if _, err := secret(c.TokenFile, EnvToken); err != nil {
			return nil, err
		}
		opts = append(opts, client.TokenHandler(again(c.TokenFile, EnvToken)))
	}
	if c.TLSCA != "" {
		opts = append(opts, client.RootCAs(c.TLSCA))
	}
	if c.TLSCert != "" {
		opts = append(opts, client.ClientCert(c.TLSCert, c.TLSKey))
	}
	return opts, nil
}

const (
	reconnectWait = 100 * time.Millisecond
	pingInterval  = 2 * time.Second // a server that hangs is left after three
	pingsOut      = 3
)

// options are those of a connection that is never given up: whoever uses it says how long it waits.
func (c *Connection) options(name string) ([]client.Option, error) {
	opts, err := c.authentication()
	if err != nil {
		return nil, err
	}
	return append(opts,
		client.Name(name),
		client.RetryOnFailedConnect(true), client.MaxReconnects(-1), client.ReconnectWait(reconnectWait),
		client.ReconnectBufSize(-1), // a message that waited for a connection would come when nobody expects it
		client.IgnoreAuthErrorAbort(),
		client.Timeout(c.Timeout), client.PingInterval(pingInterval), client.MaxPingsOutstanding(pingsOut),
		client.DrainTimeout(c.Timeout),
		client.ErrorHandler(func(*client.Conn, *client.Subscription, error) {}), // whoever waits for an answer says that it does not come
	), nil
}

// Connect makes a connection as those of sources and sinks are: for a program that reads or writes there by itself. It returns at once; the
// connection is made, and made again, as soon as a server answers. The caller closes it.
func (c *Connection) Connect(name string, more ...client.Option) (*client.Conn, error) {
	opts, err := c.options(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", operator.ErrPermanent, err)
	}
	var servers []string
	for _, s := range c.Servers {
		address, err := c.address(s)
		if err != nil {
			return nil, fmt.Errorf("%w: nats: %w", operator.ErrPermanent, err)
		}
		servers = append(servers, address)
	}
	conn, err := client.Connect(strings.Join(servers, ","), append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("%w: nats: connecting to %s: %w", operator.ErrPermanent, strings.Join(c.Servers, ", "), err)
	}
	return conn, nil
}

// link is a connection that is made when it is first used.
type link struct {
	options Connection
	name    string
	mu      struct {
		sync.Mutex
		conn   *client.Conn
		js     jetstream.JetStream
		closed bool
		// session ends when the connection breaks: what was asked over it is not answered any more.
		session context.Context
		broken  context.CancelCauseFunc
	}
}

// begin begins a session.
func (l *link) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.broken != nil {
		l.mu.broken(client.ErrDisconnected)
	}
	l.mu.session, l.mu.broken = context.WithCancelCause(context.Background())
}

// end ends the session.
func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.broken(client.ErrDisconnected)
}

// current is the present session.
func (l *link) current() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.session
}

// bounded bounds a request: by a time, and by the life of the connection.
func (l *link) bounded(ctx context.Context, most time.Duration) (context.Context, func()) {
	session := l.current()
	ctx, broken := context.WithCancelCause(ctx)
	ctx, cancel := context.WithTimeoutCause(ctx, most, client.ErrTimeout)
	stop := context.AfterFunc(session, func() { broken(context.Cause(session)) })
	return ctx, func() { stop(); cancel(); broken(nil) }
}

// because says why a request failed: if its context ended, why that was.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// get gives the connection. It may still be on its way.
func (l *link) get() (*client.Conn, jetstream.JetStream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.conn != nil {
		return l.mu.conn, l.mu.js, nil
	}
	if l.mu.closed {
		return nil, nil, fmt.Errorf("nats: %w", client.ErrConnectionClosed)
	}
	l.mu.session, l.mu.broken = context.WithCancelCause(context.Background())
	conn, err := l.options.Connect(l.name, client.DisconnectErrHandler(func(*client.Conn, error) { l.end() }),
		client.ReconnectHandler(func(*client.Conn) { l.begin() }), client.ConnectHandler(func(*client.Conn) { l.begin() }))
	if err != nil {
		return nil, nil, err
	}
	var js jetstream.JetStream
	if l.options.Domain != "" {
		js, err = jetstream.NewWithDomain(conn, l.options.Domain)
	} else {
		js, err = jetstream.New(conn)
	}
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("nats: %w", err)
	}
	l.mu.conn, l.mu.js = conn, js
	return conn, js, nil
}

// close ends the connection for good.
func (l *link) close() {
	l.mu.Lock()
	conn := l.mu.conn
	l.mu.conn, l.mu.js, l.mu.closed = nil, nil, true
	l.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// where names the servers for people.
func (l *link) where() string { return "NATS at " + strings.Join(l.options.Servers, ", ") }

// state says how the connection is, for people.
func (l *link) state() string {
	l.mu.Lock()
	conn := l.mu.conn
	l.mu.Unlock()
	switch {
	case conn == nil:
		return "not connected"
	case conn.IsConnected():
		return "connected to " + conn.ConnectedAddr()
	case conn.LastError() != nil:
		return fmt.Sprintf("no connection: %v", conn.LastError())
	}
	return "no connection yet"
}

// passing tells whether an error is of the kind that goes away: an outage, a leader that is being elected, a stream that is full.
// All others are returned to the caller at once.
func passing(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch {
		case api.ErrorCode == codeStoreFailed, api.ErrorCode == codeNoResources, api.ErrorCode == codeAccountFull,
			api.ErrorCode == codeDuplicate, api.ErrorCode == codeNotReady:
			return true
		}
		return api.Code == 503 || api.Code == 408 || api.Code == 429 || api.Code == 500
	}
	for _, known := range []error{
		client.ErrTimeout, client.ErrNoResponders, client.ErrDisconnected, client.ErrConnectionReconnecting, client.ErrReconnectBufExceeded,
		client.ErrStaleConnection, client.ErrNoServers, client.ErrAuthorization, client.ErrAuthExpired, client.ErrAuthRevoked,
		client.ErrPermissionViolation, client.ErrSlowConsumer, client.ErrConnectionClosed, client.ErrBadSubscription,
		jetstream.ErrNoHeartbeat, jetstream.ErrNoStreamResponse, jetstream.ErrServerShutdown, jetstream.ErrConsumerDeleted, jetstream.ErrConsumerNotFound,
		jetstream.ErrConnectionClosed, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// Codes of the JetStream API that the client's library has no name for.
const (
	codeNoMessage       jetstream.ErrorCode = 10037
	codeNoStream        jetstream.ErrorCode = 10059
	codeWrongSequence   jetstream.ErrorCode = 10071
	codeWrongConstant   jetstream.ErrorCode = 10164
	codeWrongMessage    jetstream.ErrorCode = 10070
	codeStoreFailed     jetstream.ErrorCode = 10077 // the stream is full
	codeNoResources     jetstream.ErrorCode = 10023
	codeAccountFull     jetstream.ErrorCode = 10002
	codeDuplicate       jetstream.ErrorCode = 10158
	codeNotReady        jetstream.ErrorCode = 10163
	codeDeleteNotFound  jetstream.ErrorCode = 10043
	codeMessageTooLarge jetstream.ErrorCode = 10054
)

// refused tells whether the server did not store a message because something else came before it.
func refused(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == codeWrongSequence || api.ErrorCode == codeWrongMessage || api.ErrorCode == codeWrongConstant)
}

func isCode(err error, code jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}

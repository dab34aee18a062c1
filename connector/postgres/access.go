package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Access says how a server is reached. Sources and sinks have it in their options.
type Access struct {
	// URL is the server's address, such as postgres://user@host:5432/database?sslmode=verify-full, or the same in the form
	// "host=… dbname=…". What it leaves out comes from the environment, as for psql: PGHOST, PGUSER, PGPASSWORD, PGPASSFILE.
	URL string
	// PasswordFile is a file whose first line is the password. It is read for each connection, so that the password may change.
	PasswordFile string
	// PasswordEnv is the environment variable that has the password, if it is not PGPASSWORD.
	PasswordEnv string
	// ConnectTimeout bounds the first try to connect. Default 5 s. There are tries until one succeeds; where one took too long, the next
	// has twice the time, up to 30 s.
	ConnectTimeout time.Duration
	// Waiting is called before each new try while the server cannot be used, with the reason, and with nil when what was tried goes on. It
	// may be called from several goroutines, and must not block.
	Waiting func(error)
}

// EnsureDefaults fills in what is zero.
func (a *Access) EnsureDefaults() {
	if a.ConnectTimeout == 0 {
		a.ConnectTimeout = 5 * time.Second
	}
}

// Validate tells what is wrong with the options.
func (a *Access) Validate() error {
	if a.ConnectTimeout < 0 {
		return fmt.Errorf("postgres: negative connect timeout %v", a.ConnectTimeout)
	}
	if a.PasswordFile != "" && a.PasswordEnv != "" {
		return errors.New("postgres: the password is to come from a file and from a variable")
	}
	_, err := a.parse()
	return err
}

func (a *Access) parse() (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(a.URL)
	if err == nil {
		return config, nil
	}
	if mayHoldSecret(a.URL) { // what the parser says may have a piece of the password in it
		return nil, permanent("postgres: the URL cannot be parsed; a password with special characters must be percent-encoded, or come from a file")
	}
	return nil, fmt.Errorf("%w: %w", errURL, err)
}

var errURL = permanent("postgres: the URL cannot be parsed")

// mayHoldSecret tells whether a URL, well formed or not, may have a password in it.
func mayHoldSecret(text string) bool {
	text = strings.ToLower(text)
	_, rest, isURL := strings.Cut(text, "://")
	at := strings.LastIndexByte(rest, '@')
	return strings.Contains(text, "password") || isURL && at >= 0 && strings.Contains(rest[:at], ":")
}

// config is the configuration of a new connection: what the URL says, the password of this moment, and settings under which
// a session gives the same text for the same value wherever it runs.
func (a *Access) config(name string, settings map[string]string) (*pgx.ConnConfig, error) {
	config, err := a.parse()
	if err != nil {
		return nil, err
	}
	if err := a.password(config); err != nil {
		return nil, err
	}
	if !strings.Contains(a.URL, "connect_timeout") {
		config.ConnectTimeout = a.ConnectTimeout
	}
	for key, value := range map[string]string{
		"application_name": name, "timezone": "UTC", "datestyle": "ISO, YMD", "intervalstyle": "iso_8601", "bytea_output": "hex",
		"extra_float_digits": "1", "default_transaction_isolation": "read committed", "statement_timeout": "0", "lock_timeout": "0",
	} {
		config.RuntimeParams[key] = value
	}
	for key, value := range settings {
		config.RuntimeParams[key] = value
	}
	return config, nil
}

func (a *Access) password(config *pgx.ConnConfig) error {
	if a.PasswordEnv != "" {
		value, ok := os.LookupEnv(a.PasswordEnv)
		if !ok {
			return fmt.Errorf("%w: the environment has no variable %s", errSecret, a.PasswordEnv)
		}
		config.Password = value
	}
	if a.PasswordFile != "" {
		data, err := os.ReadFile(a.PasswordFile)
		if err != nil {
			return fmt.Errorf("%w: %w", errSecret, err)
		}
		config.Password, _, _ = strings.Cut(string(data), "\n")
		config.Password = strings.TrimSuffix(config.Password, "\r")
	}
	return nil
}

var errSecret = permanent("postgres: no password")

// Connect opens a session as those of sources and sinks are, under a name that the server shows: for a program that reads or writes
// there by itself. It tries once. The caller closes it.
func (a *Access) Connect(ctx context.Context, name string) (*pgx.Conn, error) {
	return a.connect(ctx, name, nil)
}

// connect opens a connection. Its errors do not show the password.
func (a *Access) connect(ctx context.Context, name string, settings map[string]string) (*pgx.Conn, error) {
	config, err := a.config(name, settings)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, classified(redacted(err, config.Password))
	}
	return conn, nil
}

// redact takes a password out of a text, as it is and as it stands in a URL.
func redact(text, password string) string {
	if password == "" {
		return text
	}
	for _, form := range []string{password, url.QueryEscape(password), url.PathEscape(password), url.UserPassword("", password).String()[1:]} {
		text = strings.ReplaceAll(text, form, "…")
	}
	return text
}

package nats

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SinkFromURL makes the options of a sink from nats://host:port,host:port/stream?subject=orders. Parameters are
//
//	subject, replicas, create=false                            see SinkOptions
//	creds, nkey, token-file, user, password-file               files of secrets, and a user's name: see Connection
//	tls-ca, tls-cert, tls-key, domain, timeout                 see Connection
//
// The scheme tls:// encrypts. A URL with a password or token in it is refused; errors do not repeat the URL.
func SinkFromURL(text string) (SinkOptions, error) {
	var o SinkOptions
	p, err := splitURL(text)
	if err != nil {
		return o, err
	}
	if o.Connection, err = p.connection(); err != nil {
		return o, err
	}
	o.Stream, o.Subject = p.path, p.text("subject")
	o.Replicas, o.NoCreate = int(p.number("replicas")), !p.truth("create", true)
	if err := p.finish(); err != nil {
		return o, err
	}
	o.EnsureDefaults()
	return o, o.Validate()
}

// SourceFromURL makes the options of a source from nats://host:port/stream,stream?subject=orders. Parameters are those of
// SinkFromURL that are about the connection, and
//
//	subject                                                    may be repeated
//	bounded=true, ranges, allow-removed=true, ahead            see SourceOptions
func SourceFromURL(text string) (SourceOptions, error) {
	var o SourceOptions
	p, err := splitURL(text)
	if err != nil {
		return o, err
	}
	if o.Connection, err = p.connection(); err != nil {
		return o, err
	}
	o.Streams, o.Subjects = strings.Split(p.path, ","), p.all("subject")
	o.Bounded, o.AllowRemoved = p.truth("bounded", false), p.truth("allow-removed", false)
	o.Ranges, o.Ahead = int(p.number("ranges")), int(p.number("ahead"))
	if err := p.finish(); err != nil {
		return o, err
	}
	o.EnsureDefaults()
	return o, o.Validate()
}

// parsedURL is a URL of which parameters are taken one by one.
type parsedURL struct {
	servers []string
	path    string
	values  url.Values
	errs    []error
}

func splitURL(text string) (*parsedURL, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "nats" && scheme != "tls" {
		return nil, errors.New("nats: a URL begins with nats:// or tls://")
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	if strings.Contains(rest, "@") {
		return nil, fmt.Errorf("nats: a URL must have no credentials in it: name a file (creds=, token-file=, password-file=) or set %s or %s",
			EnvToken, EnvPassword)
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return nil, errors.New("nats: the stream in the URL is badly escaped")
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("nats: the parameters of the URL are badly escaped")
	}
	p := &parsedURL{path: path, values: values}
	for _, host := range strings.Split(hosts, ",") {
		if host == "" {
			return nil, errors.New("nats: the URL has no host, or an empty one")
		}
		p.servers = append(p.servers, scheme+"://"+host)
	}
	return p, nil
}

// all takes a parameter that may be repeated.
func (p *parsedURL) all(name string) []string {
	v := p.values[name]
	delete(p.values, name)
	return v
}

func (p *parsedURL) text(name string) string {
	v := p.all(name)
	if len(v) > 1 {
		p.errs = append(p.errs, fmt.Errorf("nats: %d values of %s in the URL", len(v), name))
	}
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

func (p *parsedURL) number(name string) uint64 {
	text := p.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		p.errs = append(p.errs, fmt.Errorf("nats: %s in the URL is no number from 1 on", name))
	}
	return n
}

func (p *parsedURL) truth(name string, otherwise bool) bool {
	switch p.text(name) {
	case "":
		return otherwise
	case "true":
		return true
	case "false":
		return false
	}
	p.errs = append(p.errs, fmt.Errorf("nats: %s in the URL is neither true nor false", name))
	return otherwise
}

func (p *parsedURL) connection() (Connection, error) {
	c := Connection{
		Servers: p.servers, CredentialsFile: p.text("creds"), NKeyFile: p.text("nkey"), TokenFile: p.text("token-file"), User: p.text("user"),
		PasswordFile: p.text("password-file"), TLSCA: p.text("tls-ca"), TLSCert: p.text("tls-cert"), TLSKey: p.text("tls-key"),
		Domain: p.text("domain"),
	}
	for _, secret := range []string{"password", "token"} {
		if p.values.Has(secret) {
			return c, fmt.Errorf("nats: a %s does not belong in a URL: use %s-file=FILE or the environment", secret, secret)
		}
	}
	if text := p.text("timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			p.errs = append(p.errs, errors.New("nats: timeout in the URL is no duration such as 5s"))
		}
		c.Timeout = d
	}
	return c, nil
}

// finish tells what was wrong, and which parameters nobody has taken.
func (p *parsedURL) finish() error {
	var names []string
	for name := range p.values { //lint:sorted below
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) > 0 {
		p.errs = append(p.errs, fmt.Errorf("nats: unknown parameters %q in the URL", names))
	}
	return errors.Join(p.errs...)
}

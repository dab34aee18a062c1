package http

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FromURL makes options of ingest servers and of the source that reads them from a URL such as
//
//	http://10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080/?dir=/var/lib/ingest&token-file=/etc/ingest.token
//
// Each server's name is its host and port, unless it is given as name=host:port. Parameters are dir, listen, name, token-file, token-env,
// tls-ca, tls-cert, tls-key, max-body, max-line, max-unread, max-buffered, segment, retain-bytes (bytes, also as 8MiB), ack-timeout,
// retain, settle, wait, retry-max (durations) and max-keys. A URL without dir is good for a source only.
func FromURL(text string) (ServerOptions, SourceOptions, error) {
	var server ServerOptions
	var source SourceOptions
	scheme, rest, _ := strings.Cut(text, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	hosts := rest[:end]
	u, err := url.Parse(rest[end:])
	switch {
	case scheme != "http" && scheme != "https":
		return server, source, errors.New("http: the source's URL must begin with http:// or https://")
	case err != nil:
		return server, source, errors.New("http: the source's URL cannot be read") // it may hold a secret
	case strings.Contains(hosts, "@"):
		return server, source, errors.New("http: the source's URL has a password in it: put a token into a file or the environment")
	case strings.Trim(u.Path, "/") != "" || u.Fragment != "":
		return server, source, errors.New("http: the source's URL has a path or a fragment: want http://host:port,host:port/?dir=DIR")
	}
	for one := range strings.SplitSeq(hosts, ",") {
		name, host, named := strings.Cut(one, "=")
		if !named {
			name, host = one, one
		}
		name = strings.NewReplacer("[", "", "]", "").Replace(name)
		server.Nodes = append(server.Nodes, Node{Name: name, URL: scheme + "://" + host})
	}
	p, err := parametersOf(u.RawQuery)
	if err != nil {
		return server, source, err
	}
	p.strings(map[string]*string{"dir": &server.Dir, "listen": &server.Listen, "name": &server.Name})
	p.access(&server.Access)
	p.bytes(map[string]*int64{
		"max-body": &server.MaxBody, "max-line": &server.MaxLine, "max-unread": &server.MaxUnread, "max-buffered": &server.MaxBuffered,
		"segment": &server.SegmentBytes, "retain-bytes": &server.RetainBytes,
	})
	p.durations(map[string]*time.Duration{
		"ack-timeout": &server.AckTimeout, "retain": &server.Retain, "settle": &server.Settle, "wait": &source.Wait, "retry-max": &source.RetryMax,
	})
	p.ints(map[string]*int{"max-keys": &server.MaxKeys})
	source.Nodes, source.Access = server.Nodes, server.Access
	source.Access.Cert, source.Access.Key = "", ""
	check := source
	check.EnsureDefaults()
	return server, source, errors.Join(p.finish(), check.Validate())
}

// WebhookFromURL makes a webhook of a URL such as
//
//	https://example.com/hook?team=7#dir=/var/lib/hook&token-env=HOOK_TOKEN
//
// What stands before the # is the receiver's URL, as it is. Behind it are dir, format (batches or each), token-file, token-env, tls-ca,
// max-records, max-bytes (bytes, also as 1MiB), timeout, retry-first, retry-max, max-retry-after (durations) and sync (true or false).
func WebhookFromURL(text string) (receiver string, o WebhookOptions, err error) {
	receiver, rest, _ := strings.Cut(text, "#")
	p, err := parametersOf(rest)
	if err != nil {
		return "", o, err
	}
	var size int64
	format, sync := "batches", "false"
	p.strings(map[string]*string{"dir": &o.Dir, "format": &format, "sync": &sync})
	p.access(&o.Access)
	p.bytes(map[string]*int64{"max-bytes": &size})
	p.ints(map[string]*int{"max-records": &o.MaxRecords})
	p.durations(map[string]*time.Duration{
		"timeout": &o.Timeout, "retry-first": &o.RetryFirst, "retry-max": &o.RetryMax, "max-retry-after": &o.MaxRetryAfter,
	})
	o.MaxBytes = int(size)
	switch format {
	case "batches":
	case "each":
		o.Format = Each
	default:
		p.fail("format", "want batches or each")
	}
	if o.Sync, err = strconv.ParseBool(sync); err != nil {
		p.fail("sync", "want true or false")
	}
	check := o
	check.EnsureDefaults()
	return receiver, o, errors.Join(p.finish(), checkReceiver(receiver), check.Validate())
}

// parameters are what stands behind the ? or the # of a URL. What is not asked for is an error in the end.
type parameters struct {
	values url.Values
	errs   []error
}

func parametersOf(query string) (*parameters, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("http: the parameters of the URL cannot be read")
	}
	p := &parameters{values: values}
	for name, all := range values {
		if len(all) > 1 {
			p.fail(name, "it is given twice")
		}
	}
	return p, nil
}

func (p *parameters) fail(name, why string) {
	p.errs = append(p.errs, fmt.Errorf("http: parameter %s of the URL: %s", name, why))
}

// take gives a parameter once.
func (p *parameters) take(name string) (string, bool) {
	text, ok := p.values.Get(name), p.values.Has(name)
	delete(p.values, name)
	return text, ok
}

func (p *parameters) strings(into map[string]*string) {
	for name, field := range into {
		if text, ok := p.take(name); ok {
			*field = text
		}
	}
}

func (p *parameters) access(a *Access) {
	p.strings(map[string]*string{"token-file": &a.TokenFile, "token-env": &a.TokenEnv, "tls-ca": &a.CA, "tls-cert": &a.Cert, "tls-key": &a.Key})
}

func (p *parameters) bytes(into map[string]*int64) {
	for name, field := range into {
		if text, ok := p.take(name); ok {
			var good bool
			if *field, good = parseBytes(text); !good {
				p.fail(name, "want a number of bytes, such as 65536, 64KiB, 8MiB or 1GiB")
			}
		}
	}
}

func (p *parameters) durations(into map[string]*time.Duration) {
	for name, field := range into {
		if text, ok := p.take(name); ok {
			var err error
			if *field, err = time.ParseDuration(text); err != nil || *field <= 0 {
				p.fail(name, "want a time, such as 500ms or 10s")
			}
		}
	}
}

func (p *parameters) ints(into map[string]*int) {
	for name, field := range into {
		if text, ok := p.take(name); ok {
			var err error
			if *field, err = strconv.Atoi(text); err != nil || *field <= 0 {
				p.fail(name, "want a number")
			}
		}
	}
}

// finish tells what was wrong, and which parameters nobody knows.
func (p *parameters) finish() error {
	for name := range p.values {
		p.fail(name, "there is none of this name")
	}
	slices.SortFunc(p.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(p.errs...)
}

// parseBytes reads a number of bytes above zero.
func parseBytes(text string) (int64, bool) {
	unit := int64(1)
	for suffix, size := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = rest, size
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n * unit, err == nil && n > 0 && n <= (1<<62)/unit
}

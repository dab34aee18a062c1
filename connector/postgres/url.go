package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ErrSecretInURL is returned for a URL with a password: others see it in the list of processes, in logs and in histories.
var ErrSecretInURL = errors.New("postgres: the URL has a password in it: put it into PGPASSWORD or PGPASSFILE, or say password_file=PATH or password_env=VARIABLE")

// SinkFromURL makes options of a URL such as
//
//	postgres://user@host/db?table=counts&sslmode=verify-full&password_file=/run/secrets/db
//
// Of the parameters, table, column, columns (separated by commas), task_column, row_column, patience, synchronous_commit,
// password_file and password_env are the options of that name; others are the server's, as psql has them. A name may have a hyphen
// for each underscore, as in the URLs of other connectors.
func SinkFromURL(text string) (SinkOptions, error) {
	var o SinkOptions
	p, err := splitURL(text, &o.Access)
	if err != nil {
		return o, err
	}
	p.text("table", &o.Table)
	p.text("column", &o.Column)
	p.list("columns", &o.Columns)
	p.text("task_column", &o.TaskColumn)
	p.text("row_column", &o.RowColumn)
	p.duration("patience", &o.Patience)
	p.text("synchronous_commit", &o.SynchronousCommit)
	if err := p.finish(&o.Access); err != nil {
		return o, err
	}
	o.EnsureDefaults()
	return o, o.Validate()
}

// SourceFromURL makes options of a URL such as
//
//	postgres://user@host/db?table=events&key=id&follow=true
//
// Of the parameters, table, query, key, columns (separated by commas), splits, page_rows, follow, trust_keys, poll, password_file
// and password_env are the options of that name; others are the server's, as psql has them.
func SourceFromURL(text string) (SourceOptions, error) {
	var o SourceOptions
	p, err := splitURL(text, &o.Access)
	if err != nil {
		return o, err
	}
	p.text("table", &o.Table)
	p.text("query", &o.Query)
	p.text("key", &o.Key)
	p.list("columns", &o.Columns)
	p.number("splits", &o.Splits)
	p.number("page_rows", &o.PageRows)
	p.flag("follow", &o.Follow)
	p.flag("trust_keys", &o.TrustKeys)
	p.duration("poll", &o.Poll)
	if err := p.finish(&o.Access); err != nil {
		return o, err
	}
	o.EnsureDefaults()
	return o, o.Validate()
}

// parameters are those of a URL that have not been taken yet.
type parameters struct {
	url    *url.URL
	values url.Values
	err    error
}

func splitURL(text string, a *Access) (*parameters, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errURL // what is wrong with it may be part of a password
	}
	p := &parameters{url: u}
	if p.values, err = url.ParseQuery(u.RawQuery); err != nil {
		return nil, errURL
	}
	if _, set := u.User.Password(); set || p.values.Has("password") {
		return nil, ErrSecretInURL
	}
	for name, all := range p.values { // in any order: a name has one spelling more, at most
		if plain := strings.ReplaceAll(name, "-", "_"); plain != name {
			delete(p.values, name)
			p.values[plain] = append(p.values[plain], all...)
		}
	}
	p.text("password_file", &a.PasswordFile)
	p.text("password_env", &a.PasswordEnv)
	return p, nil
}

// finish leaves the server's parameters in the URL.
func (p *parameters) finish(a *Access) error {
	u := *p.url
	u.RawQuery = p.values.Encode()
	a.URL = u.String()
	return p.err
}

// take gives a parameter and takes it out.
func (p *parameters) take(name string) (string, bool) {
	values, found := p.values[name]
	delete(p.values, name)
	if len(values) > 1 {
		p.fail(name, "is there twice")
	}
	if !found {
		return "", false
	}
	return values[0], true
}

func (p *parameters) fail(name, why string) {
	p.err = errors.Join(p.err, fmt.Errorf("postgres: parameter %s of the URL %s", name, why))
}

func (p *parameters) text(name string, to *string) {
	if v, found := p.take(name); found {
		*to = v
	}
}

func (p *parameters) list(name string, to *[]string) {
	if v, found := p.take(name); found {
		*to = strings.Split(v, ",")
	}
}

func (p *parameters) number(name string, to *int) {
	if v, found := p.take(name); found {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			p.fail(name, fmt.Sprintf("is %q, want a number from 1", v))
		}
		*to = n
	}
}

func (p *parameters) flag(name string, to *bool) {
	if v, found := p.take(name); found {
		on, err := strconv.ParseBool(v)
		if err != nil {
			p.fail(name, fmt.Sprintf("is %q, want true or false", v))
		}
		*to = on
	}
}

func (p *parameters) duration(name string, to *time.Duration) {
	if v, found := p.take(name); found {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			p.fail(name, fmt.Sprintf("is %q, want a time such as 2s", v))
		}
		*to = d
	}
}

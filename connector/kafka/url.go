package kafka

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SinkFromURL reads where a sink writes, and how:
//
//	kafka://host:port,host:port/topic?key=word&tls=true&ca-file=ca.pem&mechanism=SCRAM-SHA-512&password-file=secret
//
// with the user, if any, before the hosts (user@). A password in a URL would be seen by everyone who sees processes, and is
// refused. The parameters, all of them optional: client-id, tls (true or false), ca-file, cert-file, key-file, mechanism,
// password-file, password-env for the connection; journal, journal-replicas, partitions, compression, max-message-bytes, interval,
// journal-timeout, transaction-timeout, patience as in SinkOptions, times as 5ms or 15m; and key for the field of a JSON record that
// is its key. No error shows a password.
func SinkFromURL(text string) (topic string, o SinkOptions, err error) {
	q, topics, err := openURL(text, &o.Client)
	if err != nil {
		return "", o, err
	}
	if len(topics) != 1 {
		return "", o, fmt.Errorf("kafka: a sink writes to one topic, the URL has %d", len(topics))
	}
	q.text("journal", &o.Journal)
	q.number("journal-replicas", &o.JournalReplicas)
	q.number("partitions", &o.Partitions)
	q.text("compression", &o.Compression)
	q.number("max-message-bytes", &o.MaxMessageBytes)
	q.duration("interval", &o.Interval)
	q.duration("journal-timeout", &o.JournalTimeout)
	q.duration("transaction-timeout", &o.TransactionTimeout)
	q.duration("patience", &o.Patience)
	key := ""
	if q.text("key", &key); key != "" {
		o.Message = JSONKey(key)
	}
	if err := q.end(); err != nil {
		return "", o, err
	}
	checked := o
	checked.EnsureDefaults()
	return topics[0], o, checked.Validate()
}

// SourceFromURL reads what a source reads, and how:
//
//	kafka://host:port/topic,topic?start=latest&until=end
//
// The parameters are those of SinkFromURL for the connection, and: start, which is earliest (the default), latest, or a time such as
// 2026-01-31T12:00:00Z; until, which is never (the default) or end, for what is there when the job begins;
// discover, the time between two looks for new partitions, 30s by default, or never; buffer-bytes.
func SourceFromURL(text string) (topics []string, o SourceOptions, err error) {
	q, topics, err := openURL(text, &o.Client)
	if err != nil {
		return nil, o, err
	}
	var start, until string
	q.text("start", &start)
	q.text("until", &until)
	q.number("buffer-bytes", &o.BufferBytes)
	q.discovery(&o)
	switch start {
	case "", "earliest":
	case "latest":
		o.Latest = true
	default:
		if o.Since, err = time.Parse(time.RFC3339, start); err != nil {
			q.fail("start", start, "earliest, latest, or a time such as 2026-01-31T12:00:00Z")
		}
	}
	switch until {
	case "", "never":
	case "end":
		o.Bounded = true
	default:
		q.fail("until", until, "never or end")
	}
	if err := q.end(); err != nil {
		return nil, o, err
	}
	checked := o
	checked.EnsureDefaults()
	return topics, o, checked.Validate()
}

// discovery takes how often new partitions are looked for.
func (q *query) discovery(o *SourceOptions) {
	var text string
	if !q.text("discover", &text) {
		return
	}
	if text == "never" {
		o.DiscoveryInterval = -1
		return
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		q.fail("discover", text, "a time such as 30s, or never")
	}
	o.DiscoveryInterval = d
}

// query takes the parameters of a URL one by one; what is left at the end is a mistake.
type query struct {
	values url.Values
	err    error
}

// openURL reads what sources and sinks have in common. Its errors never quote the URL: there may be a password in it.
func openURL(text string, c *ClientOptions) (*query, []string, error) {
	rest, ok := strings.CutPrefix(text, "kafka://")
	if !ok {
		return nil, nil, fmt.Errorf("kafka: a URL begins with kafka://")
	}
	rest, raw, _ := strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	// Several hosts are no URL in the eyes of net/url.
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		user, err := url.PathUnescape(hosts[:at])
		if err != nil || strings.Contains(hosts[:at], ":") {
			return nil, nil, fmt.Errorf("kafka: a URL must not have a password: name password-file or password-env")
		}
		c.User, hosts = user, hosts[at+1:]
	}
	if hosts == "" {
		return nil, nil, fmt.Errorf("kafka: the URL names no host")
	}
	c.Brokers = strings.Split(hosts, ",")
	topics, err := url.PathUnescape(path)
	if err != nil || topics == "" || strings.ContainsAny(topics, "/#") {
		return nil, nil, fmt.Errorf("kafka: the URL names no topic: kafka://host:port/topic")
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("kafka: the parameters of the URL cannot be read")
	}
	if values.Has("password") {
		return nil, nil, fmt.Errorf("kafka: a URL must not have a password: name password-file or password-env")
	}
	q := &query{values: values}
	q.text("client-id", &c.ClientID)
	q.text("ca-file", &c.CAFile)
	q.text("cert-file", &c.CertFile)
	q.text("key-file", &c.KeyFile)
	q.text("mechanism", &c.Mechanism)
	q.text("password-file", &c.PasswordFile)
	q.text("password-env", &c.PasswordEnv)
	var secure string
	if q.text("tls", &secure); secure != "" {
		if c.TLS, err = strconv.ParseBool(secure); err != nil {
			q.fail("tls", secure, "true or false")
		}
	}
	return q, strings.Split(topics, ","), nil
}

func (q *query) fail(name, got, want string) {
	if q.err == nil {
		q.err = fmt.Errorf("kafka: %s=%q in the URL: want %s", name, got, want)
	}
}

// text takes a parameter if it is there.
func (q *query) text(name string, to *string) bool {
	all := q.values[name]
	if len(all) == 0 {
		return false
	}
	if len(all) > 1 {
		q.fail(name, strings.Join(all, " "), "it once")
	}
	*to = all[0]
	delete(q.values, name)
	return true
}

func (q *query) number(name string, to *int) {
	var text string
	if q.text(name, &text) {
		n, err := strconv.Atoi(text)
		if err != nil {
			q.fail(name, text, "a number")
		}
		*to = n
	}
}

func (q *query) duration(name string, to *time.Duration) {
	var text string
	if q.text(name, &text) {
		d, err := time.ParseDuration(text)
		if err != nil {
			q.fail(name, text, "a time such as 5ms or 15m")
		}
		*to = d
	}
}

// end tells what was wrong, and which parameters nobody has taken: by name, since one may be a misspelt password.
func (q *query) end() error {
	if q.err != nil || len(q.values) == 0 {
		return q.err
	}
	var names []string
	for name := range q.values {
		names = append(names, strconv.Quote(name))
	}
	slices.Sort(names)
	return fmt.Errorf("kafka: the URL has parameters that are not known: %s", strings.Join(names, ", "))
}

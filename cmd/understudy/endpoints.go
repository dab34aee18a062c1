package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/connector/http"
	"github.com/understudy-stream/understudy/operator"
)

// endpoints are where the records of a job come from and go to: what --source, --sink and their short forms say.
type endpoints struct {
	source, sink string // URLs
	waits        *waitLog

	// What resolve makes of them. A nil lines or causal is that of the short form.
	lines         func() (operator.Source[file.Line], error)
	causal        func() (operator.CausalSink, error)
	transactional func() (operator.TransactionalSink, error)
	dir           string              // the directory of a sink of files
	place         string              // names the sink for people, without what may be secret
	ingest        *http.ServerOptions // the servers of which each worker process starts one
	oneReader     bool                // the source cannot be read by two operators of a job
	paced         bool                // --rate applies
}

// scheme is a kind of URL. Both functions note in o.ends what it says.
type scheme struct {
	names            []string
	source, sink     func(o *runOptions, text string) error
	asSource, asSink string // an example of each
	about            string
}

// schemes lists them in the order of the help.
func schemes() []scheme {
	return []scheme{
		{[]string{"file"}, (*runOptions).fileSource, (*runOptions).fileSink,
			"file:data/**/*.csv?comma=;", "file:///data/out?roll-bytes=64MiB", "lines, JSONL, CSV, Parquet; to JSONL"},
		{[]string{"nats", "tls"}, (*runOptions).natsSource, (*runOptions).natsSink,
			"nats://host:4222/orders?bounded=true", "nats://host:4222/counts?token-file=FILE", "streams of NATS JetStream"},
		{[]string{"kafka"}, (*runOptions).kafkaSource, (*runOptions).kafkaSink,
			"kafka://host:9092/orders?until=end", "kafka://host:9092/counts?partitions=4&transactional=true", "topics of Kafka"},
		{[]string{"postgres", "postgresql"}, (*runOptions).postgresSource, (*runOptions).postgresSink,
			"postgres://user@host/db?table=orders&key=id", "postgres://user@host/db?table=counts&password_file=FILE", "tables of PostgreSQL"},
		{[]string{"http", "https"}, (*runOptions).ingestSource, (*runOptions).webhookSink,
			"http://10.0.0.1:8080/?dir=/var/lib/ingest", "https://host/hook#dir=/var/lib/hook&token-env=VARIABLE",
			"an ingest server, started in each worker process if there is dir=; a webhook"},
	}
}

func (e *endpoints) register(f *pflag.FlagSet) {
	f.StringVar(&e.source, "source", "", "`URL` to read from, see above; --input GLOB is --source file:GLOB")
	f.StringVar(&e.sink, "sink", "", "`URL` to write to, see above; --output DIR is --sink file:DIR")
}

func endpointsHelp() string {
	var s strings.Builder
	s.WriteString("\nURLs of --source and --sink, one example each (docs/connectors has all parameters):\n")
	for _, sc := range schemes() {
		fmt.Fprintf(&s, "  %-11s %s\n    --source '%s'\n    --sink '%s'\n", sc.names[0]+":", sc.about, sc.asSource, sc.asSink)
	}
	s.WriteString("A URL must have no password in it: passwords and tokens come from files or the environment, which the parameters name.\n" +
		"With a sink that is no file:, --state is required. transactional=true (kafka:) shows output when its checkpoint is complete.\n")
	return s.String()
}

// checkEnds tells what is wrong with where the job's records come from and go to, and notes what the URLs say.
func (o *runOptions) checkEnds(job *jobSpec) error {
	e := &o.ends
	switch {
	case len(o.inputs) > 0 && e.source != "":
		return errors.New("--input and --source: give one of them")
	case o.output != "" && e.sink != "":
		return errors.New("--output and --sink: give one of them")
	case len(o.inputs) == 0 && e.source == "" && job.has("input"):
		return errors.New("--input is required, or --source")
	case o.output == "" && e.sink == "":
		return errors.New("--output is required, or --sink")
	}
	if e.source != "" {
		if err := o.resolve("--source", e.source, func(s *scheme) func(*runOptions, string) error { return s.source }); err != nil {
			return err
		}
		switch {
		case e.oneReader && job.readsTwice:
			return fmt.Errorf("--source: %s reads its input in two operators, and the log of an ingest server has one reader", job.name)
		case o.rateText != "" && !e.paced:
			return errors.New("--rate paces the lines of files: --input, or --source file: of lines or JSONL")
		}
	}
	if e.sink == "" {
		return nil
	}
	return o.resolve("--sink", e.sink, func(s *scheme) func(*runOptions, string) error { return s.sink })
}

// schemePattern is what may be repeated of a URL that is not understood: nothing else is known to be no secret.
var schemePattern = regexp.MustCompile(`^[a-z][a-z0-9+]{0,15}:`)

func (o *runOptions) resolve(flag, text string, of func(*scheme) func(*runOptions, string) error) error {
	found := strings.TrimSuffix(schemePattern.FindString(text), ":")
	if found == "" {
		return fmt.Errorf("%s is not a URL: want one that begins with %s", flag, schemeNames())
	}
	for _, s := range schemes() {
		for _, name := range s.names {
			if name != found {
				continue
			}
			if err := of(&s)(o, text); err != nil {
				return fmt.Errorf("%s: %w", flag, err)
			}
			return nil
		}
	}
	return fmt.Errorf("%s: there is no scheme %s: want one of %s", flag, found, schemeNames())
}

func schemeNames() string {
	var names []string
	for _, s := range schemes() {
		for _, name := range s.names {
			names = append(names, name+":")
		}
	}
	return strings.Join(names, ", ")
}

// lines are the lines of the input, at the pace that was asked for.
func (o *runOptions) lines() (operator.Source[file.Line], error) {
	if o.ends.lines != nil {
		return o.ends.lines()
	}
	return o.pacedFiles(file.Lines(o.inputs...), file.SourceOptions{}), nil
}

// outputTo ends a stream in the run's sink.
func outputTo[T any](o *runOptions, s operator.Stream[T], codec operator.Codec[T]) error {
	causal, transactional, err := o.openSink()
	switch {
	case err != nil:
		return err
	case transactional != nil:
		operator.ToTransactional(s, "output", transactional, operator.WithCodec(codec))
	default:
		operator.To(s, "output", causal, operator.WithCodec(codec))
	}
	return nil
}

// openSink gives the sink of the run, which is one or the other.
func (o *runOptions) openSink() (operator.CausalSink, operator.TransactionalSink, error) {
	switch {
	case o.ends.transactional != nil:
		t, err := o.ends.transactional()
		return nil, t, err
	case o.ends.causal != nil:
		c, err := o.ends.causal()
		return c, nil, err
	}
	return file.Sink(o.output, file.SinkOptions{Mutations: o.mutations}), nil, nil
}

// directory is that of the output, empty if it goes elsewhere.
func (o *runOptions) directory() string { return cmp.Or(o.output, o.ends.dir) }

// shown names the output for people.
func (o *runOptions) shown() string { return cmp.Or(o.directory(), o.ends.place) }

// placeOf is a URL without its parameters, and without a user: a password in it was refused before.
func placeOf(text string) string {
	text, _, _ = strings.Cut(text, "#")
	text, _, _ = strings.Cut(text, "?")
	return text
}

// hostOf is a URL's scheme and host: the path of a webhook may be as good as a password.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "the webhook"
	}
	return "what the webhook at " + u.Scheme + "://" + u.Host + " has"
}

// startIngest starts this process's ingest server, if the source has one and the process works on the job.
func (o *runOptions) startIngest(alone bool) (stop func() error, err error) {
	stop = func() error { return nil }
	if o.ends.ingest == nil {
		return stop, nil
	}
	listen := http.ListenAny
	if o.ends.ingest.Name != "" {
		listen = http.Listen
	}
	server, err := listen(*o.ends.ingest)
	switch {
	case errors.Is(err, http.ErrInUse) && !alone:
		o.ends.waits.note("no ingest server is left for this process")
		return stop, nil
	case err != nil:
		return nil, err
	}
	o.ends.waits.note("ingest server " + server.Name() + " listens on " + server.Addr().String())
	return server.Close, nil
}

// worksHere tells whether this process of `understudy run` is one that runs tasks.
func (o *runOptions) worksHere() (bool, error) {
	if o.workers == 0 {
		return true, nil
	}
	a, err := supervisor.Assigned()
	return a != nil && a.Role == supervisor.Worker, err
}

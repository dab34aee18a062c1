package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/connector/http"
	"github.com/understudy-stream/understudy/connector/kafka"
	"github.com/understudy-stream/understudy/connector/nats"
	"github.com/understudy-stream/understudy/connector/parquet"
	"github.com/understudy-stream/understudy/connector/postgres"
	"github.com/understudy-stream/understudy/operator"
)

// errFileUser is said without the URL, which may have a password in it.
var errFileUser = errors.New("the URL of files has a user or a password in it: want file:PATH or file:///PATH")

func checkFileURL(text string) error {
	rest, hasHost := strings.CutPrefix(text, "file://")
	if host, _, _ := strings.Cut(rest, "/"); hasHost && strings.Contains(host, "@") {
		return errFileUser
	}
	return nil
}

// fileSource reads lines and JSONL as they are, and rows of CSV and Parquet as JSON objects.
func (o *runOptions) fileSource(text string) error {
	if err := checkFileURL(text); err != nil {
		return err
	}
	glob, rows, notParquet := parquet.ParseSourceURL(text)
	if notParquet == nil {
		o.ends.lines = func() (operator.Source[file.Line], error) {
			return linesOf(parquet.Rows[map[string]any](glob).With(rows), parquetLine), nil
		}
		return nil
	}
	s, err := file.ParseSourceURL(text)
	switch {
	case err != nil && strings.Contains(text, "batch-rows"), err == nil && s.Format == file.FormatParquet:
		return notParquet
	case err != nil:
		return err
	case s.Format == file.FormatCSV:
		o.ends.lines = func() (operator.Source[file.Line], error) {
			rows := file.DecodedCSV[map[string]string](file.Lines(s.Glob).With(s.Options), s.CSV)
			named, ok := rows.(namedSource[map[string]string])
			if !ok {
				return nil, errors.New("the source of CSV does not name its input")
			}
			return linesOf(named, csvLine), nil
		}
		return nil
	}
	o.ends.paced = true
	o.ends.lines = func() (operator.Source[file.Line], error) {
		return o.pacedFiles(file.Lines(s.Glob), s.Options), nil
	}
	return nil
}

// csvLine names a row by its file and where in it the row stands.
func csvLine(at place, row map[string]string) (file.Line, error) {
	name, _, err := fileOf(at.split)
	return jsonLine(name, at.before, row, err)
}

// parquetLine names a row by its file and row group, and its number in there.
func parquetLine(at place, row map[string]any) (file.Line, error) {
	name, rest, err := fileOf(at.split)
	group, _, _ := strings.Cut(rest, " with ")
	return jsonLine(name+group, at.before, row, err)
}

// fileOf parts the identity of a split of a file, which begins with the file's quoted name.
func fileOf(split string) (name, rest string, err error) {
	quoted, err := strconv.QuotedPrefix(split)
	if err != nil {
		return "", "", fmt.Errorf("the split %q does not begin with a file: %w", split, err)
	}
	name, err = strconv.Unquote(quoted)
	return name, split[len(quoted):], err
}

func jsonLine(name string, offset uint64, row any, failed error) (file.Line, error) {
	text, err := json.Marshal(row)
	return file.Line{File: name, Offset: offset, Text: string(text)}, errors.Join(failed, err)
}

func (o *runOptions) fileSink(text string) error {
	if err := checkFileURL(text); err != nil {
		return err
	}
	dir, options, err := file.ParseSinkURL(text)
	if err != nil {
		return err
	}
	o.ends.dir = dir
	o.ends.causal = func() (operator.CausalSink, error) {
		options.Mutations = o.mutations
		return file.Sink(dir, options), nil
	}
	return nil
}

func (o *runOptions) natsSource(text string) error {
	options, err := nats.SourceFromURL(text)
	if err != nil {
		return err
	}
	o.ends.lines = func() (operator.Source[file.Line], error) {
		options.Waiting = o.ends.waits.split
		return linesOf(nats.Messages(options), func(_ place, m nats.Message) (file.Line, error) {
			return file.Line{File: m.Stream, Offset: m.Sequence, Text: string(m.Data)}, nil
		}), nil
	}
	return nil
}

func (o *runOptions) natsSink(text string) error {
	options, err := nats.SinkFromURL(text)
	if err != nil {
		return err
	}
	o.ends.place = placeOf(text)
	o.ends.causal = func() (operator.CausalSink, error) {
		options.Waiting, options.Mutations = o.ends.waits.task, o.mutations
		return nats.NewSink(options), nil
	}
	return nil
}

func (o *runOptions) kafkaSource(text string) error {
	topics, options, err := kafka.SourceFromURL(text)
	if err != nil {
		return err
	}
	o.ends.lines = func() (operator.Source[file.Line], error) {
		options.Waiting = func(split string, err error) { o.ends.waits.split(split, err.Error()) }
		return linesOf(kafka.Records(options, topics...), func(_ place, r kafka.Record) (file.Line, error) {
			name := r.Topic + "/" + strconv.Itoa(int(r.Partition))
			return file.Line{File: name, Offset: uint64(r.Offset), Text: string(r.Value)}, nil
		}), nil
	}
	return nil
}

func (o *runOptions) kafkaSink(text string) error {
	text, transactional, err := takeTransactional(text)
	if err != nil {
		return err
	}
	topic, options, err := kafka.SinkFromURL(text)
	if err != nil {
		return err
	}
	o.ends.place = placeOf(text)
	options.Waiting = func(journal string, err error) { o.ends.waits.say("journal "+journal, err.Error()) }
	if transactional {
		o.ends.transactional = func() (operator.TransactionalSink, error) { return kafka.Transactional(topic, options), nil }
		return nil
	}
	o.ends.causal = func() (operator.CausalSink, error) { return kafka.Sink(topic, options), nil }
	return nil
}

// takeTransactional takes the parameter transactional out of a URL.
func takeTransactional(text string) (rest string, on bool, err error) {
	head, query, _ := strings.Cut(text, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", false, errors.New("the parameters of the URL cannot be read")
	}
	all, given := values["transactional"]
	if !given {
		return text, false, nil
	}
	if on, err = strconv.ParseBool(all[0]); err != nil || len(all) > 1 {
		return "", false, errors.New("transactional in the URL: want true or false, once")
	}
	delete(values, "transactional")
	return head + "?" + values.Encode(), on, nil
}

func (o *runOptions) postgresSource(text string) error {
	options, err := postgres.SourceFromURL(text)
	if err != nil {
		return err
	}
	name := options.Table
	if name == "" {
		name = "query"
	}
	o.ends.lines = func() (operator.Source[file.Line], error) {
		options.Waiting = func(err error) { o.ends.waits.failed("source "+name, err) }
		return linesOf(postgres.Rows(options), func(_ place, r postgres.Row) (file.Line, error) {
			return file.Line{File: name, Offset: uint64(r.Key), Text: r.JSON}, nil
		}), nil
	}
	return nil
}

func (o *runOptions) postgresSink(text string) error {
	options, err := postgres.SinkFromURL(text)
	if err != nil {
		return err
	}
	o.ends.place = fmt.Sprintf("the table %s and its rows at %s", options.Table, placeOf(text))
	o.ends.causal = func() (operator.CausalSink, error) {
		options.Waiting = func(err error) { o.ends.waits.failed("sink "+options.Table, err) }
		return postgres.Sink(options), nil
	}
	return nil
}

// ingestSource reads the logs of ingest servers, of which each worker process is one where the URL has a directory.
func (o *runOptions) ingestSource(text string) error {
	server, options, err := http.FromURL(text)
	if err != nil {
		return err
	}
	o.ends.oneReader = true
	if server.Dir != "" {
		check := server
		if check.Name == "" {
			check.Name = check.Nodes[0].Name
		}
		check.EnsureDefaults()
		if err := check.Validate(); err != nil {
			return err
		}
		server.Failed = func(err error) { o.ends.waits.note("the ingest server takes no more requests: " + err.Error()) }
		o.ends.ingest = &server
	}
	o.ends.lines = func() (operator.Source[file.Line], error) {
		options.Waiting = o.ends.waits.split
		return linesOf(http.Lines(options), func(_ place, l http.Line) (file.Line, error) {
			return file.Line{File: l.Log, Offset: l.Index, Text: l.Text}, nil
		}), nil
	}
	return nil
}

func (o *runOptions) webhookSink(text string) error {
	receiver, options, err := http.WebhookFromURL(text)
	if err != nil {
		return err
	}
	o.ends.place = options.Dir + " and " + hostOf(receiver)
	o.ends.causal = func() (operator.CausalSink, error) {
		options.Waiting = o.ends.waits.task
		return http.NewWebhook(receiver, options), nil
	}
	return nil
}

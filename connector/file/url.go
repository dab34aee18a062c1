package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrURL is returned for a URL that does not name files, or has a parameter that is none.
var ErrURL = errors.New("file: not the URL of files")

// Format is what is in a file.
type Format string

// The formats that a URL can name. Package connector/parquet reads FormatParquet.
const (
	FormatLines   Format = "lines"
	FormatJSONL   Format = "jsonl"
	FormatCSV     Format = "csv"
	FormatParquet Format = "parquet"
)

// SourceURL is what a URL says of a source.
type SourceURL struct {
	Glob    string
	Format  Format
	Options SourceOptions
	CSV     CSVOptions
}

// ParseSourceURL reads a URL of files to read, such as
//
//	file:///data/*.jsonl?split-bytes=1MiB
//	file:data/**/*.csv.gz?comma=;&columns=id,name
//	file:in/*.jsonl?watch=1s
//
// The path is a pattern as Lines takes it; "?" in it is written %3F. format is lines, jsonl, csv, or parquet; without it the name's
// end tells. The other parameters are split-bytes, max-line, buffer-bytes and watch (the time between two looks for new files), and for csv comma, comment, columns, lazy-quotes and
// trim-leading-space. Sizes may end in KiB, MiB or GiB.
func ParseSourceURL(text string) (SourceURL, error) {
	var s SourceURL
	p, err := parseURL(text)
	if err != nil {
		return s, err
	}
	s.Glob = p.path
	s.Format = Format(p.take("format"))
	if s.Format == "" {
		s.Format = formatOf(s.Glob)
	}
	s.Options.SplitBytes = p.size("split-bytes")
	s.Options.MaxLine = int(p.size("max-line"))
	s.Options.BufferBytes = int(p.size("buffer-bytes"))
	s.Options.Watch = p.duration("watch")
	switch s.Format {
	case FormatCSV:
		s.CSV.Comma, s.CSV.Comment = p.rune("comma"), p.rune("comment")
		s.CSV.LazyQuotes, s.CSV.TrimLeadingSpace = p.bool("lazy-quotes"), p.bool("trim-leading-space")
		if columns := p.take("columns"); columns != "" {
			s.CSV.Columns = strings.Split(columns, ",")
		}
	case FormatLines, FormatJSONL, FormatParquet:
	default:
		p.fail("format", fmt.Errorf("there is no %q, only lines, jsonl, csv and parquet", s.Format))
	}
	if err := p.finish(); err != nil {
		return s, err
	}
	csv, options := s.CSV, s.Options
	csv.EnsureDefaults()
	options.EnsureDefaults()
	return s, errors.Join(csv.Validate(), options.Validate())
}

// formatOf tells a format by the end of a name.
func formatOf(name string) Format {
	switch filepath.Ext(strings.TrimSuffix(name, ".gz")) {
	case ".jsonl", ".ndjson":
		return FormatJSONL
	case ".csv":
		return FormatCSV
	case ".parquet":
		return FormatParquet
	}
	return FormatLines
}

// ParseSinkURL reads a URL of a directory to write to, such as
//
//	file:///data/out?roll-bytes=64MiB&roll-every=1h&key=country
//
// The parameters are those of SinkOptions: roll-bytes, roll-every, key (a field of JSON records: see JSONField), sync, shared, identity and
// patience. Sizes may end in KiB, MiB or GiB.
func ParseSinkURL(text string) (dir string, o SinkOptions, err error) {
	p, err := parseURL(text)
	if err != nil {
		return "", o, err
	}
	o = SinkOptions{
		Identity: p.take("identity"), Sync: p.bool("sync"), Shared: p.bool("shared"), Patience: p.duration("patience"),
		RollBytes: p.size("roll-bytes"), RollEvery: p.duration("roll-every"),
	}
	if field := p.take("key"); field != "" {
		o.Key = JSONField(field)
	}
	if err := p.finish(); err != nil {
		return "", o, err
	}
	checked := o
	checked.EnsureDefaults()
	return p.path, o, checked.Validate()
}

// JSONField is a SinkOptions.Key: the value of a field of a record that is a JSON object. Text is taken without quotes, other values as they
// are encoded. A record without the field has the empty key.
func JSONField(name string) func(record []byte) (string, error) {
	return func(record []byte) (string, error) {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(record, &fields); err != nil {
			return "", fmt.Errorf("file: the record has no fields: %w", err)
		}
		value := fields[name]
		if len(value) == 0 || value[0] != '"' {
			return string(value), nil
		}
		var text string
		err := json.Unmarshal(value, &text)
		return text, err
	}
}

// urlParameters are the parameters of a URL that nobody has taken yet.
type urlParameters struct {
	path   string
	values url.Values
	err    error // the first mistake
}

func parseURL(text string) (*urlParameters, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	if u.Scheme != "file" || u.Host != "" && u.Host != "localhost" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%w: %s: it must be file:///PATH, or file:PATH for a relative one", ErrURL, u.Redacted())
	}
	p := &urlParameters{path: u.Path}
	if u.Opaque != "" {
		if p.path, err = url.PathUnescape(u.Opaque); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrURL, err)
		}
	}
	if p.path == "" {
		return nil, fmt.Errorf("%w: %s has no path", ErrURL, text)
	}
	if p.values, err = url.ParseQuery(strings.ReplaceAll(u.RawQuery, ";", "%3B")); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return p, nil
}

func (p *urlParameters) fail(name string, err error) {
	if p.err == nil && err != nil {
		p.err = fmt.Errorf("%w: %s: %w", ErrURL, name, err)
	}
}

// take gives a parameter's value, "" if there is none.
func (p *urlParameters) take(name string) string {
	all := p.values[name]
	delete(p.values, name)
	switch {
	case len(all) == 0:
		return ""
	case len(all) > 1:
		p.fail(name, errors.New("it is there twice"))
	case all[0] == "":
		p.fail(name, errors.New("it has no value"))
	}
	return all[0]
}

func (p *urlParameters) bool(name string) bool {
	text := p.take(name)
	if text == "" {
		return false
	}
	b, err := strconv.ParseBool(text)
	p.fail(name, err)
	return b
}

func (p *urlParameters) duration(name string) time.Duration {
	text := p.take(name)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	p.fail(name, err)
	return d
}

func (p *urlParameters) rune(name string) rune {
	text := p.take(name)
	if text == "" {
		return 0
	}
	r, n := utf8.DecodeRuneInString(text)
	if n != len(text) {
		p.fail(name, fmt.Errorf("%q is more than one character", text))
	}
	return r
}

func (p *urlParameters) size(name string) int64 {
	text := p.take(name)
	if text == "" {
		return 0
	}
	factor := int64(1)
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			text, factor = digits, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && (n <= 0 || n > math.MaxInt64/factor) {
		err = fmt.Errorf("%s is no size", text)
	}
	p.fail(name, err)
	return n * factor
}

// finish tells the first mistake. A parameter that nobody has taken is one.
func (p *urlParameters) finish() error {
	var names []string
	for name := range p.values { //lint:sorted below
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) > 0 {
		p.fail(names[0], errors.New("there is no such parameter"))
	}
	return p.err
}

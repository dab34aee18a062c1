package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// Line is one line that a server has taken.
type Line struct {
	Log   string // the server's name
	Index uint64 // how many lines of the log come before
	Text  string // without its "\n"
}

// SourceOptions are those of a Source. Nodes must be given; otherwise zero is the default.
type SourceOptions struct {
	// Nodes are all servers, as for each of them.
	Nodes  []Node
	Access Access
	// Wait is how long a server may wait for a line before it answers that there is none. Default 10 s, at most 1 min.
	Wait time.Duration
	// RetryMax is the longest wait between two tries to reach the servers of a log. Default 1 s.
	RetryMax time.Duration
	// Waiting, if it is set, hears why a split cannot be read for now, and "" when it can again. It is called from several goroutines.
	Waiting func(split, why string)
}

// EnsureDefaults fills in what is zero.
func (o *SourceOptions) EnsureDefaults() {
	if o.Wait == 0 {
		o.Wait = 10 * time.Second
	}
	if o.RetryMax == 0 {
		o.RetryMax = time.Second
	}
}

// Validate tells what is wrong with the options.
func (o *SourceOptions) Validate() error {
	if err := checkNodes(o.Nodes); err != nil {
		return err
	}
	if o.Wait < 0 || o.Wait > maxWait || o.RetryMax < 0 {
		return fmt.Errorf("http: a wait of %v, %v between tries: want 0 to %v, and no negative one", o.Wait, o.RetryMax, maxWait)
	}
	return o.Access.Validate()
}

// Source reads the lines that ingest servers have taken. Each server's log is a split. It implements operator.Source[Line].
//
// One job reads a log: where its readers are tells the servers what they may remove.
type Source struct{ options SourceOptions }

var (
	_ operator.Source[Line] = (*Source)(nil)
	_ operator.InputNamer   = (*Source)(nil)
)

// Lines reads what the servers have taken.
func Lines(o SourceOptions) *Source {
	o.EnsureDefaults()
	return &Source{options: o}
}

// Splits lists the servers' logs. None of the servers needs to be there.
func (s *Source) Splits(context.Context) ([]string, error) {
	if err := s.options.Validate(); err != nil {
		return nil, err
	}
	splits := make([]string, 0, len(s.options.Nodes))
	for _, n := range s.options.Nodes {
		splits = append(splits, n.Name)
	}
	return splits, nil
}

// InputOf implements operator.InputNamer.
func (s *Source) InputOf(split string) string { return "the log of ingest server " + split }

// Open reads a log from a line on.
func (s *Source) Open(_ context.Context, split string, offset uint64) (operator.Reader[Line], error) {
	f, err := s.open(split, offset)
	if err != nil {
		return nil, err
	}
	return &lineReader{f}, nil
}

func (s *Source) open(split string, offset uint64) (*fetcher, error) {
	if err := s.options.Validate(); err != nil {
		return nil, err
	}
	at := indexOf(s.options.Nodes, split)
	if at < 0 {
		return nil, fmt.Errorf("%w: %s is none of the servers that are listed", ErrUnknownLog, split)
	}
	c, err := s.options.Access.caller(1)
	if err != nil {
		return nil, err
	}
	holders := []Node{s.options.Nodes[at]}
	if k := keeperOf(s.options.Nodes, at); k != at {
		holders = append(holders, s.options.Nodes[k])
	}
	return startFetcher(&s.options, split, offset, holders, c), nil
}

// lineReader gives lines as they are.
type lineReader struct{ *fetcher }

// Next gives the next line and how many lines come before the one after it.
func (r *lineReader) Next() (Line, uint64, error) {
	index := r.next
	line, err := r.line()
	if err != nil {
		return Line{}, index, err
	}
	return Line{Log: r.split, Index: index, Text: line}, index + 1, nil
}

// JSON reads the lines as JSON values.
func JSON[T any](o SourceOptions) operator.Source[T] { return jsonSource[T]{Lines(o)} }

type jsonSource[T any] struct{ *Source }

func (s jsonSource[T]) Open(_ context.Context, split string, offset uint64) (operator.Reader[T], error) {
	f, err := s.open(split, offset)
	if err != nil {
		return nil, err
	}
	return &jsonReader[T]{f}, nil
}

type jsonReader[T any] struct{ *fetcher }

// DecodeError says which line is not a value of the wanted type. Reading may go on behind it.
type DecodeError struct {
	Log   string
	Index uint64
	Err   error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("http: line %d of log %s: %v", e.Index, e.Log, e.Err)
}
func (e *DecodeError) Unwrap() error { return e.Err }

// Next gives the next value and how many lines come before the one after it.
func (r *jsonReader[T]) Next() (v T, next uint64, err error) {
	index := r.next
	line, err := r.line()
	if err != nil {
		return v, index, err
	}
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		return v, r.next, &DecodeError{Log: r.split, Index: index, Err: err}
	}
	return v, index + 1, nil
}

var _ error = (*DecodeError)(nil)

// errNoServer says that no server of a log answers.
var errNoServer = errors.New("http: no server of the log answers")

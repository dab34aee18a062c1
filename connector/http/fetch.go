package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// fetcher reads a log ahead, from its owner or from the copy. An outage of both is waited for: only what no other try can mend ends it.
type fetcher struct {
	operator.Waits
	options *SourceOptions
	split   string
	holders []Node // the owner first
	caller  *caller
	chunks  chan chunk
	ready   chan struct{}
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the goroutine has

	next  uint64 // of the line that Next gives next; the rest is Next's alone too
	chunk chunk
}

// chunk is lines in a row, or why there are no more.
type chunk struct {
	lines []string
	err   error
}

// aheadChunks is how many answers of a server are held beside the one that is given out.
const aheadChunks = 2

func startFetcher(o *SourceOptions, split string, from uint64, holders []Node, c *caller) *fetcher {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fetcher{
		options: o, split: split, holders: holders, caller: c, cancel: cancel, next: from,
		chunks: make(chan chunk, aheadChunks), ready: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	go func() {
		defer close(f.ended)
		f.run(ctx, from)
	}()
	return f
}

// Ready gets a value when there may be a line.
func (f *fetcher) Ready() <-chan struct{} { return f.ready }

// Close ends reading.
func (f *fetcher) Close() error {
	f.cancel()
	<-f.ended
	f.caller.close()
	return nil
}

// line gives the next line. It does not wait.
func (f *fetcher) line() (string, error) {
	if len(f.chunk.lines) == 0 && f.chunk.err == nil {
		select {
		case f.chunk = <-f.chunks:
		default:
		}
	}
	if len(f.chunk.lines) > 0 {
		line := f.chunk.lines[0]
		f.chunk.lines = f.chunk.lines[1:]
		f.next++
		return line, nil
	}
	if f.chunk.err != nil {
		return "", f.chunk.err
	}
	return "", operator.ErrNotReady
}

// run reads from a line on until the log ends or cannot be read.
func (f *fetcher) run(ctx context.Context, line uint64) {
	wait := backoff{first: retryFirst, longest: f.options.RetryMax}
	said, failed := "", 0 // holders that failed in a row
	call := f.Call()
	defer call.Say("")
	for at := 0; ; {
		data, err := f.fetch(ctx, f.holders[at], line)
		var c chunk
		if err == nil {
			c, err = f.unpack(data, &line)
		}
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			wait.reset()
			failed = 0
			call.Say("")
			f.tell(&said, "")
		case errors.Is(err, operator.ErrPermanent) && !f.mayMend(err, at):
			c.err = err
		default:
			if failed++; failed >= len(f.holders) {
				call.Say(err.Error())
				f.tell(&said, err.Error())
				pause(ctx, wait.next(), nil)
			}
			at = (at + 1) % len(f.holders)
			continue
		}
		if at != 0 && c.err == nil { // the copy serves while the owner is away
			at = 0
			if len(c.lines) == 0 {
				pause(ctx, wait.next(), nil)
			}
		}
		if len(c.lines) == 0 && c.err == nil {
			continue
		}
		select {
		case f.chunks <- c:
			notify(f.ready)
		case <-ctx.Done():
			return
		}
		if c.err != nil {
			return
		}
	}
}

// mayMend tells whether an error that the copy's keeper gave is only for want of the owner.
func (f *fetcher) mayMend(err error, at int) bool {
	return at > 0 && errors.Is(err, ErrUnknownLog)
}

func (f *fetcher) tell(said *string, why string) {
	if *said != why && f.options.Waiting != nil {
		f.options.Waiting(f.split, why)
	}
	*said = why
}

// fetch asks a server for records from a line on. It gives none if none came in time.
func (f *fetcher) fetch(ctx context.Context, from Node, line uint64) ([]byte, error) {
	wait := f.options.Wait
	if from != f.holders[0] {
		wait = min(wait, f.options.RetryMax) // the owner may be back
	}
	ctx, cancel := context.WithTimeout(ctx, wait+answerTimeout)
	defer cancel()
	query := url.Values{"line": {text(line)}, "wait": {wait.String()}, "job": {"1"}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from.URL+"/v1/logs/"+url.PathEscape(f.split)+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	said, err := f.caller.do(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoServer, err)
	}
	defer said.Body.Close()
	data, err := io.ReadAll(io.LimitReader(said.Body, maxRecord+readBytes+markBytes+recordHead))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNoServer, err)
	case said.StatusCode == http.StatusNoContent:
		return nil, nil
	case said.StatusCode != http.StatusOK:
		return nil, unexpected(said, data)
	}
	return data, nil
}

// answerTimeout is how long a server may take for an answer beyond what it was asked to wait.
const answerTimeout = 5 * time.Second

// unpack gives the lines of records from *line on and moves it behind them.
func (f *fetcher) unpack(data []byte, line *uint64) (c chunk, err error) {
	from := *line
	err = eachRecord(data, func(_ int, r *record) error {
		if r.Kind == kindEnd {
			c.err = io.EOF
			return nil
		}
		if r.First > *line || r.First+r.Lines <= *line {
			return fmt.Errorf("lines %d to %d where line %d should be", r.First, r.First+r.Lines, *line)
		}
		text := string(r.Body)
		for skip := *line - r.First; text != ""; {
			one, rest, _ := strings.Cut(text, "\n")
			if text = rest; skip > 0 {
				skip--
				continue
			}
			c.lines = append(c.lines, one)
		}
		*line = r.First + r.Lines
		return nil
	})
	if err != nil {
		*line = from
		return chunk{}, fmt.Errorf("http: what a server gave of log %s cannot be used: %w", f.split, err)
	}
	return c, nil
}

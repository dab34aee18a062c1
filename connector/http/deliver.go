package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/understudy-stream/understudy/determinant"
)

// idRange gives ids to records in a row: stream, task, branch, and a number that counts the records of the branch.
type idRange struct {
	stream string
	task   int
	branch uint64
	first  uint64
}

// id gives the i-th record's.
func (r idRange) id(i int) string {
	return fmt.Sprintf("%s-%d-%d-%d", r.stream, r.task, r.branch, r.first+uint64(i))
}

// key gives that of a request with n of the records, from the i-th on: the same key means the same records.
func (r idRange) key(i, n int) string { return r.id(i) + "+" + strconv.Itoa(n) }

// receiver posts the records of one task.
type receiver struct {
	url     string
	caller  *caller
	options *WebhookOptions
	part    *part
}

// errAgain is in the chain of an error that another try may mend.
var errAgain = errors.New("http: the receiver does not take it now")

// errSmaller is in the chain of an error that fewer records at once may mend.
var errSmaller = errors.New("http: the receiver wants less at once")

// deliver posts records until the receiver has taken all. It gives up when ctx ends, the incarnation is replaced, or no other try can
// help.
func (r *receiver) deliver(ctx context.Context, inc determinant.Incarnation, ids idRange, records [][]byte) error {
	most := r.options.MaxRecords
	if r.options.Format == Each {
		most = 1
	}
	wait := backoff{first: r.options.RetryFirst, longest: r.options.RetryMax}
	said, call := "", r.part.waits.Call()
	tell := func(why string) {
		call.Say(why)
		r.tell(&said, why)
	}
	defer tell("")
	for at := 0; at < len(records); {
		if ctx.Err() != nil {
			return fmt.Errorf("http: posting: %w", ctx.Err())
		}
		n := r.portion(records[at:], most)
		hint, err := r.post(ctx, ids, at, records[at:at+n])
		switch {
		case err == nil:
			at += n
			wait.reset()
			tell("")
			continue
		case errors.Is(err, errSmaller) && n > 1:
			most = n / 2
			continue
		case ctx.Err() != nil:
			return fmt.Errorf("http: posting: %w", ctx.Err())
		case !errors.Is(err, errAgain):
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		tell(err.Error())
		if err := r.idle(ctx, inc, max(wait.next(), min(hint, r.options.MaxRetryAfter))); err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) tell(said *string, why string) {
	if *said != why && r.options.Waiting != nil {
		r.options.Waiting(r.part.task, why)
	}
	*said = why
}

// idle waits for d and looks whether this is still the task's life.
func (r *receiver) idle(ctx context.Context, inc determinant.Incarnation, d time.Duration) error {
	const look = 250 * time.Millisecond
	for {
		if err := r.part.admit(inc); err != nil {
			return err
		}
		if pause(ctx, min(d, look), nil); ctx.Err() != nil {
			return fmt.Errorf("http: posting: %w", ctx.Err())
		}
		if d -= look; d <= 0 {
			return r.part.admit(inc)
		}
	}
}

// portion gives how many records go into the next request.
func (r *receiver) portion(records [][]byte, most int) int {
	n, size := 0, 0
	for n < len(records) && n < most && (n == 0 || size+len(records[n]) <= r.options.MaxBytes) {
		size += len(records[n])
		n++
	}
	return n
}

// post makes one request. hint is how long the receiver wants to be left alone.
func (r *receiver) post(ctx context.Context, ids idRange, at int, records [][]byte) (hint time.Duration, err error) {
	key, kind := ids.key(at, len(records)), "application/x-ndjson"
	body, err := envelope(ids, at, records)
	if r.options.Format == Each {
		key, kind, body, err = ids.id(at), "application/json", records[0], nil
	}
	if err != nil {
		return 0, err
	}
	// A request that is under way when ctx ends may be taken all the same: it gets a moment, so that this is known.
	ctx, cancel := lasting(ctx, r.options.Timeout)
	defer cancel()
	err = r.part.do(func() error {
		hint, err = r.send(ctx, key, kind, body)
		return err
	}, nil)
	return hint, err
}

// parting is how long a request may go on whose writer is replaced or ends.
const parting = 500 * time.Millisecond

// lasting gives a context that ends after timeout, or parting after ctx does.
func lasting(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	stop := context.AfterFunc(ctx, func() {
		pause(longer, parting, nil)
		cancel()
	})
	return longer, func() {
		stop()
		cancel()
	}
}

func (r *receiver) send(ctx context.Context, key, kind string, body []byte) (time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return 0, errors.New("http: the receiver's URL cannot be used")
	}
	request.Header.Set("Content-Type", kind)
	request.Header.Set(keyHeader, key)
	request.Header.Set("User-Agent", "understudy")
	said, err := r.caller.do(request)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errAgain, withoutURL(err))
	}
	defer said.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(said.Body, maxAnswer)); err != nil && said.StatusCode/100 != 2 {
		return 0, fmt.Errorf("%w: %w", errAgain, err)
	}
	hint, _ := retryAfter(said.Header, time.Now())
	return hint, verdict(said.StatusCode)
}

// verdict says what an answer means.
func verdict(status int) error {
	switch {
	case status/100 == 2:
		return nil
	case status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: it answers %d", errSmaller, status)
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusLocked, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status >= 500 && status != http.StatusNotImplemented && status != http.StatusHTTPVersionNotSupported:
		return fmt.Errorf("%w: it answers %d %s", errAgain, status, http.StatusText(status))
	}
	return fmt.Errorf("http: it answers %d %s", status, http.StatusText(status))
}

// envelope makes lines of records with their ids.
func envelope(ids idRange, at int, records [][]byte) ([]byte, error) {
	var body []byte
	prefix := fmt.Sprintf(`{"id":"%s-%d-%d-`, ids.stream, ids.task, ids.branch)
	for i, r := range records {
		if !json.Valid(r) {
			return nil, fmt.Errorf("http: record %s is not JSON: give the sink a codec that makes JSON, or post each record by itself", ids.id(at+i))
		}
		if bytes.IndexByte(r, '\n') >= 0 {
			var line bytes.Buffer
			if err := json.Compact(&line, r); err != nil {
				return nil, fmt.Errorf("http: record %s: %w", ids.id(at+i), err)
			}
			r = line.Bytes()
		}
		body = strconv.AppendUint(append(body, prefix...), ids.first+uint64(at+i), 10)
		body = append(append(append(body, `","record":`...), r...), '}', '\n')
	}
	return body, nil
}

// withoutURL takes the URL, which may hold a secret, out of a client's error.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

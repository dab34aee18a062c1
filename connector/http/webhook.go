package http

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// Format says how records are put into requests.
type Format int

const (
	// Batches puts many records into a request, a line {"id":…,"record":…} each.
	Batches Format = iota
	// Each makes a request of every record, whose body is the record and whose Idempotency-Key is its id.
	Each
)

// WebhookOptions are those of a Webhook. Dir must be given; otherwise zero is the default.
type WebhookOptions struct {
	// Dir keeps the journals: what a successor must know of what was posted. Every worker of the job must see the same local directory,
	// and it belongs to one webhook of one job.
	Dir    string
	Access Access
	Format Format
	// MaxRecords and MaxBytes bound the records of one request. Defaults 500 and 1 MiB; a record that is longer goes alone.
	MaxRecords, MaxBytes int
	// Timeout is how long the receiver may take for an answer. Default 30 s.
	Timeout time.Duration
	// RetryFirst and RetryMax bound the waits between tries, which double and are drawn at random. Defaults 100 ms and 30 s.
	RetryFirst, RetryMax time.Duration
	// MaxRetryAfter bounds what a Retry-After of the receiver is obeyed. Default 10 min.
	MaxRetryAfter time.Duration
	// Sync makes journals survive a loss of power, at an fsync per write. Without it they survive the death of processes.
	Sync bool
	// Identity names one run of a job. Default: what the engine says.
	Identity string
	// Waiting, if it is set, hears why a task does not get its records out, and "" when it does again. It is called from several
	// goroutines.
	Waiting func(task int, why string)
}

// EnsureDefaults fills in what is zero.
func (o *WebhookOptions) EnsureDefaults() {
	if o.MaxRecords == 0 {
		o.MaxRecords = 500
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 20
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.Timeout, 30 * time.Second}, {&o.RetryFirst, 100 * time.Millisecond}, {&o.RetryMax, 30 * time.Second},
		{&o.MaxRetryAfter, 10 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

// Validate tells what is wrong with the options.
func (o *WebhookOptions) Validate() error {
	switch {
	case o.Dir == "":
		return errors.New("http: a webhook needs a directory for its journals, #dir=DIR in a URL")
	case o.Format != Batches && o.Format != Each:
		return fmt.Errorf("http: format %d of a webhook is unknown", o.Format)
	case o.MaxRecords < 0 || o.MaxBytes < 0:
		return errors.New("http: an option is negative")
	case o.Timeout < 0 || o.RetryFirst < 0 || o.RetryMax < o.RetryFirst || o.MaxRetryAfter < 0:
		return fmt.Errorf("http: a timeout of %v, waits of %v to %v, at most %v for the receiver", o.Timeout, o.RetryFirst, o.RetryMax, o.MaxRetryAfter)
	}
	return o.Access.Validate()
}

// Webhook posts records to a URL. It implements operator.CausalSink: at least once, with an id per record that is the same each time.
type Webhook struct {
	url     string
	options WebhookOptions
	do      steps
	mu      struct {
		sync.Mutex
		identity string
		parts    map[int]*part // open ones, by task
		caller   *caller       // while any part is open
	}
}

var (
	_ operator.LineSink       = (*Webhook)(nil)
	_ operator.SinkIdentifier = (*Webhook)(nil)
)

// steps does what changes something outside. Tests put themselves in its place.
type steps func(step, half func() error) error

// NewWebhook posts to a URL, http or https. Records must be JSON: they are encoded so unless the sink is given another codec.
func NewWebhook(url string, o WebhookOptions) *Webhook {
	o.EnsureDefaults()
	w := &Webhook{url: url, options: o, do: func(step, _ func() error) error { return step() }}
	w.mu.identity = o.Identity
	w.mu.parts = make(map[int]*part)
	return w
}

// Lines makes it an operator.LineSink.
func (*Webhook) Lines() {}

// Identify gives the webhook the job's identity unless the options have one. The engine calls it before Open.
func (w *Webhook) Identify(identity string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.options.Identity != "" || w.mu.identity == identity {
		return nil
	}
	if len(w.mu.parts) > 0 {
		return fmt.Errorf("%w: %s is open for another", ErrJob, w.options.Dir)
	}
	w.mu.identity = identity
	return nil
}

// Open opens the journal of one task. It makes sure that the directory is this webhook's.
func (w *Webhook) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := errors.Join(w.options.Validate(), checkReceiver(w.url)); err != nil {
		return nil, err
	}
	if task < 0 || task >= n {
		return nil, fmt.Errorf("http: there is no task %d of %d", task, n)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.identity == "" {
		return nil, errors.New("http: a webhook needs an identity, or its ids would be those of another")
	}
	if len(w.mu.parts) == 0 {
		if err := w.claim(); err != nil {
			return nil, err
		}
		c, err := w.options.Access.caller(1)
		if err != nil {
			return nil, err
		}
		w.mu.caller = c
	}
	p := w.mu.parts[task]
	if p == nil {
		p = &part{task: task, stream: w.stream(), base: filepath.Join(w.options.Dir, fmt.Sprintf("task-%05d", task)), options: &w.options, do: w.do}
		p.receiver = &receiver{url: w.url, caller: w.mu.caller, options: &w.options, part: p}
		w.mu.parts[task] = p
	}
	p.opens++
	return &hookStore{webhook: w, part: p}, nil
}

// checkReceiver tells what is wrong with a receiver's URL. It does not show it: it may hold a secret.
func checkReceiver(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("http: the receiver's URL cannot be read")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("http: the receiver's URL must begin with http:// or https:// and a host")
	case u.User != nil:
		return errors.New("http: the receiver's URL has a password in it: put a token into a file or the environment")
	}
	return nil
}

// stream names the output in ids: one webhook of one run of a job. The caller holds mu.
func (w *Webhook) stream() string {
	sum := sha256.Sum256([]byte(w.mu.identity + "\n" + filepath.Base(w.options.Dir)))
	return hex.EncodeToString(sum[:8])
}

// claim makes the directory this webhook's, or says that it is another's. The caller holds mu.
func (w *Webhook) claim() error {
	if err := os.MkdirAll(w.options.Dir, 0o777); err != nil {
		return fmt.Errorf("http: %w", err)
	}
	name, want := filepath.Join(w.options.Dir, "job"), fmt.Sprintf("understudy webhook 1\n%q\n", w.mu.identity)
	f, err := os.CreateTemp(w.options.Dir, "job.new-")
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	_, err = f.WriteString(want)
	if err == nil && w.options.Sync {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		if err = os.Link(f.Name(), name); errors.Is(err, os.ErrExist) { // the first to come makes it
			err = nil
		}
	}
	if err = errors.Join(err, os.Remove(f.Name())); err == nil && w.options.Sync {
		err = syncDir(w.options.Dir)
	}
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if string(got) != want {
		return fmt.Errorf("%w: %s: nothing was posted", ErrJob, w.options.Dir)
	}
	return nil
}

// release undoes one Open.
func (w *Webhook) release(p *part) error {
	w.mu.Lock()
	p.opens--
	last := p.opens == 0
	if last {
		delete(w.mu.parts, p.task)
	}
	if len(w.mu.parts) == 0 {
		w.mu.caller.close()
	}
	w.mu.Unlock()
	if !last {
		return nil
	}
	return p.close() // which waits for a write
}

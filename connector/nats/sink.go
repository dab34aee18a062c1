package nats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// Errors of the sink that a caller may branch on.
var (
	// ErrForeign is returned when a stream has messages that this package did not write, or when something else writes to it.
	ErrForeign = permanent("nats: the stream has messages of someone else")
	// ErrJob is returned when a stream was written by another job.
	ErrJob = permanent("nats: the stream belongs to another job")
	// ErrLost is returned when messages that the sink needs are no longer in the stream: a limit, a person or the loss of a disk has
	// removed them.
	ErrLost = permanent("nats: the stream has lost messages")
	// ErrTooLarge is returned for a record that is no message of this server or stream.
	ErrTooLarge = permanent("nats: a record is too large for a message")
	// ErrGap is returned for a write that does not begin where the output ends.
	ErrGap = errors.New("nats: the write does not begin where the output ends")
	// ErrUnfenced is returned for a write by an incarnation that no Fence has announced.
	ErrUnfenced = errors.New("nats: the writer has not fenced the store")
)

// SinkOptions says where output is shown. The zero value of all but Stream is the default.
type SinkOptions struct {
	Connection Connection
	// Stream is the stream of a sink of one task. Of more, task i writes to Stream-i.
	Stream string
	// Subject is that of the records; of more than one task, task i writes to Subject.i. Default is the stream's name.
	Subject string
	// Identity names the job. It must be the same in every worker of a job, also after a restart of the whole cluster, and
	// differ between any two jobs. The engine gives the job's; whoever uses a sink without the engine must set it.
	Identity string
	// Replicas is on how many servers a stream is kept that the sink makes. Default 1. A stream that is there stays as it is.
	Replicas int
	// NoCreate makes a stream that is not there an error, ErrNoStream.
	NoCreate bool
	// Waiting is told why a call waits for the server, and "" when it goes on. It must not block. May be nil.
	Waiting func(task int, why string)
	// Mutations switches rules off; for tests of this project only.
	Mutations mutation.Set
}

// EnsureDefaults fills in what is zero.
func (o *SinkOptions) EnsureDefaults() {
	o.Connection.EnsureDefaults()
	if o.Subject == "" {
		o.Subject = o.Stream
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
}

// Validate tells what is wrong with the options.
func (o *SinkOptions) Validate() error {
	if err := o.Connection.Validate(); err != nil {
		return err
	}
	if err := checkStream(o.Stream); err != nil {
		return err
	}
	if err := checkSubject(o.Subject); err != nil {
		return err
	}
	if strings.ContainsAny(o.Subject, "*>") {
		return fmt.Errorf("nats: records cannot be published to the pattern %q", o.Subject)
	}
	if o.Replicas < 1 || o.Replicas > 5 {
		return fmt.Errorf("nats: %d replicas: want 1 to 5", o.Replicas)
	}
	return nil
}

func checkStream(name string) error {
	if name == "" || strings.ContainsAny(name, " \t\r\n\f.*>/\\") {
		return fmt.Errorf("nats: %q is not the name of a stream", name)
	}
	return nil
}

func checkSubject(subject string) error {
	if subject == "" || strings.ContainsAny(subject, " \t\r\n\f") || strings.HasPrefix(subject, "$") {
		return fmt.Errorf("nats: %q is not a subject for records", subject)
	}
	for _, token := range strings.Split(subject, ".") {
		if token == "" {
			return fmt.Errorf("nats: the subject %q has an empty part", subject)
		}
	}
	return nil
}

// Sink shows the output of each sink task in a stream of its own. It implements operator.LineSink: records are JSON unless
// operator.WithCodec says otherwise.
type Sink struct {
	options SinkOptions
	step    func(do, half func() error) error // of all requests; in tests
	mu      struct {
		sync.Mutex
		identity string
		link     *link         // of all open parts
		parts    map[int]*part // open parts by task
	}
}

var (
	_ operator.LineSink       = (*Sink)(nil)
	_ operator.SinkIdentifier = (*Sink)(nil)
)

// NewSink shows output in streams. The options are looked at when the sink is opened, the servers are reached when it is first
// fenced.
func NewSink(o SinkOptions) *Sink {
	o.EnsureDefaults()
	s := &Sink{options: o}
	s.mu.identity = o.Identity
	s.mu.parts = make(map[int]*part)
	return s
}

// Lines makes it an operator.LineSink.
func (*Sink) Lines() {}

// Identify gives the sink the job's identity unless the options have one. The engine calls it before Open.
func (s *Sink) Identify(identity string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.Identity != "" || s.mu.identity == identity {
		return nil
	}
	if len(s.mu.parts) > 0 {
		return fmt.Errorf("%w: %s is open as that of job %q", ErrJob, s.options.Stream, s.mu.identity)
	}
	s.mu.identity = identity
	return nil
}

// Open opens the stream of one task. It does not wait for a server.
func (s *Sink) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.options.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", operator.ErrPermanent, err)
	}
	if task < 0 || task >= n {
		return nil, fmt.Errorf("nats: there is no task %d of %d", task, n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.identity == "" || len(s.mu.identity) > maxIdentity {
		return nil, fmt.Errorf("%w: nats: a sink needs an Identity of 1 to %d bytes", operator.ErrPermanent, maxIdentity)
	}
	if len(s.mu.parts) == 0 {
		s.mu.link = &link{options: s.options.Connection, name: "understudy sink " + s.options.Stream}
	}
	p := s.mu.parts[task]
	if p == nil {
		p = newPart(s, task, n)
		s.mu.parts[task] = p
	}
	p.opens++
	st := &store{sink: s, part: p}
	st.ctx, st.close = context.WithCancelCause(context.Background())
	return st, nil
}

// release undoes one Open.
func (s *Sink) release(p *part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.opens--; p.opens > 0 {
		return
	}
	delete(s.mu.parts, p.task)
	if len(s.mu.parts) == 0 {
		s.mu.link.close()
	}
}

// store is one Open of a part.
type store struct {
	sink  *Sink
	part  *part
	ctx   context.Context // ends with Close: nothing goes on waiting then
	close context.CancelCauseFunc
	once  sync.Once
}

var _ operator.CausalStore = (*store)(nil)

// during ends with ctx or with the store.
func (s *store) during(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

func (s *store) do(ctx context.Context, f func(ctx context.Context) error) error {
	if s.ctx.Err() != nil {
		return os.ErrClosed
	}
	ctx, done := s.during(ctx)
	defer done()
	select {
	case s.part.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.part.turn }()
	return f(ctx)
}

func (s *store) Fence(ctx context.Context, f operator.Fence) (stored operator.Stored, err error) {
	err = s.do(ctx, func(ctx context.Context) error {
		stored, err = s.part.fence(ctx, f)
		return err
	})
	return stored, err
}

func (s *store) Close() error {
	s.once.Do(func() {
		s.close(os.ErrClosed)
		s.sink.release(s.part)
	})
	return nil
}

// Waiting tells for people why a call of this store waits for the server; empty if none does.
func (s *store) Waiting() string { return s.part.why() }

// fit tells what about a stream rules out that it shows output exactly once.
func fit(c *jetstream.StreamConfig, subjects ...string) error {
	why := ""
	switch {
	case c.Retention != jetstream.LimitsPolicy:
		why = "its retention is " + c.Retention.String() + ", which removes messages when they are read: want Limits"
	case c.MaxMsgsPerSubject > 0:
		why = fmt.Sprintf("it keeps %d messages per subject, which would remove determinants", c.MaxMsgsPerSubject)
	case c.DenyDelete || c.DenyPurge:
		why = "it denies that messages are deleted or purged"
	case c.Sealed:
		why = "it is sealed"
	case c.Mirror != nil || len(c.Sources) > 0:
		why = "it takes messages of other streams"
	case c.NoAck:
		why = "it acknowledges nothing"
	case c.SubjectTransform != nil:
		why = "it transforms subjects"
	}
	for _, subject := range subjects {
		if why == "" && !covered(c.Subjects, subject) {
			why = fmt.Sprintf("its subjects %q lack %q", c.Subjects, subject)
		}
	}
	if why != "" {
		return fmt.Errorf("%w: %s: %s", ErrUnfit, c.Name, why)
	}
	return nil
}

// covered tells whether one of the patterns matches a subject.
func covered(patterns []string, subject string) bool {
	tokens := strings.Split(subject, ".")
	for _, pattern := range patterns {
		parts := strings.Split(pattern, ".")
		matches := len(parts) == len(tokens)
		for i, part := range parts {
			if part == ">" && i < len(tokens) {
				matches = true
				break
			}
			if i >= len(tokens) || part != "*" && part != tokens[i] {
				matches = false
				break
			}
		}
		if matches {
			return true
		}
	}
	return false
}

package nats

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/understudy-stream/understudy/operator"
)

// Errors of the source that a caller may branch on.
var (
	// ErrRemoved is returned when a stream's limits may have removed messages before they were read, or before they were read
	// again.
	ErrRemoved = permanent("nats: messages were removed before they were read")
	// ErrOffset is returned for an offset that is not one of the split, or that the stream does not reach any more.
	ErrOffset = permanent("nats: the offset is not in the split")
	// ErrSplit is returned for a split that is none of the source.
	ErrSplit = errors.New("nats: not a split of this source")
)

// Message is one message of a stream.
type Message struct {
	Stream, Subject string
	Sequence        uint64
	Millis          int64   // when the server stored it, in milliseconds since the Unix epoch by the server's clock
	Header          []Field // by name, and as sent for each name
	Data            []byte
}

// Field is one header of a message.
type Field struct{ Name, Value string }

// SourceOptions says what is read. The zero value of all but Streams is the default.
type SourceOptions struct {
	Connection Connection
	// Streams are read side by side.
	Streams []string
	// Subjects are patterns that messages are picked by on the server. Each is a split of each stream, so that several tasks
	// can share one; they should not overlap. Default: all messages of a stream, as one split.
	Subjects []string
	// Bounded makes the source end with the last message that a stream has when the job begins. Otherwise it follows for ever.
	Bounded bool
	// Ranges cuts what a bounded source reads of each stream into so many ranges of sequences, so that several tasks can share
	// them. Default 1.
	Ranges int
	// AllowRemoved goes on behind messages that a stream's limits have removed unread, instead of ErrRemoved. They are lost.
	AllowRemoved bool
	// Ahead is how many messages of a split are fetched before they are asked for. Default 512.
	Ahead int
	// Waiting is told why a split waits for the server, and "" when it goes on. It must not block. May be nil.
	Waiting func(split, why string)
}

// EnsureDefaults fills in what is zero.
func (o *SourceOptions) EnsureDefaults() {
	o.Connection.EnsureDefaults()
	if len(o.Subjects) == 0 {
		o.Subjects = []string{""}
	}
	if o.Ranges == 0 {
		o.Ranges = 1
	}
	if o.Ahead == 0 {
		o.Ahead = 512
	}
}

// Validate tells what is wrong with the options.
func (o *SourceOptions) Validate() error {
	if err := o.Connection.Validate(); err != nil {
		return err
	}
	if len(o.Streams) == 0 {
		return errors.New("nats: no stream to read")
	}
	for _, s := range o.Streams {
		if err := checkStream(s); err != nil {
			return err
		}
	}
	for _, s := range o.Subjects {
		if s == "" && len(o.Subjects) == 1 {
			continue
		}
		if err := checkSubject(s); err != nil {
			return err
		}
	}
	switch {
	case o.Ranges < 1 || o.Ranges > 1 && !o.Bounded:
		return fmt.Errorf("nats: %d ranges: want 1, or more of a bounded source", o.Ranges)
	case o.Ahead < 1:
		return fmt.Errorf("nats: %d messages ahead: want at least 1", o.Ahead)
	}
	return nil
}

// Source reads streams. It implements operator.Source[Message].
type Source struct{ options SourceOptions }

var (
	_ operator.Source[Message] = (*Source)(nil)
	_ operator.InputNamer      = (*Source)(nil)
)

// Messages reads the messages of streams. The options are looked at when the splits are listed.
func Messages(o SourceOptions) *Source {
	o.EnsureDefaults()
	return &Source{options: o}
}

// span is a split: messages of a stream from First to Last, of which a pattern may pick some.
type span struct {
	Stream, Subject string
	First, Last     uint64 // Last is math.MaxUint64 if the split has no end
}

// String is the split's identity.
func (s span) String() string {
	v := url.Values{"first": {strconv.FormatUint(s.First, 10)}}
	if s.Subject != "" {
		v.Set("subject", s.Subject)
	}
	if s.Last != math.MaxUint64 {
		v.Set("last", strconv.FormatUint(s.Last, 10))
	}
	return s.Stream + "?" + v.Encode()
}

func parseSpan(identity string) (s span, err error) {
	stream, query, _ := strings.Cut(identity, "?")
	v, err := url.ParseQuery(query)
	s = span{Stream: stream, Subject: v.Get("subject"), Last: math.MaxUint64}
	if err == nil {
		s.First, err = strconv.ParseUint(v.Get("first"), 10, 64)
	}
	if err == nil && v.Has("last") {
		s.Last, err = strconv.ParseUint(v.Get("last"), 10, 64)
	}
	if err != nil || s.First == 0 || s.String() != identity {
		return s, fmt.Errorf("%w: %q", ErrSplit, identity)
	}
	return s, nil
}

// Splits lists the splits in the order of streams, subjects and ranges. It waits for the servers.
func (s *Source) Splits(ctx context.Context) ([]string, error) {
	if err := s.options.Validate(); err != nil {
		return nil, err
	}
	l := &link{options: s.options.Connection, name: "understudy source"}
	defer l.close()
	var splits []string
	for _, stream := range s.options.Streams {
		r := &requests{link: l, stream: stream}
		if s.options.Waiting != nil {
			r.say = func(why string) { s.options.Waiting(stream, why) }
		}
		for _, subject := range s.options.Subjects {
			var all []span
			err := r.persist(ctx, "listing splits", func() (err error) {
				all, err = s.list(ctx, r, subject)
				return err
			})
			if err != nil {
				return nil, err
			}
			for _, sp := range all {
				splits = append(splits, sp.String())
			}
		}
	}
	return splits, nil
}

// list lists the splits of one stream and subject.
func (s *Source) list(ctx context.Context, r *requests, subject string) ([]span, error) {
	info, err := r.info(ctx)
	if err != nil {
		return nil, err
	}
	if info.Config.Retention != jetstream.LimitsPolicy {
		return nil, fmt.Errorf("%w: the retention of %s is %v, so that nothing can be read again: want Limits", ErrUnfit, r.stream,
			info.Config.Retention)
	}
	whole := span{Stream: r.stream, Subject: subject, First: info.State.LastSeq + 1, Last: math.MaxUint64}
	first, err := r.next(ctx, 1, subject)
	if err != nil {
		return nil, err
	}
	if first != nil {
		whole.First = min(first.Sequence, whole.First)
	}
	if !s.options.Bounded {
		return []span{whole}, nil
	}
	whole.Last = info.State.LastSeq
	var all []span
	step := (whole.Last + 1 - whole.First + uint64(s.options.Ranges) - 1) / uint64(s.options.Ranges)
	for from := whole.First; from <= whole.Last; from += step {
		part := whole
		part.First, part.Last = from, min(from+step-1, whole.Last)
		all = append(all, part)
	}
	return all, nil
}

// next gives the first message from a sequence on that a pattern picks and that is not one of a sink's own; nil if there is none.
func (r *requests) next(ctx context.Context, from uint64, subject string) (*stored, error) {
	if subject == "" {
		subject = ">"
	}
	for {
		m, err := r.message(ctx, question{Seq: from, NextFor: subject})
		if m == nil || err != nil || !isHidden(m.Subject) {
			return m, err
		}
		from = m.Sequence + 1
	}
}

// isHidden tells whether a message is no record but a sink's own.
func isHidden(subject string) bool { return strings.HasPrefix(subject, hiddenSubject("")) }

// InputOf implements operator.InputNamer.
func (s *Source) InputOf(identity string) string {
	sp, err := parseSpan(identity)
	if err != nil {
		return identity
	}
	name := "stream " + sp.Stream
	if sp.Subject != "" {
		name += ", subject " + sp.Subject
	}
	return name
}

// Open reads a split from an offset. It does not wait for a server: what is wrong there, Next says.
func (s *Source) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[Message], error) {
	r, err := s.open(ctx, identity, offset)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (s *Source) open(ctx context.Context, identity string, offset uint64) (*reader, error) {
	if err := s.options.Validate(); err != nil {
		return nil, err
	}
	sp, err := parseSpan(identity)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(s.options.Streams, sp.Stream) || !slices.Contains(s.options.Subjects, sp.Subject) {
		return nil, fmt.Errorf("%w: %q", ErrSplit, identity)
	}
	if offset != 0 && offset < sp.First || offset > sp.Last {
		return nil, fmt.Errorf("%w: %d of %q", ErrOffset, offset, identity)
	}
	return newReader(ctx, s.options, identity, sp, offset), nil
}

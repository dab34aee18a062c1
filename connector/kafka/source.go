package kafka

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// Record is a record of a topic, as it was committed.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Time      time.Time // of its making or of its arrival, whichever the topic keeps
	Key       []byte    // nil if it has none
	Value     []byte    // nil for a tombstone
	Headers   []Header
}

// SourceOptions tunes a Source. All but Client has defaults.
type SourceOptions struct {
	// Client says how to reach the brokers.
	Client ClientOptions
	// Latest begins behind what is there when the job begins. Default: at the first record that is there.
	Latest bool
	// Since, if not zero, begins at the first record of that time or later. Not with Latest.
	Since time.Time
	// Bounded ends the input where the topics' committed records end when the job begins. Default: it never ends.
	Bounded bool
	// DiscoveryInterval is the time between two looks for partitions that were added to the topics. They are read from their first
	// record on. Default 30 s; negative: never. Not with Bounded.
	DiscoveryInterval time.Duration
	// BufferBytes is how much of a partition is read ahead. Default 1 MiB.
	BufferBytes int
	// Waiting is told each time that something has failed and is going to be tried again: of which split, "" for all of them, and
	// why. It may be called from several goroutines, and must not block. Default: nobody is told.
	Waiting func(split string, err error)
}

// EnsureDefaults fills in what is zero.
func (o *SourceOptions) EnsureDefaults() {
	o.Client.EnsureDefaults()
	if o.BufferBytes == 0 {
		o.BufferBytes = 1 << 20
	}
	if o.DiscoveryInterval == 0 && !o.Bounded {
		o.DiscoveryInterval = 30 * time.Second
	}
	if o.Waiting == nil {
		o.Waiting = func(string, error) {}
	}
}

// Validate tells what is wrong with the options, after EnsureDefaults.
func (o *SourceOptions) Validate() error {
	if err := o.Client.Validate(); err != nil {
		return err
	}
	if o.Latest && !o.Since.IsZero() {
		return errors.New("kafka: a source begins at the latest record or at a time, not both")
	}
	if o.Bounded && o.DiscoveryInterval > 0 {
		return errors.New("kafka: a source that ends where the topics end now does not look for new partitions")
	}
	if o.BufferBytes < 1 {
		return fmt.Errorf("kafka: %d bytes read ahead", o.BufferBytes)
	}
	return nil
}

// Source reads topics, a split per partition. It implements operator.Source[Record].
type Source struct {
	topics  []string
	options SourceOptions
	calls   calls
	mu      struct {
		sync.Mutex
		consumers []*consumer
	}
}

var (
	_ operator.Source[Record] = (*Source)(nil)
	_ operator.InputNamer     = (*Source)(nil)
	_ operator.Growing        = (*Source)(nil)
)

// Records reads the committed records of topics, also of partitions that are added while the job runs, unless the source is bounded.
func Records(o SourceOptions, topics ...string) *Source {
	o.EnsureDefaults()
	sorted := slices.Clone(topics)
	slices.Sort(sorted)
	s := &Source{topics: slices.Compact(sorted)}
	o.Client.unreachable = func(err error) {
		s.calls.unreachable(err)
		o.Waiting("", err)
	}
	s.options = o
	return s
}

// DiscoveryInterval implements operator.Growing.
func (s *Source) DiscoveryInterval() time.Duration { return max(s.options.DiscoveryInterval, 0) }

// Discover implements operator.Growing. A partition that was added is read from its first record on, whatever the options say: all
// of it came after the job began. A partition is known by its topic and number, whatever became of the topic since: the readers of one that
// was made anew say so.
func (s *Source) Discover(ctx context.Context, known []string) (splits []string, all bool, err error) {
	if err := s.options.Validate(); err != nil {
		return nil, false, err
	}
	have := make(map[place]bool, len(known))
	for _, identity := range known {
		sp, err := parseSplit(identity)
		if err != nil {
			return nil, false, err
		}
		have[sp.place] = true
	}
	b, err := connect(&s.options.Client)
	if err != nil {
		return nil, false, err
	}
	defer b.close()
	for _, topic := range s.topics {
		err := persist(ctx, nil, func(err error) { s.options.Waiting(topic, err) }, func() error {
			added, err := s.added(ctx, b, topic, have)
			if err == nil {
				splits = append(splits, added...)
			}
			return err
		})
		if err != nil {
			return nil, false, err
		}
	}
	return splits, false, nil
}

// added lists the partitions of a topic that are new.
func (s *Source) added(ctx context.Context, b *brokers, topic string, have map[place]bool) ([]string, error) {
	id, n, err := b.topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: %q", ErrNoTopic, topic)
	}
	var out []string
	for p := range int32(n) {
		sp := split{place: place{topic, p}, id: id, until: -1}
		if have[sp.place] {
			continue
		}
		if sp.from, err = b.offset(ctx, sp.place, atStart, false); err != nil {
			return nil, err
		}
		out = append(out, sp.String())
	}
	return out, nil
}

// Splits lists the partitions, by topic and number, with where each begins and, if the source is bounded, ends. It waits for brokers
// that cannot be reached until ctx ends.
func (s *Source) Splits(ctx context.Context) ([]string, error) {
	if err := s.options.Validate(); err != nil {
		return nil, err
	}
	if len(s.topics) == 0 {
		return nil, fmt.Errorf("%w: the source has none", ErrNoTopic)
	}
	b, err := connect(&s.options.Client)
	if err != nil {
		return nil, err
	}
	defer b.close()
	var out []string
	for _, topic := range s.topics {
		err := persist(ctx, nil, func(err error) { s.options.Waiting(topic, err) }, func() error {
			splits, err := s.list(ctx, b, topic)
			if err == nil {
				out = append(out, splits...)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Source) list(ctx context.Context, b *brokers, topic string) ([]string, error) {
	id, n, err := b.topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: %q", ErrNoTopic, topic)
	}
	var out []string
	for p := range int32(n) {
		sp := split{place: place{topic, p}, id: id, until: -1}
		end, err := b.offset(ctx, sp.place, atEnd, true)
		if err != nil {
			return nil, err
		}
		if sp.from, err = s.begin(ctx, b, sp.place, end); err != nil {
			return nil, err
		}
		if s.options.Bounded {
			sp.until = max(end, sp.from)
		}
		out = append(out, sp.String())
	}
	return out, nil
}

// begin gives where a partition is read from.
func (s *Source) begin(ctx context.Context, b *brokers, p place, end int64) (int64, error) {
	switch {
	case s.options.Latest:
		return end, nil
	case s.options.Since.IsZero():
		return b.offset(ctx, p, atStart, false)
	}
	at, err := b.offset(ctx, p, s.options.Since.UnixMilli(), false)
	if err != nil || at >= 0 {
		return at, err
	}
	return end, nil
}

// InputOf implements operator.InputNamer.
func (s *Source) InputOf(identity string) string {
	sp, err := parseSplit(identity)
	if err != nil {
		return identity
	}
	if sp.until < 0 {
		return fmt.Sprintf("%v from offset %d on", sp.place, sp.from)
	}
	return fmt.Sprintf("%v, offsets %d to %d", sp.place, sp.from, sp.until)
}

// Open reads a split from an offset: that behind the last record that was read. It does not wait for the brokers: what is wrong, the
// reader tells.
func (s *Source) Open(ctx context.Context, identity string, offset uint64) (operator.Reader[Record], error) {
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
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sp, err := parseSplit(identity)
	if err != nil {
		return nil, err
	}
	if _, ours := slices.BinarySearch(s.topics, sp.topic); !ours {
		return nil, fmt.Errorf("%w: %q", ErrSplit, identity)
	}
	at := sp.from
	if offset > 0 {
		at = int64(offset)
		if at <= sp.from || sp.until >= 0 && at > sp.until {
			return nil, fmt.Errorf("%w: offset %d of %q", ErrSplit, offset, identity)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A client reads a partition once. A second reader of it, as when a task is replaced in its process, gets another client.
	i := slices.IndexFunc(s.mu.consumers, func(c *consumer) bool { return c.readers[sp.place] == nil })
	if i < 0 {
		c, err := newConsumer(&s.options)
		if err != nil {
			return nil, err
		}
		i = len(s.mu.consumers)
		s.mu.consumers = append(s.mu.consumers, c)
	}
	c := s.mu.consumers[i]
	r := newReader(s, c, sp, identity, at)
	c.readers[sp.place] = r
	c.add(r)
	return r, nil
}

// release is called by a reader that is closed.
func (s *Source) release(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.consumer
	delete(c.readers, r.split.place)
	c.remove(r)
	if len(c.readers) == 0 {
		c.close()
		s.mu.consumers = slices.DeleteFunc(s.mu.consumers, func(d *consumer) bool { return d == c })
	}
}

// split is a partition of a topic, from an offset on.
type split struct {
	place
	id    [16]byte // of the topic; zero if the brokers give none
	from  int64
	until int64 // the offset before which it ends, -1 if it does not
}

// String gives the identity, such as
//
//	"orders" 3 of 0b9f3c70e8a94c2fb4c19a6a2e62d0aa from 17
//	"orders" 3 of 0b9f3c70e8a94c2fb4c19a6a2e62d0aa from 17 until 1200
func (s split) String() string {
	text := fmt.Sprintf("%s %d of %s from %d", strconv.Quote(s.topic), s.partition, hex.EncodeToString(s.id[:]), s.from)
	if s.until >= 0 {
		text += fmt.Sprintf(" until %d", s.until)
	}
	return text
}

// parseSplit is the inverse of String. It accepts nothing that String does not give.
func parseSplit(identity string) (split, error) {
	s := split{until: -1}
	quoted, err := strconv.QuotedPrefix(identity)
	if err == nil {
		s.topic, err = strconv.Unquote(quoted)
	}
	var id string
	if err == nil {
		rest := strings.TrimPrefix(identity[len(quoted):], " ")
		if strings.Contains(rest, " until ") {
			_, err = fmt.Sscanf(rest, "%d of %s from %d until %d", &s.partition, &id, &s.from, &s.until)
		} else {
			_, err = fmt.Sscanf(rest, "%d of %s from %d", &s.partition, &id, &s.from)
		}
	}
	if raw, derr := hex.DecodeString(id); err == nil && derr == nil {
		copy(s.id[:], raw)
	}
	if err != nil || s.String() != identity || s.partition < 0 || s.from < 0 || s.until >= 0 && s.until < s.from {
		return split{}, fmt.Errorf("%w: %q", ErrSplit, identity)
	}
	return s, nil
}

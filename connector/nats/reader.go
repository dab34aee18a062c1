package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/understudy-stream/understudy/operator"
)

const (
	fetchWait      = 2 * time.Second // how long one fetch waits for messages; then what was missed is looked for
	consumerIdle   = time.Minute     // after which the server forgets a consumer that nobody asks
	fetchedAtATime = 256
)

// reader reads one split. A goroutine of its own fetches ahead, so that Next never waits for a server.
type reader struct {
	requests
	options SourceOptions
	span    span
	offset  uint64 // after the last record that Next returned
	out     chan jetstream.Msg
	wake    chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup
	err     error // why out was closed; set before

	// What follows belongs to the goroutine.
	seen      uint64 // sequence of the last message that came, or that is known not to be there
	delivered uint64 // messages that the present consumer has delivered
}

func newReader(ctx context.Context, o SourceOptions, identity string, sp span, offset uint64) *reader {
	r := &reader{
		options: o, span: sp, offset: offset, seen: max(offset, sp.First-1),
		out: make(chan jetstream.Msg, o.Ahead), wake: make(chan struct{}, 1),
	}
	r.link = &link{options: o.Connection, name: "understudy source " + sp.Stream}
	r.stream = sp.Stream
	if o.Waiting != nil {
		r.say = func(why string) { o.Waiting(identity, why) }
	}
	ctx, r.cancel = context.WithCancel(ctx)
	r.done.Go(func() { r.run(ctx) })
	return r
}

// Next implements operator.Reader.
func (r *reader) Next() (Message, uint64, error) {
	m, err := r.fetched()
	if err != nil {
		return Message{}, r.offset, err
	}
	v, err := convert(m)
	if err != nil {
		return Message{}, r.offset, err
	}
	r.offset = v.Sequence
	return v, r.offset, nil
}

func (r *reader) fetched() (jetstream.Msg, error) {
	select {
	case m, ok := <-r.out:
		if !ok {
			return nil, r.err
		}
		return m, nil
	default:
		return nil, operator.ErrNotReady
	}
}

// Ready implements operator.Reader.
func (r *reader) Ready() <-chan struct{} { return r.wake }

// Waiting tells for people why the split waits for the server; empty if it does not.
func (r *reader) Waiting() string { return r.why() }

// Close implements operator.Reader.
func (r *reader) Close() error {
	r.cancel()
	r.done.Wait()
	return nil
}

func convert(m jetstream.Msg) (Message, error) {
	meta, err := m.Metadata()
	if err != nil {
		return Message{}, fmt.Errorf("nats: %w", err)
	}
	v := Message{
		Stream: meta.Stream, Subject: m.Subject(), Sequence: meta.Sequence.Stream, Millis: meta.Timestamp.UnixMilli(), Data: m.Data(),
	}
	for name, values := range m.Headers() { //lint:sorted below
		for _, value := range values {
			v.Header = append(v.Header, Field{name, value})
		}
	}
	slices.SortStableFunc(v.Header, func(a, b Field) int { return cmp.Compare(a.Name, b.Name) })
	return v, nil
}

// run fetches until the split ends, something is wrong that does not go away, or ctx ends.
func (r *reader) run(ctx context.Context) {
	defer r.link.close()
	w := wait{requests: &r.requests, doing: "reading"}
	var err error
	for ctx.Err() == nil {
		before := r.seen
		if err = r.follow(ctx); err != nil && !passing(err) && !errors.Is(err, errMissed) {
			break
		}
		if r.seen > before {
			w.over()
			w = wait{requests: &r.requests, doing: "reading"}
		}
		if err == nil {
			continue
		}
		if err = w.pause(ctx, err); err != nil {
			break
		}
	}
	w.over()
	r.err = err
	if r.err == nil {
		r.err = context.Cause(ctx)
	}
	close(r.out)
	r.notify()
}

func (r *reader) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// errMissed says that a consumer has delivered messages that did not arrive.
var errMissed = errors.New("nats: messages were lost on their way")

// follow reads with one consumer until it fails; io.EOF at the split's end.
func (r *reader) follow(ctx context.Context) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	_, js, err := r.link.get()
	if err != nil {
		return err
	}
	consumer, err := r.consume(ctx, js)
	if err != nil {
		return err
	}
	r.delivered = 0
	for ctx.Err() == nil {
		n, err := r.fetch(ctx, consumer)
		if err != nil {
			return err
		}
		if n > 0 {
			r.waitOver()
			continue
		}
		if err := r.idle(ctx, consumer); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// waitOver says that messages come again.
func (r *reader) waitOver() {
	if r.why() != "" {
		(&wait{requests: &r.requests, said: true}).over()
	}
}

// look compares the stream with where the split is to be read on.
func (r *reader) look(ctx context.Context) error {
	info, err := r.info(ctx)
	if err != nil {
		return err
	}
	if info.State.LastSeq < r.seen {
		return fmt.Errorf("%w: %s ends with message %d, message %d was read", ErrOffset, r.stream, info.State.LastSeq, r.seen)
	}
	if r.seen >= r.span.Last {
		return io.EOF
	}
	return r.removed(r.seen, info.State.FirstSeq)
}

// removed tells whether messages behind a sequence may be gone because the stream begins later. Messages that were taken out of
// the middle do not count: nobody expects them.
func (r *reader) removed(behind, first uint64) error {
	if first <= behind+1 || r.options.AllowRemoved {
		return nil
	}
	return fmt.Errorf("%w: messages %d to %d of %s: it begins with message %d", ErrRemoved, behind+1, min(first-1, r.span.Last), r.stream, first)
}

func (r *reader) consume(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	ctx, done := r.link.bounded(ctx, r.link.options.Timeout)
	defer done()
	c, err := js.CreateConsumer(ctx, r.stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.seen + 1, FilterSubject: r.span.Subject,
		AckPolicy: jetstream.AckNonePolicy, InactiveThreshold: consumerIdle, MemoryStorage: true, Replicas: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("nats: reading %s: %w", r.stream, because(ctx, err))
	}
	return c, nil
}

// fetch takes what the consumer has next, and hands it on.
func (r *reader) fetch(ctx context.Context, c jetstream.Consumer) (n int, err error) {
	session, done := r.link.bounded(ctx, fetchWait)
	defer done()
	batch, err := c.Fetch(min(fetchedAtATime, cap(r.out)), jetstream.FetchContext(session))
	if err != nil {
		return 0, fmt.Errorf("nats: reading %s: %w", r.stream, because(session, err))
	}
	messages := batch.Messages()
	defer func() { // the library's goroutine ends before this one
		done()
		for range messages {
		}
	}()
	for ended := false; !ended; {
		var got []jetstream.Msg
		got, ended = gather(messages)
		if err := r.take(ctx, got); err != nil {
			return n, err
		}
		n += len(got)
	}
	if ctx.Err() != nil {
		return n, context.Cause(ctx)
	}
	if err := batch.Error(); err != nil {
		return n, fmt.Errorf("nats: reading %s: %w", r.stream, because(session, err))
	}
	return n, nil
}

// gather waits for one message and takes those that are there with it.
func gather(from <-chan jetstream.Msg) (got []jetstream.Msg, ended bool) {
	m, ok := <-from
	for ok {
		got = append(got, m)
		select {
		case m, ok = <-from:
		default:
			return got, false
		}
	}
	return got, true
}

// take looks at messages that came and hands them on.
//
// Invariant: what lies between two of them was never there, or was taken out of the middle of the stream, or is no longer asked for
// (AllowRemoved). The stream's first message is asked for after they came: had its limits removed one between them before, it would
// begin behind that one now.
func (r *reader) take(ctx context.Context, got []jetstream.Msg) error {
	gap, from, last := uint64(0), r.seen, uint64(1) // last is how many messages the last one says are behind it
	sequences := make([]uint64, 0, len(got))
	for _, m := range got {
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("nats: %w", err)
		}
		if r.delivered++; meta.Sequence.Consumer != r.delivered || meta.Sequence.Stream <= from {
			return fmt.Errorf("%w: message %d of %s is the consumer's number %d, expected %d", errMissed, meta.Sequence.Stream, r.stream,
				meta.Sequence.Consumer, r.delivered)
		}
		if gap == 0 && meta.Sequence.Stream > from+1 {
			gap = from + 1
		}
		from, last = meta.Sequence.Stream, meta.NumPending
		sequences = append(sequences, from)
	}
	if gap > 0 {
		if err := r.whole(ctx, sequences); err != nil {
			return err
		}
	}
	for i, m := range got {
		if sequences[i] > r.span.Last {
			return io.EOF
		}
		if !isHidden(m.Subject()) {
			select {
			case r.out <- m:
				r.notify()
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		r.seen = sequences[i]
	}
	if r.seen >= r.span.Last || last == 0 && r.span.Last < math.MaxUint64 {
		return r.over(ctx)
	}
	return nil
}

// over looks whether a split that has an end is at it; then it is io.EOF.
func (r *reader) over(ctx context.Context) error {
	if r.seen < r.span.Last {
		m, err := r.next(ctx, r.seen+1, r.span.Subject)
		if err != nil || m != nil && m.Sequence <= r.span.Last {
			return err
		}
	}
	return io.EOF
}

// whole looks whether the stream's limits have removed something between the messages that came.
func (r *reader) whole(ctx context.Context, sequences []uint64) error {
	info, err := r.info(ctx)
	if err != nil {
		return err
	}
	before := r.seen
	for _, s := range sequences {
		if s > before+1 && before < r.span.Last {
			if err := r.removed(before, min(info.State.FirstSeq, s)); err != nil {
				return err
			}
		}
		before = s
	}
	return nil
}

// idle looks, when no message comes, whether there is none.
func (r *reader) idle(ctx context.Context, c jetstream.Consumer) error {
	if r.span.Last < math.MaxUint64 {
		if err := r.over(ctx); err != nil {
			return err
		}
	}
	ctx, done := r.link.bounded(ctx, r.link.options.Timeout)
	defer done()
	info, err := c.Info(ctx)
	if err != nil {
		return fmt.Errorf("nats: reading %s: %w", r.stream, because(ctx, err))
	}
	if info.Delivered.Consumer != r.delivered {
		return fmt.Errorf("%w: the consumer of %s has delivered %d, %d came", errMissed, r.stream, info.Delivered.Consumer, r.delivered)
	}
	r.waitOver()
	return nil
}

package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/understudy-stream/understudy/operator"
)

// SinkOptions tunes a causal or transactional sink. All but Client has defaults.
type SinkOptions struct {
	// Client says how to reach the brokers.
	Client ClientOptions
	// Identity names the job. It must be the same in every worker of a job, also after a restart of the whole cluster, and
	// differ between any two jobs. Default: what the engine gives to Identify.
	Identity string
	// Journal is the topic in which the sink keeps what belongs to its output, one partition per sink task; it is made if there
	// is none. It is the place that one job has for itself: two jobs may write to one topic only with two journals, and two
	// sinks of a job to one topic too. Default: the topic's name and ".understudy".
	Journal string
	// JournalReplicas is the replication factor of a Journal that is made. Default: that of the brokers.
	JournalReplicas int
	// Partitions is how many the topic gets if there is none. Default: the topic must be there.
	Partitions int
	// Message makes a record of what the sink's codec has encoded: its key, value, headers and partition. Default Value. It must
	// depend on nothing but its argument.
	Message func(encoded []byte) (Message, error)
	// Compression is none, gzip, snappy, lz4 or zstd. Default snappy.
	Compression string
	// MaxMessageBytes is the longest batch of records that the topic takes, its max.message.bytes. Default 1 MiB less 16 bytes, like
	// the brokers'.
	MaxMessageBytes int
	// Interval is the least time between the ends of two transactions of a task of a causal sink; what comes meanwhile goes into the
	// next. Default 5 ms.
	Interval time.Duration
	// JournalTimeout is after what time without an end the brokers abort a transaction with which a causal sink writes, or either
	// sink its journal. So long may a dead worker hold up readers of the topic if nobody succeeds it. Default 60 s.
	JournalTimeout time.Duration
	// TransactionTimeout is how long a transaction of a transactional sink may last, from its first record to its commit: a checkpoint
	// interval and the longest outage together. The brokers abort what lasts longer, and then prepared output is lost. It must not be
	// more than the brokers' transaction.max.timeout.ms. Default 15 minutes, like theirs.
	TransactionTimeout time.Duration
	// Patience is how long a reader of the journal waits for an open transaction of a writer that is not replaced, before it has the
	// brokers abort it. Default 2 s.
	Patience time.Duration
	// Waiting is told each time that something has failed and is going to be tried again: of which partition of the journal, or
	// of which journal, and why. It may be called from several goroutines, and must not block. Default: nobody is told.
	Waiting func(journal string, err error)
}

// EnsureDefaults fills in what is zero.
func (o *SinkOptions) EnsureDefaults() {
	o.Client.EnsureDefaults()
	for _, d := range []struct {
		to    *time.Duration
		value time.Duration
	}{
		{&o.Interval, 5 * time.Millisecond}, {&o.JournalTimeout, time.Minute}, {&o.TransactionTimeout, 15 * time.Minute},
		{&o.Patience, 2 * time.Second},
	} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	if o.Message == nil {
		o.Message = Value
	}
	if o.Compression == "" {
		o.Compression = "snappy"
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = 1<<20 - 16
	}
	if o.Waiting == nil {
		o.Waiting = func(string, error) {}
	}
}

// minMessage is the least MaxMessageBytes: an entry's chunks need some room.
const minMessage = 1 << 10

// Validate tells what is wrong with the options, after EnsureDefaults.
func (o *SinkOptions) Validate() error {
	if err := o.Client.Validate(); err != nil {
		return err
	}
	if o.Interval < 0 || o.Patience < 0 {
		return fmt.Errorf("kafka: interval %v, patience %v: neither may be negative", o.Interval, o.Patience)
	}
	for _, d := range []time.Duration{o.JournalTimeout, o.TransactionTimeout} {
		if d < time.Second || d > math.MaxInt32*time.Millisecond {
			return fmt.Errorf("kafka: a timeout of %v: it must be between 1s and %v", d, math.MaxInt32*time.Millisecond)
		}
	}
	if o.MaxMessageBytes < minMessage || o.Partitions < 0 || o.JournalReplicas < 0 {
		return fmt.Errorf("kafka: %d partitions, %d replicas, messages of up to %d bytes (at least %d)", o.Partitions,
			o.JournalReplicas, o.MaxMessageBytes, minMessage)
	}
	if len(o.Identity) > maxIdentity {
		return fmt.Errorf("kafka: an identity of %d bytes, more than %d", len(o.Identity), maxIdentity)
	}
	if _, ok := codecs[strings.ToLower(o.Compression)]; !ok {
		return fmt.Errorf("kafka: unknown compression %q: none, gzip, snappy, lz4 or zstd", o.Compression)
	}
	return nil
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(),
	"zstd": kgo.ZstdCompression(),
}

func (o *SinkOptions) codec() kgo.CompressionCodec { return codecs[strings.ToLower(o.Compression)] }

// outlet is what the two kinds of sinks have in common: a topic, its journal, and the connection to the brokers while stores are open.
type outlet struct {
	topic   string
	options SinkOptions
	calls   calls
	mu      struct {
		sync.Mutex
		identity string
		brokers  *brokers // nil while no store is open
		opens    int
		parts    map[int]*opened
	}
}

// opened is a part, the same for all stores of a task, and how many stores there are.
type opened struct {
	part  shutter
	stop  context.CancelCauseFunc
	opens int
}

// shutter is a part: shut ends what it has, after the context of its life has ended.
type shutter interface{ shut() }

func newOutlet(topic string, o SinkOptions) *outlet {
	o.EnsureDefaults()
	if o.Journal == "" {
		o.Journal = topic + ".understudy"
	}
	out := &outlet{topic: topic}
	o.Client.unreachable = func(err error) {
		out.calls.unreachable(err)
		o.Waiting(o.Journal, err)
	}
	out.options = o
	out.mu.identity = o.Identity
	out.mu.parts = make(map[int]*opened)
	return out
}

// Identify gives the sink the job's identity unless the options have one. The engine calls it before a store is opened.
func (o *outlet) Identify(identity string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.options.Identity != "" || o.mu.identity == identity {
		return nil
	}
	if o.mu.opens > 0 {
		return fmt.Errorf("%w: %s is open as that of job %q", ErrJob, o.options.Journal, o.mu.identity)
	}
	if len(identity) > maxIdentity {
		return fmt.Errorf("kafka: an identity of %d bytes, more than %d", len(identity), maxIdentity)
	}
	o.mu.identity = identity
	return nil
}

// open gives the part of a task, made by make if there is none, and what undoes the call.
func (o *outlet) open(ctx context.Context, task, n int, make func(context.Context, *brokers, string) shutter) (shutter, func() error, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if err := o.options.Validate(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", operator.ErrPermanent, err)
	}
	if o.topic == "" || task < 0 || task >= n {
		return nil, nil, fmt.Errorf("%w: there is no task %d of %d of topic %q", operator.ErrPermanent, task, n, o.topic)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.brokers == nil {
		b, err := connect(&o.options.Client, kgo.MaxVersions(outletVersions()))
		if err != nil {
			return nil, nil, err
		}
		o.mu.brokers = b
	}
	p := o.mu.parts[task]
	if p == nil {
		life, stop := context.WithCancelCause(context.Background())
		p = &opened{part: make(life, o.mu.brokers, o.mu.identity), stop: stop}
		o.mu.parts[task] = p
	}
	p.opens++
	o.mu.opens++
	return p.part, sync.OnceValue(func() error { return o.release(task, p) }), nil
}

// release undoes one open. Calls of the last store of a part that are under way fail with ErrClosed.
func (o *outlet) release(task int, p *opened) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p.opens--; p.opens == 0 {
		p.stop(ErrClosed)
		p.part.shut()
		delete(o.mu.parts, task)
	}
	if o.mu.opens--; o.mu.opens == 0 {
		o.mu.brokers.close()
		o.mu.brokers = nil
	}
	return nil
}

// outletVersions keeps the transactions that are ended by hand to the protocol in which a transaction has one epoch from its
// beginning to its end, however often it is asked to end.
func outletVersions() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(kmsg.Produce.Int16(), 11)
	v.SetMaxKeyVersion(kmsg.EndTxn.Int16(), 4)
	return v
}

// prepareTopics makes sure that the topic and its journal are there, and gives how many partitions the topic has.
func (o *outlet) prepareTopics(ctx context.Context, b *brokers, tasks int) (int, error) {
	partitions, err := o.ensure(ctx, b, o.topic, int32(o.options.Partitions), 0, nil)
	if err != nil {
		return 0, err
	}
	if partitions == 0 {
		return 0, fmt.Errorf("%w: %q; make it, or set Partitions", ErrNoTopic, o.topic)
	}
	// Nothing may be removed from a journal but by the sink itself.
	journal, err := o.ensure(ctx, b, o.options.Journal, int32(tasks), int16(o.options.JournalReplicas), map[string]string{
		"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1",
	})
	if err != nil {
		return 0, err
	}
	if journal < tasks {
		return 0, fmt.Errorf("%w: %q has %d partitions, the sink has %d tasks", ErrNoTopic, o.options.Journal, journal, tasks)
	}
	return partitions, nil
}

// ensure gives how many partitions a topic has, after making it with n of them if there is none and n is above 0.
func (o *outlet) ensure(ctx context.Context, b *brokers, name string, n int32, replicas int16, configs map[string]string) (int, error) {
	_, have, err := b.topic(ctx, name)
	if err != nil || have > 0 || n == 0 {
		return have, err
	}
	if err := b.create(ctx, name, n, replicas, configs); err != nil {
		return 0, err
	}
	if _, have, err = b.topic(ctx, name); err == nil && have == 0 {
		err = fmt.Errorf("kafka: topic %q is not known to all brokers yet", name)
	}
	return have, err
}

// journal makes the journal of a task.
func (o *outlet) journal(b *brokers, task int) *journal {
	return &journal{
		brokers: b, options: &o.options, at: place{o.options.Journal, int32(task)}, txid: fmt.Sprintf("%s-%d", o.options.Journal, task),
	}
}

// turn is a lock that a call waits for no longer than its context lives.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take takes the lock. The context that it gives ends with each of the two; after done, it has ended.
func (t turn) take(ctx, life context.Context) (both context.Context, done func(), err error) {
	both, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(life, func() { cancel(context.Cause(life)) })
	end := func() { stop(); cancel(nil) }
	select {
	case t <- struct{}{}:
	case <-both.Done():
		err := context.Cause(both)
		end()
		return nil, nil, fmt.Errorf("kafka: %w", err)
	}
	if cause := context.Cause(both); cause != nil {
		<-t
		end()
		return nil, nil, fmt.Errorf("kafka: %w", cause)
	}
	return both, func() { end(); <-t }, nil
}

var errOverdue = errors.New("kafka: gave up waiting")

// sleep waits, not longer than ctx lives.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("kafka: %w", context.Cause(ctx))
	case <-timer.C:
		return nil
	}
}

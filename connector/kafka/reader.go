package kafka

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/understudy-stream/understudy/operator"
)

// reader reads one split. It implements operator.Reader[Record].
type reader struct {
	source   *Source
	consumer *consumer
	split    split
	identity string
	start    int64 // the offset that it was opened at
	ctx      context.Context
	cancel   context.CancelFunc
	ready    chan struct{} // has a place for one value
	waits    operator.Waits
	mine     []*kgo.Record // taken out of mu.fetched; the goroutine's that calls Next

	mu struct {
		sync.Mutex
		fetched []*kgo.Record // not given out yet
		bytes   int           // of them and of mine
		paused  bool
		// position is the offset from which on nothing has come yet.
		// Invariant: every record below it that can be seen was delivered, in order.
		position int64
		err      error
	}
}

var _ operator.Reader[Record] = (*reader)(nil)

func newReader(s *Source, c *consumer, sp split, identity string, at int64) *reader {
	r := &reader{source: s, consumer: c, split: sp, identity: identity, start: at, ready: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.mu.position = at
	return r
}

// Waiting implements operator.Waiter: why the split cannot be looked at. Of a fetch the client says nothing while it tries again.
func (r *reader) Waiting() string { return r.waits.Waiting() }

func (r *reader) waiting(err error) { r.source.options.Waiting(r.identity, err) }

// verify asks the brokers whether the split is what it was and has all that is still to be read. It waits for brokers that cannot be
// reached.
func (r *reader) verify() error {
	return persist(r.ctx, r.source.calls.begin(&r.waits), r.waiting, func() error {
		b := r.consumer.brokers
		id, n, err := b.topic(r.ctx, r.split.topic)
		switch {
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("%w: %q", ErrNoTopic, r.split.topic)
		case id != r.split.id && r.split.id != [16]byte{}:
			return fmt.Errorf("%w: %q", ErrRecreated, r.split.topic)
		}
		first, err := b.offset(r.ctx, r.split.place, atStart, false)
		if err != nil {
			return err
		}
		end, err := b.offset(r.ctx, r.split.place, atEnd, false)
		if err != nil {
			return err
		}
		r.mu.Lock()
		at := r.mu.position
		r.mu.Unlock()
		switch {
		case first > at && (r.split.until < 0 || at < r.split.until):
			return fmt.Errorf("%w: %v begins at offset %d now, %d is to be read", ErrRetention, r.split.place, first, at)
		case end < at:
			return fmt.Errorf("%w: %v ends at offset %d now, %d was read already: the brokers have lost records", ErrRetention,
				r.split.place, end, at-1)
		}
		return nil
	})
}

// deliver takes in what was fetched.
func (r *reader) deliver(records []*kgo.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range records {
		if k.Offset < r.mu.position {
			continue // fetched twice
		}
		if r.split.until >= 0 && k.Offset >= r.split.until {
			r.mu.position = r.split.until
			continue
		}
		r.mu.position = k.Offset + 1
		if !k.Attrs.IsControl() {
			r.mu.fetched = append(r.mu.fetched, k)
			r.mu.bytes += sizeOf(k)
		}
	}
	if !r.mu.paused && (r.mu.bytes > r.source.options.BufferBytes || r.atEnd()) {
		r.mu.paused = true
		r.consumer.pause(r.split.place)
	}
	r.wake()
}

// recordOverhead is what a record takes besides its bytes, about.
const recordOverhead = 200

func sizeOf(k *kgo.Record) int { return len(k.Key) + len(k.Value) + recordOverhead }

// atEnd tells whether everything has come. mu is held.
func (r *reader) atEnd() bool { return r.split.until >= 0 && r.mu.position >= r.split.until }

func (r *reader) wake() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err == nil {
		r.mu.err = err
	}
	r.wake()
}

// next gives the next record and the offset behind it.
func (r *reader) next() (*kgo.Record, uint64, error) {
	if len(r.mine) == 0 {
		if err := r.more(); err != nil {
			return nil, 0, err
		}
	}
	k := r.mine[0]
	r.mine[0] = nil
	r.mine = r.mine[1:]
	return k, uint64(k.Offset) + 1, nil
}

// more takes what has been fetched.
func (r *reader) more() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mine, r.mu.fetched, r.mu.bytes = r.mu.fetched, nil, 0
	if r.mu.paused && !r.atEnd() {
		r.mu.paused = false
		r.consumer.resume(r.split.place)
	}
	switch {
	case len(r.mine) > 0:
		return nil
	case r.atEnd():
		return io.EOF
	case r.mu.err != nil:
		return r.mu.err
	}
	return operator.ErrNotReady
}

// Next implements operator.Reader.
func (r *reader) Next() (Record, uint64, error) {
	k, next, err := r.next()
	if err != nil {
		return Record{}, 0, err
	}
	return recordOf(k), next, nil
}

func recordOf(k *kgo.Record) Record {
	out := Record{Topic: k.Topic, Partition: k.Partition, Offset: k.Offset, Time: k.Timestamp.UTC(), Key: k.Key, Value: k.Value}
	for _, h := range k.Headers {
		out.Headers = append(out.Headers, Header{Key: h.Key, Value: h.Value})
	}
	return out
}

// Ready implements operator.Reader.
func (r *reader) Ready() <-chan struct{} { return r.ready }

// Close implements operator.Reader.
func (r *reader) Close() error {
	if r.ctx.Err() == nil {
		r.source.release(r)
	}
	return nil
}

// watchEnd sees to it that a bounded split ends whose last offsets hold no record: those of compacted topics. A client is not told
// of them; so when nothing has come for a while, the partition is read by hand.
func (r *reader) watchEnd() {
	tick := time.NewTicker(endCheck)
	defer tick.Stop()
	last := int64(-1)
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		at, end, err := r.mu.position, r.atEnd(), r.mu.err
		r.mu.Unlock()
		if end || err != nil {
			r.wake()
			return
		}
		if at != last {
			last = at
			continue
		}
		if err := r.skip(at); err != nil {
			r.waiting(err)
		}
	}
}

// skip goes beyond offsets from at on that hold nothing, up to the end.
func (r *reader) skip(at int64) error {
	for from := at; from < r.split.until; {
		got, next, err := r.consumer.brokers.fetch(r.ctx, r.split.place, from)
		if err != nil {
			return err
		}
		for _, k := range got.Records {
			if !k.Attrs.IsControl() && k.Offset < r.split.until {
				return nil // the client will bring it
			}
		}
		if next == from { // no batch reaches beyond it: the committed part, which goes up to the end, holds nothing more
			if got.LastStableOffset < r.split.until {
				return nil
			}
			break
		}
		from = next
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.position == at { // else the client has brought something meanwhile
		r.mu.position = r.split.until
		r.wake()
	}
	return nil
}

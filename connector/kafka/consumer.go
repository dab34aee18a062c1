package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer is a client that reads partitions for readers, each partition for one of them.
type consumer struct {
	options *SourceOptions
	client  *kgo.Client
	brokers *brokers           // another client: what is asked must not wait for a Fetch that does
	readers map[place]*reader  // guarded by Source.mu
	ctx     context.Context    // ends with the consumer
	cancel  context.CancelFunc // ends it
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		active map[place]*reader // what is fetched is for them
	}
}

// Bounds of the consumer's Fetches and polls.
const (
	fetchParts   = 4                      // so many Fetches of a partition fill its buffer: a partition that is paused loses the last one
	leastFetch   = 64 << 10               // bytes of a Fetch of a partition, at least
	consumerWait = 500 * time.Millisecond // how long the brokers may hold back an answer for want of records
	endCheck     = 200 * time.Millisecond // how long a bounded split is at rest before it is asked whether it has ended
)

func newConsumer(o *SourceOptions) (*consumer, error) {
	client, err := o.Client.NewClient(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(consumerWait),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxPartitionBytes(int32(min(max(o.BufferBytes/fetchParts, leastFetch), 1<<30))),
	)
	if err != nil {
		return nil, err
	}
	b, err := connect(&o.Client)
	if err != nil {
		client.Close()
		return nil, err
	}
	c := &consumer{options: o, client: client, brokers: b, readers: make(map[place]*reader)}
	c.mu.active = make(map[place]*reader)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.running.Go(c.pump)
	return c, nil
}

// close ends the consumer. No reader is left.
func (c *consumer) close() {
	c.cancel()
	c.running.Wait()
	c.client.Close()
	c.brokers.close()
}

// add begins to read for a reader, as soon as the brokers say that it may.
func (c *consumer) add(r *reader) {
	c.running.Go(func() {
		stop := context.AfterFunc(c.ctx, r.cancel)
		defer stop()
		if err := r.verify(); err != nil {
			r.fail(err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.ctx.Err() != nil {
			return
		}
		c.mu.active[r.split.place] = r
		parts := map[string][]int32{r.split.topic: {r.split.partition}}
		c.client.ResumeFetchPartitions(parts)
		c.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{
			r.split.topic: {r.split.partition: kgo.NewOffset().At(r.start)},
		})
		if r.split.until >= 0 {
			c.running.Go(func() { r.watchEnd() })
		}
	})
}

// remove ends reading for a reader.
func (c *consumer) remove(r *reader) {
	r.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.active[r.split.place] != r {
		return
	}
	delete(c.mu.active, r.split.place)
	c.client.RemoveConsumePartitions(map[string][]int32{r.split.topic: {r.split.partition}})
}

func (c *consumer) pause(p place) {
	c.client.PauseFetchPartitions(map[string][]int32{p.topic: {p.partition}})
}
func (c *consumer) resume(p place) {
	c.client.ResumeFetchPartitions(map[string][]int32{p.topic: {p.partition}})
}

// pump gives readers what was fetched.
func (c *consumer) pump() {
	for c.ctx.Err() == nil {
		fetches := c.client.PollFetches(c.ctx)
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			c.mu.Lock()
			r := c.mu.active[place{p.Topic, p.Partition}]
			c.mu.Unlock()
			if r == nil {
				return
			}
			if len(p.Records) > 0 {
				r.deliver(p.Records)
			}
			if p.Err != nil {
				c.failed(r, p.Err)
			}
		})
	}
}

// failed tells a reader of an error of a Fetch, unless the client goes on by itself.
func (c *consumer) failed(r *reader, err error) {
	var lost *kgo.ErrDataLoss
	switch {
	case errors.Is(err, context.Canceled):
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		r.fail(fmt.Errorf("%w: %v: %w", ErrRecreated, r.split.place, err))
	case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &lost):
		// What is there now says more than the error does.
		c.running.Go(func() {
			again := r.verify()
			if again == nil {
				again = fmt.Errorf("%w: %v: %w", ErrRetention, r.split.place, err)
			}
			r.fail(again)
		})
	default:
		err = judged(err)
		if !passes(err) {
			r.fail(err)
			return
		}
		c.options.Waiting(r.identity, err)
	}
}

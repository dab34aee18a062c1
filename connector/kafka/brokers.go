package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type dialer = func(ctx context.Context, network, host string) (net.Conn, error)

// brokers is what a source or sink asks of the brokers besides producing and consuming. It may be used from several goroutines.
type brokers struct {
	client *kgo.Client
	mu     struct {
		sync.Mutex
		leaders map[place]int32
		ids     map[string][16]byte
	}
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.partition) }

func connect(o *ClientOptions, more ...kgo.Opt) (*brokers, error) {
	c, err := o.NewClient(more...)
	if err != nil {
		return nil, err
	}
	b := &brokers{client: c}
	b.mu.leaders, b.mu.ids = make(map[place]int32), make(map[string][16]byte)
	return b, nil
}

func (b *brokers) close() { b.client.Close() }

// topic describes a topic; partitions is 0 if there is none.
func (b *brokers) topic(ctx context.Context, name string) (id [16]byte, partitions int, err error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, b.client)
	if err != nil {
		return id, 0, judged(err)
	}
	if len(resp.Topics) != 1 {
		return id, 0, fmt.Errorf("kafka: %d topics in an answer about one", len(resp.Topics))
	}
	got := resp.Topics[0]
	switch err := kerr.ErrorForCode(got.ErrorCode); {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return id, 0, nil
	case err != nil:
		return id, 0, judged(fmt.Errorf("topic %q: %w", name, err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.ids[name] = got.TopicID
	for _, p := range got.Partitions {
		if p.ErrorCode == 0 && p.Leader >= 0 {
			b.mu.leaders[place{name, p.Partition}] = p.Leader
		} else {
			delete(b.mu.leaders, place{name, p.Partition})
		}
	}
	return got.TopicID, len(got.Partitions), nil
}

// leader gives who has a partition, and the topic's id.
func (b *brokers) leader(ctx context.Context, p place) (int32, [16]byte, error) {
	for asked := false; ; asked = true {
		b.mu.Lock()
		leader, ok := b.mu.leaders[p]
		id := b.mu.ids[p.topic]
		b.mu.Unlock()
		if ok {
			return leader, id, nil
		}
		if asked {
			return 0, id, fmt.Errorf("kafka: nobody leads %v", p)
		}
		if _, _, err := b.topic(ctx, p.topic); err != nil {
			return 0, id, err
		}
	}
}

func (b *brokers) forgetLeader(p place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.mu.leaders, p)
}

// create makes a topic if there is none. Zero partitions or replicas are left to the brokers.
func (b *brokers) create(ctx context.Context, name string, partitions int32, replicas int16, configs map[string]string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, replicas
	if replicas == 0 {
		t.ReplicationFactor = -1
	}
	for k, v := range configs {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = k, kmsg.StringPtr(v)
		t.Configs = append(t.Configs, c)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, b.client)
	if err != nil {
		return judged(err)
	}
	for _, got := range resp.Topics {
		if err := kerr.ErrorForCode(got.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return judged(fmt.Errorf("making topic %q: %w", name, err))
		}
	}
	return nil
}

// Times that stand for a place in a request for an offset.
const (
	atStart = -2
	atEnd   = -1
)

// offset gives an offset of a partition: where it begins (atStart), ends (atEnd; for committed, where the first transaction begins
// that is still open), or the first whose time is at least so many milliseconds after 1970, -1 if there is none.
func (b *brokers) offset(ctx context.Context, p place, at int64, committed bool) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	if committed {
		req.IsolationLevel = 1
	}
	t, part := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	t.Topic, part.Partition, part.Timestamp = p.topic, p.partition, at
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, b.client)
	if err != nil {
		return 0, judged(err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("kafka: no offset of %v in the answer", p)
	}
	got := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return 0, judged(fmt.Errorf("%v: %w", p, err))
	}
	return got.Offset, nil
}

// Bounds of one Fetch.
const (
	fetchBytes = 4 << 20
	fetchWait  = 100 // milliseconds
)

// fetch reads committed records from an offset on, some if there are any. next is from where to go on: behind records, and behind
// whatever else takes up offsets.
func (b *brokers) fetch(ctx context.Context, p place, from int64) (got kgo.FetchPartition, next int64, err error) {
	leader, id, err := b.leader(ctx, p)
	if err != nil {
		return got, from, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = -1, fetchWait, 1, fetchBytes, 1
	t, part := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	t.Topic, t.TopicID, part.Partition, part.FetchOffset, part.PartitionMaxBytes = p.topic, id, p.partition, from, fetchBytes
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, b.client.Broker(int(leader)))
	if err != nil {
		b.forgetLeader(p)
		return got, from, judged(err)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		b.forgetLeader(p)
		return got, from, judged(fmt.Errorf("%v: %w", p, err))
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return got, from, fmt.Errorf("kafka: nothing of %v in the answer", p)
	}
	o := kgo.ProcessFetchPartitionOpts{
		KeepControlRecords: true, Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: p.topic, Partition: p.partition,
	}
	got, next = kgo.ProcessFetchPartition(o, &resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	if got.Err != nil {
		b.forgetLeader(p)
		return got, from, judged(fmt.Errorf("%v at offset %d: %w", p, from, got.Err))
	}
	if next == from && resp.ThrottleMillis > 0 {
		return got, from, fmt.Errorf("kafka: %v: the brokers hold this client back for %d ms", p, resp.ThrottleMillis)
	}
	return got, next, nil
}

// initProducer gives a transactional id a new epoch: its open transaction is aborted, and whoever had it before is fenced off. It
// returns when no transaction of it is being ended any more.
func (b *brokers) initProducer(ctx context.Context, txid string, timeoutMillis int32) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = kmsg.StringPtr(txid), timeoutMillis
	req.ProducerID, req.ProducerEpoch = -1, -1
	resp, err := req.RequestWith(ctx, b.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return judged(fmt.Errorf("transactional id %q: %w", txid, err))
	}
	return nil
}

// endTransaction ends a transaction, whichever process began it.
func (b *brokers) endTransaction(ctx context.Context, txid string, producer int64, epoch int16, commit bool) error {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = txid, producer, epoch, commit
	resp, err := req.RequestWith(ctx, b.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return judged(fmt.Errorf("transactional id %q: %w", txid, err))
	}
	return nil
}

// remove deletes the records of a partition below an offset.
func (b *brokers) remove(ctx context.Context, p place, below int64) error {
	req := kmsg.NewPtrDeleteRecordsRequest()
	t, part := kmsg.NewDeleteRecordsRequestTopic(), kmsg.NewDeleteRecordsRequestTopicPartition()
	t.Topic, part.Partition, part.Offset = p.topic, p.partition, below
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, b.client)
	if err != nil {
		return judged(err)
	}
	for _, t := range resp.Topics {
		for _, got := range t.Partitions {
			if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
				return judged(fmt.Errorf("removing records of %v: %w", p, err))
			}
		}
	}
	return nil
}

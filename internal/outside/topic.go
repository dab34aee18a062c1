package outside

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/understudy-stream/understudy/connector/kafka"
	"github.com/understudy-stream/understudy/operator"
)

// topic is one of Kafka.
type topic struct {
	name    string
	options kafka.SinkOptions
}

// newTopic gives the topic as many partitions as the sink has tasks unless the URL says how many.
func newTopic(url, suffix string, tasks int) (Place, error) {
	name, options, err := kafka.SinkFromURL(url)
	if err != nil {
		return nil, err
	}
	if options.Partitions == 0 {
		options.Partitions = tasks
	}
	if options.Journal == "" {
		options.Journal = name + ".understudy"
	}
	options.Journal += suffix
	return &topic{name + suffix, options}, nil
}

func (t *topic) Causal() operator.CausalSink { return kafka.Sink(t.name, t.options) }

func (t *topic) Transactional() operator.TransactionalSink {
	return kafka.Transactional(t.name, t.options)
}

// Follow reads what is committed, by partitions.
func (t *topic) Follow(ctx context.Context, see See) error {
	client, err := t.options.Client.NewClient(kgo.ConsumeTopics(t.name), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMaxAge(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		at := time.Now()
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			if !kerr.IsRetriable(e.Err) { // a topic that is not there yet, or a broker
				return fmt.Errorf("%s, partition %d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			if failed == nil {
				failed = see(partName(int(r.Partition)), r.Value, at)
			}
		})
		if failed != nil {
			return failed
		}
	}
}

func (t *topic) Remove(ctx context.Context) error {
	client, err := t.options.Client.NewClient()
	if err != nil {
		return err
	}
	defer client.Close()
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis = 5000
	for _, name := range []string{t.name, t.options.Journal} {
		one := kmsg.NewDeleteTopicsRequestTopic()
		one.Topic = kmsg.StringPtr(name)
		request.Topics = append(request.Topics, one)
		request.TopicNames = append(request.TopicNames, name)
	}
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, one := range response.Topics {
		if failed := kerr.ErrorForCode(one.ErrorCode); failed != nil && !errors.Is(failed, kerr.UnknownTopicOrPartition) {
			err = errors.Join(err, failed)
		}
	}
	return err
}

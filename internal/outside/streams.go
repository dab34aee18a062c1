package outside

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/understudy-stream/understudy/connector/nats"
	"github.com/understudy-stream/understudy/operator"
)

// streams are those of NATS JetStream, one for each task.
type streams struct {
	options nats.SinkOptions
	tasks   int
}

func newStreams(url, suffix string, tasks int) (*streams, error) {
	options, err := nats.SinkFromURL(url)
	if err != nil {
		return nil, err
	}
	options.Stream, options.Subject = options.Stream+suffix, options.Subject+suffix
	return &streams{options, tasks}, nil
}

func (s *streams) Causal() operator.CausalSink { return nats.NewSink(s.options) }

func (s *streams) Transactional() operator.TransactionalSink { return nil }

// of gives the stream and the subject of a task.
func (s *streams) of(task int) (stream, subject string) {
	if s.tasks == 1 {
		return s.options.Stream, s.options.Subject
	}
	return fmt.Sprintf("%s-%d", s.options.Stream, task), fmt.Sprintf("%s.%d", s.options.Subject, task)
}

func (s *streams) connect() (jetstream.JetStream, error) {
	conn, err := s.options.Connection.Connect("a reader from outside")
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn)
	if domain := s.options.Connection.Domain; domain != "" {
		js, err = jetstream.NewWithDomain(conn, domain)
	}
	if err != nil {
		conn.Close()
	}
	return js, err
}

// Follow reads by ordered consumers, to which the server pushes on as messages are stored.
func (s *streams) Follow(ctx context.Context, see See) error {
	js, err := s.connect()
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var one sync.Mutex
	var done sync.WaitGroup
	for task := range s.tasks {
		done.Go(func() {
			err := s.follow(ctx, js, task, func(m jetstream.Msg) {
				at := time.Now()
				one.Lock()
				defer one.Unlock()
				if ctx.Err() != nil {
					return
				}
				if err := see(partName(task), m.Data(), at); err != nil {
					fail(err)
				}
			})
			if err != nil {
				fail(err)
			}
		})
	}
	done.Wait()
	return ended(ctx, ctx.Err())
}

// follow reads the stream of one task until ctx ends.
func (s *streams) follow(ctx context.Context, js jetstream.JetStream, task int, see func(jetstream.Msg)) error {
	stream, subject := s.of(task)
	consumer, err := orderedConsumer(ctx, js, stream, subject)
	if err != nil {
		return err
	}
	consuming, err := consumer.Consume(see)
	if err != nil {
		return err
	}
	<-ctx.Done()
	consuming.Stop()
	<-consuming.Closed()
	return nil
}

// orderedConsumer waits for the stream to be there.
func orderedConsumer(ctx context.Context, js jetstream.JetStream, stream, subject string) (jetstream.Consumer, error) {
	for {
		consumer, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return consumer, err
		}
		if !pause(ctx, retry) {
			return nil, ctx.Err()
		}
	}
}

// ended is why something was given up: nil if whoever asked for it has.
func ended(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return err
	case errors.Is(cause, context.Canceled), errors.Is(cause, context.DeadlineExceeded):
		return nil
	default:
		return cause
	}
}

func (s *streams) Remove(ctx context.Context) error {
	js, err := s.connect()
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	for task := range s.tasks {
		stream, _ := s.of(task)
		if derr := js.DeleteStream(ctx, stream); derr != nil && !errors.Is(derr, jetstream.ErrStreamNotFound) {
			err = errors.Join(err, derr)
		}
	}
	return err
}

package kafka

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/operator"
)

var errDead = errors.New("the process is dead")

// kill ends the calls of a process that is dead: there is nobody any more whom they could keep waiting.
func (o *outlet) kill() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.mu.parts {
		p.stop(errDead)
	}
}

// stepping makes the connections of a process of which each request that changes something goes through do. When two of them have
// failed, one after the other, the process is dead.
func stepping(t testing.TB, do connectortest.Steps, kill func()) *network {
	n := newNetwork(t)
	var mu sync.Mutex
	failed := false
	n.do = func(_ kmsg.Key, step func() error) error {
		err := do(step, nil)
		mu.Lock()
		defer mu.Unlock()
		if err != nil && failed {
			kill()
		}
		failed = err != nil
		return err
	}
	return n
}

func TestConforms(t *testing.T) {
	t.Parallel()
	s := serve(t)
	connectortest.CausalSink(t, func(t testing.TB) connectortest.CausalPlace {
		topic := s.topic(t, 3, nil)
		reader, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
		require.NoError(t, err)
		t.Cleanup(reader.close)
		o := s.sink()
		o.Identity = ""
		return connectortest.CausalPlace{
			Sink: func() operator.CausalSink { return Sink(topic, o) },
			Read: func(task int) []string { return readCommitted(t, reader, place{topic, int32(task)}) },
			Faulty: func(do connectortest.Steps) operator.CausalSink {
				o := o
				var sink *Topic
				o.Client.dial = stepping(t, do, func() { sink.kill() }).dial
				sink = Sink(topic, o)
				return sink
			},
		}
	})
}

// readCommitted reads what can be seen of a partition.
func readCommitted(t testing.TB, b *brokers, p place) []string {
	var out []string
	require.NoError(t, persist(ctx, nil, nil, func() error {
		end, err := b.offset(ctx, p, atEnd, true)
		out = nil
		for at := int64(0); err == nil && at < end; {
			got, next, ferr := b.fetch(ctx, p, at)
			for _, r := range got.Records {
				if !r.Attrs.IsControl() {
					out = append(out, string(r.Value))
				}
			}
			at, err = next, ferr
		}
		return err
	}))
	return out
}

// identityNow is the identity that the engine gave.
func (o *outlet) identityNow() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.identity
}

func TestTransactionalConforms(t *testing.T) {
	t.Parallel()
	s := serve(t)
	connectortest.TransactionalSink(t, func(t testing.TB) connectortest.TransactionalPlace {
		topic := s.topic(t, 3, nil)
		reader, err := connect(&ClientOptions{Brokers: s.addrs, ClientID: "test"})
		require.NoError(t, err)
		t.Cleanup(reader.close)
		o := s.sink()
		o.Identity = ""
		return connectortest.TransactionalPlace{
			Sink: func() operator.TransactionalSink { return Transactional(topic, o) },
			Read: func(task int) []string { return readCommitted(t, reader, place{topic, int32(task)}) },
			Faulty: func(do func(step, half func() error) error) operator.TransactionalSink {
				o := o
				var sink *TransactionalTopic
				o.Client.dial = stepping(t, do, func() { sink.kill() }).dial
				sink = Transactional(topic, o)
				return sink
			},
			Few: true,
		}
	})
}

func TestSourceConforms(t *testing.T) {
	s := serve(t)
	for _, bounded := range []bool{true, false} {
		t.Run(fmt.Sprintf("bounded=%v", bounded), func(t *testing.T) {
			connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[string] {
				topic := s.topic(t, 1, nil)
				s.produce(t, topic, "a", "+b", "-x", "c", "-x", "+d", "e", "-x")
				o := SourceOptions{Client: s.client(), Bounded: bounded}
				src := func() operator.Source[string] {
					return Decoded(Records(o, topic), func(r Record) (string, error) { return string(r.Value), nil })
				}
				in := connectortest.SourceInput[string]{
					Source: src, Records: []string{"a", "+b", "c", "+d", "e"},
					BadSplits: []string{"x", strconv.Quote(topic) + " 0 of x from 0"}, BadOffsets: []uint64{1 << 40},
				}
				if !bounded {
					added := 0
					in.BadOffsets = nil
					in.Grow = func() [][]string {
						s.addPartition(t, topic, "new", "and more")
						return [][]string{{"new", "and more"}}
					}
					in.Add = func() string {
						added++
						v := fmt.Sprint("added ", added)
						s.produce(t, topic, v)
						return v
					}
				}
				return in
			})
		})
	}
}

package nats

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/operator"
)

// Each place is a pair of streams of one server, since to start a server takes longer than to use it.
func TestTheSinkConforms(t *testing.T) {
	address := embedded(t).ClientURL()
	js := plain(t, address)
	places := 0
	connectortest.CausalSink(t, func(t testing.TB) connectortest.CausalPlace {
		places++
		name := fmt.Sprintf("PLACE%d", places)
		o := SinkOptions{Connection: Connection{Servers: []string{address}, Timeout: 5 * time.Second}, Stream: name}
		sink := func(step connectortest.Steps) operator.CausalSink {
			s := NewSink(o)
			if step != nil {
				s.step = step
			}
			return s
		}
		t.Cleanup(func() {
			names := js.StreamNames(ctx)
			for n := range names.Name() {
				require.NoError(t, js.DeleteStream(ctx, n))
			}
			require.NoError(t, names.Err())
		})
		return connectortest.CausalPlace{
			Sink:   func() operator.CausalSink { return sink(nil) },
			Faulty: func(do connectortest.Steps) operator.CausalSink { return sink(do) },
			Read: func(task int) []string {
				for _, stream := range []string{name, fmt.Sprintf("%s-%d", name, task)} {
					if all := readAll(t, js, stream, ">"); len(all) > 0 {
						var records []string
						for _, m := range all {
							if !isHidden(m.Subject()) {
								records = append(records, string(m.Data()))
							}
						}
						return records
					}
				}
				return nil
			},
		}
	})
}

func TestTheSourceConforms(t *testing.T) {
	address := embedded(t).ClientURL()
	js := plain(t, address)
	for _, kind := range []string{"bounded", "ranges", "subjects", "following"} {
		t.Run(kind, func(t *testing.T) {
			places := 0
			connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[Message] {
				places++
				name := fmt.Sprintf("%s%d", kind, places)
				input(t, js, name, 60)
				t.Cleanup(func() { require.NoError(t, js.DeleteStream(ctx, name)) })
				o := sourceOptions(address, name)
				switch kind {
				case "bounded":
					o.Bounded = true
				case "ranges":
					o.Bounded, o.Ranges = true, 7
				case "subjects":
					o.Bounded, o.Subjects = true, []string{name + ".1", name + ".0"}
				}
				in := connectortest.SourceInput[Message]{Source: func() operator.Source[Message] { return Messages(o) }}
				s := Messages(o)
				for _, split := range splitsOf(t, s) {
					n := -1
					if !o.Bounded {
						n = 60
					}
					all, _, err := take(t, openSplit(t, s, split, 0), n)
					if n < 0 {
						require.Equal(t, io.EOF, err)
					}
					in.Records = append(in.Records, all...)
				}
				require.Len(t, in.Records, 60)
				in.BadSplits = []string{"other?first=1", name, name + "?first=0"}
				if o.Bounded {
					in.BadOffsets = []uint64{1 << 40}
					return in
				}
				next := 60
				in.Add = func() Message {
					ack, err := js.Publish(ctx, fmt.Sprintf("%s.%d", name, next%2), fmt.Appendf(nil, "%d", next))
					require.NoError(t, err)
					m, err := mustStream(t, js, name).GetMsg(ctx, ack.Sequence)
					require.NoError(t, err)
					next++
					return Message{Stream: name, Subject: m.Subject, Sequence: m.Sequence, Millis: m.Time.UnixMilli(), Data: m.Data}
				}
				return in
			})
		})
	}
}

func mustStream(t testing.TB, js jetstream.JetStream, name string) jetstream.Stream {
	s, err := js.Stream(ctx, name)
	require.NoError(t, err)
	return s
}

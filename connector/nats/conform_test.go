package nats

import (
	"fmt"
	"testing"
	"time"

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
		tasks := 0
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
		_ = tasks
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

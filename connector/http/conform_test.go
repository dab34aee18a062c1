package http

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/operator"
)

// TestWebhookConforms shows the suite what a receiver has that takes each id once: a causal sink.
//
// In the cases "stopped" and "random" nothing fails within a call. They roll back, and want to hear how many records beyond the cut
// were seen, also of a writer that has failed between the receiver's taking them and its own note of that: who cannot ask the receiver
// cannot know. TestStoppedWriter and TestWriterFails have the rest of them.
func TestWebhookConforms(t *testing.T) {
	t.Parallel()
	connectortest.CausalSink(t, func(t testing.TB) connectortest.CausalPlace {
		r, dir := newTaker(t), t.TempDir()
		sink := func() *Webhook {
			return NewWebhook(r.server.URL, WebhookOptions{Dir: dir, RetryFirst: time.Millisecond, RetryMax: 5 * time.Millisecond})
		}
		t.Cleanup(r.check)
		place := connectortest.CausalPlace{Sink: func() operator.CausalSink { return sink() }, Read: r.records}
		if !strings.HasSuffix(t.Name(), "/stopped") && !strings.HasSuffix(t.Name(), "/random") {
			place.Faulty = func(do connectortest.Steps) operator.CausalSink {
				w := sink()
				w.do = steps(do)
				return w
			}
		}
		return place
	})
}

// TestSourceConforms has a log that goes on, and one that has ended, read from its owner and from the copy.
func TestSourceConforms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		ended, copy bool
	}{{"goes on", false, false}, {"ended", true, false}, {"copy", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			connectortest.Source(t, func(t testing.TB) connectortest.SourceInput[Line] {
				b := newBench(t, 2, func(o *ServerOptions) { o.SegmentBytes = 300 })
				b.ready(0, 1)
				in := connectortest.SourceInput[Line]{
					Source:     func() operator.Source[Line] { return b.source() },
					BadSplits:  []string{"c", "", "a/b"},
					BadOffsets: []uint64{1000},
				}
				for i, log := range []string{"a", "b"} {
					for n := range 8 {
						a := b.must(i, "", fmt.Sprint(n))
						in.Records = append(in.Records, Line{Log: log, Index: a.First, Text: fmt.Sprint(n)})
					}
				}
				var more atomic.Int64
				if !c.ended {
					in.Add = func() Line {
						text := fmt.Sprint("1", more.Add(1))
						a := b.must(1, "", text)
						return Line{Log: "b", Index: a.First, Text: text}
					}
					return in
				}
				for i := range 2 {
					w, err := b.client.Post(b.nodes[i].URL+"/v1/end", "", nil)
					require.NoError(t, err)
					require.NoError(t, w.Body.Close())
				}
				if c.copy {
					b.stop(0)
				}
				return in
			})
		})
	}
}

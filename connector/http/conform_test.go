package http

import (
	"strings"
	"testing"
	"time"

	"github.com/understudy-stream/understudy/connector/connectortest"
	"github.com/understudy-stream/understudy/operator"
)

// TestWebhookConforms shows the suite what a receiver has that takes each id once: a causal sink.
//
// The case "stopped" is left out. It wants to hear how many records that were seen are rolled back, of a writer that was stopped between the
// receiver's taking them and its own note of that: who cannot ask the receiver cannot know. TestStoppedWriter has the rest of it.
func TestWebhookConforms(t *testing.T) {
	for _, format := range []Format{Batches, Each} {
		t.Run(map[Format]string{Batches: "batches", Each: "each"}[format], func(t *testing.T) {
			connectortest.CausalSink(t, func(t testing.TB) connectortest.CausalPlace {
				r, dir := newTaker(t), t.TempDir()
				sink := func() *Webhook {
					return NewWebhook(r.server.URL, WebhookOptions{
						Dir: dir, Format: format, RetryFirst: time.Millisecond, RetryMax: 5 * time.Millisecond,
					})
				}
				t.Cleanup(r.check)
				place := connectortest.CausalPlace{Sink: func() operator.CausalSink { return sink() }, Read: r.records}
				if !strings.HasSuffix(t.Name(), "/stopped") {
					place.Faulty = func(do connectortest.Steps) operator.CausalSink {
						w := sink()
						w.do = steps(do)
						return w
					}
				}
				return place
			})
		})
	}
}

package http

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

// BenchmarkIngest posts lines of 100 bytes with so many clients, each request with a key; an op is a line that is acknowledged.
func BenchmarkIngest(b *testing.B) {
	for _, servers := range []int{1, 2} {
		for _, perRequest := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("servers=%d/lines=%d/clients=16", servers, perRequest), func(b *testing.B) {
				g := newBench(b, servers, func(o *ServerOptions) { o.MaxUnread = 1 << 40 })
				for i := range servers {
					g.ready(i)
				}
				g.client.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
				line := fmt.Sprintf(`{"text":"%s"}`+"\n", strings.Repeat("x", 88))
				body := strings.Repeat(line, perRequest)
				var keys atomic.Int64
				b.SetParallelism(8) // times two processors
				b.SetBytes(int64(len(line)))
				b.ResetTimer()
				var left atomic.Int64
				left.Store(int64(b.N))
				b.RunParallel(func(p *testing.PB) {
					for left.Add(-int64(perRequest)) > -int64(perRequest) {
						s, err := post(g.client, g.nodes[0].URL, fmt.Sprint(keys.Add(1)), body)
						if err != nil || s.status != http.StatusOK {
							b.Errorf("%v %+v", err, s)
							return
						}
					}
					for p.Next() {
					}
				})
			})
		}
	}
}

// BenchmarkRead reads lines of 100 bytes; an op is a line.
func BenchmarkRead(b *testing.B) {
	g := newBench(b, 1, func(o *ServerOptions) { o.MaxUnread = 1 << 40 })
	g.ready(0)
	body := strings.Repeat(fmt.Sprintf(`{"text":"%s"}`+"\n", strings.Repeat("x", 88)), 10_000)
	for n := 0; n < b.N; n += 10_000 {
		require.Equal(b, http.StatusOK, g.post(0, "", body).status)
	}
	r, err := g.source().Open(context.Background(), "a", 0)
	require.NoError(b, err)
	defer r.Close()
	b.SetBytes(100)
	b.ResetTimer()
	for n := 0; n < b.N; n++ {
		for _, _, err = r.Next(); err == operator.ErrNotReady; _, _, err = r.Next() {
			<-r.Ready()
		}
		require.NoError(b, err)
	}
}

// BenchmarkWebhook writes records of 100 bytes to a receiver that takes everything; an op is a record that was posted.
func BenchmarkWebhook(b *testing.B) {
	for _, perWrite := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("records=%d", perWrite), func(b *testing.B) {
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			}))
			defer receiver.Close()
			g, _ := begin(b, NewWebhook(receiver.URL, hookOptions(b.TempDir())), operator.Fence{Incarnation: 1})
			record := string(bytes.TrimSpace([]byte(fmt.Sprintf(`{"text":"%s"}`, strings.Repeat("x", 88)))))
			records := make([]string, perWrite)
			for i := range records {
				records[i] = record
			}
			b.SetBytes(100)
			b.ResetTimer()
			for n := 0; n < b.N; n += perWrite {
				g.write(records...)
			}
		})
	}
}

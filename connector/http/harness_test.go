package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/understudy-stream/understudy/operator"
)

// patience bounds how long a test waits for what must happen.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	if role := os.Getenv("HTTP_TEST_ROLE"); role != "" {
		os.Exit(play(role))
	}
	goleak.VerifyTestMain(m)
}

// bench is a group of ingest servers in this process.
type bench struct {
	t       testing.TB
	nodes   []Node
	options ServerOptions
	servers []*Server // nil where none runs
	client  *http.Client
}

// freeNodes names servers with free addresses. A server that is away for a moment must find its port free again, so ports are not those that
// the system gives to others meanwhile.
func freeNodes(t testing.TB, n int) []Node {
	var nodes []Node
	for len(nodes) < n {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000))
		l, err := net.Listen("tcp", address)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		require.NoError(t, err)
		defer l.Close() // all at the end, so that no two are equal
		nodes = append(nodes, Node{Name: string(rune('a' + len(nodes))), URL: "http://" + address})
	}
	return nodes
}

func newBench(t testing.TB, n int, change func(o *ServerOptions)) *bench {
	b := &bench{t: t, nodes: freeNodes(t, n), servers: make([]*Server, n), client: &http.Client{Transport: &http.Transport{}}}
	b.options = ServerOptions{Nodes: b.nodes, Dir: t.TempDir(), AckTimeout: 5 * time.Second}
	if change != nil {
		change(&b.options)
	}
	t.Cleanup(func() {
		for i := range b.servers {
			b.stop(i)
		}
		b.client.CloseIdleConnections()
	})
	for i := range n {
		b.start(i)
	}
	return b
}

func (b *bench) start(i int) {
	o := b.options
	o.Name = b.nodes[i].Name
	s, err := Listen(o)
	require.NoError(b.t, err)
	b.servers[i] = s
}

func (b *bench) stop(i int) {
	if s := b.servers[i]; s != nil {
		require.NoError(b.t, s.Close())
		b.servers[i] = nil
	}
}

// ready waits until a server takes requests.
func (b *bench) ready(which ...int) {
	b.t.Helper()
	for _, i := range which {
		until(b.t, func() bool { return b.servers[i].Status().Phase == string(phaseReady) }, "server %d is ready", i)
	}
}

// until waits for something to become true.
func until(t testing.TB, f func() bool, format string, args ...any) {
	t.Helper()
	require.Eventually(t, f, patience, time.Millisecond, append([]any{format}, args...)...)
}

// said is a server's answer to a request.
type said struct {
	status int
	Accepted
	Error string `json:"error"`
	retry string
}

// post sends a body to a server; key "" is none.
func (b *bench) post(i int, key, body string) said {
	b.t.Helper()
	s, err := post(b.client, b.nodes[i].URL, key, body)
	require.NoError(b.t, err)
	return s
}

func post(c *http.Client, to, key, body string) (s said, err error) {
	r, err := http.NewRequest(http.MethodPost, to+"/v1/lines", strings.NewReader(body))
	if err != nil {
		return s, err
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	w, err := c.Do(r)
	if err != nil {
		return s, err
	}
	defer w.Body.Close()
	data, err := io.ReadAll(w.Body)
	if err != nil {
		return s, err
	}
	s.status, s.retry = w.StatusCode, w.Header.Get("Retry-After")
	return s, json.Unmarshal(data, &s)
}

// must posts and wants the lines to be taken.
func (b *bench) must(i int, key, body string) Accepted {
	b.t.Helper()
	s := b.post(i, key, body)
	require.Equal(b.t, http.StatusOK, s.status, "%s", s.Error)
	return s.Accepted
}

func (b *bench) source() *Source {
	return Lines(SourceOptions{Nodes: b.nodes, Access: b.options.Access, Wait: 200 * time.Millisecond, RetryMax: 50 * time.Millisecond})
}

// read reads n lines of a log.
func (b *bench) read(log string, from uint64, n int) []Line {
	b.t.Helper()
	r, err := b.source().Open(context.Background(), log, from)
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, r.Close()) }()
	lines, err := readLines(r, n)
	require.NoError(b.t, err)
	for i, l := range lines {
		require.Equal(b.t, Line{Log: log, Index: from + uint64(i), Text: l.Text}, l)
	}
	return lines
}

// readLines reads n lines, or up to the end if n is negative.
func readLines(r operator.Reader[Line], n int) (lines []Line, err error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for len(lines) != n {
		l, _, err := r.Next()
		switch {
		case err == nil:
			lines = append(lines, l)
			continue
		case err == io.EOF && n < 0:
			return lines, nil
		case err != operator.ErrNotReady:
			return lines, err
		}
		select {
		case <-r.Ready():
		case <-timer.C:
			return lines, fmt.Errorf("only %d lines of %d came", len(lines), n)
		}
	}
	return lines, nil
}

func texts(lines []Line) (out []string) {
	for _, l := range lines {
		out = append(out, l.Text)
	}
	return out
}

// homeKey gives a key whose home is a server.
func (b *bench) homeKey(i int, salt string) string {
	for n := 0; ; n++ {
		if key := fmt.Sprintf("%s-%d", salt, n); homeOf(b.nodes, key) == i {
			return key
		}
	}
}

func linesOf(prefix string, n int) string {
	var body bytes.Buffer
	for i := range n {
		fmt.Fprintf(&body, `{"%s":%d}`+"\n", prefix, i)
	}
	return body.String()
}

package http

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

func TestIngestAndRead(t *testing.T) {
	b := newBench(t, 1, nil)
	b.ready(0)
	require.Equal(t, Accepted{Log: "a", First: 0, Lines: 3}, b.must(0, "", "{\"n\":0}\n\n  [1] \r\n\"two\""))
	require.Equal(t, Accepted{Log: "a", First: 3, Lines: 1}, b.must(0, "", "3\n"))
	require.Equal(t, []string{`{"n":0}`, "[1]", `"two"`, "3"}, texts(b.read("a", 0, 4)))
	require.Equal(t, []string{`"two"`, "3"}, texts(b.read("a", 2, 2)))
	b.stop(0)
	b.start(0)
	b.ready(0)
	require.Equal(t, Accepted{Log: "a", First: 4, Lines: 1}, b.must(0, "", "4"))
	require.Equal(t, []string{`"two"`, "3", "4"}, texts(b.read("a", 2, 3)))
}

func TestReaderWaitsForMore(t *testing.T) {
	b := newBench(t, 1, nil)
	b.ready(0)
	splits, err := b.source().Splits(context.Background())
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, splits)
	r, err := b.source().Open(context.Background(), "a", 0)
	require.NoError(t, err)
	defer r.Close()
	_, _, err = r.Next()
	require.ErrorIs(t, err, operator.ErrNotReady)
	for i := range 3 {
		b.must(0, "", fmt.Sprint(i))
		lines, err := readLines(r, 1)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), lines[0].Text)
	}
}

func TestEnd(t *testing.T) {
	b := newBench(t, 2, nil)
	b.ready(0, 1)
	b.must(0, "", "1\n2")
	for range 2 { // the answer may have been lost
		w, err := b.client.Post(b.nodes[0].URL+"/v1/end", "", nil)
		require.NoError(t, err)
		require.NoError(t, w.Body.Close())
		require.Equal(t, http.StatusOK, w.StatusCode)
	}
	require.Equal(t, http.StatusGone, b.post(0, "", "3").status)
	for _, stopped := range []int{1, 0} { // from the owner, then from the copy
		b.stop(stopped)
		for from := uint64(0); from <= 2; from++ {
			r, err := b.source().Open(context.Background(), "a", from)
			require.NoError(t, err)
			lines, err := readLines(r, -1)
			require.NoError(t, err)
			require.Len(t, lines, 2-int(from))
			require.NoError(t, r.Close())
		}
		b.start(stopped)
		b.ready(stopped)
	}
}

func TestWhatIsNotTaken(t *testing.T) {
	b := newBench(t, 1, func(o *ServerOptions) { o.MaxBody, o.MaxLine = 100, 40 })
	b.ready(0)
	for _, c := range []struct {
		name, key, body string
		status          int
		why             string
	}{
		{"not JSON", "", "1\n{\n2", http.StatusBadRequest, "line 2 is not JSON"},
		{"not UTF-8", "", "\"\xff\"", http.StatusBadRequest, "line 1"},
		{"two values", "", "1 2", http.StatusBadRequest, "line 1"},
		{"empty", "", "\n \n", http.StatusBadRequest, "no line"},
		{"long body", "", strings.Repeat("1\n", 51), http.StatusRequestEntityTooLarge, "100 bytes"},
		{"long line", "", "1\n" + strings.Repeat("1", 41), http.StatusRequestEntityTooLarge, "line 2"},
		{"long key", strings.Repeat("k", 256), "1", http.StatusBadRequest, "Idempotency-Key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := b.post(0, c.key, c.body)
			require.Equal(t, c.status, s.status)
			require.Contains(t, s.Error, c.why)
		})
	}
	r, err := http.NewRequest(http.MethodPost, b.nodes[0].URL+"/v1/lines", strings.NewReader(strings.Repeat("1\n", 51)))
	require.NoError(t, err)
	r.ContentLength = -1 // chunked
	w, err := b.client.Do(r)
	require.NoError(t, err)
	require.NoError(t, w.Body.Close())
	require.Equal(t, http.StatusRequestEntityTooLarge, w.StatusCode)
	r, err = http.NewRequest(http.MethodPost, b.nodes[0].URL+"/v1/lines", strings.NewReader("1"))
	require.NoError(t, err)
	r.Header.Set("Content-Encoding", "gzip")
	w, err = b.client.Do(r)
	require.NoError(t, err)
	require.NoError(t, w.Body.Close())
	require.Equal(t, http.StatusUnsupportedMediaType, w.StatusCode)
	require.Zero(t, b.servers[0].Status().Log.Lines, "nothing was taken")
	b.must(0, "", strings.Repeat("1\n", 50))
}

func TestBackpressure(t *testing.T) {
	b := newBench(t, 1, func(o *ServerOptions) { o.MaxBody, o.MaxUnread = 1<<10, 4<<10 })
	b.ready(0)
	body, taken := linesOf("n", 80), 0
	var s said
	for s = b.post(0, "", body); s.status == http.StatusOK; s = b.post(0, "", body) {
		taken++
		require.Less(t, taken, 10)
	}
	require.Equal(t, http.StatusTooManyRequests, s.status)
	require.Equal(t, "1", s.retry)
	require.Contains(t, s.Error, "unread")
	r, err := b.source().Open(context.Background(), "a", 0)
	require.NoError(t, err)
	defer r.Close()
	lines, err := readLines(r, 80*taken)
	require.NoError(t, err)
	require.Equal(t, body, strings.Join(texts(lines[:80]), "\n")+"\n")
	until(t, func() bool { return b.post(0, "", body).status == http.StatusOK }, "room when the job has read")
}

func TestBodiesUnderWayAreBounded(t *testing.T) {
	b := newBench(t, 1, func(o *ServerOptions) { o.MaxBody, o.MaxLine, o.MaxBuffered = 100, 100, 250 })
	one, err := b.servers[0].reserve(-1)
	require.NoError(t, err)
	two, err := b.servers[0].reserve(100)
	require.NoError(t, err)
	s := b.post(0, "", strings.Repeat("1\n", 50))
	require.Equal(t, http.StatusTooManyRequests, s.status)
	one()
	b.ready(0)
	b.must(0, "", strings.Repeat("1\n", 50))
	two()
	require.Zero(t, b.servers[0].buffered.Load())
}

func TestKeyIsTakenOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, 3, nil)
	b.ready(0, 1, 2)
	for home := range 3 {
		key := b.homeKey(home, "once")
		name := b.nodes[home].Name
		first := b.must((home+1)%3, key, "1\n2")
		require.Equal(t, Accepted{Log: name, Lines: 2}, first)
		first.Duplicate = true
		for i := range 3 {
			require.Equal(t, first, b.must(i, key, "1\n\n2\n"), "blank lines make no other request")
		}
		require.Equal(t, http.StatusUnprocessableEntity, b.post(home, key, "1\n3").status)
		require.Equal(t, http.StatusUnprocessableEntity, b.post((home+2)%3, key, "1").status)
		b.stop(home)
		b.start(home)
		b.ready(home)
		require.Equal(t, first, b.must(home, key, "1\n2"), "after a restart")
		require.EqualValues(t, 2, b.servers[home].Status().Log.Lines)
	}
}

// TestKeyIsKnownWhileItsHomeIsAway asks who keeps the copy, directly and through the third server.
func TestKeyIsKnownWhileItsHomeIsAway(t *testing.T) {
	b := newBench(t, 3, nil)
	b.ready(0, 1, 2)
	key, other := b.homeKey(0, "known"), b.homeKey(0, "unknown")
	first := b.must(0, key, "1\n2")
	first.Duplicate = true
	b.stop(0)
	for _, i := range []int{1, 2} {
		require.Equal(t, first, b.must(i, key, "1\n2"))
		require.Equal(t, http.StatusUnprocessableEntity, b.post(i, key, "1\n3").status)
		s := b.post(i, other, "1")
		require.Equal(t, http.StatusServiceUnavailable, s.status)
		require.Equal(t, "1", s.retry)
	}
	b.start(0)
	b.ready(0)
	require.Equal(t, Accepted{Log: "a", First: 2, Lines: 1}, b.must(2, other, "1"))
}

// TestNoAcknowledgementWithoutCopy stops who keeps the copy in the middle of it all.
func TestNoAcknowledgementWithoutCopy(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2, func(o *ServerOptions) { o.AckTimeout = 300 * time.Millisecond })
	b.ready(0, 1)
	surely := func(name, body string) { // a disk may be slower than AckTimeout
		until(t, func() bool { return b.post(0, b.homeKey(0, name), body).status == http.StatusOK }, name)
	}
	surely("first", "0")
	b.stop(1)
	key := b.homeKey(0, "doubt")
	s := b.post(0, key, "1")
	require.Equal(t, http.StatusServiceUnavailable, s.status)
	require.Contains(t, s.Error, "may be taken later")
	until(t, func() bool { return b.servers[0].Status().Phase == string(phaseAlone) }, "the copy is missed")
	require.Contains(t, b.servers[0].Status().Why, "b, which keeps the copy")
	require.Equal(t, http.StatusServiceUnavailable, b.post(0, key, "1").status)
	s = b.post(0, "", "2")
	require.Equal(t, http.StatusServiceUnavailable, s.status)
	require.NotContains(t, s.Error, "may be taken later", "nothing more goes into the log")
	data, _, _, err := b.servers[0].owner.log.readLines(1, 1<<20)
	require.NoError(t, err)
	require.Empty(t, data, "what is not in the copy is not readable")
	b.start(1)
	until(t, func() bool { return b.post(0, key, "1").status == http.StatusOK }, "the copy is back")
	surely("last", "3")
	require.Equal(t, []string{"0", "1", "3"}, texts(b.read("a", 0, 3)))
}

// TestReadFromCopy reads a log while its owner is away, and when it is back.
func TestReadFromCopy(t *testing.T) {
	b := newBench(t, 2, func(o *ServerOptions) { o.SegmentBytes = 2 << 10 })
	b.ready(0, 1)
	var want []string
	for i := range 20 {
		body := linesOf(fmt.Sprint("r", i), 30)
		b.must(0, "", body)
		want = append(want, strings.Split(strings.TrimSpace(body), "\n")...)
	}
	r, err := b.source().Open(context.Background(), "a", 0)
	require.NoError(t, err)
	defer r.Close()
	got, err := readLines(r, 100)
	require.NoError(t, err)
	b.stop(0)
	more, err := readLines(r, 500)
	require.NoError(t, err)
	require.Equal(t, want, texts(append(got, more...)))
	for from := uint64(0); from < 600; from += 97 {
		require.Equal(t, want[from:], texts(b.read("a", from, 600-int(from))))
	}
	b.start(0)
	b.ready(0)
	b.must(0, "", `"back"`)
	got, err = readLines(r, 1)
	require.NoError(t, err)
	require.Equal(t, `"back"`, got[0].Text)
}

// TestAnotherOwnerTakesOver starts a server of the same name elsewhere, with nothing: it gets the log from the copy, and the former owner
// is done.
func TestAnotherOwnerTakesOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2, func(o *ServerOptions) { o.AckTimeout = time.Second })
	b.ready(0, 1)
	key := b.homeKey(0, "moved")
	b.must(0, key, "1\n2")
	old := b.servers[0]

	moved := freeNodes(t, 1)[0]
	o := b.options
	o.Name, o.Dir, o.Listen = "a", t.TempDir(), strings.TrimPrefix(moved.URL, "http://")
	heir, err := Listen(o)
	require.NoError(t, err)
	defer heir.Close()
	until(t, func() bool { return heir.Status().Phase == string(phaseReady) }, "the heir is ready")
	s, err := post(b.client, moved.URL, key, "1\n2")
	require.NoError(t, err)
	require.Equal(t, Accepted{Log: "a", Lines: 2, Duplicate: true}, s.Accepted)
	s, err = post(b.client, moved.URL, "", "3")
	require.NoError(t, err)
	require.Equal(t, Accepted{Log: "a", First: 2, Lines: 1}, s.Accepted)

	stale := b.post(0, "", `"zombie"`) // it does not know yet
	require.Equal(t, http.StatusServiceUnavailable, stale.status)
	until(t, func() bool { return old.Status().Phase == string(phaseOver) }, "the former owner knows")
	require.Contains(t, old.Status().Why, ErrReplaced.Error())
	require.Equal(t, http.StatusServiceUnavailable, b.post(0, "", "4").status)
	require.Equal(t, []string{"1", "2", "3"}, texts(b.read("a", 0, 3)), "also for who asks the former owner")

	// With the former directory, and what was never acknowledged in it, the log goes on from the copy.
	require.NoError(t, heir.Close())
	b.stop(0)
	b.start(0)
	b.ready(0)
	require.Equal(t, Accepted{Log: "a", First: 3, Lines: 1}, b.must(0, "", "4"))
	require.Equal(t, []string{"1", "2", "3", "4"}, texts(b.read("a", 0, 4)))
}

// TestLostDirectory loses the owner's directory, then the copy's. Nothing is lost.
func TestLostDirectory(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2, func(o *ServerOptions) { o.SegmentBytes = 1 << 10 })
	b.ready(0, 1)
	for i := range 30 {
		b.must(0, "", linesOf(fmt.Sprint("x", i), 10))
	}
	want := texts(b.read("a", 0, 300))
	for round, lost := range []string{"a/own", "b/copy-a"} {
		b.stop(round)
		require.NoError(t, os.RemoveAll(filepath.Join(b.options.Dir, lost)))
		b.start(round)
		b.ready(round)
		line := fmt.Sprint(round)
		b.must(0, "", line)
		want = append(want, line)
		require.Equal(t, want, texts(b.read("a", 0, len(want))))
	}
	b.stop(0)
	require.Equal(t, want, texts(b.read("a", 0, len(want))), "from the copy")
}

func TestAccess(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("geheim\n"), 0o600))
	b := newBench(t, 2, func(o *ServerOptions) { o.Access = Access{TokenFile: token} })
	b.ready(0, 1)
	s := b.post(0, "", "1")
	require.Equal(t, http.StatusUnauthorized, s.status)
	require.NotContains(t, fmt.Sprint(s), "geheim")
	r, err := http.NewRequest(http.MethodPost, b.nodes[0].URL+"/v1/lines", strings.NewReader("1"))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer geheim")
	w, err := b.client.Do(r)
	require.NoError(t, err)
	require.NoError(t, w.Body.Close())
	require.Equal(t, http.StatusOK, w.StatusCode)
	require.Equal(t, []string{"1"}, texts(b.read("a", 0, 1)))

	b.options.Access = Access{TokenEnv: "HTTP_TEST_WRONG"}
	t.Setenv("HTTP_TEST_WRONG", "falsch")
	reader, err := b.source().Open(context.Background(), "a", 0)
	require.NoError(t, err)
	defer reader.Close()
	_, err = readLines(reader, 1)
	require.ErrorIs(t, err, ErrAccess)
	require.ErrorIs(t, err, operator.ErrPermanent)
	require.NotContains(t, err.Error(), "falsch")
	t.Setenv("HTTP_TEST_WRONG", "")
	_, err = b.source().Open(context.Background(), "a", 0)
	require.ErrorIs(t, err, ErrAccess)
}

// TestRetention removes what the job has left behind, and only that.
func TestRetention(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2, func(o *ServerOptions) {
		o.SegmentBytes, o.Retain, o.Settle = 1<<10, time.Nanosecond, time.Hour // ticks are made by hand
	})
	b.ready(0, 1)
	for i := range 40 {
		b.must(0, b.homeKey(0, fmt.Sprint("k", i)), linesOf(fmt.Sprint("x", i), 10))
	}
	s := b.servers[0]
	tick := func(n int) {
		for range n {
			require.NoError(t, s.tidy(time.Now().Add(time.Hour)))
		}
	}
	tick(settleTicks + 1)
	require.Zero(t, s.Status().Log.First, "nobody has read")
	poll := func(line uint64) { s.progress("a", s.owner.log, true, line) }
	poll(300)
	tick(2 * settleTicks)
	require.Zero(t, s.Status().Log.First, "a job that does not read makes nothing old")
	for range settleTicks / 2 {
		poll(300)
		tick(1)
	}
	for range settleTicks + 1 {
		poll(200) // it went back, to a checkpoint
		tick(1)
	}
	require.Greater(t, s.Status().Log.First, uint64(100))
	require.LessOrEqual(t, s.Status().Log.First, uint64(200))
	first := s.Status().Log.First
	require.Equal(t, http.StatusOK, b.post(0, "", "1").status)
	require.Equal(t, first, b.servers[1].Status().Copies[0].First, "the copy follows")
	require.Less(t, s.Status().Log.Keys, 40, "keys go with their requests")
	r, err := b.source().Open(context.Background(), "a", 0)
	require.NoError(t, err)
	defer r.Close()
	_, err = readLines(r, 1)
	require.ErrorIs(t, err, ErrTruncated)
	require.Len(t, b.read("a", first, 401-int(first)), 401-int(first))
	b.stop(0)
	require.NoError(t, os.RemoveAll(filepath.Join(b.options.Dir, "a/own")))
	b.start(0)
	b.ready(0)
	require.Equal(t, first, b.servers[0].Status().Log.First)
	b.must(0, "", "2")
	b.stop(1)
	require.NoError(t, os.RemoveAll(filepath.Join(b.options.Dir, "b/copy-a")))
	b.start(1)
	until(t, func() bool { return b.post(0, "", "3").status == http.StatusOK }, "the copy is made anew")
	require.Equal(t, first, b.servers[1].Status().Copies[0].First)
}

func TestReaderBeyondTheLog(t *testing.T) {
	b := newBench(t, 1, nil)
	b.ready(0)
	b.must(0, "", "1")
	r, err := b.source().Open(context.Background(), "a", 2)
	require.NoError(t, err)
	defer r.Close()
	_, err = readLines(r, 1)
	require.ErrorIs(t, err, ErrOffset)
	_, err = b.source().Open(context.Background(), "z", 0)
	require.ErrorIs(t, err, ErrUnknownLog)
}

func TestDirectoryInUse(t *testing.T) {
	b := newBench(t, 2, nil)
	o := b.options
	o.Name, o.Listen = "a", "127.0.0.1:0"
	_, err := Listen(o)
	require.ErrorIs(t, err, ErrInUse)
	_, err = ListenAny(b.options)
	require.ErrorIs(t, err, ErrInUse)
	b.stop(1)
	s, err := ListenAny(b.options)
	require.NoError(t, err)
	require.Equal(t, "b", s.Name())
	b.servers[1] = s
}

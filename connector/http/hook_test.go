package http

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// hookBench drives one task of a webhook as the engine does.
type hookBench struct {
	t     testing.TB
	store operator.CausalStore
	inc   determinant.Incarnation
	at    determinant.Cursor
}

func hookOptions(dir string) WebhookOptions {
	return WebhookOptions{Dir: dir, Identity: "test", RetryFirst: time.Millisecond, RetryMax: 5 * time.Millisecond}
}

// begin opens a process's store and fences it.
func begin(t testing.TB, w *Webhook, f operator.Fence) (*hookBench, operator.Stored) {
	t.Helper()
	store, err := w.Open(context.Background(), 0, 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	stored, err := store.Fence(context.Background(), f)
	require.NoError(t, err)
	b := &hookBench{t: t, store: store, inc: f.Incarnation, at: stored.Cursor}
	if b.at == (determinant.Cursor{}) {
		b.at.Epoch = 1
	}
	return b, stored
}

// after gives the cursor after records that follow c.
func after(c determinant.Cursor, records []string) determinant.Cursor {
	for _, r := range records {
		c.Next++
		c.Bytes += uint64(len(r))
		c.CRC = crc32.Update(c.CRC, castagnoli, []byte(r))
	}
	return c
}

func (b *hookBench) try(ctx context.Context, records ...string) error {
	w := operator.StoreWrite{Start: b.at, End: after(b.at, records), Delta: []byte(fmt.Sprint("delta ", b.at.Next))}
	for _, r := range records {
		w.Records = append(w.Records, []byte(r))
	}
	err := b.store.Write(ctx, b.inc, w)
	if err == nil {
		b.at = w.End
	}
	return err
}

func (b *hookBench) write(records ...string) {
	b.t.Helper()
	require.NoError(b.t, b.try(context.Background(), records...))
}

func TestWebhookRequests(t *testing.T) {
	type request struct{ key, kind, token, body string }
	for _, c := range []struct {
		format Format
		want   []request
	}{
		{Batches, []request{
			{"S-0-0-0+2", "application/x-ndjson", "Bearer t0ken", `{"id":"S-0-0-0","record":{"n":1}}` + "\n" + `{"id":"S-0-0-1","record":[2,3]}` + "\n"},
			{"S-0-0-2+1", "application/x-ndjson", "Bearer t0ken", `{"id":"S-0-0-2","record":3}` + "\n"},
		}},
		{Each, []request{
			{"S-0-0-0", "application/json", "Bearer t0ken", `{"n":1}`},
			{"S-0-0-1", "application/json", "Bearer t0ken", "[2,\n3]"},
			{"S-0-0-2", "application/json", "Bearer t0ken", "3"},
		}},
	} {
		t.Run(fmt.Sprint(c.format), func(t *testing.T) {
			var got []request
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err == nil {
					got = append(got, request{r.Header.Get("Idempotency-Key"), r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(body)})
				}
			}))
			defer server.Close()
			t.Setenv("HTTP_TEST_TOKEN", "t0ken")
			o := hookOptions(t.TempDir())
			o.Format, o.MaxRecords, o.Access = c.format, 2, Access{TokenEnv: "HTTP_TEST_TOKEN"}
			w := NewWebhook(server.URL, o)
			b, _ := begin(t, w, operator.Fence{Incarnation: 1})
			b.write(`{"n":1}`, "[2,\n3]", "3")
			for i := range c.want {
				c.want[i].key = strings.Replace(c.want[i].key, "S", w.stream(), 1)
				c.want[i].body = strings.ReplaceAll(c.want[i].body, "S-", w.stream()+"-")
			}
			require.Equal(t, c.want, got)
		})
	}
}

// hangUp takes the answer away: the sender does not hear what became of its request.
func hangUp(w http.ResponseWriter) {
	panic(http.ErrAbortHandler)
}

// TestOutage has the receiver fail in every way that passes, some answers lost, for longer than any of the sink's times.
func TestOutage(t *testing.T) {
	r := newTaker(t)
	o := hookOptions(t.TempDir())
	o.Timeout, o.MaxRetryAfter = 500*time.Millisecond, 10*time.Millisecond
	var mu sync.Mutex
	var told, said []string
	var b *hookBench
	o.Waiting = func(task int, why string) {
		mu.Lock()
		defer mu.Unlock()
		told, said = append(told, why), append(said, b.store.(operator.Waiter).Waiting())
	}
	hang := make(chan struct{})
	defer close(hang)
	r.behave(func(w http.ResponseWriter, n int) bool {
		switch n {
		case 1, 2:
			w.Header().Set("Retry-After", "3600") // the sink does not obey that
			w.WriteHeader([]int{http.StatusTooManyRequests, http.StatusServiceUnavailable}[n-1])
		case 3, 4:
			hangUp(w)
		case 5:
			<-hang
		case 6, 7, 8:
			w.WriteHeader([]int{http.StatusBadGateway, http.StatusRequestTimeout, http.StatusConflict}[n-6])
		default:
			return false
		}
		return true
	}, func(w http.ResponseWriter, n int) {
		if n%3 == 0 {
			hangUp(w)
		}
	})
	b, _ = begin(t, NewWebhook(r.server.URL, o), operator.Fence{Incarnation: 1})
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		b.write(want[i])
	}
	require.Equal(t, want, r.records(0))
	require.Positive(t, r.repeated(), "answers were lost")
	r.check()
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, told, said, "the store says the same to whoever asks")
	require.Contains(t, told[0], "429")
	require.Equal(t, "", told[len(told)-1])
	for _, why := range told {
		require.NotContains(t, why, "127.0.0.1:"+r.server.URL[strings.LastIndex(r.server.URL, ":")+1:]+"/", "the URL may hold a secret")
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	r := newTaker(t)
	var first, second time.Time
	r.behave(func(w http.ResponseWriter, n int) bool {
		if n == 1 {
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		second = time.Now()
		return false
	}, nil)
	b, _ := begin(t, NewWebhook(r.server.URL, hookOptions(t.TempDir())), operator.Fence{Incarnation: 1})
	b.write("1")
	require.GreaterOrEqual(t, second.Sub(first), time.Second)
	require.Equal(t, []string{"1"}, r.records(0))
}

func TestRetryAfterForms(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"120": 2 * time.Minute, "0": 0, "Mon, 04 May 2026 03:02:31 GMT": 30 * time.Second, "Mon, 04 May 2026 03:02:00 GMT": 0,
	} {
		got, ok := retryAfter(http.Header{"Retry-After": {text}}, now)
		require.True(t, ok, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "soon", "-1", "1.5"} {
		_, ok := retryAfter(http.Header{"Retry-After": {text}}, now)
		require.False(t, ok, text)
	}
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	b := backoff{first: time.Millisecond, longest: 100 * time.Millisecond}
	for n := range 200 {
		limit := min(100*time.Millisecond, time.Millisecond<<min(n, 10))
		require.LessOrEqual(t, b.next(), limit, "wait %d", n)
	}
	sum := time.Duration(0)
	for range 200 {
		sum += b.next()
	}
	require.Greater(t, sum, 200*10*time.Millisecond, "waits grow")
	b.reset()
	require.LessOrEqual(t, b.next(), time.Millisecond)
}

func TestTooLargeIsHalved(t *testing.T) {
	r := newTaker(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.ContentLength > 150 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		r.ServeHTTP(w, q)
	}))
	defer server.Close()
	b, _ := begin(t, NewWebhook(server.URL, hookOptions(t.TempDir())), operator.Fence{Incarnation: 1})
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprint(i))
	}
	b.write(want...)
	require.Equal(t, want, r.records(0))
	require.Zero(t, r.repeated())
	err := b.try(context.Background(), `"`+strings.Repeat("x", 200)+`"`)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorIs(t, err, operator.ErrPermanent)
}

func TestRefused(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410, 422, 501, 302} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				requests++
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(status)
			}))
			defer server.Close()
			b, _ := begin(t, NewWebhook(server.URL+"/hook?secret=s3cret", hookOptions(t.TempDir())), operator.Fence{Incarnation: 1})
			err := b.try(context.Background(), "1")
			require.ErrorIs(t, err, ErrRefused)
			require.ErrorIs(t, err, operator.ErrPermanent)
			require.Contains(t, err.Error(), fmt.Sprint(status))
			require.NotContains(t, err.Error(), "s3cret")
			require.Equal(t, 1, requests)
		})
	}
	b, _ := begin(t, NewWebhook("http://127.0.0.1:1", hookOptions(t.TempDir())), operator.Fence{Incarnation: 1})
	require.ErrorIs(t, b.try(context.Background(), "no JSON"), ErrRefused)
}

// TestReplacedInAnOutage replaces a writer that waits for a receiver which does not answer: it ends at once, and posts nothing more.
func TestReplacedInAnOutage(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{false, true} {
		for _, hangs := range []bool{false, true} {
			t.Run(fmt.Sprintf("elsewhere %v, hangs %v", elsewhere, hangs), func(t *testing.T) {
				r, dir := newTaker(t), t.TempDir()
				came, over := make(chan struct{}, 100), make(chan struct{})
				r.behave(func(w http.ResponseWriter, n int) bool {
					came <- struct{}{}
					if hangs {
						<-over
					}
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}, nil)
				o := hookOptions(dir)
				o.Timeout = time.Second
				w := NewWebhook(r.server.URL, o)
				b, _ := begin(t, w, operator.Fence{Incarnation: 1})
				result := make(chan error, 1)
				go func() { result <- b.try(context.Background(), "1") }()
				<-came
				if elsewhere {
					w = NewWebhook(r.server.URL, o)
				}
				next, stored := begin(t, w, operator.Fence{Incarnation: 2})
				require.Equal(t, [][]byte{[]byte("delta 0")}, stored.Deltas, "what was posted is covered")
				require.ErrorIs(t, <-result, operator.ErrFenced)
				close(over)
				r.behave(nil, nil)
				next.write("1", "2")
				require.Equal(t, []string{"1", "2"}, r.records(0))
				r.check()
			})
		}
	}
}

// TestStoppedWriter stops a writer at each of its steps, replaces it, and lets it go on: a receiver that takes ids once sees what one writer
// would have shown, in the order of one.
func TestStoppedWriter(t *testing.T) {
	for _, rollBack := range []bool{false, true} {
		at := 1
		for ; stopAt(t, at, rollBack); at++ {
		}
		require.Equal(t, 4, at, "a write stores, posts, and notes that")
	}
}

func stopAt(t *testing.T, at int, rollBack bool) bool {
	r, dir := newTaker(t), t.TempDir()
	armed, steps, stopped, goOn := false, 0, make(chan struct{}), make(chan struct{})
	w := NewWebhook(r.server.URL, hookOptions(dir))
	w.do = func(step, _ func() error) error {
		if armed {
			if steps++; steps == at {
				close(stopped)
				<-goOn
			}
		}
		return step()
	}
	zombie, _ := begin(t, w, operator.Fence{Incarnation: 1})
	zombie.write("1")
	cut := zombie.at
	armed = true
	result := make(chan error, 1)
	go func() { result <- zombie.try(context.Background(), "2", "3") }()
	select {
	case err := <-result:
		require.NoError(t, err)
		return false
	case <-stopped:
	}
	f := operator.Fence{Incarnation: 2}
	if rollBack {
		f.Generation, f.Cut = 1, &operator.Cut{Cursor: cut}
	}
	next, stored := begin(t, NewWebhook(r.server.URL, hookOptions(dir)), f)
	require.Equal(t, cut, stored.Cursor)
	took := r.records(0)
	if rollBack || len(stored.Deltas) < 2 { // nobody knows what the zombie chose: it must not show it
		require.True(t, rollBack || len(took) == 1)
		next.write(`"other"`)
	} else {
		next.write("2")
		next.write("3")
	}
	shown := r.records(0)
	close(goOn)
	require.ErrorIs(t, <-result, operator.ErrFenced)
	require.Equal(t, shown, r.records(0), "stopped at step %d, rolled back: %v", at, rollBack)
	next.write("4")
	require.Equal(t, append(shown, "4"), r.records(0))
	r.check()
	return true
}

// TestWriterFails lets a writer's process die before, in the middle of and after each step of its life, and its successor too: a receiver
// that takes ids once sees every record once, in order.
func TestWriterFails(t *testing.T) {
	t.Parallel()
	errDied := errors.New("died")
	for _, when := range []string{"before", "half", "after"} {
		for at, died := 1, true; died; at++ {
			r, dir := newTaker(t), t.TempDir()
			process := func(steps int) (w *Webhook, dead *bool) { // which dies in so many steps
				w, dead = NewWebhook(r.server.URL, hookOptions(dir)), new(bool)
				w.do = func(step, half func() error) error {
					if steps--; *dead {
						return errDied
					} else if steps > 0 {
						return step()
					}
					switch *dead = true; {
					case when == "after":
						return errors.Join(errDied, step())
					case when == "half" && half != nil:
						return errors.Join(errDied, half())
					}
					return errDied
				}
				return w, dead
			}
			live := func(w *Webhook, inc determinant.Incarnation) error {
				store, err := w.Open(context.Background(), 0, 1)
				require.NoError(t, err)
				defer store.Close()
				stored, err := store.Fence(context.Background(), operator.Fence{Incarnation: inc})
				b := &hookBench{t: t, store: store, inc: inc, at: stored.Cursor}
				b.at.Epoch = 1
				for n := int(b.at.Next); err == nil && n < 6; n = int(b.at.Next) {
					err = b.try(context.Background(), []string{"0", "1", "2", "3", "4", "5"}[n:min(6, n+int(inc))]...)
				}
				return err
			}
			for inc, steps := range []int{at, 1 + at%4} {
				w, dead := process(steps)
				err := live(w, determinant.Incarnation(inc+1))
				require.Equal(t, *dead, err != nil, "%v", err)
				if err != nil {
					require.ErrorIs(t, err, errDied)
				}
				if inc == 0 {
					died = *dead
				}
			}
			require.NoError(t, live(NewWebhook(r.server.URL, hookOptions(dir)), 3))
			require.Equal(t, []string{"0", "1", "2", "3", "4", "5"}, r.records(0), "dies %s step %d", when, at)
			r.check()
		}
	}
}

// TestBranches begins an output anew, by a rollback and at least once: what comes then has other ids.
func TestBranches(t *testing.T) {
	r, dir := newTaker(t), t.TempDir()
	w := NewWebhook(r.server.URL, hookOptions(dir))
	b, _ := begin(t, w, operator.Fence{Incarnation: 1})
	b.write("1", "2")
	mark := b.at
	b.write("3", "4")
	b.write("5")
	f := operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{Cursor: mark}}
	b, stored := begin(t, w, f)
	require.Equal(t, operator.Stored{Cursor: mark, Shown: 3}, stored)
	_, again := begin(t, w, f)
	require.Equal(t, stored, again)
	b.write(`"3b"`)
	b, stored = begin(t, w, operator.Fence{Incarnation: 3, Generation: 1, Cut: &operator.Cut{Cursor: mark}})
	require.Equal(t, uint64(0), stored.Shown, "it is the same rollback")
	require.Equal(t, b.at, after(mark, []string{`"3b"`}))
	b, stored = begin(t, w, operator.Fence{Incarnation: 4, Generation: 1, Cut: f.Cut, Restart: &mark})
	require.Equal(t, operator.Stored{Cursor: mark}, stored)
	b.write(`"3c"`)
	require.Equal(t, []string{"1", "2", "3", "4", "5", `"3b"`, `"3c"`}, r.records(0))
	require.Zero(t, r.repeated())
}

func TestContradiction(t *testing.T) {
	r := newTaker(t)
	w := NewWebhook(r.server.URL, hookOptions(t.TempDir()))
	b, _ := begin(t, w, operator.Fence{Incarnation: 1})
	ctx, cancel := context.WithCancel(context.Background())
	r.behave(func(w http.ResponseWriter, n int) bool {
		cancel()
		hangUp(w)
		return true
	}, nil)
	require.ErrorIs(t, b.try(ctx, "1", "2", "3"), context.Canceled)
	r.behave(nil, nil)
	b, stored := begin(t, w, operator.Fence{Incarnation: 2})
	require.Equal(t, determinant.Cursor{}, stored.Cursor)
	b.write("1") // other borders of writes
	require.ErrorIs(t, b.try(context.Background(), "9"), operator.ErrContradiction)
	b.write("2", "3", "4")
	require.Equal(t, []string{"1", "2", "3", "4"}, r.records(0))
	r.check()
}

func TestWebhookDirectories(t *testing.T) {
	r, dir := newTaker(t), t.TempDir()
	b, _ := begin(t, NewWebhook(r.server.URL, hookOptions(dir)), operator.Fence{Incarnation: 1})
	b.write("1")
	o := hookOptions(dir)
	o.Identity = "other"
	_, err := NewWebhook(r.server.URL, o).Open(context.Background(), 0, 1)
	require.ErrorIs(t, err, ErrJob)
	require.ErrorIs(t, err, operator.ErrPermanent)
	o.Identity = ""
	w := NewWebhook(r.server.URL, o)
	_, err = w.Open(context.Background(), 0, 1)
	require.ErrorContains(t, err, "identity")
	require.NoError(t, w.Identify("test"))
	_, stored := begin(t, w, operator.Fence{Incarnation: 1})
	require.Equal(t, b.at, stored.Cursor)
	require.ErrorIs(t, w.Identify("other"), ErrJob)
	for _, url := range []string{"ftp://x", "http://", "http://user:s3cret@x", "http://[::1", "x"} {
		_, err := NewWebhook(url, hookOptions(t.TempDir())).Open(context.Background(), 0, 1)
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), "s3cret")
	}
}

func TestJournalShrinks(t *testing.T) {
	r, dir := newTaker(t), t.TempDir()
	b, _ := begin(t, NewWebhook(r.server.URL, hookOptions(dir)), operator.Fence{Incarnation: 1})
	size := func() int64 {
		info, err := os.Stat(dir + "/task-00000.journal")
		require.NoError(t, err)
		return info.Size()
	}
	var largest int64
	for e := determinant.Epoch(1); e <= 50; e++ {
		for range 5 {
			b.write("1")
		}
		end := b.at
		end.Next, end.Epoch, end.Bytes, end.CRC = end.Next+1, e+1, 0, 0 // the barrier
		require.NoError(t, b.store.Write(context.Background(), 1, operator.StoreWrite{Start: b.at, End: end}))
		b.at = end
		require.NoError(t, b.store.Truncate(context.Background(), e, nil))
		if e == 5 {
			largest = size()
		}
	}
	require.LessOrEqual(t, size(), largest*3/2)
	_, stored := begin(t, NewWebhook(r.server.URL, hookOptions(dir)), operator.Fence{Incarnation: 2})
	require.Equal(t, b.at, stored.Cursor)
	require.LessOrEqual(t, len(stored.Deltas), 15)
}

// TestTornJournal cuts a journal short at every byte: it is one that was written so far, or says that it is none.
func TestTornJournal(t *testing.T) {
	j := &journal{head: journalHead{Task: 3, Incarnation: 2, Branch: 1, Cursor: determinant.Cursor{Next: 7, Epoch: 2}}}
	j.cursor = j.head.Cursor
	for i := range 3 {
		end := after(j.cursor, []string{"x", "y"})
		j.frames = append(j.frames, frame{Start: j.cursor, End: end, Count: uint64(2 * i), Sums: []uint32{1, 2}, Delta: []byte{byte(i)}})
		j.cursor, j.count = end, uint64(2*i+2)
	}
	data := j.bytes()
	frames := 0
	for n := range len(data) + 1 {
		got, err := decodeJournal(data[:n])
		if err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) && frames == 0, "%d bytes: %v", n, err)
			continue
		}
		require.LessOrEqual(t, frames, len(got.frames))
		frames = len(got.frames)
		require.Equal(t, j.frames[:frames], append([]frame{}, got.frames...))
		require.LessOrEqual(t, got.length, int64(n))
	}
	require.Equal(t, 3, frames)
	whole, err := decodeJournal(data)
	require.NoError(t, err)
	require.Equal(t, j.cursor, whole.cursor)
}

func FuzzJournal(f *testing.F) {
	j := &journal{head: journalHead{Task: 3}, frames: []frame{{Sums: []uint32{1}, Delta: []byte("d")}}, count: 1}
	f.Add(j.bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := decodeJournal(data)
		if err != nil {
			return
		}
		again, err := decodeJournal(j.bytes())
		require.NoError(t, err)
		require.Equal(t, j.cursor, again.cursor)
		require.Equal(t, len(j.frames), len(again.frames))
	})
}

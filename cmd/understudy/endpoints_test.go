package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
)

// secret is a password that no output may repeat.
const secret = "hunter2s3cret"

// kills are flags under which tasks are killed, soon and often.
var kills = []string{"--chaos", "kill=25ms,limit=8,target=task", "--seed", earlyKills, "--checkpoint-interval", "100ms", "--parallelism", "2", "-o", "json"}

// play runs a job with tasks that are killed, until its input ends.
func play(t *testing.T, job string, flags ...string) {
	t.Helper()
	sum := start(t, slices.Concat([]string{"run", job, "--state", t.TempDir()}, flags, kills)...).summary()
	require.Positive(t, sum.Kills)
	require.Zero(t, sum.Rollbacks)
}

// passed writes what passthrough made of the output of another passthrough as that output.
func passed(t *testing.T, dir string) (inner string) {
	t.Helper()
	inner = t.TempDir()
	f, err := os.Create(filepath.Join(inner, "part-0.jsonl"))
	require.NoError(t, err)
	w := bufio.NewWriter(f)
	eachLine(t, filepath.Join(dir, "part-*.jsonl"), func(line string) {
		var l passedLine
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		fmt.Fprintln(w, l.Line)
	})
	require.NoError(t, w.Flush())
	require.NoError(t, f.Close())
	return inner
}

// roundTrip carries the lines of files into a sink, and from there back to files, and checks each line's way.
func roundTrip(t *testing.T, sink, source string, flags ...string) {
	t.Helper()
	input, out := texts(t, 2, 20000), filepath.Join(t.TempDir(), "out")
	play(t, "passthrough", append(flags, "--input", input, "--sink", sink)...)
	play(t, "passthrough", append(flags, "--source", source, "--sink", "file:"+out)...)
	requireClean(t, "ids", "--input", input, "--output", passed(t, out), "--id", "file,offset")
}

func TestNATSEndpoints(t *testing.T) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, Authorization: secret,
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(10*time.Second))
	at := "nats://" + s.Addr().String()
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte(secret+"\n"), 0o600))
	roundTrip(t, at+"/lines?token-file="+token, at+"/lines-0,lines-1?bounded=true&token-file="+token)

	// With workers that are killed. Their output is found by the name of the job's stream.
	input := texts(t, 2, 20000)
	p := start(t, "run", "passthrough", "--state", t.TempDir(), "--input", input, "--rate", "300KiB", "--sink", at+"/moved?token-file="+token, "--workers", "2",
		"--parallelism", "2", "--chaos", "kill=300ms,limit=4,target=worker", "--seed", earlyKills, "-o", "json")
	require.Positive(t, clusterSummary(t, p).Kills)
	moved := filepath.Join(t.TempDir(), "out")
	play(t, "passthrough", "--source", at+"/moved-0,moved-1?bounded=true&token-file="+token, "--output", moved)
	requireClean(t, "ids", "--input", input, "--output", passed(t, moved), "--id", "file,offset")

	// Of a nexmark job, and with a word count behind it.
	play(t, "nexmark-q1", "--events", "20000", "--sink", at+"/bids?token-file="+token)
	out := filepath.Join(t.TempDir(), "out")
	play(t, "wordcount", "--source", at+"/bids-0,bids-1?bounded=true&token-file="+token, "--output", out)
	requireClean(t, "running", "--output", out, "--key", "word", "--value", "count")
	require.Equal(t, 20000*46/50, lastCounts(t, out)["auction"], "46 of 50 events are bids")
}

func TestKafkaEndpoints(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	at := "kafka://" + strings.Join(c.ListenAddrs(), ",")
	t.Run("causal", func(t *testing.T) { roundTrip(t, at+"/causal?partitions=3", at+"/causal?until=end") })
	t.Run("transactional", func(t *testing.T) {
		roundTrip(t, at+"/later?partitions=3&transactional=true", at+"/later?until=end")
	})
}

func TestPostgresEndpoints(t *testing.T) {
	p := newPostgres(t, "-c", "fsync=off")
	at, password := p.url(), p.passwordFile()
	input, out := texts(t, 2, 4000), filepath.Join(t.TempDir(), "out")
	end := "&password_file=" + password
	play(t, "passthrough", "--input", input, "--sink", at+"?table=lines&column=line"+end)

	// A key over both tasks' rows, which is what the source is ordered by.
	query := "select row_number() over (order by understudy_task, understudy_row) as key, line from lines"
	play(t, "passthrough", "--source", at+"?key=key&query="+strings.ReplaceAll(query, " ", "+")+end, "--output", out)
	inner := t.TempDir()
	var lines strings.Builder
	eachLine(t, filepath.Join(passed(t, out), "part-*.jsonl"), func(row string) {
		var r struct{ Line json.RawMessage }
		require.NoError(t, json.Unmarshal([]byte(row), &r))
		lines.WriteString(string(r.Line) + "\n")
	})
	require.NoError(t, os.WriteFile(filepath.Join(inner, "part-0.jsonl"), []byte(lines.String()), 0o600))
	requireClean(t, "ids", "--input", input, "--output", inner, "--id", "file,offset")
}

// receiver is a webhook's other side: it takes each id once.
type receiver struct {
	mu struct {
		sync.Mutex
		records map[string]string // by id
	}
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || q.Header.Get("Authorization") != "Bearer "+secret {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for line := range strings.Lines(string(body)) {
		var e struct {
			ID     string
			Record json.RawMessage
		}
		if json.Unmarshal([]byte(line), &e) != nil || e.ID == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.records[e.ID] = string(e.Record)
	}
}

var listens = regexp.MustCompile(`listens on ([0-9.:]+)`)

// Lines are posted to a job, in one process and on two, of which one listens, and go on to a webhook.
func TestHTTPEndpoints(t *testing.T) {
	for _, workers := range []int{0, 2} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) { ingestAndPost(t, workers) })
	}
}

func ingestAndPost(t *testing.T, workers int) {
	r := &receiver{}
	r.mu.records = map[string]string{}
	hook := httptest.NewServer(r)
	t.Cleanup(hook.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	at := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte(secret), 0o600))
	flags := slices.Concat([]string{"run", "passthrough", "--state", t.TempDir(), "--source", at + "/?dir=" + t.TempDir() + "&token-file=" + token,
		"--sink", hook.URL + "/hook#dir=" + t.TempDir() + "&token-file=" + token}, kills)
	if workers > 0 {
		flags = append(flags, "--workers", strconv.Itoa(workers), "--chaos", "kill=150ms,limit=4,target=worker")
	}
	p := start(t, flags...)
	post := func(path, key, body string) bool {
		q, err := http.NewRequest(http.MethodPost, at+path, strings.NewReader(body))
		require.NoError(t, err)
		q.Header.Set("Authorization", "Bearer "+secret)
		q.Header.Set("Idempotency-Key", key)
		w, err := http.DefaultClient.Do(q)
		if err != nil {
			return false // the worker with the server is dead, or not there yet
		}
		require.NoError(t, w.Body.Close())
		return w.StatusCode == http.StatusOK
	}
	var want []string
	for i := range 600 {
		var body strings.Builder
		for j := range 20 {
			want = append(want, fmt.Sprintf(`{"id":"%d-%d"}`, i, j))
			body.WriteString(want[len(want)-1] + "\n")
		}
		require.True(t, p.until(func() bool { return post("/v1/lines", fmt.Sprint("k", i), body.String()) }), "stderr: %s", &p.stderr)
	}
	require.True(t, p.until(func() bool { return post("/v1/end", "", "") }), "stderr: %s", &p.stderr)
	require.Zero(t, p.code(), "stderr: %s", &p.stderr)
	var sum understudy.Summary
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &sum))
	require.Positive(t, sum.Kills)
	require.Zero(t, sum.Rollbacks)
	require.NotContains(t, p.stderr.String()+p.stdout.String(), secret)
	require.Regexp(t, listens, p.stderr.String())
	var got []string
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range r.mu.records {
		var l passedLine
		require.NoError(t, json.Unmarshal([]byte(text), &l), text)
		got = append(got, l.Line)
	}
	slices.Sort(want)
	slices.Sort(got)
	require.Equal(t, want, got)
}

// Rows of CSV and Parquet are lines of JSON, and the files of a URL are those of --input.
func TestFileEndpoints(t *testing.T) {
	dir := t.TempDir()
	const rows = 60000
	var csv strings.Builder
	csv.WriteString("id;text\n")
	for i := range rows {
		fmt.Fprintf(&csv, "%d;\"two\nlines\"\n", i)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.csv"), []byte(csv.String()), 0o600))
	out := filepath.Join(dir, "rows")
	play(t, "passthrough", "--source", "file:"+dir+"/*.csv?comma=;", "--sink", "file:"+out+"?roll-bytes=256KiB")
	var ids []int
	offsets := map[uint64]bool{}
	eachLine(t, filepath.Join(out, "part-*.jsonl"), func(line string) {
		var l passedLine
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		var row struct{ ID, Text string }
		require.NoError(t, json.Unmarshal([]byte(l.Line), &row))
		require.Equal(t, "two\nlines", row.Text)
		id, err := strconv.Atoi(row.ID)
		require.NoError(t, err)
		ids, offsets[l.Offset] = append(ids, id), true
	})
	slices.Sort(ids)
	require.Len(t, ids, rows)
	require.Equal(t, rows, len(slices.Compact(ids)))
	require.Len(t, offsets, rows, "no two rows stand in one place")

	type sale struct {
		ID string `parquet:"id" json:"id"`
	}
	sales := make([]sale, 20000)
	var want strings.Builder
	for i := range sales {
		sales[i].ID = fmt.Sprint("s", i)
		fmt.Fprintf(&want, "{\"id\":\"s%d\"}\n", i)
	}
	require.NoError(t, parquet.WriteFile(filepath.Join(dir, "a.parquet"), sales))
	expected, shown := filepath.Join(dir, "sales.jsonl"), filepath.Join(dir, "sales")
	require.NoError(t, os.WriteFile(expected, []byte(want.String()), 0o600))
	play(t, "passthrough", "--source", "file:"+dir+"/*.parquet?batch-rows=100", "--output", shown)
	requireClean(t, "equal", expected, passed(t, shown), "--json")

	input, words := texts(t, 2, 4000), filepath.Join(dir, "words")
	play(t, "wordcount", "--source", "file:"+input+"?split-bytes=64KiB", "--rate", "1MiB", "--sink", "file:"+words)
	require.Equal(t, countWords(t, input), lastCounts(t, words))
}

func TestUnusableEndpoints(t *testing.T) {
	dir := t.TempDir()
	in, out := []string{"--input", filepath.Join(dir, "*.txt")}, []string{"--output", filepath.Join(dir, "out")}
	source := func(url string) []string { return append([]string{"--source", url}, out...) }
	sink := func(url string) []string { return append([]string{"--state", dir, "--sink", url}, in...) }
	for _, c := range []struct {
		job   string
		flags []string
		want  string
	}{
		{"wordcount", append(source("file:x"), in...), "--input and --source: give one of them"},
		{"wordcount", append(sink("file:x"), out...), "--output and --sink: give one of them"},
		{"wordcount", source("ftp://a:" + secret + "@host/x"), "--source: there is no scheme ftp: want one of file:, nats:"},
		{"wordcount", source(secret), "--source is not a URL"},
		{"wordcount", sink("//" + secret), "--sink is not a URL"},
		{"wordcount", append(in, "--sink", "nats://host/x"), "--state is required"},
		{"wordcount", append(source("nats://host/x"), "--rate", "1MiB"), "--rate paces"},
		{"enrich", source("http://127.0.0.1:1/?dir=" + dir), "has one reader"},
		{"nexmark-q0", append(source("file:x"), "--events", "9"), "--source has no effect"},
		{"wordcount", source("file:x?colour=" + secret), "colour"},
		{"wordcount", source("file:x.parquet?batch-rows=0"), "batch-rows"},
		{"wordcount", source("file://a:" + secret + "@host/x"), "password"},
		{"wordcount", sink("file://a:" + secret + "%zz@host/x"), "password"},
		{"wordcount", source("nats://a:" + secret + "@host/x"), "credentials"},
		{"wordcount", sink("nats://host/x?password=" + secret), "password does not belong in a URL"},
		{"wordcount", sink("nats://host/x?colour=" + secret), "colour"},
		{"wordcount", source("kafka://a:" + secret + "@host/x"), "must not have a password"},
		{"wordcount", sink("kafka://host/x?password=" + secret), "name password-file"},
		{"wordcount", sink("kafka://host/x?transactional=maybe"), "want true or false"},
		{"wordcount", source("postgres://a:" + secret + "@host/x?table=t&key=id"), "has a password in it"},
		{"wordcount", sink("postgres://a:" + secret + "@host/x?table=t"), "has a password in it"},
		{"wordcount", sink("postgres://a@host/x?table=t&patience=soon"), "patience"},
		{"wordcount", source("http://a:" + secret + "@host/"), "has a password in it"},
		{"wordcount", source("http://host/?colour=" + secret), "colour"},
		{"wordcount", sink("https://a:" + secret + "@host/#dir=x"), "has a password in it"},
		{"wordcount", sink("https://host/#dir=x&colour=" + secret), "colour"},
	} {
		p := start(t, append([]string{"run", c.job}, c.flags...)...)
		require.Equal(t, 2, p.code(), "%v: stderr: %s", c.flags, &p.stderr)
		require.Contains(t, p.stderr.String(), c.want, "%v", c.flags)
		require.NotContains(t, p.stderr.String(), secret)
		require.Empty(t, p.stdout.String())
	}
	for _, command := range []string{"coordinator", "worker"} {
		p := start(t, command, "wordcount", "--source", "nats://a:"+secret+"@host/x", "--sink", "file:x", "--state", dir)
		require.Equal(t, 2, p.code(), "stderr: %s", &p.stderr)
		require.Contains(t, p.stderr.String(), "--source: nats: a URL must have no credentials in it")
		require.NotContains(t, p.stderr.String(), secret)
	}
}

// Why a source waits is told: nobody listens there.
func TestWaitingIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	at := l.Addr().String()
	require.NoError(t, l.Close())
	p := start(t, "run", "wordcount", "--source", "http://"+at+"/", "--output", filepath.Join(t.TempDir(), "out"))
	require.True(t, p.until(func() bool { return strings.Contains(p.stderr.String(), "msg=waits") }), "stderr: %s", &p.stderr)
	require.Contains(t, p.stderr.String(), "refused")
}

// A reason is told once, until it changes, and then that it is over.
func TestWaitLog(t *testing.T) {
	var out said
	l := newWaitLog(&out, false)
	lines := func() int { return strings.Count(out.String(), "\n") }
	l.split("a", "")
	require.Zero(t, lines())
	l.split("a", "no server")
	l.split("a", "no server")
	require.Equal(t, 1, lines())
	l.split("b", "no server")
	l.split("a", "no leader")
	require.Equal(t, 3, lines())
	l.split("a", "")
	l.split("a", "")
	require.Equal(t, 4, lines())
	require.Contains(t, out.String(), `msg="goes on" endpoint="source a"`)
	l.split("a", "no leader")
	require.Equal(t, 5, lines())
	(*waitLog)(nil).split("a", "no leader")
	l.failed("sink t", errors.New("no table"))
	l.failed("sink t", nil)
	require.Contains(t, out.String(), `msg="goes on" endpoint="sink t"`)
}

// With the error of a record that cannot be read, reading goes on behind it, and what comes next stands there.
func TestLinesBehindAnError(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.csv")
	require.NoError(t, os.WriteFile(name, []byte("id\n1\n2,3\n4\n"), 0o600))
	o := &runOptions{}
	require.NoError(t, o.fileSource("file:"+name))
	s, err := o.lines()
	require.NoError(t, err)
	splits, err := s.Splits(t.Context())
	require.NoError(t, err)
	r, err := s.Open(t.Context(), splits[0], 0)
	require.NoError(t, err)
	l, first, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, file.Line{File: name, Text: `{"id":"1"}`}, l)
	_, second, err := r.Next()
	var bad *file.DecodeError
	require.ErrorAs(t, err, &bad)
	require.Greater(t, second, first)
	l, _, err = r.Next()
	require.NoError(t, err)
	require.Equal(t, file.Line{File: name, Offset: second, Text: `{"id":"4"}`}, l)
	require.NoError(t, r.Close())
	again, err := s.Open(t.Context(), splits[0], second)
	require.NoError(t, err)
	same, _, err := again.Next()
	require.NoError(t, err)
	require.Equal(t, l, same)
	require.NoError(t, again.Close())
}

func TestHelpOfEndpoints(t *testing.T) {
	for _, command := range []string{"run", "coordinator", "worker"} {
		p := start(t, command, "--help")
		require.Zero(t, p.code())
		for _, s := range schemes() {
			require.Contains(t, p.stdout.String(), "--source '"+s.asSource+"'")
			require.Contains(t, p.stdout.String(), "--sink '"+s.asSink+"'")
		}
	}
	for _, s := range schemes() { // and each example is one
		require.NoError(t, s.source(&runOptions{}, s.asSource))
		require.NoError(t, s.sink(&runOptions{}, s.asSink))
	}
}

package nexmark

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// goldenEvents is how many events testdata/nexmark/answers has the answers for.
const goldenEvents = 100000

// golden names a folder of testdata/nexmark/answers and says of which stream its answers are.
type golden struct {
	folder      string
	rate, group uint64
	digest      string // of the stream
}

// The first stream is Beam's; the second takes ten times as long, and is out of order.
var (
	quick = golden{"10000x1", 10000, 1, "21aea36ebbb50fd9464125799630ea71"}
	slow  = golden{"1000x60", 1000, 60, "bf87eed6aefea0a05b8236cded70a369"}
)

// rowKeys are what the rows of an updating query replace one another by.
var rowKeys = map[string][]string{
	"q4": {"category"}, "q9": {"id"}, "q15": {"day"}, "q16": {"channel", "day"}, "q17": {"auction", "day"},
	"q18": {"bidder", "auction"}, "q19": {"auction", "rank_number"},
}

// runQuery runs a query and gives the lines of its output, part by part.
func runQuery(t testing.TB, query string, o Options, u understudy.Options) (rows [][]byte, sum understudy.Summary) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	u.Parallelism = 2
	o.Source.Splits = u.Parallelism
	o.Sink = file.Sink(out, file.SinkOptions{})
	job, err := Build(query, o)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	sum, err = understudy.Run(ctx, job, u)
	require.NoError(t, err)
	parts, err := filepath.Glob(filepath.Join(out, "part-*"))
	require.NoError(t, err)
	for _, part := range parts {
		text, err := os.ReadFile(part)
		require.NoError(t, err)
		if len(text) > 0 {
			require.EqualValues(t, '\n', text[len(text)-1], "the last line of %s is torn", part)
			rows = append(rows, slices.Collect(bytes.Lines(text))...)
		}
	}
	return rows, sum
}

// settled applies changes: of the rows of one key the last remains.
func settled(t testing.TB, rows [][]byte, key []string) [][]byte {
	t.Helper()
	byKey := map[string][]byte{}
	for _, row := range rows {
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(row, &fields))
		var id []byte
		for _, name := range key {
			require.NotEmpty(t, fields[name])
			id = append(append(id, fields[name]...), ' ')
		}
		byKey[string(id)] = row
	}
	var left [][]byte
	for _, row := range byKey {
		left = append(left, row)
	}
	return left
}

// requireAnswer compares rows with an answer of testdata/nexmark/answers.py, as multisets.
func requireAnswer(t testing.TB, g golden, query string, rows [][]byte) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("..", "..", "testdata", "nexmark", "answers", g.folder, query+".txt"))
	require.NoError(t, err)
	slices.SortFunc(rows, bytes.Compare)
	if bytes.HasPrefix(want, []byte("{")) {
		require.Equal(t, string(want), string(bytes.Join(rows, nil)))
		return
	}
	name, members := differingBucket(string(want), rows)
	require.Empty(t, name, "%s: what is in the bucket:\n%swhat should be is printed by: "+
		"understudy nexmark generate --events %d --rate %d --group %d > events.tsv; "+
		"testdata/nexmark/answers.py events.tsv %s %s", query, members, goldenEvents, g.rate, g.group, query, name)
}

// differingBucket finds a bucket of sorted rows that is not as the sums of an answer say.
func differingBucket(sums string, rows [][]byte) (name string, members []byte) {
	buckets := map[string][][]byte{}
	for _, row := range rows {
		sum := md5.Sum(row)
		name := hex.EncodeToString(sum[:1])
		buckets[name] = append(buckets[name], row)
	}
	for line := range strings.Lines(sums) {
		name, _, _ := strings.Cut(line, " ")
		members := bytes.Join(buckets[name], nil)
		sum := md5.Sum(members)
		if line != fmt.Sprintf("%s %d %s\n", name, len(buckets[name]), hex.EncodeToString(sum[:])) {
			return name, members
		}
		delete(buckets, name)
	}
	for name, extra := range buckets { // any will do
		return name, bytes.Join(extra, nil)
	}
	return "", nil
}

func TestSumsTellMultisetsApart(t *testing.T) {
	a, b, c := []byte("a\n"), []byte("b\n"), []byte("c\n") // buckets 60, 3b and 2c
	sums := "3b 2 " + fmt.Sprintf("%x", md5.Sum([]byte("b\nb\n"))) + "\n60 1 " + fmt.Sprintf("%x", md5.Sum(a)) + "\n"
	for bucket, rows := range map[string][][]byte{
		"": {a, b, b}, "60": {b, b}, "3b": {a, b}, "2c": {a, b, b, c},
	} {
		name, members := differingBucket(sums, rows)
		require.Equal(t, bucket, name, "%s", members)
	}
	name, _ := differingBucket(sums, [][]byte{a, a, b, b})
	require.Equal(t, "60", name)
}

func (g golden) source() SourceOptions {
	return SourceOptions{Events: goldenEvents, EventRate: g.rate, Group: g.group}
}

// compared gives what of a query's output an answer is compared with.
func compared(t testing.TB, query string, rows [][]byte) [][]byte {
	t.Helper()
	if query == "q12" {
		return perBidder(t, rows)
	}
	return rows
}

// perBidder adds up the windows of q12.
func perBidder(t testing.TB, rows [][]byte) [][]byte {
	t.Helper()
	counts := map[int64]int64{}
	for _, row := range rows {
		var c struct {
			Bidder int64 `json:"bidder"`
			Bids   int64 `json:"bid_count"`
			Start  int64 `json:"starttime"`
			End    int64 `json:"endtime"`
		}
		require.NoError(t, json.Unmarshal(row, &c))
		require.Positive(t, c.Bids)
		require.Less(t, c.Start, c.End)
		counts[c.Bidder] += c.Bids
	}
	var sums [][]byte
	for bidder, n := range counts {
		sums = append(sums, fmt.Appendf(nil, "{\"bidder\":%d,\"bid_count\":%d}\n", bidder, n))
	}
	return sums
}

func TestGoldenStreams(t *testing.T) {
	for _, g := range []golden{quick, slow} {
		require.Equal(t, g.digest, digest(stream(t, Config{Rate: g.rate, Group: g.group}, 0, goldenEvents, 1000)), g.folder)
	}
}

// The results are those that an SQL engine gives.
func TestAnswers(t *testing.T) {
	for _, q := range Queries() {
		if q.Name == "q12x" {
			continue // its answer is chance: see TestEveryChanceIsTakenOnce
		}
		t.Run(q.Name, func(t *testing.T) {
			rows, _ := runQuery(t, q.Name, Options{Source: quick.source(), Final: true}, understudy.Options{})
			requireAnswer(t, quick, q.Name, compared(t, q.Name, rows))
		})
	}
}

// They are the same on a stream that is out of order, by way of changes, and while tasks and workers are killed.
func TestAnswersInSpiteOfKills(t *testing.T) {
	for i, q := range Queries() {
		if q.Name == "q12x" {
			continue // its answer is chance: see TestEveryChanceIsTakenOnce
		}
		t.Run(q.Name, func(t *testing.T) {
			chaos := &understudy.Chaos{Kill: 50 * time.Millisecond, Limit: 4, Seed: uint64(i)}
			rows, sum := runQuery(t, q.Name, Options{Source: slow.source()}, understudy.Options{
				Chaos: chaos, CheckpointInterval: 100 * time.Millisecond,
			})
			require.Equal(t, q.Updating, rowKeys[q.Name] != nil)
			if q.Updating {
				rows = settled(t, rows, rowKeys[q.Name])
			}
			requireAnswer(t, slow, q.Name, compared(t, q.Name, rows))
			t.Log(sum.Kills, "kills", sum.TasksRestarted, "tasks restarted", sum.Rollbacks, "rollbacks")
		})
	}
}

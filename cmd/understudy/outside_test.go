package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/outside"
	"github.com/understudy-stream/understudy/operator"
)

// Flags of TestOutside; `make outside` gives it all sinks and more time.
var (
	outsideAll     = flag.Bool("outside.all", false, "every sink and every kind of failure in TestOutside")
	outsideSeconds = flag.Float64("outside.seconds", 5, "how long the input of each run of TestOutside comes in")
	outsideSeed    = flag.Uint64("outside.seed", 1, "seed of TestOutside: the times and the victims")
)

const (
	outsideTasks = 2
	outsideFiles = 4
	outsideRate  = 11 << 10 // bytes per second and file: 5000 words a second, about
)

// outsideSink is a sink whose output is read back by the system's own client.
type outsideSink struct {
	name   string
	server func(t *testing.T) external // nil: there is none
	more   string                      // parameters of the URL
	frail  bool                        // the server forgets what is prepared when it ends, as no Kafka does
	// read writes the output to files of lines, in the order of each task's, and gives their directory.
	read func(t *testing.T, s external, url string, records int) (dir string)
}

func outsideSinks() []outsideSink {
	return []outsideSink{
		{name: "file", read: func(_ *testing.T, _ external, url string, _ int) string { return strings.TrimPrefix(url, "file:") }},
		{name: "nats", server: func(t *testing.T) external { return newServerProcess(t, "nats") }, read: followed},
		{name: "kafka", server: kafkaProcess, read: followed},
		{name: "transactions", server: kafkaProcess, more: "&transactional=true", frail: true, read: followed},
		{name: "postgres", server: func(t *testing.T) external { return newPostgres(t) }, read: copiedOut},
	}
}

func kafkaProcess(t *testing.T) external { return newServerProcess(t, "kafka") }

// meets tells whether a failure can befall a run with the sink.
func (o *outsideSink) meets(f *outsideFailure) bool {
	return f.during == nil || o.server != nil && !o.frail
}

// outsideFailure is what befalls a run.
type outsideFailure struct {
	name  string
	flags []string
	// during, if it is set, makes the failures, until the process ends. It gives how many there were.
	during func(t *testing.T, s external, p *process, state string) int
	check  func(t *testing.T, sum *understudy.ClusterSummary)
}

var outsideFailures = []outsideFailure{
	{name: "worker", flags: []string{"--chaos", "kill=1s,target=worker"}, check: workersKilled},
	{name: "cluster", flags: []string{"--chaos", "kill=2s,target=all"}, check: workersKilled},
	{name: "zombie", flags: []string{"--chaos", "pause=2s,for=1500ms", "--heartbeat-timeout", "500ms"}, check: func(t *testing.T, sum *understudy.ClusterSummary) {
		require.Positive(t, sum.Pauses)
		require.Positive(t, sum.TasksRestarted)
	}},
	{name: "server", during: serverKilled, check: nothingMoved},
	{name: "outage", during: serverAway, check: nothingMoved},
}

func workersKilled(t *testing.T, sum *understudy.ClusterSummary) {
	require.Positive(t, sum.WorkerKills)
	require.Positive(t, sum.TasksRestarted)
}

// nothingMoved demands that a job waits for its server, and that no task pays for it.
func nothingMoved(t *testing.T, sum *understudy.ClusterSummary) { require.Zero(t, sum.TasksRestarted) }

// What an outside reader finds in a sink is what a run without failures shows, whether workers die, all processes, or the sink's own
// server, or workers are stopped and wake up when they have been replaced.
func TestOutside(t *testing.T) {
	for _, sink := range outsideSinks() {
		t.Run(sink.name, func(t *testing.T) {
			for i := range outsideFailures {
				f := &outsideFailures[i]
				// Other tests have tasks and workers that are killed.
				if sink.meets(f) && (*outsideAll || sink.name == "nats" && f.name == "server") {
					t.Run(f.name, func(t *testing.T) { sink.run(t, f) })
				}
			}
		})
	}
}

func (o *outsideSink) run(t *testing.T, f *outsideFailure) {
	const bytesPerLine = 58 // of texts
	lines := int(math.Ceil(*outsideSeconds * outsideRate / bytesPerLine))
	input, state := texts(t, outsideFiles, lines), filepath.Join(t.TempDir(), "state")
	words := 0
	for _, n := range countWords(t, input) { //lint:sorted a sum
		words += n
	}
	var server external
	url := "file:" + filepath.Join(t.TempDir(), "out")
	if o.server != nil {
		server = o.server(t)
		url = server.sink("counts")
	}
	args := []string{"run", "wordcount", "--input", input, "--rate", fmt.Sprint(outsideRate), "--sink", url + o.more, "--state", state, "--workers", "3",
		"--parallelism", fmt.Sprint(outsideTasks), "-o", "json"}
	if len(f.flags) > 0 {
		args = append(append(args, f.flags...), "--seed", fmt.Sprint(*outsideSeed))
	}
	p := start(t, args...)
	if f.during != nil {
		n := f.during(t, server, p, state)
		t.Logf("the server was killed %d times", n)
		require.Positive(t, n)
	}
	sum := clusterSummary(t, p)
	require.Zero(t, sum.Rollbacks)
	require.Equal(t, sum.TasksLost, sum.TasksRestarted, "tasks were restarted although their workers lived: %+v", sum.Recoveries)
	require.Empty(t, sum.Endings, "processes ended by themselves")
	f.check(t, sum)
	requireClean(t, "running", "--output", o.read(t, server, url, words), "--words", input)
}

// serverKilled kills the server about every two seconds, and starts it again a moment later.
func serverKilled(t *testing.T, s external, p *process, _ string) (kills int) {
	rng := rand.New(rand.NewPCG(*outsideSeed, *outsideSeed))
	for p.lives(time.Second + time.Duration(rng.Int64N(int64(2*time.Second)))) {
		s.kill()
		kills++
		p.lives(time.Duration(rng.Int64N(int64(time.Second))))
		s.start()
	}
	return kills
}

// serverAway keeps the server away for as long as the input comes, until everybody who has patience with it must have lost it, and asks
// meanwhile why the job waits.
func serverAway(t *testing.T, s external, p *process, state string) (kills int) {
	require.True(t, p.lives(2*time.Second), "stderr: %s", &p.stderr)
	s.kill()
	require.True(t, p.until(func() bool {
		status := start(t, "status", "--state", state)
		return status.code() == 0 && strings.Contains(status.stdout.String(), " waits, sink: ")
	}), "stderr: %s", &p.stderr)
	require.True(t, p.lives(time.Duration(*outsideSeconds*float64(time.Second))), "it must wait\nstderr: %s", &p.stderr)
	require.Contains(t, p.stderr.String(), "msg=waits")
	s.start()
	return 1
}

// lives waits for so long. It tells whether the process has not ended by then.
func (p *process) lives(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.done:
		return false
	}
}

// quiet is how long nothing more must come once everything has come that should.
const quiet = time.Second

// followed reads by the system's own client.
func followed(t *testing.T, _ external, url string, records int) (dir string) {
	place, err := outside.At(url, "", outsideTasks)
	require.NoError(t, err)
	dir = t.TempDir()
	files := map[string]*bufio.Writer{}
	var closers []func() error
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	n := 0
	var over *time.Timer // restarted by each record that comes when all have come
	err = place.Follow(ctx, func(part string, record []byte, _ time.Time) error {
		w := files[part]
		if w == nil {
			f, err := os.Create(filepath.Join(dir, "part-"+part+".jsonl"))
			if err != nil {
				return err
			}
			w = bufio.NewWriter(f)
			files[part], closers = w, append(closers, w.Flush, f.Close)
		}
		if n++; n >= records {
			if over == nil {
				over = time.AfterFunc(quiet, stop)
			}
			over.Reset(quiet)
		}
		_, err := w.Write(append(append([]byte(nil), record...), '\n'))
		return err
	})
	require.NoError(t, err)
	for _, c := range closers {
		require.NoError(t, c())
	}
	require.GreaterOrEqual(t, n, records, "records that could be read")
	return dir
}

// copiedOut reads a table by psql.
func copiedOut(t *testing.T, s external, _ string, _ int) (dir string) {
	dir = t.TempDir()
	for task := range outsideTasks {
		rows := s.(*postgresProcess).psql(fmt.Sprintf("COPY (SELECT record FROM counts WHERE understudy_task = %d ORDER BY understudy_row) TO STDOUT", task))
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("part-%05d.jsonl", task)), rows, 0o600))
	}
	return dir
}

// latencyArguments are those of `make latency`.
var latencyArguments = flag.String("latency", "", "run TestLatency, with these arguments of bench latency")

// TestLatency is no test: it measures all sinks, each with a server of its own. KAFKA=host:port names a broker to measure instead.
func TestLatency(t *testing.T) {
	if *latencyArguments == "" {
		t.Skip("make latency")
	}
	kafka := fmt.Sprintf("kafka://%s/latency", os.Getenv("KAFKA"))
	if os.Getenv("KAFKA") == "" {
		kafka = newServerProcess(t, "kafka").sink("latency")
	}
	args := []string{"bench", "latency", "--sink", "file:" + t.TempDir(), "--sink", newServerProcess(t, "nats").sink("latency"), "--sink", kafka,
		"--sink", newPostgres(t).sink("latency")}
	p := start(t, append(args, strings.Fields(*latencyArguments)...)...)
	for p.lives(time.Second) { // it is bounded by its arguments
		continue
	}
	fmt.Print(&p.stdout)
	require.Zero(t, p.code(), "stderr: %s", &p.stderr)
}

// A short measurement of a sink on a server that runs.
func TestBenchLatency(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.html")
	args := []string{"latency", "--sink", newServerProcess(t, "nats").sink("latency"), "--rate", "2000", "--seconds", "0.5",
		"--repeats", "1", "--checkpoint-interval", "300ms"}
	r := benched(t, append(args, "-o", "json", "--report", report)...)
	require.Equal(t, true, r["complete"])
	require.EqualValues(t, 0, r["lost"])
	require.EqualValues(t, 0, r["duplicates"])
	require.Positive(t, r["latency_ms_p99_causal_worst"])
	require.Contains(t, r, "machine")
	var sinks []struct {
		Sink                  string
		Causal, Transactional struct {
			Held bool
			P50  struct{ Median float64 } `json:"latency_ms_p50"`
		}
	}
	text, err := json.Marshal(r["sinks"])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &sinks))
	require.Len(t, sinks, 1)
	for _, s := range sinks {
		require.True(t, s.Transactional.Held)
		require.Less(t, s.Causal.P50.Median, s.Transactional.P50.Median, "%s: at once is sooner than with the next checkpoint", s.Sink)
	}
	requireReport(t, report, "From due to visible", "nats")
}

// What a sink has shown is followed by the server's own client, and nothing of it is left in the end.
func TestPlaces(t *testing.T) {
	for _, sink := range outsideSinks() {
		if sink.server == nil || sink.more != "" {
			continue
		}
		t.Run(sink.name, func(t *testing.T) {
			url := sink.server(t).sink("counts")
			place, err := outside.At(url, "one", 2)
			require.NoError(t, err)
			for life := determinant.Incarnation(1); life <= 2; life++ { // the second finds nothing of the first
				causal := place.Causal()
				require.NoError(t, causal.(operator.SinkIdentifier).Identify(fmt.Sprint("job", life)))
				go func() {
					for task := range 2 {
						if err := showThree(causal, task, life); err != nil {
							t.Error(err)
						}
					}
				}()
				seen := map[string][]string{}
				n := 0
				ctx, stop := context.WithTimeout(t.Context(), patience)
				require.NoError(t, place.Follow(ctx, func(part string, record []byte, _ time.Time) error {
					var number int
					if err := json.Unmarshal(record, &number); err != nil {
						return err
					}
					seen[part] = append(seen[part], fmt.Sprint(number))
					if n++; n == 6 {
						stop()
					}
					return nil
				}))
				stop()
				want := []string{"0", "1", "2"}
				require.Equal(t, map[string][]string{"task-00000": want, "task-00001": want}, seen)
				require.NoError(t, place.Remove(t.Context()))
			}
			require.NoError(t, place.Remove(t.Context()), "what is not there")
			enough := errors.New("enough")
			causal := place.Causal()
			require.NoError(t, causal.(operator.SinkIdentifier).Identify("job3"))
			require.NoError(t, showThree(causal, 1, 1))
			require.ErrorIs(t, place.Follow(t.Context(), func(string, []byte, time.Time) error { return enough }), enough)
		})
	}
}

// showThree writes three records.
func showThree(sink operator.CausalSink, task int, incarnation determinant.Incarnation) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	store, err := sink.Open(ctx, task, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if _, err := store.Fence(ctx, operator.Fence{Incarnation: incarnation}); err != nil {
		return err
	}
	return store.Write(ctx, incarnation, operator.StoreWrite{
		Start: determinant.Cursor{Epoch: 1}, End: determinant.Cursor{Next: 3, Epoch: 1, Bytes: 3}, Records: [][]byte{[]byte("0"), []byte("1"), []byte("2")},
	})
}

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
)

// Flags of TestChaos; `make chaos` gives it more time.
var (
	chaosTotal = flag.Duration("chaos.total", 90*time.Second, "how long the input of all runs of TestChaos comes in")
	chaosRate  = flag.Int64("chaos.rate", 120, "how fast the input of wordcount comes in, KiB per second and file")
	chaosSeed  = flag.Uint64("chaos.seed", 1, "seed of TestChaos: the times and the victims")
)

// chaosLength is how long the input of each run comes in.
func chaosLength() time.Duration {
	return max(3*time.Second, *chaosTotal/time.Duration(len(chaosRuns)))
}

// chaosRun is a run on three workers whose processes are killed, stopped and cut off from each other.
type chaosRun struct {
	name  string
	job   string
	chaos string
	flags []string
	check func(t *testing.T, sum *understudy.ClusterSummary, length time.Duration)
}

var chaosRuns = []chaosRun{
	{name: "a worker", job: "wordcount", chaos: "kill=1s,target=worker", check: killed},
	{name: "a worker, enrich", job: "enrich", chaos: "kill=1s,target=worker", check: killed},
	{name: "the leader", job: "wordcount", chaos: "kill=1s,target=coordinator", flags: []string{"--coordinators", "3"}, check: nothingRestarted},
	{name: "a worker with standbys", job: "enrich", chaos: "kill=1s,target=standby", check: killed},
	{name: "two workers", job: "wordcount", chaos: "kill=2s,target=two", check: killed},
	{name: "everything", job: "wordcount", chaos: "kill=2s,target=all", check: killed},
	{name: "pauses", job: "wordcount", chaos: "pause=2s,for=1500ms", flags: []string{"--heartbeat-timeout", "500ms"}, check: paused},
	{name: "links", job: "enrich", chaos: "link=300ms", check: cut},
	{name: "during checkpoints", job: "wordcount", chaos: "kill=1s,target=worker", flags: []string{"--checkpoint-interval", "30ms"}, check: killed},
	{name: "everything mixed", job: "enrich", chaos: "kill=1s,target=worker+standby+coordinator+two+all,pause=4s,for=1500ms,link=2s",
		flags: []string{"--coordinators", "3", "--heartbeat-timeout", "1s", "--checkpoint-interval", "300ms"}, check: killed},
}

// killed demands failures of at least half the expected number.
func killed(t *testing.T, sum *understudy.ClusterSummary, length time.Duration) {
	require.GreaterOrEqual(t, len(sum.Acts), int(length.Seconds()/4), "failures")
	require.Positive(t, sum.Kills)
	require.Positive(t, sum.TasksRestarted)
}

// nothingRestarted demands that the death of coordinators leaves tasks alone.
func nothingRestarted(t *testing.T, sum *understudy.ClusterSummary, length time.Duration) {
	require.GreaterOrEqual(t, sum.CoordinatorKills, int(length.Seconds()/4))
	require.Zero(t, sum.TasksRestarted)
}

func paused(t *testing.T, sum *understudy.ClusterSummary, _ time.Duration) {
	require.Positive(t, sum.Pauses)
	require.Positive(t, sum.TasksRestarted)
}

func cut(t *testing.T, sum *understudy.ClusterSummary, length time.Duration) {
	require.GreaterOrEqual(t, sum.LinkCuts, int(length.Seconds()))
	require.Zero(t, sum.TasksRestarted)
}

// What a cluster shows is what a run without failures shows, whichever of its processes die, are stopped or cut off; only
// tasks of workers that died are restarted, and none is rolled back.
func TestChaos(t *testing.T) {
	for i := range chaosRuns {
		t.Run(chaosRuns[i].name, func(t *testing.T) { chaosRuns[i].run(t) })
	}
}

func (c *chaosRun) run(t *testing.T) {
	input, rate := c.input(t)
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"--workers", "3", "--parallelism", "4", "--rate", fmt.Sprint(rate), "--chaos", fmt.Sprintf("%s,seed=%d", c.chaos, *chaosSeed)}
	sum := clusterSummary(t, run(t, c.job, input, out, append(args, c.flags...)...))
	require.Zero(t, sum.Rollbacks)
	require.Equal(t, sum.TasksLost, sum.TasksRestarted, "tasks were restarted although their workers lived: %+v", sum.Recoveries)
	require.Empty(t, sum.Endings, "processes ended by themselves")
	c.check(t, sum, chaosLength())
	if c.job == "enrich" {
		requireClean(t, "draws", "--input", input, "--output", out)
		requireOrdered(t, out)
		return
	}
	requireClean(t, "running", "--output", out, "--words", input)
}

// input makes files that take chaosLength to come in at the rate that it returns, in bytes per second and file.
func (c *chaosRun) input(t *testing.T) (glob string, rate int64) {
	t.Helper()
	const files, bytesPerLine = 4, 58 // of texts
	rate = *chaosRate << 10
	if c.job == "enrich" {
		rate = 12 << 10
	}
	lines := math.Ceil(chaosLength().Seconds() * float64(rate) / bytesPerLine)
	return texts(t, files, int(lines)), rate
}

// clusterSummary waits for a successful end and reads what -o json printed.
func clusterSummary(t *testing.T, p *process) *understudy.ClusterSummary {
	t.Helper()
	require.Zero(t, p.code(), "stderr: %s\nstdout: %.2000s", &p.stderr, &p.stdout)
	var s understudy.ClusterSummary
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &s), "stdout: %s", &p.stdout)
	t.Logf("%d records in %.1f s; killed: %d workers, %d coordinators; %d pauses, %d cuts; %d tasks restarted, %d of dead workers, %d rollbacks, %d checkpoints",
		s.RecordsIn, s.Seconds, s.WorkerKills, s.CoordinatorKills, s.Pauses, s.LinkCuts, s.TasksRestarted, s.TasksLost, s.Rollbacks, s.Checkpoints)
	return &s
}

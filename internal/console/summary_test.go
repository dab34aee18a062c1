package console

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
)

func summaryText(t *testing.T, sum *cluster.Summary) string {
	t.Helper()
	var text strings.Builder
	require.NoError(t, WriteSummary(&text, sum, Ending{Seed: 7, Mode: "exactly-once"}))
	return text.String()
}

func TestSummaryWithoutFailures(t *testing.T) {
	require.Equal(t, "3 records in, 2 records out, 1.5 s, 4 checkpoints\n5 bytes of determinants, mode exactly-once\n",
		summaryText(t, &cluster.Summary{RecordsIn: 3, RecordsOut: 2, Seconds: 1.5, Checkpoints: 4, DeterminantBytes: 5}))
}

// A job that was interrupted had its tasks restarted, but nobody killed them.
func TestSummaryOfAJobThatWentOn(t *testing.T) {
	text := summaryText(t, &cluster.Summary{TasksRestarted: 1, Resumed: true, Recoveries: []cluster.Recovery{{Restored: 1, Recovered: 2}}})
	require.NotContains(t, text, "kill")
	require.Contains(t, text, "1 task restarted, 0 global rollbacks, 0 duplicates suppressed")
	require.Contains(t, text, "from noticed to caught up: median 2.0 ms, slowest 2.0 ms (1 of 1 tasks)")
}

func TestSummaryOfKills(t *testing.T) {
	text := summaryText(t, &cluster.Summary{Kills: 2, TasksRestarted: 4, Rollbacks: 1, Recoveries: []cluster.Recovery{
		{Restored: 1, Recovered: 2}, {Restored: 1, Recovered: -1},
		{Rollback: true, Restored: 30, Recovered: -1}, {Rollback: true, Restored: 40, Recovered: -1},
	}})
	require.Contains(t, text, "2 kills (seed 7)\n")
	require.Contains(t, text, "from noticed to caught up: median 2.0 ms, slowest 2.0 ms (1 of 2 tasks)\n")
	require.Contains(t, text, "rolled back, from noticed to running again: median 40.0 ms, slowest 40.0 ms (2 of 2 tasks)\n")
}

// Failures that were asked for and did not come are told.
func TestSummaryOfAJobThatWasTooFast(t *testing.T) {
	var local, processes strings.Builder
	require.NoError(t, WriteSummary(&local, &cluster.Summary{}, Ending{Seed: 7, Chaos: true}))
	require.NoError(t, WriteClusterSummary(&processes, &supervisor.Summary{}, Ending{Seed: 7, Chaos: true}))
	for _, text := range []string{local.String(), processes.String()} {
		require.Contains(t, text, "nothing was killed (seed 7)\n")
	}
}

// A task that is rolled back does not catch up with anything: it is not said to have failed to.
func TestSummaryOfRollbacks(t *testing.T) {
	rollback := cluster.Recovery{Rollback: true, Restored: 30, Recovered: -1}
	text := summaryText(t, &cluster.Summary{Kills: 1, TasksRestarted: 1, Rollbacks: 1, Recoveries: []cluster.Recovery{rollback}})
	require.NotContains(t, text, "caught up")
	require.Contains(t, text, "running again: median 30.0 ms")
	require.Contains(t, text, "1 kill (seed 7)\n1 task restarted, 1 global rollback, 0 duplicates")

	var processes strings.Builder
	sum := supervisor.Summary{Recoveries: []supervisor.Recovery{{Rollback: true, Restored: 30, Recovered: -1, Act: 0}}}
	sum.TasksRestarted = 1
	require.NoError(t, WriteClusterSummary(&processes, &sum, Ending{}))
	require.NotContains(t, processes.String(), "caught up")
	require.Contains(t, processes.String(), "running again: median 30.0 ms")
}

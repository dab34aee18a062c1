package cluster

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// What was taken in does not go back while a source starts again at its checkpoint, whatever is done about its death.
func TestProgressNeverGoesBack(t *testing.T) {
	for _, mode := range []determinant.Mode{determinant.ExactlyOnce, determinant.AtLeastOnce, determinant.GlobalRollback} {
		t.Run(mode.String(), func(t *testing.T) {
			v, out := &valve{n: 1000}, filepath.Join(t.TempDir(), "out")
			sum, err := drawnRun(context.Background(), t, v, out, LocalOptions{Mode: mode, CheckpointInterval: time.Hour}, func(k *killer) {
				k.advance(500)
				taken := func() uint64 { return k.l.stats.progress(k.l).RecordsIn }
				k.until("both splits", func() bool { return taken() == 1000 })
				for _, task := range []determinant.TaskID{sources, sources + 1} {
					k.kill(task)
					for range 100 {
						assert.EqualValues(t, 1000, taken())
						k.on(func(*Coordinator) {})
					}
				}
				v.open(v.n)
			})
			require.NoError(t, err)
			require.EqualValues(t, 2000, sum.RecordsIn)
		})
	}
}

// What a task replays was counted by its former life, and is no part of what it does per second.
func TestReplaysAreNoProgress(t *testing.T) {
	n := newCoordinatorNode(diamondJob(t), CoordinatorNodeOptions{})
	defer n.events.close()
	s := &session{tasks: map[determinant.TaskID]TaskMetrics{}, before: map[determinant.TaskID]progress{}}
	var before time.Time
	says := func(m TaskMetrics) float64 {
		before = time.Now().Add(-time.Second)
		if p, known := s.before[m.Task]; known {
			s.before[m.Task] = progress{p.records, before}
		}
		n.beat(s, &beat{Tasks: []TaskMetrics{m}})
		return s.tasks[m.Task].PerSecond
	}
	require.Zero(t, says(TaskMetrics{Incarnation: 1, Records: 5000}), "it may have replayed before it was first heard of")
	about := func(want, got float64) { // if the machine stands still, more than a second has passed
		require.LessOrEqual(t, got, want)
		require.GreaterOrEqual(t, got, want/time.Since(before).Seconds())
	}
	about(100, says(TaskMetrics{Incarnation: 1, Records: 5100}))
	require.Zero(t, says(TaskMetrics{Incarnation: 2, Records: 9000, Replaying: true}))
	require.Zero(t, says(TaskMetrics{Incarnation: 2, Records: 10000, Replaying: true}))
	require.Zero(t, says(TaskMetrics{Incarnation: 2, Records: 11000}), "some of it was replayed")
	about(200, says(TaskMetrics{Incarnation: 2, Records: 11200}))
}

// A job whose end is committed still runs as long as its workers say how much they did, whether a tick has noted the end or not.
func TestTheEndWaitsForTheLastWords(t *testing.T) {
	n := newCoordinatorNode(diamondJob(t), CoordinatorNodeOptions{})
	defer n.events.close()
	n.rep.state.Finished = &Finish{}
	n.sessions[1] = &session{}
	require.Equal(t, JobRunning, n.jobState())
	n.end(time.Now())
	require.Equal(t, JobRunning, n.jobState())
	n.over = time.Now().Add(-farewellTime)
	require.Equal(t, JobFinished, n.jobState(), "they say nothing")
	n.over = time.Now()
	clear(n.sessions)
	require.Equal(t, JobFinished, n.jobState())
}

package supervisor

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
)

// seenBy is a status of a cluster whose coordinator at leader has seen these recoveries.
func seenBy(leader string, seconds float64, members []determinant.WorkerID, all ...cluster.Recovery) *cluster.Status {
	st := &cluster.Status{Coordinators: []cluster.CoordinatorStatus{{Address: "other"}, {Address: leader, Leader: true}}}
	st.Summary.Seconds, st.Summary.Recoveries = seconds, all
	for _, w := range members {
		st.Workers = append(st.Workers, cluster.WorkerStatus{Worker: w})
	}
	return st
}

func recovered(task determinant.TaskID, inc determinant.Incarnation, from determinant.WorkerID, at int64) cluster.Recovery {
	return cluster.Recovery{
		Task: task, Incarnation: inc, From: from, At: at, Decided: 1, Collected: -1, Restored: -1, Replayed: -1, Recovered: -1, FirstOutput: -1,
	}
}

// What one leader saw of a recovery and what its successor saw are put together.
func TestRecoverySurvivesTheLeader(t *testing.T) {
	r := newRecord(false)
	first := recovered(3, 2, 1, 1_000_000)
	first.Collected = 5
	r.take(seenBy("a", 9, []determinant.WorkerID{2}, first))
	second := recovered(3, 2, 1, 1_004_000) // it noticed 4 ms later
	second.Collected, second.Replayed, second.Recovered = 2, 10, 12
	r.take(seenBy("b", 1, []determinant.WorkerID{2}, second))
	require.Equal(t, 1, r.sum.TasksRestarted)
	got := r.recoveries[life{3, 2}]
	require.Equal(t, []float64{5, 14, 16, -1}, []float64{got.Collected, got.Replayed, got.Recovered, got.FirstOutput})
}

// A task that is restarted although its worker lives is no task that was lost.
func TestLostTasks(t *testing.T) {
	r := newRecord(false)
	rollback, moved := recovered(2, 2, 9, 1), recovered(4, 2, 1, 1)
	rollback.Rollback, moved.Moved = true, true
	r.take(seenBy("a", 1, []determinant.WorkerID{1, 2}, recovered(0, 2, 1, 1), recovered(1, 2, 9, 1), rollback, moved))
	require.Equal(t, 3, r.sum.TasksRestarted)
	require.Equal(t, 1, r.sum.TasksMoved)
	require.Equal(t, map[life]bool{{1, 2}: true}, r.lost)
}

func TestCountsOverLeaders(t *testing.T) {
	r := newRecord(false)
	count := func(leader string, seconds float64, checkpoints int, dropped, in uint64) {
		st := seenBy(leader, seconds, nil)
		st.Summary.Checkpoints, st.Summary.DuplicatesDropped, st.Summary.RecordsIn = checkpoints, dropped, in
		r.take(st)
	}
	count("a", 1, 3, 10, 100)
	count("a", 2, 5, 12, 200)
	count("b", 1, 5, 0, 150) // follows from its start, and has counted what a has
	count("b", 2, 6, 4, 250)
	count("b", 0.5, 1, 1, 240) // was started again
	count("b", 0.7, 2, 1, 260)
	require.Equal(t, 7, r.sum.Checkpoints)
	require.EqualValues(t, 16, r.sum.DuplicatesDropped)
	require.EqualValues(t, 260, r.sum.RecordsIn)
}

// Times count from the act that hit the task's worker, not from a later one.
func TestCauseOfRecovery(t *testing.T) {
	r := newRecord(false)
	r.acts = []Act{
		{At: 1000, Kind: ActKill, Workers: []determinant.WorkerID{1}},
		{At: 2000, Kind: ActKill, Workers: []determinant.WorkerID{2}},
		{At: 3000, Kind: ActLink, Workers: []determinant.WorkerID{1}},
		{At: 9000, Kind: ActPause, Workers: []determinant.WorkerID{1}},
	}
	rec := recovered(0, 2, 1, 6000)
	rec.Collected = 2
	got := r.since(&rec)
	require.Equal(t, 0, got.Act)
	require.Equal(t, []float64{5, 6, 7, -1}, []float64{got.Noticed, got.Decided, got.Collected, got.Replayed})
	stranger := recovered(0, 2, 7, 6000)
	got = r.since(&stranger)
	require.Equal(t, -1, got.Act)
	require.Equal(t, []float64{0, 1}, []float64{got.Noticed, got.Decided})
}

func TestAgenda(t *testing.T) {
	var a agenda
	now := time.Now()
	require.Equal(t, idle, a.wait(now))
	done := ""
	add := func(ms int, name string) { a.add(now.Add(time.Duration(ms)*time.Millisecond), func() { done += name }) }
	add(30, "c")
	add(10, "a")
	add(30, "d")
	add(20, "b")
	require.Equal(t, 10*time.Millisecond, a.wait(now))
	a.run(now.Add(20 * time.Millisecond))
	require.Equal(t, "ab", done)
	a.run(now.Add(time.Second))
	require.Equal(t, "abcd", done)
}

func TestPortsBelowThoseOfTheSystem(t *testing.T) {
	for outgoing, want := range map[string][2]int{
		"32768\t60999\n": {firstPort, lastPort}, "20000\t60999\n": {firstPort, 19999}, "1024\t65535\n": {firstPort, lastPort}, "": {firstPort, lastPort},
	} {
		first, last := below(outgoing)
		require.Equal(t, want, [2]int{first, last}, "%q", outgoing)
	}
	found, err := freeAddresses("127.0.0.1", 3)
	require.NoError(t, err)
	require.Len(t, map[string]bool{found[0]: true, found[1]: true, found[2]: true}, 3)
	require.NoError(t, taken(found))
}

func TestAssignmentText(t *testing.T) {
	a := Assignment{Role: Worker, Name: "worker-1", Job: "count", Call: 2, StateDir: "d", secret: []byte("not this")}
	text, err := a.environ()
	require.NoError(t, err)
	require.NotContains(t, text, "not this")
	got, err := parseAssignment(text[len(Environment)+1:])
	require.NoError(t, err)
	a.secret = nil
	require.Equal(t, a, *got)
	for _, bad := range []string{"", "{", `{"role":"boss"}`, `[]`} {
		_, err := parseAssignment(bad)
		require.ErrorContains(t, err, Environment, "%q", bad)
	}
}

// The times of a kind of failure come from the seed alone, whatever other kinds there are.
func TestChaosTimes(t *testing.T) {
	times := func(c cluster.Chaos) (all []time.Duration) {
		s := &supervisor{opts: Options{Chaos: &c}}
		s.startChaos()
		now := time.Now()
		for _, item := range s.agenda.items {
			all = append(all, item.at.Sub(now).Round(100*time.Millisecond))
		}
		return all
	}
	kills := times(cluster.Chaos{Kill: time.Minute, Seed: 4}) // in the middle between two that are rounded alike
	require.Len(t, kills, 1)
	require.Equal(t, kills, times(cluster.Chaos{Kill: time.Minute, Seed: 4}))
	require.NotEqual(t, kills, times(cluster.Chaos{Kill: time.Minute, Seed: 3}))
	mixed := times(cluster.Chaos{Kill: time.Minute, Pause: time.Minute, Link: time.Minute, Seed: 4})
	require.Len(t, mixed, 3)
	require.Contains(t, mixed, kills[0])
}

func TestLines(t *testing.T) {
	tl := &tail{}
	for i := range tailLines + 3 {
		tl.add([]byte(fmt.Sprint(i)))
	}
	require.True(t, strings.HasPrefix(tl.String(), "3\n4\n"), tl.String())

	var lines []string
	text := "short\n\n" + strings.Repeat("x", 3*maxLine) + "\r\nlast"
	err := eachLine(strings.NewReader(text), func(line []byte) { lines = append(lines, string(line)) })
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, []string{"short", strings.Repeat("x", maxLine), "last"}, lines)
}

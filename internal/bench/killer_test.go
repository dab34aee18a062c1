package bench

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

func after(ms int) time.Time { return time.UnixMilli(int64(ms)) }

// settledSight is a job of two sources and two sinks on three workers, of which worker-0 and worker-2 have sinks, that has taken all that is due.
func settledSight(ms int) sight {
	s := sight{at: after(ms), names: map[int]string{100: "worker-0", 101: "worker-1", 102: "worker-2", 99: "coordinator-0"}}
	st := &s.status
	st.State, st.Summary.RecordsIn, st.Summary.RecordsOut = cluster.JobRunning, math.MaxUint64, 1
	for i, tasks := range []int{1, 1, 2} {
		st.Workers = append(st.Workers, cluster.WorkerStatus{Worker: determinant.WorkerID(i + 5), Process: 100 + i, State: cluster.WorkerLive, Tasks: tasks})
	}
	for _, t := range []struct {
		name   string
		worker determinant.WorkerID
	}{{"ticks[0]", 6}, {"ticks[1]", 7}, {"map3 -> visible[0]", 5}, {"map3 -> visible[1]", 7}} {
		st.Tasks = append(st.Tasks, cluster.TaskStatus{Name: t.name, Worker: t.worker, Standbys: []cluster.StandbyStatus{{Epoch: 3, Ready: true}}})
	}
	return s
}

func recoveryOptions(e Experiment) *RecoveryOptions {
	return &RecoveryOptions{
		Experiment: e, Kills: 3, Workers: 3, Interval: time.Second, Before: 4 * time.Second, Settle: 30 * time.Second, Seed: 3,
		Log: func(string, ...any) {},
	}
}

func testKiller(o *RecoveryOptions) *killer {
	return newKiller(o, "visible", func(now time.Time) uint64 { return uint64(now.UnixMilli()) }, after(60_000))
}

// keepAll keeps the appointment that a killer has.
func keepAll(t *testing.T, k *killer) []string {
	t.Helper()
	require.NotNil(t, k.next)
	at, names := k.next.at, k.keep()
	k.kept(at, names)
	return names
}

func TestUnsettled(t *testing.T) {
	k := testKiller(recoveryOptions(Single))
	s := settledSight(1000)
	require.Empty(t, k.unsettled(&s))
	for want, spoil := range map[string]func(*sight){
		"the job is stopping":                              func(s *sight) { s.status.State = cluster.JobStopping },
		"2 of 3 workers are there":                         func(s *sight) { s.status.Workers = s.status.Workers[1:] },
		"sources are 1 records behind":                     func(s *sight) { s.status.Summary.RecordsIn = 999 },
		"1 tasks recover":                                  func(s *sight) { s.status.Tasks[1].Recovering = true },
		"2 tasks have no standby with the last checkpoint": func(s *sight) { s.status.Tasks[1].Standbys[0].Ready = false; s.status.Tasks[2].Standbys = nil },
		"1 tasks have no standby with the last checkpoint": func(s *sight) { s.status.Tasks[3].Standbys[0].Epoch = 0 },
		"the workers have [0 1 2] tasks":                   func(s *sight) { s.status.Workers[0].Tasks = 0 },
		"0 tasks recover":                                  func(s *sight) { s.status.Tasks = nil },
	} {
		s := settledSight(1000)
		spoil(&s)
		require.Equal(t, want, k.unsettled(&s))
	}
	for _, spoil := range []func(*sight){
		func(s *sight) { s.status.Workers[2].State = cluster.WorkerSilent },
		func(s *sight) { delete(s.names, 102) }, // it was killed, and its coordinator has not noticed
	} {
		s := settledSight(1000)
		spoil(&s)
		require.Equal(t, "2 of 3 workers are there", k.unsettled(&s))
	}
	s = settledSight(1000)
	s.status.Tasks[0].Worker = 0
	require.Equal(t, "1 tasks recover", k.unsettled(&s))
}

// The first kill comes when the job has run under load for the time Before and is settled, the others when it is settled again, each a
// part of a checkpoint interval later that the seed says.
func TestKillsOfASettledJob(t *testing.T) {
	var times []time.Duration
	hit := map[string]int{}
	for seed := range uint64(40) {
		o := recoveryOptions(Single)
		o.Seed = seed
		k := testKiller(o)
		early := settledSight(900)
		early.status.Summary.RecordsIn = 0
		k.see(early)
		require.True(t, k.since.IsZero(), "not under load yet")
		k.see(settledSight(1000))
		k.see(settledSight(4999))
		require.Nil(t, k.next)
		busy := settledSight(5000)
		busy.status.Tasks[0].Recovering = true
		k.see(busy)
		require.Nil(t, k.next)
		k.see(settledSight(5100))
		wait := k.next.at.Sub(after(5100))
		require.True(t, wait >= 0 && wait <= time.Second)
		times = append(times, wait)
		k.see(settledSight(5200))
		require.Equal(t, wait, k.next.at.Sub(after(5100)), "an appointment stays")
		names := keepAll(t, k)
		require.Len(t, names, 1)
		hit[names[0]]++
		require.Equal(t, kill{name: names[0], waited: 100 * time.Millisecond}, k.done[0])

		killed := k.since
		k.see(sight{at: killed, status: settledSight(0).status, names: settledSight(0).names}) // from before the kill
		require.Nil(t, k.next)
		require.False(t, k.over())
		k.see(settledSight(17_000))
		keepAll(t, k)
		k.see(settledSight(30_000))
		keepAll(t, k)
		require.True(t, k.over())
	}
	require.Len(t, hit, 2)
	require.Greater(t, hit["worker-0"], 8)
	require.Greater(t, hit["worker-2"], 8)
	quarters := map[time.Duration]int{}
	for _, d := range times {
		quarters[min(d/(250*time.Millisecond), 3)]++
	}
	require.Len(t, quarters, 4, "kills fall anywhere between two checkpoints")

	again, k := testKiller(recoveryOptions(Q8)), testKiller(recoveryOptions(Q8))
	for _, k := range []*killer{again, k} {
		k.see(settledSight(1000))
		k.see(settledSight(6000))
	}
	require.Equal(t, again.next, k.next, "a seed has one schedule")
}

// A job that does not settle is killed in the end, and it is said why that was early.
func TestKillsOfAJobThatDoesNotSettle(t *testing.T) {
	k := testKiller(recoveryOptions(Single))
	uneven := func(ms int) sight {
		s := settledSight(ms)
		s.status.Workers[2].Tasks, s.status.Workers[1].Tasks = 3, 0
		return s
	}
	k.see(uneven(1000))
	k.see(uneven(34_999))
	require.Nil(t, k.next)
	k.see(uneven(35_000))
	names := keepAll(t, k)
	require.Equal(t, kill{name: names[0], unlike: "the workers have [1 0 3] tasks", waited: 30 * time.Second}, k.done[0])

	// One whose sources never catch up begins all the same.
	k = testKiller(recoveryOptions(Single))
	late := settledSight(59_999)
	late.status.Summary.RecordsIn = 0
	k.see(late)
	require.True(t, k.since.IsZero())
	late.at = after(60_000)
	k.see(late)
	require.False(t, k.since.IsZero())

	// If no worker has a task of the sink, any worker is killed; if there is none, nobody.
	k = testKiller(recoveryOptions(Single))
	k.o.Settle = 0
	s := settledSight(1000)
	s.status.Tasks = nil
	k.see(s)
	s.at = after(5000)
	k.see(s)
	require.Contains(t, []string{"worker-0", "worker-1", "worker-2"}, keepAll(t, k)[0])
	s.at, s.names = after(9000), nil
	k.see(s)
	require.Empty(t, keepAll(t, k))
	require.Len(t, k.done, 1)
}

// Three in a row and three at once begin settled.
func TestFixedSchedules(t *testing.T) {
	o := recoveryOptions(Row)
	o.Workers = 4
	k := testKiller(o)
	k.see(settledSight(1000))
	k.see(settledSight(5000))
	require.Nil(t, k.next, "three workers of four")
	k.o.Workers = 3
	k.see(settledSight(5100))
	for i, name := range []string{"worker-0", "worker-1", "worker-2"} {
		require.False(t, k.over())
		require.Equal(t, after(5100).Add(time.Duration(i)*rowStep), k.next.at)
		require.Equal(t, []string{name}, keepAll(t, k))
	}
	require.True(t, k.over())
	require.Nil(t, k.next)

	k = testKiller(recoveryOptions(Together))
	k.see(settledSight(1000))
	k.see(settledSight(5100))
	require.Equal(t, after(5100), k.next.at)
	require.Equal(t, []string{"worker-0", "worker-1", "worker-2"}, keepAll(t, k))
	require.True(t, k.over())
}

// A killer that is followed kills by what it sees, and knows which processes there are.
func TestFollow(t *testing.T) {
	o := recoveryOptions(Single)
	o.Kills, o.Before, o.Interval = 2, 0, time.Millisecond
	k := newKiller(o, "visible", func(time.Time) uint64 { return 0 }, time.Now())
	l, target := newLookout(), make(chan cluster.Target)
	event := func(name string, pid int, what supervisor.Happening) {
		l.event(understudy.ProcessEvent{Process: name, PID: pid, What: what})
	}
	event("worker-0", 99, supervisor.Started)
	event("worker-0", 99, supervisor.Killed)
	for i, name := range []string{"worker-0", "worker-1", "worker-2"} {
		event(name, 100+i, supervisor.Started)
		event(name, 100+i, supervisor.Paused)
	}
	seen := l.names
	require.Equal(t, map[int]string{100: "worker-0", 101: "worker-1", 102: "worker-2"}, seen)
	event("worker-1", 0, supervisor.Ended)
	require.Len(t, seen, 3, "what was seen before does not change")
	event("worker-1", 101, supervisor.Started)

	type end struct {
		last time.Time
		err  error
	}
	done := make(chan end, 1)
	began := time.Now()
	go func() {
		last, err := follow(context.Background(), k, l.newest, target)
		done <- end{last, err}
	}()
	var killed []cluster.Target
	for range o.Kills {
		settled := settledSight(0)
		for hit := false; !hit; {
			l.look(time.Now(), &settled.status)
			select {
			case name := <-target:
				killed, hit = append(killed, name), true
			case <-time.After(time.Millisecond):
			}
		}
	}
	e := <-done
	require.NoError(t, e.err)
	require.False(t, e.last.Before(began))
	for _, name := range killed {
		require.Contains(t, []cluster.Target{"worker-0", "worker-2"}, name)
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := follow(ctx, testKiller(o), l.newest, target)
	require.ErrorIs(t, err, context.Canceled)
}

func TestSinkTask(t *testing.T) {
	index, is := sinkTask("map3 -> visible[12]", "visible")
	require.True(t, is)
	require.Equal(t, 12, index)
	for _, name := range []string{"map3[1]", "visible", "visible[x]"} {
		_, is = sinkTask(name, "visible")
		require.False(t, is, name)
	}
}

// A source that is told to end gives every record before the end and none from it on, and ends there again when it is read again.
func TestEnding(t *testing.T) {
	s := &Spec{Records: 1 << 40, Rate: 1000, Parallelism: 2, Dir: t.TempDir(), Start: time.Now().Add(-time.Minute).UnixMilli(), Ends: true}
	source := &ticks{count: s.Records, rate: s.Rate, parts: 2, start: s.Start, end: s.end()}
	splits, err := source.Splits(context.Background())
	require.NoError(t, err)
	read := func(split string, offset uint64) (numbers []uint64, next uint64, err error) {
		r, err := source.Open(context.Background(), split, offset)
		require.NoError(t, err)
		defer func() { require.NoError(t, r.Close()) }()
		for {
			record, n, err := r.Next()
			if err != nil {
				return numbers, offset, err
			}
			require.Equal(t, dueOf(s.Start, record.N, s.Rate), record.Due)
			numbers, offset = append(numbers, record.N), n
		}
	}
	first, next, err := read(splits[0], 0)
	require.ErrorIs(t, err, operator.ErrNotReady)
	require.Greater(t, len(first), 29_000)

	require.NoError(t, endAt(s.end(), 70_001, time.Now().Add(time.Hour)))
	source.rate = 0 // all is due at once, beyond the end too
	splits, err = source.Splits(context.Background())
	require.NoError(t, err)
	s.Rate = 1 << 50
	for i, split := range splits {
		numbers, at, err := read(split, 0)
		require.ErrorContains(t, err, "EOF")
		require.Len(t, numbers, 35_001-i)
		require.EqualValues(t, 70_000-i, numbers[len(numbers)-1])
		again, _, err := read(split, at)
		require.ErrorContains(t, err, "EOF")
		require.Empty(t, again)
	}
	rest, _, err := read(splits[0], next)
	require.ErrorContains(t, err, "EOF")
	require.Equal(t, 35_001, len(first)+len(rest))

	over := s.over()
	for n, want := range map[uint64]bool{70_000: false, 70_001: true} {
		is, err := over(n)
		require.NoError(t, err)
		require.Equal(t, want, is)
	}
	require.NoError(t, os.WriteFile(s.end(), []byte("x"), 0o600))
	_, err = newEnding(s.end()).over(0, 0)
	require.ErrorContains(t, err, "end of the job")
	require.ErrorIs(t, endAt(s.end(), 5, time.Now().Add(endingLooks/2)), errEndTooLate)
	require.Error(t, endAt(filepath.Join(s.Dir, "none", "end"), 5, time.Now().Add(time.Hour)))
}

// A reader looks for the end again as what it gives comes to be due later, and never later than that allows.
func TestEndingIsLookedForAgain(t *testing.T) {
	e := newEnding(filepath.Join(t.TempDir(), "end"))
	now := time.Now()
	over, err := e.over(1, now.UnixMicro())
	require.NoError(t, err)
	require.False(t, over)
	require.LessOrEqual(t, e.safe, time.Now().Add(endingLooks).UnixMicro())
	require.NoError(t, endAt(e.path, 2, now.Add(time.Hour)))
	over, err = e.over(3, e.safe-1) // not looked for: endAt forbids an end so near
	require.NoError(t, err)
	require.False(t, over)
	over, err = e.over(3, e.safe)
	require.NoError(t, err)
	require.True(t, over)
}

func TestEndOfRoll(t *testing.T) {
	r := newRoll(1000)
	for _, n := range []uint64{0, 1, 63, 64, 65, 127, 128, 500, 999} {
		require.True(t, r.call(n))
	}
	r.end(65)
	require.EqualValues(t, 5, r.strange)
	require.EqualValues(t, 65-4, r.lost())
	require.EqualValues(t, 4, r.count)
	require.False(t, r.call(65))
	require.Panics(t, func() { r.end(66) })
}

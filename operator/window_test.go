package operator

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

func windows(t *testing.T, w Windows, o ...Option) *harness {
	t.Helper()
	return newHarness(t, windowJob(w, o...), "win", 1)
}

func TestTumblingLatenessAndLateOutput(t *testing.T) {
	h := windows(t, Tumbling(10*ms), AllowedLateness(5*ms))
	h.recordAt(0, []byte{3}, 1)
	h.recordAt(0, []byte{4}, 9)
	h.recordAt(0, []byte{6}, 10)
	h.watermark(8)
	require.Equal(t, []string{"out0. wm 8", "out1. wm 8"}, h.take())
	h.watermark(9) // the last millisecond of [0,10)
	require.Equal(t, []string{`out0.0@9 "0 [0,10) [3]"`, `out0.0@9 "1 [0,10) [4]"`, "out0. wm 9", "out1. wm 9"}, h.take())
	h.recordAt(0, []byte{0}, 2) // late, but allowed: fires again
	h.recordAt(0, []byte{5}, 2) // late and the first of its key
	require.Equal(t, []string{`out0.0@9 "0 [0,10) [3 0]"`, `out0.0@9 "2 [0,10) [5]"`}, h.take())
	h.watermark(14) // 10-1+5: the panes are gone
	h.recordAt(0, []byte{3}, 9)
	h.recordAt(0, []byte{3}, 10)
	require.Equal(t, []string{"out0. wm 14", "out1. wm 14", `out1.0@9 "\x03"`}, h.take())
	h.end()
	require.Equal(t, []string{`out0.0@19 "0 [10,20) [6 3]"`, "out0. wm max", "out1. wm max"}, h.take())
	h.freeze()
	require.Empty(t, h.state["win/panes"])
	require.Empty(t, h.state["win/event timers"])
}

func TestSlidingWindows(t *testing.T) {
	h := windows(t, Sliding(20*ms, 10*ms))
	h.recordAt(0, []byte{3}, 5) // in [-10,10) and [0,20)
	h.watermark(9)
	h.recordAt(0, []byte{6}, 5) // late for the first, in time for the second
	h.recordAt(0, []byte{0}, 12)
	h.watermark(19)
	h.recordAt(0, []byte{3}, 9) // late for both
	h.end()
	require.Equal(t, []string{
		`out0.0@9 "0 [-10,10) [3]"`, "out0. wm 9", "out1. wm 9",
		`out0.0@19 "0 [0,20) [3 6 0]"`, "out0. wm 19", "out1. wm 19",
		`out1.0@9 "\x03"`,
		`out0.0@29 "0 [10,30) [0]"`, "out0. wm max", "out1. wm max",
	}, h.take())
}

func TestSessionsMerge(t *testing.T) {
	h := windows(t, Session(10*ms), AllowedLateness(100*ms))
	for _, r := range []struct{ v, ts int }{{0, 100}, {3, 130}, {6, 115}, {1, 115}, {0, 160}} {
		h.recordAt(0, []byte{byte(r.v)}, int64(r.ts))
	}
	h.recordAt(0, []byte{3}, 122) // joins 115 and 130; meets neither 100 nor 160
	h.watermark(139)
	require.Equal(t, []string{
		`out0.0@109 "0 [100,110) [0]"`, `out0.0@124 "1 [115,125) [1]"`, `out0.0@139 "0 [115,140) [6 3 3]"`,
		"out0. wm 139", "out1. wm 139",
	}, h.take())
	h.recordAt(0, []byte{6}, 108) // joins two that have fired: the merged one fires at once
	require.Equal(t, []string{`out0.0@139 "0 [100,140) [0 6 3 3 6]"`}, h.take())
	h.recordAt(0, []byte{0}, 150) // meets [100,140) not, but 160
	h.end()
	require.Equal(t, []string{`out0.0@169 "0 [150,170) [0 0]"`, "out0. wm max", "out1. wm max"}, h.take())
	h.freeze()
	require.Empty(t, h.state["win/panes"])
}

func TestProcessingTimeWindows(t *testing.T) {
	h := windows(t, Tumbling(10*ms).ProcessingTime())
	h.rt.now = 25
	h.record(0, []byte{0})
	h.record(0, []byte{1})
	h.rt.now = 29
	h.record(0, []byte{3})
	next, ok := h.chain.NextTimer()
	require.True(t, ok)
	require.EqualValues(t, 30, next)
	h.timers(29)
	require.Empty(t, h.take())
	h.timers(30)
	require.Equal(t, []string{`out0.0 "0 [20,30) [0 3]"`, `out0.0 "1 [20,30) [1]"`}, h.take())
	h.record(0, []byte{4})
	h.rt.now = 45
	h.record(0, []byte{3})
	h.end()
	require.Equal(t, []string{"out0. wm max", "out1. wm max", `out0.0 "1 [30,40) [4]"`, `out0.0 "0 [40,50) [3]"`}, h.take())
	_, ok = h.chain.NextTimer()
	require.False(t, ok)
}

func TestProcessingTimeSessions(t *testing.T) {
	h := windows(t, Session(10*ms).ProcessingTime())
	for _, now := range []int64{0, 8, 16, 30} {
		if now == 30 {
			h.timers(30)
		}
		h.rt.now = now
		h.record(0, []byte{3})
	}
	h.end()
	require.Equal(t, []string{`out0.0 "0 [0,26) [3 3 3]"`, "out0. wm max", "out1. wm max", `out0.0 "0 [30,40) [3]"`}, h.take())
}

func TestEventTimeWindowsNeedTimestamps(t *testing.T) {
	h := windows(t, Tumbling(10*ms))
	err := h.chain.Record(0, []byte{1}, 0, false)
	require.ErrorContains(t, err, `operator: "win": assigning a window: a record has no timestamp`)
}

func TestWindowsAtTheEndsOfTime(t *testing.T) {
	for _, w := range []Windows{Tumbling(time.Hour), Sliding(time.Hour, time.Minute), Session(time.Hour)} {
		h := windows(t, w, AllowedLateness(time.Hour))
		h.recordAt(0, []byte{1}, MinTime)
		h.recordAt(0, []byte{1}, MinTime+5)
		h.recordAt(0, []byte{2}, MaxTime-1)
		h.end()
		require.NotEmpty(t, h.take())
		h.freeze()
		require.Empty(t, h.state["win/panes"], "%s", w.kind)
	}
}

// A record that fails has not said that the stream is idle no longer; the next one does.
func TestARecordThatFailsLeavesTheStreamIdle(t *testing.T) {
	j := NewJob("timestamps")
	s := Timestamps(Rebalanced(numbers(j, "in")), "ts", func(v int) time.Time { return time.UnixMilli(int64(v)) }, 0, Parallelism(1))
	s = Map(s, "fail", func(_ Context, v int) (int, error) {
		if v == 9 {
			return 0, errNine
		}
		return v, nil
	})
	To(Rebalanced(s), "out", nowhere{}, Parallelism(1))
	h := newHarness(t, j, "ts", 1)
	require.NoError(t, h.chain.Idle(true))
	require.Equal(t, []string{"out0. idle true"}, h.take())
	for range 2 {
		require.ErrorIs(t, h.chain.Record(0, []byte{9}, 0, false), errNine)
		h.chain.Rewind()
		require.Equal(t, []string{"out0. idle false"}, h.take(), "which the task takes back")
	}
	h.restart()
	require.NoError(t, h.chain.Record(0, []byte{5}, 0, false))
	require.Equal(t, []string{"out0. idle false", `out0.0@5 "\x05"`}, h.take())
	require.ErrorIs(t, h.chain.Record(0, []byte{9}, 0, false), errNine)
	h.chain.Rewind()
	require.Empty(t, h.take())
	require.NoError(t, h.chain.Record(0, []byte{6}, 0, false))
	require.Equal(t, []string{`out0.0@6 "\x06"`}, h.take())
}

// What the least of a job's sources is, is told by the chain: not before the first record, while the stream is idle, or at its end; and the
// least if there are two.
func TestReached(t *testing.T) {
	j := NewJob("reached")
	early := Timestamps(numbers(j, "in"), "early", atMilli, 0, MaxDrift(time.Second), IdleAfter(30*ms))
	late := Timestamps(early, "late", atMilli, 5*ms, MaxDrift(2*time.Second))
	To(Rebalanced(Timestamps(late, "other", atMilli, 90*ms)), "out", nowhere{}, Parallelism(2))
	plan, err := j.Plan(1)
	require.NoError(t, err)
	require.EqualValues(t, 1000, plan.Vertices[0].MaxDrift)
	require.Zero(t, plan.Vertices[1].MaxDrift)
	h := newHarness(t, j, "early", 1)
	reached := func(want int64, ok bool) {
		t.Helper()
		wm, has := h.chain.Reached()
		require.Equal(t, ok, has)
		if ok {
			require.Equal(t, want, wm)
		}
	}
	reached(0, false)
	require.NoError(t, h.chain.Source().Add("0"))
	emit := func(v int) {
		require.NoError(t, h.chain.Source().(*sourceHead[int]).out.record(v, 0, false))
		require.NoError(t, h.chain.StepEnd())
	}
	emit(20)
	reached(14, true)
	h.timers(1000)
	h.timers(1030)
	h.timers(1060)
	reached(0, false)
	emit(25)
	reached(19, true)
	h.restart()
	reached(19, true)
	emit(30)
	reached(24, true)
	h.end()
	reached(0, false)
}

func TestTimestampsAndIdleness(t *testing.T) {
	j := NewJob("timestamps")
	s := Timestamps(numbers(j, "in"), "ts", func(v int) time.Time { return time.UnixMilli(int64(v)) }, 5*ms, IdleAfter(30*ms))
	To(Rebalanced(s), "out", nowhere{}, Parallelism(2))
	h := newHarness(t, j, "ts", 2)
	next, ok := h.chain.NextTimer()
	require.True(t, ok)
	require.EqualValues(t, MinTime, next)
	h.timers(1000) // gets to know the time
	h.timers(1029)
	require.Empty(t, h.take())
	h.timers(1030)
	require.Equal(t, []string{"out0. idle true"}, h.take())
	src := h.chain.Source()
	require.NoError(t, src.Add("0"))
	emit := func(values ...int) {
		head := src.(*sourceHead[int])
		for _, v := range values {
			require.NoError(t, head.out.record(v, 0, false))
		}
		require.NoError(t, h.chain.StepEnd())
	}
	emit(20, 10)
	emit(15)
	emit(30)
	h.timers(1060)
	require.Equal(t, []string{"out0. idle false", `out0.0@20 "\x14"`, `out0.1@10 "\n"`, "out0. wm 14", `out0.0@15 "\x0f"`,
		`out0.1@30 "\x1e"`, "out0. wm 24"}, h.take())
	h.timers(1090)
	require.Equal(t, []string{"out0. idle true"}, h.take())
	h.end()
	require.Equal(t, []string{"out0. idle false", "out0. wm max"}, h.take())
	_, ok = h.chain.NextTimer()
	require.False(t, ok)
}

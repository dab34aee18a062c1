package bench

import (
	"context"
	"io"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

func TestHistogram(t *testing.T) {
	h := &histogram{}
	require.EqualValues(t, -1, h.millis(0.5))
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Millisecond)
	}
	require.EqualValues(t, 1000, h.count())
	for q, want := range map[float64]float64{0: 1, 0.5: 501, 0.99: 991, 1: 1000} {
		require.InEpsilon(t, want, h.millis(q), 0.01)
	}
	h.add(-time.Second)
	h.add(1<<63 - 1)
	require.InDelta(t, 0, h.millis(0), 0.001)
	require.InEpsilon(t, float64(1<<longestTime)/1000, h.millis(1), 0.02)
	last := -1
	for v := uint64(0); v < 1<<20; v += 1 + v/1000 { // every bucket holds what it stands for, and they are in order
		b := bucketOf(v)
		require.GreaterOrEqual(t, b, last)
		require.InDelta(t, float64(v), middle(b), max(0.5, float64(v)/100))
		last = b
	}
}

// Any key may be changed next, so some are again before others have been.
func TestStagedChangesAnyKey(t *testing.T) {
	const keys = 1000
	s := newStaged(2, keys)
	s.enter(&stage{start: time.Now().Add(-time.Hour), changes: 1e9})
	seen := map[uint64]int{}
	for _, split := range []string{"0", "1"} {
		r, err := s.Open(context.Background(), split, 0)
		require.NoError(t, err)
		for i := range keys / 2 {
			a, offset, err := r.Next()
			require.NoError(t, err)
			require.EqualValues(t, alter, a.Kind)
			require.EqualValues(t, i+1, offset)
			seen[a.Key]++
		}
		require.NoError(t, r.Close())
	}
	require.InDelta(t, keys*(1-1/math.E), len(seen), keys/20)
	require.EqualValues(t, keys, s.given())
	_, err := s.Open(context.Background(), "0", 5)
	require.ErrorIs(t, err, errReadAgain)
}

// A reader gives what is due, waits, and hears of a new stage.
func TestStagedPace(t *testing.T) {
	s := newStaged(1, 100)
	r, err := s.Open(context.Background(), "0", 0)
	require.NoError(t, err)
	start := time.Now()
	s.enter(&stage{start: start, rate: 0.001})
	<-r.Ready()
	a, _, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, access{Key: scatter(0) % 100, Kind: look, Due: start.UnixMicro()}, a)
	_, _, err = r.Next()
	require.ErrorIs(t, err, operator.ErrNotReady, "the second is due in a quarter of an hour")
	s.enter(&stage{kind: fill})
	<-r.Ready()
	for range 100 {
		a, _, err = r.Next()
		require.NoError(t, err)
		require.EqualValues(t, fill, a.Kind)
	}
	require.EqualValues(t, 99, a.Key)
	_, _, err = r.Next()
	require.ErrorIs(t, err, operator.ErrNotReady)
	s.enter(&stage{over: true})
	_, _, err = r.Next()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, r.Close())
}

// What was due before a stage's end is given, also by a reader that was held up until long after it; what is due later is not.
func TestStagedEnd(t *testing.T) {
	s := newStaged(2, 100)
	start := time.Now().Add(-time.Hour)
	st := &stage{start: start, rate: 10, until: start.Add(time.Second).UnixMicro()}
	s.enter(st)
	given := map[int64]bool{}
	for i, split := range []string{"0", "1"} {
		r, err := s.Open(context.Background(), split, 0)
		require.NoError(t, err)
		for range 5 {
			require.EqualValues(t, i, st.ended.Load())
			a, _, err := r.Next()
			require.NoError(t, err)
			require.Less(t, a.Due, st.until)
			given[a.Due] = true
		}
		for range 2 {
			_, _, err = r.Next()
			require.ErrorIs(t, err, operator.ErrNotReady)
			require.EqualValues(t, i+1, st.ended.Load(), "counted once")
		}
		require.NoError(t, r.Close())
	}
	require.Len(t, given, 10)
}

func TestAccessCodec(t *testing.T) {
	a := access{Key: 1 << 40, Kind: alter, Due: -7}
	bytes, err := accessCodec{}.Append(nil, a)
	require.NoError(t, err)
	back, err := accessCodec{}.Decode(bytes)
	require.NoError(t, err)
	require.Equal(t, a, back)
	for n := range bytes {
		_, err := accessCodec{}.Decode(bytes[:n])
		require.Error(t, err)
	}
}

func checkpointOptions(t *testing.T) CheckpointOptions {
	s := *setup(t)
	s.Interval = 50 * time.Millisecond
	return CheckpointOptions{Setup: s, StateMB: 2, ValueBytes: 1024, Dirty: 5, Seconds: 0.3, Repeats: 1, Seed: 1, Log: t.Logf}
}

// Stages without checkpoints have none, and those with them have images of what changed.
func TestCheckpoint(t *testing.T) {
	var r Checkpoint
	for seconds := 0.3; ; seconds *= 2 { // on a busy machine a checkpoint takes longer
		o := checkpointOptions(t)
		o.Seconds = seconds
		var err error
		r, err = MeasureCheckpoint(context.Background(), o)
		require.NoError(t, err)
		if seconds > 5 || len(r.Full[1][0].Checkpoints) > 0 && len(r.Half[1][0].Checkpoints) > 0 {
			break
		}
	}
	require.True(t, r.Complete)
	require.EqualValues(t, 2048, r.Keys)
	for _, stages := range [][2][]Stretch{r.Full, r.Half} {
		require.Len(t, stages[0], 1)
		require.Len(t, stages[1], 1)
		require.Empty(t, stages[0][0].Checkpoints)
		require.NotEmpty(t, stages[1][0].Checkpoints)
	}
	require.EqualValues(t, -1, r.Full[0][0].P99)
	require.Positive(t, r.Half[0][0].P99)
	require.Positive(t, r.Half[1][0].P50)
	require.Equal(t, 1-r.Full[1][0].Rate/r.Full[0][0].Rate, r.Loss)
	require.Equal(t, r.Half[1][0].P99-r.Half[0][0].P99, r.P99Added)
	require.Positive(t, r.CheckpointBytes)
	require.Less(t, r.CheckpointBytes, float64(2<<20), "an image is what changed, not everything")
}

// Latency may be measured in some of the repeats only: those are spread over all.
func TestCheckpointLatencyRepeats(t *testing.T) {
	o := checkpointOptions(t)
	o.Repeats, o.LatencyRepeats = 10, 3
	var at []int
	for i := range o.Repeats {
		if o.measuresLatency(i) {
			at = append(at, i)
		}
	}
	require.Equal(t, []int{3, 6, 9}, at)
	o.Repeats, o.LatencyRepeats = 2, 1
	r, err := MeasureCheckpoint(context.Background(), o)
	require.NoError(t, err)
	require.Len(t, r.Full[1], 2)
	require.Len(t, r.Half[1], 1)
	require.Equal(t, r.Half[1][0].P99-r.Half[0][0].P99, r.P99Added)
	require.Len(t, r.Page().Tables[0].Rows, 2)
	require.Len(t, r.Page().Tables[1].Rows, 1)
}

// What was measured until an interruption counts, also if latency was not.
func TestCheckpointInterruptedBeforeLatency(t *testing.T) {
	r := Checkpoint{StateMB: 1, Full: [2][]Stretch{{{Rate: 100, CPUNanos: 1}}, {{Rate: 90, CPUNanos: 2}}}}
	r.conclude()
	require.InDelta(t, 0.1, r.Loss, 1e-9)
	require.Zero(t, r.P99Added)
}

func TestInterruptedCheckpoint(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	o := checkpointOptions(t)
	o.Log = func(string, ...any) { cancel() } // the state is filled
	r, err := MeasureCheckpoint(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, r.Complete)
	require.Empty(t, r.Full[0])
}

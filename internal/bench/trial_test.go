package bench

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/internal/nexmark"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func setup(t *testing.T) *Setup {
	return &Setup{Parallelism: 2, Workers: 3, Interval: time.Hour, Dir: t.TempDir()}
}

// None keeps no output and logs no choice; at-least-once keeps output; exactly-once keeps both. All take part in checkpoints and show the
// same.
func TestArmsKeepWhatTheySay(t *testing.T) {
	s := setup(t)
	trials := map[string]Trial{}
	for _, a := range Arms() {
		trial, err := s.engine(context.Background(), "q0", 100_000, a)
		require.NoError(t, err)
		require.EqualValues(t, 92_000, trial.Output.Rows)
		require.Positive(t, trial.Checkpoints)
		require.Positive(t, trial.CheckpointBytes)
		require.Positive(t, trial.CheckpointMillis)
		require.GreaterOrEqual(t, trial.CheckpointMax, trial.CheckpointMillis)
		require.Positive(t, trial.EventsPerSecond)
		require.Positive(t, trial.CPUNanos)
		require.Positive(t, trial.AllocatedBytes)
		trials[a.Name] = trial
	}
	none, once, full := trials[None.Name], trials[AtLeastOnce.Name], trials[ExactlyOnce.Name]
	for name, trial := range trials {
		require.NoError(t, disagreement("q0", None.Name, none.Output, name, trial.Output))
	}
	for _, trial := range []Trial{none, once} {
		require.Zero(t, trial.DeterminantBytes)
		require.Zero(t, trial.StoredBytes)
		require.Zero(t, trial.LogPeak)
	}
	require.Positive(t, full.DeterminantBytes)
	require.Positive(t, full.StoredBytes)
	// No checkpoint frees anything before the end: a task's output is still there, of the worker that has most of two.
	require.Greater(t, once.InflightPeak, int64(once.Output.Bytes)/2)
	require.Greater(t, full.InflightPeak, int64(full.Output.Bytes)/2)
	require.Less(t, none.InflightPeak, once.InflightPeak/2)
}

// Standbys are there in every way of running a query: the state is on disk twice.
func TestStandbysHoldTheState(t *testing.T) {
	s := setup(t)
	for _, a := range []Arm{None, AtLeastOnce, ExactlyOnce} {
		trial, err := s.engine(context.Background(), "q9", 100_000, a)
		require.NoError(t, err)
		require.Equal(t, 1, trial.Checkpoints)
		t.Log(a.Name, trial.CheckpointBytes, trial.StateBytes)
		require.Greater(t, trial.StateBytes, trial.CheckpointBytes*3/2, a.Name)
	}
}

func TestSlower(t *testing.T) {
	require.Equal(t, "3.0% slower", Slower(0.03))
	require.Equal(t, "0.5% faster", Slower(-0.005))
}

// Engine and plain programs come to the same results, over windows that end while events come.
func TestPlainProgramsAgreeWithTheEngine(t *testing.T) {
	s := setup(t)
	for _, query := range PlainQueries() {
		byPlain, err := s.plain(context.Background(), query, 130_000)
		require.NoError(t, err)
		byEngine, err := s.engine(context.Background(), query, 130_000, ExactlyOnce)
		require.NoError(t, err)
		require.Positive(t, byPlain.Output.Rows)
		require.NoError(t, disagreement(query, "plain", byPlain.Output, "engine", byEngine.Output))
	}
}

func TestDisagreement(t *testing.T) {
	x := Tally{Rows: 1, Bytes: 2, Sum: 3}
	require.NoError(t, disagreement("q0", "a", x, "b", x))
	require.ErrorIs(t, disagreement("q0", "a", x, "b", Tally{Rows: 1, Bytes: 2, Sum: 4}), ErrDisagree)
	require.ErrorIs(t, disagreement("q0", "a", x, "b", Tally{Rows: 2, Bytes: 2, Sum: 3}), ErrDisagree)
	require.NoError(t, disagreement("q12", "a", x, "b", Tally{Rows: 2, Bytes: 4, Sum: 3}))
	require.ErrorIs(t, disagreement("q12", "a", x, "b", Tally{Rows: 1, Bytes: 2, Sum: 4}), ErrDisagree)
}

// The rows of q12 have the same sum however a clock has cut the windows, and another if a bid is missing.
func TestBidsOfBidder(t *testing.T) {
	sum := func(rows ...string) (all uint64) {
		for _, r := range rows {
			all += bidsOfBidder([]byte(r))
		}
		return all
	}
	whole := sum(`{"bidder":7,"bid_count":5,"starttime":0,"endtime":10}`)
	require.Equal(t, whole, sum(`{"bidder":7,"bid_count":2,"starttime":0,"endtime":10}`, `{"bidder":7,"bid_count":3,"starttime":10,"endtime":20}`))
	require.NotEqual(t, whole, sum(`{"bidder":7,"bid_count":4,"starttime":0,"endtime":10}`))
	require.NotEqual(t, whole, sum(`{"bidder":8,"bid_count":5,"starttime":0,"endtime":10}`))
	require.Panics(t, func() { bidsOfBidder([]byte(`{"bidder":8}`)) })
}

func TestInterruptedTrial(t *testing.T) {
	s := setup(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.engine(ctx, "q0", 1<<40, None)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.plain(ctx, "q0", 1<<40)
	require.ErrorIs(t, err, context.Canceled)
}

func TestSettledQueries(t *testing.T) {
	for _, q := range nexmark.Queries() {
		require.Equal(t, !q.Updating && q.Name != "q12" && q.Name != "q12x", Settled(q), q.Name)
	}
}

package cluster

import (
	"context"
	"io"
	"math"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/operator"
)

const drifting = time.Second // of event time; a record is a millisecond

// race is a source of two splits, of which one gives what there is, and the other what it is let.
type race struct {
	limit, end, at [2]atomic.Uint64 // fast, slow
}

func newRace() *race {
	r := &race{}
	r.limit[0].Store(math.MaxUint64)
	r.end[0].Store(math.MaxUint64)
	r.end[1].Store(math.MaxUint64)
	return r
}

func (r *race) Splits(context.Context) ([]string, error) { return []string{"0", "1"}, nil }

func (r *race) Open(_ context.Context, split string, offset uint64) (operator.Reader[uint64], error) {
	return &runner{race: r, i: int(split[0] - '0'), at: offset, ready: make(chan struct{}, 1)}, nil
}

type runner struct {
	race  *race
	i     int
	at    uint64
	ready chan struct{}
}

func (r *runner) Next() (uint64, uint64, error) {
	switch {
	case r.at >= r.race.end[r.i].Load():
		return 0, r.at, io.EOF
	case r.at >= r.race.limit[r.i].Load():
		time.AfterFunc(time.Millisecond, func() {
			select {
			case r.ready <- struct{}{}:
			default:
			}
		})
		return 0, r.at, operator.ErrNotReady
	}
	r.at++
	r.race.at[r.i].Store(r.at)
	return r.at - 1, r.at, nil
}

func (r *runner) Ready() <-chan struct{} { return r.ready }
func (r *runner) Close() error           { return nil }

const shownOf = 1000 // one in so many records is put out

func (r *race) plan(t *testing.T, out string) *operator.Plan {
	job := operator.NewJob("race")
	numbers := operator.Timestamps(operator.From(job, "numbers", operator.Source[uint64](r)), "time", func(n uint64) time.Time {
		return time.UnixMilli(int64(n))
	}, 0, operator.MaxDrift(drifting))
	some := operator.Filter(operator.Rebalanced(numbers), "some", func(_ operator.Context, n uint64) (bool, error) { return n%shownOf == 0, nil })
	operator.To(some, "output", file.Sink(out, file.SinkOptions{}), operator.WithCodec(operator.JSON[uint64]()))
	plan, err := job.Plan(2)
	require.NoError(t, err)
	return plan
}

// finish lets both splits end soon, in the same place.
func (r *race) finish() {
	end := r.at[0].Load()
	for r.at[0].Load()+1000 > end { // it may go on just now
		end += 100_000
		r.limit[0].Store(end)
	}
	for i := range 2 {
		r.end[i].Store(end)
		r.limit[i].Store(end)
	}
}

func (r *race) passes(t *testing.T, at uint64, why string) {
	t.Helper()
	require.Eventually(t, func() bool { return r.at[0].Load() > at }, time.Minute, time.Millisecond, why)
}

// requireExact checks that what both splits gave up to their ends is put out once.
func (r *race) requireExact(t *testing.T, out string) {
	t.Helper()
	want := map[uint64]int{}
	for i := range r.end {
		for n := uint64(0); n < r.end[i].Load(); n += shownOf {
			want[n]++
		}
	}
	require.Equal(t, want, seenRows[uint64](t, out))
}

func TestSourcesStayTogether(t *testing.T) {
	r, out := newRace(), filepath.Join(t.TempDir(), "out")
	r.limit[1].Store(10)
	var waiting atomic.Value
	waiting.Store("")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := RunLocal(ctx, r.plan(t, out), LocalOptions{
			StateDir: t.TempDir(), CheckpointInterval: 50 * time.Millisecond, Progress: func(p Progress) { waiting.Store(p.Waiting) },
		})
		done <- err
	}()
	waits := func() bool { return strings.Contains(waiting.Load().(string), "MaxDrift") }
	require.Eventually(t, waits, time.Minute, time.Millisecond, "the fast split does not wait")
	stopped := r.at[0].Load()
	require.Greater(t, stopped, uint64(drifting.Milliseconds()))

	slow := stopped + 1000
	r.limit[1].Store(slow)
	r.passes(t, slow+uint64(drifting.Milliseconds()), "the slow split has come on, and the fast one still waits")

	r.finish()
	require.NoError(t, <-done)
	r.requireExact(t, out)
}

// A split that has ended holds back nobody.
func TestNobodyWaitsForAnEndedSource(t *testing.T) {
	r, out := newRace(), filepath.Join(t.TempDir(), "out")
	r.limit[1].Store(10)
	r.end[1].Store(10)
	r.end[0].Store(200_000)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := RunLocal(ctx, r.plan(t, out), LocalOptions{StateDir: t.TempDir()})
	require.NoError(t, err)
	r.requireExact(t, out)
}

// Sources in several processes stay together by way of the coordinator, and go on without each other when there is none.
func TestSourcesOfSeveralProcessesStayTogether(t *testing.T) {
	r := newRace()
	r.limit[1].Store(10)
	c := newCell(t, 1, 2, 0)
	c.own = func() *operator.Plan { return r.plan(t, c.out) }
	c.start()
	waits := func(s *Status) bool { return strings.Contains(strings.Join(s.Waiting, "\n"), "MaxDrift") }
	s := c.await("the fast split to wait", waits)
	require.NotNil(t, s.Tasks[0].Metrics.EventTime)
	require.NotNil(t, s.Tasks[1].Metrics.EventTime)
	require.EqualValues(t, 8, min(*s.Tasks[0].Metrics.EventTime, *s.Tasks[1].Metrics.EventTime), "the watermark of 10 records")

	c.coords[0].kill()
	r.passes(t, r.at[0].Load()+10*uint64(drifting.Milliseconds()), "without a coordinator the fast split waits for good")
	c.startCoordinator(0)
	c.await("the fast split to wait again", waits)
	r.finish()
	c.finished()
	r.requireExact(t, c.out)
}

func TestDrift(t *testing.T) {
	const now = 1_000_000
	const holds = 5000
	at := func(slowest int64) *slowestSource { return &slowestSource{at: slowest, heard: now, until: now + holds} }
	var d drift
	d.begin(0)
	d.reached.Store(5000)
	require.False(t, d.waits(now, at(0)), "without MaxDrift")
	require.Nil(t, d.eventTime())

	d.begin(1000)
	require.False(t, d.waits(now, at(0)), "it has given nothing")
	require.Nil(t, d.eventTime())
	d.reached.Store(5000)
	require.EqualValues(t, 5000, *d.eventTime())
	require.False(t, d.waits(now, nil), "nothing was heard")
	require.False(t, d.waits(now, at(operator.MaxTime)), "there is nobody to wait for")
	require.False(t, d.waits(now, at(4000)))
	require.False(t, d.waits(now, at(5001)), "it is the slowest")
	require.Empty(t, d.why(now+driftShown))

	require.True(t, d.waits(now, at(3999)))
	require.True(t, d.waits(now+1, at(3999)))
	require.Empty(t, d.why(now+driftShown-1))
	require.Contains(t, d.why(now+driftShown), "more than 1s of event time ahead")
	require.True(t, d.waits(now+holds-1, at(3999)))
	require.False(t, d.waits(now+holds, at(3999)), "that was heard long ago")
	require.Empty(t, d.why(now+holds+2*driftShown), "it does not wait any more")
	require.False(t, d.waits(now-1, at(3999)), "the clock has gone back")

	require.True(t, d.waits(now, at(3999)))
	d.note(0, false)
	require.True(t, d.waits(now, at(3999)), "its stream is idle, since it waits")
	require.False(t, d.waits(now, at(4000)))
	d.note(5001, true)
	require.EqualValues(t, 5001, *d.eventTime())
	d.note(0, false)
	require.Nil(t, d.eventTime(), "its stream is idle")
	require.False(t, d.waits(now, at(3999)))

	d.reached.Store(operator.MaxTime - 1)
	require.True(t, d.waits(now, at(operator.MinTime+1)), "no overflow")
	d.reached.Store(operator.MinTime + 1)
	require.False(t, d.waits(now, at(operator.MaxTime-1)))
}

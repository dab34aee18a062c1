package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

const stalled10 = "no checkpoint was completed for 10 s: tasks fail faster than they recover"

// failing lets task 1 fail every 100 ms, from now until then, and recover in time or not.
func (o *office) failing(now, until int64, recovers bool) {
	for ; now < until; now += 100 {
		o.c.Tick(now)
		o.fail(1, ErrKilled)
		if recovers {
			o.catchUp()
		}
	}
	o.c.Tick(until)
	o.commit()
}

func TestStallIsSaidAndTakenBack(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{Interval: 1000})
	o.c.Tick(1000)
	o.commit()
	o.waiting = nil

	o.failing(2000, 2000+stallAfter-1, false)
	require.Empty(t, o.waiting, "it may still get on")
	o.failing(2000+stallAfter, 2000+2*stallAfter-1, false)
	require.Equal(t, []string{stalled10}, o.waiting, "once, although a decision is made ten times per second")
	o.failing(2000+2*stallAfter, 2000+2*stallAfter+500, false)
	require.Equal(t, []string{stalled10, "no checkpoint was completed for 20 s: tasks fail faster than they recover"}, o.waiting)

	o.catchUp()
	points := o.c.points.State()
	e := points.Started()
	for task, p := range o.c.view.Places {
		for _, w := range append([]determinant.WorkerID{p.Worker}, p.Standbys...) {
			o.ack(determinant.TaskID(task), w, e)
		}
	}
	require.Equal(t, e, o.c.view.committed())
	require.Empty(t, o.waiting[len(o.waiting)-1], "taken back")
	o.waiting = nil
	o.c.Tick(2000 + 3*stallAfter)
	require.Empty(t, o.waiting)
}

// Failures that are over are no stall, however long the checkpoint takes; neither are a few.
func TestNoStallWithoutFailures(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{Interval: 1000})
	o.failing(1000, 1000+stallAfter+500, false)
	require.Contains(t, o.waiting, stalled10)
	o.waiting = nil
	o.c.Tick(1000 + 2*stallAfter + 1000)
	require.Equal(t, []string{""}, o.waiting)

	few := newOffice(t, CoordinatorOptions{Interval: 1000})
	few.c.Tick(1000)
	few.fail(1, ErrKilled)
	few.c.Tick(1000 + stallAfter)
	few.fail(1, ErrKilled)
	few.c.Tick(1000 + stallAfter + 100)
	require.NotContains(t, few.waiting, stalled10)
}

// A reason that names a task is worth more than the stall, which is said when that is over.
func TestStallDoesNotHideMore(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{Interval: 1000})
	o.failing(1000, 2000, false)
	o.c.waiting("task 7 waits")
	o.waiting = nil
	for now := int64(2000); now < 2000+stallAfter; now += 100 {
		o.c.stall.failed(now)
		o.c.Tick(now)
	}
	require.Empty(t, o.waiting)
	o.c.waiting("")
	require.Equal(t, []string{stalled10}, o.waiting)
}

// The gap between failures is not that since the Unix epoch: neither the first places of tasks nor what is found dead at the start
// are failures.
func TestFirstPlacesAreNoFailures(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{Interval: 1000})
	o.fail(2, ErrKilled) // before the first tick
	const now = 1_700_000_000_000
	o.c.Tick(now)
	require.Zero(t, o.c.pace.failures)
	o.failing(now+100, now+400, true)
	require.Equal(t, 3, o.c.pace.failures)
	require.InDelta(t, 100, o.c.pace.gap, 1)
}

package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// cannotStore makes a worker report that it could not store the image of a task of epoch e.
func (o *office) cannotStore(t determinant.TaskID, w determinant.WorkerID, e determinant.Epoch) {
	o.t.Helper()
	o.c.Report(Report{AckFailed: &checkpoint.Failed{Task: t, Incarnation: o.place(t).Incarnation, Epoch: e, Worker: w, Err: "no space"}})
	o.commit()
}

// What a worker repeats when it registers again is neither a further failure nor a sign that its disk has room.
func TestRepeatedReportsOfImages(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{Standbys: 1})
	keeper := o.place(0).Standbys[0]
	for range maxUnstored {
		o.cannotStore(0, keeper, 5)
	}
	require.True(t, o.c.stores(keeper, 0), "one epoch counts once")
	o.cannotStore(0, keeper, 6)
	o.ack(0, keeper, 4)
	o.ack(0, keeper, 6)
	o.cannotStore(0, keeper, 7)
	require.False(t, o.c.stores(keeper, 0), "old images do not begin the count anew")
	require.Len(t, o.place(0).Standbys, 2)
	o.ack(0, keeper, 4)
	require.False(t, o.c.stores(keeper, 0), "an old image is no sign of room")
	require.False(t, o.c.decider.Keeps(keeper, 0))
	require.Len(t, o.c.Unstored(), 1)

	o.ack(0, keeper, 8)
	require.True(t, o.c.stores(keeper, 0), "a new one is")
	require.True(t, o.c.decider.Keeps(keeper, 0))
	for e := determinant.Epoch(5); e <= 8; e++ {
		o.cannotStore(0, keeper, e)
	}
	require.True(t, o.c.stores(keeper, 0), "what it could not store before that is over")
}

// A worker that is not standby of the task any more counts as one that can store its images: it has none to show it with.
func TestAFormerStandbyIsForgotten(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{Standbys: 1})
	p := o.place(0)
	keeper := p.Standbys[0]
	for e := range determinant.Epoch(maxUnstored) {
		o.cannotStore(0, keeper, e+1)
	}
	require.Len(t, o.place(0).Standbys, 2, "another is beside it")
	require.False(t, o.c.decider.Keeps(keeper, 0))
	o.c.Committed(Entry{Release: &standby.ReleaseStandby{Task: 0, Incarnation: p.Incarnation, Worker: keeper}})
	o.commit()
	require.NotContains(t, o.place(0).Standbys, keeper)
	require.Empty(t, o.c.unstored)
	require.True(t, o.c.decider.Keeps(keeper, 0))

	for e := range determinant.Epoch(maxUnstored) {
		o.cannotStore(0, keeper, e+10)
	}
	require.Empty(t, o.c.unstored, "it says so too late")
	require.True(t, o.c.decider.Keeps(keeper, 0))
}

// A new leader begins to count anew, as its decider does.
func TestANewLeaderCountsImagesAnew(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{Standbys: 1})
	keeper := o.place(0).Standbys[0]
	for e := range determinant.Epoch(maxUnstored) {
		o.cannotStore(0, keeper, e+1)
	}
	o.c.Lead()
	o.commit()
	require.True(t, o.c.stores(keeper, 0))
	require.True(t, o.c.decider.Keeps(keeper, 0))
}

func notKept(task determinant.TaskID, e determinant.Epoch, err string) *Report {
	return &Report{AckFailed: &checkpoint.Failed{Task: task, Epoch: e, Err: err}}
}

func keptNow(task determinant.TaskID, e determinant.Epoch) *Report {
	return &Report{Ack: &checkpoint.Ack{Task: task, Epoch: e}}
}

// A worker process says itself that its disk is full, once for each task.
func TestAFullDiskIsNoted(t *testing.T) {
	var d fullDisk
	require.Empty(t, d.why())
	require.True(t, d.note(notKept(2, 3, "no space")))
	require.False(t, d.note(notKept(2, 4, "no space")))
	require.True(t, d.note(notKept(1, 4, "too small")))
	require.Equal(t, "checkpoints of 2 tasks cannot be stored: too small", d.why())
	require.False(t, d.note(keptNow(1, 5)))
	require.Equal(t, "checkpoints of 1 tasks cannot be stored: no space", d.why())
	require.False(t, d.note(keptNow(2, 2)))
	require.False(t, d.note(notKept(2, 3, "no space")))
	require.False(t, d.note(keptNow(2, 4)))
	require.NotEmpty(t, d.why(), "what is repeated is no sign of room")
	require.False(t, d.note(keptNow(2, 5)))
	require.Empty(t, d.why())
	require.True(t, d.note(notKept(2, 6, "no space")), "it fills up again")
	d.keepOnly(func(task determinant.TaskID) bool { return task == 2 })
	require.NotEmpty(t, d.why())
	d.keepOnly(func(task determinant.TaskID) bool { return task != 2 })
	require.Empty(t, d.why(), "the task is elsewhere")
}

// A worker repeats the newest image that it keeps, and what it could not keep only if that is newer.
func TestAWorkerRepeatsTheNewestImages(t *testing.T) {
	var l lastWords
	l.stored(keptNow(0, 4).Ack)
	l.stored(keptNow(0, 3).Ack)
	require.Equal(t, determinant.Epoch(4), l.kept.Epoch)
	l.unkept = notKept(0, 5, "no space").AckFailed
	l.stored(keptNow(0, 4).Ack)
	require.NotNil(t, l.unkept)
	l.stored(keptNow(0, 6).Ack)
	require.Nil(t, l.unkept)
	require.Equal(t, determinant.Epoch(6), l.kept.Epoch)
}

// A standby that was released says nothing of an image that it cannot keep; one that is in place does.
func TestAReleasedStandbyIsSilent(t *testing.T) {
	job := small(t)
	b := newBench(t, job, 2, determinant.ExactlyOnce)
	b.w.mu.view.Places[0] = standby.Placement{Task: 0, Worker: 1, Standbys: []determinant.WorkerID{2}, Incarnation: 1}
	broken := &Image{Task: 0, Bytes: []byte("no image")}
	b.w.keep(1, broken)
	require.True(t, b.w.has(0))
	require.Len(t, b.reports, 1)
	require.NotNil(t, b.reports[0].AckFailed)
	b.w.mu.view.Places[0].Standbys = nil
	b.w.keep(1, broken)
	require.False(t, b.w.has(0))
	require.Len(t, b.reports, 1)
}

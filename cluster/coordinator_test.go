package cluster

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

// office is a coordinator with a ledger that commits when the test says so, and an environment that keeps what it is told.
type office struct {
	t        *testing.T
	job      *Job
	c        *Coordinator
	proposed []Entry
	told     []Entry // broadcast to workers
	tells    []Control
	finished []error
	waiting  []string
	asked    [][]string // for new splits: what was known
	heard    []string   // entry or control, in order
}

func (o *office) Discover(_ int, known []string) { o.asked = append(o.asked, known) }
func (o *office) Propose(e Entry)                { o.proposed = append(o.proposed, e) }
func (o *office) Broadcast(e Entry) {
	o.told, o.heard = append(o.told, e), append(o.heard, "entry")
}

func (o *office) Tell(_ determinant.WorkerID, m Control) {
	o.tells, o.heard = append(o.tells, m), append(o.heard, "control")
}

func (o *office) Finished(err error)                           { o.finished = append(o.finished, err) }
func (o *office) Waiting(why string)                           { o.waiting = append(o.waiting, why) }
func (o *office) place(t determinant.TaskID) standby.Placement { return o.c.view.Places[t] }

// newOffice deploys the small job on three workers: 0 and 1 are its sources, 2 and 3 its sinks.
func newOffice(t *testing.T, opts CoordinatorOptions) *office {
	o := &office{t: t, job: small(t)}
	if opts.Depth == 0 {
		opts.Depth = determinant.Full
	}
	splits := make([][]string, len(o.job.Plan.Vertices))
	v := NewView(o.job, splits, opts.Mode, opts.Depth)
	o.c = NewCoordinator(o.job, v, standby.State{Mode: opts.Mode, Depth: opts.Depth},
		checkpoint.NewState(len(o.job.Tasks), opts.Mode, opts.Depth), o, o, opts)
	o.c.Lead()
	for w := range determinant.WorkerID(3) {
		o.c.Join(w+1, nil)
	}
	o.c.Deploy()
	o.commit()
	for i := range o.job.Tasks {
		require.NotZero(t, o.place(determinant.TaskID(i)).Worker)
		require.Len(t, o.place(determinant.TaskID(i)).Standbys, 1)
		o.hold(determinant.TaskID(i), 0)
	}
	return o
}

// hold makes the standbys of a task report that they hold its state at epoch e.
func (o *office) hold(t determinant.TaskID, e determinant.Epoch) {
	for _, w := range o.place(t).Standbys {
		o.c.Report(Report{Holding: &standby.Holding{Worker: w, Task: t, Epoch: e}})
	}
	o.commit()
}

// commit commits what was proposed until nothing more is.
func (o *office) commit() {
	o.t.Helper()
	for n := 0; len(o.proposed) > 0; n++ {
		require.Less(o.t, n, 1000, "proposals do not end")
		e := o.proposed[0]
		o.proposed = o.proposed[1:]
		o.c.Committed(e)
	}
}

func (o *office) fail(t determinant.TaskID, err error) {
	o.t.Helper()
	p := o.place(t)
	o.c.Report(Report{Failed: &TaskFailure{Task: t, Incarnation: p.Incarnation, Worker: p.Worker, Err: err}})
	o.commit()
}

// catchUp ends the recovery of every task.
func (o *office) catchUp() {
	o.t.Helper()
	for _, p := range o.c.view.Places {
		if p.Recovering {
			o.c.Report(Report{CaughtUp: &standby.CaughtUp{Task: p.Task, Incarnation: p.Incarnation}})
		}
	}
	o.commit()
	for _, p := range o.c.view.Places {
		require.False(o.t, p.Recovering, "%v", p)
	}
}

func (o *office) ack(t determinant.TaskID, w determinant.WorkerID, e determinant.Epoch) {
	p := o.place(t)
	o.c.Report(Report{Ack: &checkpoint.Ack{
		Task: t, Incarnation: p.Incarnation, Epoch: e, Worker: w, Primary: w == p.Worker, Log: determinant.LogOffset(e) * 10,
	}})
	o.commit()
}

// checkpoint completes checkpoint e.
func (o *office) checkpoint(e determinant.Epoch) {
	o.t.Helper()
	o.c.Report(Report{Checkpoint: true})
	o.c.Tick(int64(e) * 1000)
	o.commit()
	for t, p := range o.c.view.Places {
		for _, w := range append([]determinant.WorkerID{p.Worker}, p.Standbys...) {
			o.ack(determinant.TaskID(t), w, e)
		}
	}
	require.Equal(o.t, e, o.c.view.committed())
}

func poison(seq determinant.Seq) error {
	return &task.Poison{Task: 2, Operator: "f", Position: task.Position{Seq: seq}, Known: true, Err: errors.New("bad record")}
}

func (o *office) asides() (list []Aside) {
	for _, e := range o.told {
		if e.Aside != nil {
			list = append(list, *e.Aside)
		}
	}
	return list
}

// Section 12: after n identical failures at the same position the job stops with the error, by default.
func TestARecordThatFailsTooOftenStopsTheJob(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{PoisonTries: 3})
	for range 2 {
		o.fail(2, poison(7))
		o.catchUp()
	}
	require.Empty(t, o.finished)
	o.fail(2, poison(7))
	require.Len(t, o.finished, 1)
	require.ErrorContains(t, o.finished[0], "user code failed 3 times at the same place")
	require.ErrorContains(t, o.finished[0], "bad record")
	require.Empty(t, o.asides())
}

func TestARecordThatFailsTooOftenIsSetAsideIfThePolicySaysSo(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{PoisonTries: 2, SetAside: true})
	for _, seq := range []determinant.Seq{7, 9} {
		for range 2 {
			o.fail(2, poison(seq))
			o.catchUp()
		}
	}
	require.Empty(t, o.finished)
	require.Len(t, o.asides(), 2)
	require.Equal(t, determinant.Seq(7), o.asides()[0].Position.Seq)
	require.Len(t, o.c.view.asides(2), 2, "the next life is told of both")
	require.Empty(t, o.c.view.asides(3))
	aside := slices.IndexFunc(o.told, func(e Entry) bool { return e.Aside != nil })
	require.NotNil(t, o.told[aside+1].Decision, "workers know of it before they start the next life")

	o.fail(2, poison(9))
	o.fail(2, poison(9))
	require.Len(t, o.finished, 1, "a record that cannot be set aside stops the job after all")
}

// Failures at different places do not add up.
func TestFailuresOnDifferentRecordsDoNotAddUp(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{PoisonTries: 2})
	for seq := range determinant.Seq(10) {
		o.fail(2, poison(seq))
		o.catchUp()
	}
	require.Empty(t, o.finished)
}

// What belongs to no record cannot be set aside.
func TestAFailureThatBelongsToNoRecordStopsTheJob(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{PoisonTries: 2, SetAside: true})
	for range 2 {
		o.fail(2, &task.Poison{Task: 2, Operator: "f", Err: errors.New("bad timer")})
	}
	require.Len(t, o.finished, 1)
	require.ErrorContains(t, o.finished[0], "bad timer")
}

func TestFailuresWithoutACheckpointBetweenAreBounded(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	for range maxFailures - 1 {
		o.fail(2, errors.New("connection refused"))
		o.catchUp()
	}
	require.Empty(t, o.finished)
	o.fail(2, errors.New("connection refused"))
	require.Len(t, o.finished, 1)
	require.ErrorContains(t, o.finished[0], "connection refused")
}

func TestACheckpointBetweenFailuresForgivesThem(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	for e := range determinant.Epoch(3) {
		for range maxFailures - 1 {
			o.fail(2, errors.New("connection refused"))
			o.catchUp()
		}
		o.checkpoint(e + 1)
	}
	require.Empty(t, o.finished)
}

// Deaths are not the task's fault, however many.
func TestDeathsDoNotCountAsFailures(t *testing.T) {
	for _, cause := range []error{ErrKilled, task.ErrReopened} {
		o := newOffice(t, CoordinatorOptions{})
		for range 3 * maxFailures {
			o.fail(2, fmt.Errorf("%w: chaos", cause))
			o.catchUp()
		}
		require.Empty(t, o.finished)
	}
}

func TestWhatNoOtherTryCanMendStopsAtOnce(t *testing.T) {
	for _, cause := range []error{task.ErrUnskippable, operator.ErrPermanent} {
		o := newOffice(t, CoordinatorOptions{SetAside: true})
		o.fail(2, fmt.Errorf("%w: no", cause))
		require.Len(t, o.finished, 1)
		require.ErrorContains(t, o.finished[0], "no")
	}
}

// Section 7: a divergence rolls back once, and stops the job the second time.
func TestADivergenceRollsBackOnceAndThenStops(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	o.checkpoint(1)
	o.fail(2, &causal.Divergence{Task: 2, Expected: "time", Got: "random"})
	require.Empty(t, o.finished)
	require.Equal(t, determinant.Generation(1), o.c.view.Generation)
	last := o.told[len(o.told)-1]
	for i := len(o.told) - 1; last.Decision == nil; i-- {
		last = o.told[i]
	}
	require.True(t, last.Decision.Rollback)
	require.Equal(t, determinant.Epoch(1), last.Decision.RollbackTo)
	o.fail(3, &causal.Divergence{Task: 3, Expected: "time", Got: "random"})
	require.Len(t, o.finished, 1)
	require.ErrorContains(t, o.finished[0], "not deterministic")
}

// What a dead life, or another worker, says changes nothing.
func TestStaleReportsAreIgnored(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{PoisonTries: 1})
	o.fail(2, ErrKilled)
	p := o.place(2)
	require.Equal(t, determinant.Incarnation(2), p.Incarnation)
	told := len(o.told)
	stale := []TaskFailure{
		{Task: 2, Incarnation: 1, Worker: p.Worker, Err: poison(1)},
		{Task: 2, Incarnation: 3, Worker: p.Worker, Err: poison(1)},
		{Task: 2, Incarnation: 2, Worker: p.Worker%3 + 1, Err: poison(1)},
	}
	for _, f := range stale {
		o.c.Report(Report{Failed: &f})
	}
	o.c.Report(Report{CaughtUp: &standby.CaughtUp{Task: 2, Incarnation: 1}})
	o.c.Report(Report{Rollback: &standby.RollbackWanted{Task: 2, Incarnation: 1, Cause: "orphan"}})
	o.commit()
	require.Len(t, o.told, told)
	require.Empty(t, o.finished)
	require.True(t, o.place(2).Recovering)
}

func TestARollbackThatIsAskedForTwiceHappensOnce(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	want := &standby.RollbackWanted{Task: 2, Incarnation: 1, Cause: "checksum"}
	o.c.Report(Report{Rollback: want})
	o.c.Report(Report{Rollback: want})
	o.commit()
	o.c.Report(Report{Rollback: want})
	o.commit()
	require.Equal(t, determinant.Generation(1), o.c.view.Generation)
}

// An acknowledgement of a life that died since is void.
func TestOldAcknowledgementsAreVoid(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	o.c.Report(Report{Checkpoint: true})
	o.c.Tick(1000)
	o.commit()
	for _, id := range []determinant.TaskID{0, 1, 2} {
		for _, w := range append([]determinant.WorkerID{o.place(id).Worker}, o.place(id).Standbys...) {
			o.ack(id, w, 1)
		}
	}
	o.ack(3, o.place(3).Worker, 1) // the checkpoint holds up nobody: it goes on
	o.fail(2, ErrKilled)
	o.catchUp()
	for _, w := range o.place(3).Standbys {
		o.ack(3, w, 1)
	}
	require.Zero(t, o.c.view.committed(), "task 2 has to acknowledge again")
	for _, w := range append([]determinant.WorkerID{o.place(2).Worker}, o.place(2).Standbys...) {
		o.ack(2, w, 1)
	}
	require.Equal(t, determinant.Epoch(1), o.c.view.committed())
	require.Equal(t, determinant.Incarnation(2), o.c.view.Complete.Tasks[2].Incarnation)
}

// A standby's word is waited for only when it holds the committed state: a new one that is still fetching it must not stop
// checkpoints.
func TestStandbysCountOnlyWhenTheyHoldTheCommittedState(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	o.checkpoint(1)
	o.fail(2, ErrKilled) // the standby takes over; the third worker becomes the standby
	o.catchUp()
	p := o.place(2)
	require.Len(t, p.Standbys, 1)
	holders := o.c.view.Complete.Tasks[2].Holders
	require.Contains(t, holders, p.Worker)
	require.NotContains(t, holders, p.Standbys[0], "the third worker never had it")
	standby2 := p.Standbys[0]

	o.c.Report(Report{Checkpoint: true})
	o.c.Tick(5000)
	o.commit()
	for id, place := range o.c.view.Places {
		o.ack(determinant.TaskID(id), place.Worker, 2)
		if id != 2 {
			for _, w := range place.Standbys {
				o.ack(determinant.TaskID(id), w, 2)
			}
		}
	}
	require.Equal(t, determinant.Epoch(2), o.c.view.committed(), "nobody waits for worker %d, which holds nothing", standby2)

	o.c.Report(Report{Holding: &standby.Holding{Worker: standby2, Task: 2, Epoch: 2}})
	o.commit()
	o.catchUp() // a task has moved for balance
	o.c.Report(Report{Checkpoint: true})
	o.c.Tick(9000)
	o.commit()
	for id, place := range o.c.view.Places {
		for _, w := range append([]determinant.WorkerID{place.Worker}, place.Standbys...) {
			if id != 2 || w != standby2 {
				o.ack(determinant.TaskID(id), w, 3)
			}
		}
	}
	require.Equal(t, determinant.Epoch(2), o.c.view.committed(), "now it is waited for")
	o.ack(2, standby2, 3)
	require.Equal(t, determinant.Epoch(3), o.c.view.committed())
}

// What comes after the end of the job changes nothing.
func TestNothingHappensAfterTheEnd(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{PoisonTries: 1})
	o.fail(2, poison(1))
	require.Len(t, o.finished, 1)
	told := len(o.told)
	o.fail(3, poison(1))
	o.c.Dead(1, 2, 3)
	o.commit()
	require.Len(t, o.finished, 1)
	require.Len(t, o.told, told)
}

// Entries that took effect are numbered without a gap, and a worker that joins gets those after its view.
func TestEntriesThatTookEffectAreNumbered(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{})
	o.checkpoint(1)
	o.fail(2, ErrKilled)
	late := deployment(o.job, standby.State{}) // of a former leader: its basis is gone
	before := o.c.View()
	o.c.Committed(late)
	o.c.Committed(start(1))
	require.Equal(t, before, o.c.View(), "what came too late is not passed on")
	for i, e := range o.told {
		require.EqualValues(t, i+1, e.Index)
	}
	require.EqualValues(t, len(o.told), before.Index)
}

// A follower that gets the same entries has the same state.
func TestAFollowerHasTheSameState(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{PoisonTries: 1, SetAside: true})
	follower := followerOf(o.job)
	o.checkpoint(1)
	o.fail(2, poison(1))
	o.catchUp()
	o.c.Dead(2)
	o.commit()
	for _, e := range o.told {
		e.Index = 0
		follower.Committed(e)
	}
	require.Equal(t, o.c.View(), follower.View())
	require.Equal(t, o.c.decider.State(), follower.decider.State())
	require.Equal(t, o.c.points.State(), follower.points.State())
}

func followerOf(job *Job) *Coordinator {
	v := NewView(job, make([][]string, len(job.Plan.Vertices)), determinant.ExactlyOnce, determinant.Full)
	return NewCoordinator(job, v, standby.State{Depth: determinant.Full}, checkpoint.NewState(len(job.Tasks), determinant.ExactlyOnce, determinant.Full),
		&localLedger{}, nowhere{}, CoordinatorOptions{Depth: determinant.Full})
}

// A standby that cannot store images of one task is not counted on for that task, whatever else it stores: its disk may have room for the
// smaller ones only.
func TestAStandbyThatCannotStoreOneTask(t *testing.T) {
	o := newOffice(t, CoordinatorOptions{Standbys: 1})
	p := o.place(0)
	keeper := p.Standbys[0]
	last := determinant.Epoch(0)
	for e := determinant.Epoch(1); e <= maxUnstored; e++ {
		o.c.Report(Report{Checkpoint: true})
		o.commit()
		for id := range o.job.Tasks {
			task := determinant.TaskID(id)
			place := o.place(task)
			o.ack(task, place.Worker, e)
			for _, w := range place.Standbys {
				if task != p.Task {
					o.ack(task, w, e)
				}
			}
		}
		require.Equal(t, last, o.c.view.committed(), "it is counted on")
		o.c.Report(Report{AckFailed: &checkpoint.Failed{Task: p.Task, Incarnation: p.Incarnation, Epoch: e, Worker: keeper, Err: "no space"}})
		o.commit()
	}
	require.Equal(t, determinant.Epoch(maxUnstored), o.c.view.committed(), "at last it goes on without that standby")
	require.NotContains(t, o.c.view.Complete.Tasks[p.Task].Holders, keeper)
	require.Len(t, o.place(p.Task).Standbys, 2, "another is put beside it")
	require.Equal(t, []string{fmt.Sprintf("worker %d cannot store checkpoints of %s, and does not count as its standby: no space",
		keeper, nameOf(o.job, p.Task))}, o.c.Unstored())

	said := len(o.waiting)
	o.c.Report(Report{AckFailed: &checkpoint.Failed{Task: p.Task, Incarnation: p.Incarnation, Epoch: maxUnstored + 1, Worker: keeper, Err: "no space"}})
	require.Len(t, o.waiting, said, "it is said once, and listed from then on")
	o.ack(p.Task, keeper, maxUnstored)
	require.Len(t, o.c.Unstored(), 1, "it repeats what it said of an older image")
	o.ack(p.Task, keeper, maxUnstored+1)
	require.Empty(t, o.c.Unstored(), "it can again")
}

// A worker process says itself that its disk is full, once for each task.
func TestAFullDiskIsNoted(t *testing.T) {
	var d fullDisk
	failed := func(task determinant.TaskID, err string) *Report {
		return &Report{AckFailed: &checkpoint.Failed{Task: task, Epoch: 7, Err: err}}
	}
	require.Empty(t, d.why())
	require.True(t, d.note(failed(2, "no space")))
	require.False(t, d.note(failed(2, "no space")))
	require.True(t, d.note(failed(1, "too small")))
	require.Equal(t, "checkpoints of 2 tasks cannot be stored: too small", d.why())
	require.False(t, d.note(&Report{Ack: &checkpoint.Ack{Task: 1, Epoch: 6}}))
	require.Equal(t, "checkpoints of 2 tasks cannot be stored: too small", d.why(), "that image is older")
	require.False(t, d.note(&Report{Ack: &checkpoint.Ack{Task: 1, Epoch: 7}}))
	require.Equal(t, "checkpoints of 1 tasks cannot be stored: no space", d.why())
	require.False(t, d.note(&Report{Ack: &checkpoint.Ack{Task: 2, Epoch: 8}}))
	require.Empty(t, d.why())
	require.True(t, d.note(failed(2, "no space")), "it fills up again")
}

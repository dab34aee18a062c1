package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// budding is an office whose source grows: it had splits 0 and 1 when the job began.
func budding(t *testing.T) *office {
	v := &valve{n: 10, every: time.Second}
	job, err := Layout(drawnPlan(t, v, t.TempDir()))
	require.NoError(t, err)
	splits := make([][]string, len(job.Plan.Vertices))
	splits[0] = []string{"0", "1"}
	o := &office{t: t, job: job}
	o.c = NewCoordinator(job, NewView(job, splits, determinant.ExactlyOnce, determinant.Full),
		standby.State{Depth: determinant.Full}, checkpoint.NewState(len(job.Tasks), determinant.ExactlyOnce, determinant.Full), o, o, CoordinatorOptions{})
	o.c.Lead()
	for w := range determinant.WorkerID(3) {
		o.c.Join(w+1, nil)
	}
	o.c.Deploy()
	o.commit()
	for task := range job.Tasks {
		o.hold(determinant.TaskID(task), 0)
	}
	return o
}

// growths are the entries of new splits that took effect.
func (o *office) growths() (list []Grow) {
	for _, e := range o.told {
		if e.Grow != nil {
			list = append(list, *e.Grow)
		}
	}
	return list
}

// Splits that are found come into force with the next checkpoint, which is taken for them.
func TestNewSplitsAreReadFromTheNextEpochOn(t *testing.T) {
	o := budding(t)
	o.c.Tick(1000)
	require.Empty(t, o.asked, "an interval must pass first")
	o.c.Tick(2000)
	o.c.Tick(9000)
	require.Equal(t, [][]string{{"0", "1"}}, o.asked, "one question at a time")
	o.c.Discovered(0, Discovery{Known: 2, Splits: []string{"7", "1", "3", "7"}})
	o.commit()
	require.Equal(t, []Grow{{Vertex: 0, Known: 2, Splits: []string{"7", "3"}, From: 2}}, o.growths())
	require.Equal(t, []string{"0", "1", "7", "3"}, o.c.view.Splits[0])
	o.c.Tick(60_000)
	require.Len(t, o.asked, 1, "the last ones are not in force yet")
	o.commit()
	require.EqualValues(t, 1, o.c.view.newest(), "a checkpoint is started for them")
	o.checkpoint(1)
	require.Equal(t, []Stage{{From: 2, Count: 4}}, o.c.view.Stages[0], "nobody goes back before it")
	o.c.Tick(70_000)
	require.Len(t, o.asked, 2)
	o.c.Discovered(0, Discovery{Known: 4, Splits: []string{"3"}})
	o.commit()
	require.Len(t, o.growths(), 1, "nothing new")
}

// What two leaders found counts once, what one found too late not at all, and after the last nothing.
func TestSplitsAreTakenInOnce(t *testing.T) {
	o := budding(t)
	two := Entry{Grow: &Grow{Vertex: 0, Known: 2, Splits: []string{"2", "3"}}}
	for _, e := range []Entry{
		two, two,
		{Grow: &Grow{Vertex: 0, Known: 2, Splits: []string{"4"}}},
		{Grow: &Grow{Vertex: 0, Known: 4, Splits: []string{"4", "4"}}},
		{Grow: &Grow{Vertex: 0, Known: 4, Splits: []string{"1"}}},
		{Grow: &Grow{Vertex: 0, Known: 4}},
		{Grow: &Grow{Vertex: 1, Splits: []string{"2"}}},
		{Grow: &Grow{Vertex: 99, Splits: []string{"2"}}},
		{Grow: &Grow{Vertex: 0, Known: 4, Splits: []string{"4"}, Final: true}},
		{Grow: &Grow{Vertex: 0, Known: 5, Splits: []string{"5"}}},
		{Grow: &Grow{Vertex: 0, Known: 5, Final: true}},
	} {
		o.c.Committed(e)
	}
	require.Equal(t, []string{"0", "1", "2", "3", "4"}, o.c.view.Splits[0])
	require.Len(t, o.growths(), 2)
	require.False(t, o.c.view.grows(0))
	o.c.Tick(1000)
	o.c.Tick(100_000)
	require.Empty(t, o.asked, "nothing more comes")
}

// A rollback goes back to before the splits, and they come into force where they would have.
func TestARollbackKeepsSplitsForTheirEpoch(t *testing.T) {
	o := budding(t)
	o.checkpoint(1)
	o.c.Report(Report{Checkpoint: true})
	o.commit()
	o.c.Committed(Entry{Grow: &Grow{Vertex: 0, Known: 2, Splits: []string{"2", "3"}}})
	spec := &o.job.Tasks[1]
	before := o.c.view.splitsOf(o.job, spec)
	require.EqualValues(t, 4, before.List[1].From, "checkpoint 2 is under way, and opens epoch 3")
	o.c.Report(Report{Rollback: &standby.RollbackWanted{Task: 2, Incarnation: o.place(2).Incarnation, Cause: "test"}})
	o.commit()
	require.EqualValues(t, 1, o.c.view.Generation)
	require.Equal(t, before, o.c.view.splitsOf(o.job, spec))
	require.Zero(t, before.Final)
}

// A listing that fails is shown until one succeeds, and the job goes on. What another leader was asked is nothing to this one.
func TestAListingThatFailsIsShown(t *testing.T) {
	o := budding(t)
	o.c.Discovered(0, Discovery{Known: 2, Splits: []string{"2"}})
	require.Empty(t, o.proposed)
	o.c.Tick(1000)
	o.c.Tick(2000)
	o.c.Discovered(0, Discovery{Known: 2, Err: errors.New("no broker")})
	require.Empty(t, o.proposed)
	require.Contains(t, strings.Join(o.c.Undiscovered(), ""), "no broker")
	o.c.Tick(2500)
	require.Len(t, o.asked, 1)
	o.c.Tick(3000)
	require.Len(t, o.asked, 2)
	o.c.Tick(3000 + 2*discoveryTimeout.Milliseconds() + 1)
	require.Contains(t, strings.Join(o.c.Undiscovered(), ""), "has not answered for 60 s")
	o.c.Discovered(0, Discovery{Known: 2})
	require.Empty(t, o.c.Undiscovered())
}

// An entry has room for so much; the rest comes behind it.
func TestManySplitsComeOneEntryAfterTheOther(t *testing.T) {
	o := budding(t)
	var found []string
	for i := range 5 {
		found = append(found, fmt.Sprint(i)+strings.Repeat("x", maxGrowth/2-1))
	}
	for now := int64(1000); len(o.growths()) < 3; now += 1000 {
		require.Less(t, now, int64(60_000))
		asked := len(o.asked)
		o.c.Tick(now)
		if len(o.asked) > asked {
			o.c.Discovered(0, Discovery{Known: len(o.asked[asked]), Splits: found, All: true})
		}
		o.commit()
		if s := o.c.points.State(); s.Open {
			o.checkpoint(s.Started())
		}
	}
	require.Equal(t, append([]string{"0", "1"}, found...), o.c.view.Splits[0])
	for i, g := range o.growths() {
		require.Equal(t, i == 2, g.Final)
	}
}

// A job that is started again with a source that does not grow any more ends as one of that kind does.
func TestASourceStopsGrowing(t *testing.T) {
	o := budding(t)
	o.job.Plan.Vertices[0].Growing = nil
	o.c.Tick(1000)
	o.c.Tick(1001)
	require.Len(t, o.proposed, 1)
	o.commit()
	require.False(t, o.c.view.grows(0))
	require.EqualValues(t, 2, o.c.view.splitsOf(o.job, &o.job.Tasks[0]).Final)
}

// The ledger has the splits in its entries, in a compacted file, and in a snapshot.
func TestSplitsAreInTheLedger(t *testing.T) {
	v := &valve{n: 10, every: time.Second}
	job, err := Layout(drawnPlan(t, v, t.TempDir()))
	require.NoError(t, err)
	fs := checkpoint.MemoryFS()
	f := openFollow(t, fs, job)
	f.commit(t, deployment(job, f.c.decider.State()), Entry{Grow: &Grow{Vertex: 0, Known: 2, Splits: []string{"2", "3"}}})
	want := f.now().View
	require.Equal(t, [][]Stage{{{From: 1, Count: 2}, {From: 2, Count: 4}}, nil, nil}[:1], want.Stages[:1])
	for range 2 { // the first opening compacts
		require.NoError(t, f.close())
		f = openFollow(t, fs, job)
		require.Equal(t, want.Splits, f.now().View.Splits)
		require.Equal(t, want.Stages, f.now().View.Stages)
	}
	require.NoError(t, f.close())

	from := replica{job: job, world: nowhere{}, prop: f, begun: func(*ledgerState) {}}
	s := newLedgerState(job, "run", [][]string{{"0", "1"}, nil, nil}, determinant.ExactlyOnce, determinant.Full)
	for _, c := range []command{{Begin: &s}, {Entry: &Entry{Grow: &Grow{Vertex: 0, Known: 2, Splits: []string{"2"}}}}} {
		require.NoError(t, from.apply(encode(&c)))
	}
	image, err := from.snapshot()
	require.NoError(t, err)
	to := replica{job: job, world: nowhere{}, prop: f, begun: func(*ledgerState) {}}
	require.NoError(t, to.restore(image))
	require.Equal(t, []string{"0", "1", "2"}, to.coord.view.Splits[0])
	require.Equal(t, []Stage{{From: 1, Count: 2}, {From: 2, Count: 3}}, to.coord.view.Stages[0])
}

// Splits come while tasks and workers are killed. Everything is read once, in every mode that promises it.
func TestSplitsComeWhileTasksDie(t *testing.T) {
	for name, mode := range map[string]determinant.Mode{"exactly once": eo, "rollback": back} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t)
			v, out := &valve{n: 1500, every: 3 * time.Millisecond}, filepath.Join(t.TempDir(), "out")
			_, err := drawnRun(context.Background(), t, v, out, LocalOptions{Mode: mode, CheckpointInterval: 20 * time.Millisecond}, func(k *killer) {
				for i := range 5 {
					k.valve.grow(1)
					if i%2 == 0 {
						k.killWorkers(i % 3)
					}
					k.advance(150)
					k.kill(sources+determinant.TaskID(i%2), summers)
					k.until("its splits", func() (found bool) {
						k.on(func(c *Coordinator) { found = len(c.view.Splits[0]) == 3+i })
						return found
					})
				}
				k.valve.last()
				k.kill(sources, sources+1)
				v.open(v.n)
			})
			require.NoError(t, err)
			requireExact(t, out, 7*1500)
		})
	}
}

// A job whose process dies as a whole has the splits that were added before, and finds those that were added meanwhile.
func TestSplitsOutliveTheProcess(t *testing.T) {
	v, dir := &valve{n: 900, every: 3 * time.Millisecond}, t.TempDir()
	out := filepath.Join(dir, "out")
	for run := range 3 {
		ctx, stop := context.WithCancel(context.Background())
		o := LocalOptions{StateDir: filepath.Join(dir, "state"), CheckpointInterval: 20 * time.Millisecond}
		_, err := drawnRun(ctx, t, v, out, o, func(k *killer) {
			k.moved = v.limit()
			if run == 2 {
				v.last()
				v.open(v.n)
				return
			}
			v.grow(1)
			k.until("a split", func() (found bool) {
				k.on(func(c *Coordinator) { found = len(c.view.Splits[0]) == 3+2*run })
				return found
			})
			k.advance(200)
			stop()
			v.grow(1)
		})
		stop()
		if run == 2 {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, context.Canceled)
		}
	}
	requireExact(t, out, 6*900)
}

// Splits come to a cluster whose processes die, the coordinator that leads among them.
func TestSplitsComeWhileProcessesDie(t *testing.T) {
	defer goleak.VerifyNone(t)
	c := newCell(t, 3, 3, 1500)
	c.valve.every = 10 * time.Millisecond
	c.start()
	c.valve.open(200)
	s := c.await("the first output", written(1))
	for i, kill := range []func(){
		func() { c.nodes[1].kill(); c.startWorker(1) },
		func() {
			for i, co := range s.Coordinators {
				if co.Leader {
					c.coords[i].kill()
					c.startCoordinator(i)
				}
			}
		},
		func() { c.stop(); c.start() },
	} {
		c.valve.grow(1)
		kill()
		kept := s.Summary.RecordsOut
		if i == 2 {
			kept = 0 // counted by the leader that died
		}
		c.valve.open(uint64(400 + 200*i))
		c.await("new output", func(s *Status) bool { return s.State == JobRunning && s.Summary.RecordsOut > kept })
		s = c.await("a checkpoint", func(s *Status) bool { return s.State == JobRunning && s.Checkpoint.Committed > 0 })
	}
	c.valve.breakListing(errors.New("the list is lost"))
	c.await("the reason", func(s *Status) bool { return strings.Contains(strings.Join(s.Waiting, ";"), "the list is lost") })
	c.valve.breakListing(nil)
	c.await("no reason", func(s *Status) bool { return !strings.Contains(strings.Join(s.Waiting, ";"), "the list is lost") })
	c.valve.last()
	c.valve.open(c.valve.n)
	s = c.finished()
	require.Zero(t, s.Generation, "rolled back")
	requireExact(t, c.out, 5*1500)
	c.stop()
}

// A source's worker hears that a checkpoint was started before it is told to pass its barrier: a trigger that comes before is dropped,
// and comes again only with the next tick.
func TestTriggersComeBehindTheStart(t *testing.T) {
	o := budding(t)
	o.heard = nil
	o.c.Report(Report{Checkpoint: true})
	o.commit()
	require.NotEmpty(t, o.heard)
	require.Equal(t, "entry", o.heard[0])
	require.Contains(t, o.heard, "control")
}

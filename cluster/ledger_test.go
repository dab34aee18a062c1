package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
)

func small(t testing.TB) *Job {
	plan, err := numbersJob(10, 0, blindSink{})
	require.NoError(t, err)
	job, err := Layout(plan)
	require.NoError(t, err)
	return job
}

// follow is a run that only follows its ledger: a coordinator that never leads.
type follow struct {
	*localLedger
	c *Coordinator
}

func openFollow(t testing.TB, fs checkpoint.FS, job *Job) *follow {
	l, err := openLedger(context.Background(), fs, "dir", job, determinant.ExactlyOnce, determinant.Full)
	require.NoError(t, err)
	f := &follow{localLedger: l}
	f.c = NewCoordinator(job, l.state.View, l.state.Recovery, l.state.Points, l, nowhere{}, CoordinatorOptions{Depth: determinant.Full})
	l.committed = f.c.Committed
	l.current = func() ledgerState {
		now := l.state
		now.View, now.Recovery, now.Points = f.c.View(), f.c.decider.State(), f.c.points.State()
		return now
	}
	return f
}

// commit makes entries durable in one flush, without what the coordinator proposes because of them.
func (f *follow) commit(t testing.TB, entries ...Entry) {
	for _, e := range entries {
		f.Propose(e)
	}
	f.committed = func(e Entry) {
		f.c.Committed(e)
		f.pending = nil
	}
	require.NoError(t, f.flush())
}

// now is the state that the coordinator has, without what differs from run to run.
func (f *follow) now() ledgerState {
	s := f.current()
	return s
}

// deployment places every task on worker 1 with a standby on 2.
func deployment(job *Job, s standby.State) Entry {
	d := standby.Decision{Round: s.Round + 1, Hear: []determinant.WorkerID{1, 2}, Collect: true, Depth: determinant.Full, Cause: "deploy",
		Basis: s.Version, Checkpoint: s.Checkpoint, Generation: s.Generation}
	for t := range job.Tasks {
		d.Tasks = append(d.Tasks, standby.Placement{Task: determinant.TaskID(t), Incarnation: 1, Worker: 1, Standbys: []determinant.WorkerID{2}})
	}
	return Entry{Decision: &d}
}

func completion(job *Job, e determinant.Epoch) Entry {
	c := checkpoint.Complete{Epoch: e}
	for t := range job.Tasks {
		s := checkpoint.TaskState{Task: determinant.TaskID(t), Incarnation: 1, Log: determinant.LogOffset(100*int(e) + t), Holders: []determinant.WorkerID{1, 2}}
		if job.Tasks[t].External {
			s.External = &determinant.Cursor{Next: determinant.Seq(10 * e), Epoch: e + 1}
		}
		c.Tasks = append(c.Tasks, s)
	}
	return Entry{Complete: &c}
}

func start(e determinant.Epoch) Entry {
	return Entry{Start: &checkpoint.Start{Epoch: e, Depth: determinant.Full}}
}

// Every entry comes back from the ledger as it was, nil and empty slices apart.
func TestEveryEntryRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := []Entry{
			{Decision: new(rapid.Make[standby.Decision]().Draw(t, "decision"))},
			{Assign: new(rapid.Make[standby.AssignStandby]().Draw(t, "assign"))},
			{Recover: new(rapid.Make[standby.Recovered]().Draw(t, "recovered"))},
			{Start: new(rapid.Make[checkpoint.Start]().Draw(t, "start"))},
			{Complete: new(rapid.Make[checkpoint.Complete]().Draw(t, "complete"))},
			{Abandon: new(rapid.Make[checkpoint.Abandon]().Draw(t, "abandon"))},
			{Aside: new(rapid.Make[Aside]().Draw(t, "aside"))},
			{Configure: new(rapid.Make[standby.EpochMode]().Draw(t, "configure"))},
			{Switch: new(rapid.Make[checkpoint.Switch]().Draw(t, "switch"))},
			{Finish: new(rapid.Make[Finish]().Draw(t, "finish"))},
			{},
		}
		var frame []byte
		for i := range entries {
			entries[i].Index = rapid.Uint64().Draw(t, "index")
			body, err := msgpack.Marshal(&entries[i])
			require.NoError(t, err)
			frame = append(frame, body...)
			require.NotEmpty(t, entries[i].String())
		}
		got, err := decodeEntries(frame)
		require.NoError(t, err)
		require.Equal(t, entries, got)
	})
}

func TestNilAndEmptyComeBackAsTheyWere(t *testing.T) {
	for _, list := range [][]determinant.WorkerID{nil, {}, {7}} {
		e := Entry{Decision: &standby.Decision{Dead: list, Tasks: []standby.Placement{{Standbys: list}}}}
		body, err := msgpack.Marshal(&e)
		require.NoError(t, err)
		got, err := decodeEntries(body)
		require.NoError(t, err)
		require.Equal(t, []Entry{e}, got)
	}
}

func TestTheStateRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.Make[ledgerState]().Draw(t, "state")
		s.Points.Mutations = 0 // of tests only
		body, err := msgpack.Marshal(&s)
		require.NoError(t, err)
		var got ledgerState
		require.NoError(t, msgpack.Unmarshal(body, &got))
		require.Equal(t, s, got)
	})
}

func TestAJobGoesOnFromItsLedger(t *testing.T) {
	fs, job := checkpoint.MemoryFS(), small(t)
	f := openFollow(t, fs, job)
	run := f.state.name()
	f.commit(t, deployment(job, f.c.decider.State()))
	f.commit(t, start(1), completion(job, 1), start(2))
	f.commit(t, Entry{Aside: &Aside{Task: 3}})
	want := f.now()
	require.EqualValues(t, 5, want.View.Index)
	require.NoError(t, f.close())

	f = openFollow(t, fs, job)
	require.Equal(t, run, f.state.name(), "it is the same run of the job")
	require.Equal(t, want, f.now())
	require.Equal(t, determinant.WorkerID(2), f.state.lastWorker(), "ids of workers are never used twice")
	require.Equal(t, determinant.Epoch(1), f.c.view.committed())
	require.NoError(t, f.close())
}

// fileOf reads the ledger's file.
func fileOf(t testing.TB, fs checkpoint.FS) []byte {
	file, err := fs.Open(fs.PathJoin("dir", ledgerName))
	require.NoError(t, err)
	raw, err := io.ReadAll(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	return raw
}

// holding gives a file system with a ledger of these bytes.
func holding(t testing.TB, raw []byte) checkpoint.FS {
	fs := checkpoint.MemoryFS()
	require.NoError(t, fs.MkdirAll("dir", 0o755))
	file, err := fs.Create(fs.PathJoin("dir", ledgerName), "ledger")
	require.NoError(t, err)
	_, err = file.Write(slices.Clone(raw)) // the file may do with it what it likes
	require.NoError(t, err)
	require.NoError(t, file.Close())
	return fs
}

// ledgerOfThree is a ledger with a state and two further frames, and where each ends.
func ledgerOfThree(t testing.TB, job *Job) (raw []byte, first, second int) {
	fs := checkpoint.MemoryFS()
	f := openFollow(t, fs, job)
	first = len(fileOf(t, fs))
	f.commit(t, deployment(job, f.c.decider.State()))
	second = len(fileOf(t, fs))
	f.commit(t, start(1), completion(job, 1), start(2))
	raw = fileOf(t, fs)
	require.NoError(t, f.close())
	return raw, first, second
}

// What a torn last frame held was never acted on: all of it is dropped, or nothing.
func TestATornLastFrameIsDropped(t *testing.T) {
	job := small(t)
	raw, _, second := ledgerOfThree(t, job)
	check := func(raw []byte, index uint64) {
		t.Helper()
		f := openFollow(t, holding(t, raw), job)
		require.EqualValues(t, index, f.c.view.Index)
		require.NoError(t, f.close())
	}
	for cut := second; cut < len(raw); cut++ {
		check(raw[:cut], 1)
	}
	check(raw, 4)
	zeros := slices.Clone(raw)
	clear(zeros[second:])
	check(zeros, 1) // the file grew, but what was written to it did not get there
	garbled := slices.Clone(raw)
	clear(garbled[len(raw)-20:])
	check(garbled, 1)
}

// A frame that others were written behind was acted on: without it, the job must not go on.
func TestACorruptFrameThatIsNotTheLastIsAnError(t *testing.T) {
	job := small(t)
	raw, first, second := ledgerOfThree(t, job)
	for at := first + 4; at < second; at++ {
		bad := slices.Clone(raw)
		bad[at] ^= 0x40
		fs := holding(t, bad)
		_, err := openLedger(context.Background(), fs, "dir", job, determinant.ExactlyOnce, determinant.Full)
		require.ErrorIs(t, err, ErrLedgerCorrupt, "byte %d", at)
		require.Equal(t, bad, fileOf(t, fs), "nothing is overwritten")
	}
}

func TestACorruptStateIsAnError(t *testing.T) {
	job := small(t)
	raw, first, _ := ledgerOfThree(t, job)
	for _, bad := range [][]byte{{}, raw[:4], raw[:first-1], append([]byte{9}, raw...), make([]byte, 100)} {
		fs := holding(t, bad)
		_, err := openLedger(context.Background(), fs, "dir", job, determinant.ExactlyOnce, determinant.Full)
		require.ErrorIs(t, err, ErrLedgerCorrupt)
		require.Equal(t, len(bad), len(fileOf(t, fs)), "nothing is overwritten")
	}
	for at := range first {
		bad := slices.Clone(raw)
		bad[at] ^= 1
		_, err := openLedger(context.Background(), holding(t, bad), "dir", job, determinant.ExactlyOnce, determinant.Full)
		require.ErrorIs(t, err, ErrLedgerCorrupt, "byte %d", at)
	}
}

func TestTheDirectoryOfAnotherJobIsAnError(t *testing.T) {
	fs, job := checkpoint.MemoryFS(), small(t)
	require.NoError(t, openFollow(t, fs, job).close())
	before := fileOf(t, fs)
	other := diamondJobOf(t)
	_, err := openLedger(context.Background(), fs, "dir", other, determinant.ExactlyOnce, determinant.Full)
	require.ErrorIs(t, err, ErrWrongJob)
	require.ErrorContains(t, err, `dir has [job "numbers"] where this process has [job "other"]`)
	require.Equal(t, before, fileOf(t, fs))

	wider := *job.Plan // the same name with another shape
	wider.Hash++
	_, err = openLedger(context.Background(), fs, "dir", &Job{Plan: &wider, Tasks: job.Tasks}, determinant.ExactlyOnce, determinant.Full)
	require.ErrorIs(t, err, ErrWrongJob)
	require.NoError(t, openFollow(t, fs, job).close(), "a refusal leaves no lock behind")
}

func diamondJobOf(t testing.TB) *Job {
	job := operator.NewJob("other")
	operator.ForEach(operator.From(job, "in", numbers{splits: 1, n: 1}), "out", func(operator.Context, uint64) error { return nil })
	plan, err := job.Plan(1)
	require.NoError(t, err)
	j, err := Layout(plan)
	require.NoError(t, err)
	return j
}

func TestADirectoryInUseIsAnError(t *testing.T) {
	fs, job := checkpoint.MemoryFS(), small(t)
	f := openFollow(t, fs, job)
	_, err := openLedger(context.Background(), fs, "dir", job, determinant.ExactlyOnce, determinant.Full)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, f.close())
	require.NoError(t, openFollow(t, fs, job).close())
}

func TestTwoRunsOfOneJobHaveDifferentNames(t *testing.T) {
	job := small(t)
	a, b := openFollow(t, checkpoint.MemoryFS(), job), openFollow(t, checkpoint.MemoryFS(), job)
	require.Equal(t, a.state.Identity, b.state.Identity)
	require.NotEqual(t, a.state.name(), b.state.name())
	require.NoError(t, a.close())
	require.NoError(t, b.close())
}

// After every so many entries the file begins anew with the present state.
func TestCompactionKeepsTheState(t *testing.T) {
	fs, job := checkpoint.MemoryFS(), small(t)
	f := openFollow(t, fs, job)
	f.commit(t, deployment(job, f.c.decider.State()))
	most := 0
	for e := range determinant.Epoch(compactAfter) {
		f.commit(t, start(e+1), completion(job, e+1))
		most = max(most, f.entries)
	}
	f.commit(t, start(compactAfter+1))
	require.Less(t, most, compactAfter+2)
	require.Less(t, len(fileOf(t, fs)), compactAfter*1000)
	want := f.now()
	require.NoError(t, f.close())
	f = openFollow(t, fs, job)
	require.Equal(t, want, f.now())
	require.EqualValues(t, compactAfter, f.c.view.committed())
	require.NoError(t, f.close())
}

// What stopped a job may be mended: run again, it goes on from its last checkpoint. One that was complete stays so.
func TestTheEndOfAFailedJobDoesNotFinishIt(t *testing.T) {
	for _, cause := range []string{"user code failed", ""} {
		fs, job := checkpoint.MemoryFS(), small(t)
		f := openFollow(t, fs, job)
		f.commit(t, deployment(job, f.c.decider.State()))
		f.commit(t, Entry{Finish: &Finish{Err: cause}})
		require.NoError(t, f.close())
		f = openFollow(t, fs, job)
		if cause == "" {
			require.NotNil(t, f.state.Finished)
		} else {
			require.Nil(t, f.state.Finished)
			f.commit(t, start(1))
			require.True(t, f.c.points.State().Open, "it goes on")
		}
		require.NoError(t, f.close())
	}
}

// An entry is on disk before anybody is told of it.
func TestAnEntryIsDurableBeforeItIsCommitted(t *testing.T) {
	fs, job := checkpoint.MemoryFS(), small(t)
	f := openFollow(t, fs, job)
	told := 0
	f.committed = func(e Entry) {
		told++
		f.pending = nil
		_, rest, err := nextFrame(fileOf(t, fs))
		require.NoError(t, err)
		var on []string
		for len(rest) > 0 {
			var frame []byte
			frame, rest, err = nextFrame(rest)
			require.NoError(t, err)
			entries, err := decodeEntries(frame)
			require.NoError(t, err)
			for _, e := range entries {
				on = append(on, e.String())
			}
		}
		require.Contains(t, on, e.String())
	}
	f.Propose(start(1))
	f.Propose(Entry{Abandon: &checkpoint.Abandon{Epoch: 1}})
	require.NoError(t, f.flush())
	require.Equal(t, 2, told)
	require.NoError(t, f.close())
}

// What is proposed while entries are handed on is committed in the same flush.
func TestAFlushEndsWhenNothingIsProposedAnyMore(t *testing.T) {
	f := openFollow(t, checkpoint.MemoryFS(), small(t))
	var seen []string
	f.committed = func(e Entry) {
		seen = append(seen, fmt.Sprint(e.Start.Epoch))
		if e.Start.Epoch < 5 {
			f.Propose(start(e.Start.Epoch + 1))
		}
	}
	f.Propose(start(1))
	require.NoError(t, f.flush())
	require.Equal(t, []string{"1", "2", "3", "4", "5"}, seen)
	require.NoError(t, f.close())
}

// Bytes from outside never cause a panic, whether their checksums are right or not. What has a right checksum may have any
// content but lengths of 32 bits, which we never write: msgpack makes room for them before it reads on.
func FuzzLedger(f *testing.F) {
	job := small(f)
	raw, first, second := ledgerOfThree(f, job)
	f.Add(raw[frameHeader:first], raw[first+frameHeader:second], raw)
	f.Add(raw[frameHeader:first], raw[second+frameHeader:], raw[:second])
	f.Add(raw[frameHeader:first], []byte{0x80}, []byte{})
	long := func(b byte) bool { return b == 0xc6 || b == 0xc9 || b == 0xdb || b == 0xdd || b == 0xdf }
	f.Fuzz(func(t *testing.T, state, entries, raw []byte) {
		if slices.ContainsFunc(slices.Concat(state, entries), long) {
			t.Skip("a length of 32 bits")
		}
		var s ledgerState
		_ = msgpack.Unmarshal(state, &s) // an error or not, but no panic
		if list, err := decodeEntries(entries); err != nil {
			require.ErrorIs(t, err, ErrLedgerCorrupt)
			require.Empty(t, list)
		}
		for rest := raw; len(rest) > 0; {
			frame, after, err := nextFrame(rest)
			if err != nil {
				require.True(t, errors.Is(err, errTorn) != errors.Is(err, ErrLedgerCorrupt), "%v", err)
				break
			}
			require.Len(t, rest, frameHeader+len(frame)+len(after))
			rest = after
		}
	})
}

package standby

import (
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
)

// Event is what the Decider is told. Events may be repeated and may come late: one that names a task names its
// incarnation, and stale ones change nothing.
type Event interface{ event() }

// Held says that a worker has the state of a task at a committed checkpoint.
type Held struct {
	Task  determinant.TaskID
	Epoch determinant.Epoch
}

type (
	// Deploy asks for the first placement of tasks that never had one, on the workers that have joined by now.
	Deploy struct{}
	// Joined: a worker is up, with what its directory holds. A worker that was declared dead stays dead.
	Joined struct {
		Worker determinant.WorkerID
		Holds  []Held
	}
	// Dead: these workers are gone, or hung for too long, or must go because a link cannot be re-made.
	Dead struct{ Workers []determinant.WorkerID }
	// TaskFailed: one task failed alone; its worker lives.
	TaskFailed struct {
		Task        determinant.TaskID
		Incarnation determinant.Incarnation
		Worker      determinant.WorkerID
		Cause       string
	}
	// RollbackWanted: a belt held (prefix check, cursor checksum, orphan rule, exhausted reserve). Local recovery is over.
	RollbackWanted struct {
		Task        determinant.TaskID
		Incarnation determinant.Incarnation
		Cause       string
	}
	// CaughtUp: a recovering task's log ran out, every consumer has resubscribed and none is ahead of it.
	CaughtUp struct {
		Task        determinant.TaskID
		Incarnation determinant.Incarnation
	}
	// Holding: a worker has the committed state of a task at Epoch. The newest report of a worker about a task counts; one
	// with an older epoch than the committed one therefore says that it does not hold what is needed.
	Holding struct {
		Worker determinant.WorkerID
		Task   determinant.TaskID
		Epoch  determinant.Epoch
	}
	// Unkept: a standby of a task cannot store its state. It stays one, and another is put beside it, until it is told that
	// it can again (Off). Like all that is reported it is volatile, and a new leader is told again.
	Unkept struct {
		Worker determinant.WorkerID
		Task   determinant.TaskID
		Off    bool
	}
	// Drain asks that a worker is freed of all its tasks and standbys, without any failure, or with Off that it may be used again. The wish
	// is volatile until SetDraining is committed: who asked asks again after a change of leader, unless Drains lists it. A
	// worker that dies, or is not known to be alive, is not drained.
	Drain struct {
		Worker determinant.WorkerID
		Off    bool
	}
	// Tick: the time is Now, in milliseconds since any fixed point. What waits for time goes on.
	Tick struct{ Now int64 }
	// Committed: the ledger applies this command here. The event applies it to this Decider as well.
	Committed struct{ Command Command }
	// Leader: this process leads from now on, or the fate of a proposal is unknown. What is in flight is forgotten and
	// whatever is still needed is proposed again; a command that gets in twice takes effect once.
	Leader struct{}
)

func (Deploy) event()         {}
func (Joined) event()         {}
func (Dead) event()           {}
func (TaskFailed) event()     {}
func (RollbackWanted) event() {}
func (CaughtUp) event()       {}
func (Holding) event()        {}
func (Unkept) event()         {}
func (Drain) event()          {}
func (Tick) event()           {}
func (Committed) event()      {}
func (Leader) event()         {}
func (Checkpoint) event()     {}

// Effect is what the Decider wants done.
type Effect interface{ effect() }

type (
	// Propose wants the command in the ledger. It takes effect when it is committed, not before.
	Propose struct{ Command Command }
	// Wait: a task has no place because no live worker has its state. It is fenced, and placed as soon as a worker joins
	// or reports that it holds the state.
	Wait struct {
		Task determinant.TaskID
		Why  string
	}
	// Unprotected lists the tasks that have fewer standbys than wanted, without those that cannot store their state, and nobody
	// to be one; sent when the list changes.
	Unprotected struct{ Tasks []determinant.TaskID }
	// WantCheckpoint: a planned hand-over waits for a checkpoint, so that the replay is short.
	WantCheckpoint struct{}
	// DrainWaits: what the drain of a worker waits for; sent when that changes.
	DrainWaits struct {
		Worker determinant.WorkerID
		Why    string
	}
	// Drained: nothing depends on the worker any more, and it may be stopped. Said again by a new leader.
	Drained struct{ Worker determinant.WorkerID }
)

func (Propose) effect()        {}
func (Wait) effect()           {}
func (Unprotected) effect()    {}
func (WantCheckpoint) effect() {}
func (DrainWaits) effect()     {}
func (Drained) effect()        {}

// String gives the effect in one line.
func (p Propose) String() string { return fmt.Sprintf("propose %v", p.Command) }

// String gives the effect in one line.
func (w Wait) String() string { return fmt.Sprintf("wait task %d: %s", w.Task, w.Why) }

// String gives the effect in one line.
func (u Unprotected) String() string { return fmt.Sprintf("unprotected tasks %v", u.Tasks) }

// String gives the effect in one line.
func (WantCheckpoint) String() string { return "want a checkpoint" }

// String gives the effect in one line.
func (w DrainWaits) String() string {
	return fmt.Sprintf("drain of worker %d waits: %s", w.Worker, w.Why)
}

// String gives the effect in one line.
func (d Drained) String() string { return fmt.Sprintf("worker %d is drained", d.Worker) }

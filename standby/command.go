package standby

import (
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// Command is what the ledger holds of this package's matters. Commands carry sorted slices and no maps, so that they
// encode the same everywhere.
type Command interface{ command() }

// Placement says where one task lives.
type Placement struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	// Worker runs the task. 0: the task waits for a worker that has its state; its former incarnations are fenced.
	Worker determinant.WorkerID
	// Recovering: the task counts as failed. Its host collects its log before it starts, if it has not started yet. A task
	// whose incarnation is new but that is not recovering starts from the decision's checkpoint with an empty log.
	Recovering bool
	// From is the worker that ran the task until a planned hand-over took it away, and answers for it with its whole log since
	// the checkpoint; 0: nobody does. Such a task is not lost, although it recovers: see Decider.mustRollBack.
	// Invariant: From lives, is not Worker, and is 0 unless Recovering.
	From     determinant.WorkerID
	Standbys []determinant.WorkerID // sorted; Invariant: never holds Worker
}

// AnyRecovering tells whether some task recovers.
func AnyRecovering(tasks []Placement) bool {
	return slices.ContainsFunc(tasks, func(p Placement) bool { return p.Recovering })
}

// AnyLost tells whether some task waits for a worker, or recovers while nobody runs it.
func AnyLost(tasks []Placement) bool {
	return slices.ContainsFunc(tasks, func(p Placement) bool { return p.Worker == 0 || p.Recovering && p.From == 0 })
}

// Decision is one fence. A worker applies decisions in the ledger's order, each whole between two network writes; from
// then on it refuses everything from a dead worker and everything of a lower incarnation or generation.
type Decision struct {
	Round determinant.Round
	// Generation counts global rollbacks. A worker or store whose own generation is lower has a rollback to apply: it cuts
	// what it holds to checkpoint RollbackTo, even if the decision that it sees is a later one with Rollback false.
	Generation determinant.Generation
	Rollback   bool                   // this very decision rolls back
	Checkpoint determinant.Epoch      // newest committed checkpoint: every task that starts, starts from it
	RollbackTo determinant.Epoch      // checkpoint of the newest rollback, 0 before the first
	Dead       []determinant.WorkerID // everyone declared dead so far, sorted
	Hear       []determinant.WorkerID // every live worker, sorted: those who must answer or be declared dead
	Tasks      []Placement            // every task, by id
	Collect    bool                   // recovering tasks collect their logs (all epochs since Checkpoint are exactly-once)
	Mode       determinant.Mode       // weakest mode of the epochs since Checkpoint
	Depth      determinant.Depth      // least sharing depth of the epochs since Checkpoint
	Cause      string                 // for people
	Basis      uint64                 // State.Version that it was computed from; Apply refuses any other
}

// AssignStandby gives a task a further standby. The worker fetches the committed state and reports Holding.
type AssignStandby struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Worker      determinant.WorkerID
}

// ReleaseStandby takes a standby from a task: others hold its state.
type ReleaseStandby struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Worker      determinant.WorkerID
}

// SetDraining says that a worker is to be freed of everything that it does, or that it may be used again.
type SetDraining struct {
	Worker determinant.WorkerID
	On     bool
}

// Recovered ends a recovery: the task's log ran out, every consumer has resubscribed and none is ahead of it.
type Recovered struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
}

// EpochMode is what one epoch records.
type EpochMode struct {
	Mode  determinant.Mode
	Depth determinant.Depth
}

// String gives mode and depth, as in "exactly-once, depth full".
func (m EpochMode) String() string { return fmt.Sprintf("%v, depth %v", m.Mode, m.Depth) }

// Checkpoint tells what the ledger says about checkpoints; the caller derives it from each Start and Complete that is
// applied. It is a Command, because it changes the replicated state at a place in the ledger's order, but the Decider
// never proposes it. It is also an Event: Step(c) is short for Step(Committed{c}).
type Checkpoint struct {
	Committed determinant.Epoch // newest committed checkpoint; never falls
	Since     []EpochMode       // each epoch after it that was opened, in order; empty leaves mode and depth as they are
	// Holders lists for each task, by id, the workers that have the state of Committed on disk (from Complete). Nil if
	// Committed is not new.
	Holders [][]determinant.WorkerID
}

func (Decision) command()       {}
func (AssignStandby) command()  {}
func (ReleaseStandby) command() {}
func (SetDraining) command()    {}
func (Recovered) command()      {}
func (Checkpoint) command()     {}

// String gives the decision in one line, tasks that wait or recover included.
func (d Decision) String() string {
	s := fmt.Sprintf("decision round %d generation %d checkpoint %d", d.Round, d.Generation, d.Checkpoint)
	if d.Rollback {
		s += fmt.Sprintf(" ROLLBACK to %d", d.RollbackTo)
	}
	if d.Collect {
		s += " collect"
	}
	return s + fmt.Sprintf(" dead %v hear %v (%s)", d.Dead, d.Hear, d.Cause)
}

// String gives the placement in the form "task 3 #2 on 5, standbys [6], recovering".
func (p Placement) String() string {
	s := fmt.Sprintf("task %d #%d on %d", p.Task, p.Incarnation, p.Worker)
	if p.Worker == 0 {
		s = fmt.Sprintf("task %d #%d waits", p.Task, p.Incarnation)
	}
	if len(p.Standbys) > 0 {
		s += fmt.Sprintf(", standbys %v", p.Standbys)
	}
	if p.Recovering {
		s += ", recovering"
	}
	if p.From != 0 {
		s += fmt.Sprintf(", handed over by %d", p.From)
	}
	return s
}

// String gives the command in one line.
func (a AssignStandby) String() string {
	return fmt.Sprintf("assign standby of task %d #%d to %d", a.Task, a.Incarnation, a.Worker)
}

// String gives the command in one line.
func (r ReleaseStandby) String() string {
	return fmt.Sprintf("release standby of task %d #%d on %d", r.Task, r.Incarnation, r.Worker)
}

// String gives the command in one line.
func (c SetDraining) String() string {
	if !c.On {
		return fmt.Sprintf("stop draining worker %d", c.Worker)
	}
	return fmt.Sprintf("drain worker %d", c.Worker)
}

// String gives the command in one line.
func (r Recovered) String() string {
	return fmt.Sprintf("recovered task %d #%d", r.Task, r.Incarnation)
}

// String gives the command in one line.
func (c Checkpoint) String() string {
	return fmt.Sprintf("checkpoint %d since %v", c.Committed, c.Since)
}

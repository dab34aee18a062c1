package checkpoint

import "github.com/understudy-stream/understudy/determinant"

// Event is something that a Coordinator is told.
type Event interface{ event() }

// Tick: the time is Now, in milliseconds since the Unix epoch.
type Tick struct{ Now int64 }

// Request asks for a checkpoint as soon as possible.
type Request struct{}

// SwitchMode asks that epochs have this mode from the next boundary on, which comes as soon as it can. Depth 0 leaves the
// sharing depth as it is. The wish is safe once the ledger has committed it (State.Goal); before that, a change of leader may
// lose it.
type SwitchMode struct {
	Mode  determinant.Mode
	Depth determinant.Depth
}

// Ack: Worker holds task Task's image of epoch Epoch, durably, as taken by incarnation Incarnation. Links may repeat it, and
// repeat it when they are made anew; one that is lost costs the checkpoint its timeout.
type Ack struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Epoch       determinant.Epoch
	Worker      determinant.WorkerID
	Primary     bool                  // from the worker that runs the task, not from a standby's
	Ended       bool                  // Meta.Ended
	Log         determinant.LogOffset // Meta.Log
	External    *determinant.Cursor   // of a task with an external output: the last of Meta.Outputs
	Bytes       int64                 // length of the image
	Prepared    []Transaction         // of a transactional sink: TaskState.Prepared
}

// Failed: Worker cannot take or keep that image.
type Failed struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Epoch       determinant.Epoch
	Worker      determinant.WorkerID
	Err         string
}

// Placed: the ledger has committed where tasks are. Every slice has one item per task. It comes in ledger order with
// Committed, after each decision about a failure and each change of a standby that is in place. A standby that comes into
// place while a checkpoint is under way has to be sent the image of it too, since its acknowledgement is waited for.
type Placed struct {
	Incarnations []determinant.Incarnation
	Standbys     [][]determinant.WorkerID // live ones that hold the committed state; they must acknowledge
	Recovering   []bool
	Handed       []bool // recovering, while another worker still runs the task: nobody has died
}

// Committed: the ledger has committed Command.
type Committed struct{ Command Command }

// Leader: this process now leads, and the Coordinator has been told of everything that is committed.
type Leader struct{}

// Deposed: this process no longer leads.
type Deposed struct{}

func (Tick) event()       {}
func (Request) event()    {}
func (SwitchMode) event() {}
func (Ack) event()        {}
func (Failed) event()     {}
func (Placed) event()     {}
func (Committed) event()  {}
func (Leader) event()     {}
func (Deposed) event()    {}

// Effect is something that the caller of a Coordinator must do. Each may be done twice.
type Effect interface{ effect() }

// Propose: have the ledger commit Command. It may be lost; the Coordinator proposes again.
type Propose struct{ Command Command }

// Trigger: tell incarnation Incarnation of source Task to end epoch Epoch, with a barrier, or with a skip if Skip. Mode
// and Depth are those of the epoch that follows. A source ends epochs in order and ignores triggers for epochs that it
// has ended already, in this life or by replaying the determinants of an earlier one.
type Trigger struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Epoch       determinant.Epoch
	Skip        bool
	Mode        determinant.Mode
	Depth       determinant.Depth
}

// Poll: ask every worker to acknowledge again what it holds of epoch Epoch; acknowledgements went to an earlier leader.
type Poll struct{ Epoch determinant.Epoch }

// Done: the job is over; checkpoint Epoch was completed with every task ended.
type Done struct{ Epoch determinant.Epoch }

func (Propose) effect() {}
func (Trigger) effect() {}
func (Poll) effect()    {}
func (Done) effect()    {}

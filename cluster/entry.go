package cluster

import (
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// Entry is what the ledger has committed; exactly one field is set. Index numbers entries that took effect.
type Entry struct {
	Index    uint64
	Decision *standby.Decision
	Assign   *standby.AssignStandby
	Release  *standby.ReleaseStandby
	Drain    *standby.SetDraining
	Recover  *standby.Recovered
	Start    *checkpoint.Start
	Complete *checkpoint.Complete
	Abandon  *checkpoint.Abandon
	Switch   *checkpoint.Switch
	// Configure names the mode and depth that the processes are started with: a switch if they were others before.
	Configure *standby.EpochMode
	Aside     *Aside
	Finish    *Finish
	Admit     *Admit
	Grow      *Grow
}

// Admit takes a worker process in. Its id was never used before.
type Admit struct {
	Worker   determinant.WorkerID
	Address  string
	Instance string // names the start of the process
}

// Finish ends the job.
type Finish struct {
	Epoch determinant.Epoch
	Err   string // empty: all input was processed
}

// error is the job's error; nil if all input was processed.
func (f *Finish) error() error {
	if f.Err == "" {
		return nil
	}
	return errors.New(f.Err)
}

// String names what the entry says.
func (e Entry) String() string {
	switch {
	case e.Decision != nil:
		return e.Decision.String()
	case e.Assign != nil:
		return e.Assign.String()
	case e.Release != nil:
		return e.Release.String()
	case e.Drain != nil:
		return e.Drain.String()
	case e.Recover != nil:
		return e.Recover.String()
	case e.Start != nil:
		return e.Start.String()
	case e.Complete != nil:
		return e.Complete.String()
	case e.Abandon != nil:
		return e.Abandon.String()
	case e.Switch != nil:
		return e.Switch.String()
	case e.Configure != nil:
		return "started with " + e.Configure.String()
	case e.Aside != nil:
		return fmt.Sprintf("set aside task %d, channel %d, sequence number %d", e.Aside.Task, e.Aside.Position.Channel, e.Aside.Position.Seq)
	case e.Admit != nil:
		return fmt.Sprintf("admit worker %d at %s", e.Admit.Worker, e.Admit.Address)
	case e.Grow != nil:
		return e.Grow.String()
	case e.Finish != nil:
		return fmt.Sprintf("finish at %d %s", e.Finish.Epoch, e.Finish.Err)
	}
	return "empty entry"
}

// Control is a message between workers, or from the coordinator to one, that is not part of the stream between them.
type Control struct {
	From    determinant.WorkerID
	Answer  *Answer
	Image   *Image
	Want    *Want
	Trigger *checkpoint.Trigger
	Poll    *checkpoint.Poll
}

// Answer is what one origin says in a round to a worker that recovers tasks: its copies of their logs and of every log that they may
// depend on within Depth, each once, in the order in which they were read, downstream first. So no determinant is among them without
// those that it was chosen on.
type Answer struct {
	Generation determinant.Generation
	Round      determinant.Round
	Depth      determinant.Depth
	From       standby.Origin
	Logs       []causal.Copy
}

// about is what an answer says about one task. Its copies are those of the answer.
func (a *Answer) about(job *Job, t determinant.TaskID) standby.Answer {
	s := standby.Answer{From: a.From, Round: a.Round, Copy: causal.Copy{Task: t}}
	past := job.Topology.Upstream(t, a.Depth)
	for _, c := range a.Logs {
		switch {
		case c.Task == t:
			s.Copy = c
		case len(c.Bytes) > 0 && slices.Contains(past, c.Task):
			s.Past = append(s.Past, c)
		}
	}
	return s
}

// Image is a task's state on its way to a standby.
type Image struct {
	Task       determinant.TaskID
	Generation determinant.Generation // in which it was made
	Bytes      []byte
	Full       bool // the committed state as a whole, for a new standby: it belongs to every generation
	Steady     bool // it is large, and little of it changes: worth to be held ready
}

// Want asks a worker for the committed state of a task.
type Want struct {
	Task determinant.TaskID
}

// Report is what a worker tells the coordinator; one field is set.
type Report struct {
	Ack        *checkpoint.Ack
	AckFailed  *checkpoint.Failed
	Failed     *TaskFailure
	Rollback   *standby.RollbackWanted
	CaughtUp   *standby.CaughtUp
	Holding    *standby.Holding
	Ended      *Ended
	Shown      *Shown
	Checkpoint bool // wants a checkpoint soon, to free logs
}

// Phase is a step of a recovery.
type Phase uint8

// The phases of a recovery, in order.
const (
	Noticed     Phase = iota // the failure was reported
	Decided                  // the decision was applied by the host
	Collected                // every answer is in
	Restored                 // the state is loaded and the task replays
	Replayed                 // the log ran out: the task makes its own choices
	Recovered                // every consumer has resubscribed and none is ahead
	FirstOutput              // something new left the task: a batch or write that goes beyond what the former life had sent
	Aligned                  // not a phase: the task passed a barrier, Elements milliseconds after its checkpoint was started
	Suppressed               // not a phase: Elements of replayed output were not sent again
	Written                  // not a phase: Elements became visible in a sink
)

// String names the phase.
func (p Phase) String() string {
	return [...]string{"noticed", "decided", "collected", "restored", "replayed", "recovered", "first output", "aligned", "suppressed", "written"}[p]
}

// Observation is something that happened at a worker, for metrics and tests.
type Observation struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
	Phase       Phase
	Bytes       int    // of the merged log, at Collected; of the state, if it was held ready, at Restored
	Elements    uint64 // at Suppressed and Written
}

// answerFor gives what logs hold for the tasks of decision d that recover at a worker; nil if there are none.
func answerFor(host determinant.WorkerID, logs *causal.Store, job *Job, d *standby.Decision, from standby.Origin) *Answer {
	in := make([]bool, len(job.Tasks))
	found := false
	for _, p := range d.Tasks {
		if !p.Recovering || p.Worker != host {
			continue
		}
		in[p.Task], found = true, true
		job.addUpstream(in, p.Task, d.Depth)
	}
	if !found {
		return nil
	}
	a := &Answer{Generation: d.Generation, Round: d.Round, Depth: d.Depth, From: from}
	for _, t := range job.pick(in) {
		a.Logs = append(a.Logs, logs.Copy(t))
	}
	return a
}

// recoverers lists the workers at which tasks of a decision recover.
func recoverers(d *standby.Decision) []determinant.WorkerID {
	var hosts []determinant.WorkerID
	for _, p := range d.Tasks {
		if p.Recovering && p.Worker != 0 && !slices.Contains(hosts, p.Worker) {
			hosts = append(hosts, p.Worker)
		}
	}
	return hosts
}

// Shown says that a transactional sink's output of all epochs up to Epoch can be seen.
type Shown struct {
	Task  determinant.TaskID
	Epoch determinant.Epoch
}

// Ended says that a task has ended its outputs: its input is processed.
type Ended struct {
	Task        determinant.TaskID
	Incarnation determinant.Incarnation
}

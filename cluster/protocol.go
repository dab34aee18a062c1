package cluster

import (
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// Purposes of connections between processes, as the handshake names them.
const (
	purposeRaft    = "raft"    // between coordinators
	purposeControl = "control" // from a worker to the leading coordinator
	purposeClient  = "client"  // one request, one answer
	purposeProbe   = "probe"   // whether this start of the process is still there: the handshake answers
)

// frameBody is the only kind of frame of control and client connections: one encoded up, down, request or reply.
const frameBody = 1

// up is what a worker says to the coordinator; one field is set.
type up struct {
	Register *register
	Joined   *joined
	Beat     *beat
	Report   *Report
	Observed *Observation
	Link     *linkReport
}

// register opens a session. Worker is 0 for a process that has no id yet.
type register struct {
	Worker   determinant.WorkerID
	Applied  uint64 // index of the last entry that it has applied
	Instance string
	Address  string
	Host     string
	Process  int
	Build    string
	Shape    string // the job's graph in words
	Settings map[string]string
	Again    bool // a former life of the process was let in
}

// joined says that the worker has built itself on the view that it was given, and what its directory holds.
type joined struct {
	Held []standby.Held
}

// beat says that the worker lives, and how it is.
type beat struct {
	Metrics WorkerMetrics
	Tasks   []TaskMetrics
}

// linkReport says that the link to a peer went down or came up again.
type linkReport struct {
	Peer  determinant.WorkerID
	Up    bool
	Cause string
}

// down is what the coordinator says to a worker; one field is set.
type down struct {
	Redirect *string // where the leader is; empty: nobody knows
	Refused  *refusal
	Welcome  *welcome
	Entry    *Entry
	Control  *Control
	Leave    *leave
	Cut      bool  // break the links to all peers, for chaos
	Alive    bool  // the leader lives: a worker that hears nothing for too long looks for another
	Slowest  int64 // with Alive: event time of the slowest source that others wait for; MaxTime: there is none
}

// welcome gives a worker its id and the view that entries follow on.
type welcome struct {
	Worker determinant.WorkerID
	Run    string // name of this run of the job, which directories and sinks belong to
	View   *View  // nil for a worker that has one
}

// reason is why a worker or coordinator must not go on.
type reason uint8

const (
	reasonDead reason = iota + 1 // the worker was declared dead: it starts again as a new one
	reasonOtherBuild
	reasonOtherJob
	reasonFinished
	reasonFailed
	reasonStopped
)

// refusal ends a session for good.
type refusal struct {
	Reason reason
	Text   string
}

// leave ends a worker's process.
type leave struct {
	Drained bool
}

// request is what a client asks; one field is set.
type request struct {
	Status     bool
	Checkpoint bool
	Stop       bool
	Exit       bool // of one coordinator, after Stop
	Mode       *determinant.Mode
	Drain      determinant.WorkerID
	Cut        determinant.WorkerID
}

// reply answers a request.
type reply struct {
	Redirect *string // where the leader is; empty: nobody knows
	Err      string
	Body     []byte
}

// check tells whether a worker may say so: its ids are the job's, and it speaks for itself.
func (u *up) check(tasks int, from determinant.WorkerID) error {
	ok := true
	task := func(t determinant.TaskID) { ok = ok && uint64(t) < uint64(tasks) }
	worker := func(w determinant.WorkerID) { ok = ok && w == from }
	switch {
	case u.Joined != nil:
		for _, h := range u.Joined.Held {
			task(h.Task)
		}
	case u.Beat != nil:
		for _, m := range u.Beat.Tasks {
			task(m.Task)
		}
	case u.Report != nil:
		u.Report.names(task, worker)
	case u.Observed != nil:
		task(u.Observed.Task)
		ok = ok && u.Observed.Phase <= Written
	case u.Link != nil:
		ok = u.Link.Peer != from
	}
	if !ok {
		return fmt.Errorf("%w: of worker %d: an id that is not its to name", errMalformed, from)
	}
	return nil
}

// names calls task and worker with every id in the report that stands for its subject or its sender.
func (r *Report) names(task func(determinant.TaskID), worker func(determinant.WorkerID)) {
	switch {
	case r.Ack != nil:
		task(r.Ack.Task)
		worker(r.Ack.Worker)
	case r.AckFailed != nil:
		task(r.AckFailed.Task)
		worker(r.AckFailed.Worker)
	case r.Failed != nil:
		task(r.Failed.Task)
		worker(r.Failed.Worker)
	case r.Rollback != nil:
		task(r.Rollback.Task)
	case r.CaughtUp != nil:
		task(r.CaughtUp.Task)
	case r.Holding != nil:
		task(r.Holding.Task)
		worker(r.Holding.Worker)
	case r.Ended != nil:
		task(r.Ended.Task)
	case r.Shown != nil:
		task(r.Shown.Task)
	}
}

// check tells whether the ids of a control message are the job's.
func (m *Control) check(tasks int) error {
	ok := true
	task := func(t determinant.TaskID) { ok = ok && uint64(t) < uint64(tasks) }
	switch {
	case m.Answer != nil:
		task(m.Answer.From.Store)
		for _, c := range m.Answer.Logs {
			task(c.Task)
		}
	case m.Image != nil:
		task(m.Image.Task)
	case m.Want != nil:
		task(m.Want.Task)
	case m.Trigger != nil:
		task(m.Trigger.Task)
	}
	if !ok {
		return fmt.Errorf("%w: control message of worker %d: an id that the job does not have", errMalformed, m.From)
	}
	return nil
}

// encode gives the bytes of a protocol value.
func encode(v any) []byte {
	body, err := msgpack.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("cluster: assertion failed: %T cannot be encoded: %v", v, err))
	}
	return body
}

// errMalformed says that a peer, although it knows the secret, does not speak this protocol.
var errMalformed = errors.New("cluster: malformed message")

// decode is the inverse of encode. The value shares nothing with src.
func decode(src []byte, v any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errMalformed, r)
		}
	}()
	if err := msgpack.Unmarshal(src, v); err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	return nil
}

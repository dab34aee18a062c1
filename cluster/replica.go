package cluster

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// maxFeed bounds the entries that a coordinator keeps for workers that were away. One that has missed more starts anew.
const maxFeed = 4096

// command is what the Raft log holds; one field is set.
type command struct {
	Begin *ledgerState // the job's first: makes everything else count
	Entry *Entry
	// Resume takes back the end of a job that failed.
	Resume bool
}

// replica is one process's copy of the job's metadata: the state machine below the Raft log. A leader and its followers
// apply the same commands to the same kind of Coordinator; whether it acts on them is its environment's affair.
// It belongs to the goroutine that owns the Coordinator.
type replica struct {
	job   *Job
	opts  CoordinatorOptions
	world CoordinatorEnvironment // gets what the coordinator wants done
	prop  Ledger
	begun func(*ledgerState) // a job began, or another state of it was installed

	state ledgerState // Identity, Run and Finished; the rest lives in coord
	coord *Coordinator
	alien error   // the ledger is that of another job: nothing is done with it. Invariant: coord is nil then
	feed  []Entry // the newest entries that took effect. Invariant: indexes are consecutive, the last is coord.view.Index
}

// apply takes the next command of the Raft log.
func (r *replica) apply(body []byte) error {
	var c command
	if err := decode(body, &c); err != nil {
		return fmt.Errorf("%w: command: %w", ErrLedgerCorrupt, err)
	}
	switch {
	case r.alien != nil:
		return r.alien
	case c.Begin != nil:
		if r.coord == nil {
			return r.install(c.Begin, nil)
		}
	case c.Entry != nil && r.coord != nil:
		r.coord.Committed(*c.Entry)
	case c.Resume && r.state.Finished != nil && r.state.Finished.Err != "":
		r.state.Finished = nil
		r.rebuild()
		r.begun(&r.state)
	}
	return nil
}

// broadcast notes an entry that took effect. The replica's environment calls it.
func (r *replica) broadcast(e Entry) {
	if len(r.feed) == maxFeed {
		r.feed = append(r.feed[:0:0], r.feed[maxFeed/2:]...)
	}
	r.feed = append(r.feed, e)
	if e.Finish != nil {
		r.state.Finished = e.Finish
	}
}

// since lists the entries after index; false if some are not kept any more.
func (r *replica) since(index uint64) ([]Entry, bool) {
	last := r.coord.view.Index
	if index > last || last-index > uint64(len(r.feed)) {
		return nil, index == last
	}
	return r.feed[uint64(len(r.feed))-(last-index):], true
}

// install takes a state, unless it is that of another job, whose tasks and channels are not this one's.
func (r *replica) install(s *ledgerState, feed []Entry) error {
	if want := identityOf(r.job); s.Identity != want {
		r.alien = fmt.Errorf("%w: %s", ErrWrongJob, otherGraph("its ledger", s.Shape, r.job.Plan.Shape))
		return r.alien
	}
	r.state, r.feed = *s, feed
	r.rebuild()
	r.begun(&r.state)
	return nil
}

// rebuild makes the coordinator anew from what is replicated: whatever a former leadership had heard is forgotten.
func (r *replica) rebuild() {
	view, recovery, points := r.state.View, r.state.Recovery, r.state.Points
	if r.coord != nil && r.coord.view.Index >= view.Index {
		view, recovery, points = r.coord.View(), r.coord.decider.State(), r.coord.points.State()
	}
	o := r.opts
	o.Mode, o.Depth = view.Mode, view.Depth
	r.coord = NewCoordinator(r.job, view, recovery, points, r.prop, r.world, o)
	r.coord.finished = r.state.Finished != nil
	r.coord.failed = r.coord.finished && r.state.Finished.Err != ""
}

// replicaImage is a snapshot of a replica.
type replicaImage struct {
	State ledgerState
	Feed  []Entry
}

// snapshot encodes the replica as of the last command. Of another job's ledger there is none: it would be taken for all there is.
func (r *replica) snapshot() ([]byte, error) {
	if r.alien != nil {
		return nil, r.alien
	}
	var image replicaImage
	if r.coord != nil {
		image.State = r.state
		image.State.View, image.State.Recovery, image.State.Points = r.coord.View(), r.coord.decider.State(), r.coord.points.State()
		image.Feed = r.feed[max(0, len(r.feed)-maxFeed/2):]
	}
	body, err := msgpack.Marshal(&image)
	if err != nil {
		return nil, fmt.Errorf("cluster: snapshot of the ledger: %w", err)
	}
	return body, nil
}

// restore is the inverse of snapshot.
func (r *replica) restore(body []byte) error {
	var image replicaImage
	if err := decode(body, &image); err != nil {
		return fmt.Errorf("%w: snapshot: %w", ErrLedgerCorrupt, err)
	}
	r.coord, r.alien = nil, nil
	if image.State.Identity != "" {
		return r.install(&image.State, image.Feed)
	}
	return nil
}

// newLedgerState is the state in which a job begins.
func newLedgerState(job *Job, run string, splits [][]string, mode determinant.Mode, depth determinant.Depth) ledgerState {
	return ledgerState{
		Identity: identityOf(job), Shape: job.Plan.Shape, Run: run, View: NewView(job, splits, mode, depth),
		Recovery: standby.State{Mode: mode, Depth: depth}, Points: checkpoint.NewState(len(job.Tasks), mode, depth),
	}
}

// identityOf names a job's graph.
func identityOf(job *Job) string { return fmt.Sprintf("%s-%016x", job.Plan.Name, job.Plan.Hash) }

// lastWorker is the highest worker id that was ever given out.
func (r *replica) lastWorker() determinant.WorkerID {
	var last determinant.WorkerID
	if n := len(r.coord.view.Members); n > 0 {
		last = r.coord.view.Members[n-1].Worker
	}
	if n := len(r.coord.view.Dead); n > 0 {
		last = max(last, r.coord.view.Dead[n-1])
	}
	return last
}

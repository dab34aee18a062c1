package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/determinant"
)

// hungMillis is how long a step may take before status names it.
const hungMillis = 10_000

// farewellTime bounds how long the end of a job waits for the last words of its workers.
const farewellTime = 2 * time.Second

// status is all that this coordinator knows, as the leader.
func (n *coordinatorNode) status(now time.Time) Status {
	c := n.rep.coord
	view := &c.view
	mode, wanted, depth := n.modes()
	s := Status{
		Cluster: n.opts.Cluster, Job: n.job.Plan.Name, Run: n.rep.state.name(), State: n.jobState(), Waiting: n.waiting(),
		Mode: mode, ModeWanted: wanted, Depth: depth, Generation: uint64(view.Generation),
		Checkpoint: n.checkpointStatus(now), Workers: []WorkerStatus{}, Tasks: []TaskStatus{}, Summary: n.stats.summary(n.job),
	}
	if f := n.rep.state.Finished; f != nil {
		s.Err = f.Err
	}
	for i, a := range n.opts.Coordinators {
		s.Coordinators = append(s.Coordinators, CoordinatorStatus{Address: a, Leader: i == n.self})
	}
	primaries, standbys := map[determinant.WorkerID]int{}, map[determinant.WorkerID]int{}
	for t := range view.Places {
		s.Tasks = append(s.Tasks, n.taskStatus(determinant.TaskID(t)))
		primaries[view.Places[t].Worker]++
		for _, w := range view.Places[t].Standbys {
			standbys[w]++
		}
	}
	drains := map[determinant.WorkerID]WorkerState{}
	for _, d := range c.Drains() {
		if drains[d.Worker] = WorkerDraining; d.Done {
			drains[d.Worker] = WorkerDrained
		}
	}
	for _, m := range view.Members {
		w := n.workerStatus(m, now)
		if w.State == WorkerSilent && n.rep.state.Finished != nil {
			w.State = WorkerEnded
		}
		if state, draining := drains[m.Worker]; draining && w.State == WorkerLive {
			w.State = state
		}
		w.Tasks, w.Standbys = primaries[m.Worker], standbys[m.Worker]
		s.Workers = append(s.Workers, w)
	}
	return s
}

func (n *coordinatorNode) jobState() JobState {
	f := n.rep.state.Finished
	if f != nil && f.Err == "" && len(n.sessions) > 0 && (n.over.IsZero() || time.Since(n.over) < farewellTime) {
		return JobRunning // workers are saying how much they did; no tick may have seen the end yet
	}
	switch {
	case f != nil && f.Err != "":
		return JobFailed
	case f != nil:
		return JobFinished
	case n.stopping:
		return JobStopping
	case n.rep.coord.decider.Task(0).Incarnation == 0:
		return JobForming
	}
	return JobRunning
}

// waiting lists why something does not go on, in a stable order.
func (n *coordinatorNode) waiting() []string {
	why := []string{}
	for _, text := range n.why { //lint:sorted sorted below
		if text != "" {
			why = append(why, text)
		}
	}
	if n.jobState() == JobForming && n.why["deploy"] == "" {
		why = append(why, fmt.Sprintf("%d of %d workers have joined", len(n.joined), n.opts.Workers))
	}
	for _, s := range n.sessions { //lint:sorted sorted below
		for _, m := range s.tasks { //lint:sorted likewise
			if m.BusyMillis > hungMillis && n.rep.coord.view.Places[m.Task].Incarnation == m.Incarnation {
				why = append(why, fmt.Sprintf("%s has been in one step for %d s: its user code may hang",
					nameOf(n.job, m.Task), m.BusyMillis/1000))
			}
			if m.Waiting != "" && n.waits(s, m) {
				why = append(why, waitsFor(n.job, m.Task, m.Waiting))
			}
		}
	}
	for _, d := range n.rep.coord.Drains() {
		if !d.Done {
			why = append(why, d.String())
		}
	}
	why = append(why, n.rep.coord.Undiscovered()...)
	why = append(why, n.rep.coord.Unstored()...)
	slices.Sort(why)
	return slices.Compact(why)
}

// waits tells whether a task that a worker has measured is the present life of it, so that what it waits for still counts.
func (n *coordinatorNode) waits(s *session, m TaskMetrics) bool {
	p := n.rep.coord.view.Places[m.Task]
	return p.Worker == s.worker && p.Incarnation == m.Incarnation
}

func (n *coordinatorNode) taskStatus(t determinant.TaskID) TaskStatus {
	p := n.rep.coord.view.Places[t]
	s := TaskStatus{
		Task: t, Name: nameOf(n.job, t), Worker: p.Worker, Incarnation: p.Incarnation, Recovering: p.Recovering, Standbys: []StandbyStatus{},
	}
	committed := n.rep.coord.view.committed()
	for _, w := range p.Standbys {
		epoch := n.rep.coord.holds[t][w]
		s.Standbys = append(s.Standbys, StandbyStatus{Worker: w, Epoch: epoch, Ready: epoch == committed})
	}
	session := n.sessions[p.Worker]
	if session == nil {
		last := n.stats.measuredLast(t)
		s.Metrics = TaskMetrics{Task: t, Records: last.Records, Log: last.Log, Source: last.Source, Written: last.Written}
		return s
	}
	s.Metrics = session.tasks[t]
	if !n.waits(session, s.Metrics) {
		s.Metrics.Waiting = ""
	}
	return s
}

func (n *coordinatorNode) workerStatus(m Admit, now time.Time) WorkerStatus {
	s := WorkerStatus{Worker: m.Worker, Address: m.Address, State: WorkerSilent, HeardMillis: -1}
	if at, ok := n.heard[m.Worker]; ok {
		s.HeardMillis = now.Sub(at).Milliseconds()
	}
	if session := n.sessions[m.Worker]; session != nil {
		s.State, s.Process, s.Host, s.Metrics = WorkerLive, session.reg.Process, session.reg.Host, session.metrics
	}
	return s
}

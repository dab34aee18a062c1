package cluster

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// Summary is what a run did.
type Summary struct {
	RecordsIn         uint64     `json:"records_in"`  // taken by sources since the job's start
	RecordsOut        uint64     `json:"records_out"` // that became visible in sinks in this run
	Kills             int        `json:"kills"`
	TaskKills         int        `json:"task_kills"`
	WorkerKills       int        `json:"worker_kills"`
	TasksRestarted    int        `json:"tasks_restarted"`
	TasksMoved        int        `json:"tasks_moved"` // by planned hand-overs
	Rollbacks         int        `json:"global_rollbacks"`
	Checkpoints       int        `json:"checkpoints"`
	DeterminantBytes  uint64     `json:"determinant_bytes"`
	DuplicatesDropped uint64     `json:"duplicates_suppressed"`
	SetAside          int        `json:"records_set_aside"`
	Recoveries        []Recovery `json:"recoveries"`
	Seconds           float64    `json:"seconds"`
	Resumed           bool       `json:"resumed"`
	Complete          bool       `json:"complete_before"` // an earlier run had processed all input: nothing was done
}

// String says how much was done.
func (s Summary) String() string {
	return fmt.Sprintf("%d records in, %d records out, %.1f s, %d checkpoints", s.RecordsIn, s.RecordsOut, s.Seconds, s.Checkpoints)
}

// Recovery is how one task was recovered. Times are milliseconds since the failure was noticed; -1 if a phase was not
// reached.
type Recovery struct {
	Task        determinant.TaskID      `json:"task"`
	Name        string                  `json:"name"`
	Incarnation determinant.Incarnation `json:"incarnation"`
	From        determinant.WorkerID    `json:"from"` // the worker of the life before; 0: not known
	Rollback    bool                    `json:"rollback"`
	Moved       bool                    `json:"moved"` // by a planned hand-over: nothing had failed
	LogBytes    int                     `json:"log_bytes"`
	WarmBytes   int                     `json:"warm_bytes"` // of its state, if that was held ready in memory; 0: it was read
	Decided     float64                 `json:"decided_ms"`
	Collected   float64                 `json:"collected_ms"`
	Restored    float64                 `json:"restored_ms"`
	Replayed    float64                 `json:"replayed_ms"`
	Recovered   float64                 `json:"caught_up_ms"`
	FirstOutput float64                 `json:"first_output_ms"` // something left the task that had not been sent before
	At          int64                   `json:"noticed_at"`      // when the failure was noticed, microseconds since the Unix epoch

	noticed time.Time
}

// Progress is what a run has done so far.
type Progress struct {
	Seconds     float64
	RecordsIn   uint64
	RecordsOut  uint64
	Checkpoints int
	Kills       int
	Recovering  int
	Rollbacks   int
	Waiting     string
}

// stats counts what happens in a run.
type stats struct {
	started time.Time
	mu      struct {
		sync.Mutex
		sum        Summary
		failedAt   []time.Time                // by task
		last       map[determinant.TaskID]int // index of the task's newest recovery in sum.Recoveries
		generation determinant.Generation
		incs       []determinant.Incarnation
		place      []determinant.WorkerID             // by task, the last one
		tasks      map[determinant.TaskID]TaskMetrics // the most that was measured of each
	}
}

// maxRecoveries bounds how many recoveries a summary lists.
const maxRecoveries = 10000

func newStats(tasks int) *stats {
	s := &stats{started: time.Now()}
	s.mu.failedAt = make([]time.Time, tasks)
	s.mu.incs = make([]determinant.Incarnation, tasks)
	s.mu.place = make([]determinant.WorkerID, tasks)
	s.mu.last = map[determinant.TaskID]int{}
	s.mu.tasks = map[determinant.TaskID]TaskMetrics{}
	s.mu.sum.Recoveries = []Recovery{}
	return s
}

func (s *stats) noticed(t determinant.TaskID, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failedAt[t].IsZero() {
		s.mu.failedAt[t] = at
	}
}

// entry counts what the ledger says.
func (s *stats) entry(e *Entry, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.Complete != nil:
		s.mu.sum.Checkpoints++
	case e.Aside != nil:
		s.mu.sum.SetAside++
	case e.Decision != nil:
		rollback := e.Decision.Generation > s.mu.generation
		if rollback {
			s.mu.sum.Rollbacks++
			s.mu.generation = e.Decision.Generation
		}
		for _, p := range e.Decision.Tasks {
			if was := s.mu.incs[p.Task]; p.Incarnation > was {
				s.mu.incs[p.Task] = p.Incarnation
				if p.Incarnation > 1 {
					s.decided(&p, rollback, now)
				}
			}
			if p.Worker != 0 {
				s.mu.place[p.Task] = p.Worker
			}
		}
	}
}

func (s *stats) decided(p *standby.Placement, rollback bool, now time.Time) {
	t, inc, moved := p.Task, p.Incarnation, p.From != 0
	if moved {
		s.mu.sum.TasksMoved++
	} else {
		s.mu.sum.TasksRestarted++
	}
	if len(s.mu.sum.Recoveries) == maxRecoveries {
		return
	}
	noticed := s.mu.failedAt[t]
	if noticed.IsZero() {
		noticed = now
	}
	s.mu.failedAt[t] = time.Time{}
	s.mu.last[t] = len(s.mu.sum.Recoveries)
	s.mu.sum.Recoveries = append(s.mu.sum.Recoveries, Recovery{
		Task: t, Incarnation: inc, From: s.mu.place[t], Rollback: rollback, Moved: moved, noticed: noticed,
		Decided: since(noticed, now), Collected: -1, Restored: -1, Replayed: -1, Recovered: -1,
		FirstOutput: -1, At: noticed.UnixMicro(),
	})
}

func since(from, to time.Time) float64 { return float64(to.Sub(from).Microseconds()) / 1000 }

// observe takes in what happened at a worker. It tells how long after the failure a phase of a recovery came; negative: it is
// not known.
func (s *stats) observe(o Observation, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o.Phase {
	case Suppressed:
		s.mu.sum.DuplicatesDropped += o.Elements
		return -1
	case Written:
		s.mu.sum.RecordsOut += o.Elements
		return -1
	case Aligned:
		return -1
	}
	i, ok := s.mu.last[o.Task]
	if !ok {
		return -1
	}
	r := &s.mu.sum.Recoveries[i]
	if r.Incarnation != o.Incarnation {
		return -1
	}
	ms := since(r.noticed, now)
	switch o.Phase {
	case Collected:
		r.Collected, r.LogBytes = ms, o.Bytes
	case Restored:
		r.Restored, r.WarmBytes = ms, o.Bytes
	case Replayed:
		r.Replayed = ms
	case Recovered:
		r.Recovered = ms
	case FirstOutput:
		r.FirstOutput = ms
	}
	return now.Sub(r.noticed)
}

func (s *stats) killed(target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.sum.Kills++
	if target == "worker" {
		s.mu.sum.WorkerKills++
	} else {
		s.mu.sum.TaskKills++
	}
}

// measured takes in what a worker says of one of its tasks.
func (s *stats) measured(m TaskMetrics) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.mu.tasks[m.Task]
	if m.Incarnation < old.Incarnation {
		return
	}
	s.mu.sum.RecordsOut += m.Written - min(m.Written, old.Written)
	if m.Source {
		s.mu.sum.RecordsIn += m.Records - min(m.Records, old.Records)
	}
	s.mu.sum.DeterminantBytes += m.Log - min(m.Log, old.Log)
	m.Records, m.Log, m.Written = max(m.Records, old.Records), max(m.Log, old.Log), max(m.Written, old.Written)
	s.mu.tasks[m.Task] = m
}

// measuredLast is the most that was measured of a task.
func (s *stats) measuredLast(t determinant.TaskID) TaskMetrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.tasks[t]
}

// measure takes in the counters of the tasks that run here now. What it adds up to never goes back: a task that recovers has less
// for a while, or does not run at all, and that is not counted again.
func (s *stats) measure(l *Local) {
	for _, w := range l.workers() {
		if w == nil {
			continue
		}
		for t := range l.job.Tasks {
			tk := w.worker.Task(determinant.TaskID(t))
			if tk == nil {
				continue
			}
			s.measured(TaskMetrics{
				Task: tk.ID(), Records: tk.Records(), Log: w.worker.Logs().Log(tk.ID()).End().Bytes(),
				Source: l.job.Plan.Vertices[l.job.Tasks[t].Vertex].Source != nil,
			})
		}
	}
}

// freeze takes the last measurement before the workers are stopped.
func (s *stats) freeze(l *Local) {
	s.measure(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.sum.Seconds = time.Since(s.started).Seconds()
}

// summary is what was counted so far.
func (s *stats) summary(job *Job) Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.mu.sum
	sum.Recoveries = append([]Recovery{}, sum.Recoveries...)
	for i := range sum.Recoveries {
		info := job.Tasks[sum.Recoveries[i].Task].Info
		sum.Recoveries[i].Name = taskName(info.Vertex, info.Index)
	}
	return sum
}

func (s *stats) progress(l *Local) Progress {
	s.measure(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	recovering := 0
	for _, i := range s.mu.last { //lint:sorted only counted
		if r := &s.mu.sum.Recoveries[i]; !r.Rollback && r.Recovered < 0 {
			recovering++
		}
	}
	waiting := l.outside.reasons(l.job)
	if why := l.undiscovered.Load(); why != nil {
		waiting = append(waiting, *why...)
	}
	if why, _ := l.waiting.Load().(string); why != "" {
		waiting = append([]string{why}, waiting...)
	}
	return Progress{
		Seconds: time.Since(s.started).Seconds(), RecordsIn: s.mu.sum.RecordsIn, RecordsOut: s.mu.sum.RecordsOut, Checkpoints: s.mu.sum.Checkpoints,
		Kills: s.mu.sum.Kills, Recovering: recovering, Rollbacks: s.mu.sum.Rollbacks, Waiting: strings.Join(waiting, "; "),
	}
}

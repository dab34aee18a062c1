package supervisor

import (
	"cmp"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/determinant"
)

// Bounds of a summary's lists.
const (
	maxRecoveries = 10000
	maxActs       = 10000
	maxEndings    = 1000
)

// Summary is what a run did.
type Summary struct {
	cluster.Summary
	CoordinatorKills   int        `json:"coordinator_kills"`
	Pauses             int        `json:"pauses"`
	LinkCuts           int        `json:"link_cuts"`
	ProcessesRestarted int        `json:"processes_restarted"`
	TasksLost          int        `json:"tasks_lost"` // restarted because the worker that ran them had died; of TasksRestarted
	Acts               []Act      `json:"acts"`
	Endings            []Ending   `json:"endings"`
	Recoveries         []Recovery `json:"recoveries"`
}

// Act is a failure that chaos, or whoever else was asked to, made.
type Act struct {
	At        int64                  `json:"at"` // microseconds since the Unix epoch
	Kind      ActKind                `json:"kind"`
	Target    cluster.Target         `json:"target,omitempty"`
	Processes []string               `json:"processes"`
	Workers   []determinant.WorkerID `json:"workers"` // that these processes were, as far as it is known
}

// Ending is the end of a process that nobody had asked for. It was started again, unless it was the last of too many.
type Ending struct {
	At      int64  `json:"at"` // microseconds since the Unix epoch
	Process string `json:"process"`
	How     string `json:"how"`
	Output  string `json:"output"` // its last lines, if it could not say why
}

// ActKind is a kind of failure.
type ActKind string

// The kinds of failures.
const (
	ActKill  ActKind = "kill"
	ActPause ActKind = "pause"
	ActLink  ActKind = "link"
)

// Recovery is how one task was recovered. Times are milliseconds since the act that caused it, or, if none is known to have, since
// the failure was noticed; -1 if a phase was not reached, or not seen.
type Recovery struct {
	Task        determinant.TaskID      `json:"task"`
	Name        string                  `json:"name"`
	Incarnation determinant.Incarnation `json:"incarnation"`
	From        determinant.WorkerID    `json:"from"` // the worker that ran it; 0 if it is not known
	Rollback    bool                    `json:"rollback"`
	Moved       bool                    `json:"moved"` // by a planned hand-over: nothing had failed
	LogBytes    int                     `json:"log_bytes"`
	WarmBytes   int                     `json:"warm_bytes"` // of its state, if that was held ready in memory; 0: it was read
	Act         int                     `json:"act"`        // index among the acts, -1 if none is known
	Noticed     float64                 `json:"noticed_ms"`
	Decided     float64                 `json:"decided_ms"`
	Collected   float64                 `json:"collected_ms"`
	Restored    float64                 `json:"restored_ms"`
	Replayed    float64                 `json:"replayed_ms"`
	FirstOutput float64                 `json:"first_output_ms"`
	Recovered   float64                 `json:"caught_up_ms"`
}

// life is one life of a task.
type life struct {
	task        determinant.TaskID
	incarnation determinant.Incarnation
}

// record accumulates what coordinators say, each of which knows only what happened while it ran.
type record struct {
	sum        cluster.Summary
	acts       []Act
	endings    []Ending
	recoveries map[life]*cluster.Recovery
	lost       map[life]bool   // the worker of the life before was dead when it was decided
	first      bool            // no status has come yet
	generation uint64          // when the first status came
	leader     string          // who gave the last status
	last       cluster.Summary // in it
}

func newRecord(resumed bool) record {
	return record{
		sum: cluster.Summary{Resumed: resumed}, recoveries: map[life]*cluster.Recovery{}, lost: map[life]bool{},
		first: true,
	}
}

// take takes in a status.
func (r *record) take(st *cluster.Status) {
	if r.first {
		r.first = false
		if r.sum.Resumed {
			r.generation = st.Generation
		}
	}
	now, sum := &st.Summary, &r.sum
	leader := leaderOf(st)
	if leader == r.leader && now.Seconds >= r.last.Seconds {
		sum.Checkpoints += now.Checkpoints - r.last.Checkpoints
		sum.SetAside += now.SetAside - r.last.SetAside
		sum.DuplicatesDropped += now.DuplicatesDropped - min(now.DuplicatesDropped, r.last.DuplicatesDropped)
	} else if r.leader == "" {
		sum.Checkpoints, sum.SetAside, sum.DuplicatesDropped = now.Checkpoints, now.SetAside, now.DuplicatesDropped
	}
	r.leader, r.last = leader, *now
	sum.Rollbacks = int(st.Generation - min(st.Generation, r.generation))
	sum.RecordsIn, sum.RecordsOut = max(sum.RecordsIn, now.RecordsIn), max(sum.RecordsOut, now.RecordsOut)
	sum.DeterminantBytes = max(sum.DeterminantBytes, now.DeterminantBytes)
	for i := range now.Recoveries {
		r.recovery(st, &now.Recoveries[i])
	}
}

// recovery takes in what is said of a recovery. What another coordinator said of it before is kept.
func (r *record) recovery(st *cluster.Status, now *cluster.Recovery) {
	l := life{now.Task, now.Incarnation}
	was := r.recoveries[l]
	if was == nil {
		if now.Moved {
			r.sum.TasksMoved++
		} else {
			r.sum.TasksRestarted++
		}
		if !now.Rollback && !now.Moved && !isMember(st, now.From) {
			r.lost[l] = true
		}
		if len(r.recoveries) < maxRecoveries {
			kept := *now
			r.recoveries[l] = &kept
		}
		return
	}
	later := float64(now.At-was.At) / 1000 // what now counts from another moment
	for _, phase := range []struct {
		was *float64
		now float64
	}{
		{&was.Collected, now.Collected}, {&was.Restored, now.Restored}, {&was.Replayed, now.Replayed},
		{&was.Recovered, now.Recovered}, {&was.FirstOutput, now.FirstOutput},
	} {
		if *phase.was < 0 && phase.now >= 0 {
			*phase.was = phase.now + later
		}
	}
	was.LogBytes, was.WarmBytes = max(was.LogBytes, now.LogBytes), max(was.WarmBytes, now.WarmBytes)
}

func leaderOf(st *cluster.Status) string {
	for _, c := range st.Coordinators {
		if c.Leader {
			return c.Address
		}
	}
	return ""
}

func isMember(st *cluster.Status, w determinant.WorkerID) bool {
	return slices.ContainsFunc(st.Workers, func(s cluster.WorkerStatus) bool { return s.Worker == w })
}

// summary is what was recorded.
func (s *supervisor) summary() Summary {
	sum := s.counts()
	for _, rec := range s.record.recoveries { // in any order: sorted below
		sum.Recoveries = append(sum.Recoveries, s.record.since(rec))
	}
	slices.SortFunc(sum.Recoveries, func(a, b Recovery) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return sum
}

// counts is a summary without its recoveries.
func (s *supervisor) counts() Summary {
	r := &s.record
	sum := Summary{
		Summary: r.sum, ProcessesRestarted: s.restarts, TasksLost: len(r.lost), Recoveries: []Recovery{},
		Acts: append([]Act{}, r.acts...), Endings: append([]Ending{}, r.endings...),
	}
	sum.Seconds = time.Since(s.started).Seconds()
	for _, a := range r.acts {
		switch a.Kind {
		case ActPause:
			sum.Pauses++
		case ActLink:
			sum.LinkCuts++
		case ActKill:
			workers := 0
			for _, name := range a.Processes {
				if isWorker(name) {
					workers++
				}
			}
			sum.WorkerKills += workers
			sum.CoordinatorKills += len(a.Processes) - workers
			sum.Kills += len(a.Processes)
		}
	}
	return sum
}

// since counts a recovery's times from the act that caused it.
func (r *record) since(rec *cluster.Recovery) Recovery {
	out := Recovery{
		Task: rec.Task, Name: rec.Name, Incarnation: rec.Incarnation, From: rec.From, Rollback: rec.Rollback, Moved: rec.Moved, LogBytes: rec.LogBytes, WarmBytes: rec.WarmBytes,
		Act: r.cause(rec),
	}
	if out.Act >= 0 {
		out.Noticed = float64(rec.At-r.acts[out.Act].At) / 1000
	}
	shift := func(ms float64) float64 {
		if ms < 0 {
			return -1
		}
		return ms + out.Noticed
	}
	out.Decided, out.Collected, out.Restored = shift(rec.Decided), shift(rec.Collected), shift(rec.Restored)
	out.Replayed, out.FirstOutput, out.Recovered = shift(rec.Replayed), shift(rec.FirstOutput), shift(rec.Recovered)
	return out
}

// cause finds the act that made a recovery necessary: the last one before it was noticed that hit its worker.
func (r *record) cause(rec *cluster.Recovery) int {
	for i := len(r.acts) - 1; i >= 0; i-- {
		if a := &r.acts[i]; a.At <= rec.At && a.Kind != ActLink && slices.Contains(a.Workers, rec.From) {
			return i
		}
	}
	return -1
}

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	understudy "github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
	"github.com/understudy-stream/understudy/determinant"
)

// demoView is what the demo knows. It has no clock and no screen.
type demoView struct {
	began   time.Time
	status  *understudy.Status
	names   map[int]string                  // of processes, by pid
	known   map[determinant.WorkerID]string // processes that they are or were
	down    map[string]bool
	kills   []*demoKill
	pending bool      // a kill was asked for
	uneasy  time.Time // when something was amiss last
	counted uint64    // records when the rate was measured
	at      time.Time
	rate    float64
}

// demoKill is a kill and what followed.
type demoKill struct {
	at      time.Time
	process string
	worker  determinant.WorkerID
	tasks   []*demoRecovery
}

// demoRecovery is a task that the killed worker ran.
type demoRecovery struct {
	task determinant.TaskID
	name string
	life determinant.Incarnation // the new one
	to   determinant.WorkerID
	ms   [len(demoPhases)]float64 // since the kill; -1: not yet
}

// demoPhases are the phases of a recovery in the order in which they come.
var demoPhases = [...]string{"noticed", "promoted", "collected", "replayed", "new output", "caught up"}

func newDemoView(now time.Time) *demoView {
	return &demoView{began: now, uneasy: now, names: map[int]string{}, known: map[determinant.WorkerID]string{}, down: map[string]bool{}}
}

func (v *demoView) title() []string {
	return []string{"counting the words of Go's network library on three worker processes; one is killed by kill -9 now and then", ""}
}

// take takes in what happened and gives a line for each thing that is worth one.
func (v *demoView) take(what any, now time.Time) []string {
	switch w := what.(type) {
	case *understudy.Status:
		return v.takeStatus(w, now)
	case understudy.ProcessEvent:
		return v.takeEvent(w)
	}
	return nil
}

func (v *demoView) takeEvent(e understudy.ProcessEvent) []string {
	switch e.What {
	case supervisor.Started:
		v.down[e.Process] = false
		var pid int
		if _, err := fmt.Sscanf(e.Detail, "process %d", &pid); err == nil {
			v.names[pid] = e.Process
		}
		return []string{v.line(e.At, "%s is started (%s)", e.Process, e.Detail)}
	case supervisor.Killed:
		return v.killed(e)
	case supervisor.Ended:
		if v.status != nil && v.status.State == cluster.JobFinished || e.Detail == "exit status 0" {
			return nil
		}
		v.down[e.Process] = true
		return []string{v.line(e.At, "%s has ended: %s", e.Process, e.Detail)}
	}
	return nil
}

func (v *demoView) killed(e understudy.ProcessEvent) []string {
	v.down[e.Process], v.pending, v.uneasy = true, false, e.At
	k := &demoKill{at: e.At, process: e.Process}
	if v.status != nil {
		for i := range v.status.Workers {
			if w := &v.status.Workers[i]; v.names[w.Process] == e.Process {
				k.worker = w.Worker
			}
		}
		for i := range v.status.Tasks {
			if t := &v.status.Tasks[i]; t.Worker == k.worker && k.worker != 0 {
				r := &demoRecovery{task: t.Task, name: short(t.Name), life: t.Incarnation + 1}
				for p := range r.ms {
					r.ms[p] = -1
				}
				k.tasks = append(k.tasks, r)
			}
		}
	}
	v.kills = append(v.kills, k)
	return []string{v.line(e.At, "kill -9 of %s, which ran %s", e.Process, k.names())}
}

func (k *demoKill) names() string {
	var names []string
	for _, r := range k.tasks {
		names = append(names, r.name)
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

func (v *demoView) takeStatus(s *understudy.Status, now time.Time) []string {
	if s.State == cluster.JobFinished {
		s.Workers, s.Tasks = v.last() // they leave one by one
	}
	v.status = s
	for i := range s.Workers {
		if w := &s.Workers[i]; v.names[w.Process] != "" {
			v.known[w.Worker] = v.names[w.Process]
		}
	}
	if dt := now.Sub(v.at); dt > time.Second/2 {
		if !v.at.IsZero() && s.Summary.RecordsIn >= v.counted {
			v.rate = float64(s.Summary.RecordsIn-v.counted) / dt.Seconds()
		}
		v.at, v.counted = now, s.Summary.RecordsIn
	}
	var lines []string
	for i := range s.Summary.Recoveries {
		lines = append(lines, v.takeRecovery(&s.Summary.Recoveries[i])...)
	}
	slices.SortStableFunc(lines, func(a, b string) int { return cmp.Compare(moment(a), moment(b)) })
	if !v.healthy() {
		v.uneasy = now
	}
	return lines
}

// moment is what a line begins with.
func moment(line string) string {
	at, _, _ := strings.Cut(line, " s ")
	return at
}

func (v *demoView) takeRecovery(r *cluster.Recovery) (lines []string) {
	for _, k := range v.kills {
		for _, t := range k.tasks {
			if t.task == r.Task && t.life == r.Incarnation {
				lines = append(lines, v.phases(k, t, r)...)
			}
		}
	}
	return lines
}

// phases notes the phases that a recovery has reached since it was looked at.
func (v *demoView) phases(k *demoKill, t *demoRecovery, r *cluster.Recovery) (lines []string) {
	noticed := time.UnixMicro(r.At)
	for p, since := range [len(demoPhases)]float64{0, r.Decided, r.Collected, r.Replayed, r.FirstOutput, r.Recovered} {
		if since < 0 || t.ms[p] >= 0 {
			continue
		}
		at := noticed.Add(time.Duration(since * float64(time.Millisecond)))
		t.ms[p] = float64(at.Sub(k.at).Microseconds()) / 1000
		where := ""
		if p == 1 {
			t.to = v.status.Tasks[t.task].Worker
			where = ": the standby on " + v.process(t.to) + " takes over"
		}
		lines = append(lines, v.line(at, "  %s %s after %.1f ms%s", t.name, demoPhases[p], t.ms[p], where))
	}
	return lines
}

// last are the workers and tasks that were seen last.
func (v *demoView) last() ([]cluster.WorkerStatus, []cluster.TaskStatus) {
	if v.status == nil {
		return nil, nil
	}
	return v.status.Workers, v.status.Tasks
}

// process names the process that a worker is or was.
func (v *demoView) process(w determinant.WorkerID) string {
	if name := v.known[w]; name != "" {
		return name
	}
	return fmt.Sprintf("worker %d", w)
}

// healthy tells whether every task runs and has a standby that is ready.
func (v *demoView) healthy() bool {
	s := v.status
	if s == nil || s.State != cluster.JobRunning || len(s.Tasks) == 0 || len(s.Workers) < demoWorkers {
		return false
	}
	for i := range s.Tasks {
		if t := &s.Tasks[i]; t.Worker == 0 || t.Recovering || len(t.Standbys) == 0 || !t.Standbys[0].Ready {
			return false
		}
	}
	return true
}

// even tells whether every worker runs something.
func (v *demoView) even() bool {
	return !slices.ContainsFunc(v.status.Workers, func(w cluster.WorkerStatus) bool { return w.Tasks == 0 })
}

// victim names the process to be killed now, if it is time for that: the one that runs most tasks.
func (v *demoView) victim(now time.Time) string {
	if v.pending || len(v.kills) == demoKills || !v.healthy() {
		return ""
	}
	if calm := now.Sub(v.uneasy); calm < demoCalm || calm < demoPatience && !v.even() {
		return ""
	}
	most := &v.status.Workers[0]
	for i := range v.status.Workers {
		if w := &v.status.Workers[i]; w.Tasks > most.Tasks {
			most = w
		}
	}
	name := v.names[most.Process]
	v.pending = name != ""
	return name
}

// short leaves out all operators of a task but the first: "lines -> split[0]" is "lines[0]".
func short(name string) string {
	first, _, chained := strings.Cut(name, " -> ")
	if i := strings.LastIndexByte(name, '['); chained && i >= 0 {
		return first + name[i:]
	}
	return name
}

func (v *demoView) line(at time.Time, format string, args ...any) string {
	return fmt.Sprintf("%7.3f s  ", at.Sub(v.began).Seconds()) + fmt.Sprintf(format, args...)
}

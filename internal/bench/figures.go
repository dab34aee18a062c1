package bench

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/cluster/supervisor"
)

// measure works out the figures from what was seen.
func (r *Recovery) measure(p *pacedRun) {
	sum, w := &p.sum, p.w
	r.TasksRestarted, r.TasksLost, r.Rollbacks = sum.TasksRestarted, sum.TasksLost, sum.Rollbacks
	r.Lost, r.Duplicates = w.lost(), w.duplicates+w.strange
	r.Kills = len(sum.Acts)
	if len(w.bySeen.steps) == 0 || len(sum.Acts) == 0 {
		return
	}
	r.phases(sum)
	r.PerKill = killTimes(sum, w.parts, p.spec.sinkName())
	r.expectations(p.kills)
	var first []float64
	for i := range r.PerKill {
		k := &r.PerKill[i]
		k.At = float64(sum.Acts[i].At-w.byDue.zero) / 1e6
		first = append(first, k.FirstOutput...)
		r.NoOutputMax = max(r.NoOutputMax, k.Unaffected)
	}
	r.FirstOutputP50, r.FirstOutputP99 = quantile(first, 0.5), quantile(first, 0.99)
	normal, firstKill := min(beforeKill, p.o.Before), sum.Acts[0].At
	for _, part := range w.parts {
		r.NoOutputBefore = max(r.NoOutputBefore, float64(part.gap(firstKill-normal.Microseconds(), firstKill))/1000)
	}
	r.latencies(w.bySeen, normal, firstKill, sum.Acts[len(sum.Acts)-1].At)
	r.curve = curveOf(w.byDue, firstKill-curveBefore.Microseconds())
}

// expectations notes in what state the job was when it was killed. Each kill is an act, unless there was nothing to kill.
func (r *Recovery) expectations(kills []kill) {
	for i := range r.PerKill {
		k := &r.PerKill[i]
		for len(kills) > 0 && !slices.Contains(k.Processes, kills[0].name) {
			kills = kills[1:]
		}
		if len(kills) == 0 {
			return
		}
		k.Settled, k.Unsettled, k.Waited = kills[0].unlike == "", kills[0].unlike, kills[0].waited.Seconds()
		if kills = kills[1:]; !k.Settled {
			r.Unsettled++
		}
	}
}

// killTimes is what a reader of the output saw of each kill.
func killTimes(sum *understudy.ClusterSummary, parts map[string]*part, sink string) (times []KillTime) {
	lost := make([]int, len(sum.Acts))
	died := make([]deaths, len(sum.Acts))
	for i := range died {
		died[i] = deaths{}
	}
	for j := range sum.Recoveries {
		rec := &sum.Recoveries[j]
		if rec.Act < 0 || rec.Moved {
			continue
		}
		lost[rec.Act]++
		if index, is := sinkTask(rec.Name, sink); is {
			died[rec.Act][fmt.Sprintf("part-%05d.jsonl", index)] = max(rec.Decided, rec.Collected, rec.Restored)
		}
	}
	names := slices.Sorted(maps.Keys(parts))
	for i, act := range sum.Acts {
		k := KillTime{Processes: act.Processes, TasksLost: lost[i], Partitions: []string{}, FirstOutput: []float64{}, Unaffected: -1}
		for _, name := range names {
			p := parts[name]
			if ready, is := died[i][name]; is {
				k.Partitions = append(k.Partitions, name)
				if at := p.after(act.At + int64(ready*1000)); at > 0 {
					k.FirstOutput = append(k.FirstOutput, float64(at-act.At)/1000)
				}
			} else if !diedAround(sum.Acts, died, act.At, name) {
				longest := p.gap(act.At, consequencesEnd(sum.Acts, i))
				k.Unaffected = max(k.Unaffected, float64(longest)/1000)
			}
		}
		times = append(times, k)
	}
	return times
}

// consequencesEnd is until when gaps are counted to a kill: tasks move for balance for some seconds after it. The next kill ends that, if it is another failure.
func consequencesEnd(acts []supervisor.Act, i int) int64 {
	end := acts[i].At + consequences.Microseconds()
	for j := range acts {
		if at := acts[j].At; at > acts[i].At+around.Microseconds() {
			end = min(end, at)
		}
	}
	return end
}

// deaths are the partitions whose task died by a kill, each with how many milliseconds later what the task needs had been collected: nothing
// new can have come before, and what is seen before was written by the life that died.
type deaths map[string]float64

// diedAround tells whether the task of a partition died by a kill so near in time that what is seen of it may be the gap after that.
func diedAround(acts []supervisor.Act, died []deaths, at int64, name string) bool {
	for i := range acts {
		if d := acts[i].At - at; max(d, -d) <= around.Microseconds() {
			if _, is := died[i][name]; is {
				return true
			}
		}
	}
	return false
}

// phases works out how far tasks were that were restarted because of a kill.
func (r *Recovery) phases(sum *understudy.ClusterSummary) {
	var noticed, decided, collected, restored, replayed, first, caughtUp []float64
	note := func(to *[]float64, ms float64) {
		if ms >= 0 {
			*to = append(*to, ms)
		}
	}
	for i := range sum.Recoveries {
		rec := &sum.Recoveries[i]
		if rec.Act < 0 || rec.Moved {
			continue
		}
		note(&noticed, rec.Noticed)
		note(&decided, rec.Decided)
		note(&collected, rec.Collected)
		note(&restored, rec.Restored)
		note(&replayed, rec.Replayed)
		note(&first, rec.FirstOutput)
		note(&caughtUp, rec.Recovered)
	}
	of := func(q float64) Phases {
		return Phases{
			Decided: quantile(decided, q), Collected: quantile(collected, q), Restored: quantile(restored, q),
			Replayed: quantile(replayed, q), FirstOutput: quantile(first, q), CaughtUp: quantile(caughtUp, q),
		}
	}
	r.NoticedP50, r.NoticedP90 = quantile(noticed, 0.5), quantile(noticed, 0.9)
	r.Phases, r.PhasesP90 = of(0.5), of(0.9)
}

// beforeKill is the time before the first kill of which the latency is what is normal, unless the job has run under load for less.
const beforeKill = 5 * time.Second

// latencies works out the figures about latency from due to visible, by when lines were seen.
func (r *Recovery) latencies(seen *lateness, normal time.Duration, firstKill, lastKill int64) {
	before := seen.between(firstKill-normal.Microseconds(), firstKill)
	after := seen.between(firstKill, firstKill+reportAfter.Microseconds())
	r.LatencyBefore, r.LatencyP50, r.LatencyP99 = before.millis(0.5), after.millis(0.5), after.millis(0.99)
	r.BackToNormal = backToNormal(seen, lastKill, r.LatencyBefore)
}

const (
	rollingStep   = 50 * time.Millisecond
	rollingWindow = time.Second
	within        = 1.1
	orMillis      = 1.0
)

// backToNormal is Definition.
func backToNormal(seen *lateness, kill int64, before float64) float64 {
	limit := max(before*within, before+orMillis)
	calm := int64(-1)
	first := seen.zero + (kill-seen.zero+seen.step-1)/seen.step*seen.step // so that windows are whole steps
	for at := first; at < seen.end(); at += seen.step {
		window := seen.between(at-rollingWindow.Microseconds(), at)
		switch p50 := window.millis(0.5); {
		case p50 < 0 || p50 > limit:
			calm = -1
		case calm < 0:
			calm = at
		case at-calm >= rollingWindow.Microseconds():
			return float64(calm-kill) / 1000
		}
	}
	return -1
}

// quantile is the q-th quantile of values, -1 of none. It sorts them.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return -1
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

// instant is the latency of the records that came due in a step of time.
type instant struct {
	at       float64 // seconds since the first record was due
	p50, p99 float64 // milliseconds
}

const (
	curveStep   = 100 * time.Millisecond
	curveBefore = 5 * time.Second // the first kill
)

// curveOf is the latency over time, by when records were due, so that a stall shows in all that came due meanwhile.
func curveOf(due *lateness, from int64) (curve []instant) {
	for i := max(0, (from-due.zero)/due.step); i < int64(len(due.steps)); i++ {
		if c := due.steps[i]; len(c) > 0 {
			curve = append(curve, instant{at: float64(i*due.step) / 1e6, p50: c.millis(0.5), p99: c.millis(0.99)})
		}
	}
	return curve
}

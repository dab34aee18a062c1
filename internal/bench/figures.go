package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/understudy-stream/understudy"
)

// measure works out the figures from what was seen.
func (r *Recovery) measure(sum *understudy.ClusterSummary, w *watcher, sink string) {
	r.TasksRestarted, r.TasksLost, r.Rollbacks = sum.TasksRestarted, sum.TasksLost, sum.Rollbacks
	r.Lost, r.Duplicates = w.lost(), w.duplicates+w.strange
	slices.SortFunc(w.lines, func(a, b visible) int { return cmp.Compare(a.at, b.at) })
	if len(w.lines) == 0 || len(sum.Acts) == 0 {
		return
	}
	r.Phases = phasesOf(sum)
	var noticed, first []float64
	zero := w.lines[0].due
	for i, act := range sum.Acts {
		k := KillTime{At: float64(act.At-zero) / 1e6, Processes: act.Processes, Partitions: []string{}, FirstOutput: []float64{}}
		dead := map[string]bool{}
		for j := range sum.Recoveries {
			rec := &sum.Recoveries[j]
			if rec.Act != i || rec.Moved {
				continue
			}
			noticed = append(noticed, rec.Noticed)
			if at := strings.LastIndexByte(rec.Name, '['); strings.Contains(rec.Name, sink) && at > 0 {
				var index int
				if _, err := fmt.Sscanf(rec.Name[at:], "[%d]", &index); err == nil {
					dead[fmt.Sprintf("part-%05d.jsonl", index)] = true
				}
			}
		}
		for _, p := range w.parts {
			longest, end := p.gap(act.At, act.At+around.Microseconds())
			if !dead[p.name] {
				k.Unaffected = max(k.Unaffected, float64(longest)/1000)
				continue
			}
			after := 0.0
			if longest > finestGap.Microseconds() {
				after = float64(end-act.At) / 1000
			}
			k.Partitions, k.FirstOutput = append(k.Partitions, p.name), append(k.FirstOutput, after)
			first = append(first, after)
		}
		r.NoOutputMax = max(r.NoOutputMax, k.Unaffected)
		r.PerKill = append(r.PerKill, k)
	}
	r.Kills = len(sum.Acts)
	r.FirstOutputP50, r.FirstOutputP99 = quantile(first, 0.5), quantile(first, 0.99)
	r.NoticedP50 = quantile(noticed, 0.5)
	r.latencies(w.lines, sum.Acts[0].At, sum.Acts[len(sum.Acts)-1].At)
	r.curve = curveOf(w.lines, zero, sum.Acts[0].At-curveBefore.Microseconds())
}

// phasesOf is the median of each phase over the tasks that were restarted because of a kill.
func phasesOf(sum *understudy.ClusterSummary) Phases {
	var decided, collected, restored, replayed, first, caughtUp []float64
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
		note(&decided, rec.Decided)
		note(&collected, rec.Collected)
		note(&restored, rec.Restored)
		note(&replayed, rec.Replayed)
		note(&first, rec.FirstOutput)
		note(&caughtUp, rec.Recovered)
	}
	return Phases{
		Decided: quantile(decided, 0.5), Collected: quantile(collected, 0.5), Restored: quantile(restored, 0.5),
		Replayed: quantile(replayed, 0.5), FirstOutput: quantile(first, 0.5), CaughtUp: quantile(caughtUp, 0.5),
	}
}

// latencies works out the figures about latency from due to visible.
func (r *Recovery) latencies(lines []visible, firstKill, lastKill int64) {
	var before, after []float64
	for _, l := range lines {
		switch late := float64(l.at-l.due) / 1000; {
		case l.at < firstKill && l.at > firstKill-int64(5e6):
			before = append(before, late)
		case l.at >= firstKill && l.at < firstKill+reportAfter.Microseconds():
			after = append(after, late)
		}
	}
	r.LatencyBefore, r.LatencyP50, r.LatencyP99 = quantile(before, 0.5), quantile(after, 0.5), quantile(after, 0.99)
	r.BackToNormal = backToNormal(lines, lastKill, r.LatencyBefore)
}

const (
	rollingStep   = 50 * time.Millisecond
	rollingWindow = time.Second
	within        = 1.1
	orMillis      = 1.0
)

// backToNormal is Definition.
func backToNormal(lines []visible, kill int64, before float64) float64 {
	limit := max(before*within, before+orMillis)
	calm := int64(-1)
	for at := kill; at < lines[len(lines)-1].at; at += rollingStep.Microseconds() {
		from, _ := slices.BinarySearchFunc(lines, at-rollingWindow.Microseconds(), func(l visible, t int64) int { return cmp.Compare(l.at, t) })
		to, _ := slices.BinarySearchFunc(lines, at, func(l visible, t int64) int { return cmp.Compare(l.at, t) })
		var window []float64
		for _, l := range lines[from:to] {
			window = append(window, float64(l.at-l.due)/1000)
		}
		switch {
		case len(window) == 0 || quantile(window, 0.5) > limit:
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

// curveOf is the latency over time, by when records were due, so that a stall shows in all that came due meanwhile. Lines are sorted by
// when they were seen.
func curveOf(lines []visible, zero, from int64) (curve []instant) {
	byDue := slices.Clone(lines)
	slices.SortFunc(byDue, func(a, b visible) int { return cmp.Compare(a.due, b.due) })
	var late []float64
	step := from
	end := func() {
		if len(late) > 0 {
			curve = append(curve, instant{at: float64(step-zero) / 1e6, p50: quantile(late, 0.5), p99: quantile(late, 0.99)})
			late = late[:0]
		}
	}
	for _, l := range byDue {
		if l.due < from {
			continue
		}
		if l.due >= step+curveStep.Microseconds() {
			end()
			step = from + (l.due-from)/curveStep.Microseconds()*curveStep.Microseconds()
		}
		late = append(late, float64(l.at-l.due)/1000)
	}
	end()
	return curve
}

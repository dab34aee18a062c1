package bench

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/understudy-stream/understudy/internal/bench/report"
)

// facts says where it was measured.
func (m *Machine) facts() []report.Fact {
	unknown := func(s string) string {
		if s == "" {
			return "not known"
		}
		return s
	}
	return []report.Fact{
		{Name: "CPU", Value: fmt.Sprintf("%s, %d cores", unknown(m.CPU), m.Cores)},
		{Name: "Memory", Value: fmt.Sprintf("%.1f GB", float64(m.MemoryBytes)/1e9)},
		{Name: "Go", Value: m.Go + " " + m.System},
		{Name: "Kernel", Value: unknown(m.Kernel)},
		{Name: "Load before", Value: fmt.Sprintf("%.2f", m.Load)},
	}
}

// common are the facts of a comparison.
func common(m *Machine, repeats, parallelism, workers int, interval int64, seed uint64, complete bool) []report.Fact {
	facts := append(m.facts(), report.Fact{Name: "Setup", Value: fmt.Sprintf(
		"%d repeats, parallelism %d, %d workers in one process, a standby per task, a checkpoint every %d ms, order by seed %d",
		repeats, parallelism, workers, interval, seed)})
	if !complete {
		facts = append(facts, report.Fact{Name: "Interrupted", Value: "only the queries that were finished are here"})
	}
	return facts
}

// Slower puts a loss into words: "3.0% slower", or "0.5% faster" if there is none.
func Slower(loss float64) string {
	if loss < 0 {
		return fmt.Sprintf("%.1f%% faster", -loss*100)
	}
	return fmt.Sprintf("%.1f%% slower", loss*100)
}

func (s *Spread) values() report.Values { return report.Values{All: s.All, Median: s.Median} }

const howCompared = "Small dots are the repeats, big ones their medians. Each ratio is made within a repeat, so that what else the machine does " +
	"cancels out. By CPU: of the events per second of computing, which other programs disturb less than the time that passes."

// Page shows what was measured.
func (r *Overhead) Page() report.Page {
	p := report.Page{
		Title: "What logging costs",
		Lead: []string{
			fmt.Sprintf("Exactly-once at full depth against none: %s in the median over the queries, %s at worst (%s). By CPU: %s, %s at worst (%s). Against "+
				"at-least-once: %s in the median.", Slower(r.MedianLossFull), Slower(r.WorstLossFull), r.WorstQuery, Slower(r.MedianCPULossFull),
				Slower(r.WorstCPULossFull), r.WorstCPUQuery, Slower(r.MedianLossVsAtLeastOnce)),
			"None is mode global-rollback, which keeps no output and logs no choice, with the same standbys and checkpoints.",
		},
		Facts: common(&r.Machine, r.Repeats, r.Parallelism, r.Workers, r.IntervalMillis, r.Seed, r.Complete),
	}
	if c := r.Control; c != nil {
		p.Lead = append(p.Lead, fmt.Sprintf("None against itself, in turns with the others: %s in the median, %s at worst (%s); by CPU %s and %s (%s). That should be "+
			"0, and what logging costs is known no better.", Slower(c.MedianLoss), Slower(c.WorstLoss), c.WorstQuery, Slower(c.MedianCPULoss),
			Slower(c.WorstCPULoss), c.WorstCPUQuery))
	}
	if more := r.MeasuredOn(); len(more) > 0 {
		p.Lead = append(p.Lead, "Measured more often than the others, since they looked worst: "+strings.Join(more, ", ")+".")
	}
	series := r.Compared()
	var wall, cpu []report.Row
	table := report.Table{
		Title: "What is kept, exactly once at full depth",
		Heads: []string{"query", "events per run", "none, events/s", "determinants, B/event", "output kept, MB", "checkpoint, MB", "checkpoint, ms",
			"checkpoints", "of none"},
	}
	for i := range r.Queries {
		q := &r.Queries[i]
		w, c := report.Row{Name: q.Query}, report.Row{Name: q.Query}
		for j := range q.Arms[1:] {
			a := &q.Arms[1+j]
			w.Series, c.Series = append(w.Series, a.Ratio.values()), append(c.Series, a.CPURatio.values())
		}
		wall, cpu = append(wall, w), append(cpu, c)
		t := q.Typical(ExactlyOnce)
		table.Rows = append(table.Rows, []string{
			q.Query, fmt.Sprint(q.Events), fmt.Sprintf("%.0f", q.Arms[0].Speed.Median), fmt.Sprintf("%.4f", t.DeterminantBytes),
			fmt.Sprintf("%.1f", float64(t.InflightPeak)/1e6), fmt.Sprintf("%.2f", float64(t.CheckpointBytes)/1e6),
			fmt.Sprintf("%.1f", t.CheckpointMillis), strconv.Itoa(t.Checkpoints), strconv.Itoa(q.Typical(None).Checkpoints),
		})
	}
	p.Figures = []report.Figure{
		report.Ranges("Throughput against none", howCompared, "part of the throughput of none", series, wall, 1),
		report.Ranges("By CPU", "", "part of the events per second of computing of none", series, cpu, 1),
	}
	p.Tables = []report.Table{table}
	return p
}

// Page shows what was measured.
func (r *Baseline) Page() report.Page {
	p := report.Page{
		Title: "The engine beside plain Go programs",
		Lead: []string{
			fmt.Sprintf("The engine, exactly once at full depth, has %.2f of the throughput of a plain program in the median over the queries, %.2f at "+
				"worst (%s). By CPU %.2f.", r.MedianRatio, r.WorstRatio, r.WorstQuery, r.MedianCPURatio),
			"The plain programs are goroutines, channels of batches and maps, and survive no failure. They read the same events at the same " +
				"parallelism and give the same rows.",
			fmt.Sprintf("Making an event costs %.0f ns of computing (both programs do), and the engine adds %.0f ns to what the plain program takes, in the median. "+
				"Without the making, the engine has %.2f of the plain program's throughput by CPU.", r.Generator, r.MedianAdded, r.MedianOwnRatio),
		},
		Facts: common(&r.Machine, r.Repeats, r.Parallelism, r.Workers, r.IntervalMillis, r.Seed, r.Complete),
	}
	var rows []report.Row
	table := report.Table{Title: "Throughput", Heads: []string{"query", "events per run", "plain, events/s", "engine, events/s", "ratio", "by CPU", "without the events", "plain, ns/event",
		"engine, ns/event", "events, ns/event"}}
	for i := range r.Queries {
		q := &r.Queries[i]
		rows = append(rows, report.Row{Name: q.Query, Series: []report.Values{q.Ratio.values(), q.CPURatio.values()}})
		table.Rows = append(table.Rows, []string{
			q.Query, fmt.Sprint(q.Events), fmt.Sprintf("%.0f", MedianSpeed(q.Plain)), fmt.Sprintf("%.0f", MedianSpeed(q.Engine)),
			fmt.Sprintf("%.3f", q.Ratio.Median), fmt.Sprintf("%.3f", q.CPURatio.Median), fmt.Sprintf("%.3f", q.OwnRatio),
			fmt.Sprintf("%.0f", MedianCPU(q.Plain)), fmt.Sprintf("%.0f", MedianCPU(q.Engine)), fmt.Sprintf("%.0f", MedianCPU(q.Made)),
		})
	}
	p.Figures = []report.Figure{report.Ranges("Throughput against the plain program", howCompared, "part of the plain program's throughput",
		[]string{"throughput", "by CPU"}, rows, 1)}
	p.Tables = []report.Table{table}
	return p
}

// Page shows what was measured.
func (r *Recovery) Page() report.Page {
	p := report.Page{
		Title: fmt.Sprintf("Recovery: %s", r.Experiment),
		Lead: []string{
			fmt.Sprintf("%d kills by kill -9, %d records at %d per second. Lost %d, doubled %d.", r.Kills, r.Records, r.Rate, r.Lost, r.Duplicates),
			"Latency is counted from when a record was due, whatever held its source up, to when a reader of the output saw it.",
			Definition + ".",
		},
		Facts: append(r.Machine.facts(),
			report.Fact{Name: "State", Value: fmt.Sprintf("%d MB asked for, %.1f MB in the largest checkpoint", r.StateMB, float64(r.CheckpointBytes)/1e6)},
			report.Fact{Name: "First new output of a partition that died", Value: milliText(r.FirstOutputP50) + " in the median, " + milliText(r.FirstOutputP99) + " p99"},
			report.Fact{Name: "Longest gap of the others", Value: milliText(r.NoOutputMax) + ", of any before the first kill " + milliText(r.NoOutputBefore)},
			report.Fact{Name: "Latency before", Value: milliText(r.LatencyBefore) + " in the median"},
			report.Fact{Name: "Latency in the 100 s after", Value: milliText(r.LatencyP50) + " in the median, " + milliText(r.LatencyP99) + " p99"},
			report.Fact{Name: "Back to normal after", Value: milliText(r.BackToNormal)},
			report.Fact{Name: "Processors", Value: r.ProcessorText()},
		),
	}
	p50, p99 := report.Curve{Name: "median"}, report.Curve{Name: "p99"}
	for _, c := range r.curve {
		p50.X, p50.Y = append(p50.X, c.at), append(p50.Y, c.p50)
		p99.X, p99.Y = append(p99.X, c.at), append(p99.Y, c.p99)
	}
	var marks []report.Mark
	table := report.Table{Title: "Kills", Heads: []string{
		"at, s", "processes", "tasks lost", "partitions that died", "first new output, ms", "longest gap of others", "before"}}
	for _, k := range r.PerKill {
		marks = append(marks, report.Mark{X: k.At})
		before := "settled"
		if !k.Settled {
			before = k.Unsettled
		}
		table.Rows = append(table.Rows, []string{
			fmt.Sprintf("%.1f", k.At), strings.Join(k.Processes, ", "), strconv.Itoa(k.TasksLost), strings.Join(k.Partitions, ", "), listed(k.FirstOutput),
			k.LongestGap(), before,
		})
	}
	p.Figures = []report.Figure{report.Times("Latency by when a record was due", "Dashed lines are kills.", "seconds since the first record was due",
		"ms", []report.Curve{p50, p99}, marks)}
	p.Tables = []report.Table{table}
	return p
}

// ProcessorText says how busy they were.
func (r *Recovery) ProcessorText() string {
	if r.Stolen < 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.0f%% busy, %.1f%% taken by the machine's host", r.Busy, r.Stolen)
}

// FirstOutputs lists the times of FirstOutput.
func (k *KillTime) FirstOutputs() string {
	if len(k.FirstOutput) == 0 {
		return "none died"
	}
	return listed(k.FirstOutput) + " ms"
}

// LongestGap is Unaffected as text.
func (k *KillTime) LongestGap() string {
	if k.Unaffected < 0 {
		return "no others"
	}
	return milliText(k.Unaffected)
}

func listed(values []float64) string {
	var all []string
	for _, v := range values {
		all = append(all, fmt.Sprintf("%.0f", v))
	}
	return strings.Join(all, ", ")
}

func milliText(ms float64) string {
	if ms < 0 {
		return "not measured"
	}
	return fmt.Sprintf("%.1f ms", ms)
}

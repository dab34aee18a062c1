package bench

import (
	"fmt"

	"github.com/understudy-stream/understudy/internal/bench/report"
)

// Page shows what was measured.
func (r *Latency) Page() report.Page {
	p := report.Page{
		Title: "From due to visible",
		Lead: []string{
			fmt.Sprintf("At %d records per second, the worst p99 of a causal sink is %.1f ms, in the median over the repeats. Lost %d, doubled %d.",
				r.Rate, r.WorstP99, r.Lost, r.Duplicates),
			"Latency is counted from when a record was due, whatever held its source up, to when a reader of the sink had it: one with the system's own " +
				"client, in another process than the job's workers.",
			"The transactional form shows output when its checkpoint is committed. Where a connector has none, the benchmark holds output back until then and " +
				"gives it to the causal form.",
		},
		Facts: append(r.Machine.facts(), report.Fact{Name: "Setup", Value: fmt.Sprintf(
			"%d repeats, %.0f s of each run measured, records of %d bytes, parallelism %d, %d worker processes and a coordinator, a standby per task, "+
				"a checkpoint every %d ms, order by seed %d", r.Repeats, r.Seconds, r.RecordBytes, r.Parallelism, r.Workers, r.IntervalMillis, r.Seed)}),
	}
	if !r.Complete {
		p.Facts = append(p.Facts, report.Fact{Name: "Interrupted", Value: "only the repeats that were finished are here"})
	}
	table := report.Table{Title: "Medians of the repeats, and the greatest", Heads: []string{"sink", "form", "p50, ms", "p99, ms", "p99 at worst, ms", "max, ms"}}
	for _, transactional := range []bool{false, true} {
		var rows []report.Row
		for i := range r.Sinks {
			s := &r.Sinks[i]
			f := s.Form(transactional)
			rows = append(rows, report.Row{Name: s.Scheme(), Series: []report.Values{f.P50.values(), f.P99.values(), f.Max.values()}})
			table.Rows = append(table.Rows, []string{s.Sink, f.Name(transactional), fmt.Sprintf("%.1f", f.P50.Median), fmt.Sprintf("%.1f", f.P99.Median),
				fmt.Sprintf("%.1f", f.P99.Max), fmt.Sprintf("%.1f", f.Max.Max)})
		}
		p.Figures = append(p.Figures, report.Ranges("The "+formName(transactional)+" form", "Small dots are the repeats, big ones their medians.", "ms",
			[]string{"p50", "p99", "max"}, rows, 0))
	}
	p.Tables = []report.Table{table}
	return p
}

// Name says which form it is.
func (f *FormLatency) Name(transactional bool) string {
	name := formName(transactional)
	if f.Held {
		name += " (held)"
	}
	return name
}

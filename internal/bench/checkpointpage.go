package bench

import (
	"fmt"

	"github.com/understudy-stream/understudy/internal/bench/report"
)

// Page shows what was measured.
func (r *Checkpoint) Page() report.Page {
	p := report.Page{
		Title: "What checkpoints of a big state cost",
		Lead: []string{
			fmt.Sprintf("With %d MiB of state and %.2f%% of it in each checkpoint, the job is %s than without checkpoints (by CPU %s), and the p99 of latency at half of the full rate "+
				"is %.1f ms more.", r.StateMB, r.DirtyMeasured, Slower(r.Loss), Slower(r.LossByCPU), r.P99Added),
			"Latency is counted from when a record was due to when it was written to the sink, whatever held its source up.",
		},
		Facts: common(&r.Machine, r.Repeats, r.Parallelism, r.Workers, r.IntervalMillis, r.Seed, r.Complete),
	}
	var ratio, late []report.Row
	rates := report.Table{Title: "Repeats", Heads: []string{"repeat", "without, records/s", "with, records/s"}}
	for i := range r.Full[0] {
		rates.Rows = append(rates.Rows, []string{fmt.Sprint(i + 1), fmt.Sprintf("%.0f", r.Full[0][i].Rate), fmt.Sprintf("%.0f", r.Full[1][i].Rate)})
	}
	lates := report.Table{Title: "Latency at half of that rate", Heads: []string{"time", "p50 without, ms", "p50 with, ms", "p99 without, ms", "p99 with, ms"}}
	for i := range r.Half[0] {
		without, with := &r.Half[0][i], &r.Half[1][i]
		lates.Rows = append(lates.Rows, []string{
			fmt.Sprint(i + 1), fmt.Sprintf("%.1f", without.P50), fmt.Sprintf("%.1f", with.P50), fmt.Sprintf("%.1f", without.P99), fmt.Sprintf("%.1f", with.P99),
		})
	}
	ratio = []report.Row{{Name: "with", Series: []report.Values{r.Ratio.values()}}}
	late = []report.Row{{Name: "added", Series: []report.Values{r.P99AddedAll.values()}}}
	p.Figures = []report.Figure{
		report.Ranges("Throughput with checkpoints", howCompared, "part of the throughput without", []string{"throughput"}, ratio, 1),
		report.Ranges("p99 of latency", "", "ms more with checkpoints than without", []string{"p99"}, late, 0),
	}
	p.Tables = []report.Table{rates, lates, {Title: "Checkpoints", Heads: []string{"", "median", "greatest"}, Rows: [][]string{
		{"MB", fmt.Sprintf("%.2f", r.CheckpointBytes/1e6), ""},
		{"ms", fmt.Sprintf("%.0f", r.CheckpointMS), fmt.Sprintf("%.0f", r.CheckpointMax)},
	}}}
	return p
}

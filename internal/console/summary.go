package console

import (
	"fmt"
	"io"
	"slices"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/cluster/supervisor"
)

// Ending is what stands at the end of a run's text beside the summary.
type Ending struct {
	Seed     uint64 // of chaos
	Chaos    bool   // failures were asked for
	Mode     string
	Letters  string // where records are that were set aside
	Output   string // to be removed to begin anew
	StateDir string
}

// WriteSummary prints what a run in one process did.
func WriteSummary(w io.Writer, sum *cluster.Summary, e Ending) error {
	if sum.Complete {
		return writeComplete(w, e)
	}
	fmt.Fprintln(w, sum)
	switch {
	case sum.Kills > 0:
		fmt.Fprintf(w, "%s (seed %d)\n", count(sum.Kills, "kill"), e.Seed)
	case e.Chaos:
		fmt.Fprintf(w, noneKilled, e.Seed)
	}
	if sum.TasksRestarted > 0 {
		fmt.Fprintf(w, "%s restarted, %s, %s suppressed\n", count(sum.TasksRestarted, "task"), count(sum.Rollbacks, "global rollback"),
			count(sum.DuplicatesDropped, "duplicate"))
		var alone, together []float64
		for i := range sum.Recoveries {
			if r := &sum.Recoveries[i]; r.Rollback {
				together = append(together, r.Restored)
			} else {
				alone = append(alone, r.Recovered)
			}
		}
		writeTimes(w, "from noticed to caught up", alone)
		writeTimes(w, "rolled back, from noticed to running again", together)
	}
	return writeEnd(w, sum, e)
}

// noneKilled says that no failure came that was asked for.
const noneKilled = "nothing was killed (seed %d)\n"

// count is a number of things in words.
func count[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// writeTimes prints how long something took, if it began at all.
func writeTimes(w io.Writer, what string, times []float64) {
	if len(times) > 0 {
		fmt.Fprintf(w, "%s: %s\n", what, spread(times))
	}
}

// WriteClusterSummary prints what a run on processes did.
func WriteClusterSummary(w io.Writer, sum *supervisor.Summary, e Ending) error {
	if sum.Complete {
		return writeComplete(w, e)
	}
	fmt.Fprintln(w, sum.Summary)
	switch {
	case len(sum.Acts) > 0:
		fmt.Fprintf(w, "kill -9 of %s and %s, %s, %s (seed %d)\n", count(sum.WorkerKills, "worker"), count(sum.CoordinatorKills, "coordinator"),
			count(sum.Pauses, "pause"), count(sum.LinkCuts, "cut link"), e.Seed)
	case e.Chaos:
		fmt.Fprintf(w, noneKilled, e.Seed)
	}
	if n := len(sum.Endings); n > 0 {
		last := &sum.Endings[n-1]
		fmt.Fprintf(w, "%d processes ended by themselves and were started again, the last one %s: %s\n", n, last.Process, last.How)
	}
	if sum.TasksRestarted > 0 {
		fmt.Fprintf(w, "%s restarted, %d of them of workers that died, %s, %s suppressed\n",
			count(sum.TasksRestarted, "task"), sum.TasksLost, count(sum.Rollbacks, "global rollback"), count(sum.DuplicatesDropped, "duplicate"))
		writePhases(w, sum.Recoveries)
	}
	if sum.TasksMoved > 0 {
		fmt.Fprintf(w, "%s handed over to balance or drain workers\n", count(sum.TasksMoved, "task"))
	}
	return writeEnd(w, &sum.Summary, e)
}

// writePhases prints how long the phases of recoveries took that followed a known act.
func writePhases(w io.Writer, all []supervisor.Recovery) {
	var noticed, output, caughtUp, rolledBack []float64
	for i := range all {
		switch r := &all[i]; {
		case r.Act < 0:
		case r.Rollback:
			rolledBack = append(rolledBack, r.Restored)
		default:
			noticed, output, caughtUp = append(noticed, r.Noticed), append(output, r.FirstOutput), append(caughtUp, r.Recovered)
		}
	}
	writeTimes(w, "from a failure to noticed", noticed)
	writeTimes(w, "from a failure to first new output", output)
	writeTimes(w, "from a failure to caught up", caughtUp)
	writeTimes(w, "rolled back, from a failure to running again", rolledBack)
}

func writeComplete(w io.Writer, e Ending) error {
	_, err := fmt.Fprintf(w, "nothing to do: an earlier run has processed all the input that it was given (to begin anew, or with other input, remove %s)\n",
		both(e.Output, e.StateDir))
	return err
}

func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " and " + b
}

func writeEnd(w io.Writer, sum *cluster.Summary, e Ending) error {
	if sum.SetAside > 0 {
		fmt.Fprintf(w, "%d records set aside in %s\n", sum.SetAside, e.Letters)
	}
	_, err := fmt.Fprintf(w, "%d bytes of determinants, mode %s\n", sum.DeterminantBytes, e.Mode)
	return err
}

// spread summarises times, of which -1 means never.
func spread(times []float64) string {
	seen := slices.DeleteFunc(slices.Clone(times), func(ms float64) bool { return ms < 0 })
	if len(seen) == 0 {
		return fmt.Sprintf("not seen (%d tasks)", len(times))
	}
	slices.Sort(seen)
	return fmt.Sprintf("median %.1f ms, slowest %.1f ms (%d of %d tasks)", seen[len(seen)/2], seen[len(seen)-1], len(seen), len(times))
}

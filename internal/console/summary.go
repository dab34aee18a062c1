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
	writeCounts(w, sum)
	if sum.Kills > 0 || sum.TasksRestarted > 0 {
		fmt.Fprintf(w, "%d kills (seed %d), %d tasks restarted, %d global rollbacks, %d duplicates suppressed\n",
			sum.Kills, e.Seed, sum.TasksRestarted, sum.Rollbacks, sum.DuplicatesDropped)
		var times []float64
		for i := range sum.Recoveries {
			times = append(times, sum.Recoveries[i].Recovered)
		}
		fmt.Fprintf(w, "from noticed to caught up: %s\n", spread(times))
	}
	return writeEnd(w, sum, e)
}

// WriteClusterSummary prints what a run on processes did.
func WriteClusterSummary(w io.Writer, sum *supervisor.Summary, e Ending) error {
	if sum.Complete {
		return writeComplete(w, e)
	}
	writeCounts(w, &sum.Summary)
	if len(sum.Acts) > 0 {
		fmt.Fprintf(w, "kill -9 of %d workers and %d coordinators, %d pauses, %d cuts of links (seed %d)\n",
			sum.WorkerKills, sum.CoordinatorKills, sum.Pauses, sum.LinkCuts, e.Seed)
	}
	if sum.TasksRestarted > 0 {
		fmt.Fprintf(w, "%d tasks restarted, %d of which were on a worker that died, %d global rollbacks, %d duplicates suppressed\n",
			sum.TasksRestarted, sum.TasksLost, sum.Rollbacks, sum.DuplicatesDropped)
		writePhases(w, sum.Recoveries)
	}
	return writeEnd(w, &sum.Summary, e)
}

// writePhases prints how long the phases of recoveries took that followed a known act.
func writePhases(w io.Writer, all []supervisor.Recovery) {
	for _, phase := range []struct {
		name string
		of   func(*supervisor.Recovery) float64
	}{
		{"noticed", func(r *supervisor.Recovery) float64 { return r.Noticed }},
		{"first new output", func(r *supervisor.Recovery) float64 { return r.FirstOutput }},
		{"caught up", func(r *supervisor.Recovery) float64 { return r.Recovered }},
	} {
		var times []float64
		for i := range all {
			if all[i].Act >= 0 {
				times = append(times, phase.of(&all[i]))
			}
		}
		if len(times) > 0 {
			fmt.Fprintf(w, "from a failure to %s: %s\n", phase.name, spread(times))
		}
	}
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

func writeCounts(w io.Writer, sum *cluster.Summary) {
	fmt.Fprintf(w, "%d records in, %d records out, %.1f s, %d checkpoints\n", sum.RecordsIn, sum.RecordsOut, sum.Seconds, sum.Checkpoints)
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
	times = slices.DeleteFunc(slices.Clone(times), func(ms float64) bool { return ms < 0 })
	if len(times) == 0 {
		return "never seen"
	}
	slices.Sort(times)
	return fmt.Sprintf("median %.1f ms, slowest %.1f ms (%d recoveries)", times[len(times)/2], times[len(times)-1], len(times))
}

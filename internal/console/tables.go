package console

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/understudy-stream/understudy/cluster"
)

// shownRecoveries is how many of the last recoveries a status shows.
const shownRecoveries = 10

// WriteStatus shows a status as tables.
func WriteStatus(w io.Writer, s *cluster.Status) error {
	t := &tables{tab: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.head(s)
	t.workers(s)
	t.tasks(s)
	t.recoveries(s.Summary.Recoveries)
	return t.tab.Flush()
}

// tables writes rows of cells. An error shows when they are flushed.
type tables struct{ tab *tabwriter.Writer }

func (t *tables) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.tab, "\t")
		}
		fmt.Fprint(t.tab, c)
	}
	fmt.Fprintln(t.tab)
}

// end ends a table: the next one has columns of its own.
func (t *tables) end() {
	_ = t.tab.Flush() // an error comes again at the end
	fmt.Fprintln(t.tab)
}

func (t *tables) head(s *cluster.Status) {
	t.row("job", s.Job)
	t.row("cluster", s.Cluster)
	state := string(s.State)
	if s.Err != "" {
		state += ": " + s.Err
	}
	t.row("state", state)
	mode := s.Mode
	if s.ModeWanted != "" && s.ModeWanted != s.Mode {
		mode += ", soon " + s.ModeWanted
	}
	t.row("mode", fmt.Sprintf("%s, sharing depth %s", mode, s.Depth))
	var coordinators []string
	for _, c := range s.Coordinators {
		text := c.Address
		if c.Leader {
			text += " (leads)"
		}
		coordinators = append(coordinators, text)
	}
	t.row("coordinators", strings.Join(coordinators, ", "))
	t.row("checkpoint", checkpointLine(&s.Checkpoint))
	if len(s.Checkpoint.Unprotected) > 0 {
		t.row("no standby", strings.Join(s.Checkpoint.Unprotected, ", "))
	}
	t.row("rollbacks", s.Generation)
	for _, why := range s.Waiting {
		t.row("waiting", why)
	}
	t.end()
}

func checkpointLine(c *cluster.CheckpointStatus) string {
	text := "none is complete yet"
	if c.Committed > 0 {
		text = fmt.Sprintf("%d is complete", c.Committed)
		if c.AgeMillis >= 0 {
			text += fmt.Sprintf(" since %s", Span(c.AgeMillis))
		}
		if c.TookMillis >= 0 {
			text += fmt.Sprintf(", took %s", Span(c.TookMillis))
		}
		if c.Bytes > 0 {
			text += ", " + Size(c.Bytes)
		}
	}
	if c.UnderWay > 0 {
		text += fmt.Sprintf("; %d is under way", c.UnderWay)
		if len(c.MissingTasks) > 0 {
			text += ", without " + strings.Join(c.MissingTasks, ", ")
		}
	}
	return text
}

func (t *tables) workers(s *cluster.Status) {
	if len(s.Workers) == 0 {
		t.row("no workers")
		t.end()
		return
	}
	t.row("WORKER", "STATE", "ADDRESS", "HOST", "PROCESS", "HEARD", "TASKS", "STANDBYS", "KEPT", "SPILLED", "DETERMINANTS", "STATE SIZE", "LINKS DOWN")
	for i := range s.Workers {
		w := &s.Workers[i]
		heard := "-"
		if w.HeardMillis >= 0 {
			heard = Span(w.HeardMillis) + " ago"
		}
		m := &w.Metrics
		t.row(w.Worker, w.State, w.Address, orDash(w.Host), w.Process, heard, w.Tasks, w.Standbys, Size(m.InflightMemory), Size(m.InflightDisk),
			Size(m.DeterminantBytes), Size(m.StateBytes), m.LinksDown)
	}
	t.end()
}

func (t *tables) tasks(s *cluster.Status) {
	if len(s.Tasks) == 0 {
		return
	}
	t.row("TASK", "NAME", "WORKER", "LIFE", "STATE", "RECORDS", "PER SECOND", "STANDBYS")
	for i := range s.Tasks {
		task := &s.Tasks[i]
		worker := "-"
		if task.Worker != 0 {
			worker = fmt.Sprint(task.Worker)
		}
		state := TaskState(task)
		switch s.State {
		case cluster.JobFinished:
			state = "done"
		case cluster.JobFailed:
			state = "over"
		}
		t.row(task.Task, task.Name, worker, task.Incarnation, state, task.Metrics.Records,
			fmt.Sprintf("%.0f", task.Metrics.PerSecond), Standbys(task))
	}
	t.end()
}

// longStep is how long a step may take until it is worth a word.
const longStep = time.Second

// TaskState says what a task does.
func TaskState(t *cluster.TaskStatus) string {
	switch {
	case t.Worker == 0 && t.Incarnation == 0:
		return "not placed yet"
	case t.Worker == 0:
		return "waits for a worker"
	case t.Metrics.Replaying:
		return "replaying"
	case t.Recovering:
		return "recovering"
	case t.Metrics.Waiting != "":
		return fmt.Sprintf("waits, %.60s", t.Metrics.Waiting) // all of it is among what waits
	case time.Duration(t.Metrics.BusyMillis)*time.Millisecond > longStep:
		return "in one step for " + Span(t.Metrics.BusyMillis)
	case t.Metrics.Backpressure:
		return "waits for a consumer"
	}
	return "running"
}

// Standbys lists a task's standbys.
func Standbys(t *cluster.TaskStatus) string {
	var list []string
	for _, s := range t.Standbys {
		text := fmt.Sprint(s.Worker)
		if !s.Ready {
			text += fmt.Sprintf(" (at checkpoint %d)", s.Epoch)
		}
		list = append(list, text)
	}
	return orDash(strings.Join(list, ", "))
}

func (t *tables) recoveries(all []cluster.Recovery) {
	if len(all) == 0 {
		return
	}
	if n := len(all) - shownRecoveries; n > 0 {
		t.row(fmt.Sprintf("the last %d of %d recoveries and hand-overs, in milliseconds since the failure was noticed", shownRecoveries, len(all)))
		all = all[n:]
	} else {
		t.row("recoveries and hand-overs, in milliseconds since the failure was noticed")
	}
	t.end()
	t.row("TASK", "LIFE", "FROM WORKER", "DECIDED", "COLLECTED", "RESTORED", "REPLAYED", "FIRST OUTPUT", "CAUGHT UP", "")
	for i := range all {
		r := &all[i]
		note := ""
		if r.Rollback {
			note = "global rollback"
		} else if r.Moved {
			note = "handed over, nothing had failed"
		}
		t.row(r.Name, r.Incarnation, r.From, Millis(r.Decided), Millis(r.Collected), Millis(r.Restored), Millis(r.Replayed), Millis(r.FirstOutput),
			Millis(r.Recovered), note)
	}
}

// Millis shows milliseconds, of which -1 means never.
func Millis(ms float64) string {
	if ms < 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", ms)
}

// Span shows milliseconds with a unit that fits.
func Span(ms int64) string {
	switch d := time.Duration(ms) * time.Millisecond; {
	case d < time.Second:
		return fmt.Sprintf("%d ms", ms)
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

// Size shows bytes with a unit that fits.
func Size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

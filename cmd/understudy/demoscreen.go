package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/understudy-stream/understudy/cluster"
	"github.com/understudy-stream/understudy/internal/console"
)

// demoScreen draws lines over those that it has drawn before.
type demoScreen struct {
	out   io.Writer
	size  func() (width, height int, err error)
	drawn int
}

// draw writes all lines in one go. What does not fit is left out.
func (s *demoScreen) draw(lines []string) {
	width, height, err := s.size()
	if err != nil || width < 1 || height < 2 {
		width, height = 80, 24
	}
	if len(lines) >= height {
		lines = lines[:height-1]
	}
	var b bytes.Buffer
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	b.WriteString("\r\x1b[J")
	for _, line := range lines {
		if r := []rune(line); len(r) > width {
			line = string(r[:width])
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	s.drawn = len(lines)
	_, _ = s.out.Write(b.Bytes()) // a terminal that is gone has nobody who looks at it
}

// lines is the picture.
func (v *demoView) lines(now time.Time) []string {
	var b strings.Builder
	for _, line := range v.title() {
		fmt.Fprintln(&b, line)
	}
	if v.status == nil {
		fmt.Fprintln(&b, "the processes are starting")
		return split(&b)
	}
	v.workers(&b)
	s := v.status
	fmt.Fprintf(&b, "\n%.1f s   %d lines in, %.0f/s   %d counts out   checkpoint %d   %s", now.Sub(v.began).Seconds(), s.Summary.RecordsIn, v.rate,
		s.Summary.RecordsOut, s.Checkpoint.Committed, s.State)
	for _, why := range s.Waiting {
		fmt.Fprintf(&b, "\nwaiting: %s", why)
	}
	fmt.Fprintln(&b)
	for i := len(v.kills) - 1; i >= 0; i-- { // the last one first, lest it be cut off
		v.kills[i].table(&b, v)
	}
	return split(&b)
}

func split(b *strings.Builder) []string {
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// workers shows who does what.
func (v *demoView) workers(b *strings.Builder) {
	tab := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tab, "PROCESS\tSTATE\tRUNS\tSTANDS BY FOR\tRECORDS/S")
	for i := range demoWorkers {
		name := fmt.Sprintf("worker-%d", i)
		state, tasks, standbys, rate := v.duties(name)
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%.0f\n", name, state, tasks, standbys, rate)
	}
	_ = tab.Flush() // a strings.Builder takes everything
}

// duties are what a process does now.
func (v *demoView) duties(name string) (state, tasks, standbys string, rate float64) {
	if v.down[name] && v.status.State != cluster.JobFinished {
		return "down", "-", "-", 0
	}
	var worker *cluster.WorkerStatus
	for i := range v.status.Workers {
		if w := &v.status.Workers[i]; v.names[w.Process] == name {
			worker = w
		}
	}
	if worker == nil {
		return "joining", "-", "-", 0
	}
	var runs, waits []string
	for i := range v.status.Tasks {
		t := &v.status.Tasks[i]
		if t.Worker == worker.Worker {
			text := short(t.Name)
			if state := console.TaskState(t); state == "recovering" || state == "replaying" {
				text += " (" + state + ")"
			}
			runs = append(runs, text)
			rate += t.Metrics.PerSecond
		}
		for _, s := range t.Standbys {
			if s.Worker == worker.Worker {
				waits = append(waits, short(t.Name))
			}
		}
	}
	return string(worker.State), dashed(runs), dashed(waits), rate
}

func dashed(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}

// table shows a kill and what followed.
func (k *demoKill) table(b *strings.Builder, v *demoView) {
	fmt.Fprintf(b, "\n%s\n", strings.TrimLeft(v.line(k.at, "kill -9 of %s; milliseconds from there:", k.process), " "))
	tab := tabwriter.NewWriter(b, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(tab, "task\t")
	for _, phase := range demoPhases {
		fmt.Fprintf(tab, "%s\t", phase)
	}
	fmt.Fprintln(tab, "now on\t")
	for _, r := range k.tasks {
		fmt.Fprintf(tab, "%s\t", r.name)
		for _, ms := range r.ms {
			fmt.Fprintf(tab, "%s\t", console.Millis(ms))
		}
		to := "-"
		if r.to != 0 {
			to = v.process(r.to)
		}
		fmt.Fprintf(tab, "%s\t\n", to)
	}
	_ = tab.Flush() // a strings.Builder takes everything
}

package console

import (
	"fmt"
	"io"

	"github.com/understudy-stream/understudy/cluster"
)

// ProgressLine is a line on a terminal that is written over as a job goes on.
type ProgressLine struct {
	Out    io.Writer
	shown  bool
	last   uint64
	lastAt float64
	rate   float64
}

// Show writes the line.
func (l *ProgressLine) Show(p cluster.Progress) {
	if dt := p.Seconds - l.lastAt; dt > 0 && p.RecordsIn >= l.last {
		l.rate = float64(p.RecordsIn-l.last) / dt
	}
	l.last, l.lastAt, l.shown = p.RecordsIn, p.Seconds, true
	fmt.Fprintf(l.Out, "\r\x1b[K%6.1f s  %d in  %.0f/s  %d out  %d checkpoints", p.Seconds, p.RecordsIn, l.rate, p.RecordsOut, p.Checkpoints)
	if p.Kills > 0 {
		fmt.Fprintf(l.Out, "  %d kills", p.Kills)
	}
	if p.Recovering > 0 {
		fmt.Fprintf(l.Out, "  %d recovering", p.Recovering)
	}
	if p.Rollbacks > 0 {
		fmt.Fprintf(l.Out, "  %d rollbacks", p.Rollbacks)
	}
	if p.Waiting != "" {
		fmt.Fprintf(l.Out, "  waiting: %.80s", p.Waiting)
	}
}

// Clear takes the line away.
func (l *ProgressLine) Clear() {
	if l.shown {
		fmt.Fprint(l.Out, "\r\x1b[K")
	}
}

package main

import (
	"fmt"
	"io"
	"slices"

	understudy "github.com/understudy-stream/understudy"
)

// progressLine is a line on a terminal that is written over as the job goes on.
type progressLine struct {
	out    io.Writer
	shown  bool
	last   uint64
	lastAt float64
	rate   float64
}

func (l *progressLine) show(p understudy.Progress) {
	if dt := p.Seconds - l.lastAt; dt > 0 && p.RecordsIn >= l.last {
		l.rate = float64(p.RecordsIn-l.last) / dt
	}
	l.last, l.lastAt, l.shown = p.RecordsIn, p.Seconds, true
	fmt.Fprintf(l.out, "\r\x1b[K%6.1f s  %d in  %.0f/s  %d out  %d checkpoints", p.Seconds, p.RecordsIn, l.rate, p.RecordsOut, p.Checkpoints)
	if p.Kills > 0 {
		fmt.Fprintf(l.out, "  %d kills", p.Kills)
	}
	if p.Recovering > 0 {
		fmt.Fprintf(l.out, "  %d recovering", p.Recovering)
	}
	if p.Rollbacks > 0 {
		fmt.Fprintf(l.out, "  %d rollbacks", p.Rollbacks)
	}
}

func (l *progressLine) clear() {
	if l.shown {
		fmt.Fprint(l.out, "\r\x1b[K")
	}
}

// recoveryTimes summarises how long tasks took to catch up.
func recoveryTimes(sum *understudy.Summary) string {
	var times []float64
	for _, r := range sum.Recoveries {
		if r.Recovered >= 0 {
			times = append(times, r.Recovered)
		}
	}
	if len(times) == 0 {
		return "no recovery was completed"
	}
	slices.Sort(times)
	return fmt.Sprintf("median %.1f ms, slowest %.1f ms (%d recoveries)", times[len(times)/2], times[len(times)-1], len(times))
}

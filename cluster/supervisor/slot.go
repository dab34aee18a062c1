package supervisor

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// How often and how soon processes are started again.
const (
	shortly      = 5 * time.Second        // an end so soon after the start is an end at once
	maxEarlyEnds = 5                      // in a row, until the run ends
	firstBackoff = 50 * time.Millisecond  // doubled with each early end
	killedFor    = 400 * time.Millisecond // a process that was killed is down for less
)

// slot is a place for a process, which may have many lives.
type slot struct {
	assignment Assignment
	index      int
	proc       *process // nil while it is down
	ordered    bool     // the supervisor ends this life
	paused     bool
	early      int  // ends at once in a row
	retired    bool // its work is over: a worker that was drained
	reached    bool // this life can be reached
}

func (s *slot) name() string { return s.assignment.Name }

// start starts a process in its slot.
func (s *supervisor) start(p *slot) {
	if p.proc != nil || p.retired || s.phase != running {
		return
	}
	err := os.MkdirAll(p.assignment.StateDir, 0o755)
	if err == nil {
		p.proc, err = s.spawner.start(command{s.opts.Path, s.opts.Args}, &p.assignment, hooks{
			line:      func(line []byte) { relay(s.opts.Logger, p.name(), line) },
			listening: func(address string) { s.events <- func() { s.listening(p, address) } },
			exited:    func(e exit) { s.events <- func() { s.exited(p, e) } },
		})
	}
	if err != nil {
		s.finish(err)
		return
	}
	s.alive++
	p.ordered, p.paused, p.reached = false, false, false
	s.happened(p, Started, fmt.Sprintf("process %d", p.proc.pid()))
}

func (s *supervisor) listening(p *slot, address string) {
	p.reached = true
	s.opts.Logger.Debug("listening", "process", p.name(), "address", address)
	for _, c := range s.slots {
		if c.assignment.Role == Coordinator && !c.reached {
			return
		}
	}
	if err := s.dir.formed(); err != nil {
		s.finish(err)
	}
}

// exited takes the end of a process and decides what becomes of its slot.
func (s *supervisor) exited(p *slot, e exit) {
	s.alive--
	p.proc, p.paused = nil, false
	if e.err != nil {
		s.opts.Logger.Warn("the end of a process", "process", p.name(), "error", e.err)
	}
	if s.phase == moving && s.alive == 0 {
		s.move()
		return
	}
	if s.phase == stopping && s.alive == 0 && s.leaving != nil {
		s.finish(s.leaving)
	}
	if s.phase != running {
		return
	}
	if p.ordered {
		s.restarts++
		s.after(s.delay(), func() { s.start(p) })
		return
	}
	how := describe(e)
	said := e.proc.ended
	s.happened(p, Ended, how)
	if said != nil {
		switch said.Kind {
		case kindFinished: // its status tells; if it is not asked in time, this end does
			s.after(doneTimeout, func() { s.done(nil) })
			return
		case kindStopped:
			s.stopped()
			return
		case kindDrained:
			p.retired = true
			return
		case kindFinal:
			s.finish(fmt.Errorf("supervisor: %s: %s", p.name(), said.Error))
			return
		case kindInUse:
			if s.moved(p) {
				return
			}
		case kindFailure:
		}
	}
	s.opts.Logger.Warn("a process has ended; it is started again", "process", p.name(), "how", how)
	if len(s.record.endings) < maxEndings {
		ending := Ending{At: time.Now().UnixMicro(), Process: p.name(), How: how}
		if said == nil {
			ending.Output = e.proc.tail.String()
		}
		s.record.endings = append(s.record.endings, ending)
	}
	s.again(p, e, how)
}

// again starts a process that has ended by itself once more, unless it has done so too often.
func (s *supervisor) again(p *slot, e exit, how string) {
	if time.Since(e.proc.started) > shortly {
		p.early = 0
	}
	if p.early++; p.early == maxEarlyEnds {
		s.finish(&CrashError{Process: p.name(), Times: p.early, How: how, Output: e.proc.tail.String()})
		return
	}
	s.restarts++
	s.after(firstBackoff<<(p.early-1), func() { s.start(p) })
}

// moved chooses other addresses if coordinators that never ran find theirs taken.
func (s *supervisor) moved(p *slot) bool {
	if p.assignment.Role != Coordinator || s.dir.settings.Formed || s.moves == maxMoves {
		return false
	}
	s.moves++
	s.opts.Logger.Info("an address is taken; the coordinators move", "address", p.assignment.Listen)
	s.phase = moving
	s.each(func(p *slot) { s.signal(p, syscall.SIGKILL) })
	return true
}

// move is called when all processes are down.
func (s *supervisor) move() {
	if err := s.dir.move(&s.opts); err != nil {
		s.finish(err)
		return
	}
	s.phase = running
	if err := s.form(); err != nil {
		s.finish(err)
	}
}

// describe says how a process ended.
func describe(e exit) string {
	if e.proc.ended != nil && e.proc.ended.Error != "" {
		return e.proc.ended.Error
	}
	if e.state == nil {
		return "unknown"
	}
	if status, ok := e.state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return "killed by signal " + status.Signal().String()
	}
	return e.state.String()
}

// CrashError says that a process ends again and again, at once.
type CrashError struct {
	Process string
	Times   int
	How     string
	Output  string // its last lines
}

// Error names the process, how it ended and what it wrote last.
func (e *CrashError) Error() string {
	text := fmt.Sprintf("supervisor: %s has ended %d times in a row right after its start: %s", e.Process, e.Times, e.How)
	if e.Output != "" {
		text += "\nits last lines:\n" + e.Output
	}
	return text
}

// signal sends a signal to a process that runs.
func (s *supervisor) signal(p *slot, sig os.Signal) {
	if p.proc == nil {
		return
	}
	if err := p.proc.signal(sig); err != nil {
		s.opts.Logger.Warn("signal", "process", p.name(), "error", err)
	}
}

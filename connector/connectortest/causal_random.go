package connectortest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

// chooser draws a number below n. What for, it may show to people.
type chooser func(what string, n int) int

// caseRandom compares the store with the model over random sequences of calls. A sequence that fails is made shorter, and shown.
func caseRandom(t testing.TB, s *causalSuite) {
	rapid.Check(t, func(r *rapid.T) {
		choose := func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(r, what) }
		(&randomRun{w: newWorld(r, s, s.place(t), 0), choose: choose}).run()
	})
}

// randomRun is a random sequence of what may happen to a sink.
type randomRun struct {
	w         *causalWorld
	choose    chooser
	processes []*process
	writer    *life   // nil if the next to come is a new life
	leaving   []*life // lives that are replaced as soon as a Fence succeeds
	replaced  []*life
	repeated  bool
}

// maxProcesses bounds how many processes take turns.
const maxProcesses = 4

// act is one thing that may happen.
type act struct {
	name string
	odds int
	do   func(r *randomRun)
}

var acts = []act{
	{"write", 12, (*randomRun).write},
	{"begin", 3, (*randomRun).begin},
	{"look", 2, (*randomRun).look},
	{"late write", 3, (*randomRun).lateWrite},
	{"lost answer", 2, (*randomRun).lostAnswer},
	{"commit", 4, (*randomRun).commit},
	{"roll back", 1, (*randomRun).rollBack},
	{"repeat", 1, (*randomRun).repeat},
	{"cancelled write", 1, (*randomRun).cancelledWrite},
	{"close", 1, (*randomRun).closeOne},
	{"fault", 4, (*randomRun).faultAhead},
}

func (r *randomRun) run() {
	var lots []act
	for _, a := range acts {
		for range a.odds {
			lots = append(lots, a)
		}
	}
	for range r.choose("length", 40) {
		a := lots[r.choose("act", len(lots))]
		r.w.t.Logf("%s", a.name)
		a.do(r)
	}
	r.w.finish()
}

// process picks a process, or starts one.
func (r *randomRun) process() *process {
	if n := len(r.processes); n == maxProcesses || n > 0 && r.choose("new process", 3) > 0 {
		return r.processes[r.choose("process", n)]
	}
	var p *process
	if r.w.place.Faulty == nil {
		p = r.w.process()
	} else {
		var err error
		p, err = r.w.faulty(&fault{})
		r.w.must(err)
	}
	r.processes = append(r.processes, p)
	return p
}

// failed tells whether a call failed, which must be for a fault. A process that is dead is never used again.
func (r *randomRun) failed(p *process, err error) bool {
	r.w.t.Helper()
	if err != nil && !p.excused() {
		r.w.t.Fatalf("%v", err)
	}
	if p.dead() {
		r.drop(p)
	}
	return err != nil
}

// drop forgets a process and what lives in it.
func (r *randomRun) drop(p *process) {
	in := func(l *life) bool { return l.p == p }
	r.processes = slices.DeleteFunc(r.processes, func(q *process) bool { return q == p })
	r.replaced, r.leaving = slices.DeleteFunc(r.replaced, in), slices.DeleteFunc(r.leaving, in)
	if r.writer != nil && r.writer.p == p {
		r.writer = nil
	}
}

// begin lets a new life take over.
func (r *randomRun) begin() {
	p, old := r.process(), r.writer
	l, err := r.w.begin(p)
	r.writer = nil
	if old != nil && old.late.End.Next > 0 {
		r.leaving = append(r.leaving, old)
	}
	if !r.failed(p, err) {
		r.writer = l
		r.replaced, r.leaving = append(r.replaced, r.leaving...), nil
	}
}

// write lets the writer write, after which it goes on, fences again or leaves it to another.
func (r *randomRun) write() {
	if r.writer == nil {
		r.begin()
		return
	}
	l := r.writer
	if r.failed(l.p, l.write(l.upTo(determinant.Seq(r.choose("elements", epochElements+1))))) {
		r.afterFailure(l)
	}
}

func (r *randomRun) afterFailure(l *life) {
	if r.writer == nil || r.choose("goes on", 2) == 0 || r.failed(l.p, l.again()) {
		r.writer = nil
	}
}

// look lets a process raise the fence that is there.
func (r *randomRun) look() {
	if r.w.incarnation == 0 {
		return
	}
	p := r.process()
	_, err := r.w.raise(p)
	r.failed(p, err)
}

// lateWrite lets a life write that was replaced.
func (r *randomRun) lateWrite() {
	if n := len(r.replaced); n > 0 {
		l := r.replaced[r.choose("replaced", n)]
		l.wakes()
		r.failed(l.p, nil)
	}
}

// lostAnswer lets a write succeed of which the writer does not hear.
func (r *randomRun) lostAnswer() {
	if r.writer == nil {
		return
	}
	l := r.writer
	if r.failed(l.p, l.write(l.upTo(3))) {
		r.writer = nil
		return
	}
	if r.failed(l.p, l.again()) {
		r.writer = nil
	}
}

// commit commits the checkpoint that the output has reached, or tells of one again.
func (r *randomRun) commit() {
	if r.w.cutting || r.w.incarnation == 0 {
		return
	}
	p := r.process()
	if r.writer != nil && r.choose("by the writer", 2) == 0 {
		p = r.writer.p
	}
	r.failed(p, r.w.commit(p, max(r.w.committed, r.w.out.epochAt(r.w.at)-1)))
}

// rollBack goes back to the last checkpoint. Once output was repeated, it says less which of the two is cut.
func (r *randomRun) rollBack() {
	if !r.w.cutting && !r.repeated {
		r.w.rollBack()
		r.begin()
	}
}

// repeat lets the next life repeat what was shown since the last checkpoint, at least once.
func (r *randomRun) repeat() {
	if !r.w.cutting {
		r.repeated = true
		r.w.repeat()
		r.begin()
	}
}

// cancelledWrite cancels a write, before it or meanwhile.
func (r *randomRun) cancelledWrite() {
	if r.writer == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	if r.choose("meanwhile", 2) == 0 {
		cancel()
	} else {
		go cancel()
	}
	l, to := r.writer, r.writer.upTo(3)
	err := l.send(ctx, l.compose(to), to)
	cancel()
	if errors.Is(err, context.Canceled) {
		r.afterFailure(l)
	} else if r.failed(l.p, err) {
		r.afterFailure(l)
	}
}

// closeOne closes what a process has open.
func (r *randomRun) closeOne() {
	if len(r.processes) > 1 {
		p := r.processes[r.choose("process", len(r.processes))]
		err := p.close()
		r.drop(p)
		r.failed(p, err)
	}
}

// faultAhead decides that a step of a process will fail.
func (r *randomRun) faultAhead() {
	if len(r.processes) == 0 || r.processes[0].fault == nil {
		return
	}
	f := r.processes[r.choose("process", len(r.processes))].fault
	at, when, once := 1+r.choose("step", 8), moment(r.choose("moment", int(moments))), r.choose("once", 2) == 0
	f.arm(at, when, once)
}

package connectortest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Cases in which processes die, between calls and within them.

var (
	errDropped = errors.New("connectortest: the process died between two calls")
	errDied    = errors.New("connectortest: the process died within a call")
)

const (
	outputEnd  = 3*epochElements - 2 // how long the outputs of crash cases get
	rollBackAt = epochElements + 3   // from here on they are rolled back, once
)

// live lets a process be the sink until the output has its length, a call fails, or as many calls as given were made. A negative
// number is no bound.
func (w *causalWorld) live(p *process, random *rand.Rand, calls int) error {
	w.t.Helper()
	spend := func() error {
		if calls == 0 {
			return errDropped
		}
		calls--
		return nil
	}
	begin := func() (*life, error) {
		if err := spend(); err != nil {
			return nil, err
		}
		return w.begin(p)
	}
	l, err := begin()
	for err == nil && l.at < outputEnd {
		if w.generation == 0 && l.at >= rollBackAt && w.committed > 0 {
			w.rollBack()
			l, err = begin()
			continue
		}
		if err = spend(); err == nil {
			err = l.write(l.upTo(determinant.Seq(1 + random.IntN(4))))
		}
		if e := w.out.epochAt(l.at) - 1; err == nil && e > w.committed {
			if err = spend(); err == nil {
				err = w.commit(p, e)
			}
		}
	}
	return err
}

// caseCrash drops the process between any two of its calls, and its successor too. Nothing is closed.
func caseCrash(t testing.TB, s *causalSuite) {
	for calls := 1; ; calls++ {
		w := s.world(t)
		err := w.live(w.process(), rand.New(rand.NewPCG(1, 1)), calls)
		if err == nil {
			return
		}
		if !errors.Is(err, errDropped) {
			t.Fatalf("%v", err)
		}
		err = w.live(w.process(), rand.New(rand.NewPCG(2, uint64(calls))), 1+calls%5)
		if err != nil && !errors.Is(err, errDropped) {
			t.Fatalf("after %d calls and a crash: %v", calls, err)
		}
		if err := w.live(w.process(), rand.New(rand.NewPCG(3, uint64(calls))), -1); err != nil {
			t.Fatalf("after %d calls and two crashes: %v", calls, err)
		}
		w.finish()
	}
}

// caseLostAnswer has writes succeed of which the writer does not hear: it fences again and goes on from what the store says.
func caseLostAnswer(t testing.TB, s *causalSuite) {
	w := s.world(t)
	p := w.process()
	l := w.mustBegin(p)
	lost := func(to determinant.Seq) {
		t.Helper()
		before := l.at
		l.mustWrite(to)
		l.at = before // as far as the writer knows
	}
	for i := range 9 {
		lost(l.upTo(determinant.Seq(1 + i%3)))
		switch i % 3 {
		case 0:
			w.must(l.again())
		case 1:
			l = w.mustBegin(p)
		case 2:
			l = w.mustBegin(w.process())
			p = l.p
		}
		l.mustWrite(l.upTo(2))
	}
	w.must(w.commit(p, w.out.epochAt(l.at)-1))
	lost(l.upTo(2))
	w.rollBack()
	l = w.mustBegin(p)
	if got := w.raiseLost(p); got != nil { // the answer to a Fence was lost
		t.Fatalf("%v", got)
	}
	l.mustWrite(l.upTo(2))
	w.finish()
}

// raiseLost raises the fence that is there once more, by the same process and by another.
func (w *causalWorld) raiseLost(p *process) error {
	w.t.Helper()
	if _, err := w.raise(p); err != nil {
		return err
	}
	_, err := w.raise(w.process())
	return err
}

// moment is where around a step a crash falls.
type moment int

const (
	before moment = iota
	halfway
	after
	moments
)

func (m moment) String() string { return [...]string{"before", "in the middle of", "after"}[m] }

// fault fails a process's steps from one on, or that one only.
type fault struct {
	mu    sync.Mutex
	steps int
	at    int // 0: never
	when  moment
	once  bool
	whole bool // the step that it failed cannot be cut in half
	told  bool // an error was put down to it
}

// do is a Steps.
func (f *fault) do(step, half func() error) error {
	f.mu.Lock()
	f.steps++
	n, at, when, once := f.steps, f.at, f.when, f.once
	if n == at {
		f.whole = half == nil
	}
	f.mu.Unlock()
	switch {
	case at == 0 || n < at || once && n > at:
		return step()
	case n > at || when == before || when == halfway && half == nil:
		return errDied
	case when == halfway:
		return errors.Join(errDied, half())
	}
	return errors.Join(errDied, step())
}

// arm has one of the next steps fail, unless the process is dead.
func (f *fault) arm(ahead int, when moment, once bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == 0 || f.once {
		f.at, f.when, f.once, f.told = f.steps+ahead, when, once, false
	}
}

// came tells whether the step that fails has come.
func (f *fault) came() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at > 0 && f.steps >= f.at
}

// excused tells whether a call of the process may have failed for its fault. One step that failed excuses one call.
func (p *process) excused() bool {
	if p.fault == nil || !p.fault.came() {
		return false
	}
	p.fault.mu.Lock()
	defer p.fault.mu.Unlock()
	told := p.fault.told
	p.fault.told = true
	return !told || !p.fault.once
}

// dead tells whether all calls of the process fail.
func (p *process) dead() bool { return p.fault != nil && !p.fault.once && p.fault.came() }

func (f *fault) String() string { return fmt.Sprintf("a crash %v step %d", f.when, f.at) }

// faulty starts a process whose steps may fail. The error is that of Open.
func (w *causalWorld) faulty(f *fault) (*process, error) {
	p, err := w.open(w.place.Faulty(f.do))
	if err == nil {
		p.fault = f
	}
	return p, err
}

// liveFaulty is live in a process of its own that dies at a fault. It tells whether it lived to the end.
func (w *causalWorld) liveFaulty(f *fault, seed uint64) (done bool) {
	w.t.Helper()
	p, err := w.faulty(f)
	if err == nil {
		err = w.live(p, rand.New(rand.NewPCG(seed, 1)), -1)
	}
	if err != nil && !f.came() {
		w.t.Fatalf("%v: it has not come yet, but: %v", f, err)
	}
	return !f.came()
}

// eachFault tries a fault before, in the middle of and after each step, until the step does not come. A step that cannot be cut in half
// has no middle: failing there is failing before it.
func eachFault(once bool, try func(f *fault) (came bool)) {
	var whole []bool
	for when := range moments {
		for at := 1; when != halfway || at <= len(whole); at++ {
			if when == halfway && whole[at-1] {
				continue
			}
			f := &fault{at: at, when: when, once: once}
			if !try(f) {
				break
			}
			if when == before {
				whole = append(whole, f.whole)
			}
		}
	}
}

// caseCrashInStep kills the process before, in the middle of and after each of its steps, and its successor at one of the steps
// of the recovery.
func caseCrashInStep(t testing.TB, s *causalSuite) {
	eachFault(false, func(f *fault) (came bool) {
		w := s.world(t)
		if w.liveFaulty(f, 1) {
			return false
		}
		w.t = &during{TB: t, what: f}
		const steps = 7
		next := (f.when + 1) % moments
		if f.when == before && f.whole && f.at/steps%2 == 1 {
			next = after // as behind a fault in the middle
		}
		w.liveFaulty(&fault{at: 1 + f.at%steps, when: next}, 2)
		w.must(w.live(w.process(), rand.New(rand.NewPCG(3, 1)), -1))
		w.finish()
		return true
	})
}

// caseFailedStep has one step fail, as when a connection breaks, and the same process go on.
func caseFailedStep(t testing.TB, s *causalSuite) {
	eachFault(true, func(f *fault) (came bool) {
		w := s.world(t)
		w.t = &during{TB: t, what: f}
		p, err := w.faulty(f)
		if err != nil {
			p, err = w.faulty(f)
		}
		w.must(err)
		if w.livesOn(p, f) {
			return false
		}
		w.finish()
		return true
	})
}

// livesOn is live in a process in which one step fails. The writer fences again: as itself, or as its own successor. It tells
// whether the step never came.
func (w *causalWorld) livesOn(p *process, f *fault) bool {
	w.t.Helper()
	err := w.live(p, rand.New(rand.NewPCG(1, 1)), -1)
	if !f.came() {
		w.must(err)
		return true
	}
	if err != nil && f.at%2 == 0 && w.writer != nil {
		w.must(w.writer.again())
		w.must(w.writer.write(w.writer.upTo(2)))
	}
	if err != nil {
		w.must(w.live(p, rand.New(rand.NewPCG(2, 1)), -1))
	}
	return false
}

// caseFailedCut kills the process that takes output back at each step of that. What is seen then is an output without its end, and
// without a hole. Who was replaced before is told so, and not that the cut is still to be done.
func caseFailedCut(t testing.TB, s *causalSuite) {
	eachFault(false, func(f *fault) (came bool) {
		w := s.world(t)
		w.t = &during{TB: t, what: f}
		replaced := w.mustBegin(w.process())
		replaced.epoch()
		at := f.at
		f.at = 0
		p, err := w.faulty(f)
		w.must(err)
		l := w.mustBegin(p)
		l.mustWrite(l.upTo(4))
		f.arm(at, f.when, false)
		w.rollBack()
		if _, err = w.begin(p); !f.came() {
			w.must(err)
			return false
		}
		w.watch()
		replaced.wakes()
		replaced.wakes() // what it knew of the store, it has forgotten
		w.refuses(replaced.p, operator.Fence{Incarnation: replaced.incarnation})
		w.must(w.truncate(replaced.p, w.committed))
		w.must(w.live(w.process(), rand.New(rand.NewPCG(1, 1)), -1))
		w.finish()
		return true
	})
}

// caseTorn tears a write. What is seen of it stays: its successor must not contradict it, and batches are cut elsewhere.
func caseTorn(t testing.TB, s *causalSuite) {
	for ahead := 1; ; ahead++ {
		w := s.world(t)
		f := &fault{}
		w.t = &during{TB: t, what: f}
		p, err := w.faulty(f)
		w.must(err)
		l := w.mustBegin(p)
		l.mustWrite(l.upTo(1))
		f.arm(ahead, halfway, false)
		if err := l.write(l.upTo(4)); !f.came() {
			w.must(err)
			return
		}
		l = w.mustBegin(w.process())
		if w.sure > 0 {
			other := l.peek(l.upTo(4))
			other.Records[0] = w.out.record(0, 50)
			if err := l.store(context.Background(), other); !errors.Is(err, operator.ErrContradiction) {
				w.t.Fatalf("a write that differs from what a torn one has shown must give ErrContradiction: %v", err)
			}
			w.watch()
			w.must(l.again())
		}
		for range epochRecords {
			l.mustWrite(l.upTo(1))
		}
		w.finish()
	}
}

// during says in a failure what else has happened.
type during struct {
	testing.TB
	what fmt.Stringer
}

func (d *during) Fatalf(format string, args ...any) {
	d.Helper()
	d.TB.Fatalf("%v: %s", d.what, fmt.Sprintf(format, args...))
}

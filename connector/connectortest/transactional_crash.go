package connectortest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// errHeldCrash is what a dead process's calls come to.
var errHeldCrash = errors.New("connectortest: the process is dead")

// heldFault kills a process at one of its calls, or steps within calls: before it, or behind it, so that its outcome is not known.
type heldFault struct {
	mu     sync.Mutex
	at     int // so many calls or steps succeed
	behind bool
	came   bool
}

// do carries out a call or step.
func (f *heldFault) do(act func() error) error {
	f.mu.Lock()
	if f.came {
		f.mu.Unlock()
		return errHeldCrash
	}
	if f.at > 0 {
		f.at--
		f.mu.Unlock()
		return act()
	}
	f.came = true
	behind := f.behind
	f.mu.Unlock()
	if behind {
		return errors.Join(errHeldCrash, act())
	}
	return errHeldCrash
}

// happened tells whether the process has died.
func (f *heldFault) happened() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.came
}

// mortal is a store in a process that dies at a call.
type mortal struct {
	operator.TransactionalStore
	fault *heldFault
}

func (m *mortal) Fence(ctx context.Context, i determinant.Incarnation) (list []operator.Transaction, err error) {
	return list, m.fault.do(func() error {
		list, err = m.TransactionalStore.Fence(ctx, i)
		return err
	})
}

func (m *mortal) Write(ctx context.Context, i determinant.Incarnation, records [][]byte) error {
	return m.fault.do(func() error { return m.TransactionalStore.Write(ctx, i, records) })
}

func (m *mortal) Prepare(ctx context.Context, i determinant.Incarnation, e determinant.Epoch) (t operator.Transaction, err error) {
	err = m.fault.do(func() error {
		t, err = m.TransactionalStore.Prepare(ctx, i, e)
		return err
	})
	return t, err
}

func (m *mortal) Commit(ctx context.Context, i determinant.Incarnation, t operator.Transaction) error {
	return m.fault.do(func() error { return m.TransactionalStore.Commit(ctx, i, t) })
}

func (m *mortal) Abort(ctx context.Context, i determinant.Incarnation, t operator.Transaction) error {
	return m.fault.do(func() error { return m.TransactionalStore.Abort(ctx, i, t) })
}

// heldScript is how many epochs a life of the crash cases gets done. Two become complete at once; the last is left undecided.
const heldScript = 4

// heldLeft is more than such a life can leave undecided.
const heldLeft = 10

// act has a life write some epochs, as an engine does.
func (l *heldLife) act() error {
	for e := range heldScript {
		if e != 1 {
			if err := errors.Join(l.write(2), l.write(1)); err != nil {
				return err
			}
		}
		if err := l.end(); err != nil {
			return err
		}
		l.w.look()
		if e == 0 || e == 2 {
			l.completes()
			if err := l.commits(); err != nil {
				return err
			}
			l.w.look()
		}
	}
	return l.write(1)
}

// dies has a life act until a fault ends it; false if it came to the end of its script.
func (w *heldWorld) dies(store operator.TransactionalStore, f *heldFault) (died bool) {
	w.t.Helper()
	l, err := w.begin(store)
	if w.listed > heldLeft {
		w.t.Fatalf("task %d: a fence lists %d transactions: does what is aborted come back?", w.task, w.listed)
	}
	if err == nil {
		err = l.act()
	}
	if err != nil && !f.happened() {
		w.t.Fatalf("task %d: %v", w.task, err)
	}
	w.look()
	return f.happened()
}

// caseHeldCrash: a process dies before any of its calls; the next one goes on.
func caseHeldCrash(t testing.TB, s *heldSuite) { s.crashes(t, false) }

// caseHeldLostAnswer: a process dies before it hears how any of its calls went.
func caseHeldLostAnswer(t testing.TB, s *heldSuite) { s.crashes(t, true) }

// crashes lets one life after the other die, each at a later call, in one place; and one in a place of its own for each call.
func (s *heldSuite) crashes(t testing.TB, behind bool) {
	w := s.world(t)
	for at, died := 0, true; died; at++ {
		f := &heldFault{at: at, behind: behind}
		raw := w.process()
		died = w.dies(&mortal{raw, f}, f)
		dead := &heldLife{w: w, store: raw, inc: w.lives, next: w.complete + 1}
		if at%3 > 0 && !w.place.Few {
			w.mustBegin()
			dead.fenced()
		}
	}
	w.finish()
	if w.place.Few {
		return
	}
	for at, died := 0, true; died; at++ {
		alone := s.world(t)
		f := &heldFault{at: at, behind: behind}
		died = alone.dies(&mortal{alone.process(), f}, f)
		alone.finish()
	}
}

// caseHeldCrashInStep: a process dies at any step within its calls, or before it hears how the step went.
func caseHeldCrashInStep(t testing.TB, s *heldSuite) {
	for _, behind := range []bool{false, true} {
		w := s.world(t)
		for at, died := 0, true; died; at++ {
			f := &heldFault{at: at, behind: behind}
			sink := w.place.Faulty(func(step, _ func() error) error { return f.do(step) })
			died = w.dies(w.opened(sink), f)
		}
		w.finish()
	}
}

// caseHeldZombies: a life that was replaced, and does not know it, goes on with all its might.
func caseHeldZombies(t testing.TB, s *heldSuite) {
	w := s.world(t)
	for range 5 {
		old := w.mustBegin()
		store := w.process()
		zombie := &heldLife{w: s.worldIn(t, w.place, w.task), store: old.store, inc: old.inc, next: old.next}
		going, fenced := make(chan struct{}), make(chan struct{})
		outcome := make(chan error, 1)
		go func() { outcome <- zombie.rages(going, fenced) }()
		<-going
		now, err := w.begin(store)
		close(fenced)
		w.must(err)
		for range 3 {
			now.epoch(2)
		}
		if err := <-outcome; !errors.Is(err, operator.ErrFenced) {
			t.Fatalf("incarnation %d, after that of %d was fenced: %v, not ErrFenced", old.inc, now.inc, err)
		}
		w.look()
		now.epoch(1)
	}
	w.finish()
}

// rages writes and prepares until it is refused. going is closed when it has done some of that, or was refused; fenced, when a later
// life has the store: what is begun behind that must not succeed.
func (l *heldLife) rages(going chan<- struct{}, fenced <-chan struct{}) (err error) {
	ctx, begun := context.Background(), sync.OnceFunc(func() { close(going) })
	defer begun()
	for e := 0; ; e++ {
		if e == 3 {
			begun()
		}
		late := false
		select {
		case <-fenced:
			late = true
		default:
		}
		err = l.store.Write(ctx, l.inc, [][]byte{l.w.place.Record(-e-1, int(l.inc))})
		if err == nil && e%3 == 0 {
			_, err = l.store.Prepare(ctx, l.inc, l.next)
			l.next++
		}
		switch {
		case err != nil:
			return err
		case late:
			return errors.New("it went on")
		}
	}
}

// caseHeldRandom: random sequences of everything.
func caseHeldRandom(t testing.TB, s *heldSuite) {
	runs := uint64(60)
	if s.place(t).Few {
		runs = 6
	}
	for seed := range runs {
		s.random(t, rand.New(rand.NewPCG(seed, 20240711)))
	}
}

func (s *heldSuite) random(t testing.TB, random *rand.Rand) {
	w := s.world(t)
	l := w.mustBegin()
	for range 60 {
		var err error
		switch random.IntN(10) {
		case 0, 1, 2:
			err = l.write(random.IntN(4))
		case 3, 4:
			err = l.end()
		case 5:
			l.completes()
		case 6, 7:
			err = l.commit()
		case 8:
			if err = l.commits(); err == nil && len(w.named) > 0 {
				err = l.store.Commit(context.Background(), l.inc, w.named[random.IntN(len(w.named))]) // once more
			}
		default:
			l = w.replaced(l, random)
		}
		w.must(err)
		w.look()
	}
	w.finish()
}

// replaced gives the task another life, perhaps after some that died at their calls.
func (w *heldWorld) replaced(old *heldLife, random *rand.Rand) *heldLife {
	for range random.IntN(3) {
		f := &heldFault{at: random.IntN(6), behind: random.IntN(2) == 0}
		w.dies(&mortal{w.process(), f}, f)
	}
	store := old.store
	if random.IntN(2) == 0 {
		store = w.process()
	}
	l, err := w.begin(store)
	w.must(err)
	if random.IntN(2) == 0 {
		old.fenced()
	}
	return l
}

package sim

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// heldSink opens the transactions of one sink of a job. They live outside all workers.
type heldSink struct {
	world *World
	name  string
}

// OpenTransactions implements operator.TransactionalSink. Workers do not come by here: see process.openTransactions.
func (s *heldSink) OpenTransactions(context.Context, int, int) (operator.TransactionalStore, error) {
	return nil, fmt.Errorf("sim: the transactions of %s were opened by nobody", s.name)
}

// fate is what has become of a transaction.
type fate uint8

const (
	undecided fate = iota
	committed
	aborted
)

// heldTransaction is what one life has written in one epoch.
type heldTransaction struct {
	operator.Transaction
	inc   determinant.Incarnation
	lines []line
	fate  fate
}

// heldStore is the external system of one transactional sink task: visible lines, and transactions. It checks what the engine may
// do with it; replay and ids check what it shows.
type heldStore struct {
	world *World
	task  determinant.TaskID

	fence        determinant.Incarnation
	open         []line             // written since the last Prepare or Fence
	transactions []*heldTransaction // in the order of their preparation
	lines        []line             // visible
	broken       int                // calls that broke off since checkpoint brokenAt was complete
	brokenAt     determinant.Epoch
}

func newHeldStores(w *World) []*heldStore {
	held := make([]*heldStore, len(w.job.Tasks))
	for t, spec := range w.job.Tasks {
		if spec.Transactional {
			held[t] = &heldStore{world: w, task: spec.ID}
		}
	}
	return held
}

// visible is what the sink of task t shows; nil if it has none.
func (w *World) visible(t int) []line {
	switch {
	case w.stores[t] != nil:
		return w.stores[t].lines
	case w.held[t] != nil:
		return w.held[t].lines
	}
	return nil
}

// upTo is how many lines are visible when all up to checkpoint e are that are not aborted.
func (s *heldStore) upTo(e determinant.Epoch) (n int) {
	for _, t := range s.transactions {
		if t.Epoch <= e && t.fate != aborted {
			n += len(t.lines)
		}
	}
	return n
}

// undecided lists the transactions that are prepared, by epoch.
func (s *heldStore) undecided() (list []*heldTransaction) {
	for _, t := range s.transactions {
		if t.fate == undecided {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(a, b *heldTransaction) int { return int(a.Epoch) - int(b.Epoch) })
	return list
}

// checkSettled checks that a job which is over has left nothing undecided.
func (w *World) checkSettled() {
	for t, s := range w.held {
		if s == nil {
			continue
		}
		if left := s.undecided(); len(left) > 0 || len(s.open) > 0 {
			w.violate("unsettled", "task %d: the job is over, %d transactions are undecided and %d lines in none", t, len(left), len(s.open))
		}
	}
}

// teller is a process's connection to a heldStore. Each call may be interrupted, before it takes effect or behind it: by a fault, or
// because the process dies meanwhile.
type teller struct {
	store   *heldStore
	process *process
}

func (p *process) openTransactions(t determinant.TaskID) (operator.TransactionalStore, error) {
	return &teller{p.world.held[t], p}, nil
}

// call carries out one call by an incarnation.
func (t *teller) call(inc determinant.Incarnation, act func() error) error {
	s, w := t.store, t.store.world
	if w.chance(2) {
		w.meanwhile(s.task)
	}
	lost := !t.process.alive || s.breaksOff()
	if lost && w.chance(3) {
		w.trace("in a call to the transactions of task %d", s.task)
		w.kill(t.process)
	}
	if lost && w.chance(2) {
		w.trace("transactions of task %d: a call of worker %d breaks off", s.task, t.process.id)
		return errTorn
	}
	if inc < s.fence && !w.mutated(mutation.FenceMissingAtSink) {
		w.result.Refused++
		return operator.ErrFenced
	}
	err := act()
	if lost {
		w.trace("transactions of task %d: worker %d is not told that its call was carried out", s.task, t.process.id)
		return errTorn
	}
	return err
}

// maxBroken is how many calls of a store may break off between two checkpoints: a few more end the job.
const maxBroken = 3

// breaksOff tells whether a call breaks off.
func (s *heldStore) breaksOff() bool {
	w := s.world
	if w.metadata.checkpoint != s.brokenAt {
		s.broken, s.brokenAt = 0, w.metadata.checkpoint
	}
	if s.broken == maxBroken || !w.faults.breakWrite() {
		return false
	}
	s.broken++
	return true
}

// Fence implements operator.TransactionalStore.
func (t *teller) Fence(_ context.Context, inc determinant.Incarnation) (list []operator.Transaction, err error) {
	s := t.store
	err = t.call(inc, func() error {
		s.fence, s.open = max(s.fence, inc), nil
		for _, u := range s.undecided() {
			list = append(list, u.Transaction)
		}
		s.world.trace("transactions of task %d: fence %d, %d lines, undecided %v", s.task, s.fence, len(s.lines), list)
		return nil
	})
	return list, err
}

// Write implements operator.TransactionalStore.
func (t *teller) Write(_ context.Context, inc determinant.Incarnation, records [][]byte) error {
	return t.call(inc, func() error {
		t.store.checkWriter(inc)
		for _, r := range records {
			t.store.open = append(t.store.open, line{bytes.Clone(r), inc})
		}
		return nil
	})
}

// Prepare implements operator.TransactionalStore. An empty epoch has no transaction.
func (t *teller) Prepare(_ context.Context, inc determinant.Incarnation, e determinant.Epoch) (operator.Transaction, error) {
	s, prepared := t.store, operator.Transaction{Epoch: e}
	err := t.call(inc, func() error {
		s.checkWriter(inc)
		if len(s.open) == 0 {
			return nil
		}
		prepared.Handle = fmt.Sprintf("%d", len(s.transactions)+1)
		s.transactions = append(s.transactions, &heldTransaction{Transaction: prepared, inc: inc, lines: s.open})
		s.world.trace("transactions of task %d: incarnation %d prepares %d lines of epoch %d as %s", s.task, inc, len(s.open), e, prepared.Handle)
		s.open = nil
		return nil
	})
	return prepared, err
}

// Commit implements operator.TransactionalStore.
func (t *teller) Commit(_ context.Context, inc determinant.Incarnation, c operator.Transaction) error {
	return t.call(inc, func() error {
		s, w := t.store, t.store.world
		s.checkCommit(inc, c)
		p := s.find(c)
		switch {
		case c.Handle == "":
			return nil
		case p == nil || p.fate == aborted:
			w.violate("transactions", "task %d: incarnation %d commits %v, which is not there", s.task, inc, c)
			return fmt.Errorf("%w: no transaction %v", operator.ErrPermanent, c)
		case p.fate == committed:
			return nil
		}
		w.trace("transactions of task %d: incarnation %d commits %v of incarnation %d, %d lines", s.task, inc, c, p.inc, len(p.lines))
		p.fate = committed
		w.result.Committed++
		s.lines = append(s.lines, p.lines...)
		return nil
	})
}

// Abort implements operator.TransactionalStore.
func (t *teller) Abort(_ context.Context, inc determinant.Incarnation, a operator.Transaction) error {
	return t.call(inc, func() error {
		s, w := t.store, t.store.world
		p := s.find(a)
		if p == nil || p.fate != undecided {
			return nil
		}
		if a.Epoch <= w.metadata.checkpoint {
			w.violate("transactions", "task %d: incarnation %d aborts %v, checkpoint %d is complete", s.task, inc, a, w.metadata.checkpoint)
		}
		w.trace("transactions of task %d: incarnation %d aborts %v of incarnation %d", s.task, inc, a, p.inc)
		p.fate = aborted
		w.result.Aborted++
		return nil
	})
}

// Close implements operator.TransactionalStore. The transactions stay.
func (t *teller) Close() error { return nil }

func (s *heldStore) find(t operator.Transaction) *heldTransaction {
	i := slices.IndexFunc(s.transactions, func(p *heldTransaction) bool { return p.Transaction == t })
	if i < 0 {
		return nil
	}
	return s.transactions[i]
}

// checkWriter checks that a life writes behind its fence only, and when what former ones have left is settled.
func (s *heldStore) checkWriter(inc determinant.Incarnation) {
	if inc > s.fence {
		s.world.violate("transactions", "task %d: incarnation %d writes, the fence is at %d", s.task, inc, s.fence)
	}
	for _, u := range s.undecided() {
		if u.inc < inc {
			s.world.violate("unsettled", "task %d: incarnation %d writes, %v of incarnation %d is undecided", s.task, inc, u.Transaction, u.inc)
		}
	}
}

// checkCommit checks that nothing becomes visible before its checkpoint is complete, and everything behind what was before it.
func (s *heldStore) checkCommit(inc determinant.Incarnation, c operator.Transaction) {
	w := s.world
	if c.Epoch > w.metadata.checkpoint {
		w.violate("early-commit", "task %d: incarnation %d commits %v, the last complete checkpoint is %d", s.task, inc, c, w.metadata.checkpoint)
	}
	for _, u := range s.transactions {
		switch {
		case u.fate == undecided && u.Epoch < c.Epoch:
			w.violate("transactions", "task %d: incarnation %d commits %v before %v", s.task, inc, c, u.Transaction)
		case u.fate == committed && u.Epoch == c.Epoch && u.Handle != c.Handle:
			w.violate("transactions", "task %d: incarnation %d commits %v, epoch %d was committed as %v", s.task, inc, c, c.Epoch, u.Transaction)
		}
	}
}

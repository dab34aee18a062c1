package connectortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// heldMemory is an external system with transactions, in memory. Rules can be switched off, by their text.
type heldMemory struct {
	mu    sync.Mutex
	off   map[string]bool
	parts [heldTasks]*heldPart
}

// heldPart is what it has of one task.
type heldPart struct {
	fence        determinant.Incarnation
	open         []string
	transactions []*heldTransaction
	lines        []string
	serial       int
}

type heldTransaction struct {
	operator.Transaction
	lines   []string
	decided bool // committed or aborted
	aborted bool
}

func newHeldMemory(off ...string) *heldMemory {
	m := &heldMemory{off: map[string]bool{}}
	for _, rule := range off {
		m.off[rule] = true
	}
	for i := range m.parts {
		m.parts[i] = &heldPart{}
	}
	return m
}

func (m *heldMemory) place() TransactionalPlace {
	return TransactionalPlace{
		Sink: func() operator.TransactionalSink { return &heldProcess{memory: m} },
		Read: func(task int) []string {
			m.mu.Lock()
			defer m.mu.Unlock()
			return slices.Clone(m.parts[task].lines)
		},
		Faulty: func(do func(step, half func() error) error) operator.TransactionalSink {
			return &heldProcess{memory: m, steps: do}
		},
	}
}

// heldProcess is a process that uses it.
type heldProcess struct {
	memory *heldMemory
	steps  func(step, half func() error) error
	job    string
	fences [heldTasks]determinant.Incarnation // that were raised here
}

func (p *heldProcess) Identify(job string) error { p.job = job; return nil }

func (p *heldProcess) OpenTransactions(_ context.Context, task, n int) (operator.TransactionalStore, error) {
	if p.job == "" || n != heldTasks {
		return nil, errors.New("memory: it was not identified")
	}
	if p.memory.off["tasks have outputs of their own"] {
		task = 0
	}
	return &heldTeller{process: p, task: task, part: p.memory.parts[task]}, nil
}

// heldTeller is a store.
type heldTeller struct {
	process *heldProcess
	task    int
	part    *heldPart
	mine    []*heldTransaction // prepared here
	closed  bool
}

func (s *heldTeller) broken(rule string) bool { return s.process.memory.off[rule] }

// call carries out a call of an incarnation, unless the rule of its fence is in force and says no.
func (s *heldTeller) call(ctx context.Context, i determinant.Incarnation, rule string, act func() error) error {
	m := s.process.memory
	if err := ctx.Err(); err != nil && !s.broken("a cancelled call says why") {
		return err
	}
	step := func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if s.closed && !s.broken("a closed store refuses") {
			return errors.New("memory: closed")
		}
		fence := s.part.fence
		if s.broken("a fence holds between processes") {
			fence = s.process.fences[s.task]
		}
		if i < fence && !s.broken(rule) {
			return operator.ErrFenced
		}
		return act()
	}
	if s.process.steps != nil {
		return s.process.steps(step, nil)
	}
	return step()
}

func (s *heldTeller) Fence(ctx context.Context, i determinant.Incarnation) (list []operator.Transaction, err error) {
	err = s.call(ctx, i, "a lower fence is refused", func() error {
		equal := i == s.part.fence
		if equal && s.broken("an equal fence is no error") {
			return operator.ErrFenced
		}
		s.part.fence, s.process.fences[s.task] = i, i
		if s.broken("a fence is of one task") {
			for _, p := range s.process.memory.parts {
				p.fence = max(p.fence, i)
			}
		}
		if !s.broken("a fence undoes what is open") && !(equal && s.broken("an equal fence undoes what is open")) {
			s.part.open = nil
		}
		for _, t := range s.part.transactions {
			if !t.decided || s.broken("a fence lists nothing that is decided") {
				list = append(list, t.Transaction)
			}
		}
		if s.broken("what is prepared survives a fence") {
			s.part.transactions = slices.DeleteFunc(s.part.transactions, func(t *heldTransaction) bool { return !t.decided })
		}
		if s.broken("a fence lists what is prepared") && len(list) > 0 {
			list = list[:len(list)-1]
		}
		if s.broken("a fence lists by epoch") {
			slices.Reverse(list)
		}
		return nil
	})
	return list, err
}

func (s *heldTeller) Write(ctx context.Context, i determinant.Incarnation, records [][]byte) error {
	return s.call(ctx, i, "a fence holds for writes", func() error {
		p := s.part
		at := len(p.open)
		for _, r := range records {
			p.open = append(p.open, string(r))
		}
		if s.broken("the order is kept") {
			slices.Reverse(p.open[at:])
		}
		if s.broken("no record is lost") && len(records) > 2 {
			p.open = p.open[:len(p.open)-1]
		}
		if s.broken("what is written cannot be seen") {
			p.lines, p.open = append(p.lines, p.open...), nil
		}
		return nil
	})
}

func (s *heldTeller) Prepare(ctx context.Context, i determinant.Incarnation, e determinant.Epoch) (t operator.Transaction, err error) {
	err = s.call(ctx, i, "a fence holds for prepares", func() error {
		p := s.part
		if len(p.open) == 0 && s.broken("an epoch may be empty") {
			return errors.New("memory: nothing to prepare")
		}
		p.serial++
		t = operator.Transaction{Epoch: e, Handle: fmt.Sprintf("%d", p.serial)}
		switch {
		case s.broken("a handle names one transaction"):
			t.Handle = fmt.Sprintf("%d", e)
		case s.broken("the epoch is named"):
			t.Epoch = 0
		}
		kept := &heldTransaction{Transaction: t, lines: p.open}
		p.transactions, p.open = append(p.transactions, kept), nil
		s.mine = append(s.mine, kept)
		if s.broken("what is prepared cannot be seen") {
			p.lines, kept.decided = append(p.lines, kept.lines...), true
		}
		if s.broken("epochs have transactions of their own") {
			p.open = kept.lines[:len(kept.lines):len(kept.lines)]
		}
		return nil
	})
	return t, err
}

func (s *heldTeller) find(t operator.Transaction) *heldTransaction {
	list := s.part.transactions
	if s.broken("a handle is good in every process") {
		list = s.mine
	}
	i := slices.IndexFunc(list, func(k *heldTransaction) bool { return k.Handle == t.Handle })
	if i < 0 {
		return nil
	}
	return list[i]
}

func (s *heldTeller) Commit(ctx context.Context, i determinant.Incarnation, t operator.Transaction) error {
	return s.call(ctx, i, "a fence holds for commits", func() error {
		p, kept := s.part, s.find(t)
		switch {
		case kept == nil:
			return fmt.Errorf("%w: no transaction %v", operator.ErrPermanent, t)
		case kept.aborted && s.broken("a commit of what is aborted fails"):
			return nil
		case kept.aborted && s.broken("a commit of what is aborted fails for good"):
			return errors.New("memory: aborted")
		case kept.aborted:
			return fmt.Errorf("%w: %v was aborted", operator.ErrPermanent, t)
		case kept.decided && s.broken("a commit may be repeated"):
			return fmt.Errorf("%w: %v was committed", operator.ErrPermanent, t)
		case kept.decided && s.broken("a commit that is repeated shows nothing else"):
			p.lines, p.open = append(p.lines, p.open...), nil
			return nil
		case kept.decided && !s.broken("a commit that is repeated shows nothing twice"):
			return nil
		}
		if !s.broken("a commit shows the transaction") {
			p.lines = append(p.lines, kept.lines...)
		}
		if s.broken("a commit shows all of it") && len(kept.lines) > 1 {
			p.lines = p.lines[:len(p.lines)-1]
		}
		kept.decided = true
		if s.broken("a commit shows that transaction only") {
			for _, k := range p.transactions {
				if !k.decided {
					k.decided, p.lines = true, append(p.lines, k.lines...)
				}
			}
		}
		return nil
	})
}

func (s *heldTeller) Abort(ctx context.Context, i determinant.Incarnation, t operator.Transaction) error {
	return s.call(ctx, i, "a fence holds for aborts", func() error {
		kept := s.find(t)
		switch {
		case kept == nil || s.broken("an abort drops the transaction"):
			return nil
		case kept.decided && s.broken("an abort may be repeated"):
			return fmt.Errorf("memory: %v is decided", t)
		case kept.decided && !s.broken("an abort leaves what is committed"):
			return nil
		case s.broken("an abort shows nothing"):
			s.part.lines = append(s.part.lines, kept.lines...)
		}
		kept.decided, kept.aborted = true, true
		return nil
	})
}

func (s *heldTeller) Close() error {
	m := s.process.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	s.closed = true
	if s.broken("what is prepared survives its process") {
		s.part.transactions = slices.DeleteFunc(s.part.transactions, func(t *heldTransaction) bool {
			return !t.decided && slices.Contains(s.mine, t)
		})
	}
	return nil
}

// careless keeps the caller's bytes: a store that breaks the rule that they are the caller's.
type careless struct {
	*heldTeller
	kept [][]byte
}

type carelessProcess struct{ *heldProcess }

func (p carelessProcess) OpenTransactions(ctx context.Context, task, n int) (operator.TransactionalStore, error) {
	s, err := p.heldProcess.OpenTransactions(ctx, task, n)
	if err != nil {
		return nil, err
	}
	return &careless{heldTeller: s.(*heldTeller)}, nil
}

func (s *careless) Write(_ context.Context, _ determinant.Incarnation, records [][]byte) error {
	s.kept = append(s.kept, records...)
	return nil
}

func (s *careless) Prepare(ctx context.Context, i determinant.Incarnation, e determinant.Epoch) (operator.Transaction, error) {
	err := s.heldTeller.Write(ctx, i, slices.Collect(func(yield func([]byte) bool) {
		for _, r := range s.kept {
			if !yield(bytes.Clone(r)) {
				return
			}
		}
	}))
	s.kept = nil
	if err != nil {
		return operator.Transaction{}, err
	}
	return s.heldTeller.Prepare(ctx, i, e)
}

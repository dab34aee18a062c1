package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// heldFiles is a transactional sink that lives as long as the test: what is committed is appended to a file of lines per task.
type heldFiles struct {
	dir   string
	mu    sync.Mutex
	parts map[int]*heldPart
	// before, if set, is asked before each call; it may fail it.
	before func(call string, task int) error
}

// heldPart is the store of one task, for all who open it.
type heldPart struct {
	sink     *heldFiles
	task     int
	fence    determinant.Incarnation
	open     []byte
	prepared []operator.Transaction
	bodies   map[string][]byte
	calls    []string
	decided  map[string]bool // committed: true; aborted: false
}

func newHeldFiles(dir string) *heldFiles { return &heldFiles{dir: dir, parts: map[int]*heldPart{}} }

func (s *heldFiles) OpenTransactions(_ context.Context, task, _ int) (operator.TransactionalStore, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts[task] == nil {
		s.parts[task] = &heldPart{sink: s, task: task, bodies: map[string][]byte{}, decided: map[string]bool{}}
	}
	return s.parts[task], os.MkdirAll(s.dir, 0o777)
}

// call carries out one call of an incarnation.
func (p *heldPart) call(inc determinant.Incarnation, act func() error, format string, args ...any) error {
	name := fmt.Sprintf(format, args...)
	if p.sink.before != nil {
		if err := p.sink.before(name, p.task); err != nil {
			return err
		}
	}
	p.sink.mu.Lock()
	defer p.sink.mu.Unlock()
	if inc < p.fence {
		return operator.ErrFenced
	}
	p.calls = append(p.calls, name)
	return act()
}

func (p *heldPart) Fence(_ context.Context, inc determinant.Incarnation) (listed []operator.Transaction, err error) {
	err = p.call(inc, func() error {
		p.fence, p.open, listed = inc, nil, slices.Clone(p.prepared)
		return nil
	}, "fence %d", inc)
	return listed, err
}

func (p *heldPart) Write(_ context.Context, inc determinant.Incarnation, records [][]byte) error {
	return p.call(inc, func() error {
		for _, r := range records {
			p.open = append(append(p.open, r...), '\n')
		}
		return nil
	}, "write %d", len(records))
}

func (p *heldPart) Prepare(_ context.Context, inc determinant.Incarnation, e determinant.Epoch) (operator.Transaction, error) {
	t := operator.Transaction{Epoch: e, Handle: fmt.Sprintf("%d.%d", inc, e)}
	return t, p.call(inc, func() error {
		p.prepared, p.bodies[t.Handle], p.open = append(p.prepared, t), p.open, nil
		return nil
	}, "prepare %s", t.Handle)
}

func (p *heldPart) Commit(_ context.Context, inc determinant.Incarnation, t operator.Transaction) error {
	return p.call(inc, func() error {
		if committed, known := p.decided[t.Handle]; committed {
			return nil
		} else if known || !p.decide(t, true) {
			return fmt.Errorf("%w: no transaction %s", operator.ErrPermanent, t.Handle)
		}
		return appendFile(filepath.Join(p.sink.dir, fmt.Sprintf("part-%d.jsonl", p.task)), p.bodies[t.Handle])
	}, "commit %s", t.Handle)
}

func (p *heldPart) Abort(_ context.Context, inc determinant.Incarnation, t operator.Transaction) error {
	return p.call(inc, func() error {
		p.decide(t, false)
		return nil
	}, "abort %s", t.Handle)
}

func (p *heldPart) Close() error { return nil }

// decide takes a transaction off the list; false if it is not there.
func (p *heldPart) decide(t operator.Transaction, committed bool) bool {
	i := slices.Index(p.prepared, t)
	if i < 0 {
		return false
	}
	p.prepared, p.decided[t.Handle] = slices.Delete(p.prepared, i, i+1), committed
	return true
}

func appendFile(name string, body []byte) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	if _, err := f.Write(body); err != nil {
		return err
	}
	return f.Close()
}

// requireSettled checks that nothing is left prepared, and that files hold whole lines.
func (s *heldFiles) requireSettled(t *testing.T) {
	t.Helper()
	for task, p := range s.parts {
		require.Empty(t, p.prepared, "task %d", task)
		require.Empty(t, p.open, "task %d", task)
		text, err := os.ReadFile(filepath.Join(s.dir, fmt.Sprintf("part-%d.jsonl", task)))
		require.NoError(t, err)
		require.True(t, bytes.HasSuffix(text, []byte("\n")))
	}
}

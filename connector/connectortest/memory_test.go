package connectortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// memory is a place in memory that keeps every rule, but for those that a test switches off: what the suite itself is tested with.
type memory struct {
	off   map[string]bool
	log   bool // it cannot take back what was shown
	parts [sinkTasks]part
	mu    struct {
		sync.Mutex
		job string
	}
}

func newMemory(off ...string) *memory {
	m := &memory{off: map[string]bool{}}
	for _, o := range off {
		m.off[o] = true
	}
	for i := range m.parts {
		m.parts[i].ahead = m.off["the cursor is not ahead of what is seen"]
	}
	return m
}

func (m *memory) place() CausalPlace {
	return CausalPlace{
		Sink:   func() operator.CausalSink { return &memorySink{m: m} },
		Faulty: func(do Steps) operator.CausalSink { return &memorySink{m: m, do: do} },
		Read: func(task int) []string {
			p := m.part(task)
			p.Lock()
			defer p.Unlock()
			return slices.Clone(p.shown)
		},
	}
}

func (m *memory) part(task int) *part {
	if m.off["tasks have outputs of their own"] {
		task = 0
	}
	return &m.parts[task]
}

// part is what is stored and shown of one task.
type part struct {
	sync.Mutex
	incarnation determinant.Incarnation
	generation  determinant.Generation
	owner       *memorySink
	base        determinant.Cursor // where frames begin
	position    int                // how much is shown there
	frames      []frame
	committed   determinant.Epoch
	shown       []string
	ahead       bool          // of a mutant: the cursor is that of what is stored
	later       func()        // a write that was cancelled and comes all the same
	writing     chan struct{} // of a mutant: one write at a time
	cutting     bool          // of a mutant: a cut is under way
}

// frame is stored before its records are shown.
type frame struct {
	end   determinant.Cursor
	from  int // how much is shown before it
	count int
	delta []byte
}

// end is where the output ends: after the last frame all of whose records are shown.
func (p *part) end() (determinant.Cursor, int) {
	cursor, position := p.base, p.position
	for _, f := range p.frames {
		if f.from+f.count <= len(p.shown) || p.ahead {
			cursor, position = f.end, f.from+f.count
		}
	}
	return cursor, position
}

// memorySink is a process of the job.
type memorySink struct {
	m      *memory
	do     Steps
	job    string
	fenced determinant.Incarnation // of a mutant; guarded by the part
	broken atomic.Bool             // of a mutant
	closed atomic.Bool             // of a mutant
}

func (s *memorySink) Identify(job string) error { s.job = job; return nil }

func (s *memorySink) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	if task < 0 || task >= n {
		return nil, fmt.Errorf("no task %d", task)
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.mu.job == "" {
		s.m.mu.job = s.job
	}
	if s.m.mu.job != s.job && !s.m.off["a place belongs to one job"] {
		return nil, errors.New("another job's")
	}
	return &memoryStore{s: s, p: s.m.part(task)}, ctx.Err()
}

func (s *memorySink) step(step, half func() error) error {
	if s.do == nil {
		return step()
	}
	return s.do(step, half)
}

type memoryStore struct {
	s      *memorySink
	p      *part
	closed atomic.Bool
}

func (s *memoryStore) Close() error {
	s.closed.Store(true)
	s.s.closed.Store(true)
	if s.s.m.off["closing leaves the fence alone"] {
		s.p.Lock()
		defer s.p.Unlock()
		s.p.incarnation = 0
	}
	return nil
}

// usable is looked at before every call.
func (s *memoryStore) usable(ctx context.Context) error {
	off := s.s.m.off
	if s.closed.Load() && !off["a closed store refuses"] || s.s.closed.Load() && off["a store is closed by itself"] {
		return errors.New("closed")
	}
	if s.s.broken.Load() {
		return errors.New("broken")
	}
	if ctx.Err() != nil && off["a cancelled call says why"] {
		return errors.New("cancelled")
	}
	return ctx.Err()
}

func (s *memoryStore) Truncate(ctx context.Context, e determinant.Epoch, _ []determinant.LogOffset) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	return s.s.step(func() error {
		p, off := s.p, s.s.m.off
		p.Lock()
		defer p.Unlock()
		keep := p.committed // what was stored since the checkpoint before may be needed: tasks upstream were ahead
		switch {
		case off["a checkpoint keeps what is ahead of it"]:
			keep = e + 1
		case off["a late checkpoint is harmless"]:
			p.committed = e
		case off["a checkpoint lets go"], e <= p.committed && !off["a checkpoint told twice is harmless"]:
			return nil
		}
		if off["a checkpoint leaves the output alone"] && e > p.committed && len(p.shown) > 0 {
			p.shown = p.shown[1:]
		}
		p.committed = max(p.committed, e)
		for len(p.frames) > 0 && p.frames[0].end.Epoch <= keep && p.frames[0].from+p.frames[0].count <= len(p.shown) {
			p.base, p.position = p.frames[0].end, p.frames[0].from+p.frames[0].count
			p.frames = p.frames[1:]
		}
		return nil
	}, nil)
}

func (s *memoryStore) Fence(ctx context.Context, f operator.Fence) (stored operator.Stored, err error) {
	if err := s.usable(ctx); err != nil {
		return stored, err
	}
	if s.s.m.off["a fence does not wait for a stopped writer"] {
		if err := s.enter(ctx); err != nil {
			return stored, err
		}
		defer s.leave()
	}
	if err := s.cutInSteps(f); err != nil {
		return stored, err
	}
	err = s.s.step(func() error {
		s.p.Lock()
		defer s.p.Unlock()
		s.p.cutting = false
		stored, err = s.p.fence(s.s, f)
		return err
	}, nil)
	if err != nil {
		return operator.Stored{}, err
	}
	return stored, nil
}

// cutInSteps begins a cut by a step of its own, for mutants.
func (s *memoryStore) cutInSteps(f operator.Fence) error {
	off, p := s.s.m.off, s.p
	forwards, gives := off["a cut goes from the end"], off["a cut under way hides no fence"]
	if f.Cut == nil || !forwards && !gives {
		return nil
	}
	back := func() error {
		p.Lock()
		defer p.Unlock()
		if from, ok := p.positionOf(f.Cut.Cursor); ok && forwards && from < len(p.shown) && f.Generation > p.generation {
			p.shown = slices.Delete(p.shown, from, from+1)
		}
		p.cutting = gives && f.Generation > p.generation
		return nil
	}
	return s.s.step(back, nil)
}

func (p *part) fence(s *memorySink, f operator.Fence) (operator.Stored, error) {
	off := s.m.off
	if f.Incarnation < p.incarnation && !off["a lower fence is refused"] {
		return operator.Stored{}, operator.ErrFenced
	}
	equal := f.Incarnation == p.incarnation && f.Generation == p.generation
	if equal && p.owner != s && off["an equal fence is no error"] {
		return operator.Stored{}, operator.ErrFenced
	}
	before, shown := p.stored(off), 0
	if !equal || off["an equal fence leaves the writer alone"] {
		p.owner = s
	}
	s.fenced = f.Incarnation
	switch {
	case f.Restart != nil && !equal && !off["a restart is obeyed"]:
		p.restart(off, *f.Restart)
	case f.Cut != nil && (f.Generation > p.generation || off["a cut is done once"]) && !off["a cut is obeyed"]:
		var err error
		if shown, err = p.cut(s.m, f.Cut.Cursor); err != nil {
			return operator.Stored{}, err
		}
	}
	p.incarnation, p.generation = max(p.incarnation, f.Incarnation), max(p.generation, f.Generation)
	if off["a cut comes before the answer"] {
		return before, nil
	}
	stored := p.stored(off)
	stored.Shown = uint64(shown)
	return stored, nil
}

func (p *part) restart(off map[string]bool, to determinant.Cursor) {
	if off["a restart keeps what is shown"] {
		p.shown = nil
	}
	p.base, p.position = to, len(p.shown)
	if !off["a restart forgets determinants"] {
		p.frames = nil
	}
}

// cut cuts the output, and tells how much of it will be shown again.
func (p *part) cut(m *memory, to determinant.Cursor) (again int, err error) {
	off := m.off
	position, ok := p.positionOf(to)
	if !ok {
		return 0, fmt.Errorf("no write ended at %v", to)
	}
	if m.log {
		again, position = len(p.shown)-position, len(p.shown)
	} else if !off["a cut cuts the output"] {
		p.shown = slices.Clone(p.shown[:position])
	} else {
		position = len(p.shown)
	}
	p.base, p.position = to, position
	if !off["a cut forgets determinants"] {
		p.frames = nil
	}
	return again, nil
}

// positionOf is how much is shown at the end of a write.
func (p *part) positionOf(to determinant.Cursor) (position int, ok bool) {
	position, ok = 0, to.Next == 0
	if p.base.Next == to.Next {
		position, ok = p.position, true
	}
	for _, f := range p.frames {
		if f.end.Next == to.Next {
			position, ok = f.from+f.count, true
		}
	}
	return position, ok
}

func (p *part) stored(off map[string]bool) (stored operator.Stored) {
	stored.Cursor, _ = p.end()
	for _, f := range p.frames {
		d := f.delta
		if !off["deltas are the caller's"] {
			d = bytes.Clone(d)
		}
		stored.Deltas = append(stored.Deltas, d)
	}
	if off["deltas come in order"] {
		slices.Reverse(stored.Deltas)
	}
	if n := len(stored.Deltas); off["all deltas come back"] && n > 0 {
		stored.Deltas = stored.Deltas[:n-1]
	}
	if n := len(p.frames); off["the cursor is behind the last write"] && n > 1 {
		stored.Cursor = p.frames[n-2].end
	}
	return stored
}

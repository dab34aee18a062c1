package operator

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// fakeRuntime is a Runtime with a scripted clock that keeps what a chain emits as readable lines.
type fakeRuntime struct {
	task     TaskInfo
	now      int64
	rng      *rand.Rand
	outputs  []*fakeOutput
	external *fakeOutput
	issued   []fakeCall
	trace    *[]string
}

type fakeCall struct {
	hash uint64
	do   func(context.Context) ([]byte, error)
}

func (r *fakeRuntime) Task() TaskInfo   { return r.task }
func (r *fakeRuntime) Now() int64       { return r.now }
func (r *fakeRuntime) Rand() *rand.Rand { return r.rng }
func (r *fakeRuntime) Call(_ uint64, do func(context.Context) ([]byte, error)) ([]byte, error) {
	return do(context.Background())
}
func (r *fakeRuntime) Issue(hash uint64, do func(context.Context) ([]byte, error)) {
	r.issued = append(r.issued, fakeCall{hash, do})
}
func (r *fakeRuntime) Output(i int) Output { return r.outputs[i] }
func (r *fakeRuntime) External() Output {
	if r.external == nil {
		return nil
	}
	return r.external
}

// fakeOutput writes a line per element: output, channel, time, payload.
type fakeOutput struct {
	name   string
	fanout int
	quiet  bool
	print  func([]byte) string
	trace  *[]string
	count  int
}

func (o *fakeOutput) Fanout() int { return o.fanout }
func (o *fakeOutput) Record(c int, ts int64, hasTime bool, payload []byte) {
	o.count++
	if o.quiet {
		return
	}
	at := ""
	if hasTime {
		at = fmt.Sprintf("@%d", ts)
	}
	if c < 0 || c >= o.fanout {
		panic("channel out of range")
	}
	*o.trace = append(*o.trace, fmt.Sprintf("%s%d%s %s", o.name, c, at, o.print(payload)))
}
func (o *fakeOutput) Watermark(wm int64) {
	if o.quiet {
		return
	}
	line := fmt.Sprintf("%s wm %d", o.name, wm)
	if wm == MaxTime {
		line = o.name + " wm max"
	}
	*o.trace = append(*o.trace, line)
}
func (o *fakeOutput) Idle(idle bool) {
	*o.trace = append(*o.trace, fmt.Sprintf("%s idle %v", o.name, idle))
}

func newFakeRuntime(p *Plan, vertex, fanout int) *fakeRuntime {
	trace := &[]string{}
	rt := &fakeRuntime{rng: rand.New(rand.NewPCG(1, 2)), trace: trace}
	v := p.Vertices[vertex]
	rt.task = TaskInfo{Vertex: v.Name, Parallelism: v.Parallelism}
	text := func(b []byte) string { return fmt.Sprintf("%q", b) }
	for _, e := range p.Edges {
		if e.From == vertex {
			n := fanout
			if e.Partition == Forward {
				n = 1
			}
			name := fmt.Sprintf("out%d.", len(rt.outputs))
			rt.outputs = append(rt.outputs, &fakeOutput{name: name, fanout: n, print: text, trace: trace})
		}
	}
	if v.External() {
		rt.external = &fakeOutput{name: "sink", fanout: 1, print: func(b []byte) string { return string(b) }, trace: trace}
	}
	return rt
}

// tester is what a harness needs of *testing.T, *testing.B or *rapid.T.
type tester interface {
	require.TestingT
	Helper()
}

// harness runs one chain of a job.
type harness struct {
	tester
	plan   *Plan
	vertex int
	rt     *fakeRuntime
	chain  Chain
	state  map[string]map[string]string // table, key, value: what was frozen so far

	standby  *Resident // likewise, as a standby has it
	restarts int

	freezer *Freezer
	epoch   determinant.Epoch
	frozen  []frozenTables // in this life, from the first epoch on that is needed
	cleaned int            // how often it was known since when all was frozen, and that was not in the last epoch
}

// frozenTables is what a chain froze at a barrier.
type frozenTables struct {
	epoch   determinant.Epoch
	entries map[[2]string]*string // by table and key; nil: deleted
}

// newHarness starts the vertex that contains an operator of that name.
func newHarness(t tester, j *Job, operator string, fanout int) *harness {
	t.Helper()
	p, err := j.Plan(1)
	require.NoError(t, err)
	at := slices.IndexFunc(p.Vertices, func(v Vertex) bool { return slices.Contains(splitNames(v.Name), operator) })
	require.GreaterOrEqual(t, at, 0, "no operator %q", operator)
	h := &harness{tester: t, plan: p, vertex: at, rt: newFakeRuntime(p, at, fanout), state: map[string]map[string]string{}, standby: NewResident()}
	h.start()
	require.NoError(t, h.chain.Restored())
	return h
}

func splitNames(vertex string) []string {
	var names []string
	for _, n := range []byte(vertex) {
		if len(names) == 0 || n == '>' {
			names = append(names, "")
		}
		if n != '>' && n != '-' && n != ' ' {
			names[len(names)-1] += string(n)
		}
	}
	return names
}

func (h *harness) start() {
	var err error
	h.chain, err = h.plan.Vertices[h.vertex].New(h.rt)
	require.NoError(h, err)
	h.freezer, h.frozen = nil, nil
}

// freeze adds what has changed to the state.
func (h *harness) freeze() {
	if h.freezer == nil {
		h.freezer = NewFreezer(h.chain.Tables(), Cleaning{From: 1, To: 1.2})
	}
	h.epoch += 1 + determinant.Epoch(h.epoch%3/2) // some have no barrier
	freezes := h.freezer.Freeze(h.epoch)
	now := frozenTables{h.epoch, map[[2]string]*string{}}
	for _, f := range freezes.Frozen {
		if h.state[f.Table()] == nil {
			h.state[f.Table()] = map[string]string{}
		}
		live := 0
		require.NoError(h, f.Entries(func(key, value []byte, deleted bool) error {
			if !deleted {
				live++
			}
			h.standby.Put(f.Table(), key, value, deleted)
			v := string(value)
			if deleted {
				delete(h.state[f.Table()], string(key))
				now.entries[[2]string{f.Table(), string(key)}] = nil
			} else {
				h.state[f.Table()][string(key)] = v
				now.entries[[2]string{f.Table(), string(key)}] = &v
			}
			return nil
		}))
		require.Equal(h, live == len(h.state[f.Table()]), f.Whole(), "%s: %d entries are not deleted, of %d", f.Table(), live, len(h.state[f.Table()]))
	}
	h.frozen = append(h.frozen, now)
	h.requireSince(freezes)
}

// requireSince wants that what was frozen since then is all that there is.
func (h *harness) requireSince(r Freezes) {
	if !r.All {
		return
	}
	require.Less(h, r.Since, h.epoch)
	if r.Since+1 < h.epoch {
		h.cleaned++
	}
	h.frozen = slices.DeleteFunc(h.frozen, func(f frozenTables) bool { return f.epoch <= r.Since })
	since := map[[2]string]string{}
	for _, f := range h.frozen {
		for name, v := range f.entries {
			if v == nil {
				delete(since, name)
			} else {
				since[name] = *v
			}
		}
	}
	for id, entries := range h.state {
		for k, v := range entries {
			require.Equal(h, v, since[[2]string{id, k}], "table %q, key %q", id, k)
			delete(since, [2]string{id, k})
		}
	}
	require.Empty(h, since)
}

// restart freezes, throws the chain away and goes on with a new one, which loads what was frozen or, every other time, takes over what a
// standby has.
func (h *harness) restart() {
	h.Helper()
	h.freeze()
	h.requireStandby()
	h.start()
	h.rt.issued = nil
	if h.restarts++; h.restarts%2 == 1 {
		for _, t := range h.chain.Tables() {
			require.NoError(h, h.standby.Restore(t))
		}
		require.Empty(h, h.standby.Tables())
		h.standby = NewResident()
		for id, entries := range h.state {
			for k, v := range entries {
				h.standby.Put(id, []byte(k), []byte(v), false)
			}
		}
		require.NoError(h, h.chain.Restored())
		return
	}
	seen := map[string]bool{}
	for _, t := range h.chain.Tables() {
		require.False(h, seen[t.ID()], "two tables %q", t.ID())
		seen[t.ID()] = true
		keys := make([]string, 0)
		for k := range h.state[t.ID()] {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			require.NoError(h, t.Load([]byte(k), []byte(h.state[t.ID()][k])))
		}
	}
	require.NoError(h, h.chain.Restored())
}

// requireStandby wants of the standby what was frozen, and no more.
func (h *harness) requireStandby() {
	h.Helper()
	cost, entries := int64(0), 0
	for _, id := range h.standby.Tables() {
		require.NoError(h, h.standby.Entries(id, func(key, value []byte) error {
			v, ok := h.state[id][string(key)]
			require.True(h, ok, "table %q: key %q", id, key)
			require.Equal(h, v, string(value))
			cost += h.standby.tables[id].cost(len(key) + len(value))
			entries++
			return nil
		}))
	}
	for _, table := range h.state {
		entries -= len(table)
	}
	require.Zero(h, entries, "entries that the standby lacks")
	require.Equal(h, cost, h.standby.Bytes())
}

// take returns what was emitted since the last take.
func (h *harness) take() []string {
	lines := *h.rt.trace
	*h.rt.trace = nil
	return lines
}

func (h *harness) record(in int, payload []byte) {
	h.Helper()
	require.NoError(h, h.chain.Record(in, payload, 0, false))
	require.NoError(h, h.chain.StepEnd())
}

func (h *harness) recordAt(in int, payload []byte, ts int64) {
	h.Helper()
	require.NoError(h, h.chain.Record(in, payload, ts, true))
	require.NoError(h, h.chain.StepEnd())
}

func (h *harness) watermark(wm int64) {
	h.Helper()
	require.NoError(h, h.chain.Watermark(wm))
	require.NoError(h, h.chain.StepEnd())
}

func (h *harness) timers(now int64) {
	h.Helper()
	h.rt.now = now
	require.NoError(h, h.chain.ProcessingTime(now))
	require.NoError(h, h.chain.StepEnd())
}

func (h *harness) end() {
	h.Helper()
	require.NoError(h, h.chain.End())
}

// slice is a Source of one split per slice.
type slice[T any] [][]T

func (s slice[T]) Splits(context.Context) ([]string, error) {
	var names []string
	for i := range s {
		names = append(names, fmt.Sprint(i))
	}
	return names, nil
}

func (s slice[T]) Open(_ context.Context, split string, offset uint64) (Reader[T], error) {
	var i int
	_, err := fmt.Sscan(split, &i)
	return &sliceReader[T]{values: s[i], at: offset}, err
}

type sliceReader[T any] struct {
	values []T
	at     uint64
	hold   int // Next says ErrNotReady that many times
	notify chan struct{}
}

func (r *sliceReader[T]) Next() (v T, next uint64, err error) {
	if r.hold > 0 {
		r.hold--
		return v, 0, ErrNotReady
	}
	if r.at >= uint64(len(r.values)) {
		return v, r.at, io.EOF
	}
	r.at++
	return r.values[r.at-1], r.at, nil
}
func (r *sliceReader[T]) Ready() <-chan struct{} { return r.notify }
func (r *sliceReader[T]) Close() error           { return nil }

// runSource drives a source chain to the end, n records a step.
func (h *harness) runSource(n int) {
	h.Helper()
	src := h.chain.Source()
	if src.Splits() == 0 {
		names, err := h.plan.Vertices[h.vertex].Source(context.Background())
		require.NoError(h, err)
		for _, s := range names {
			require.NoError(h, src.Add(s))
		}
	}
	for src.Open() > 0 {
		h.sourceStep(n)
	}
	h.end()
}

// sourceStep takes one step of a source.
func (h *harness) sourceStep(max int) {
	h.Helper()
	src := h.chain.Source()
	split, n, offset, done, err := src.Poll(max)
	require.NoError(h, err)
	if done {
		require.NoError(h, src.Remove(split))
		return
	}
	if n == 0 {
		return
	}
	require.NoError(h, src.Begin(split, n, offset))
	for range n {
		require.NoError(h, emitOne(src))
	}
	require.NoError(h, h.chain.StepEnd())
}

// nowhere is a sink that is never opened.
type nowhere struct{}

func (nowhere) Open(context.Context, int, int) (CausalStore, error) { return nil, nil }

// emitOne runs one record of a source's step.
func emitOne(src SourceHead) error {
	_, err := src.Emit(1, func() bool { return true })
	return err
}

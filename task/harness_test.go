package task

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
)

// tester is what a rig needs of *testing.T, *testing.B or *rapid.T.
type tester interface {
	require.TestingT
	Helper()
}

// vertex is one vertex of a compiled job, and what one of its tasks is connected to.
type vertex struct {
	plan   *operator.Plan
	index  int
	inputs []Input
	edges  [][]determinant.ChannelID
}

// vertexOf compiles the job and picks the vertex that an operator is in. It has the given number of input channels, spread
// over its logical inputs.
func vertexOf(t tester, job *operator.Job, name string, channels int) vertex {
	t.Helper()
	plan, err := job.Plan(1)
	require.NoError(t, err)
	v := vertex{plan: plan, index: slices.IndexFunc(plan.Vertices, func(v operator.Vertex) bool {
		return slices.Contains(strings.Split(v.Name, " -> "), name)
	})}
	require.GreaterOrEqual(t, v.index, 0, "no operator %q", name)
	logical := 0
	for _, e := range plan.Edges {
		if e.To == v.index {
			logical = max(logical, e.Input+1)
		}
	}
	for i := range channels {
		v.inputs = append(v.inputs, Input{Channel: determinant.ChannelID(i), Logical: i % logical})
	}
	next := determinant.ChannelID(100)
	for _, e := range plan.Edges {
		if e.From != v.index {
			continue
		}
		var edge []determinant.ChannelID
		for range plan.Vertices[e.To].Parallelism {
			edge = append(edge, next)
			next++
		}
		v.edges = append(v.edges, edge)
	}
	return v
}

// rig is a task with everything around it under the test's control.
type rig struct {
	tester
	cfg   Config
	task  *Task
	host  *recordingHost
	calls *heldCalls
	log   *causal.Log
	now   int64 // what the clock says; it may go back
	left  [][]*inflightlog.Batch
	ends  []determinant.Cursor // of what each input was given
}

func newRig(t tester, v vertex, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{tester: t, calls: &heldCalls{}, now: 1000, left: make([][]*inflightlog.Batch, len(v.inputs))}
	r.host = &recordingHost{rig: r, state: tables{}}
	spec := v.plan.Vertices[v.index]
	r.cfg = Config{
		ID: determinant.TaskID(v.index), Incarnation: 1, Info: operator.TaskInfo{Vertex: spec.Name, Parallelism: 1},
		Inputs: v.inputs, Edges: v.edges, External: spec.External(), ExternalID: 99, New: spec.New, Depth: determinant.Full,
		Clock: func() int64 { return r.now }, Entropy: outside, Calls: r.calls, Host: r.host, Context: context.Background(),
	}
	for _, c := range change {
		c(&r.cfg)
	}
	r.log = causal.NewLog(r.cfg.Meta.Log)
	if len(r.cfg.Replay) > 0 {
		r.log.Append(r.cfg.Replay)
	}
	r.cfg.Log = r.log
	r.ends = slices.Repeat([]determinant.Cursor{inflightlog.Origin}, len(v.inputs))
	if r.cfg.Meta.Epoch > 0 {
		r.ends = slices.Clone(r.cfg.Meta.Inputs)
	}
	var err error
	r.task, err = New(r.cfg)
	require.NoError(t, err)
	return r
}

// replaying makes a rig begin with a log that an earlier life has left.
func replaying(log []byte) func(*Config) {
	return func(c *Config) { c.Replay, c.Incarnation = log, c.Incarnation+1 }
}

// restored makes a rig begin at a snapshot.
func restored(s savedState) func(*Config) {
	return func(c *Config) {
		c.Meta, c.Mode, c.Depth = s.meta, s.meta.Mode, s.meta.Depth
		c.Load = s.state.load
	}
}

// world is what is outside: it never says the same thing twice, so that whoever asks again is found out.
var world uint64

func outside() uint64 {
	world++
	return world * 0x9e3779b97f4a7c15
}

// heldCalls keeps external calls until the test completes them.
type heldCalls struct {
	started int
	pending []func()
}

func (c *heldCalls) Start(do Call, done func([]byte, error)) {
	c.started++
	c.pending = append(c.pending, func() { done(do(context.Background())) })
}

func (c *heldCalls) complete(k int) {
	finish := c.pending[k]
	c.pending = slices.Delete(c.pending, k, k+1)
	finish()
}

// recordingHost keeps what a task tells its worker.
type recordingHost struct {
	rig      *rig
	state    tables
	saved    []savedState
	batches  []*inflightlog.Batch
	taken    map[determinant.ChannelID]determinant.Seq
	replayed int
	aside    []Poison
	refuse   error // what SetAside says
	onSealed func(*inflightlog.Batch)
}

// savedState is a snapshot as a restore would read it.
type savedState struct {
	meta  checkpoint.Meta
	state tables
}

// tables is committed state: by table, then by key.
type tables map[string]map[string]string

func (s tables) clone() tables {
	c := tables{}
	for table := range s {
		c[table] = maps.Clone(s[table])
	}
	return c
}

func (s tables) load(load func(table string, key, value []byte) error) error {
	for _, table := range slices.Sorted(maps.Keys(s)) {
		for _, key := range slices.Sorted(maps.Keys(s[table])) {
			if err := load(table, []byte(key), []byte(s[table][key])); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *recordingHost) Snapshot(_ *Task, s Snapshot) {
	for _, f := range s.Frozen {
		table := h.state[f.Table()]
		if table == nil {
			table = map[string]string{}
			h.state[f.Table()] = table
		}
		require.NoError(h.rig, f.Entries(func(key, value []byte, deleted bool) error {
			if deleted {
				delete(table, string(key))
			} else {
				table[string(key)] = string(value)
			}
			return nil
		}))
	}
	image, err := checkpoint.Encode(s.Meta, false, nil) // what is restored has been through the codec
	require.NoError(h.rig, err)
	meta, _, err := checkpoint.DecodeMeta(image)
	require.NoError(h.rig, err)
	h.saved = append(h.saved, savedState{meta, h.state.clone()})
}

func (h *recordingHost) Sealed(_ determinant.ChannelID, b *inflightlog.Batch) {
	h.batches = append(h.batches, b)
	if h.onSealed != nil {
		h.onSealed(b)
	}
}

func (h *recordingHost) Taken(c determinant.ChannelID, next determinant.Seq, _ int) {
	if h.taken == nil {
		h.taken = map[determinant.ChannelID]determinant.Seq{}
	}
	h.taken[c] = next
}

func (h *recordingHost) Replayed(*Task) { h.replayed++ }

func (h *recordingHost) SetAside(_ *Task, p Poison) error {
	if h.refuse == nil {
		h.aside = append(h.aside, p)
	}
	return h.refuse
}

// record and the others make elements; a record is a number.
func record(v uint64) inflightlog.Element {
	return inflightlog.Element{Kind: inflightlog.Record, Payload: binary.BigEndian.AppendUint64(nil, v)}
}

func recordAt(v uint64, ts int64) inflightlog.Element {
	e := record(v)
	e.HasTime, e.Time = true, ts
	return e
}

func watermark(at int64) inflightlog.Element {
	return inflightlog.Element{Kind: inflightlog.Watermark, Time: at}
}

func barrier(e determinant.Epoch) inflightlog.Element {
	return inflightlog.Element{Kind: inflightlog.Barrier, Epoch: e, Depth: determinant.Full}
}

func skip(e determinant.Epoch) inflightlog.Element {
	return inflightlog.Element{Kind: inflightlog.Skip, Epoch: e, Depth: determinant.Full}
}

func control(k inflightlog.Kind) inflightlog.Element { return inflightlog.Element{Kind: k} }

// batchesOf puts a channel's elements into batches, which end where cut says so. Numbering begins at start.
func batchesOf(t tester, start determinant.Cursor, elements []inflightlog.Element, cut func() bool) []*inflightlog.Batch {
	t.Helper()
	log := inflightlog.NewLog(start, inflightlog.Options{Retain: true})
	for _, e := range elements {
		if e.Kind == inflightlog.Record {
			log.Record(e.Time, e.HasTime, e.Payload)
		} else {
			log.Control(e)
		}
		log.Commit()
		if cut() {
			log.Seal()
		}
	}
	log.Seal()
	return allOf(t, log, start)
}

// allOf reads a log from a position on.
func allOf(t tester, log *inflightlog.Log, from determinant.Cursor) (all []*inflightlog.Batch) {
	t.Helper()
	require.NoError(t, log.Subscribe(from))
	for {
		b, err := log.Next(-1)
		require.NoError(t, err)
		if b == nil {
			log.Unsubscribe()
			return all
		}
		all = append(all, b)
	}
}

func never() bool  { return false }
func always() bool { return true }

// feed delivers elements on input i, in as few batches as can be.
func (r *rig) feed(i int, elements ...inflightlog.Element) {
	r.Helper()
	for _, b := range batchesOf(r, r.ends[i], elements, never) {
		r.deliver(i, b)
	}
}

func (r *rig) deliver(i int, b *inflightlog.Batch) {
	r.ends[i] = b.End
	r.task.Deliver(i, b, false)
}

// supply puts batches in line that arrive later, by arrive.
func (r *rig) supply(i int, batches []*inflightlog.Batch) { r.left[i] = append(r.left[i], batches...) }

// arrive delivers the next batch of input i; false if there is none.
func (r *rig) arrive(i int) bool {
	if len(r.left[i]) == 0 {
		return false
	}
	r.deliver(i, r.left[i][0])
	r.left[i] = r.left[i][1:]
	return true
}

// run steps the task until it has nothing to do.
func (r *rig) run() {
	r.Helper()
	require.NoError(r, r.try())
}

// try is run, up to the first error.
func (r *rig) try() error {
	for range 100_000 {
		progress, err := r.task.Step()
		if err != nil || !progress {
			return err
		}
	}
	return fmt.Errorf("the task does not come to rest")
}

// settle lets everything happen that is on its way.
func (r *rig) settle() {
	r.Helper()
	for {
		r.run()
		moved := false
		for i := range r.left {
			moved = r.arrive(i) || moved
		}
		for len(r.calls.pending) > 0 {
			r.calls.complete(0)
			moved = true
		}
		if !moved {
			return
		}
	}
}

// logged gives the determinants that the log holds, one string each, and where each ends.
func (r *rig) logged() (lines []string, ends []determinant.LogOffset) {
	r.Helper()
	return printed(r, r.cfg.Meta.Log, r.logBytes())
}

func printed(t tester, at determinant.LogOffset, log []byte) (lines []string, ends []determinant.LogOffset) {
	t.Helper()
	var dec determinant.Decoder
	var d determinant.Determinant
	for len(log) > 0 {
		n, err := dec.Next(log, &d)
		require.NoError(t, err)
		log, at = log[n:], at+determinant.LogOffset(n)
		lines, ends = append(lines, d.String()), append(ends, at)
	}
	return lines, ends
}

// determinants decodes the log.
func (r *rig) determinants() (all []determinant.Determinant) {
	r.Helper()
	var dec determinant.Decoder
	for log := r.logBytes(); len(log) > 0; {
		var d determinant.Determinant
		n, err := dec.Next(log, &d)
		require.NoError(r, err)
		log, all = log[n:], append(all, d)
	}
	return all
}

func (r *rig) kinds() (kinds []determinant.Kind) {
	r.Helper()
	for _, d := range r.determinants() {
		kinds = append(kinds, d.Kind)
	}
	return kinds
}

func (r *rig) logBytes() []byte {
	r.Helper()
	p, err := r.log.Read([]byte{}, r.log.Base(), r.log.End())
	require.NoError(r, err)
	return p
}

// output gives the bytes of every output channel from where the task's present life began, or from the given positions.
func (r *rig) output(from ...determinant.Cursor) (channels [][]byte) {
	r.Helper()
	r.task.seal()
	for c, log := range r.task.outs {
		start := inflightlog.Origin
		switch {
		case from != nil:
			start = from[c]
		case r.cfg.Meta.Epoch > 0:
			start = r.cfg.Meta.Outputs[c]
		}
		channel := []byte{}
		for _, b := range allOf(r, log, start) {
			channel = append(channel, b.Payload...)
		}
		channels = append(channels, channel)
	}
	return channels
}

// shown gives the elements of an output channel as text: numbers, and the names of what is not a record.
func (r *rig) shown(c int) (lines []string) {
	r.Helper()
	for rest := r.output()[c]; len(rest) > 0; {
		var e inflightlog.Element
		n, err := inflightlog.Decode(rest, &e)
		require.NoError(r, err)
		rest = rest[n:]
		switch e.Kind {
		case inflightlog.Record:
			lines = append(lines, fmt.Sprint(binary.BigEndian.Uint64(e.Payload)))
		case inflightlog.Barrier, inflightlog.Skip:
			lines = append(lines, fmt.Sprintf("%v %d", e.Kind, e.Epoch))
		case inflightlog.Watermark:
			lines = append(lines, fmt.Sprintf("watermark %d", e.Time))
		default:
			lines = append(lines, e.Kind.String())
		}
	}
	return lines
}

// numberCodec codes a number in eight bytes.
type numberCodec struct{}

func (numberCodec) Append(dst []byte, v uint64) ([]byte, error) {
	return binary.BigEndian.AppendUint64(dst, v), nil
}

func (numberCodec) Decode(src []byte) (uint64, error) { return binary.BigEndian.Uint64(src), nil }

var numberOption = operator.WithCodec[uint64](numberCodec{})

// script is a source whose splits the test fills. A split can be held: then its reader has nothing for now.
type script struct {
	names  []string
	splits map[string][]uint64
	held   map[string]bool
	more   map[string]bool   // the split does not end
	upTo   map[string]uint64 // if set, the reader has nothing from this offset on
}

func (s *script) Splits(context.Context) ([]string, error) { return s.names, nil }

func (s *script) Open(_ context.Context, split string, offset uint64) (operator.Reader[uint64], error) {
	return &scriptReader{s, split, offset}, nil
}

type scriptReader struct {
	script *script
	split  string
	at     uint64
}

func (r *scriptReader) Next() (uint64, uint64, error) {
	values := r.script.splits[r.split]
	limit, limited := r.script.upTo[r.split]
	if r.script.held[r.split] || limited && r.at >= limit {
		return 0, 0, operator.ErrNotReady
	}
	if r.at >= uint64(len(values)) {
		if r.script.more[r.split] {
			return 0, 0, operator.ErrNotReady
		}
		return 0, 0, io.EOF
	}
	r.at++
	return values[r.at-1], r.at, nil
}

func (r *scriptReader) Ready() <-chan struct{} { return nil }
func (r *scriptReader) Close() error           { return nil }

// mapVertex is a vertex with one operator, "f", whose output goes to two channels in turn.
func mapVertex(t tester, channels int, f func(ctx operator.Context, v uint64, emit func(uint64)) error) vertex {
	t.Helper()
	job := operator.NewJob("map")
	in := operator.From(job, "in", &script{}, numberOption)
	out := operator.FlatMap(operator.Rebalanced(in), "f", f, numberOption)
	operator.ForEach(operator.Rebalanced(out), "end", func(operator.Context, uint64) error { return nil }, operator.Parallelism(1))
	return vertexOf(t, job, "f", channels)
}

// pass emits what it gets.
func pass(_ operator.Context, v uint64, emit func(uint64)) error {
	emit(v)
	return nil
}

// sourceVertex is a source with a function behind it.
func sourceVertex(t tester, s *script, f func(ctx operator.Context, v uint64, emit func(uint64)) error) vertex {
	t.Helper()
	job := operator.NewJob("source")
	out := operator.FlatMap(operator.From(job, "in", s, numberOption), "f", f, numberOption)
	operator.ForEach(operator.Rebalanced(out), "end", func(operator.Context, uint64) error { return nil })
	return vertexOf(t, job, "in", 0)
}

// withSplits gives a source task its splits.
func withSplits(s *script) func(*Config) {
	return func(c *Config) { c.Splits = FixedSplits(s.names...) }
}

// curious is user code that asks the context for everything there is, and keeps state and timers.
type curious struct{ count *operator.Value[uint64] }

func (c *curious) Open(s *operator.States) error {
	c.count = operator.NewValue[uint64](s, "count")
	return nil
}

func (c *curious) Process(ctx operator.KeyedContext[uint64], v uint64, emit func(uint64)) error {
	n, _ := c.count.Get()
	c.count.Set(n + 1)
	out := v<<8 + n
	if v%3 == 0 {
		out += uint64(ctx.Now().UnixMilli()) << 32
	}
	if v%5 == 0 {
		out ^= ctx.Rand().Uint64()
	}
	if v%7 == 0 {
		answer, err := ctx.Call([]byte{byte(v)}, askOutside)
		if err != nil {
			return err
		}
		out ^= binary.BigEndian.Uint64(answer)
	}
	emit(out)
	if v%4 == 0 {
		ctx.RegisterProcessingTimer(ctx.Now().Add(10*time.Millisecond), "beat")
		emit(out + 1)
	}
	if at, ok := ctx.EventTime(); ok {
		ctx.RegisterEventTimer(at.Add(20*time.Millisecond), "late")
	}
	return nil
}

func (c *curious) Timer(ctx operator.KeyedContext[uint64], t operator.Timer, emit func(uint64)) error {
	n, _ := c.count.Get()
	emit(ctx.Key()<<48 + n<<32 + uint64(t.Time.UnixMilli()))
	if !t.Event && n%2 == 0 {
		c.count.Set(n + 1)
		emit(uint64(ctx.Now().UnixMilli()) ^ ctx.Rand().Uint64())
		ctx.RegisterProcessingTimer(ctx.Now().Add(5*time.Millisecond), "again")
	}
	return nil
}

func askOutside(context.Context, []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint64(nil, outside()), nil
}

// curiousVertex runs curious on eight keys; its output goes to three channels in turn.
func curiousVertex(t tester, channels int) vertex {
	t.Helper()
	job := operator.NewJob("curious")
	in := operator.From(job, "in", &script{}, numberOption)
	keyed := operator.KeyBy(in, func(v uint64) uint64 { return v % 8 }, numberOption)
	out := operator.Process(keyed, "work", func() operator.Processor[uint64, uint64, uint64] { return &curious{} }, numberOption)
	operator.ForEach(operator.Rebalanced(out), "end", func(operator.Context, uint64) error { return nil }, operator.Parallelism(3))
	return vertexOf(t, job, "work", channels)
}

// askingVertex makes an external call for each record, several at a time.
func askingVertex(t tester, channels int) vertex {
	t.Helper()
	job := operator.NewJob("asking")
	in := operator.From(job, "in", &script{}, numberOption)
	out := operator.AsyncMap(in, "ask", func(_ context.Context, v uint64) (uint64, error) { return outside() ^ v, nil },
		operator.AsyncOptions{Capacity: 4}, numberOption)
	operator.ForEach(operator.Rebalanced(out), "end", func(operator.Context, uint64) error { return nil }, operator.Parallelism(2))
	return vertexOf(t, job, "ask", channels)
}

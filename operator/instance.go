package operator

import (
	"encoding/binary"
	"fmt"
)

// instance is the Chain of one task.
type instance struct {
	sites   []*site // head first
	current int     // index of the operator whose user code ran last
	inputs  []recordInput
	head    control
	source  SourceHead
	async   asyncHead
	timed   []timed
	steps   []stepEnder
	rewinds []rewinder
	element uint64 // counts the records that went into the chain
	restore []restorer
	reaches []reacher
	tables  []Table
	last    progress
}

// What an operator may have besides its collector.
type (
	// timed has processing-time timers.
	timed interface {
		nextTimer() (int64, bool)
		mark() uint64
		// processingTime fires what is due and was registered before the mark.
		processingTime(now int64, before uint64) error
	}
	stepEnder interface{ stepEnd() error }
	// rewinder holds until the end of a step what elements have left.
	rewinder interface{ rewind() }
	restorer interface{ restored() error }
	// reacher makes a watermark that others may have to wait for.
	reacher interface{ reached() (wm int64, ok bool) }
	// asyncHead is a head with outstanding external calls.
	asyncHead interface {
		asyncDone(k int, result []byte, failed bool) error
		room() int
		drained() bool
	}
)

// built is what an operator's build returns: entries has a collector per logical input; state are its Tables.
type built struct {
	op      any
	entries []any
	head    control    // of a vertex that begins here
	source  SourceHead // of a source
	state   []Table
}

// builder makes an instance, from the last operator to the first.
type builder struct {
	rt    Runtime
	graph *vertexGraph
	chain *instance
}

// newInstance builds one task's chain.
func newInstance(g *vertexGraph, rt Runtime) (Chain, error) {
	c := &instance{sites: make([]*site, len(g.nodes)), last: progress{input: MinTime}}
	b := &builder{rt: rt, graph: g, chain: c}
	for i, n := range g.nodes {
		c.sites[i] = &site{rt: rt, chain: c, name: n.name, index: i, wm: MinTime}
	}
	parts := make([]built, len(g.nodes))
	rotations := make([][]Table, len(g.nodes))
	for i := len(g.nodes) - 1; i >= 0; i-- {
		outs, tables, err := b.outs(i, parts)
		if err != nil {
			return nil, err
		}
		rotations[i] = tables
		if parts[i], err = g.nodes[i].build(b, c.sites[i], outs); err != nil {
			return nil, fmt.Errorf("operator: %q: building: %w", g.nodes[i].name, err)
		}
	}
	c.link(g, parts, rotations)
	return c, nil
}

// outs makes the collectors of the i-th operator's ports, with the Tables that its edges need.
func (b *builder) outs(i int, parts []built) ([]any, []Table, error) {
	n := b.graph.nodes[i]
	outs := make([]any, len(n.ports))
	var tables []Table
	for p := range n.ports {
		consumers := n.ports[p].consumers
		if len(consumers) == 0 {
			continue
		}
		if i+1 < len(b.graph.nodes) {
			outs[p] = parts[i+1].entries[consumers[0].input]
			continue
		}
		var targets []target
		for _, e := range b.graph.edges[p] {
			in := &e.consumer.node.inputs[e.consumer.input]
			t := target{out: b.rt.Output(e.output), partition: e.partition}
			if t.out == nil {
				return nil, nil, fmt.Errorf("operator: %q: the runtime has no output %d", n.name, e.output)
			}
			switch e.partition {
			case Hash:
				t.partitioner = in.partitioner(b.chain.sites[i])
			case Rebalance:
				t.position = &rotation{id: fmt.Sprintf("%s/position %d", n.name, e.output)}
				tables = append(tables, t.position)
			}
			targets = append(targets, t)
		}
		outs[p] = consumers[0].node.inputs[consumers[0].input].tail(b.chain.sites[i], targets)
	}
	return outs, tables, nil
}

// link puts the parts together in the order of the chain.
func (c *instance) link(g *vertexGraph, parts []built, rotations [][]Table) {
	head := parts[0]
	c.head, c.source = head.head, head.source
	c.async, _ = head.op.(asyncHead)
	for i, in := range g.nodes[0].inputs {
		if raw, ok := head.entries[i].(recordInput); ok {
			c.inputs = append(c.inputs, raw)
			continue
		}
		c.inputs = append(c.inputs, in.decode(c.sites[0], head.entries[i]))
	}
	if c.head == nil {
		c.head = head.entries[0].(control)
	}
	c.tables = append(c.tables, &progressTable{chain: c})
	for i, p := range parts {
		if t, ok := p.op.(timed); ok {
			c.timed = append(c.timed, t)
		}
		if s, ok := p.op.(stepEnder); ok {
			c.steps = append(c.steps, s)
		}
		if r, ok := p.op.(rewinder); ok {
			c.rewinds = append(c.rewinds, r)
		}
		if r, ok := p.op.(restorer); ok {
			c.restore = append(c.restore, r)
		}
		if r, ok := p.op.(reacher); ok {
			c.reaches = append(c.reaches, r)
		}
		c.tables = append(c.tables, p.state...)
		c.tables = append(c.tables, rotations[i]...)
	}
}

// Record implements Chain.
func (c *instance) Record(in int, payload []byte, ts int64, hasTime bool) (err error) {
	defer c.guard(&err)
	c.element++
	return c.inputs[in].recordBytes(payload, ts, hasTime)
}

// Watermark implements Chain.
func (c *instance) Watermark(wm int64) (err error) {
	defer c.guard(&err)
	if wm <= c.last.input {
		return nil
	}
	c.last.input = wm
	return c.head.watermark(wm)
}

// Idle implements Chain.
func (c *instance) Idle(idle bool) (err error) {
	defer c.guard(&err)
	return c.head.idle(idle)
}

// Reached implements Chain.
func (c *instance) Reached() (wm int64, ok bool) {
	if c.last.ended {
		return 0, false
	}
	for _, r := range c.reaches {
		if at, has := r.reached(); has && (!ok || at < wm) {
			wm, ok = at, true
		}
	}
	return wm, ok
}

// NextTimer implements Chain.
func (c *instance) NextTimer() (next int64, ok bool) {
	for _, t := range c.timed {
		if at, has := t.nextTimer(); has && (!ok || at < next) {
			next, ok = at, true
		}
	}
	return next, ok
}

// ProcessingTime implements Chain.
func (c *instance) ProcessingTime(now int64) (err error) {
	defer c.guard(&err)
	if len(c.timed) == 1 {
		return c.timed[0].processingTime(now, c.timed[0].mark())
	}
	marks := make([]uint64, len(c.timed))
	for i, t := range c.timed {
		marks[i] = t.mark()
	}
	for i, t := range c.timed {
		if err := t.processingTime(now, marks[i]); err != nil {
			return err
		}
	}
	return nil
}

// AsyncDone implements Chain.
func (c *instance) AsyncDone(k int, result []byte, failed bool) (err error) {
	defer c.guard(&err)
	if c.async == nil {
		return fmt.Errorf("operator: call %d completed in a vertex that makes none", k)
	}
	return c.async.asyncDone(k, result, failed)
}

// Room implements Chain.
func (c *instance) Room() int {
	if c.async == nil {
		return -1
	}
	return c.async.room()
}

// StepEnd implements Chain.
func (c *instance) StepEnd() (err error) {
	if len(c.steps) == 0 {
		return nil
	}
	defer c.guard(&err)
	for _, s := range c.steps {
		if err := s.stepEnd(); err != nil {
			return err
		}
	}
	return nil
}

// Rewind implements Chain.
func (c *instance) Rewind() {
	for _, r := range c.rewinds {
		r.rewind()
	}
}

// End implements Chain. Ending twice is ending once: a task restored after its end may say it again.
func (c *instance) End() (err error) {
	defer c.guard(&err)
	if c.last.ended {
		return nil
	}
	c.last.ended = true
	if c.last.input < MaxTime {
		c.last.input = MaxTime
		if err := c.head.watermark(MaxTime); err != nil {
			return err
		}
	}
	return c.head.end()
}

// Drained implements Chain.
func (c *instance) Drained() bool {
	return c.last.ended && (c.async == nil || c.async.drained())
}

// Source implements Chain.
func (c *instance) Source() SourceHead { return c.source }

// Tables implements Chain.
func (c *instance) Tables() []Table { return c.tables }

// Restored implements Chain.
func (c *instance) Restored() (err error) {
	defer c.guard(&err)
	for _, r := range c.restore {
		if err := r.restored(); err != nil {
			return err
		}
	}
	return nil
}

// progress is how far event time has come on the chain's input, and whether the input has ended.
type progress struct {
	input int64
	ended bool
}

// progressTable holds the chain's progress, and each operator's watermark, which may lag behind it.
type progressTable struct {
	chain *instance
}

// ID implements Table.
func (p *progressTable) ID() string { return "chain/progress" }

// Freeze implements Table.
func (p *progressTable) Freeze() Frozen {
	c := p.chain
	value := []byte{0}
	if c.last.ended {
		value[0] = 1
	}
	value = binary.AppendVarint(value, c.last.input)
	for _, s := range c.sites {
		value = binary.AppendVarint(value, s.wm)
	}
	return frozenValue(p.ID(), "progress", value)
}

// Load implements Table.
func (p *progressTable) Load(_, value []byte) error {
	c := p.chain
	if len(value) == 0 {
		return fmt.Errorf("%w: a chain's progress is empty", ErrEncoding)
	}
	c.last.ended = value[0] == 1
	rest := value[1:]
	times := make([]int64, 1+len(c.sites))
	for i := range times {
		v, n := binary.Varint(rest)
		if n <= 0 {
			return fmt.Errorf("%w: a chain's progress has %d watermarks for %d operators", ErrEncoding, i, len(c.sites))
		}
		times[i], rest = v, rest[n:]
	}
	c.last.input = times[0]
	for i, s := range c.sites {
		s.wm = times[1+i]
	}
	return nil
}

// rotation is the round-robin position of an edge: how many records went out on it.
type rotation struct {
	id    string
	count uint64
}

func (r *rotation) next(fanout int) int {
	c := r.count % uint64(fanout)
	r.count++
	return int(c)
}

// ID implements Table.
func (r *rotation) ID() string { return r.id }

// Freeze implements Table.
func (r *rotation) Freeze() Frozen {
	return frozenValue(r.id, "count", binary.AppendUvarint(nil, r.count))
}

// Load implements Table.
func (r *rotation) Load(_, value []byte) error {
	v, n := binary.Uvarint(value)
	if n != len(value) || n <= 0 {
		return fmt.Errorf("%w: round-robin position %x", ErrEncoding, value)
	}
	r.count = v
	return nil
}

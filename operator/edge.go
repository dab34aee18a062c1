package operator

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// collector takes what an operator emits. Operators of a chain call one another through it.
type collector[T any] interface {
	record(v T, ts int64, hasTime bool) error
	control
}

// control is the part of a collector that knows nothing of the records' type.
type control interface {
	// watermark is called with rising times only.
	watermark(wm int64) error
	idle(idle bool) error
	// end comes once, after a watermark of MaxTime: nothing will follow.
	end() error
}

// recordInput takes records of one logical input as bytes.
type recordInput interface {
	recordBytes(payload []byte, ts int64, hasTime bool) error
}

// input is one logical input of an operator: the stream that it takes, and how it crosses from one vertex to another.
type input struct {
	from      *node
	port      int
	partition Partition
	// border tells why records of this stream can't leave a vertex, nil if they can.
	border func() error
	// decode makes the receiving end; next is the operator's collector.
	decode func(s *site, next any) recordInput
	// tail makes the sending end, a collector, for all edges that leave the port.
	tail func(s *site, targets []target) any
	// partitioner makes a partitioner for Hash.
	partitioner func(s *site) any
}

// target is one edge that leaves a port.
type target struct {
	out         Output
	partition   Partition
	partitioner any       // a partitioner of the stream's type, for Hash
	position    *rotation // for Rebalance
}

func inputOf[T any](s Stream[T]) input {
	return input{
		from: s.node, port: s.port, partition: s.partition,
		border: s.codec.check(),
		decode: func(at *site, next any) recordInput {
			d := &decoder[T]{site: at, codec: s.codec.codec, next: next.(collector[T])}
			if f, ok := next.(withForesight[T]); ok {
				d.ahead = f.foresight()
			}
			return d
		},
		tail: func(at *site, targets []target) any { return newTail(at, s.codec.codec, targets) },
	}
}

func keyedInputOf[K comparable, T any](ks KeyedStream[K, T], codec codecRef[K]) input {
	in := inputOf(ks.stream)
	in.partition = Hash
	in.partitioner = func(s *site) any {
		return &keyPartitioner[K, T]{site: s, key: ks.key, codec: codec.codec}
	}
	return in
}

// decoder is the receiving end of an edge.
type decoder[T any] struct {
	site    *site
	codec   Codec[T]
	next    collector[T]
	ahead   foreseer[T] // next's; nil if it has none
	decoded decoded[T]
}

func (d *decoder[T]) recordBytes(payload []byte, ts int64, hasTime bool) error {
	d.site.enter()
	if i, v, ok := d.decoded.take(payload); ok {
		d.ahead.comes(i)
		return d.next.record(v, ts, hasTime)
	}
	if d.ahead != nil {
		d.ahead.comes(-1)
	}
	v, err := d.codec.Decode(payload)
	if err != nil {
		return d.site.failed("decoding its input", err)
	}
	return d.next.record(v, ts, hasTime)
}

// partitioner chooses the channel of a record.
type partitioner[T any] interface {
	channel(v T, fanout int) (int, error)
}

type keyPartitioner[K comparable, T any] struct {
	site  *site
	key   func(T) K
	codec Codec[K]
	buf   []byte
}

func (p *keyPartitioner[K, T]) channel(v T, fanout int) (int, error) {
	buf, err := p.codec.Append(p.buf[:0], p.key(v))
	if err != nil {
		return 0, p.site.failed("encoding a key", err)
	}
	p.buf = buf
	if fanout == 1 {
		return 0, nil
	}
	return int(xxhash.Sum64(buf) % uint64(fanout)), nil
}

// tail is the sending end of all edges that leave a port: it encodes a record once.
type tail[T any] struct {
	site   *site
	codec  Codec[T]
	routes []route[T]
	buf    []byte
}

type route[T any] struct {
	out         Output
	partition   Partition
	fanout      int
	same        int // channel of a Forward edge
	partitioner partitioner[T]
	position    *rotation
}

func newTail[T any](s *site, codec Codec[T], targets []target) *tail[T] {
	t := &tail[T]{site: s, codec: codec}
	for _, g := range targets {
		r := route[T]{out: g.out, partition: g.partition, fanout: g.out.Fanout(), position: g.position}
		if r.partition == Forward && r.fanout > 1 {
			r.same = s.rt.Task().Index
		}
		if g.partitioner != nil {
			r.partitioner = g.partitioner.(partitioner[T])
		}
		t.routes = append(t.routes, r)
	}
	return t
}

func (t *tail[T]) record(v T, ts int64, hasTime bool) error {
	buf, err := t.codec.Append(t.buf[:0], v)
	if err != nil {
		return t.site.failed("encoding its output", err)
	}
	t.buf = buf
	for i := range t.routes {
		r := &t.routes[i]
		c := r.same
		switch r.partition {
		case Hash:
			if c, err = r.partitioner.channel(v, r.fanout); err != nil {
				return err
			}
		case Rebalance:
			c = r.position.next(r.fanout)
		case Broadcast:
			for c = range r.fanout - 1 {
				r.out.Record(c, ts, hasTime, buf)
			}
			c = r.fanout - 1
		}
		r.out.Record(c, ts, hasTime, buf)
	}
	return nil
}

func (t *tail[T]) watermark(wm int64) error {
	for i := range t.routes {
		t.routes[i].out.Watermark(wm)
	}
	return nil
}

func (t *tail[T]) idle(idle bool) error {
	for i := range t.routes {
		t.routes[i].out.Idle(idle)
	}
	return nil
}

func (t *tail[T]) end() error { return nil }

// discard takes what nobody consumes.
type discard[T any] struct{}

func (discard[T]) record(T, int64, bool) error { return nil }
func (discard[T]) watermark(int64) error       { return nil }
func (discard[T]) idle(bool) error             { return nil }
func (discard[T]) end() error                  { return nil }

// port finds the collector of port i; one without consumers discards.
func portOf[T any](outs []any, i int) (collector[T], error) {
	if outs[i] == nil {
		return discard[T]{}, nil
	}
	c, ok := outs[i].(collector[T])
	if !ok {
		return nil, fmt.Errorf("operator: port %d has a consumer of another type, %T", i, outs[i])
	}
	return c, nil
}

// pass is the part that most operators share: it hands control elements on.
type pass struct {
	*site
	down control
}

func (p *pass) watermark(wm int64) error {
	p.wm = wm
	return p.down.watermark(wm)
}
func (p *pass) idle(idle bool) error { return p.down.idle(idle) }
func (p *pass) end() error           { return p.down.end() }

// both hands control elements to two ports.
type both struct{ first, second control }

func (b both) watermark(wm int64) error {
	if err := b.first.watermark(wm); err != nil {
		return err
	}
	return b.second.watermark(wm)
}

func (b both) idle(idle bool) error {
	if err := b.first.idle(idle); err != nil {
		return err
	}
	return b.second.idle(idle)
}

func (b both) end() error {
	if err := b.first.end(); err != nil {
		return err
	}
	return b.second.end()
}

// emitter gives user functions an emit that has no error to return: the first error is kept until the function is back.
type emitter[O any] struct {
	site *site
	out  collector[O]
	err  error
	emit func(O)
}

func newEmitter[O any](s *site, out collector[O]) *emitter[O] {
	e := &emitter[O]{site: s, out: out}
	e.emit = func(v O) {
		if e.err == nil {
			e.err = e.out.record(v, s.ts, s.hasTime)
			s.enter()
		}
	}
	return e
}

// done is called after the user's function: err is what it returned.
func (e *emitter[O]) done(err error) error {
	down := e.err
	e.err = nil
	if down != nil {
		return down
	}
	if err != nil {
		return e.site.user(err)
	}
	return nil
}

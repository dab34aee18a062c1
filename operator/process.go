package operator

import (
	"time"

	"github.com/understudy-stream/understudy/timers"
)

// KeyedContext is the Context of a keyed operator. What it gives is in the scope of one key.
type KeyedContext[K comparable] interface {
	Context
	// Key is the key of the record or timer at hand.
	Key() K
	// RegisterProcessingTimer asks for a call of Timer when processing time reaches t, in milliseconds; at the earliest in a
	// later step. A timer that is already there for the same key, time and tag is kept once. Processing-time timers that are
	// pending when the input ends are dropped.
	RegisterProcessingTimer(t time.Time, tag string)
	// RegisterEventTimer asks for a call of Timer when the watermark rises to t or beyond. If it is there already, the call
	// comes at the next rise, or in this one if the watermark is just rising. At the end of time, when all inputs have ended,
	// nothing is registered any more.
	RegisterEventTimer(t time.Time, tag string)
	// DeleteProcessingTimer and DeleteEventTimer take back a timer, if it is there.
	DeleteProcessingTimer(t time.Time, tag string)
	DeleteEventTimer(t time.Time, tag string)
}

// Timer is a timer that is due.
type Timer struct {
	Time  time.Time
	Tag   string
	Event bool // an event-time timer
}

// Processor is a keyed operator with state and timers of its own. One is made for each task. emit must be called before the
// method returns.
type Processor[K comparable, I, O any] interface {
	// Open declares the state. It is called once before anything else, and also when the job is planned; it has no key yet.
	Open(s *States) error
	Process(ctx KeyedContext[K], v I, emit func(O)) error
	// Timer is called for each timer that is due. What it emits has the time of an event-time timer as its timestamp, and
	// none in the case of a processing-time timer.
	Timer(ctx KeyedContext[K], t Timer, emit func(O)) error
}

// Process runs a [Processor] on each key.
func Process[K comparable, I, O any](ks KeyedStream[K, I], name string, make func() Processor[K, I, O], o ...Option) Stream[O] {
	j, opts := jobOf(ks.stream, "Process", name), collect(o)
	j.require(make != nil, "Process", name, "its function")
	codec := codecFor(opts, defaultCodec[O])
	n := j.add(&node{
		kind: "Process", name: name, inputs: []input{keyedInputOf(ks, ks.codec)}, ports: ports(1), head: true,
		checks: []func() error{ks.codec.check(), func() error {
			return opened(&States{operator: name, scope: &keyBytes{}}, make().Open)
		}},
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[O](outs, 0)
			if err != nil {
				return built{}, err
			}
			p := make()
			op := &process[K, I, O]{key: ks.key, processor: p}
			states, err := op.open(at, ks.codec.codec, out, p.Open, p.Timer)
			return built{op: op, entries: []any{op}, state: states}, err
		},
	}, opts)
	return Stream[O]{node: n, codec: codec}
}

// opened calls a user's Open and finds what was wrong with it.
func opened(s *States, open func(*States) error) error {
	if err := open(s); err != nil {
		return err
	}
	return s.err
}

// keyed is what Process and CoProcess have in common: a key's scope, state and timers.
type keyed[K comparable, O any] struct {
	pass
	scope   keyScope[K]
	states  *States
	clocks  clocks
	emitter *emitter[O]
	ctx     KeyedContext[K]
	timer   func(KeyedContext[K], Timer, func(O)) error
}

func (k *keyed[K, O]) open(at *site, codec Codec[K], out collector[O], open func(*States) error,
	timer func(KeyedContext[K], Timer, func(O)) error) ([]Table, error) {
	k.pass = pass{at, out}
	k.scope.codec = codec
	k.states = &States{operator: at.name, scope: &k.scope.keyBytes}
	k.clocks = newClocks(at.name)
	k.emitter = newEmitter(at, out)
	k.ctx = &keyedContext[K]{site: at, scope: &k.scope, clocks: &k.clocks}
	k.timer = timer
	if err := opened(k.states, open); err != nil {
		return nil, err
	}
	return append(k.states.tables, k.clocks.tables()...), nil
}

// enterRecord begins the work on a record.
func enterRecord[K comparable, T, O any](k *keyed[K, O], key func(T) K, v T, ts int64, hasTime bool) error {
	k.begin(ts, hasTime)
	if err := enterKeyOf(&k.scope, key, v); err != nil {
		return k.failed("encoding a key", err)
	}
	return nil
}

func (k *keyed[K, O]) fire(t timers.Timer, event bool) error {
	k.begin(t.Time, event)
	if err := k.scope.enterBytes(t.Key); err != nil {
		return k.failed("decoding the key of a timer", err)
	}
	due := Timer{Time: time.UnixMilli(t.Time).UTC(), Tag: t.Tag, Event: event}
	return k.emitter.done(k.timer(k.ctx, due, k.emitter.emit))
}

func (k *keyed[K, O]) watermark(wm int64) error {
	k.wm = wm
	err := due(k.clocks.event.queue, wm, noMark, func(t timers.Timer) error { return k.fire(t, true) })
	if err != nil {
		return err
	}
	return k.down.watermark(wm)
}

func (k *keyed[K, O]) nextTimer() (int64, bool) { return k.clocks.nextTimer() }
func (k *keyed[K, O]) mark() uint64             { return k.clocks.mark() }

func (k *keyed[K, O]) processingTime(now int64, before uint64) error {
	return due(k.clocks.processing.queue, now, before, func(t timers.Timer) error { return k.fire(t, false) })
}

// end drops the processing-time timers: nobody would wait for them.
func (k *keyed[K, O]) end() error {
	_ = due(k.clocks.processing.queue, MaxTime, noMark, func(timers.Timer) error { return nil })
	return k.down.end()
}

func (k *keyed[K, O]) restored() error {
	for _, r := range k.states.restore {
		if err := r.restored(); err != nil {
			return err
		}
	}
	return nil
}

type process[K comparable, I, O any] struct {
	keyed[K, O]
	key       func(I) K
	processor Processor[K, I, O]
}

func (p *process[K, I, O]) record(v I, ts int64, hasTime bool) error {
	p.enter()
	if err := enterRecord(&p.keyed, p.key, v, ts, hasTime); err != nil {
		return err
	}
	return p.emitter.done(p.processor.Process(p.ctx, v, p.emitter.emit))
}

func (p *process[K, I, O]) foresight() foreseer[I] {
	return &keysAhead[K, I]{scope: &p.scope, key: p.key, state: p.states.foreseeable}
}

// keyedContext implements KeyedContext.
type keyedContext[K comparable] struct {
	*site
	scope  *keyScope[K]
	clocks *clocks
}

func (c *keyedContext[K]) Key() K { return c.scope.key }

func (c *keyedContext[K]) RegisterProcessingTimer(t time.Time, tag string) {
	c.clocks.processing.queue.Register(t.UnixMilli(), string(c.scope.bytes), tag)
}

func (c *keyedContext[K]) RegisterEventTimer(t time.Time, tag string) {
	if c.wm < MaxTime {
		c.clocks.event.queue.Register(t.UnixMilli(), string(c.scope.bytes), tag)
	}
}

func (c *keyedContext[K]) DeleteProcessingTimer(t time.Time, tag string) {
	c.clocks.processing.queue.Delete(t.UnixMilli(), string(c.scope.bytes), tag)
}

func (c *keyedContext[K]) DeleteEventTimer(t time.Time, tag string) {
	c.clocks.event.queue.Delete(t.UnixMilli(), string(c.scope.bytes), tag)
}

// CoProcessor is a keyed operator on two streams with the same key: the base of joins. See [Processor].
type CoProcessor[K comparable, A, B, O any] interface {
	Open(s *States) error
	Left(ctx KeyedContext[K], v A, emit func(O)) error
	Right(ctx KeyedContext[K], v B, emit func(O)) error
	Timer(ctx KeyedContext[K], t Timer, emit func(O)) error
}

// CoProcess runs a [CoProcessor] on each key of two streams. Keys of both are encoded by the codec of a's.
func CoProcess[K comparable, A, B, O any](a KeyedStream[K, A], b KeyedStream[K, B], name string,
	make func() CoProcessor[K, A, B, O], o ...Option) Stream[O] {
	j, opts := jobOf(a.stream, "CoProcess", name), collect(o)
	jobOf(b.stream, "CoProcess", name)
	j.require(make != nil, "CoProcess", name, "its function")
	codec := codecFor(opts, defaultCodec[O])
	n := j.add(&node{
		kind: "CoProcess", name: name, ports: ports(1), head: true,
		inputs: []input{keyedInputOf(a, a.codec), keyedInputOf(b, a.codec)},
		checks: []func() error{a.codec.check(), func() error {
			return opened(&States{operator: name, scope: &keyBytes{}}, make().Open)
		}},
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[O](outs, 0)
			if err != nil {
				return built{}, err
			}
			p := make()
			op := &coProcess[K, A, B, O]{left: a.key, right: b.key, processor: p}
			states, err := op.open(at, a.codec.codec, out, p.Open, p.Timer)
			return built{op: op, entries: []any{leftInput[K, A, B, O]{op}, rightInput[K, A, B, O]{op}}, state: states}, err
		},
	}, opts)
	return Stream[O]{node: n, codec: codec}
}

type coProcess[K comparable, A, B, O any] struct {
	keyed[K, O]
	left      func(A) K
	right     func(B) K
	processor CoProcessor[K, A, B, O]
}

type leftInput[K comparable, A, B, O any] struct{ *coProcess[K, A, B, O] }

func (p leftInput[K, A, B, O]) record(v A, ts int64, hasTime bool) error {
	p.enter()
	if err := enterRecord(&p.keyed, p.left, v, ts, hasTime); err != nil {
		return err
	}
	return p.emitter.done(p.processor.Left(p.ctx, v, p.emitter.emit))
}

type rightInput[K comparable, A, B, O any] struct{ *coProcess[K, A, B, O] }

func (p rightInput[K, A, B, O]) record(v B, ts int64, hasTime bool) error {
	p.enter()
	if err := enterRecord(&p.keyed, p.right, v, ts, hasTime); err != nil {
		return err
	}
	return p.emitter.done(p.processor.Right(p.ctx, v, p.emitter.emit))
}

func (p leftInput[K, A, B, O]) foresight() foreseer[A] {
	return &keysAhead[K, A]{scope: &p.scope, key: p.left, state: p.states.foreseeable}
}

func (p rightInput[K, A, B, O]) foresight() foreseer[B] {
	return &keysAhead[K, B]{scope: &p.scope, key: p.right, state: p.states.foreseeable}
}

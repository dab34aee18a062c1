package operator

import "errors"

// To ends a stream in a causal sink, which shows every record exactly once. Records are encoded by JSON for a [LineSink], by the
// stream's codec for others, unless
// [WithCodec] gives another, such as [JSON].
func To[T any](s Stream[T], name string, sink CausalSink, o ...Option) {
	j := jobOf(s, "To", name)
	j.require(sink != nil, "To", name, "its sink")
	terminal(j, s, &node{kind: "To", name: name, sink: sink}, sink, collect(o))
}

// ToTransactional ends a stream in a transactional sink, which shows every record exactly once, when the checkpoint of its epoch is
// committed. Records are encoded by JSON for a sink with a method Lines, as a [LineSink] has it, by the stream's codec for
// others, unless [WithCodec] gives another.
func ToTransactional[T any](s Stream[T], name string, sink TransactionalSink, o ...Option) {
	j := jobOf(s, "ToTransactional", name)
	j.require(sink != nil, "ToTransactional", name, "its sink")
	terminal(j, s, &node{kind: "ToTransactional", name: name, transactional: sink}, sink, collect(o))
}

// terminal adds an operator that hands what comes to the runtime's external output.
func terminal[T any](j *Job, s Stream[T], n *node, sink any, opts *options) {
	fallback := inherit(s.codec)
	if _, text := sink.(interface{ Lines() }); text {
		fallback = func() codecRef[T] { return codecRef[T]{codec: JSON[T]()} }
	}
	codec := codecFor(opts, fallback)
	n.inputs, n.checks = []input{inputOf(s)}, []func() error{codec.check()}
	n.build = func(b *builder, at *site, _ []any) (built, error) {
		out := b.rt.External()
		if out == nil {
			return built{}, errors.New("the runtime has no external output")
		}
		op := &external[T]{pass: pass{at, discard[T]{}}, codec: codec.codec, out: out}
		return built{op: op, entries: []any{op}}, nil
	}
	j.add(n, opts)
}

type external[T any] struct {
	pass
	codec Codec[T]
	out   Output
	buf   []byte
}

func (e *external[T]) record(v T, ts int64, hasTime bool) error {
	e.enter()
	buf, err := e.codec.Append(e.buf[:0], v)
	if err != nil {
		return e.failed("encoding its output", err)
	}
	e.buf = buf
	e.out.Record(0, ts, hasTime, buf)
	return nil
}

// ForEach ends a stream in a function, for effects that may be repeated: after a failure f may see a record again, whatever
// the job's mode.
func ForEach[T any](s Stream[T], name string, f func(ctx Context, v T) error, o ...Option) {
	j, opts := jobOf(s, "ForEach", name), collect(o)
	j.require(f != nil, "ForEach", name, "its function")
	j.add(&node{
		kind: "ForEach", name: name, inputs: []input{inputOf(s)}, atLeastOnce: true,
		build: func(_ *builder, at *site, _ []any) (built, error) {
			op := &forEach[T]{pass: pass{at, discard[T]{}}, ctx: at, f: f}
			return built{op: op, entries: []any{op}}, nil
		},
	}, opts)
}

type forEach[T any] struct {
	pass
	ctx Context
	f   func(Context, T) error
}

func (e *forEach[T]) record(v T, ts int64, hasTime bool) error {
	e.begin(ts, hasTime)
	if err := e.f(e.ctx, v); err != nil {
		return e.user(err)
	}
	return nil
}

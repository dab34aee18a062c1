package operator

// Map makes one value of each.
func Map[I, O any](s Stream[I], name string, f func(ctx Context, v I) (O, error), o ...Option) Stream[O] {
	j, opts := jobOf(s, "Map", name), collect(o)
	j.require(f != nil, "Map", name, "its function")
	codec := codecFor(opts, defaultCodec[O])
	n := j.add(&node{
		kind: "Map", name: name, inputs: []input{inputOf(s)}, ports: ports(1),
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[O](outs, 0)
			op := &mapping[I, O]{pass: pass{at, out}, ctx: at, f: f, out: out}
			return built{op: op, entries: []any{op}}, err
		},
	}, opts)
	return Stream[O]{node: n, codec: codec}
}

type mapping[I, O any] struct {
	pass
	ctx Context
	f   func(Context, I) (O, error)
	out collector[O]
}

func (m *mapping[I, O]) record(v I, ts int64, hasTime bool) error {
	m.begin(ts, hasTime)
	w, err := m.f(m.ctx, v)
	if err != nil {
		return m.user(err)
	}
	return m.out.record(w, ts, hasTime)
}

// Filter keeps the values for which f is true.
func Filter[T any](s Stream[T], name string, f func(ctx Context, v T) (bool, error), o ...Option) Stream[T] {
	j, opts := jobOf(s, "Filter", name), collect(o)
	j.require(f != nil, "Filter", name, "its function")
	codec := codecFor(opts, inherit(s.codec))
	n := j.add(&node{
		kind: "Filter", name: name, inputs: []input{inputOf(s)}, ports: ports(1),
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[T](outs, 0)
			op := &filter[T]{pass: pass{at, out}, ctx: at, f: f, out: out}
			return built{op: op, entries: []any{op}}, err
		},
	}, opts)
	return Stream[T]{node: n, codec: codec}
}

type filter[T any] struct {
	pass
	ctx Context
	f   func(Context, T) (bool, error)
	out collector[T]
}

func (m *filter[T]) record(v T, ts int64, hasTime bool) error {
	m.begin(ts, hasTime)
	keep, err := m.f(m.ctx, v)
	if err != nil {
		return m.user(err)
	}
	if !keep {
		return nil
	}
	return m.out.record(v, ts, hasTime)
}

// FlatMap makes any number of values of each. emit must be called before f returns, on the same goroutine.
func FlatMap[I, O any](s Stream[I], name string, f func(ctx Context, v I, emit func(O)) error, o ...Option) Stream[O] {
	j, opts := jobOf(s, "FlatMap", name), collect(o)
	j.require(f != nil, "FlatMap", name, "its function")
	codec := codecFor(opts, defaultCodec[O])
	n := j.add(&node{
		kind: "FlatMap", name: name, inputs: []input{inputOf(s)}, ports: ports(1),
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[O](outs, 0)
			op := &flatMapping[I, O]{pass: pass{at, out}, ctx: at, f: f, emitter: newEmitter(at, out)}
			return built{op: op, entries: []any{op}}, err
		},
	}, opts)
	return Stream[O]{node: n, codec: codec}
}

type flatMapping[I, O any] struct {
	pass
	ctx     Context
	f       func(Context, I, func(O)) error
	emitter *emitter[O]
}

func (m *flatMapping[I, O]) record(v I, ts int64, hasTime bool) error {
	m.begin(ts, hasTime)
	return m.emitter.done(m.f(m.ctx, v, m.emitter.emit))
}

// Union joins streams into one. Each input keeps its order.
func Union[T any](name string, streams ...Stream[T]) Stream[T] {
	if len(streams) == 0 {
		panic("operator: Union " + name + ": no streams")
	}
	j := jobOf(streams[0], "Union", name)
	inputs := make([]input, len(streams))
	for i, s := range streams {
		jobOf(s, "Union", name)
		inputs[i] = inputOf(s)
	}
	n := j.add(&node{
		kind: "Union", name: name, inputs: inputs, ports: ports(1), head: true,
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[T](outs, 0)
			op := &union[T]{pass: pass{at, out}, out: out}
			entries := make([]any, len(inputs))
			for i := range entries {
				entries[i] = op
			}
			return built{op: op, entries: entries}, err
		},
	}, &options{})
	return Stream[T]{node: n, codec: streams[0].codec}
}

type union[T any] struct {
	pass
	out collector[T]
}

func (u *union[T]) record(v T, ts int64, hasTime bool) error { return u.out.record(v, ts, hasTime) }

package operator

// KeyBy sends records of equal key to the same task. key must be a function of its argument alone; it may be called for a record before
// those in front of it have run.
func KeyBy[K comparable, T any](s Stream[T], key func(T) K, o ...Option) KeyedStream[K, T] {
	j, opts := jobOf(s, "KeyBy", ""), collect(o)
	j.require(key != nil, "KeyBy after", s.node.name, "its function")
	codec := codecFor(opts, defaultCodec[K])
	if err := opts.unused(); err != nil {
		j.fail(s.node.keyError(err))
	}
	return KeyedStream[K, T]{stream: s, key: key, codec: codec}
}

// keyScope is the key of the record or timer at hand, for a keyed operator.
type keyScope[K comparable] struct {
	keyBytes
	codec Codec[K]
	key   K
	// entered: the next record was foreseen, and this is its key.
	entered bool
}

func (k *keyScope[K]) enterKey(key K) (err error) {
	k.key = key
	if k.bytes, err = k.codec.Append(k.bytes[:0], key); err != nil {
		return err
	}
	k.sum()
	return nil
}

// enterBytes goes to the key of a timer.
func (k *keyScope[K]) enterBytes(encoded string) (err error) {
	k.bytes = append(k.bytes[:0], encoded...)
	k.sum()
	k.key, err = k.codec.Decode(k.bytes)
	return err
}

// Reduce combines the values of each key so far: the first value is the accumulator, and each further one makes f(acc, v)
// the next. It emits the accumulator after every record. f must not change acc, but return another.
func Reduce[K comparable, T any](ks KeyedStream[K, T], name string, f func(acc, v T) (T, error), o ...Option) Stream[T] {
	j, opts := jobOf(ks.stream, "Reduce", name), collect(o)
	j.require(f != nil, "Reduce", name, "its function")
	codec := codecFor(opts, inherit(ks.stream.codec))
	fold := func(acc T, known bool, v T) (T, error) {
		if !known {
			return v, nil
		}
		return f(acc, v)
	}
	return running(j, "Reduce", name, ks, codec, fold, opts)
}

// Aggregate folds the values of each key into an accumulator, which begins as the zero A, and emits it after every record. f
// must not change acc, but return another.
func Aggregate[K comparable, I, A any](ks KeyedStream[K, I], name string, f func(acc A, v I) (A, error), o ...Option) Stream[A] {
	j, opts := jobOf(ks.stream, "Aggregate", name), collect(o)
	j.require(f != nil, "Aggregate", name, "its function")
	codec := codecFor(opts, defaultCodec[A])
	fold := func(acc A, _ bool, v I) (A, error) { return f(acc, v) }
	return running(j, "Aggregate", name, ks, codec, fold, opts)
}

// running is the operator behind Reduce and Aggregate.
func running[K comparable, I, A any](j *Job, kind, name string, ks KeyedStream[K, I], codec codecRef[A],
	fold func(acc A, known bool, v I) (A, error), opts *options) Stream[A] {
	n := j.add(&node{
		kind: kind, name: name, inputs: []input{keyedInputOf(ks, ks.codec)}, ports: ports(1), head: true,
		checks: []func() error{ks.codec.check(), codec.check()},
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[A](outs, 0)
			op := &runningFold[K, I, A]{pass: pass{at, out}, key: ks.key, fold: fold, out: out}
			op.scope.codec = ks.codec.codec
			op.values = newTable(name+"/accumulator", codec.codec)
			return built{op: op, entries: []any{op}, state: []Table{op.values}}, err
		},
	}, opts)
	return Stream[A]{node: n, codec: codec}
}

type runningFold[K comparable, I, A any] struct {
	pass
	key    func(I) K
	scope  keyScope[K]
	fold   func(acc A, known bool, v I) (A, error)
	values *table[A]
	out    collector[A]
}

func (r *runningFold[K, I, A]) record(v I, ts int64, hasTime bool) error {
	r.begin(ts, hasTime)
	if err := enterKeyOf(&r.scope, r.key, v); err != nil {
		return r.failed("encoding a key", err)
	}
	acc, known := r.values.get(&r.scope.keyBytes)
	acc, err := r.fold(acc, known, v)
	if err != nil {
		return r.user(err)
	}
	r.values.set(&r.scope.keyBytes, acc)
	return r.out.record(acc, ts, hasTime)
}

func (r *runningFold[K, I, A]) foresight() foreseer[I] {
	return &keysAhead[K, I]{scope: &r.scope, key: r.key, state: []foreseeable{r.values}}
}

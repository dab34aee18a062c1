package operator

import (
	"errors"
	"fmt"
	"reflect"
	"time"
)

// Job collects the operators of a pipeline. The functions of this package add to it; the first mistake is kept and returned
// by Plan, so that a pipeline reads without an error check per line.
type Job struct {
	name  string
	nodes []*node
	err   error
}

// NewJob starts an empty job.
func NewJob(name string) *Job { return &Job{name: name} }

// Name is the job's name.
func (j *Job) Name() string { return j.name }

func (j *Job) fail(err error) {
	if j.err == nil {
		j.err = err
	}
}

// Stream is a sequence of values of type T on its way from one operator to the next. It is a description: it may be used by
// several consumers, and each of them sees every value.
type Stream[T any] struct {
	node      *node
	port      int
	partition Partition
	codec     codecRef[T]
}

// KeyedStream is a Stream whose records of equal key go to the same task, in the scope of that key.
type KeyedStream[K comparable, T any] struct {
	stream Stream[T]
	key    func(T) K
	codec  codecRef[K]
}

// node is one operator of the job's graph, with its types erased: build and the inputs' functions are closures made where the
// types were known.
type node struct {
	job           *Job
	index         int
	kind          string
	detail        string // part of the plan's shape
	name          string
	parallelism   int // 0: the plan's default
	inputs        []input
	ports         []port
	head          bool // starts a vertex of its own whatever its input is
	atLeastOnce   bool
	source        sourceSplits
	inputOf       func(split string) string
	growing       Growing // the source, if it is one
	drift         int64   // milliseconds; 0: any
	sink          CausalSink
	transactional TransactionalSink
	checks        []func() error // asked at Plan time
	// build makes one task's instance of the operator. outs has a collector per port.
	build func(b *builder, s *site, outs []any) (built, error)
}

// port is one output of an operator.
type port struct {
	consumers []consumer
	optional  bool // may stay without a consumer
}

func ports(n int) []port { return make([]port, n) }

type consumer struct {
	node  *node
	input int
}

func (n *node) consumers() int {
	total := 0
	for _, p := range n.ports {
		total += len(p.consumers)
	}
	return total
}

// add puts an operator with the given inputs and number of ports into the job.
func (j *Job) add(n *node, o *options) *node {
	n.job = j
	n.index = len(j.nodes)
	n.parallelism = o.parallelism
	if n.name == "" {
		j.fail(fmt.Errorf("operator: a %s has no name", n.kind))
	}
	for _, other := range j.nodes {
		if other.name == n.name {
			j.fail(fmt.Errorf("operator: %s and %s are both named %q: names must be unique", other.kind, n.kind, n.name))
		}
	}
	if err := o.unused(); err != nil {
		j.fail(fmt.Errorf("operator: %s %q: %w", n.kind, n.name, err))
	}
	for i, in := range n.inputs {
		if in.from.job != j {
			j.fail(fmt.Errorf("operator: %s %q: input %q belongs to another job", n.kind, n.name, in.from.name))
			continue
		}
		p := &in.from.ports[in.port]
		p.consumers = append(p.consumers, consumer{node: n, input: i})
	}
	j.nodes = append(j.nodes, n)
	return n
}

// jobOf finds the job that a stream belongs to. Using the zero Stream is a mistake in the program.
func jobOf[T any](s Stream[T], kind, name string) *Job {
	if s.node == nil {
		panic(fmt.Sprintf("operator: %s %q: the input is a zero Stream", kind, name))
	}
	return s.node.job
}

func (j *Job) require(ok bool, kind, name, what string) {
	if !ok {
		j.fail(fmt.Errorf("operator: %s %q: %s is nil", kind, name, what))
	}
}

// Option changes one operator. An option that does not concern the operator it is given to is an error.
type Option func(*options)

type options struct {
	parallelism int
	err         error
	codecs      []givenCodec
	lateness    time.Duration
	hasLateness bool
	idleAfter   time.Duration
	hasIdle     bool
	drift       time.Duration
	hasDrift    bool
	combined    bool
}

type givenCodec struct {
	codec any
	of    reflect.Type
	used  bool
}

// Parallelism sets how many tasks run the operator. The default is the plan's.
func Parallelism(n int) Option {
	return func(o *options) {
		if n < 1 {
			o.err = fmt.Errorf("parallelism %d: must be at least 1", n)
		}
		o.parallelism = n
	}
}

// WithCodec sets the codec for what the operator makes of type T: its output, its state, or its key. The default is
// [MsgPack].
func WithCodec[T any](c Codec[T]) Option {
	return func(o *options) {
		o.codecs = append(o.codecs, givenCodec{codec: c, of: reflect.TypeFor[T]()})
	}
}

// AllowedLateness keeps the panes of an event-time window for d after the watermark has passed its end. A record that arrives
// meanwhile makes the pane fire again; a record that arrives later goes to the late stream.
func AllowedLateness(d time.Duration) Option {
	return func(o *options) { o.lateness, o.hasLateness = d, true }
}

// IdleAfter makes [Timestamps] declare its stream idle when no record has come for between d and 2d of processing time, so
// that it does not hold back the watermark of others.
func IdleAfter(d time.Duration) Option {
	return func(o *options) { o.idleAfter, o.hasIdle = d, true }
}

// MaxDrift keeps sources together in event time: a task of a source does not read on while the watermark that its [Timestamps] makes is more
// than d ahead of the least that any task of the job makes with this option. Without it a split that is read faster than others gets further
// and further ahead of them, and windows and joins behind must hold all of what it gave until the others have come as far. A task that is idle
// (see [IdleAfter]), has given no record yet, recovers, or is at its end, holds back none; one that is just slow does. Tasks hear of each
// other with the heartbeats, ten times a second, so d bounds the drift but for what is read in some 200 ms, and should be well more than that. The Timestamps
// must run in the tasks of the source, with nothing between that has other tasks. It is Flink's watermark alignment (FLIP-182), with
// one group for the job.
func MaxDrift(d time.Duration) Option {
	return func(o *options) { o.drift, o.hasDrift = d, true }
}

// Combined makes a tumbling or sliding [Window] add records up before they cross to the tasks that have their keys: of the records that
// a task takes in one step, which is as many as are ready, it sends one accumulator per key and slide. That pays where
// many records have few keys, also if one key has most. Aggregator.Merge joins the accumulators. There is no late stream.
//
// Invariant: between two steps, and before a watermark, nothing is held back, so that a checkpoint needs no state of it.
func Combined() Option {
	return func(o *options) { o.combined = true }
}

func collect(list []Option) *options {
	o := &options{}
	for _, f := range list {
		f(o)
	}
	return o
}

// unused reports options that nobody asked for.
func (o *options) unused() error {
	if o.err != nil {
		return o.err
	}
	for _, c := range o.codecs {
		if !c.used {
			return fmt.Errorf("WithCodec[%v] fits nothing here", c.of)
		}
	}
	if o.hasLateness {
		return errors.New("AllowedLateness is for event-time windows")
	}
	if o.hasIdle {
		return errors.New("IdleAfter is for Timestamps")
	}
	if o.hasDrift {
		return errors.New("MaxDrift is for Timestamps")
	}
	if o.combined {
		return errors.New("Combined is for windows")
	}
	return nil
}

// takeLateness, takeCombined, takeIdle and takeDrift hand an option to the operator that it is meant for.
func (o *options) takeLateness() (d time.Duration, given bool) {
	given, o.hasLateness = o.hasLateness, false
	return o.lateness, given
}

func (o *options) takeCombined() (given bool) {
	given, o.combined = o.combined, false
	return given
}

func (o *options) takeDrift() (d time.Duration, given bool) {
	given, o.hasDrift = o.hasDrift, false
	return o.drift, given
}

func (o *options) takeIdle() (d time.Duration, given bool) {
	given, o.hasIdle = o.hasIdle, false
	return o.idleAfter, given
}

// codecRef is a codec, or why there is none. The reason counts only where values of the type leave the task's memory.
type codecRef[T any] struct {
	codec Codec[T]
	err   error
}

// codecFor takes the option for T, or otherwise what fallback gives.
func codecFor[T any](o *options, fallback func() codecRef[T]) codecRef[T] {
	for i := len(o.codecs) - 1; i >= 0; i-- {
		if o.codecs[i].of != reflect.TypeFor[T]() {
			continue
		}
		o.codecs[i].used = true
		c, _ := o.codecs[i].codec.(Codec[T])
		if c == nil {
			return codecRef[T]{err: errors.New("WithCodec was given nil")}
		}
		return codecRef[T]{codec: c}
	}
	return fallback()
}

func defaultCodec[T any]() codecRef[T] {
	c, err := MsgPack[T]()
	return codecRef[T]{codec: c, err: err}
}

// inherit makes an operator use the codec of the stream that it takes.
func inherit[T any](c codecRef[T]) func() codecRef[T] { return func() codecRef[T] { return c } }

// check makes an error of a codec part of planning, for values that always leave the task's memory.
func (c codecRef[T]) check() func() error {
	return func() error { return c.err }
}

// Rebalanced spreads the records of s over the tasks of its consumer in turn.
func Rebalanced[T any](s Stream[T]) Stream[T] {
	s.partition = Rebalance
	return s
}

// Broadcasted gives every record of s to every task of its consumer.
func Broadcasted[T any](s Stream[T]) Stream[T] {
	s.partition = Broadcast
	return s
}

// keyError names the stream that a KeyBy, which has no name, was applied to.
func (n *node) keyError(err error) error {
	return fmt.Errorf("operator: KeyBy after %q: %w", n.name, err)
}

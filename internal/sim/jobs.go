package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// shape is a job's graph.
type shape struct {
	name  string
	build func(b *jobBuilder)
}

// shapes are the graphs that seeds choose from.
var shapes = []shape{
	{"line", (*jobBuilder).line},
	{"grid", (*jobBuilder).grid},
	{"diamond", (*jobBuilder).diamond},
	{"skew", (*jobBuilder).skew},
	{"tour", (*jobBuilder).tour},
	{"async", (*jobBuilder).async},
	{"windows", (*jobBuilder).windows},
	{"clock", (*jobBuilder).clock},
}

// more are the graphs that only tests ask for.
var more = []shape{
	{"deal", (*jobBuilder).deal},
}

// shapeOf finds a shape by its name.
func shapeOf(name string) shape {
	for _, s := range slices.Concat(shapes, more) {
		if s.name == name {
			return s
		}
	}
	panic("sim: no job is called " + name)
}

// jobBuilder builds one job and notes which ids its sinks must show.
type jobBuilder struct {
	world *World
	job   *operator.Job
	want  []uint64
	// transactions says which sinks are transactional.
	transactions *rand.Rand
}

type stream = operator.Stream[record]

func par(n int) operator.Option { return operator.Parallelism(n) }

var codec = operator.WithCodec[record](recordCodec{})

// from is a source of n tasks; its ids must be visible once for each of the given number of ways.
func (b *jobBuilder) from(n, ways int) stream {
	w := b.world
	s := &source{world: w, splits: n + w.rng.IntN(3), each: w.plan.records/(n+1) + w.rng.IntN(8)}
	from := w.growth.grows(s)
	for _, id := range s.ids() {
		for way := range ways {
			b.want = append(b.want, id+uint64(way)*pathShift)
		}
	}
	return operator.From(b.job, "source", from, par(n), codec)
}

func (b *jobBuilder) enrich(s stream, name string, n int) stream {
	return operator.Map(s, name, b.world.enrich, par(n), codec)
}

// shifted tells the records of another way apart.
func (b *jobBuilder) shifted(s stream, name string, n int, way uint64) stream {
	return operator.Map(s, name, func(ctx operator.Context, r record) (record, error) {
		r, err := b.world.enrich(ctx, r)
		if r.ID < derived {
			r.ID += way * pathShift
		}
		return r, err
	}, par(n), codec)
}

func keyed(s stream) operator.KeyedStream[uint64, record] {
	return operator.KeyBy(s, func(r record) uint64 { return r.Key })
}

func (b *jobBuilder) counted(s stream, name string, n int) stream {
	pace := 6 + b.world.rng.Int64N(40)
	return operator.Process(keyed(s), name, func() operator.Processor[uint64, record, record] { return &counter{pace: pace} }, par(n), codec)
}

func (b *jobBuilder) sink(s stream, name string, n int) {
	if b.transactions.IntN(100) < b.world.opts.Transactional {
		operator.ToTransactional(operator.Rebalanced(s), name, &heldSink{world: b.world, name: name}, par(n))
		return
	}
	operator.To(operator.Rebalanced(s), name, &sink{world: b.world, name: name}, par(n))
}

func (b *jobBuilder) line() {
	s := b.counted(b.from(1, 1), "first", 1)
	s = b.counted(b.enrich(operator.Rebalanced(s), "second", 1), "third", 1)
	b.sink(s, "sink", 1)
}

func (b *jobBuilder) grid() {
	s := b.enrich(operator.Rebalanced(b.from(2, 1)), "enrich", 2)
	b.sink(b.counted(s, "count", 3), "sink", 2)
}

func (b *jobBuilder) diamond() {
	s := b.from(2, 2)
	left := b.enrich(s, "left", 2)
	right := b.shifted(s, "right", 2, 1)
	out := operator.CoProcess(keyed(left), keyed(right), "join",
		func() operator.CoProcessor[uint64, record, record, record] { return &join{} }, par(2), codec)
	b.sink(out, "sink", 1)
}

func (b *jobBuilder) skew() {
	s := b.from(1, 2)
	long := b.counted(b.shifted(s, "one", 1, 1), "two", 1)
	b.sink(b.counted(operator.Union("both", s, long), "count", 1), "sink", 1)
}

func (b *jobBuilder) tour() {
	s := b.from(1, 3)
	one := b.shifted(s, "one", 1, 1)
	two := b.counted(b.shifted(one, "two", 1, 1), "three", 1)
	b.sink(b.counted(operator.Union("all", s, one, two), "count", 1), "sink", 1)
}

func (b *jobBuilder) async() {
	o := operator.AsyncOptions{Capacity: 1 + b.world.rng.IntN(6), Ordered: b.world.chance(2)}
	s := operator.AsyncMap(operator.Rebalanced(b.from(1, 1)), "lookup", b.world.lookup, o, par(2), codec)
	b.sink(b.counted(s, "count", 2), "sink", 1)
}

func (b *jobBuilder) windows() {
	var o []operator.Option
	if b.world.chance(2) {
		o = append(o, operator.IdleAfter(20*time.Millisecond))
	}
	s := operator.Timestamps(b.from(2, 1), "times", eventTime, 8*time.Millisecond, o...)
	w := operator.Tumbling(20 * time.Millisecond)
	if b.world.chance(3) {
		w = operator.Session(10 * time.Millisecond)
	}
	panes, late := operator.Window(keyed(s), "windows", w.EventTime(), sum(), par(2), codec, operator.AllowedLateness(10*time.Millisecond))
	operator.ForEach(late, "late", func(operator.Context, record) error { return nil })
	b.sink(panes, "panes", 1)
	b.sink(b.enrich(operator.Rebalanced(s), "enrich", 1), "all", 1)
}

func (b *jobBuilder) clock() {
	s := b.from(1, 1)
	w := operator.Tumbling(15 * time.Millisecond).ProcessingTime()
	panes, _ := operator.Window(keyed(s), "windows", w, sum(), par(2), codec)
	all := b.counted(s, "count", 1)
	b.sink(operator.Union("union", panes, all), "sink", 1)
}

// deal has a task that takes from two sources, in any order, and deals what it takes out to two others in turn.
func (b *jobBuilder) deal() {
	s := b.enrich(b.from(2, 1), "dealer", 1)
	b.sink(b.enrich(operator.Rebalanced(s), "player", 2), "sink", 1)
}

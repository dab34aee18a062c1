package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func keep(_ Context, v int) (int, error) { return v, nil }

func TestPlanErrors(t *testing.T) {
	for want, build := range map[string]func(j *Job){
		`job "j" has no source`:            func(j *Job) {},
		`From "in": output 0 goes nowhere`: func(j *Job) { numbers(j, "in") },
		`From and Map are both named "in"`: func(j *Job) { To(Map(numbers(j, "in"), "in", keep), "out", nowhere{}) },
		`a Map has no name`:                func(j *Job) { To(Map(numbers(j, "in"), "", keep), "out", nowhere{}) },
		`Map "m": its function is nil`:     func(j *Job) { To(Map[int, int](numbers(j, "in"), "m", nil), "out", nowhere{}) },
		`From "in": its source is nil`:     func(j *Job) { To(From[int](j, "in", nil), "out", nowhere{}) },
		`To "out": its sink is nil`:        func(j *Job) { To(numbers(j, "in"), "out", nil) },
		`input "other" belongs to another job`: func(j *Job) {
			To(Union("u", numbers(j, "in"), numbers(NewJob("k"), "other")), "out", nowhere{})
		},
		`Map "m": parallelism 0`: func(j *Job) { To(Map(numbers(j, "in"), "m", keep, Parallelism(0)), "out", nowhere{}) },
		`Map "m": WithCodec[string] fits nothing here`: func(j *Job) {
			To(Map(numbers(j, "in"), "m", keep, WithCodec(JSON[string]())), "out", nowhere{})
		},
		`Map "m": IdleAfter is for Timestamps`: func(j *Job) {
			To(Map(numbers(j, "in"), "m", keep, IdleAfter(time.Second)), "out", nowhere{})
		},
		`Map "m": MaxDrift is for Timestamps`: func(j *Job) {
			To(Map(numbers(j, "in"), "m", keep, MaxDrift(time.Second)), "out", nowhere{})
		},
		`Timestamps "ts": MaxDrift(1µs): want at least 1ms`: func(j *Job) {
			To(Timestamps(numbers(j, "in"), "ts", atMilli, 0, MaxDrift(time.Microsecond)), "out", nowhere{})
		},
		`Timestamps "ts": MaxDrift: its tasks read no source`: func(j *Job) {
			To(Timestamps(Rebalanced(numbers(j, "in")), "ts", atMilli, 0, MaxDrift(time.Second)), "out", nowhere{})
		},
		`Map "m": its output goes to another vertex, "sum": type chan int: a chan can't be encoded`: func(j *Job) {
			m := Map(numbers(j, "in"), "m", func(Context, int) (chan int, error) { return nil, nil })
			s := Reduce(KeyBy(m, func(chan int) int { return 0 }), "sum", func(a, b chan int) (chan int, error) { return a, nil },
				WithCodec[chan int](noCodec{}))
			To(s, "out", nowhere{})
		},
		`Window "w": AllowedLateness(-1s) is negative`: func(j *Job) {
			s, _ := Window(KeyBy(numbers(j, "in"), byMod(2)), "w", Tumbling(time.Second), counting, AllowedLateness(-time.Second))
			To(s, "out", nowhere{})
		},
		`Window "w": AllowedLateness is for event-time windows`: func(j *Job) {
			s, _ := Window(KeyBy(numbers(j, "in"), byMod(2)), "w", Tumbling(time.Second).ProcessingTime(), counting,
				AllowedLateness(time.Second))
			To(s, "out", nowhere{})
		},
		`Window "w": Aggregator.Merge, which sessions need, is nil`: func(j *Job) {
			s, _ := Window(KeyBy(numbers(j, "in"), byMod(2)), "w", Session(time.Second), counting)
			To(s, "out", nowhere{})
		},
		`Window "w": Aggregator.Merge, which Combined needs, is nil`: func(j *Job) {
			s, _ := Window(KeyBy(numbers(j, "in"), byMod(2)), "w", Tumbling(time.Second), counting, Combined())
			To(s, "out", nowhere{})
		},
		`Window "w": Combined is for tumbling and sliding windows without AllowedLateness`: func(j *Job) {
			merging := counting
			merging.Merge = func(a, b int) (int, error) { return a + b, nil }
			s, _ := Window(KeyBy(numbers(j, "in"), byMod(2)), "w", Session(time.Second), merging, Combined())
			To(s, "out", nowhere{})
		},
		`Window "w": windows that are Combined have no stream of late records`: func(j *Job) {
			merging := counting
			merging.Merge = func(a, b int) (int, error) { return a + b, nil }
			s, late := Window(KeyBy(numbers(j, "in"), byMod(2)), "w", Tumbling(time.Second), merging, Combined())
			To(s, "out", nowhere{})
			To(late, "late", nowhere{})
		},
		`Map "m": Combined is for windows`: func(j *Job) {
			To(Map(numbers(j, "in"), "m", func(_ Context, v int) (int, error) { return v, nil }, Combined()), "out", nowhere{})
		},
		`sliding windows of 1s every 2s`: func(j *Job) {
			s, _ := Window(KeyBy(numbers(j, "in"), byMod(2)), "w", Sliding(time.Second, 2*time.Second), counting)
			To(s, "out", nowhere{})
		},
		`AsyncMap "a": AsyncOptions.Capacity is -1`: func(j *Job) {
			To(AsyncMap(numbers(j, "in"), "a", func(context.Context, int) (int, error) { return 0, nil },
				AsyncOptions{Capacity: -1}), "out", nowhere{})
		},
		`Process "p": Value "x": the name is taken`: func(j *Job) {
			To(Process(KeyBy(numbers(j, "in"), byMod(2)), "p", func() Processor[int, int, int] {
				return &opening{func(s *States) error {
					NewValue[int](s, "x")
					NewValue[int](s, "x")
					return nil
				}}
			}), "out", nowhere{})
		},
		`Process "p": Value "x": type func()`: func(j *Job) {
			To(Process(KeyBy(numbers(j, "in"), byMod(2)), "p", func() Processor[int, int, int] {
				return &opening{func(s *States) error { NewValue[func()](s, "x"); return nil }}
			}), "out", nowhere{})
		},
		`Process "p": no luck`: func(j *Job) {
			To(Process(KeyBy(numbers(j, "in"), byMod(2)), "p", func() Processor[int, int, int] {
				return &opening{func(*States) error { return errors.New("no luck") }}
			}), "out", nowhere{})
		},
	} {
		j := NewJob("j")
		build(j)
		p, err := j.Plan(2)
		require.ErrorContains(t, err, want)
		require.True(t, strings.HasPrefix(err.Error(), "operator: "), err)
		require.Nil(t, p)
	}
	_, err := planned(t).Plan(0)
	require.ErrorContains(t, err, "parallelism 0")
}

func atMilli(v int) time.Time { return time.UnixMilli(int64(v)) }

type noCodec struct{}

func (noCodec) Append([]byte, chan int) ([]byte, error) { return nil, nil }
func (noCodec) Decode([]byte) (chan int, error)         { return nil, nil }

var counting = Aggregator[int, int, int, int]{
	Add:  func(n, _ int) (int, error) { return n + 1, nil },
	Emit: func(_ Context, _ int, _ WindowInfo, n int, emit func(int)) error { emit(n); return nil },
}

type opening struct{ open func(*States) error }

func (o *opening) Open(s *States) error                            { return o.open(s) }
func (o *opening) Process(KeyedContext[int], int, func(int)) error { return nil }
func (o *opening) Timer(KeyedContext[int], Timer, func(int)) error { return nil }

const goldenHash = 0xde694aa80bf42eb2

// planned is a job with every kind of edge.
func planned(t *testing.T) *Job {
	t.Helper()
	j := NewJob("shop")
	in := numbers(j, "orders")
	m := Map(in, "clean", keep)
	sum := Reduce(KeyBy(m, byMod(7)), "sum", func(a, b int) (int, error) { return a + b, nil })
	To(Map(sum, "show", keep), "sums", nowhere{})
	u := Union("both", in, Broadcasted(m))
	ForEach(Map(u, "wide", keep, Parallelism(5)), "log", func(Context, int) error { return nil }, Parallelism(5))
	return j
}

func TestPlanShape(t *testing.T) {
	p, err := planned(t).Plan(3)
	require.NoError(t, err)
	var names []string
	for i, v := range p.Vertices {
		names = append(names, v.Name)
		require.Equal(t, i, v.Index)
		require.Equal(t, v.Name == "orders", v.Source != nil)
		require.Equal(t, strings.HasSuffix(v.Name, "sums"), v.Sink != nil)
	}
	require.Equal(t, []string{"orders", "clean", "sum -> show -> sums", "both", "wide -> log"}, names)
	require.Equal(t, []string{"log"}, p.Vertices[4].AtLeastOnce)
	require.Equal(t, 5, p.Vertices[4].Parallelism)
	require.Equal(t, []Edge{
		{From: 0, To: 1, Input: 0, Partition: Forward}, {From: 0, To: 3, Input: 0, Partition: Forward},
		{From: 1, To: 2, Input: 0, Partition: Hash}, {From: 1, To: 3, Input: 1, Partition: Broadcast},
		{From: 3, To: 4, Input: 0, Partition: Rebalance},
	}, p.Edges)
}

func TestPlanHashIsStable(t *testing.T) {
	p, err := planned(t).Plan(3)
	require.NoError(t, err)
	require.Equal(t, uint64(goldenHash), p.Hash, "checkpoints of jobs that did not change would be refused: %#x", p.Hash)
	again, err := planned(t).Plan(3)
	require.NoError(t, err)
	require.Equal(t, p.Hash, again.Hash)
	other, err := planned(t).Plan(4)
	require.NoError(t, err)
	require.NotEqual(t, p.Hash, other.Hash)
}

type unwind struct{}

func (unwind) Unwind() {}

func TestUserErrorsAndPanics(t *testing.T) {
	cause := errors.New("cause")
	j := NewJob("errors")
	m := FlatMap(numbers(j, "in"), "first", func(_ Context, v int, emit func(int)) error {
		emit(v)
		switch v {
		case 3:
			panic(cause)
		case 4:
			panic(unwind{})
		}
		return nil
	}, Parallelism(2))
	m = Map(m, "second", func(_ Context, v int) (int, error) {
		if v == 1 {
			return 0, cause
		}
		if v == 2 {
			panic("late")
		}
		return v, nil
	}, Parallelism(2))
	To(m, "out", nowhere{}, Parallelism(2))
	h := newHarness(t, j, "first", 1)
	for v, name := range map[byte]string{1: "second", 2: "second", 3: "first"} {
		err := h.chain.Record(0, []byte{v}, 0, false)
		var failure *UserError
		require.ErrorAs(t, err, &failure)
		require.Equal(t, name, failure.Operator)
		require.Equal(t, v != 2, errors.Is(err, cause))
		require.Equal(t, v != 1, failure.Stack != "")
		if v != 1 {
			require.Regexp(t, `, at operator\.\w+\.func\d+ \(plan_test\.go:\d+\)$`, err.Error())
		}
		require.Contains(t, err.Error(), name)
	}
	require.PanicsWithValue(t, unwind{}, func() { _ = h.chain.Record(0, []byte{4}, 0, false) })
	err := h.chain.Record(0, []byte{0xc1}, 0, false)
	require.ErrorIs(t, err, ErrEncoding)
	require.ErrorContains(t, err, `operator: "first": decoding its input`)
}

// heldLines is a transactional sink of text that belongs to one job.
type heldLines struct{ job *string }

func (s heldLines) OpenTransactions(_ context.Context, task, n int) (TransactionalStore, error) {
	return nil, fmt.Errorf("task %d of %d", task, n)
}
func (heldLines) Lines()                      {}
func (s heldLines) Identify(job string) error { *s.job = job; return nil }

// A vertex that ends in a transactional sink opens its transactions, and no causal store. Its records are text if the sink says so.
func TestToTransactional(t *testing.T) {
	job, owner := NewJob("held"), ""
	ToTransactional(numbers(job, "in"), "out", heldLines{&owner})
	plan, err := job.Plan(1)
	require.NoError(t, err)
	v := &plan.Vertices[0]
	require.True(t, v.External())
	require.Nil(t, v.Sink)
	_, err = v.Transactions(context.Background(), 0)
	require.EqualError(t, err, "task 0 of 1")
	require.NoError(t, v.Identify("mine"))
	require.Equal(t, "mine", owner)

	missing := NewJob("held")
	ToTransactional(numbers(missing, "in"), "out", nil)
	_, err = missing.Plan(1)
	require.ErrorContains(t, err, "its sink")
}

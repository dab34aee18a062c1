package operator

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The metamorphic tests run the same script twice, once without interruption and once with a restart from frozen state after
// some of its events, and want the same output.

type event func(h *harness)

// script draws events for a chain: records on its inputs, watermarks, processing time, completions, idleness.
type script struct {
	inputs int
	values int // records are small integers below this
	async  bool
}

func (s script) draw(t *rapid.T) []event {
	var events []event
	now, wm := int64(1000), int64(0)
	for range rapid.IntRange(1, 40).Draw(t, "events") {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		default:
			in := rapid.IntRange(0, s.inputs-1).Draw(t, "input")
			v := rapid.IntRange(0, s.values-1).Draw(t, "value")
			ts := max(0, wm+rapid.Int64Range(-40, 60).Draw(t, "time"))
			events = append(events, func(h *harness) {
				if h.chain.Room() != 0 {
					h.recordAt(in, []byte{byte(v)}, ts)
				}
			})
		case 6:
			wm += rapid.Int64Range(1, 50).Draw(t, "rise")
			at := wm
			events = append(events, func(h *harness) { h.watermark(at) })
		case 7:
			now += rapid.Int64Range(0, 50).Draw(t, "pass")
			at := now
			events = append(events, func(h *harness) { h.timers(at) })
		case 8:
			idle := rapid.Bool().Draw(t, "idle")
			events = append(events, func(h *harness) { require.NoError(h, h.chain.Idle(idle)) })
		case 9:
			if s.async {
				k := rapid.IntRange(0, 5).Draw(t, "call")
				events = append(events, func(h *harness) { h.complete(k) })
			}
		}
	}
	events = append(events, func(h *harness) { h.end() })
	if s.async {
		events = append(events, func(h *harness) {
			for len(h.rt.issued) > 0 {
				h.complete(len(h.rt.issued) / 2)
			}
		})
	}
	return append(events, func(h *harness) { require.True(h, h.chain.Drained()) })
}

// complete answers the k-th outstanding call.
func (h *harness) complete(k int) {
	h.Helper()
	if len(h.rt.issued) == 0 {
		return
	}
	k %= len(h.rt.issued)
	call := h.rt.issued[k]
	h.rt.issued = append(h.rt.issued[:k:k], h.rt.issued[k+1:]...)
	result, err := call.do(context.Background())
	if err != nil {
		result = []byte(err.Error())
	}
	require.NoError(h, h.chain.AsyncDone(k, result, err != nil))
	require.NoError(h, h.chain.StepEnd())
}

// metamorphic checks one job; build returns it and the name of an operator in the vertex to run.
func metamorphic(t *testing.T, build func() (*Job, string), s script) {
	t.Helper()
	emitted := 0
	rapid.Check(t, func(r *rapid.T) {
		events := s.draw(r)
		restarts := rapid.SliceOfN(rapid.Bool(), len(events), len(events)).Draw(r, "restart after")
		job, name := build()
		plain, broken := newHarness(r, job, name, 3), newHarness(r, job, name, 3)
		for i, e := range events {
			e(plain)
			e(broken)
			want, got := plain.take(), broken.take()
			require.Equal(r, want, got, "event %d", i)
			emitted += len(want)
			if restarts[i] {
				broken.restart()
				require.Empty(r, broken.take(), "a restart emits nothing")
			}
		}
	})
	require.Positive(t, emitted)
}

func byMod(n int) func(int) int { return func(v int) int { return v % n } }

func numbers(j *Job, name string) Stream[int] { return From(j, name, slice[int]{{}}) }

func TestRestartReduceAndAggregate(t *testing.T) {
	metamorphic(t, func() (*Job, string) {
		j := NewJob("reduce")
		s := Reduce(KeyBy(numbers(j, "in"), byMod(3)), "sum", func(a, v int) (int, error) { return a + v, nil })
		To(s, "out", nowhere{})
		return j, "sum"
	}, script{inputs: 1, values: 9})
	metamorphic(t, func() (*Job, string) {
		j := NewJob("aggregate")
		s := Aggregate(KeyBy(numbers(j, "in"), byMod(3)), "list", func(a []int, v int) ([]int, error) {
			return append(a[:len(a):len(a)], v), nil
		})
		To(s, "out", nowhere{}, WithCodec(JSON[[]int]()))
		return j, "list"
	}, script{inputs: 1, values: 9})
}

func TestRestartUnionAndRotation(t *testing.T) {
	metamorphic(t, func() (*Job, string) {
		j := NewJob("union")
		u := Union("both", numbers(j, "a"), numbers(j, "b"))
		m := Map(u, "plus", func(ctx Context, v int) (int, error) { return v + int(ctx.Now().UnixMilli()), nil })
		To(Rebalanced(m), "out", nowhere{}, Parallelism(3))
		To(Broadcasted(m), "all", nowhere{}, Parallelism(3))
		ForEach(KeyBy(m, byMod(5)).stream, "see", func(Context, int) error { return nil })
		return j, "both"
	}, script{inputs: 2, values: 9})
}

// ledger uses every kind of state and timer.
type ledger struct {
	sum  *Value[int]
	last *List[int]
	seen *MapState[int, string]
}

func (l *ledger) Open(s *States) error {
	l.sum = NewValue[int](s, "sum")
	l.last = NewList[int](s, "last")
	l.seen = NewMap[int, string](s, "seen")
	return nil
}

func (l *ledger) take(ctx KeyedContext[int], v int, emit func(string)) error {
	sum, _ := l.sum.Get()
	l.sum.Set(sum + v)
	l.last.Append(v)
	l.seen.Set(v, fmt.Sprint(sum))
	if v%4 == 3 {
		l.seen.Clear(v - 1)
		l.last.Clear()
	}
	if v%8 == 7 {
		l.seen.ClearAll()
		l.sum.Clear()
	}
	at, _ := ctx.EventTime()
	ctx.RegisterEventTimer(at.Add(10*time.Millisecond), fmt.Sprint(v))
	ctx.RegisterProcessingTimer(ctx.Now().Add(time.Duration(v)*time.Millisecond), "p")
	if v%5 == 4 {
		ctx.DeleteEventTimer(at.Add(10*time.Millisecond), fmt.Sprint(v-1))
		ctx.DeleteProcessingTimer(ctx.Now().Add(time.Duration(v-1)*time.Millisecond), "p")
	}
	emit(l.show(ctx))
	return nil
}

func (l *ledger) show(ctx KeyedContext[int]) string {
	sum, ok := l.sum.Get()
	text := fmt.Sprint(ctx.Key(), ":", sum, ok, l.last.Get(), l.seen.Len())
	for k, v := range l.seen.All() {
		text += fmt.Sprint(" ", k, "=", v)
	}
	wm, ok := ctx.Watermark()
	if ok {
		text += fmt.Sprint(" wm ", wm.UnixMilli())
	}
	return text
}

func (l *ledger) Process(ctx KeyedContext[int], v int, emit func(string)) error {
	return l.take(ctx, v, emit)
}
func (l *ledger) Left(ctx KeyedContext[int], v int, emit func(string)) error {
	return l.take(ctx, v, emit)
}
func (l *ledger) Right(ctx KeyedContext[int], v int, emit func(string)) error {
	return l.take(ctx, -v, emit)
}

func (l *ledger) Timer(ctx KeyedContext[int], t Timer, emit func(string)) error {
	emit(fmt.Sprint("timer ", t.Time.UnixMilli(), t.Tag, t.Event, " ", l.show(ctx)))
	if t.Event && len(t.Tag) < 4 {
		ctx.RegisterEventTimer(t.Time.Add(5*time.Millisecond), t.Tag+"+")
		ctx.RegisterProcessingTimer(t.Time, t.Tag)
	}
	if l.seen.Len() > 2 {
		l.seen.ClearAll()
	}
	return nil
}

func TestRestartProcess(t *testing.T) {
	metamorphic(t, func() (*Job, string) {
		j := NewJob("process")
		s := Process(KeyBy(numbers(j, "in"), byMod(3)), "ledger", func() Processor[int, int, string] { return &ledger{} })
		To(s, "out", nowhere{})
		return j, "ledger"
	}, script{inputs: 1, values: 16})
}

func TestRestartCoProcess(t *testing.T) {
	metamorphic(t, func() (*Job, string) {
		j := NewJob("coprocess")
		a, b := KeyBy(numbers(j, "a"), byMod(2)), KeyBy(numbers(j, "b"), byMod(2))
		s := CoProcess(a, b, "ledger", func() CoProcessor[int, int, int, string] { return &ledger{} })
		To(s, "out", nowhere{})
		return j, "ledger"
	}, script{inputs: 2, values: 16})
}

func TestRestartWindows(t *testing.T) {
	for name, w := range map[string]Windows{
		"tumbling": Tumbling(20 * time.Millisecond), "sliding": Sliding(30*time.Millisecond, 10*time.Millisecond),
		"session": Session(10 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			metamorphic(t, func() (*Job, string) { return windowJob(w, AllowedLateness(25*time.Millisecond)), "win" },
				script{inputs: 1, values: 9})
			metamorphic(t, func() (*Job, string) { return windowJob(w), "win" }, script{inputs: 1, values: 9})
		})
		t.Run(name+" of processing time", func(t *testing.T) {
			metamorphic(t, func() (*Job, string) { return windowJob(w.ProcessingTime()), "win" }, script{inputs: 1, values: 9})
		})
	}
}

// windowJob lists the values of each window, and the late ones on a second output.
func windowJob(w Windows, o ...Option) *Job {
	j := NewJob("window")
	fired, late := Window(KeyBy(numbers(j, "in"), byMod(3)), "win", w, Aggregator[int, int, []int, string]{
		Add:   func(acc []int, v int) ([]int, error) { return append(acc[:len(acc):len(acc)], v), nil },
		Merge: func(a, b []int) ([]int, error) { return append(a[:len(a):len(a)], b...), nil },
		Emit: func(_ Context, key int, w WindowInfo, acc []int, emit func(string)) error {
			emit(fmt.Sprintf("%d [%d,%d) %v", key, w.Start.UnixMilli(), w.End.UnixMilli(), acc))
			return nil
		},
	}, o...)
	To(fired, "out", nowhere{})
	To(late, "late", nowhere{})
	return j
}

func TestRestartTimestamps(t *testing.T) {
	for _, o := range [][]Option{nil, {IdleAfter(30 * time.Millisecond)}} {
		metamorphic(t, func() (*Job, string) {
			j := NewJob("timestamps")
			s := Timestamps(Rebalanced(numbers(j, "in")), "ts", func(v int) time.Time { return time.UnixMilli(int64(10 * v)) },
				15*time.Millisecond, o...)
			To(Map(s, "show", func(ctx Context, v int) (string, error) {
				wm, ok := ctx.Watermark()
				return fmt.Sprint(v, wm.UnixMilli(), ok), nil
			}), "out", nowhere{})
			To(s, "other", nowhere{})
			return j, "ts"
		}, script{inputs: 1, values: 9})
	}
}

func TestRestartAsyncMap(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		t.Run(fmt.Sprint("ordered ", ordered), func(t *testing.T) {
			metamorphic(t, func() (*Job, string) {
				j := NewJob("async")
				s := AsyncMap(numbers(j, "in"), "call", func(_ context.Context, v int) (string, error) {
					return fmt.Sprint("answer ", v), nil
				}, AsyncOptions{Capacity: 6, Ordered: ordered})
				To(Filter(s, "all", func(Context, string) (bool, error) { return true, nil }), "out", nowhere{}, Parallelism(2))
				return j, "call"
			}, script{inputs: 1, values: 9, async: true})
		})
	}
}

func TestRestartSource(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		splits := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 100), 0, 20), 1, 4).Draw(r, "splits")
		restarts := rapid.SliceOfN(rapid.Bool(), 200, 200).Draw(r, "restart after")
		j := NewJob("source")
		s := Timestamps(From(j, "in", slice[int](splits)), "ts", func(v int) time.Time { return time.UnixMilli(int64(v)) }, 0)
		To(Rebalanced(s), "out", nowhere{}, Parallelism(3))
		plain, broken := newHarness(r, j, "in", 3), newHarness(r, j, "in", 3)
		for i := range splits {
			require.NoError(r, plain.chain.Source().Add(fmt.Sprint(i)))
			require.NoError(r, broken.chain.Source().Add(fmt.Sprint(i)))
		}
		for step := 0; plain.chain.Source().Open() > 0; step++ {
			max := rapid.IntRange(1, 5).Draw(r, "max")
			split, n, offset, done, err := plain.chain.Source().Poll(max)
			require.NoError(r, err)
			if rapid.Bool().Draw(r, "poll here too") {
				_, _, _, _, err := broken.chain.Source().Poll(max + 2)
				require.NoError(r, err)
			}
			for _, h := range []*harness{plain, broken} {
				if done {
					require.NoError(r, h.chain.Source().Remove(split))
					continue
				}
				require.NoError(r, h.chain.Source().Begin(split, n, offset))
				for range n {
					require.NoError(r, emitOne(h.chain.Source()))
				}
				require.NoError(r, h.chain.StepEnd())
			}
			if restarts[step] {
				broken.restart()
			}
		}
		plain.end()
		broken.end()
		require.Equal(r, plain.take(), broken.take())
		require.NoError(r, plain.chain.Source().Close())
		require.NoError(r, broken.chain.Source().Close())
	})
}

package operator_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// lines is a Source of one split whose offset is a line's number.
type lines []string

func (l lines) Splits(context.Context) ([]string, error) { return []string{"text"}, nil }

func (l lines) Open(_ context.Context, _ string, offset uint64) (operator.Reader[string], error) {
	return &lineReader{l, offset}, nil
}

type lineReader struct {
	lines lines
	at    uint64
}

func (r *lineReader) Next() (string, uint64, error) {
	if r.at == uint64(len(r.lines)) {
		return "", r.at, io.EOF
	}
	r.at++
	return r.lines[r.at-1], r.at, nil
}
func (r *lineReader) Ready() <-chan struct{} { return nil } // never ErrNotReady
func (r *lineReader) Close() error           { return nil }

// sink stands for a connector's.
type sink struct{}

func (sink) Open(context.Context, int, int) (operator.CausalStore, error) {
	return nil, errors.New("not in this example")
}

// printer is a Runtime that prints what a chain emits. The step loop has the real one.
type printer struct{}

func (printer) Task() operator.TaskInfo { return operator.TaskInfo{Parallelism: 1} }
func (printer) Now() int64              { return 0 }
func (printer) Rand() *rand.Rand        { return rand.New(rand.NewPCG(1, 2)) }
func (printer) Call(_ uint64, do func(context.Context) ([]byte, error)) ([]byte, error) {
	return do(context.Background())
}
func (printer) Issue(uint64, func(context.Context) ([]byte, error)) {}
func (printer) Output(int) operator.Output                          { return printer{} }
func (printer) External() operator.Output                           { return printer{} }
func (printer) Fanout() int                                         { return 1 }
func (printer) Record(_ int, _ int64, _ bool, payload []byte)       { fmt.Println(string(payload)) }
func (printer) Watermark(int64)                                     {}
func (printer) Idle(bool)                                           {}

// run runs the last vertex of a job on records that are strings, at event times 0, 1, 2 … seconds.
func run(j *operator.Job, records ...string) {
	p, err := j.Plan(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	chain, err := p.Vertices[len(p.Vertices)-1].New(printer{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, r := range records {
		if err := chain.Record(0, []byte(r), int64(1000*i), true); err != nil {
			fmt.Println(err)
		}
	}
	if err := chain.End(); err != nil {
		fmt.Println(err)
	}
}

func Example() {
	j := operator.NewJob("words")
	text := operator.From(j, "text", lines{"a rose is a rose"})
	words := operator.FlatMap(text, "split", func(_ operator.Context, line string, emit func(string)) error {
		for _, w := range strings.Fields(line) {
			emit(w)
		}
		return nil
	})
	byWord := operator.KeyBy(words, func(w string) string { return w })
	counts := operator.Aggregate(byWord, "count", func(n int, _ string) (int, error) { return n + 1, nil })
	operator.To(counts, "out", sink{}, operator.WithCodec(operator.JSON[int]()))

	p, err := j.Plan(4)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range p.Vertices {
		fmt.Println(v.Name, "x", v.Parallelism)
	}
	for _, e := range p.Edges {
		fmt.Println(e.From, "to", e.To, e.Partition)
	}
	// Output:
	// text -> split x 4
	// count -> out x 4
	// 0 to 1 hash
}

// greeter greets each name once and says goodbye a minute of event time later.
type greeter struct {
	greeted *operator.Value[int]
}

func (g *greeter) Open(s *operator.States) error {
	g.greeted = operator.NewValue[int](s, "greeted")
	return nil
}

func (g *greeter) Process(ctx operator.KeyedContext[string], name string, emit func(string)) error {
	n, _ := g.greeted.Get()
	g.greeted.Set(n + 1)
	if n > 0 {
		return nil
	}
	emit("hello " + name)
	if at, ok := ctx.EventTime(); ok {
		ctx.RegisterEventTimer(at.Add(time.Minute), "goodbye")
	}
	return nil
}

func (g *greeter) Timer(ctx operator.KeyedContext[string], t operator.Timer, emit func(string)) error {
	n, _ := g.greeted.Get()
	g.greeted.Clear()
	emit(fmt.Sprintf("%s %s, seen %d times", t.Tag, ctx.Key(), n))
	return nil
}

func ExampleProcessor() {
	j := operator.NewJob("greetings")
	names := operator.KeyBy(operator.From(j, "names", lines{}), func(name string) string { return name })
	out := operator.Process(names, "greet", func() operator.Processor[string, string, string] { return &greeter{} })
	operator.To(out, "out", sink{})
	run(j, "ann", "bob", "ann")
	// Output:
	// hello ann
	// hello bob
	// goodbye ann, seen 2 times
	// goodbye bob, seen 1 times
}

// history shows the other kinds of state.
type history struct {
	recent *operator.List[string]
	counts *operator.MapState[string, int]
}

func (h *history) Open(s *operator.States) error {
	h.recent = operator.NewList[string](s, "recent")
	h.counts = operator.NewMap[string, int](s, "counts")
	return nil
}

func (h *history) Process(_ operator.KeyedContext[bool], word string, emit func(string)) error {
	h.recent.Append(word)
	n, _ := h.counts.Get(word)
	h.counts.Set(word, n+1)
	text := fmt.Sprint(h.recent.Get(), " ", h.counts.Len(), " words:")
	for w, n := range h.counts.All() {
		text += fmt.Sprint(" ", w, "=", n)
	}
	emit(text)
	return nil
}

func (h *history) Timer(operator.KeyedContext[bool], operator.Timer, func(string)) error { return nil }

func ExampleStates() {
	j := operator.NewJob("history")
	all := operator.KeyBy(operator.From(j, "words", lines{}), func(string) bool { return true })
	out := operator.Process(all, "history", func() operator.Processor[bool, string, string] { return &history{} })
	operator.To(out, "out", sink{})
	run(j, "b", "a", "b")
	// Output:
	// [b] 1 words: b=1
	// [b a] 2 words: a=1 b=1
	// [b a b] 2 words: a=1 b=2
}

func ExampleWindow() {
	j := operator.NewJob("per minute")
	timed := operator.Timestamps(operator.From(j, "words", lines{}), "time", func(string) time.Time { return time.UnixMilli(0) }, 0)
	byWord := operator.KeyBy(timed, func(w string) string { return w })
	counts, _ := operator.Window(byWord, "count", operator.Tumbling(2*time.Second), operator.Aggregator[string, string, int, string]{
		Add: func(n int, _ string) (int, error) { return n + 1, nil },
		Emit: func(_ operator.Context, word string, w operator.WindowInfo, n int, emit func(string)) error {
			emit(fmt.Sprint(w.Start.Format(time.TimeOnly), " ", word, " ", n))
			return nil
		},
	}, operator.AllowedLateness(time.Minute))
	operator.To(counts, "out", sink{})
	run(j, "rose", "rose", "a", "rose")
	// Output:
	// 00:00:00 rose 2
	// 00:00:02 a 1
	// 00:00:02 rose 1
}

// pairs joins names and cities of the same number.
type pairs struct {
	name, city *operator.Value[string]
}

func (p *pairs) Open(s *operator.States) error {
	p.name, p.city = operator.NewValue[string](s, "name"), operator.NewValue[string](s, "city")
	return nil
}

func (p *pairs) Left(_ operator.KeyedContext[byte], name string, emit func(string)) error {
	p.name.Set(name)
	return p.join(emit)
}

func (p *pairs) Right(_ operator.KeyedContext[byte], city string, emit func(string)) error {
	p.city.Set(city)
	return p.join(emit)
}

func (p *pairs) join(emit func(string)) error {
	name, known := p.name.Get()
	city, lives := p.city.Get()
	if known && lives {
		emit(name + " lives in " + city)
	}
	return nil
}

func (p *pairs) Timer(operator.KeyedContext[byte], operator.Timer, func(string)) error { return nil }

func ExampleCoProcess() {
	j := operator.NewJob("join")
	first := func(s string) byte { return s[0] }
	names := operator.KeyBy(operator.From(j, "names", lines{}), first)
	cities := operator.KeyBy(operator.From(j, "cities", lines{}), first)
	out := operator.CoProcess(names, cities, "join", func() operator.CoProcessor[byte, string, string, string] { return &pairs{} })
	operator.To(out, "out", sink{})
	p, err := j.Plan(2)
	fmt.Println(p.Vertices[2].Name, p.Edges, err)
	// Output: join -> out [{0 2 0 hash} {1 2 1 hash}] <nil>
}

func ExampleAsyncMap() {
	j := operator.NewJob("look up")
	users := operator.From(j, "users", lines{})
	found := operator.AsyncMap(users, "directory", func(ctx context.Context, user string) (string, error) {
		return user + "@example.org", ctx.Err() // a request over the network
	}, operator.AsyncOptions{Capacity: 50, Timeout: time.Second})
	operator.To(found, "out", sink{})
	_, err := j.Plan(2)
	fmt.Println(err)
	// Output: <nil>
}

// pixel has a codec written by hand, for speed.
type pixel struct{ X, Y uint16 }

type pixelCodec struct{}

func (pixelCodec) Append(dst []byte, p pixel) ([]byte, error) {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(dst, p.X), p.Y), nil
}

func (pixelCodec) Decode(src []byte) (pixel, error) {
	if len(src) != 4 {
		return pixel{}, errors.New("pixel: want 4 bytes")
	}
	return pixel{binary.BigEndian.Uint16(src), binary.BigEndian.Uint16(src[2:])}, nil
}

func ExampleCodec() {
	fmt.Println(operator.CheckDeterministic(pixelCodec{}, pixel{}, pixel{1, 2}, pixel{65535, 0}))
	_, err := operator.MsgPack[map[string]any]()
	fmt.Println(err)
	// Output:
	// <nil>
	// type map[string]interface {}: map value: an interface can't be encoded in one way only; give it a codec of its own with WithCodec
}

func ExampleCheckFunction() {
	seen := map[string]bool{"x": true, "y": true, "z": true, "u": true, "v": true, "w": true}
	anyOrder := func(_ operator.Context, _ string, emit func(string)) error {
		for w := range seen {
			emit(w)
		}
		return nil
	}
	text, _ := operator.MsgPack[string]()
	err := operator.CheckFunction(anyOrder, text, "record")
	fmt.Println(err != nil)
	// Output: true
}

package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/understudy-stream/understudy"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/internal/nexmark"
	"github.com/understudy-stream/understudy/operator"
)

// Spec is a job on processes. It goes to the children as an argument.
type Spec struct {
	Records     uint64
	Rate        uint64 // per second; 0: as fast as possible
	Parallelism int
	Workers     int
	Keys        uint64 // of each stateful map
	StateBytes  int    // of each value
	IntervalMS  int64  // of checkpoints
	Mode        understudy.Mode
	Dir         string // output and state are below
	Try         int    // of several runs without pacing
	Start       int64  // when the first record is due, milliseconds since the Unix epoch
	Ends        bool   // perhaps before all records were sent: see endAt

	// Of a query of Nexmark, instead of three stateful maps:
	Query     Experiment // empty: three maps
	EventRate uint64     // events per second of event time

	// Of what `bench latency` measures, instead of these:
	Sink          string // URL; empty: something else is measured
	Suffix        string // of this run's place
	Transactional bool   // what is shown waits for its checkpoint
	Pad           int    // bytes in each record, beside what is needed
}

// counting is a stateful map: it counts the records of each key and adds the count to what the record carries.
type counting struct {
	pad   int
	state *operator.Value[[]byte]
}

// Open implements operator.Processor.
func (c *counting) Open(s *operator.States) error {
	c.state = operator.NewValue[[]byte](s, "state", bytesCodec{})
	return nil
}

// Process implements operator.Processor.
func (c *counting) Process(_ operator.KeyedContext[uint64], t tick, emit func(tick)) error {
	state := c.state.Ref()
	if *state == nil {
		*state = make([]byte, 8+c.pad)
	}
	n := binary.LittleEndian.Uint64(*state) + 1
	binary.LittleEndian.PutUint64(*state, n)
	t.Sum += n
	emit(t)
	return nil
}

// Timer implements operator.Processor.
func (c *counting) Timer(operator.KeyedContext[uint64], operator.Timer, func(tick)) error { return nil }

// Job is one of the experiments of the Clonos paper (SIGMOD 2021, section 7).
func (s *Spec) Job() (*operator.Job, error) {
	if s.Sink != "" {
		return s.shown()
	}
	name := "three-maps"
	if s.Query != "" {
		name = string(s.Query)
	}
	if s.Rate == 0 {
		name += fmt.Sprintf("-unpaced-%d", s.Try) // the parent runs all, and a child finds the one that it is for by its name
	}
	if s.Query == "" {
		return s.threeMaps(name), nil
	}
	o := nexmark.Options{
		Name: name, Sink: file.Sink(s.output(), file.SinkOptions{}),
		Source: nexmark.SourceOptions{
			Events: s.Records, Rate: s.Rate, Start: s.Start, EventRate: s.EventRate, Splits: s.Parallelism,
		},
	}
	if s.Ends {
		o.Over = s.over
	}
	return nexmark.Build(string(s.Query), o)
}

// over tells a reader of events where to end.
func (s *Spec) over() func(uint64) (bool, error) {
	e := newEnding(s.end())
	return func(n uint64) (bool, error) { return e.over(n, dueOf(s.Start, n, s.Rate)) }
}

// sinkName is how the operator is named that writes the output.
func (s *Spec) sinkName() string {
	if s.Query == "" {
		return "visible"
	}
	return "output"
}

// threeMaps is a chain of three stateful maps, with a shuffle before each.
func (s *Spec) threeMaps(name string) *operator.Job {
	job := operator.NewJob(name)
	source := &ticks{count: s.Records, rate: s.Rate, parts: s.Parallelism, start: s.Start}
	if s.Ends {
		source.end = s.end()
	}
	stream := operator.From(job, "ticks", operator.Source[tick](source), operator.WithCodec[tick](tickCodec{}))
	for i := range 3 {
		shift, keys, pad := uint64(i), s.Keys, s.StateBytes
		keyed := operator.KeyBy(stream, func(t tick) uint64 { return scatter(t.N+shift) % keys })
		stream = operator.Process(keyed, "map"+strconv.Itoa(i+1),
			func() operator.Processor[uint64, tick, tick] { return &counting{pad: pad} }, operator.WithCodec[tick](tickCodec{}))
	}
	operator.To(stream, "visible", file.Sink(s.output(), file.SinkOptions{}), operator.WithCodec[tick](lineCodec{}))
	return job
}

// scatter spreads numbers over keys (the finaliser of MurmurHash3).
func scatter(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

func (s *Spec) output() string { return s.Dir + "/out" }

// end is where the job's ending is written.
func (s *Spec) end() string { return s.Dir + "/end" }

// Run runs the job on processes. In a child it does not return.
func (s *Spec) Run(ctx context.Context, p understudy.Processes) (understudy.ClusterSummary, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return understudy.ClusterSummary{}, err
	}
	job, err := s.Job()
	if err != nil {
		return understudy.ClusterSummary{}, err
	}
	p.Args = []string{"bench", "process", string(text)}
	return understudy.RunCluster(ctx, job, understudy.Options{
		Parallelism: s.Parallelism, Workers: s.Workers, Mode: s.Mode, StateDir: s.Dir + "/state", Processes: p,
		CheckpointInterval: milliseconds(s.IntervalMS),
	})
}

// Child is what `bench process` does: it becomes the process that the parent meant.
func Child(ctx context.Context, text string) error {
	var s Spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	_, err := s.Run(ctx, understudy.Processes{})
	return err
}

// tickCodec is three varints.
type tickCodec struct{}

// Append implements operator.Codec.
func (tickCodec) Append(dst []byte, t tick) ([]byte, error) {
	dst = binary.AppendUvarint(dst, t.N)
	dst = binary.AppendVarint(dst, t.Due)
	return binary.AppendUvarint(dst, t.Sum), nil
}

// Decode implements operator.Codec.
func (tickCodec) Decode(src []byte) (t tick, err error) {
	var n int
	if t.N, n = binary.Uvarint(src); n > 0 {
		src = src[n:]
		if t.Due, n = binary.Varint(src); n > 0 {
			if t.Sum, n = binary.Uvarint(src[n:]); n > 0 {
				return t, nil
			}
		}
	}
	return t, fmt.Errorf("bench: a record of %d bytes is too short", len(src))
}

// lineCodec is what the output shows: number and due time.
type lineCodec struct{}

// Append implements operator.Codec.
func (lineCodec) Append(dst []byte, t tick) ([]byte, error) {
	dst = strconv.AppendUint(dst, t.N, 10)
	dst = append(dst, ' ')
	return strconv.AppendInt(dst, t.Due, 10), nil
}

// Decode implements operator.Codec.
func (lineCodec) Decode(src []byte) (t tick, err error) {
	if _, err := fmt.Sscanf(string(src), "%d %d", &t.N, &t.Due); err != nil {
		return t, fmt.Errorf("bench: line %q: %w", src, err)
	}
	return t, nil
}

// bytesCodec keeps bytes as they are.
type bytesCodec struct{}

// Append implements operator.Codec.
func (bytesCodec) Append(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }

// Decode implements operator.Codec.
func (bytesCodec) Decode(src []byte) ([]byte, error) { return append([]byte(nil), src...), nil }

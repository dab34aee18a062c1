package plain

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/internal/nexmark"
)

// Options say what a program reads and where its rows go.
type Options struct {
	Events      uint64
	EventRate   uint64        // events per second of event time; 0: Beam's
	Parallelism int           // source goroutines, and workers behind a shuffle
	Window      time.Duration // of q12
	// Out gives what takes the rows of one goroutine of the program. A row is valid during the call.
	Out func(part int) func(row []byte)
}

// programs are the queries by name.
var programs = []struct {
	query string
	run   func(*program) error
}{{"q0", q0}, {"q1", q1}, {"q2", q2}, {"q3", q3}, {"q5", q5}, {"q7", q7}, {"q8", q8}, {"q12", q12}}

// Queries names those that there is a program for.
func Queries() []string {
	var names []string
	for _, p := range programs {
		names = append(names, p.query)
	}
	return names
}

// Run runs a program until it has read all events or ctx ends; then the error is that of ctx.
func Run(ctx context.Context, query string, o Options) error {
	i := slices.IndexFunc(programs, func(p struct {
		query string
		run   func(*program) error
	}) bool {
		return p.query == query
	})
	if i < 0 {
		return fmt.Errorf("plain: there is no program for %q", query)
	}
	if o.Parallelism < 1 || o.Events == 0 || o.Out == nil {
		return fmt.Errorf("plain: want at least one goroutine and one event, and somewhere to put the rows: %+v", o)
	}
	p := &program{Options: o, ctx: ctx}
	if err := programs[i].run(p); err != nil {
		return err
	}
	return ctx.Err()
}

// Read makes the events of a program and does nothing with them. Options.Out is not used.
func Read(ctx context.Context, o Options) error {
	p := &program{Options: o, ctx: ctx}
	if err := p.sources(func(i int) error { return p.read(i, func([]nexmark.Event) {}) }); err != nil {
		return err
	}
	return ctx.Err()
}

// program is one run.
type program struct {
	Options
	ctx context.Context
}

// read gives the events of source i to f, an epoch of 50 at a time, in order.
func (p *program) read(i int, f func([]nexmark.Event)) error {
	g, err := nexmark.NewGenerator(nexmark.Config{Rate: p.EventRate})
	if err != nil {
		return err
	}
	var events []nexmark.Event
	step := uint64(p.Parallelism * nexmark.EpochEvents)
	for n := uint64(i * nexmark.EpochEvents); n < p.Events; n += step {
		if p.ctx.Err() != nil {
			return nil //nolint:nilerr // Run says so
		}
		events = g.Append(events[:0], n, int(min(nexmark.EpochEvents, p.Events-n)))
		f(events)
	}
	return nil
}

// sources runs f for each source, on a goroutine of its own, and waits for all.
func (p *program) sources(f func(i int) error) error {
	errs := make([]error, p.Parallelism)
	var running sync.WaitGroup
	for i := range p.Parallelism {
		running.Go(func() { errs[i] = f(i) })
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// writer makes rows of what it is given and hands them out.
type writer struct {
	out func(row []byte)
	buf []byte
}

func (p *program) writer(part int) *writer { return &writer{out: p.Out(part)} }

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/understudy-stream/understudy/internal/nexmark"
	"github.com/understudy-stream/understudy/operator"
)

// eventFlags are the flags of the nexmark jobs.
type eventFlags struct {
	events    uint64
	endless   bool
	eventRate uint64
	group     uint64
	pacing    string
	final     bool

	source nexmark.SourceOptions // what check makes of them
}

var eventFlagNames = []string{"events", "endless", "event-rate", "group", "pacing", "final"}

func (e *eventFlags) register(f *pflag.FlagSet) {
	f.Uint64Var(&e.events, "events", 0, "nexmark: how many events there are (required, or --endless)")
	f.BoolVar(&e.endless, "endless", false, "nexmark: events without end")
	f.Uint64Var(&e.eventRate, "event-rate", nexmark.DefaultRate, "nexmark: events per second of event time")
	f.Uint64Var(&e.group, "group", 1, "nexmark: so many consecutive events are out of order")
	f.StringVar(&e.pacing, "pacing", "event", "nexmark: what events happen by: event (as Beam's do), or wall (when they are due by --rate)")
	f.BoolVar(&e.final, "final", false, "nexmark: show only the result when the stream has ended, not its changes")
}

// check makes options of the flags, and of --rate.
func (e *eventFlags) check(rate string) (err error) {
	e.source = nexmark.SourceOptions{Events: e.events, EventRate: e.eventRate, Group: e.group}
	if e.endless == (e.events != 0) {
		return errors.New("--events is required, or else --endless")
	}
	if e.eventRate == 0 || e.group == 0 {
		return errors.New("--event-rate and --group: want at least 1")
	}
	if rate != "" {
		if e.source.Rate, err = strconv.ParseUint(rate, 10, 64); err != nil {
			return fmt.Errorf("--rate %q: want events per second, such as 50000", rate)
		}
	}
	if e.source.Pacing, err = nexmark.ParsePacing(e.pacing); err != nil {
		return err
	}
	return e.source.Validate()
}

// nexmarkJobs are the queries of the benchmark.
func nexmarkJobs() []jobSpec {
	var specs []jobSpec
	for _, q := range nexmark.Queries() {
		flags := slices.Clone(eventFlagNames)
		if !q.Updating {
			flags = slices.DeleteFunc(flags, func(f string) bool { return f == "final" })
		}
		if q.ProcessingTime {
			flags = append(flags, "window")
		}
		if q.Asks {
			flags = append(flags, "service")
		}
		specs = append(specs, jobSpec{name: "nexmark-" + q.Name, about: q.About, flags: flags,
			build: func(o *runOptions) (*operator.Job, func(), error) { return buildNexmark(&q, o) }})
	}
	return specs
}

func buildNexmark(q *nexmark.Query, o *runOptions) (*operator.Job, func(), error) {
	causal, transactional, err := o.openSink()
	if err != nil {
		return nil, nil, err
	}
	options := nexmark.Options{Source: o.events.source, Sink: causal, Transactional: transactional, Final: o.events.final, Window: o.window}
	options.Source.Splits = o.engine.Parallelism
	free := func() {}
	if q.Asks {
		s, err := openService(o.service)
		if err != nil {
			return nil, nil, err
		}
		free = s.close
		options.Ask = func(ctx context.Context, id string) (string, error) {
			answer, err := s.call(ctx, []byte(id))
			return string(answer), err
		}
	}
	job, err := nexmark.Build(q.Name, options)
	if err != nil {
		free()
		return nil, nil, err
	}
	return job, free, nil
}

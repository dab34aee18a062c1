package nexmark

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// Source gives the events of a stream to a job. It implements operator.Source[Event]. An offset is the number of the event
// after the last one that was given, or more precisely the least number that it may have.
type Source struct {
	options SourceOptions
	clock   func() time.Time

	opened, used func() // may be nil; see Options
	over         func() func(number uint64) (bool, error)
}

var _ operator.Source[Event] = (*Source)(nil)

// NewSource checks the options.
func NewSource(o SourceOptions) (*Source, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Source{options: o, clock: time.Now}, nil
}

// From begins a stream with the events of a source and their times. Each split has a task of its own: a task with two would
// have to wait for the later one before it could say what time it is.
func (s *Source) From(job *operator.Job, name string) operator.Stream[Event] {
	var disorder time.Duration // none where events happen when they are due
	if s.options.Pacing == EventPacing {
		c := Config{Rate: s.options.EventRate, Group: s.options.Group}
		disorder = time.Duration(c.disorder()) * time.Millisecond
	}
	tasks := operator.Parallelism(s.options.Splits)
	options := []operator.Option{tasks}
	if s.options.Rate == 0 { // the clock keeps paced splits together
		options = append(options, operator.MaxDrift(time.Duration(maxDrift*float64(time.Second)/float64(s.options.EventRate))))
	}
	events := operator.From(job, name, operator.Source[Event](s), operator.WithCodec[Event](EventCodec{}), tasks)
	return operator.Timestamps(events, name+" time", func(e Event) time.Time { return time.UnixMilli(e.Time()) }, disorder, options...)
}

// maxDrift is how many events one split may be ahead of another: what a core reads in a third of a second.
const maxDrift = 600_000

// Splits implements operator.Source. A paced source counts from now on, unless the options say from when.
func (s *Source) Splits(context.Context) ([]string, error) {
	o := &s.options
	one := split{
		Of: uint64(o.Splits), Events: o.Events, EventRate: o.EventRate, Group: o.Group, Rate: o.Rate, Pacing: o.Pacing,
	}
	if one.Events == 0 {
		one.Events = math.MaxInt64
	}
	if one.Rate > 0 {
		if one.Start = o.Start; one.Start == 0 {
			one.Start = s.clock().UnixMilli()
		}
	}
	var splits []string
	for ; one.Part < one.Of; one.Part++ {
		splits = append(splits, one.String())
	}
	return splits, nil
}

// Open implements operator.Source.
func (s *Source) Open(_ context.Context, identity string, offset uint64) (operator.Reader[Event], error) {
	sp, err := parseSplit(identity)
	if err != nil {
		return nil, err
	}
	g, err := NewGenerator(Config{Rate: sp.EventRate, Group: sp.Group})
	if err != nil {
		return nil, err
	}
	if s.opened != nil {
		s.opened()
	}
	r := &reader{split: sp, generator: g, next: offset, used: s.used}
	if s.over != nil {
		r.over = s.over()
	}
	if sp.Rate > 0 {
		r.pace = newPace(sp, s.clock)
	}
	return r, nil
}

// reader reads a split. It implements operator.Reader[Event].
type reader struct {
	split     split
	generator *Generator
	pace      *pace // nil: as fast as possible
	next      uint64
	ahead     []Event // from the epoch that next is in
	taken     int
	used      func()                            // called at the end, once
	over      func(number uint64) (bool, error) // nil: the split's end is the only one
}

// Next implements operator.Reader.
func (r *reader) Next() (Event, uint64, error) {
	if r.taken == len(r.ahead) {
		if r.next = r.split.owned(r.next); r.next >= r.split.Events {
			return r.end()
		}
		n := min(EpochEvents-r.next%EpochEvents, r.split.Events-r.next)
		r.ahead, r.taken = r.generator.Append(r.ahead[:0], r.next, int(n)), 0
	}
	if r.pace != nil && !r.pace.due(r.next) {
		return Event{}, r.next, operator.ErrNotReady
	}
	if r.over != nil {
		if over, err := r.over(r.next); err != nil {
			return Event{}, r.next, err
		} else if over {
			return r.end()
		}
	}
	e := &r.ahead[r.taken]
	if r.split.Pacing == WallPacing {
		r.shift(e)
	}
	r.taken++
	r.next++
	return *e, r.next, nil
}

func (r *reader) end() (Event, uint64, error) {
	if r.used != nil {
		r.used()
		r.used = nil
	}
	return Event{}, r.next, io.EOF
}

// shift moves an event to the moment at which it is due; how long an auction lasts stays as it is.
func (r *reader) shift(e *Event) {
	at := r.split.Start + r.split.due(e.Number)/1e6
	switch e.Kind {
	case PersonKind:
		e.Person.Time = at
	case AuctionKind:
		e.Auction.Expires += at - e.Auction.Time
		e.Auction.Time = at
	default:
		e.Bid.Time = at
	}
}

// Ready implements operator.Reader.
func (r *reader) Ready() <-chan struct{} {
	if r.pace == nil {
		return nil
	}
	return r.pace.ready
}

// Close implements operator.Reader.
func (r *reader) Close() error {
	if r.pace != nil {
		r.pace.stop()
	}
	return nil
}

// String names the source in messages.
func (s *Source) String() string { return fmt.Sprintf("nexmark source %+v", s.options) }

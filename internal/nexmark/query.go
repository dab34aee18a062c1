package nexmark

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// Query is one of the benchmark's queries.
type Query struct {
	Name  string // such as "q5"
	About string // in a line
	// Updating says that rows change while records come: a row replaces the one of the same key before it, unless
	// Options.Final leaves only the last.
	Updating bool
	// ProcessingTime says that Options.Window counts, Asks that Options.Ask does.
	ProcessingTime, Asks bool

	build func(events operator.Stream[Event], o *Options)
}

var queries = []Query{
	{Name: "q0", About: "pass bids on as they are", build: q0},
	{Name: "q1", About: "prices in another currency", build: q1},
	{Name: "q2", About: "bids on every 123rd auction", build: q2},
	{Name: "q3", About: "who sells in category 10 from Oregon, Idaho or California", build: q3},
	{Name: "q4", About: "average winning price per category", Updating: true, build: q4},
	{Name: "q5", About: "auctions with most bids, in windows of 10 s every 2 s", build: q5},
	{Name: "q7", About: "highest bids, in windows of 10 s", build: q7},
	{Name: "q8", About: "persons who join and sell within one window of 10 s", build: q8},
	{Name: "q9", About: "the winning bid of each auction", Updating: true, build: q9},
	{Name: "q11", About: "bids per bidder and session with gaps of 10 s", build: q11},
	{Name: "q12", About: "bids per bidder, in windows of 10 s of processing time", ProcessingTime: true, build: q12},
	{Name: "q12x", About: "q12 with an external call, a random draw and a race of two ways", ProcessingTime: true, Asks: true,
		build: q12x},
	{Name: "q13", About: "bids with a value from a side table that is asked from outside", build: q13},
	{Name: "q14", About: "filter and calculation", build: q14},
	{Name: "q15", About: "statistics per day, with distinct bidders and auctions", Updating: true, build: q15},
	{Name: "q16", About: "statistics per channel and day", Updating: true, build: q16},
	{Name: "q17", About: "statistics per auction and day", Updating: true, build: q17},
	{Name: "q18", About: "the last bid of each bidder on each auction", Updating: true, build: q18},
	{Name: "q19", About: "the ten highest bids of each auction", Updating: true, build: q19},
	{Name: "q20", About: "bids with the auction, in category 10", build: q20},
}

// Queries lists the queries by number.
func Queries() []Query { return slices.Clone(queries) }

// Options are what a query needs besides its name.
type Options struct {
	// Name is that of the job. Default: "nexmark-" and the query's name.
	Name   string
	Source SourceOptions
	// Sink takes the rows, as JSON objects.
	Sink operator.CausalSink
	// Transactional takes them instead if Sink is nil.
	Transactional operator.TransactionalSink
	// Final makes an updating query show nothing but its result when the stream has ended. It is ignored by others.
	Final bool
	// Window is the length of the processing-time windows of q12 and q12x. Default 10 s.
	Window time.Duration
	// Lookup serves the side table of q13. It runs on several goroutines at once. Default: a table in this process, in which
	// key k has the value "side-k".
	Lookup func(ctx context.Context, key int64) (string, error)
	// Ask is the external service of q12x, which may say something else each time. It runs on several goroutines at once.
	// Default: one in this process that counts how often it was asked.
	Ask func(ctx context.Context, id string) (string, error)
	// Opened and Used, if they are set, are called when a reader of the stream is opened and when it has given its last event,
	// for whoever measures how long that took. Each task calls them from its own goroutine.
	Opened, Used func()
	// Over, if it is set, is called when a reader is opened, and the function that it returns before each event that is due, with its
	// number: true ends what the reader gives, before that event. It must say the same of an event each time, in all processes; then of
	// all that come after it too.
	Over func() func(number uint64) (bool, error)
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Window == 0 {
		o.Window = 10 * time.Second
	}
	if o.Lookup == nil {
		o.Lookup = sideValue
	}
	if o.Ask == nil {
		o.Ask = countAsked()
	}
}

// Build makes the job of a query.
func Build(query string, o Options) (*operator.Job, error) {
	i := slices.IndexFunc(queries, func(q Query) bool { return q.Name == query })
	if i < 0 {
		return nil, fmt.Errorf("nexmark: there is no query %q", query)
	}
	if o.Sink == nil && o.Transactional == nil {
		return nil, errors.New("nexmark: no sink")
	}
	if o.EnsureDefaults(); o.Window < time.Millisecond {
		return nil, fmt.Errorf("nexmark: windows of %v: want at least 1ms", o.Window)
	}
	source, err := NewSource(o.Source)
	if err != nil {
		return nil, err
	}
	source.opened, source.used, source.over = o.Opened, o.Used, o.Over
	job := operator.NewJob(cmp.Or(o.Name, "nexmark-"+query))
	queries[i].build(source.From(job, "events"), &o)
	return job, nil
}

// bids are the bids among the events.
func bids(events operator.Stream[Event]) operator.Stream[Bid] {
	return operator.FlatMap(events, "bids", func(_ operator.Context, e Event, emit func(Bid)) error {
		if e.Kind == BidKind {
			emit(e.Bid)
		}
		return nil
	}, operator.WithCodec[Bid](BidCodec{}))
}

// noTimer is the Timer method of a Processor that sets none.
type noTimer[K comparable, O any] struct{}

// Timer implements operator.Processor.
func (noTimer[K, O]) Timer(operator.KeyedContext[K], operator.Timer, func(O)) error { return nil }

package bench

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/understudy-stream/understudy/internal/bench/plain"
	"github.com/understudy-stream/understudy/internal/nexmark"
)

// golden are the rows that a join of Nexmark must show, once each, as a plain program finds them, and for each the event that completes
// it: what had to be there before anybody could show the row. Of rows that are alike, none of q3 and q8 can be.
type golden struct {
	rows  map[uint64]goldenRow // by the hash of the text
	rate  uint64               // events per second of wall-clock time
	start int64                // when event 0 was due, milliseconds
}

type goldenRow struct {
	index uint64
	event uint64
}

// match is what makes a row of a join: an auction for q3, a person and the start of a window for q8.
type match struct{ id, window int64 }

// joins are the queries that golden knows.
var joins = map[Experiment]struct {
	matches func(*nexmark.Event, *matching)
	key     func(row []byte) (match, error)
}{
	Q3: {q3Matches, func(row []byte) (m match, err error) {
		m.id, err = numberAfter(row, `,"id":`)
		return m, err
	}},
	Q8: {q8Matches, func(row []byte) (m match, err error) {
		if m.id, err = numberAfter(row, `{"id":`); err == nil {
			m.window, err = numberAfter(row, `,"starttime":`)
		}
		return m, err
	}},
}

// numberAfter reads the number after a name.
func numberAfter(row []byte, name string) (int64, error) {
	_, text, ok := bytes.Cut(row, []byte(name))
	end := bytes.IndexAny(text, ",}")
	if !ok || end < 0 {
		return 0, fmt.Errorf("bench: no %s in the row %q", name, row)
	}
	return strconv.ParseInt(string(text[:end]), 10, 64)
}

// matching is a look through all events for what completes the rows of a join.
type matching struct{ last map[match]uint64 }

// completes says that an event may complete a row: the last one of two counts.
func (m *matching) completes(key match, event uint64) { m.last[key] = max(m.last[key], event) }

// q3Matches: an auction and its seller. A person's number follows from the identity, as in the generator.
func q3Matches(e *nexmark.Event, m *matching) {
	if e.Kind == nexmark.AuctionKind && e.Auction.Category == 10 {
		m.completes(match{id: e.Auction.ID}, max(e.Number, personEvent(e.Auction.Seller)))
	}
}

// q8Matches: a person and the first auction that the person opens in the window.
func q8Matches(e *nexmark.Event, m *matching) {
	if e.Kind != nexmark.AuctionKind {
		return
	}
	key := match{id: e.Auction.Seller, window: e.Auction.Time - e.Auction.Time%goldenWindow}
	if _, known := m.last[key]; !known {
		m.completes(key, max(e.Number, personEvent(e.Auction.Seller)))
	}
}

const (
	goldenWindow = 10_000 // ms, of q8
	lowestPerson = 1000
)

// personEvent is the number of the event with which a person joins.
func personEvent(id int64) uint64 { return uint64(id-lowestPerson) * nexmark.EpochEvents }

// newGolden runs the plain program.
func newGolden(ctx context.Context, s *Spec) (*golden, error) {
	join, ok := joins[s.Query]
	if !ok {
		return nil, fmt.Errorf("bench: the rows of %q are not known", s.Query)
	}
	g := &golden{rows: map[uint64]goldenRow{}, rate: s.Rate, start: s.Start}
	generator, err := nexmark.NewGenerator(nexmark.Config{Rate: s.EventRate})
	if err != nil {
		return nil, err
	}
	m := &matching{last: map[match]uint64{}}
	var events []nexmark.Event
	for n := uint64(0); n < s.Records; n += nexmark.EpochEvents {
		events = generator.Append(events[:0], n, int(min(nexmark.EpochEvents, s.Records-n)))
		for i := range events {
			join.matches(&events[i], m)
		}
	}
	var wrong error
	err = plain.Run(ctx, string(s.Query), plain.Options{
		Events: s.Records, EventRate: s.EventRate, Parallelism: 1,
		Out: func(int) func([]byte) {
			return func(row []byte) {
				key, err := join.key(row)
				event, known := m.last[key]
				hash := xxhash.Sum64(row)
				if _, twice := g.rows[hash]; err != nil || !known || twice {
					wrong = fmt.Errorf("bench: assertion: the plain program's row %q (%v): its event is known: %t, it was there before: %t",
						row, err, known, twice)
				}
				g.rows[hash] = goldenRow{index: uint64(len(g.rows)), event: event}
			}
		},
	})
	if err == nil {
		err = wrong
	}
	return g, err
}

// find finds out which row a hash stands for, and when it was due.
func (g *golden) find(hash uint64) (n uint64, due int64) {
	r, ok := g.rows[hash]
	if !ok {
		return uint64(len(g.rows)), 0 // strange
	}
	return r.index, dueOf(g.start, r.event, g.rate)
}

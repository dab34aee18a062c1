package nexmark

import (
	"encoding/json"
	"fmt"
	"math"
)

// Pacing says when a source gives its events, and when they happen.
type Pacing uint8

const (
	// EventPacing lets events happen where Beam's do, in 2015, SourceOptions.EventRate of them per second.
	EventPacing Pacing = iota
	// WallPacing lets an event happen at the moment at which it is due, so that its age is its latency.
	WallPacing
)

// ParsePacing reads "event" or "wall".
func ParsePacing(text string) (Pacing, error) {
	switch text {
	case "event":
		return EventPacing, nil
	case "wall":
		return WallPacing, nil
	}
	return 0, fmt.Errorf("nexmark: pacing %q: want event or wall", text)
}

// SourceOptions say which events a Source gives, and how fast. The zero value is Beam's stream without end, as fast as it is
// taken.
type SourceOptions struct {
	// Events is how many there are. 0: without end.
	Events uint64
	// EventRate is how many events happen per second of event time. Default DefaultRate. Not used with WallPacing.
	EventRate uint64
	// Group is how many consecutive events are out of order. Default 1: none.
	Group uint64
	// Rate is how many events are given per second. 0: as fast as they are taken. A source that was held up gives what is
	// due meanwhile at once, so that it does not hide how long its consumers stood still.
	Rate uint64
	// Start is the moment from which a source with a Rate counts, in milliseconds since the Unix epoch: event n is due n/Rate
	// seconds later. 0: when the job begins. One that has passed makes the source give at once what has come due since.
	Start int64
	// Pacing is EventPacing unless it is said otherwise. WallPacing needs a Rate.
	Pacing Pacing
	// Splits is how many parts the stream has, each of which a task of its own reads. Default 1. Every part has persons,
	// auctions and bids of all times, so that no part is ahead of another.
	Splits int
}

// EnsureDefaults fills in what is zero.
func (o *SourceOptions) EnsureDefaults() {
	if o.EventRate == 0 {
		o.EventRate = DefaultRate
	}
	if o.Group == 0 {
		o.Group = 1
	}
	if o.Splits == 0 {
		o.Splits = 1
	}
}

// maxPace is beyond what a reader can give.
const maxPace = 1e9

// Validate tells what is wrong with the options.
func (o *SourceOptions) Validate() error {
	c := Config{Rate: o.EventRate, Group: o.Group}
	switch {
	case o.Splits < 0 || o.Splits > math.MaxUint16:
		return fmt.Errorf("nexmark: %d splits: want 1 to %d", o.Splits, math.MaxUint16)
	case o.Rate > maxPace:
		return fmt.Errorf("nexmark: %d events per second: want at most %d", o.Rate, int(maxPace))
	case o.Start < 0:
		return fmt.Errorf("nexmark: the start %d is before 1970", o.Start)
	case o.Pacing > WallPacing:
		return fmt.Errorf("nexmark: pacing %d is unknown", o.Pacing)
	case o.Pacing == WallPacing && o.Rate == 0:
		return fmt.Errorf("nexmark: events that happen when they are due need a rate")
	}
	if err := c.Validate(); err != nil {
		return err
	}
	c.EnsureDefaults()
	if most := c.Most(); o.Events > most {
		return fmt.Errorf("nexmark: %d events: at %d per second of event time the times of no more than %d fit", o.Events, c.Rate, most)
	}
	return nil
}

// split is a part of the stream: of every Of epochs the one whose number leaves the remainder Part.
type split struct {
	Part   uint64 `json:"nexmark"`
	Of     uint64 `json:"of"`
	Events uint64 `json:"events"`
	// EventRate and Group are those of the Config. Rate and Start say when an event is due: Start is in milliseconds since the
	// Unix epoch, 0 if Rate is.
	EventRate uint64 `json:"event_rate"`
	Group     uint64 `json:"group"`
	Rate      uint64 `json:"rate"`
	Start     int64  `json:"start"`
	Pacing    Pacing `json:"pacing"`
}

// String gives the identity: an object of JSON.
func (s split) String() string {
	text, _ := json.Marshal(s) // numbers cannot fail
	return string(text)
}

// parseSplit is the inverse of String. It accepts nothing that String does not give.
func parseSplit(identity string) (split, error) {
	var s split
	if err := json.Unmarshal([]byte(identity), &s); err != nil || s.String() != identity {
		return split{}, fmt.Errorf("nexmark: not the identity of a split: %q", identity)
	}
	o := SourceOptions{EventRate: s.EventRate, Group: s.Group, Rate: s.Rate, Pacing: s.Pacing, Splits: 1}
	if err := o.Validate(); err != nil || s.Of > math.MaxUint16 || s.Part >= s.Of || s.EventRate == 0 || s.Group == 0 || s.Start < 0 {
		return split{}, fmt.Errorf("nexmark: not a possible split: %q", identity)
	}
	return s, nil
}

// owned is the first event of the split from number n on.
func (s *split) owned(n uint64) uint64 {
	epoch := n / EpochEvents
	ahead := (s.Part + s.Of - epoch%s.Of) % s.Of
	if ahead == 0 {
		return n
	}
	return (epoch + ahead) * EpochEvents
}

// due is when event n is to be given, in nanoseconds after the start.
func (s *split) due(n uint64) int64 {
	return int64(n/s.Rate)*1e9 + int64(n%s.Rate*1e9/s.Rate)
}

// dueBy is how many events are due by a time after the start: those below the result.
func (s *split) dueBy(t int64) uint64 {
	if t < 0 {
		return 0
	}
	return uint64(t)/1e9*s.Rate + uint64(t)%1e9*s.Rate/1e9 + 1
}

package nexmark

import (
	"fmt"
	"math"
)

// The shape of the stream.
const (
	// EpochEvents is how many events an epoch has: one person, three auctions and 46 bids, in this order. Splits are dealt
	// out in epochs.
	EpochEvents   = 50
	epochAuctions = 3

	firstPerson   = 1000
	firstAuction  = 1000
	firstCategory = 10
	categories    = 5

	hotAuctionRatio = 2 // all bids but one in so many go to a hot auction
	hotBidderRatio  = 4
	hotSellerRatio  = 4
	hotEvery        = 100 // the hot person or auction changes after so many

	activePeople     = 1000 // so many of the latest persons are active
	inFlightAuctions = 100
	lead             = 10 // so many persons and auctions are referred to that do not exist yet

	averagePerson  = 200 // bytes
	averageAuction = 500
	averageBid     = 100
)

// DefaultBase is when the first event happens unless Config says otherwise: 2015-07-15T00:00Z.
const DefaultBase = 1436918400000

// DefaultRate is how many events happen per second of event time.
const DefaultRate = 10000

// maxRate leaves a microsecond between two events, which is as fine as Beam computes.
const maxRate = 1000000

// Config says which stream a Generator gives. The zero value is Beam's default with one generator.
type Config struct {
	// Rate is how many events happen per second of event time. Default DefaultRate. As in Beam, the time between two
	// events is rounded to whole microseconds.
	Rate uint64
	// Group is how many consecutive events are shuffled among themselves, by steps of 953 places. Default 1: none.
	Group uint64
	// Base is when the first event happens, in milliseconds since the Unix epoch. Default DefaultBase.
	Base int64
}

// EnsureDefaults fills in what is zero.
func (c *Config) EnsureDefaults() {
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.Group == 0 {
		c.Group = 1
	}
	if c.Base == 0 {
		c.Base = DefaultBase
	}
}

// Validate tells what is wrong with the configuration.
func (c *Config) Validate() error {
	switch {
	case c.Rate > maxRate:
		return fmt.Errorf("nexmark: %d events per second of event time: want at most %d", c.Rate, maxRate)
	case c.Group > math.MaxInt32 || c.Group%groupStep == 0 && c.Group > 0:
		return fmt.Errorf("nexmark: groups of %d events: want at most %d, and no multiple of %d", c.Group, math.MaxInt32, groupStep)
	case c.Base < 0:
		return fmt.Errorf("nexmark: the base time %d is before 1970", c.Base)
	}
	return nil
}

// Most is how many events the stream has at most: the times of more do not fit. The configuration is a valid one.
func (c Config) Most() uint64 {
	c.EnsureDefaults()
	return math.MaxInt64/c.delay() - c.Group - inFlightAuctions*EpochEvents/epochAuctions
}

// groupStep is prime, so that its multiples go through every place of a group.
const groupStep = 953

// delay is the time between two events, in microseconds.
func (c *Config) delay() uint64 { return (1000000 + c.Rate/2) / c.Rate }

// disorder is by how many milliseconds an event may be earlier than one before it.
func (c *Config) disorder() int64 {
	if c.Group == 1 {
		return 0
	}
	return int64(c.Group*c.delay()/1000) + 1
}

// Generator makes events.
type Generator struct {
	config Config
	delay  uint64
	text   []byte // of the events of one call
	pieces []piece
}

// piece is a part of text that is to become a string.
type piece struct {
	to         *string
	start, end int
}

// NewGenerator checks the configuration.
func NewGenerator(c Config) (*Generator, error) {
	c.EnsureDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Generator{config: c, delay: c.delay()}, nil
}

// Append appends n events from the given number on. The text of all of them shares one piece of memory, which lives as long
// as any of it does.
func (g *Generator) Append(dst []Event, first uint64, n int) []Event {
	start := len(dst)
	for i := range uint64(n) {
		dst = append(dst, Event{Number: first + i})
	}
	g.text, g.pieces = g.text[:0], g.pieces[:0]
	for i := range dst[start:] {
		g.fill(&dst[start+i])
	}
	text := string(g.text)
	for _, p := range g.pieces {
		*p.to = text[p.start:p.end]
	}
	return dst
}

// fill makes the event of e's number. Its id is the number unless there are groups.
func (g *Generator) fill(e *Event) {
	id := e.Number
	if group := g.config.Group; group > 1 {
		id = id/group*group + id%group*groupStep%group
	}
	r := seeded(id)
	epoch, place := int64(id/EpochEvents), int64(id%EpochEvents)
	switch {
	case place == 0:
		e.Kind = PersonKind
		e.Person = &Person{ID: firstPerson + epoch, Time: g.time(id)}
		g.person(&r, e.Person)
	case place <= epochAuctions:
		e.Kind = AuctionKind
		e.Auction = &Auction{ID: firstAuction + epoch*epochAuctions + place - 1, Time: g.time(id)}
		g.auction(&r, e.Auction, id)
	default:
		e.Kind = BidKind
		e.Bid.Time = g.time(id)
		g.bid(&r, &e.Bid, epoch)
	}
}

// time is when the event with an id happens.
func (g *Generator) time(id uint64) int64 { return g.config.Base + int64(id*g.delay/1000) }

// piece makes what was appended to text since start the string at to.
func (g *Generator) piece(to *string, start int) int {
	g.pieces = append(g.pieces, piece{to, start, len(g.text)})
	return len(g.text) - start
}

func (g *Generator) person(r *random, p *Person) {
	p.Name = firstNames[r.intn(uint32(len(firstNames)))] + " " + lastNames[r.intn(uint32(len(lastNames)))]
	start := len(g.text)
	g.text = append(r.letters(g.text, 7), '@')
	g.text = append(r.letters(g.text, 5), ".com"...)
	size := 8 + len(p.Name) + g.piece(&p.Email, start)
	start = len(g.text)
	for i := range 4 {
		if i > 0 {
			g.text = append(g.text, ' ')
		}
		four := r.intn(10000)
		g.text = append(g.text, byte('0'+four/1000), byte('0'+four/100%10), byte('0'+four/10%10), byte('0'+four%10))
	}
	size += g.piece(&p.CreditCard, start)
	p.City = cities[r.intn(uint32(len(cities)))]
	p.State = states[r.intn(uint32(len(states)))]
	start = len(g.text)
	g.text = r.filler(g.text, size+len(p.City)+len(p.State), averagePerson)
	g.piece(&p.Extra, start)
}

func (g *Generator) auction(r *random, a *Auction, id uint64) {
	last := int64(id / EpochEvents) // the latest person
	if r.intn(hotSellerRatio) > 0 {
		a.Seller = firstPerson + last/hotEvery*hotEvery
	} else {
		a.Seller = firstPerson + anyPerson(r, last)
	}
	a.Category = firstCategory + int64(r.intn(categories))
	a.InitialBid = r.price()
	// An auction lasts about as long as it takes to begin inFlightAuctions more.
	horizon := g.time(id+inFlightAuctions*EpochEvents/epochAuctions) - a.Time
	a.Expires = a.Time + 1 + r.int64n(max(2*horizon, 1))
	start := len(g.text)
	g.text = r.letters(g.text, 20)
	size := 48 + g.piece(&a.Name, start)
	start = len(g.text)
	g.text = r.letters(g.text, 100)
	size += g.piece(&a.Description, start)
	a.Reserve = a.InitialBid + r.price()
	start = len(g.text)
	g.text = r.filler(g.text, size, averageAuction)
	g.piece(&a.Extra, start)
}

func (g *Generator) bid(r *random, b *Bid, lastPerson int64) {
	lastAuction := lastPerson*epochAuctions + epochAuctions - 1
	if r.intn(hotAuctionRatio) > 0 {
		b.Auction = firstAuction + lastAuction/hotEvery*hotEvery
	} else {
		least := max(lastAuction-inFlightAuctions, 0)
		b.Auction = firstAuction + least + r.int64n(lastAuction-least+1+lead)
	}
	if r.intn(hotBidderRatio) > 0 {
		b.Bidder = firstPerson + lastPerson/hotEvery*hotEvery + 1
	} else {
		b.Bidder = firstPerson + anyPerson(r, lastPerson)
	}
	b.Price = r.price()
	start := len(g.text)
	g.text = r.filler(g.text, 32, averageBid)
	g.piece(&b.Extra, start)
}

// anyPerson draws one of the active persons, or one who is to come soon.
func anyPerson(r *random, last int64) int64 {
	people := last + 1
	active := min(people, activePeople)
	return people - active + r.int64n(active+lead)
}

var (
	firstNames = [...]string{"Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"}
	lastNames  = [...]string{"Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"}
	cities     = [...]string{"Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent",
		"Cheyenne"}
	states = [...]string{"AZ", "CA", "ID", "OR", "WA", "WY"}
)

package nexmark

import "github.com/understudy-stream/understudy/operator"

// categoryAverage is a row of q4.
type categoryAverage struct {
	Category int64
	Final    int64
}

func (c categoryAverage) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("category", c.Category).number("final", c.Final).end()
}

// priceFact is what q4 wants to know of an auction: when it lives and in which category, or, if that is zero, a bid.
type priceFact struct {
	Auction  int64
	Category int64
	Time     int64
	Expires  int64 // of an auction
	Price    int64 // of a bid
}

func (f priceFact) life() (from, to int64)     { return f.Time, f.Expires }
func (f priceFact) when() int64                { return f.Time }
func (f priceFact) beats(other priceFact) bool { return f.Price > other.Price }

type priceFactCodec struct{}

func (priceFactCodec) Append(dst []byte, f priceFact) ([]byte, error) {
	p := packing(dst).number(f.Auction).number(f.Category).number(f.Time)
	if f.Category == 0 {
		return p.number(f.Price), nil
	}
	return p.number(f.Expires), nil
}

func (priceFactCodec) Decode(src []byte) (f priceFact, err error) {
	u := unpacking{src: src}
	f.Auction, f.Category, f.Time = u.number(), u.number(), u.number()
	if f.Category == 0 {
		f.Price = u.number()
	} else {
		f.Expires = u.number()
	}
	return f, u.err()
}

// raised says that the highest price of an auction went from Before to Now. New says that it had none before.
type raised struct {
	Category, Before, Now int64
	New                   bool
}

type raisedCodec struct{}

func (raisedCodec) Append(dst []byte, r raised) ([]byte, error) {
	p := packing(dst).number(r.Category).number(r.Now)
	if !r.New {
		p = p.number(r.Before)
	}
	return p, nil
}

func (raisedCodec) Decode(src []byte) (r raised, err error) {
	u := unpacking{src: src}
	r.Category, r.Now = u.number(), u.number()
	if r.New = len(u.src) == 0; !r.New {
		r.Before = u.number()
	}
	return r, u.err()
}

func q4(events operator.Stream[Event], o *Options) {
	facts := operator.FlatMap(events, "prices", func(_ operator.Context, e Event, emit func(priceFact)) error {
		switch e.Kind {
		case AuctionKind:
			emit(priceFact{Auction: e.Auction.ID, Category: e.Auction.Category, Time: e.Auction.Time, Expires: e.Auction.Expires})
		case BidKind:
			emit(priceFact{Auction: e.Bid.Auction, Time: e.Bid.Time, Price: e.Bid.Price})
		}
		return nil
	}, operator.WithCodec[priceFact](priceFactCodec{}))
	byAuction := operator.KeyBy(facts, func(f priceFact) int64 { return f.Auction })
	highest := operator.Process(byAuction, "highest", func() operator.Processor[int64, priceFact, raised] { return &highestPrice{} },
		operator.WithCodec[raised](raisedCodec{}))
	byCategory := operator.KeyBy(highest, func(r raised) int64 { return r.Category })
	averages := operator.Process(byCategory, "average", func() operator.Processor[int64, raised, categoryAverage] { return &average{} })
	showChanges(averages, func(c categoryAverage) int64 { return c.Category }, o)
}

// highestPrice tells how the highest price of an auction rises.
type highestPrice struct {
	bidding bidding[priceFact, priceFact]
}

// Open implements operator.Processor.
func (h *highestPrice) Open(s *operator.States) error {
	h.bidding.open(s, priceFactCodec{}, priceFactCodec{})
	return nil
}

// Process implements operator.Processor.
func (h *highestPrice) Process(ctx operator.KeyedContext[int64], f priceFact, emit func(raised)) error {
	if f.Category != 0 {
		if best, ok := h.bidding.auction(ctx, f); ok {
			emit(raised{Category: f.Category, Now: best.Price, New: true})
		}
		return nil
	}
	if a, before, had, better := h.bidding.bid(ctx, f); better {
		emit(raised{Category: a.Category, Before: before.Price, Now: f.Price, New: !had})
	}
	return nil
}

// Timer implements operator.Processor.
func (h *highestPrice) Timer(_ operator.KeyedContext[int64], t operator.Timer, _ func(raised)) error {
	h.bidding.timer(t)
	return nil
}

// average is that of the highest prices of a category's auctions, cut off to a whole number.
type average struct {
	noTimer[int64, categoryAverage]
	sum, count *operator.Value[int64]
}

// Open implements operator.Processor.
func (a *average) Open(s *operator.States) error {
	a.sum, a.count = operator.NewValue[int64](s, "sum"), operator.NewValue[int64](s, "count")
	return nil
}

// Process implements operator.Processor.
func (a *average) Process(ctx operator.KeyedContext[int64], r raised, emit func(categoryAverage)) error {
	sum, _ := a.sum.Get()
	count, _ := a.count.Get()
	if r.New {
		count++
		a.count.Set(count)
	}
	sum += r.Now - r.Before
	a.sum.Set(sum)
	emit(categoryAverage{ctx.Key(), sum / count})
	return nil
}

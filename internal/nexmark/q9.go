package nexmark

import "github.com/understudy-stream/understudy/operator"

// winningBid is a row of q9.
type winningBid struct {
	ID          int64
	ItemName    string
	Description string
	InitialBid  int64
	Reserve     int64
	Time        int64
	Expires     int64
	Seller      int64
	Category    int64
	Extra       string
	Auction     int64
	Bidder      int64
	Price       int64
	BidTime     int64
	BidExtra    string
}

func (w winningBid) appendJSON(dst []byte) []byte {
	o := object(append(dst, '{')).number("id", w.ID).text("itemName", w.ItemName).text("description", w.Description)
	o = o.number("initialBid", w.InitialBid).number("reserve", w.Reserve).number("dateTime", w.Time)
	o = o.number("expires", w.Expires).number("seller", w.Seller).number("category", w.Category).text("extra", w.Extra)
	o = o.number("auction", w.Auction).number("bidder", w.Bidder).number("price", w.Price).number("bid_dateTime", w.BidTime)
	return o.text("bid_extra", w.BidExtra).end()
}

func (a Auction) life() (from, to int64) { return a.Time, a.Expires }

func (b Bid) when() int64 { return b.Time }

// beats orders bids on an auction: by price, then by time, then, which SQL leaves open, by bidder and text.
func (b Bid) beats(other Bid) bool {
	switch {
	case b.Price != other.Price:
		return b.Price > other.Price
	case b.Time != other.Time:
		return b.Time < other.Time
	case b.Bidder != other.Bidder:
		return b.Bidder < other.Bidder
	}
	return b.Extra < other.Extra
}

// market are auctions and bids, and no persons.
func market(events operator.Stream[Event]) operator.KeyedStream[int64, Event] {
	both := operator.Filter(events, "auctions and bids", func(_ operator.Context, e Event) (bool, error) {
		return e.Kind != PersonKind, nil
	})
	return operator.KeyBy(both, func(e Event) int64 {
		if e.Kind == AuctionKind {
			return e.Auction.ID
		}
		return e.Bid.Auction
	})
}

func q9(events operator.Stream[Event], o *Options) {
	winning := operator.Process(market(events), "winning", func() operator.Processor[int64, Event, winningBid] { return &winner{} })
	showChanges(winning, func(w winningBid) int64 { return w.ID }, o)
}

// winner shows the best bid of an auction whenever there is a better one.
type winner struct {
	bidding bidding[Auction, Bid]
}

// Open implements operator.Processor.
func (w *winner) Open(s *operator.States) error {
	w.bidding.open(s, AuctionCodec{}, BidCodec{})
	return nil
}

// Process implements operator.Processor.
func (w *winner) Process(ctx operator.KeyedContext[int64], e Event, emit func(winningBid)) error {
	if e.Kind == AuctionKind {
		if best, ok := w.bidding.auction(ctx, *e.Auction); ok {
			emit(won(e.Auction, &best))
		}
		return nil
	}
	if a, _, _, better := w.bidding.bid(ctx, e.Bid); better {
		emit(won(&a, &e.Bid))
	}
	return nil
}

// Timer implements operator.Processor.
func (w *winner) Timer(_ operator.KeyedContext[int64], t operator.Timer, _ func(winningBid)) error {
	w.bidding.timer(t)
	return nil
}

func won(a *Auction, b *Bid) winningBid {
	return winningBid{
		ID: a.ID, ItemName: a.Name, Description: a.Description, InitialBid: a.InitialBid, Reserve: a.Reserve, Time: a.Time,
		Expires: a.Expires, Seller: a.Seller, Category: a.Category, Extra: a.Extra,
		Auction: b.Auction, Bidder: b.Bidder, Price: b.Price, BidTime: b.Time, BidExtra: b.Extra,
	}
}

package nexmark

import "github.com/understudy-stream/understudy/operator"

// auctionDay is the key of q17.
type auctionDay struct{ Auction, Day int64 }

type auctionDayCodec struct{}

func (auctionDayCodec) Append(dst []byte, k auctionDay) ([]byte, error) {
	return packing(dst).number(k.Auction).number(k.Day), nil
}

func (auctionDayCodec) Decode(src []byte) (k auctionDay, err error) {
	u := unpacking{src: src}
	k.Auction, k.Day = u.number(), u.number()
	return k, u.err()
}

// auctionBid is what q17 wants to know of a bid.
type auctionBid struct {
	Key   auctionDay
	Price int64
}

type auctionBidCodec struct{}

func (auctionBidCodec) Append(dst []byte, b auctionBid) ([]byte, error) {
	return packing(dst).number(b.Key.Auction).number(b.Key.Day).number(b.Price), nil
}

func (auctionBidCodec) Decode(src []byte) (b auctionBid, err error) {
	u := unpacking{src: src}
	b.Key.Auction, b.Key.Day, b.Price = u.number(), u.number(), u.number()
	return b, u.err()
}

// auctionStatistics is a row of q17.
type auctionStatistics struct {
	Key           auctionDay
	Bids          count
	Min, Max, Sum int64
}

func (a auctionStatistics) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("auction", a.Key.Auction).text("day", dayOf(a.Key.Day)).counts("bids", &a.Bids).
		number("min_price", a.Min).number("max_price", a.Max).number("avg_price", a.Sum/a.Bids.All).number("sum_price", a.Sum).end()
}

func (a auctionStatistics) add(b auctionBid) (auctionStatistics, error) {
	if a.Key = b.Key; a.Bids.All == 0 || b.Price < a.Min {
		a.Min = b.Price
	}
	a.Max = max(a.Max, b.Price)
	a.Sum += b.Price
	a.Bids.add(rank(b.Price))
	return a, nil
}

func q17(events operator.Stream[Event], o *Options) {
	slim := operator.FlatMap(events, "bids", func(_ operator.Context, e Event, emit func(auctionBid)) error {
		if b := &e.Bid; e.Kind == BidKind {
			emit(auctionBid{auctionDay{b.Auction, b.Time - b.Time%day}, b.Price})
		}
		return nil
	}, operator.WithCodec[auctionBid](auctionBidCodec{}))
	key := operator.WithCodec[auctionDay](auctionDayCodec{})
	byAuction := operator.KeyBy(slim, func(b auctionBid) auctionDay { return b.Key }, key)
	rows := operator.Aggregate(byAuction, "statistics", auctionStatistics.add)
	showChanges(rows, func(a auctionStatistics) auctionDay { return a.Key }, o)
}

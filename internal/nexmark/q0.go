package nexmark

import (
	"strings"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// The queries that look at one bid at a time.

func q0(events operator.Stream[Event], o *Options) { show(bids(events), o) }

// euroBid is a row of q1.
type euroBid struct {
	Auction int64
	Bidder  int64
	Price   thousandths
	Time    int64
	Extra   string
}

func (b euroBid) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("auction", b.Auction).number("bidder", b.Bidder).decimal("price", b.Price).
		number("dateTime", b.Time).text("extra", b.Extra).end()
}

// euros are 0.908 dollars.
func euros(dollars int64) thousandths { return thousandths(dollars * 908) }

func q1(events operator.Stream[Event], o *Options) {
	show(operator.Map(bids(events), "euros", func(_ operator.Context, b Bid) (euroBid, error) {
		return euroBid{Auction: b.Auction, Bidder: b.Bidder, Price: euros(b.Price), Time: b.Time, Extra: b.Extra}, nil
	}), o)
}

// pricedAuction is a row of q2.
type pricedAuction struct {
	Auction int64
	Price   int64
}

func (p pricedAuction) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("auction", p.Auction).number("price", p.Price).end()
}

func q2(events operator.Stream[Event], o *Options) {
	show(operator.FlatMap(bids(events), "every 123rd", func(_ operator.Context, b Bid, emit func(pricedAuction)) error {
		if b.Auction%123 == 0 {
			emit(pricedAuction{b.Auction, b.Price})
		}
		return nil
	}), o)
}

// bidOfDay is a row of q14.
type bidOfDay struct {
	Auction int64
	Bidder  int64
	Price   thousandths
	When    string
	Time    int64
	Extra   string
	Cs      int64
}

func (b bidOfDay) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("auction", b.Auction).number("bidder", b.Bidder).decimal("price", b.Price).
		text("bidTimeType", b.When).number("dateTime", b.Time).text("extra", b.Extra).number("c_counts", b.Cs).end()
}

func q14(events operator.Stream[Event], o *Options) {
	show(operator.FlatMap(bids(events), "calculate", func(_ operator.Context, b Bid, emit func(bidOfDay)) error {
		price := euros(b.Price)
		if price > 1000000*1000 && price < 50000000*1000 {
			emit(bidOfDay{
				Auction: b.Auction, Bidder: b.Bidder, Price: price, When: timeOfDay(b.Time), Time: b.Time, Extra: b.Extra,
				Cs: int64(strings.Count(b.Extra, "c")),
			})
		}
		return nil
	}), o)
}

func timeOfDay(ms int64) string {
	switch hour := time.UnixMilli(ms).UTC().Hour(); {
	case hour >= 8 && hour <= 18:
		return "dayTime"
	case hour <= 6 || hour >= 20:
		return "nightTime"
	}
	return "otherTime"
}

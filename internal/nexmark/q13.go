package nexmark

import (
	"context"
	"strconv"

	"github.com/understudy-stream/understudy/operator"
)

// sideKeys is how many keys the side table of q13 has.
const sideKeys = 10000

// sideCalls is how many look-ups of a task may be under way at once.
const sideCalls = 1000

// sideBid is a row of q13: a bid with a value from the side table.
type sideBid struct {
	Auction int64
	Bidder  int64
	Price   int64
	Time    int64
	Value   string
}

func (b sideBid) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("auction", b.Auction).number("bidder", b.Bidder).number("price", b.Price).
		number("dateTime", b.Time).text("value", b.Value).end()
}

type sideBidCodec struct{}

func (sideBidCodec) Append(dst []byte, b sideBid) ([]byte, error) {
	return append(packing(dst).number(b.Auction).number(b.Bidder).number(b.Price).number(b.Time), b.Value...), nil
}

func (sideBidCodec) Decode(src []byte) (b sideBid, err error) {
	u := unpacking{src: src}
	b.Auction, b.Bidder, b.Price, b.Time, b.Value = u.number(), u.number(), u.number(), u.number(), u.rest()
	return b, u.err()
}

// q13 asks for the value of each bid's auction, many at a time. The answers are recorded: a replay asks for none again.
func q13(events operator.Stream[Event], o *Options) {
	codec := operator.WithCodec[sideBid](sideBidCodec{})
	slim := operator.Map(bids(events), "slim", func(_ operator.Context, b Bid) (sideBid, error) {
		return sideBid{Auction: b.Auction, Bidder: b.Bidder, Price: b.Price, Time: b.Time}, nil
	}, codec)
	show(operator.AsyncMap(slim, "look up", func(ctx context.Context, b sideBid) (_ sideBid, err error) {
		b.Value, err = o.Lookup(ctx, b.Auction%sideKeys)
		return b, err
	}, operator.AsyncOptions{Capacity: sideCalls}, codec), o)
}

// sideValue is the side table of a process that has no better one.
func sideValue(ctx context.Context, key int64) (string, error) {
	return "side-" + strconv.FormatInt(key, 10), ctx.Err()
}

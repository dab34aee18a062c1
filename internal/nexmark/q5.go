package nexmark

import (
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// hotAuction is a row of q5: how many bids an auction had in a window.
type hotAuction struct {
	Auction int64
	Bids    int64
	Start   int64
	End     int64
}

func (h hotAuction) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("auction", h.Auction).number("num", h.Bids).number("starttime", h.Start).
		number("endtime", h.End).end()
}

type hotAuctionCodec struct{}

func (hotAuctionCodec) Append(dst []byte, h hotAuction) ([]byte, error) {
	return packing(dst).number(h.Auction).number(h.Bids).number(h.Start).number(h.End - h.Start), nil
}

func (hotAuctionCodec) Decode(src []byte) (h hotAuction, err error) {
	u := unpacking{src: src}
	h.Auction, h.Bids, h.Start = u.number(), u.number(), u.number()
	h.End = h.Start + u.number()
	return h, u.err()
}

func q5(events operator.Stream[Event], o *Options) {
	auctions := operator.FlatMap(events, "auctions bid on", func(_ operator.Context, e Event, emit func(int64)) error {
		if e.Kind == BidKind {
			emit(e.Bid.Auction)
		}
		return nil
	})
	byAuction := operator.KeyBy(auctions, func(auction int64) int64 { return auction })
	counts, _ := operator.Window(byAuction, "count", operator.Sliding(10*time.Second, 2*time.Second),
		operator.Aggregator[int64, int64, int64, hotAuction]{
			Add:   func(n, _ int64) (int64, error) { return n + 1, nil },
			Merge: func(a, b int64) (int64, error) { return a + b, nil },
			Emit: func(_ operator.Context, auction int64, w operator.WindowInfo, n int64, emit func(hotAuction)) error {
				emit(hotAuction{auction, n, w.Start.UnixMilli(), w.End.UnixMilli()})
				return nil
			},
		}, operator.WithCodec[hotAuction](hotAuctionCodec{}), operator.Combined())
	byWindow := operator.KeyBy(counts, func(h hotAuction) int64 { return h.End })
	hottest, _ := operator.Window(byWindow, "hottest", operator.Tumbling(2*time.Second),
		operator.Aggregator[int64, hotAuction, hotAuctions, hotAuction]{
			Add:   hotAuctions.add,
			Merge: hotAuctions.merge,
			Emit: func(_ operator.Context, _ int64, _ operator.WindowInfo, hottest hotAuctions, emit func(hotAuction)) error {
				for _, h := range hottest {
					emit(h)
				}
				return nil
			},
		}, operator.WithCodec[hotAuction](hotAuctionCodec{}), operator.Combined())
	show(hottest, o)
}

// hotAuctions are the auctions with most bids of a window. The counts of a window have its last moment as their time, so those that end
// together are in one window of a slide. Nothing is changed in place.
type hotAuctions []hotAuction

func (hs hotAuctions) add(h hotAuction) (hotAuctions, error) {
	switch {
	case len(hs) == 0 || h.Bids > hs[0].Bids:
		return hotAuctions{h}, nil
	case h.Bids == hs[0].Bids:
		return append(hs[:len(hs):len(hs)], h), nil
	}
	return hs, nil
}

func (hs hotAuctions) merge(others hotAuctions) (hotAuctions, error) {
	switch {
	case len(hs) == 0 || len(others) > 0 && others[0].Bids > hs[0].Bids:
		return others, nil
	case len(others) > 0 && others[0].Bids == hs[0].Bids:
		return append(hs[:len(hs):len(hs)], others...), nil
	}
	return hs, nil
}

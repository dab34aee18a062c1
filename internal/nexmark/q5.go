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
	show(operator.Process(byWindow, "hottest", func() operator.Processor[int64, hotAuction, hotAuction] { return &hottest{} }), o)
}

// hottest keeps the auctions with most bids of a window, which is the key, until it is over.
type hottest struct {
	auctions *operator.List[hotAuction]
}

// Open implements operator.Processor.
func (h *hottest) Open(s *operator.States) error {
	h.auctions = operator.NewList[hotAuction](s, "hottest", hotAuctionCodec{})
	return nil
}

// Process implements operator.Processor.
func (h *hottest) Process(ctx operator.KeyedContext[int64], a hotAuction, _ func(hotAuction)) error {
	best := h.auctions.Get()
	switch {
	case len(best) == 0:
		ctx.RegisterEventTimer(time.UnixMilli(a.End-1), "")
		h.auctions.Append(a)
	case a.Bids == best[0].Bids:
		h.auctions.Append(a)
	case a.Bids > best[0].Bids:
		h.auctions.Set([]hotAuction{a})
	}
	return nil
}

// Timer implements operator.Processor.
func (h *hottest) Timer(_ operator.KeyedContext[int64], _ operator.Timer, emit func(hotAuction)) error {
	for _, a := range h.auctions.Get() {
		emit(a)
	}
	h.auctions.Clear()
	return nil
}

package nexmark

import (
	"slices"

	"github.com/understudy-stream/understudy/operator"
)

// q19Best is how many bids of an auction q19 ranks.
const q19Best = 10

// rankedBid is a row of q19.
type rankedBid struct {
	Bid  Bid
	Rank int64 // from 1
}

func (r rankedBid) appendJSON(dst []byte) []byte {
	return r.Bid.fields(append(dst, '{')).number("rank_number", r.Rank).end()
}

type rankedBidCodec struct{}

func (rankedBidCodec) Append(dst []byte, r rankedBid) ([]byte, error) {
	return packBid(packing(dst).number(r.Rank), &r.Bid), nil
}

func (rankedBidCodec) Decode(src []byte) (r rankedBid, err error) {
	u := unpacking{src: src}
	r.Rank = u.number()
	u.bid(&r.Bid)
	return r, u.err()
}

// auctionRank is what the rows of q19 replace one another by.
type auctionRank struct{ Auction, Rank int64 }

func q19(events operator.Stream[Event], o *Options) {
	byAuction := operator.KeyBy(bids(events), func(b Bid) int64 { return b.Auction })
	rows := operator.Process(byAuction, "best", func() operator.Processor[int64, Bid, rankedBid] { return &bestBids{} },
		operator.WithCodec[rankedBid](rankedBidCodec{}))
	showChanges(rows, func(r rankedBid) auctionRank { return auctionRank{r.Bid.Auction, r.Rank} }, o)
}

// bestBids keeps the best bids of an auction in order, and shows each bid whose rank has changed.
type bestBids struct {
	noTimer[int64, rankedBid]
	best *operator.List[Bid]
}

// Open implements operator.Processor.
func (t *bestBids) Open(s *operator.States) error {
	t.best = operator.NewList[Bid](s, "best", BidCodec{})
	return nil
}

// Process implements operator.Processor.
func (t *bestBids) Process(_ operator.KeyedContext[int64], b Bid, emit func(rankedBid)) error {
	best := t.best.Get()
	at := len(best)
	for at > 0 && b.beats(best[at-1]) {
		at--
	}
	if at == q19Best {
		return nil
	}
	best = slices.Insert(slices.Clone(best), at, b)
	best = best[:min(len(best), q19Best)]
	t.best.Set(best)
	for i := at; i < len(best); i++ {
		emit(rankedBid{best[i], int64(i + 1)})
	}
	return nil
}

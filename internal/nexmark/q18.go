package nexmark

import "github.com/understudy-stream/understudy/operator"

// bidderAuction is the key of q18.
type bidderAuction struct{ Bidder, Auction int64 }

type bidderAuctionCodec struct{}

func (bidderAuctionCodec) Append(dst []byte, k bidderAuction) ([]byte, error) {
	return packing(dst).number(k.Bidder).number(k.Auction), nil
}

func (bidderAuctionCodec) Decode(src []byte) (k bidderAuction, err error) {
	u := unpacking{src: src}
	k.Bidder, k.Auction = u.number(), u.number()
	return k, u.err()
}

func bidderAndAuction(b Bid) bidderAuction { return bidderAuction{b.Bidder, b.Auction} }

func q18(events operator.Stream[Event], o *Options) {
	key := operator.WithCodec[bidderAuction](bidderAuctionCodec{})
	rows := operator.Process(operator.KeyBy(bids(events), bidderAndAuction, key), "last",
		func() operator.Processor[bidderAuction, Bid, Bid] { return &lastBid{} }, operator.WithCodec[Bid](BidCodec{}))
	showChanges(rows, bidderAndAuction, o)
}

// lastBid shows a bid when it is the last so far.
type lastBid struct {
	noTimer[bidderAuction, Bid]
	bid *operator.Value[Bid]
}

// Open implements operator.Processor.
func (l *lastBid) Open(s *operator.States) error {
	l.bid = operator.NewValue[Bid](s, "bid", BidCodec{})
	return nil
}

// Process implements operator.Processor.
func (l *lastBid) Process(_ operator.KeyedContext[bidderAuction], b Bid, emit func(Bid)) error {
	before, known := l.bid.Get()
	if known && (b.Time < before.Time || b.Time == before.Time && !b.beats(before)) {
		return nil
	}
	l.bid.Set(b)
	emit(b)
	return nil
}

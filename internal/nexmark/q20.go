package nexmark

import "github.com/understudy-stream/understudy/operator"

// q20Category is the category whose auctions q20 is about.
const q20Category = 10

// bidOnItem is a row of q20.
type bidOnItem struct {
	Bid         Bid
	ItemName    string
	Description string
	InitialBid  int64
	Reserve     int64
	Time        int64
	Expires     int64
	Seller      int64
	Category    int64
	Extra       string
}

func (b bidOnItem) appendJSON(dst []byte) []byte {
	o := b.Bid.fields(append(dst, '{')).text("itemName", b.ItemName).text("description", b.Description)
	o = o.number("initialBid", b.InitialBid).number("reserve", b.Reserve).number("a_dateTime", b.Time)
	o = o.number("expires", b.Expires).number("seller", b.Seller).number("category", b.Category)
	return o.text("a_extra", b.Extra).end()
}

// q20 joins bids and auctions of all times, whichever comes first.
func q20(events operator.Stream[Event], o *Options) {
	rows := operator.Process(market(events), "join", func() operator.Processor[int64, Event, bidOnItem] { return &itemBids{} })
	show(rows, o)
}

// itemBids keeps the auction, of which it is enough to know that it exists if its category is another, and bids only until
// the auction is known.
type itemBids struct {
	noTimer[int64, bidOnItem]
	auction *operator.Value[Auction]
	early   *operator.List[Bid]
}

// Open implements operator.Processor.
func (j *itemBids) Open(s *operator.States) error {
	j.auction = operator.NewValue[Auction](s, "auction", AuctionCodec{})
	j.early = operator.NewList[Bid](s, "early bids", BidCodec{})
	return nil
}

// Process implements operator.Processor.
func (j *itemBids) Process(_ operator.KeyedContext[int64], e Event, emit func(bidOnItem)) error {
	if e.Kind == BidKind {
		switch a, known := j.auction.Get(); {
		case !known:
			j.early.Append(e.Bid)
		case a.Category == q20Category:
			emit(onItem(&e.Bid, &a))
		}
		return nil
	}
	if e.Auction.Category != q20Category {
		j.auction.Set(Auction{ID: e.Auction.ID, Category: e.Auction.Category})
		j.early.Clear()
		return nil
	}
	j.auction.Set(*e.Auction)
	for _, b := range j.early.Get() {
		emit(onItem(&b, e.Auction))
	}
	j.early.Clear()
	return nil
}

func onItem(b *Bid, a *Auction) bidOnItem {
	return bidOnItem{
		Bid: *b, ItemName: a.Name, Description: a.Description, InitialBid: a.InitialBid, Reserve: a.Reserve, Time: a.Time,
		Expires: a.Expires, Seller: a.Seller, Category: a.Category, Extra: a.Extra,
	}
}

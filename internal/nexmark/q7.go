package nexmark

import (
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// q7Window is how long the windows of q7 are, in milliseconds.
const q7Window = 10000

// q7Lanes is how many parts the bids are dealt out to, so that every task finds the highest of some.
const q7Lanes = 16

// highBid is one of the highest of a lane in the window that ends at End, or, if After, one of the very moment End. Such a
// bid belongs to the next window; but the query's SQL joins the highest price of a window with the bids of up to its end,
// the end included, and so shows it too if it is as high.
type highBid struct {
	End   int64
	After bool
	Bid   Bid
}

type highBidCodec struct{}

func (highBidCodec) Append(dst []byte, h highBid) ([]byte, error) {
	after := int64(0)
	if h.After {
		after = 1
	}
	return packBid(packing(dst).number(h.End).number(after), &h.Bid), nil
}

func (highBidCodec) Decode(src []byte) (h highBid, err error) {
	u := unpacking{src: src}
	h.End, h.After = u.number(), u.number() != 0
	u.bid(&h.Bid)
	return h, u.err()
}

// laneBids are the highest bids of a lane in a window, and those of the window's first moment.
type laneBids struct {
	Highest, First []Bid
}

func (l laneBids) add(b Bid) (laneBids, error) {
	if b.Time%q7Window == 0 {
		l.First = append(l.First[:len(l.First):len(l.First)], b)
	}
	l.Highest = higher(l.Highest, b)
	return l, nil
}

// merge joins those of earlier bids with those of later ones.
func (l laneBids) merge(other laneBids) (laneBids, error) {
	l.First = append(l.First[:len(l.First):len(l.First)], other.First...)
	for _, b := range other.Highest {
		l.Highest = higher(l.Highest, b)
	}
	return l, nil
}

// higher is what remains of the highest bids when one more is looked at. It changes nothing in place.
func higher(highest []Bid, b Bid) []Bid {
	switch {
	case len(highest) == 0 || b.Price > highest[0].Price:
		return []Bid{b}
	case b.Price == highest[0].Price:
		return append(highest[:len(highest):len(highest)], b)
	}
	return highest
}

func (l laneBids) emit(_ operator.Context, _ int64, w operator.WindowInfo, acc laneBids, emit func(highBid)) error {
	for _, b := range acc.Highest {
		emit(highBid{End: w.End.UnixMilli(), Bid: b})
	}
	for _, b := range acc.First {
		emit(highBid{End: w.Start.UnixMilli(), After: true, Bid: b})
	}
	return nil
}

func q7(events operator.Stream[Event], o *Options) {
	byLane := operator.KeyBy(bids(events), func(b Bid) int64 { return b.Price % q7Lanes })
	high, _ := operator.Window(byLane, "highest of a lane", operator.Tumbling(q7Window*time.Millisecond),
		operator.Aggregator[int64, Bid, laneBids, highBid]{Add: laneBids.add, Merge: laneBids.merge, Emit: laneBids{}.emit},
		operator.WithCodec[highBid](highBidCodec{}), operator.Combined())
	byWindow := operator.KeyBy(high, func(h highBid) int64 { return h.End })
	show(operator.Process(byWindow, "highest", func() operator.Processor[int64, highBid, Bid] { return &highestBids{} }), o)
}

// highestBids shows the highest bids of a window when it is over, and ten seconds later those of its end.
type highestBids struct {
	highest, after *operator.List[Bid]
}

const laterTag = "later"

// Open implements operator.Processor.
func (h *highestBids) Open(s *operator.States) error {
	h.highest = operator.NewList[Bid](s, "highest", BidCodec{})
	h.after = operator.NewList[Bid](s, "of the end", BidCodec{})
	return nil
}

// Process implements operator.Processor.
func (h *highestBids) Process(ctx operator.KeyedContext[int64], b highBid, _ func(Bid)) error {
	ctx.RegisterEventTimer(time.UnixMilli(b.End+q7Window-1), laterTag)
	if b.After {
		h.after.Append(b.Bid) // the window itself is over and shown
		return nil
	}
	ctx.RegisterEventTimer(time.UnixMilli(b.End-1), "")
	h.highest.Set(higher(h.highest.Get(), b.Bid))
	return nil
}

// Timer implements operator.Processor.
func (h *highestBids) Timer(_ operator.KeyedContext[int64], t operator.Timer, emit func(Bid)) error {
	highest := h.highest.Get()
	if t.Tag != laterTag {
		for _, b := range highest {
			emit(b)
		}
		return nil
	}
	for _, b := range h.after.Get() {
		if len(highest) > 0 && b.Price == highest[0].Price {
			emit(b)
		}
	}
	h.highest.Clear()
	h.after.Clear()
	return nil
}

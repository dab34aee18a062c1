package nexmark

import (
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// bidderCount is a row of q11 and q12.
type bidderCount struct {
	Bidder int64
	Bids   int64
	Start  int64
	End    int64
}

func (c bidderCount) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("bidder", c.Bidder).number("bid_count", c.Bids).number("starttime", c.Start).
		number("endtime", c.End).end()
}

func q11(events operator.Stream[Event], o *Options) {
	countByBidder(events, operator.Session(10*time.Second), o)
}

func q12(events operator.Stream[Event], o *Options) {
	countByBidder(events, operator.Tumbling(o.Window).ProcessingTime(), o, operator.Combined())
}

func countByBidder(events operator.Stream[Event], windows operator.Windows, o *Options, more ...operator.Option) {
	bidders := operator.FlatMap(events, "bidders", func(_ operator.Context, e Event, emit func(int64)) error {
		if e.Kind == BidKind {
			emit(e.Bid.Bidder)
		}
		return nil
	})
	byBidder := operator.KeyBy(bidders, func(bidder int64) int64 { return bidder })
	counts, _ := operator.Window(byBidder, "count", windows, operator.Aggregator[int64, int64, int64, bidderCount]{
		Add:   func(n, _ int64) (int64, error) { return n + 1, nil },
		Merge: func(a, b int64) (int64, error) { return a + b, nil },
		Emit: func(_ operator.Context, bidder int64, w operator.WindowInfo, n int64, emit func(bidderCount)) error {
			emit(bidderCount{bidder, n, w.Start.UnixMilli(), w.End.UnixMilli()})
			return nil
		},
	}, more...)
	show(counts, o)
}

package nexmark

import (
	"strconv"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// The ranks of a bid, by its price in cents.
const (
	rank2From = 10000
	rank3From = 1000000
)

// rank is 0, 1 or 2.
func rank(price int64) int {
	switch {
	case price < rank2From:
		return 0
	case price < rank3From:
		return 1
	}
	return 2
}

const day = 24 * 60 * 60 * 1000 // ms

// dayOf is the day of a time in UTC, such as 2015-07-15.
func dayOf(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.DateOnly) }

// count is a number, and how much of it belongs to each rank.
type count struct {
	All   int64
	Ranks [3]int64
}

func (c *count) add(rank int) {
	c.All++
	c.Ranks[rank]++
}

func (o object) counts(what string, c *count) object {
	return o.number("total_"+what, c.All).number("rank1_"+what, c.Ranks[0]).number("rank2_"+what, c.Ranks[1]).
		number("rank3_"+what, c.Ranks[2])
}

// group is what q15 and q16 put together: bids of a day, and, in q16, of a channel.
type group struct {
	Channel string
	Day     int64 // its first millisecond
}

type groupCodec struct{}

func (groupCodec) Append(dst []byte, g group) ([]byte, error) {
	return append(packing(dst).number(g.Day), g.Channel...), nil
}

func (groupCodec) Decode(src []byte) (g group, err error) {
	u := unpacking{src: src}
	g.Day, g.Channel = u.number(), u.rest()
	return g, u.err()
}

// groupStatistics is a row of q15 and q16.
type groupStatistics struct {
	Group    group
	Last     int64 // time of the latest bid
	Bids     count
	Bidders  count // distinct
	Auctions count // distinct
}

func (g groupStatistics) appendJSON(dst []byte) []byte {
	o := object(append(dst, '{'))
	if g.Group.Channel != "" {
		o = o.text("channel", g.Group.Channel)
	}
	o = o.text("day", dayOf(g.Group.Day))
	if g.Group.Channel != "" {
		o = o.text("minute", time.UnixMilli(g.Last).UTC().Format("15:04"))
	}
	return o.counts("bids", &g.Bids).counts("bidders", &g.Bidders).counts("auctions", &g.Auctions).end()
}

// Channel is the channel that a bid came by. Beam's bids have none; Flink's draw one of four popular channels for half of the
// bids, and one of 10,000 others for the rest. This does the same without a draw, so that the stream stays Beam's.
func Channel(b *Bid) string {
	if b.Price%2 == 0 {
		return popular[b.Bidder%int64(len(popular))]
	}
	return "channel-" + strconv.FormatInt((b.Auction*31+b.Bidder)%10000, 10)
}

var popular = [...]string{"Google", "Facebook", "Baidu", "Apple"}

// groupBid is what q15 and q16 want to know of a bid.
type groupBid struct {
	Group                        group
	Auction, Bidder, Price, Time int64
}

type groupBidCodec struct{}

func (groupBidCodec) Append(dst []byte, b groupBid) ([]byte, error) {
	p := packing(dst).number(b.Auction).number(b.Bidder).number(b.Price).number(b.Time)
	return append(p, b.Group.Channel...), nil
}

func (groupBidCodec) Decode(src []byte) (b groupBid, err error) {
	u := unpacking{src: src}
	b.Auction, b.Bidder, b.Price, b.Time, b.Group.Channel = u.number(), u.number(), u.number(), u.number(), u.rest()
	b.Group.Day = b.Time - b.Time%day
	return b, u.err()
}

func q15(events operator.Stream[Event], o *Options) {
	groupBy(events, func(*Bid) string { return "" }, o)
}

func q16(events operator.Stream[Event], o *Options) { groupBy(events, Channel, o) }

func groupBy(events operator.Stream[Event], channel func(*Bid) string, o *Options) {
	slim := operator.FlatMap(events, "bids", func(_ operator.Context, e Event, emit func(groupBid)) error {
		if b := &e.Bid; e.Kind == BidKind {
			emit(groupBid{group{channel(b), b.Time - b.Time%day}, b.Auction, b.Bidder, b.Price, b.Time})
		}
		return nil
	}, operator.WithCodec[groupBid](groupBidCodec{}))
	grouped := operator.KeyBy(slim, func(b groupBid) group { return b.Group }, operator.WithCodec[group](groupCodec{}))
	rows := operator.Process(grouped, "statistics", func() operator.Processor[group, groupBid, groupStatistics] { return &statistics{} })
	showChanges(rows, func(g groupStatistics) group { return g.Group }, o)
}

// statistics counts bids of a group, and, per rank, distinct bidders and auctions.
type statistics struct {
	noTimer[group, groupStatistics]
	row *operator.Value[groupStatistics]
	// Which ranks each bidder and auction was seen with, as bits.
	bidders, auctions *operator.MapState[int64, uint8]
}

// Open implements operator.Processor.
func (c *statistics) Open(s *operator.States) error {
	c.row = operator.NewValue[groupStatistics](s, "row")
	c.bidders, c.auctions = operator.NewMap[int64, uint8](s, "bidders"), operator.NewMap[int64, uint8](s, "auctions")
	return nil
}

// Process implements operator.Processor.
func (c *statistics) Process(ctx operator.KeyedContext[group], b groupBid, emit func(groupStatistics)) error {
	row, _ := c.row.Get()
	row.Group, row.Last = b.Group, max(row.Last, b.Time)
	r := rank(b.Price)
	row.Bids.add(r)
	distinct(c.bidders, b.Bidder, r, &row.Bidders)
	distinct(c.auctions, b.Auction, r, &row.Auctions)
	c.row.Set(row)
	emit(row)
	return nil
}

// distinct counts who was not seen before, and who was not seen with a rank.
func distinct(seen *operator.MapState[int64, uint8], who int64, rank int, c *count) {
	before, known := seen.Get(who)
	if before&(1<<rank) != 0 {
		return
	}
	seen.Set(who, before|1<<rank)
	c.Ranks[rank]++
	if !known {
		c.All++
	}
}

package nexmark

import (
	"context"
	"strconv"
	"sync/atomic"

	"github.com/understudy-stream/understudy/operator"
)

// q12xRandom is above every number that q12x draws.
const q12xRandom = 1000000

// q12xCalls is how many calls of a task may be under way at once.
const q12xCalls = 200

// numberedBid is a bid on its way through q12x. Answer is what the service said of it, on the way that asks.
type numberedBid struct {
	ID     int64 // the event's number
	Bidder int64
	Answer string
}

type numberedBidCodec struct{}

func (numberedBidCodec) Append(dst []byte, b numberedBid) ([]byte, error) {
	return append(packing(dst).number(b.ID).number(b.Bidder), b.Answer...), nil
}

func (numberedBidCodec) Decode(src []byte) (b numberedBid, err error) {
	u := unpacking{src: src}
	b.ID, b.Bidder, b.Answer = u.number(), u.number(), u.rest()
	return b, u.err()
}

// draw is a row of q12x: one per bid. First says on which way it arrived first: "asked" or "straight".
type draw struct {
	ID      int64
	Bidder  int64
	First   string
	Answer  string
	Random  int64
	Arrived int64 // when it had arrived on both ways, in ms
}

// total is a row of q12x: one per bidder and window that is not empty.
type total struct {
	Bidder, Start, End int64
	Count, Sum         int64
	IDs                []int64
}

// chance is a row of q12x of either kind. `verify draws` knows the names.
type chance struct {
	Draw  *draw
	Total *total
}

func (c chance) appendJSON(dst []byte) []byte {
	o := object(append(dst, '{'))
	if d := c.Draw; d != nil {
		return o.text("kind", "draw").number("id", d.ID).number("key", d.Bidder).text("first", d.First).text("answer", d.Answer).
			number("random", d.Random).number("arrived", d.Arrived).end()
	}
	t := c.Total
	o = o.text("kind", "window").number("key", t.Bidder).number("start", t.Start).number("end", t.End)
	o = append(o.number("count", t.Count).number("sum", t.Sum).field("ids"), '[')
	for i, id := range t.IDs {
		if i > 0 {
			o = append(o, ',')
		}
		o = strconv.AppendInt(o, id, 10)
	}
	return append(o, ']').end()
}

// q12x is q12 made as unpredictable as a query can be: every bid takes two ways, one of which asks an external service, and
// which is the first to arrive counts; then a number is drawn for it. Each draw is shown with all that chance decided, so
// that whoever sees the output can tell whether there was one draw per bid, and whether the windows follow from the draws.
func q12x(events operator.Stream[Event], o *Options) {
	codec := operator.WithCodec[numberedBid](numberedBidCodec{})
	numbered := operator.FlatMap(events, "number", func(_ operator.Context, e Event, emit func(numberedBid)) error {
		if e.Kind == BidKind {
			emit(numberedBid{ID: int64(e.Number), Bidder: e.Bid.Bidder})
		}
		return nil
	}, codec)
	asked := operator.AsyncMap(operator.Rebalanced(numbered), "ask", func(ctx context.Context, b numberedBid) (numberedBid, error) {
		answer, err := o.Ask(ctx, strconv.FormatInt(b.ID, 10))
		b.Answer = answer
		return b, err
	}, operator.AsyncOptions{Capacity: q12xCalls}, codec)
	id := func(b numberedBid) int64 { return b.ID }
	draws := operator.CoProcess(operator.KeyBy(asked, id), operator.KeyBy(numbered, id), "race",
		func() operator.CoProcessor[int64, numberedBid, numberedBid, draw] { return &race{} })
	byBidder := operator.KeyBy(draws, func(d draw) int64 { return d.Bidder })
	totals, _ := operator.Window(byBidder, "total", operator.Tumbling(o.Window).ProcessingTime(),
		operator.Aggregator[int64, draw, total, total]{Add: total.add, Emit: total{}.emit})
	shownDraws := operator.Map(draws, "show draw", func(_ operator.Context, d draw) (chance, error) { return chance{Draw: &d}, nil })
	shownTotals := operator.Map(totals, "show total", func(_ operator.Context, t total) (chance, error) { return chance{Total: &t}, nil })
	show(operator.Union("draws and totals", shownDraws, shownTotals), o)
}

// race waits for a bid to arrive on both ways.
type race struct {
	first *operator.Value[numberedBid]
	noTimer[int64, draw]
}

// Open implements operator.CoProcessor.
func (r *race) Open(s *operator.States) error {
	r.first = operator.NewValue[numberedBid](s, "first", numberedBidCodec{})
	return nil
}

// Left implements operator.CoProcessor for bids that the service was asked about.
func (r *race) Left(ctx operator.KeyedContext[int64], b numberedBid, emit func(draw)) error {
	if _, second := r.first.Get(); second {
		return r.over(ctx, b, "straight", emit)
	}
	r.first.Set(b)
	return nil
}

// Right implements operator.CoProcessor for bids that came straight.
func (r *race) Right(ctx operator.KeyedContext[int64], b numberedBid, emit func(draw)) error {
	if asked, second := r.first.Get(); second {
		return r.over(ctx, asked, "asked", emit)
	}
	r.first.Set(b)
	return nil
}

func (r *race) over(ctx operator.KeyedContext[int64], asked numberedBid, first string, emit func(draw)) error {
	r.first.Clear()
	emit(draw{
		ID: asked.ID, Bidder: asked.Bidder, First: first, Answer: asked.Answer,
		Random: ctx.Rand().Int64N(q12xRandom), Arrived: ctx.Now().UnixMilli(),
	})
	return nil
}

// add extends each accumulator once, so that sharing the memory of IDs changes none.
func (t total) add(d draw) (total, error) {
	t.Count++
	t.Sum += d.Random
	t.IDs = append(t.IDs, d.ID)
	return t, nil
}

func (total) emit(_ operator.Context, bidder int64, w operator.WindowInfo, t total, emit func(total)) error {
	t.Bidder, t.Start, t.End = bidder, w.Start.UnixMilli(), w.End.UnixMilli()
	emit(t)
	return nil
}

// countAsked makes a service that says how often it was asked.
func countAsked() func(context.Context, string) (string, error) {
	var asked atomic.Int64
	return func(ctx context.Context, id string) (string, error) {
		return id + " was question " + strconv.FormatInt(asked.Add(1), 10), ctx.Err()
	}
}

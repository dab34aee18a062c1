package nexmark

import (
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// lot is an auction as a join sees it.
type lot interface {
	// life is from when to when bids count, both included.
	life() (from, to int64)
}

// offer is a bid as a join sees it.
type offer[B any] interface {
	when() int64
	beats(B) bool
}

// bidding finds the best bid within the life of an auction, which is the key at hand. Bids and auction may come in any order.
//
// It forgets what can't matter any more. A bid counts for an auction that began before it; so when the watermark has passed a
// bid whose auction is not known, there will be none. An auction is kept for a while after its life, since many bids come
// late: they would wait for an auction in vain.
type bidding[A lot, B offer[B]] struct {
	lot   *operator.Value[A]
	best  *operator.Value[B]
	early *operator.List[B] // no auction yet
}

const (
	earlyTag   = "early"
	overTag    = "over"
	earlyCheck = 1000  // ms of event time between two looks at early bids
	afterlife  = 10000 // ms of event time
)

func (b *bidding[A, B]) open(s *operator.States, lots operator.Codec[A], offers operator.Codec[B]) {
	b.lot = operator.NewValue(s, "auction", lots)
	b.best = operator.NewValue(s, "best bid", offers)
	b.early = operator.NewList(s, "early bids", offers)
}

// auction takes the auction in and returns the best of the bids that came before, if one counts.
func (b *bidding[A, B]) auction(ctx operator.KeyedContext[int64], a A) (best B, ok bool) {
	from, to := a.life()
	b.lot.Set(a)
	ctx.RegisterEventTimer(time.UnixMilli(to+afterlife), overTag)
	for _, bid := range b.early.Get() {
		if at := bid.when(); at >= from && at <= to && (!ok || bid.beats(best)) {
			best, ok = bid, true
		}
	}
	b.early.Clear()
	if ok {
		b.best.Set(best)
	}
	return best, ok
}

// bid takes a bid in and tells whether it is now the best, and of what, and which was the best before, if there was one.
func (b *bidding[A, B]) bid(ctx operator.KeyedContext[int64], bid B) (a A, before B, had, better bool) {
	at := bid.when()
	a, known := b.lot.Get()
	if !known {
		b.early.Append(bid)
		ctx.RegisterEventTimer(time.UnixMilli(at-at%earlyCheck+earlyCheck), earlyTag)
		return a, before, false, false
	}
	if from, to := a.life(); at < from || at > to {
		return a, before, false, false
	}
	before, had = b.best.Get()
	if had && !bid.beats(before) {
		return a, before, had, false
	}
	b.best.Set(bid)
	return a, before, had, true
}

// timer forgets.
func (b *bidding[A, B]) timer(t operator.Timer) {
	if t.Tag == overTag {
		b.lot.Clear()
		b.best.Clear()
		return
	}
	var still []B
	for _, bid := range b.early.Get() {
		if bid.when() > t.Time.UnixMilli() {
			still = append(still, bid)
		}
	}
	b.early.Set(still)
}

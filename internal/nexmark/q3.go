package nexmark

import (
	"github.com/understudy-stream/understudy/operator"
)

// localItem is a row of q3.
type localItem struct {
	Name  string
	City  string
	State string
	ID    int64 // of the auction
}

func (l localItem) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).text("name", l.Name).text("city", l.City).text("state", l.State).number("id", l.ID).end()
}

// sellerFact is what q3 wants to know of a seller: who it is, or, if Auction is not zero, what is on offer.
type sellerFact struct {
	Seller            int64
	Auction           int64
	Name, City, State string
}

// sellerFactCodec leaves the texts away where there are none.
type sellerFactCodec struct{}

func (sellerFactCodec) Append(dst []byte, f sellerFact) ([]byte, error) {
	p := packing(dst).number(f.Seller).number(f.Auction)
	if f.Auction == 0 {
		p = p.text(f.Name).text(f.City).text(f.State)
	}
	return p, nil
}

func (sellerFactCodec) Decode(src []byte) (f sellerFact, err error) {
	u := unpacking{src: src}
	if f.Seller, f.Auction = u.number(), u.number(); f.Auction == 0 {
		f.Name, f.City, f.State = u.text(), u.text(), u.text()
	}
	return f, u.err()
}

// q3 joins persons and auctions of all times, whichever comes first.
func q3(events operator.Stream[Event], o *Options) {
	facts := operator.FlatMap(events, "sellers", func(_ operator.Context, e Event, emit func(sellerFact)) error {
		switch {
		case e.Kind == AuctionKind && e.Auction.Category == 10:
			emit(sellerFact{Seller: e.Auction.Seller, Auction: e.Auction.ID})
		case e.Kind == PersonKind && (e.Person.State == "OR" || e.Person.State == "ID" || e.Person.State == "CA"):
			emit(sellerFact{Seller: e.Person.ID, Name: e.Person.Name, City: e.Person.City, State: e.Person.State})
		}
		return nil
	}, operator.WithCodec[sellerFact](sellerFactCodec{}))
	bySeller := operator.KeyBy(facts, func(f sellerFact) int64 { return f.Seller })
	show(operator.Process(bySeller, "join", func() operator.Processor[int64, sellerFact, localItem] { return &localItems{} }), o)
}

// localItems keeps the person, and auctions only until the person is known.
type localItems struct {
	noTimer[int64, localItem]
	person *operator.Value[sellerFact]
	early  *operator.List[int64]
}

// Open implements operator.Processor.
func (l *localItems) Open(s *operator.States) error {
	l.person = operator.NewValue[sellerFact](s, "person", sellerFactCodec{})
	l.early = operator.NewList[int64](s, "early auctions")
	return nil
}

// Process implements operator.Processor.
func (l *localItems) Process(_ operator.KeyedContext[int64], f sellerFact, emit func(localItem)) error {
	if f.Auction == 0 {
		l.person.Set(f)
		for _, auction := range l.early.Get() {
			emit(localItem{f.Name, f.City, f.State, auction})
		}
		l.early.Clear()
		return nil
	}
	if p, known := l.person.Get(); known {
		emit(localItem{p.Name, p.City, p.State, f.Auction})
		return nil
	}
	l.early.Append(f.Auction)
	return nil
}

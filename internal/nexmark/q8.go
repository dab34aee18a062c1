package nexmark

import (
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// q8Window is how long the windows of q8 are.
const q8Window = 10 * time.Second

// newSeller is a row of q8.
type newSeller struct {
	ID    int64
	Name  string
	Start int64 // of the window
}

func (n newSeller) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("id", n.ID).text("name", n.Name).number("starttime", n.Start).end()
}

// deed is what somebody did: join, under a name, or, without one, sell.
type deed struct {
	Person int64
	Name   string
}

type deedCodec struct{}

func (deedCodec) Append(dst []byte, d deed) ([]byte, error) {
	return append(packing(dst).number(d.Person), d.Name...), nil
}

func (deedCodec) Decode(src []byte) (d deed, err error) {
	u := unpacking{src: src}
	d.Person, d.Name = u.number(), u.rest()
	return d, u.err()
}

// deeds are what somebody did in a window.
type deeds struct {
	Name string // of who joined
	Sold bool
}

func (ds deeds) add(d deed) (deeds, error) { return ds.merge(deeds{d.Name, d.Name == ""}) }

func (ds deeds) merge(other deeds) (deeds, error) {
	if ds.Name == "" {
		ds.Name = other.Name
	}
	ds.Sold = ds.Sold || other.Sold
	return ds, nil
}

type deedsCodec struct{}

func (deedsCodec) Append(dst []byte, ds deeds) ([]byte, error) {
	sold := int64(0)
	if ds.Sold {
		sold = 1
	}
	return append(packing(dst).number(sold), ds.Name...), nil
}

func (deedsCodec) Decode(src []byte) (ds deeds, err error) {
	u := unpacking{src: src}
	ds.Sold, ds.Name = u.number() != 0, u.rest()
	return ds, u.err()
}

func q8(events operator.Stream[Event], o *Options) {
	done := operator.FlatMap(events, "deeds", func(_ operator.Context, e Event, emit func(deed)) error {
		switch e.Kind {
		case PersonKind:
			emit(deed{e.Person.ID, e.Person.Name})
		case AuctionKind:
			emit(deed{Person: e.Auction.Seller})
		}
		return nil
	}, operator.WithCodec[deed](deedCodec{}))
	byPerson := operator.KeyBy(done, func(d deed) int64 { return d.Person })
	sellers, _ := operator.Window(byPerson, "join", operator.Tumbling(q8Window), operator.Aggregator[int64, deed, deeds, newSeller]{
		Add:   deeds.add,
		Merge: deeds.merge,
		Emit: func(_ operator.Context, person int64, w operator.WindowInfo, ds deeds, emit func(newSeller)) error {
			if ds.Name != "" && ds.Sold {
				emit(newSeller{person, ds.Name, w.Start.UnixMilli()})
			}
			return nil
		},
	}, operator.WithCodec[deeds](deedsCodec{}), operator.Combined())
	show(sellers, o)
}

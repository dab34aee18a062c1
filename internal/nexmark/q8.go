package nexmark

import (
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// q8Window is how long the windows of q8 are, in milliseconds.
const q8Window = 10000

// newSeller is a row of q8.
type newSeller struct {
	ID    int64
	Name  string
	Start int64 // of the window
}

func (n newSeller) appendJSON(dst []byte) []byte {
	return object(append(dst, '{')).number("id", n.ID).text("name", n.Name).number("starttime", n.Start).end()
}

// personInWindow is the key of q8's join.
type personInWindow struct{ Person, Start int64 }

type personInWindowCodec struct{}

func (personInWindowCodec) Append(dst []byte, k personInWindow) ([]byte, error) {
	return packing(dst).number(k.Person).number(k.Start), nil
}

func (personInWindowCodec) Decode(src []byte) (k personInWindow, err error) {
	u := unpacking{src: src}
	k.Person, k.Start = u.number(), u.number()
	return k, u.err()
}

// deed is what somebody did: join, under a name, or, without one, sell.
type deed struct {
	Key  personInWindow
	Name string
}

type deedCodec struct{}

func (deedCodec) Append(dst []byte, d deed) ([]byte, error) {
	return append(packing(dst).number(d.Key.Person).number(d.Key.Start), d.Name...), nil
}

func (deedCodec) Decode(src []byte) (d deed, err error) {
	u := unpacking{src: src}
	d.Key.Person, d.Key.Start, d.Name = u.number(), u.number(), u.rest()
	return d, u.err()
}

func q8(events operator.Stream[Event], o *Options) {
	deeds := operator.FlatMap(events, "deeds", func(_ operator.Context, e Event, emit func(deed)) error {
		start := e.Time() - e.Time()%q8Window
		switch e.Kind {
		case PersonKind:
			emit(deed{personInWindow{e.Person.ID, start}, e.Person.Name})
		case AuctionKind:
			emit(deed{personInWindow{e.Auction.Seller, start}, ""})
		}
		return nil
	}, operator.WithCodec[deed](deedCodec{}))
	byPerson := operator.KeyBy(deeds, func(d deed) personInWindow { return d.Key },
		operator.WithCodec[personInWindow](personInWindowCodec{}))
	show(operator.Process(byPerson, "join", func() operator.Processor[personInWindow, deed, newSeller] { return &newSellers{} }), o)
}

// newSellers waits for both deeds of a person until the window is over.
type newSellers struct {
	name *operator.Value[string]
	sold *operator.Value[bool]
}

// Open implements operator.Processor.
func (n *newSellers) Open(s *operator.States) error {
	n.name, n.sold = operator.NewValue[string](s, "name"), operator.NewValue[bool](s, "sold")
	return nil
}

// Process implements operator.Processor.
func (n *newSellers) Process(ctx operator.KeyedContext[personInWindow], d deed, emit func(newSeller)) error {
	name, joined := n.name.Get()
	_, sold := n.sold.Get()
	if !joined && !sold {
		ctx.RegisterEventTimer(time.UnixMilli(d.Key.Start+q8Window-1), "")
	}
	switch {
	case d.Name != "" && !joined:
		n.name.Set(d.Name)
		if sold {
			emit(newSeller{d.Key.Person, d.Name, d.Key.Start})
		}
	case d.Name == "" && !sold:
		n.sold.Set(true)
		if joined {
			emit(newSeller{d.Key.Person, name, d.Key.Start})
		}
	}
	return nil
}

// Timer implements operator.Processor.
func (n *newSellers) Timer(operator.KeyedContext[personInWindow], operator.Timer, func(newSeller)) error {
	n.name.Clear()
	n.sold.Clear()
	return nil
}

package nexmark

import (
	"encoding/binary"
	"errors"

	"github.com/understudy-stream/understudy/operator"
)

// ErrEncoding is what the codecs of this package return for bytes that they did not write.
var ErrEncoding = errors.New("nexmark: corrupt encoding")

// The codecs of events. Numbers are varints, with a sign where there may be one; texts have their length before them, the
// last excepted.
var (
	_ operator.Codec[Event]   = EventCodec{}
	_ operator.Codec[Person]  = PersonCodec{}
	_ operator.Codec[Auction] = AuctionCodec{}
	_ operator.Codec[Bid]     = BidCodec{}
)

// packing appends fields to bytes.
type packing []byte

func (p packing) number(n int64) packing { return binary.AppendVarint(p, n) }

func (p packing) text(s string) packing {
	return append(binary.AppendUvarint(p, uint64(len(s))), s...)
}

// unpacking takes fields off bytes. After the first that is not there it gives zeros, and says so at the end.
type unpacking struct {
	src []byte
	bad bool
}

func (u *unpacking) number() int64 {
	ux := u.unsigned()
	return int64(ux>>1) ^ -int64(ux&1)
}

func (u *unpacking) unsigned() uint64 {
	if len(u.src) > 0 && u.src[0] < 0x80 {
		n := uint64(u.src[0])
		u.src = u.src[1:]
		return n
	}
	v, n := binary.Uvarint(u.src)
	if n <= 0 {
		u.src, u.bad = nil, true
		return 0
	}
	u.src = u.src[n:]
	return v
}

func (u *unpacking) bytes() []byte {
	n := u.unsigned()
	if n > uint64(len(u.src)) {
		u.src, u.bad = nil, true
		return nil
	}
	b := u.src[:n]
	u.src = u.src[n:]
	return b
}

func (u *unpacking) text() string { return string(u.bytes()) }

func (u *unpacking) rest() string {
	s := string(u.src)
	u.src = nil
	return s
}

// err is nil if every field was there, and nothing else.
func (u *unpacking) err() error {
	if u.bad || len(u.src) != 0 {
		return ErrEncoding
	}
	return nil
}

// BidCodec codes a Bid.
type BidCodec struct{}

// Append implements operator.Codec.
func (BidCodec) Append(dst []byte, b Bid) ([]byte, error) { return packBid(dst, &b), nil }

// Decode implements operator.Codec.
func (BidCodec) Decode(src []byte) (b Bid, err error) {
	u := unpacking{src: src}
	u.bid(&b)
	return b, u.err()
}

func packBid(dst []byte, b *Bid) packing {
	return append(packing(dst).number(b.Auction).number(b.Bidder).number(b.Price).number(b.Time), b.Extra...)
}

// bid takes all the rest.
func (u *unpacking) bid(b *Bid) {
	b.Auction, b.Bidder, b.Price, b.Time = u.number(), u.number(), u.number(), u.number()
	b.Extra = u.rest()
}

// AuctionCodec codes an Auction.
type AuctionCodec struct{}

// Append implements operator.Codec.
func (AuctionCodec) Append(dst []byte, a Auction) ([]byte, error) { return packAuction(dst, &a), nil }

// Decode implements operator.Codec.
func (AuctionCodec) Decode(src []byte) (a Auction, err error) {
	u := unpacking{src: src}
	u.auction(&a)
	return a, u.err()
}

func packAuction(dst []byte, a *Auction) packing {
	p := packing(dst).number(a.ID).text(a.Name).text(a.Description).number(a.InitialBid).number(a.Reserve)
	return append(p.number(a.Time).number(a.Expires).number(a.Seller).number(a.Category), a.Extra...)
}

// auction takes all the rest.
func (u *unpacking) auction(a *Auction) {
	a.ID, a.Name, a.Description, a.InitialBid, a.Reserve = u.number(), u.text(), u.text(), u.number(), u.number()
	a.Time, a.Expires, a.Seller, a.Category = u.number(), u.number(), u.number(), u.number()
	a.Extra = u.rest()
}

// PersonCodec codes a Person.
type PersonCodec struct{}

// Append implements operator.Codec.
func (PersonCodec) Append(dst []byte, p Person) ([]byte, error) { return packPerson(dst, &p), nil }

// Decode implements operator.Codec.
func (PersonCodec) Decode(src []byte) (p Person, err error) {
	u := unpacking{src: src}
	u.person(&p)
	return p, u.err()
}

func packPerson(dst []byte, p *Person) packing {
	q := packing(dst).number(p.ID).text(p.Name).text(p.Email).text(p.CreditCard).text(p.City).text(p.State)
	return append(q.number(p.Time), p.Extra...)
}

// person takes all the rest.
func (u *unpacking) person(p *Person) {
	p.ID, p.Name, p.Email, p.CreditCard, p.City, p.State = u.number(), u.text(), u.text(), u.text(), u.text(), u.text()
	p.Time = u.number()
	p.Extra = u.rest()
}

// EventCodec codes an Event: its kind, its number, and what it is about.
type EventCodec struct{}

// Append implements operator.Codec.
func (EventCodec) Append(dst []byte, e Event) ([]byte, error) {
	dst = binary.AppendUvarint(append(dst, byte(e.Kind)), e.Number)
	switch e.Kind {
	case PersonKind:
		return packPerson(dst, e.Person), nil
	case AuctionKind:
		return packAuction(dst, e.Auction), nil
	}
	return packBid(dst, &e.Bid), nil
}

// Decode implements operator.Codec.
func (EventCodec) Decode(src []byte) (e Event, err error) {
	if len(src) == 0 {
		return e, ErrEncoding
	}
	e.Kind = Kind(src[0])
	u := unpacking{src: src[1:]}
	e.Number = u.unsigned()
	switch e.Kind {
	case PersonKind:
		e.Person = new(Person)
		u.person(e.Person)
	case AuctionKind:
		e.Auction = new(Auction)
		u.auction(e.Auction)
	case BidKind:
		u.bid(&e.Bid)
	default:
		u.bad = true
	}
	return e, u.err()
}

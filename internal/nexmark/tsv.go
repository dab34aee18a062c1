package nexmark

import "strconv"

// AppendTSV appends an event as a line of tab-separated values, which no text of an event contains. The first column is P, A
// or B; then come
//
//	P  id name email card city state ms extra
//	A  id name description initial-bid reserve ms expires seller category extra
//	B  auction bidder price ms extra
func AppendTSV(dst []byte, e *Event) []byte {
	t := tsv(dst)
	switch e.Kind {
	case PersonKind:
		p := e.Person
		t = append(t, 'P').number(p.ID).text(p.Name).text(p.Email).text(p.CreditCard).text(p.City).text(p.State)
		t = t.number(p.Time).text(p.Extra)
	case AuctionKind:
		a := e.Auction
		t = append(t, 'A').number(a.ID).text(a.Name).text(a.Description).number(a.InitialBid).number(a.Reserve)
		t = t.number(a.Time).number(a.Expires).number(a.Seller).number(a.Category).text(a.Extra)
	default:
		b := &e.Bid
		t = append(t, 'B').number(b.Auction).number(b.Bidder).number(b.Price).number(b.Time).text(b.Extra)
	}
	return append(t, '\n')
}

// tsv is a line under way.
type tsv []byte

func (t tsv) number(n int64) tsv { return strconv.AppendInt(append(t, '\t'), n, 10) }
func (t tsv) text(s string) tsv  { return append(append(t, '\t'), s...) }

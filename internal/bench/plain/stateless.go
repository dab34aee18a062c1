package plain

import "github.com/understudy-stream/understudy/internal/nexmark"

// perBid runs a program that looks at one bid at a time: each source does everything.
func (p *program) perBid(f func(*writer, *nexmark.Bid)) error {
	return p.sources(func(i int) error {
		w := p.writer(i)
		return p.read(i, func(events []nexmark.Event) {
			for j := range events {
				if events[j].Kind == nexmark.BidKind {
					f(w, &events[j].Bid)
				}
			}
		})
	})
}

func q0(p *program) error { return p.perBid((*writer).bid) }

func q1(p *program) error {
	return p.perBid(func(w *writer, b *nexmark.Bid) {
		w.put(row(w.buf[:0]).number("auction", b.Auction).number("bidder", b.Bidder).thousandths("price", b.Price*908).
			number("dateTime", b.Time).text("extra", b.Extra))
	})
}

func q2(p *program) error {
	return p.perBid(func(w *writer, b *nexmark.Bid) {
		if b.Auction%123 == 0 {
			w.put(row(w.buf[:0]).number("auction", b.Auction).number("price", b.Price))
		}
	})
}

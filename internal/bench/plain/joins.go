package plain

import "github.com/understudy-stream/understudy/internal/nexmark"

// localSeller is what q3 sends: a person, or, if auction is not zero, what somebody sells.
type localSeller struct {
	id, auction       int64
	name, city, state string
}

func q3(p *program) error {
	type seller struct {
		person *localSeller
		early  []int64
	}
	send := func(out *port[localSeller], e *nexmark.Event) {
		switch {
		case e.Kind == nexmark.AuctionKind && e.Auction.Category == 10:
			out.send(e.Auction.Seller, e.Auction.Time, localSeller{id: e.Auction.Seller, auction: e.Auction.ID})
		case e.Kind == nexmark.PersonKind && (e.Person.State == "OR" || e.Person.State == "ID" || e.Person.State == "CA"):
			s := e.Person
			out.send(s.ID, s.Time, localSeller{id: s.ID, name: s.Name, city: s.City, state: s.State})
		}
	}
	return keyed(p, send, func(i int) (func([]localSeller), func(int64)) {
		w, sellers := p.writer(i), map[int64]*seller{}
		show := func(s *localSeller, auction int64) {
			w.put(row(w.buf[:0]).text("name", s.name).text("city", s.city).text("state", s.state).number("id", auction))
		}
		return func(records []localSeller) {
			for _, r := range records {
				s := sellers[r.id]
				if s == nil {
					s = &seller{}
					sellers[r.id] = s
				}
				switch {
				case r.auction == 0:
					who := r
					s.person = &who
					for _, auction := range s.early {
						show(s.person, auction)
					}
					s.early = nil
				case s.person != nil:
					show(s.person, r.auction)
				default:
					s.early = append(s.early, r.auction)
				}
			}
		}, func(int64) {}
	})
}

const tumble = 10000 // ms

// deed is what q8 sends: somebody joins, under a name, or sells.
type deed struct {
	person, start int64
	name          string
}

func q8(p *program) error {
	type person struct {
		name         string
		joined, sold bool
	}
	send := func(out *port[deed], e *nexmark.Event) {
		switch e.Kind {
		case nexmark.PersonKind:
			out.send(e.Person.ID, e.Person.Time, deed{e.Person.ID, e.Person.Time - e.Person.Time%tumble, e.Person.Name})
		case nexmark.AuctionKind:
			out.send(e.Auction.Seller, e.Auction.Time, deed{e.Auction.Seller, e.Auction.Time - e.Auction.Time%tumble, ""})
		}
	}
	return keyed(p, send, func(i int) (func([]deed), func(int64)) {
		w, windows := p.writer(i), map[int64]map[int64]*person{}
		take := func(records []deed) {
			for _, d := range records {
				window := windows[d.start]
				if window == nil {
					window = map[int64]*person{}
					windows[d.start] = window
				}
				who := window[d.person]
				if who == nil {
					who = &person{}
					window[d.person] = who
				}
				both := who.joined && who.sold
				if d.name != "" {
					who.name, who.joined = d.name, true
				} else {
					who.sold = true
				}
				if !both && who.joined && who.sold {
					w.put(row(w.buf[:0]).number("id", d.person).text("name", who.name).number("starttime", d.start))
				}
			}
		}
		return take, func(now int64) {
			for start := range windows {
				if start+tumble <= now {
					delete(windows, start)
				}
			}
		}
	})
}

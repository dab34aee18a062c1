package nexmark

// Kind says what an event is about.
type Kind uint8

// The kinds.
const (
	PersonKind Kind = iota
	AuctionKind
	BidKind
)

// Person is somebody who joins.
type Person struct {
	ID         int64
	Name       string
	Email      string
	CreditCard string
	City       string
	State      string
	Time       int64 // ms since the Unix epoch, as all times
	Extra      string
}

// Auction is something that a person sells.
type Auction struct {
	ID          int64
	Name        string
	Description string
	InitialBid  int64 // cents, as all prices
	Reserve     int64
	Time        int64
	Expires     int64 // the last moment at which a bid counts
	Seller      int64
	Category    int64
	Extra       string
}

// Bid is an offer. Its auction may not exist yet.
type Bid struct {
	Auction int64
	Bidder  int64
	Price   int64
	Time    int64
	Extra   string
}

// Event is one event of the stream. Bids, which are most of it, are held by value.
type Event struct {
	Number  uint64 // its place in the stream, from 0
	Kind    Kind
	Bid     Bid      // if Kind is BidKind
	Person  *Person  // if Kind is PersonKind; not to be changed
	Auction *Auction // if Kind is AuctionKind; not to be changed
}

// Time is when the event happened.
func (e *Event) Time() int64 {
	switch e.Kind {
	case PersonKind:
		return e.Person.Time
	case AuctionKind:
		return e.Auction.Time
	}
	return e.Bid.Time
}

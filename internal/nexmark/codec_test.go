package nexmark

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

// same checks that a codec gives back what it was given.
func same[T any](t *testing.T, c operator.Codec[T], values ...T) {
	t.Helper()
	require.NoError(t, operator.CheckDeterministic(c, values...))
	for _, v := range values {
		text, err := c.Append([]byte("before"), v)
		require.NoError(t, err)
		require.Equal(t, "before", string(text[:6]))
		back, err := c.Decode(text[6:])
		require.NoError(t, err)
		require.Equal(t, v, back)
	}
}

func TestCodecs(t *testing.T) {
	for _, e := range append(stream(t, Config{}, 0, 150, 50), stream(t, Config{}, 1<<40, 150, 50)...) {
		same(t, EventCodec{}, e)
		switch e.Kind {
		case PersonKind:
			same(t, PersonCodec{}, *e.Person)
		case AuctionKind:
			same(t, AuctionCodec{}, *e.Auction)
		default:
			same(t, BidCodec{}, e.Bid)
			same(t, highBidCodec{}, highBid{End: 10000, Bid: e.Bid}, highBid{End: 10000, After: true, Bid: e.Bid})
			same(t, rankedBidCodec{}, rankedBid{e.Bid, 3})
			b := groupBid{group{Channel(&e.Bid), e.Bid.Time - e.Bid.Time%day}, 1, 2, 3, e.Bid.Time}
			same(t, groupBidCodec{}, b)
			same(t, groupCodec{}, b.Group)
		}
	}
	same(t, BidCodec{}, Bid{}, Bid{-1, -2, -3, -4, ""}, Bid{1, 2, 3, 4, "text\x00"})
	same(t, AuctionCodec{}, Auction{}, Auction{ID: -1, Name: "n", Extra: "e"})
	same(t, PersonCodec{}, Person{}, Person{ID: -1, Name: "n", Email: "e"})
	same(t, sellerFactCodec{}, sellerFact{Seller: 5, Name: "n", City: "c", State: "s"}, sellerFact{Seller: 5, Auction: 7})
	same(t, priceFactCodec{}, priceFact{Auction: 1, Category: 2, Time: 3, Expires: 4}, priceFact{Auction: 1, Time: 3, Price: 5})
	same(t, raisedCodec{}, raised{Category: 1, Now: 3, New: true}, raised{Category: 1, Now: 3, Before: 2})
	same(t, hotAuctionCodec{}, hotAuction{1, 2, 3000, 13000})
	same(t, personInWindowCodec{}, personInWindow{1, 2})
	same(t, deedCodec{}, deed{personInWindow{1, 2}, "name"}, deed{personInWindow{1, 2}, ""})
	same(t, numberedBidCodec{}, numberedBid{1, 2, "answer"})
	same(t, sideBidCodec{}, sideBid{1, 2, 3, 4, "value"})
	same(t, auctionDayCodec{}, auctionDay{1, day})
	same(t, auctionBidCodec{}, auctionBid{auctionDay{1, day}, 3})
	same(t, bidderAuctionCodec{}, bidderAuction{1, 2})
}

// refuses feeds bytes to a codec: it must not panic, and what it takes it must have written, or could have.
func refuses[T any](t *testing.T, c operator.Codec[T], src []byte) {
	t.Helper()
	v, err := c.Decode(src)
	if err != nil {
		require.ErrorIs(t, err, ErrEncoding)
		return
	}
	again, err := c.Append(nil, v)
	require.NoError(t, err)
	back, err := c.Decode(again)
	require.NoError(t, err)
	require.Equal(t, v, back)
}

func FuzzDecode(f *testing.F) {
	for _, e := range stream(f, Config{}, 0, 6, 6) {
		text, err := EventCodec{}.Append(nil, e)
		require.NoError(f, err)
		f.Add(text)
		f.Add(text[2:])
	}
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, src []byte) {
		refuses(t, EventCodec{}, src)
		refuses(t, PersonCodec{}, src)
		refuses(t, AuctionCodec{}, src)
		refuses(t, BidCodec{}, src)
		refuses(t, highBidCodec{}, src)
		refuses(t, rankedBidCodec{}, src)
		refuses(t, groupBidCodec{}, src)
		refuses(t, sellerFactCodec{}, src)
		refuses(t, raisedCodec{}, src)
		refuses(t, hotAuctionCodec{}, src)
		refuses(t, deedCodec{}, src)
		refuses(t, sideBidCodec{}, src)
	})
}

// A bid is encoded without garbage, and decoded with no more than its text.
func TestBidCodecAllocations(t *testing.T) {
	b := stream(t, Config{}, 0, 50, 50)[49].Bid
	text, err := BidCodec{}.Append(nil, b)
	require.NoError(t, err)
	buf := make([]byte, 0, 2*len(text))
	require.Zero(t, testing.AllocsPerRun(100, func() { buf, _ = BidCodec{}.Append(buf[:0], b) }))
	require.EqualValues(t, 1, testing.AllocsPerRun(100, func() { b, _ = BidCodec{}.Decode(text) }))
}

func BenchmarkBidCodec(b *testing.B) {
	bid := stream(b, Config{}, 0, 50, 50)[49].Bid
	text, err := BidCodec{}.Append(nil, bid)
	require.NoError(b, err)
	buf := make([]byte, 0, 2*len(text))
	b.Run("append", func(b *testing.B) {
		for b.Loop() {
			buf, _ = BidCodec{}.Append(buf[:0], bid)
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			bid, _ = BidCodec{}.Decode(text)
		}
	})
}

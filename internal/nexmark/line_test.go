package nexmark

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/operator"
)

func TestTextsAreJSON(t *testing.T) {
	texts := []string{"", "plain", `\`, `"`, `a\b"c\\`, "\n", "tab\there", "<a&b>", "größer", `\é"`, "\x00", "\x7f", "bad \xff"}
	for _, e := range stream(t, Config{}, 0, 500, 500) {
		texts = append(texts, e.Bid.Extra)
	}
	for _, text := range texts {
		quoted, err := operator.JSON[string]().Append(nil, text)
		require.NoError(t, err)
		require.Equal(t, `{"a":1,"b":`+string(quoted)+`}`, string(object("{").number("a", 1).text("b", text).end()))
	}
}

func TestThousandths(t *testing.T) {
	for n, want := range map[thousandths]string{0: "0.000", 7: "0.007", 1000: "1.000", 90800: "90.800", 123456789: "123456.789"} {
		require.Equal(t, `{"n":`+want+`}`, string(object("{").decimal("n", n).end()))
	}
}

// Rows are for others to read.
func TestRowsAreJSON(t *testing.T) {
	for _, r := range []row{
		Bid{}, euroBid{}, pricedAuction{}, bidOfDay{}, localItem{}, categoryAverage{}, hotAuction{}, newSeller{}, winningBid{},
		bidderCount{}, sideBid{}, groupStatistics{}, groupStatistics{Group: group{Channel: "c"}}, auctionStatistics{Bids: count{All: 1}},
		rankedBid{}, bidOnItem{}, chance{Draw: &draw{}}, chance{Total: &total{IDs: []int64{1, 2}}},
	} {
		text := r.appendJSON([]byte("before"))
		require.Equal(t, "before", string(text[:6]))
		require.True(t, json.Valid(text[6:]), "%T: %s", r, text)
	}
	_, err := lines[Bid]{}.Decode([]byte("{}"))
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

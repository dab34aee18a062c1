package nexmark

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
)

// Each window's highest bids are shown once, also where bids come at its very end, as they do in Beam's stream, several at the same time:
// the golden answers have no such end.
func TestWindowsThatEndWithABid(t *testing.T) {
	const events = 250_000
	var all []Bid
	for _, e := range stream(t, Config{}, 0, events, 1000) {
		if e.Kind == BidKind {
			all = append(all, e.Bid)
		}
	}
	highest, atEnd := map[int64]int64{}, 0 // by the window's end
	for _, b := range all {
		end := b.Time - b.Time%q7Window + q7Window
		highest[end] = max(highest[end], b.Price)
	}
	var want [][]byte
	for end, price := range highest {
		for i := range all {
			b := &all[i]
			if b.Time < end-q7Window || b.Time > end {
				continue
			}
			if b.Time == end {
				atEnd++
			}
			if b.Price == price {
				want = append(want, fmt.Appendf(nil, "%s\n", b.appendJSON(nil)))
			}
		}
	}
	require.Positive(t, atEnd)
	rows, _ := runQuery(t, "q7", Options{Source: SourceOptions{Events: events}}, understudy.Options{})
	slices.SortFunc(want, bytes.Compare)
	slices.SortFunc(rows, bytes.Compare)
	require.Equal(t, string(bytes.Join(want, nil)), string(bytes.Join(rows, nil)))
}

package nexmark

import (
	"encoding/json"
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
)

var million = flag.Bool("nexmark.million", false, "run TestMillion")

// millionEvents is how many events the sums below are for.
const millionEvents = 1000000

// sumOf says how many rows a query has, and what the values of a field add up to.
type sumOf struct {
	query, field string
	rows         int
	sum          int64
}

// Sums that an SQL engine found.
var millionSums = []sumOf{
	{"q0", "price", 920000, 6659865839701},
	{"q2", "price", 8308, 60320362818},
	{"q3", "id", 5589, 167285849},
	{"q4", "final", 5, 33197207 + 33078799 + 33015117 + 33023387 + 33447162},
	{"q8", "id", 8714, 93358969},
}

// millionAverages are the answer of q4, from category 10 on.
var millionAverages = []float64{33197207, 33078799, 33015117, 33023387, 33447162}

// The stream has as many events of each kind as an SQL engine counted.
func TestMillionEvents(t *testing.T) {
	const together = 10_000
	var kinds [3]int
	for first := uint64(0); first < millionEvents; first += together {
		for _, e := range stream(t, Config{}, first, together, 1000) {
			kinds[e.Kind]++
		}
	}
	require.Equal(t, [3]int{PersonKind: 20_000, AuctionKind: 60_000, BidKind: 920_000}, kinds)
}

// The answers for the first million events, without failures and while tasks are killed.
func TestMillion(t *testing.T) {
	if !*million {
		t.Skip("takes half a minute: make nexmark")
	}
	for _, want := range millionSums {
		for _, chaos := range []*understudy.Chaos{nil, {Kill: 300 * time.Millisecond, Limit: 20, Seed: 1}} {
			start := time.Now()
			rows, sum := runQuery(t, want.query, Options{Source: SourceOptions{Events: millionEvents}, Final: true},
				understudy.Options{Chaos: chaos})
			got := sumOf{query: want.query, field: want.field, rows: len(rows)}
			for _, row := range rows {
				var fields map[string]any
				require.NoError(t, json.Unmarshal(row, &fields))
				got.sum += int64(fields[want.field].(float64))
				if want.query == "q4" {
					require.Equal(t, millionAverages[int(fields["category"].(float64))-firstCategory], fields["final"])
				}
			}
			require.Equal(t, want, got)
			t.Logf("%s: %.1f s, %d kills, %d tasks restarted", want.query, time.Since(start).Seconds(), sum.Kills, sum.TasksRestarted)
		}
	}
}

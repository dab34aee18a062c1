package nexmark

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	understudy "github.com/understudy-stream/understudy"
)

// chanceRow is a row of q12x of either kind.
type chanceRow struct {
	Kind    string  `json:"kind"`
	ID      int64   `json:"id"`
	Key     int64   `json:"key"`
	First   string  `json:"first"`
	Answer  string  `json:"answer"`
	Random  int64   `json:"random"`
	Arrived int64   `json:"arrived"`
	Start   int64   `json:"start"`
	End     int64   `json:"end"`
	Count   int64   `json:"count"`
	Sum     int64   `json:"sum"`
	IDs     []int64 `json:"ids"`
}

// Whatever chance decides in q12x, it decides once for each bid, and the windows follow from what it decided.
func TestEveryChanceIsTakenOnce(t *testing.T) {
	const events = 20000
	ask := func(ctx context.Context, id string) (string, error) {
		return fmt.Sprint(id, " ", rand.Uint64()), ctx.Err()
	}
	rows, sum := runQuery(t, "q12x", Options{
		Source: SourceOptions{Events: events, Rate: 20000}, Window: 100 * time.Millisecond, Ask: ask,
	}, understudy.Options{
		Chaos: &understudy.Chaos{Kill: 50 * time.Millisecond, Limit: 8, Seed: 5}, CheckpointInterval: 100 * time.Millisecond,
	})
	draws := map[int64]chanceRow{}
	firsts := map[string]int{}
	var windows []chanceRow
	for _, line := range rows {
		var r chanceRow
		require.NoError(t, json.Unmarshal(line, &r))
		if r.Kind == "window" {
			windows = append(windows, r)
			continue
		}
		require.Equal(t, "draw", r.Kind)
		_, twice := draws[r.ID]
		require.False(t, twice, "bid %d is drawn for twice", r.ID)
		require.Contains(t, r.Answer, fmt.Sprint(r.ID, " "))
		firsts[r.First]++
		draws[r.ID] = r
	}
	for _, e := range stream(t, Config{}, 0, events, 1000) {
		if e.Kind == BidKind {
			d, drawn := draws[int64(e.Number)]
			require.True(t, drawn && d.Key == e.Bid.Bidder, "bid %d: %+v", e.Number, d)
		}
	}
	type window struct{ key, start int64 }
	seen := map[window]bool{}
	counted := 0
	for _, w := range windows {
		require.False(t, seen[window{w.Key, w.Start}], "window %+v is there twice", w)
		seen[window{w.Key, w.Start}] = true
		require.Len(t, w.IDs, int(w.Count))
		require.Equal(t, w.Start+100, w.End)
		for _, id := range w.IDs {
			require.Equal(t, w.Key, draws[id].Key)
			w.Sum -= draws[id].Random
			delete(draws, id)
		}
		require.Zero(t, w.Sum)
		counted += int(w.Count)
	}
	require.Empty(t, draws, "draws that are in no window")
	require.Len(t, firsts, 2, "both ways should win sometimes: %v", firsts)
	t.Log(counted, "draws", firsts, sum.Kills, "kills", sum.TasksRestarted, "tasks restarted", sum.Rollbacks, "rollbacks")
}

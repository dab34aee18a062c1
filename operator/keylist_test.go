package operator

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestKeyListOrders compares with a stable sort of whole keys. They are short, of few different bytes, zeros among them, and often begin alike: where
// a rank says nothing, or would say the wrong thing.
func TestKeyListOrders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alike := rapid.SliceOfN(rapid.ByteRange(0, 2), 0, 12).Draw(t, "alike")
		ends := rapid.SliceOf(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xff}), 0, 11)).Draw(t, "ends")
		var l keyList
		var want [][]byte
		places, got := []int{}, []int{}
		for i, e := range ends {
			key := slices.Concat(alike, e)
			l.all = append(l.all, key...)
			l.end()
			want, places = append(want, key), append(places, i)
		}
		slices.SortStableFunc(places, func(a, b int) int { return bytes.Compare(want[a], want[b]) })
		for _, r := range l.order() {
			require.Equal(t, string(want[r.at]), string(l.key(r.at)))
			got = append(got, r.at)
		}
		require.Equal(t, places, got)
	})
}

package operator

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What is in an index is what would be in a map, however badly the hashes are spread, while it grows and shrinks.
func TestKeyIndexAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x keyIndex[int]
		model := map[string]*int{}
		spread := rapid.SampledFrom([]uint64{1, 3, 17, 1000}).Draw(t, "spread")
		named := func(n int) *keyBytes {
			return &keyBytes{bytes: fmt.Appendf(nil, "%d", n), hash: uint64(n)*sliceMix%spread - spread/2}
		}
		key := func() *keyBytes { return named(rapid.IntRange(0, 60).Draw(t, "key")) }
		for range rapid.IntRange(1, 200).Draw(t, "operations") {
			k := key()
			name := string(k.bytes)
			switch known := model[name] != nil; {
			case rapid.Bool().Draw(t, "put"):
				model[name] = new(int)
				x.put(k.hash, name, model[name])
			case known:
				x.remove(k.hash, name)
				delete(model, name)
			default:
				require.Panics(t, func() { (&keyIndex[int]{slots: make([]indexSlot[int], leastSlots)}).remove(k.hash, name) })
			}
			require.Equal(t, len(model), x.count)
			require.LessOrEqual(t, 4*x.count, 3*len(x.slots))
			for range 3 {
				k := key()
				require.Same(t, model[string(k.bytes)], x.find(k))
			}
		}
		for n := range 61 {
			if k := named(n); model[string(k.bytes)] != nil {
				x.remove(k.hash, string(k.bytes))
			}
		}
		require.LessOrEqual(t, len(x.slots), leastSlots, "the memory of many is not kept")
	})
}

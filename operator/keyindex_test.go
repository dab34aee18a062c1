package operator

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// named is what the tests put into an index.
type named struct {
	key  string
	hash uint64
}

func (n *named) name() (string, uint64) { return n.key, n.hash }

// What is in an index is what would be in a map, however badly the hashes are spread, and whether keys are short or long, while it grows
// and shrinks.
func TestKeyIndexAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x keyIndex[named, *named]
		model := map[string]*named{}
		spread := rapid.SampledFrom([]uint64{1, 3, 17, 1000}).Draw(t, "spread")
		pad := rapid.IntRange(0, 20).Draw(t, "length")
		nth := func(n int) *keyBytes {
			k := &keyBytes{bytes: fmt.Appendf(nil, "%0*d", pad, n), hash: uint64(n)*sliceMix%spread - spread/2}
			k.short = shorten(k.bytes)
			return k
		}
		key := func() *keyBytes { return nth(rapid.IntRange(0, 60).Draw(t, "key")) }
		for range rapid.IntRange(1, 200).Draw(t, "operations") {
			k := key()
			name := string(k.bytes)
			switch known := model[name] != nil; {
			case rapid.Bool().Draw(t, "put"):
				model[name] = &named{name, k.hash}
				x.put(model[name])
			case known:
				x.remove(model[name])
				delete(model, name)
			default:
				empty := keyIndex[named, *named]{slots: make([]indexSlot[named], leastSlots)}
				require.Panics(t, func() { empty.remove(&named{name, k.hash}) })
			}
			require.Equal(t, len(model), x.count)
			require.LessOrEqual(t, 4*x.count, 3*len(x.slots))
			for range 3 {
				k := key()
				require.Same(t, model[string(k.bytes)], x.find(k))
			}
		}
		for n := range 61 {
			if e := model[string(nth(n).bytes)]; e != nil {
				x.remove(e)
			}
		}
		require.LessOrEqual(t, len(x.slots), leastSlots, "the memory of many is not kept")
	})
}

// Two keys are one short key only if they are the same, or both are long.
func TestShortKeysAreTheKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xff}), 0, 17)
		a, b := key.Draw(t, "a"), key.Draw(t, "b")
		if rapid.Bool().Draw(t, "alike") {
			b = append(a[:len(a):len(a)], key.Draw(t, "more")...)
		}
		same := bytes.Equal(a, b) || len(a) > 15 && len(b) > 15
		require.Equal(t, same, shorten(a) == shorten(b), "%x %x", a, b)
		require.Equal(t, len(a) > 15, shorten(a) == longKey)
	})
}

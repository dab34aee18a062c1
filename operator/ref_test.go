package operator

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestRefLeavesWhatIsFrozen changes byte slices in place, by Ref and by replacement, and freezes the table at random. Whoever encodes what
// was frozen, later and on another goroutine, wants what was there at the barrier: under the race detector, a value that is shared is a race
// too.
func TestRefLeavesWhatIsFrozen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newTable("t", Codec[[]byte](bytesCodec{}))
		model := map[string][]byte{}
		var encoding sync.WaitGroup
		defer encoding.Wait()
		var sums []map[string][]byte // what is stored after each freeze
		var got []map[string][]byte
		stored := map[string][]byte{}
		var order sync.Mutex
		for range rapid.IntRange(1, 80).Draw(t, "operations") {
			key := keyOf(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "key"))
			name := string(key.bytes)
			switch rapid.IntRange(0, 4).Draw(t, "operation") {
			case 0, 1:
				had, existed := model[name]
				v, full, known := table.ref(key)
				require.Equal(t, existed, known)
				require.Equal(t, name, full)
				require.True(t, bytes.Equal(had, *v))
				if len(*v) == 0 {
					*v = make([]byte, 8)
				}
				binary.LittleEndian.PutUint64(*v, binary.LittleEndian.Uint64(*v)+1)
				model[name] = slices.Clone(*v)
			case 2:
				v := binary.LittleEndian.AppendUint64(nil, rapid.Uint64().Draw(t, "value"))
				if had, known := table.get(key); known && rapid.Bool().Draw(t, "the same memory") {
					v = had
				}
				model[name] = slices.Clone(v)
				table.set(key, v)
			case 3:
				table.clear(key)
				delete(model, name)
			case 4:
				table.copies = rapid.SampledFrom([]int{0, 1, 9}).Draw(t, "copies")
				frozen := table.Freeze()
				at := map[string][]byte{}
				for k, v := range model {
					at[k] = slices.Clone(v)
				}
				sums = append(sums, at)
				order.Lock()
				encoding.Go(func() {
					defer order.Unlock()
					_ = frozen.Entries(func(key, value []byte, deleted bool) error {
						delete(stored, string(key))
						if !deleted {
							stored[string(key)] = slices.Clone(value)
						}
						return nil
					})
					got = append(got, maps.Clone(stored))
				})
			}
			require.Equal(t, len(model), table.len())
		}
		encoding.Wait()
		require.Equal(t, sums, got)
	})
}

// TestRefOfAMapEntersTheMember wants a member that Ref made to be listed once, also when it was removed before.
func TestRefOfAMapEntersTheMember(t *testing.T) {
	scope := keyOf("k")
	s := &States{operator: "o", scope: scope}
	m := NewMap[string, []int](s, "m")
	require.NoError(t, s.err)
	for range 2 {
		for i := range 3 {
			v := m.Ref("b")
			*v = append(*v, i)
			*m.Ref("a") = []int{i}
		}
		require.Equal(t, 2, m.Len())
		got := map[string][]int{}
		for k, v := range m.All() {
			got[k] = v
		}
		require.Equal(t, map[string][]int{"a": {2}, "b": {0, 1, 2}}, got)
		m.Clear("a")
		m.table.Freeze()
		m.Clear("b")
		require.Zero(t, m.Len())
	}
}

package operator

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// contents lists what panes have, pane by pane in the order in which keys would fire.
func contents(p *panes[string, int]) []string {
	var list []string
	for _, in := range p.panes {
		for _, k := range in.keys {
			list = append(list, fmt.Sprint(in.start, in.expires, k.key, k.part(in.start).acc))
		}
	}
	return list
}

// Panes that are made of what freezes have given are those that were frozen, keys in the same order. Those who encode them do it later.
func TestPanesAgainstCheckpoints(t *testing.T) {
	const length = 10
	expires := func(start int64) int64 { return start + length }
	rapid.Check(t, func(t *rapid.T) {
		p := newPanes("panes", Codec[string](stringCodec{}), Codec[int](signedCodec[int]{}))
		var frozen []Frozen
		var at [][]string
		from := int64(-2 * length)
		for range rapid.IntRange(1, 80).Draw(t, "operations") {
			switch rapid.IntRange(0, 9).Draw(t, "operation") {
			default:
				key := keyOf(rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(t, "key"))
				start, acc := from+length*int64(rapid.IntRange(0, 4).Draw(t, "pane")), rapid.Int().Draw(t, "acc")
				k := p.index.find(key)
				if k == nil {
					var err error
					k, err = p.enter(key)
					require.NoError(t, err)
				}
				if part := k.part(start); part != nil {
					p.set(k, part, acc)
				} else {
					in, _ := p.pane(start, expires(start))
					p.add(k, in, acc)
				}
			case 8:
				if len(p.panes) > 0 {
					from = p.panes[0].start + length
					p.drop()
				}
			case 9:
				frozen, at = append(frozen, p.Freeze()), append(at, contents(p))
			}
		}
		frozen, at = append(frozen, p.Freeze()), append(at, contents(p))
		require.Empty(t, p.Freeze().(*frozenPanes[int]).parts)
		stored := map[string][]byte{}
		for i, f := range frozen {
			live := 0
			err := f.Entries(func(key, value []byte, deleted bool) error {
				if live++; deleted {
					live--
					require.Contains(t, stored, string(key), "what no checkpoint had is not deleted")
					delete(stored, string(key))
					return nil
				}
				stored[string(key)] = append([]byte(nil), value...)
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, live == len(stored), f.Whole())
			again := newPanes("panes", p.keys, p.codec)
			for key, value := range stored {
				require.NoError(t, again.Load([]byte(key), value))
			}
			again.restored(expires)
			require.Equal(t, at[i], contents(again))
			require.Empty(t, again.Freeze().(*frozenPanes[int]).parts)
			require.GreaterOrEqual(t, p.next, again.next)
		}
		for len(p.panes) > 0 {
			p.drop()
		}
		require.Zero(t, p.index.count)
		require.Empty(t, p.dirty)
	})
}

// A window that a key leaves and comes back to between two checkpoints is as it was left last.
func TestPanesGoneAndBack(t *testing.T) {
	p := newPanes("panes", Codec[string](stringCodec{}), Codec[int](signedCodec[int]{}))
	put := func(acc int) {
		k, err := p.enter(keyOf("a"))
		require.NoError(t, err)
		in, _ := p.pane(0, 10)
		p.add(k, in, acc)
	}
	put(1)
	p.Freeze()
	p.drop()
	put(2)
	count := 0
	require.NoError(t, p.Freeze().Entries(func(_, value []byte, deleted bool) error {
		require.False(t, deleted)
		require.Equal(t, []byte{1, 2}, value)
		count++
		return nil
	}))
	require.Equal(t, 1, count)
}

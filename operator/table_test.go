package operator

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func keyOf(s string) *keyBytes {
	k := &keyBytes{bytes: []byte(s)}
	k.sum()
	return k
}

// TestTableAgainstModel changes a table at random, freezes it at random, encodes the frozen parts later, on another goroutine,
// and wants what a plain map would have held at each barrier.
func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := newTable("t", Codec[int](signedCodec[int]{}))
		model, stored := map[string]int{}, map[string]int{}
		var frozen []Frozen
		var at []map[string]int
		var encoding sync.WaitGroup
		got := make([]map[string]int, 0)
		for range rapid.IntRange(1, 60).Draw(t, "operations") {
			key := keyOf(rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "key"))
			switch rapid.IntRange(0, 4).Draw(t, "operation") {
			case 0, 1:
				v := rapid.IntRange(0, 1000).Draw(t, "value")
				tab.set(key, v)
				model[string(key.bytes)] = v
			case 2:
				_, had := model[string(key.bytes)]
				require.Equal(t, had, tab.clear(key))
				delete(model, string(key.bytes))
			case 3:
				tab.copies = rapid.SampledFrom([]int{0, 2, 9}).Draw(t, "copies")
				frozen = append(frozen, tab.Freeze())
				snapshot := map[string]int{}
				for k, v := range model {
					snapshot[k] = v
				}
				at = append(at, snapshot)
			case 4:
				v, ok := tab.get(key)
				want, known := model[string(key.bytes)]
				require.Equal(t, known, ok)
				require.Equal(t, want, v)
			}
			require.Equal(t, len(model), tab.len())
			require.Len(t, tab.keys(), len(model))
		}
		encoding.Add(1)
		go func() {
			defer encoding.Done()
			for _, f := range frozen {
				last, live := "", 0
				err := f.Entries(func(key, value []byte, deleted bool) error {
					if last > string(key) {
						return fmt.Errorf("%q after %q", key, last)
					}
					last = string(key)
					delete(stored, last)
					if !deleted {
						stored[last], _ = signedCodec[int]{}.Decode(value)
						live++
					}
					return nil
				})
				if err != nil {
					panic(err)
				}
				if f.Whole() != (live == len(stored)) {
					panic(fmt.Sprintf("%d entries of %d, whole: %v", live, len(stored), f.Whole()))
				}
				copied := map[string]int{}
				for k, v := range stored {
					copied[k] = v
				}
				got = append(got, copied)
			}
		}()
		for i := range 20 { // meanwhile the task goes on
			tab.set(keyOf("a"), i)
			tab.clear(keyOf("b"))
		}
		encoding.Wait()
		for i := range at {
			require.Equal(t, at[i], got[i])
		}
	})
}

// What has changed is copied at the barrier if it is little, however many entries that is, and otherwise left where it is.
func TestMuchIsNotCopied(t *testing.T) {
	for _, c := range []struct {
		entries, bytes int
		copied         bool
	}{
		{0, 0, true}, {copiedEntries, 10, true}, {copiedEntries + 1, 10, false}, {2, copiedBytes, false}, {2, copiedBytes / 4, true},
	} {
		tab := newTable("t", Codec[[]byte](bytesCodec{}))
		for i := range c.entries {
			tab.set(keyOf(fmt.Sprint(i)), make([]byte, c.bytes))
		}
		frozen := tab.Freeze()
		_, copied := frozen.(*frozenCopy)
		require.Equal(t, c.copied, copied, c)
		n := 0
		require.NoError(t, frozen.Entries(func(_, value []byte, _ bool) error {
			n++
			require.Len(t, value, c.bytes)
			return nil
		}))
		require.Equal(t, c.entries, n)
	}
}

// A table that was too big to copy is not tried at each barrier.
func TestMuchIsNotTriedAgain(t *testing.T) {
	calls := 0
	tab := newTable("t", Codec[[]byte](countingCodec{calls: &calls}))
	for range 1 + muchAgain {
		tab.set(keyOf("a"), make([]byte, copiedBytes))
		tab.Freeze()
	}
	require.Equal(t, 1, calls)
	tab.set(keyOf("a"), make([]byte, copiedBytes))
	tab.Freeze()
	require.Equal(t, 2, calls)
}

type countingCodec struct {
	bytesCodec
	calls *int
}

func (c countingCodec) Append(dst, v []byte) ([]byte, error) {
	*c.calls++
	return c.bytesCodec.Append(dst, v)
}

// A value that its codec cannot write is found where it would be written, not by the task that is at its barrier.
func TestCodecFailsAtTheBarrier(t *testing.T) {
	tab := newTable("t", Codec[[]byte](failingCodec{}))
	tab.set(keyOf("a"), nil)
	err := tab.Freeze().Entries(func([]byte, []byte, bool) error { panic("an entry") })
	require.ErrorContains(t, err, `table "t": encoding key "a": no`)
}

type failingCodec struct{ bytesCodec }

func (failingCodec) Append([]byte, []byte) ([]byte, error) { return nil, errors.New("no") }

func TestFrozenListsKeepTheirEnd(t *testing.T) {
	s := &States{operator: "op", scope: keyOf("k")}
	l := NewList[int](s, "list")
	l.Append(1, 2, 3)
	first := s.tables[0].Freeze()
	done := make(chan []byte)
	go func() {
		var got []byte
		_ = first.Entries(func(_, value []byte, _ bool) error { got = append(got, value...); return nil })
		done <- got
	}()
	for i := range 100 {
		l.Append(i)
	}
	require.Equal(t, []byte{3, 1, 1, 1, 2, 1, 3}, <-done)
	require.Len(t, l.Get(), 103)
	l.Set(nil)
	require.Empty(t, l.Get())
}

func TestMapStateChangesDuringIteration(t *testing.T) {
	s := &States{operator: "op", scope: keyOf("k")}
	m := NewMap[string, int](s, "map")
	for i := range 10 {
		m.Set(fmt.Sprint(9-i), i)
	}
	var seen []string
	for k := range m.All() {
		seen = append(seen, k)
		m.Clear("5")
		m.Set("0"+k, 1)
		for range m.All() { // another one, which sorts
			break
		}
	}
	require.Equal(t, []string{"0", "1", "2", "3", "4", "6", "7", "8", "9"}, seen)
	require.Equal(t, 18, m.Len())
	for range 100 {
		m.Set("x", 1)
		m.Clear("x")
	}
	require.Less(t, len(m.contents["k"].keys), 100)
	m.ClearAll()
	require.Zero(t, m.Len())
	require.Empty(t, m.contents)
}

func TestTablesRefuseCorruptEntries(t *testing.T) {
	for _, table := range []Table{
		newPanes("panes", Codec[string](stringCodec{}), Codec[bool](boolCodec{})), &firedTable{id: "fired"},
		newTimerTable("timers"), &rotation{id: "rotation"}, newTable("bool", Codec[bool](boolCodec{})),
		newTable("list", Codec[[]int](listCodec[int]{signedCodec[int]{}})), newTable("calls", Codec[asyncEntry](asyncCodec{})),
		&timestamps[int]{pass: pass{site: &site{name: "ts"}}}, &progressTable{chain: &instance{sites: make([]*site, 2)}},
	} {
		for _, b := range []string{"", "\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x00\xff"} {
			require.ErrorIs(t, table.Load([]byte(b), []byte(b)), ErrEncoding, "%s %q", table.ID(), b)
		}
	}
}

// Entries are looked at beforehand, some at a time, whatever they are: bytes, text, nothing, or not there any more.
func TestEntriesOfAllKinds(t *testing.T) {
	texts, pieces := newTable("t", defaultCodec[string]().codec), newTable("t", Codec[[]byte](bytesCodec{}))
	texts.copies, pieces.copies = 0, 0
	want := map[string]string{}
	for i := range 3*lookAhead + 1 {
		k := keyOf(fmt.Sprintf("%03d", i))
		text := strings.Repeat("x", i%5*200)
		texts.set(k, text)
		pieces.set(k, []byte(text))
		if want[string(k.bytes)] = text; i%7 == 0 {
			texts.clear(k)
			pieces.clear(k)
			want[string(k.bytes)] = "deleted"
		}
	}
	for name, f := range map[string]Frozen{"text": texts.Freeze(), "bytes": pieces.Freeze()} {
		got := map[string]string{}
		require.NoError(t, f.Entries(func(key, value []byte, deleted bool) error {
			if got[string(key)] = "deleted"; !deleted && name == "bytes" {
				got[string(key)] = string(value)
			} else if !deleted {
				v, err := defaultCodec[string]().codec.Decode(value)
				got[string(key)] = v
				return err
			}
			return nil
		}))
		require.Equal(t, want, got, name)
	}
}

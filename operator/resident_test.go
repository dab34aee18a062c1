package operator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestAdoptedTableIsALoadedOne changes two tables in the same way: one has loaded what a Resident gave to the other. They hold the same, and
// freeze to the same.
func TestAdoptedTableIsALoadedOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loaded, adopted := newTable("t", Codec[int](signedCodec[int]{})), newTable("t", Codec[int](signedCodec[int]{}))
		r := NewResident()
		name := rapid.StringMatching("[a-d]?(a{16})?") // some keys do not fit into a slot
		for k, v := range rapid.MapOf(name, rapid.Int()).Draw(t, "state") {
			value, err := signedCodec[int]{}.Append(nil, v)
			require.NoError(t, err)
			require.NoError(t, loaded.Load([]byte(k), value))
			r.Put("t", []byte(k), []byte("overridden"), false)
			r.Put("t", []byte(k), value, false)
		}
		require.NoError(t, r.Restore(adopted))
		require.Empty(t, r.Tables())
		for range rapid.IntRange(0, 60).Draw(t, "operations") {
			key := keyOf(name.Draw(t, "key"))
			switch rapid.IntRange(0, 5).Draw(t, "operation") {
			case 0:
				want, known := loaded.get(key)
				v, ok := adopted.get(key)
				require.Equal(t, known, ok)
				require.Equal(t, want, v)
			case 1:
				v := rapid.Int().Draw(t, "value")
				loaded.set(key, v)
				adopted.set(key, v)
			case 2:
				require.Equal(t, loaded.clear(key), adopted.clear(key))
			case 3:
				want, full, known := loaded.ref(key)
				v, name, ok := adopted.ref(key)
				require.Equal(t, fmt.Sprint(*want, full, known), fmt.Sprint(*v, name, ok))
				*want++
				*v++
			case 4:
				require.Equal(t, changes(t, loaded.Freeze()), changes(t, adopted.Freeze()))
			case 5:
				require.Equal(t, loaded.len(), adopted.len())
				require.Equal(t, loaded.keys(), adopted.keys())
			}
			if adopted.resident != nil {
				for e := range adopted.resident.all() {
					k, _ := e.name()
					require.Nil(t, adopted.cells.find(keyOf(k)), "key %q is in both", k)
				}
			}
		}
	})
}

func changes(t require.TestingT, f Frozen) (lines []string) {
	require.NoError(t, f.Entries(func(key, value []byte, deleted bool) error {
		lines = append(lines, fmt.Sprintf("%q %x %v", key, value, deleted))
		return nil
	}))
	return lines
}

// TestResidentAgainstModel puts and deletes at random, and wants what a plain map has.
func TestResidentAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, model := NewResident(), map[string]map[string]string{}
		for range rapid.IntRange(0, 80).Draw(t, "operations") {
			table, key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "table"), rapid.StringMatching("[ab]?(b{16})?").Draw(t, "key")
			value, deleted := rapid.StringN(0, 4, -1).Draw(t, "value"), rapid.IntRange(0, 2).Draw(t, "deleted") == 0
			buffer := []byte(key + value)
			r.Put(table, buffer[:len(key)], buffer[len(key):], deleted)
			clear(buffer) // nothing of it is kept
			if model[table] == nil {
				model[table] = map[string]string{}
			}
			if model[table][key] = value; deleted {
				delete(model[table], key)
			}
		}
		var cost int64
		maps.DeleteFunc(model, func(_ string, entries map[string]string) bool { return len(entries) == 0 })
		require.Equal(t, slices.Sorted(maps.Keys(model)), r.Tables())
		for table, want := range model {
			got, last := map[string]string{}, ""
			require.NoError(t, r.Entries(table, func(key, value []byte) error {
				require.True(t, len(got) == 0 || last < string(key), "order")
				last = string(key)
				got[last] = string(value)
				cost += r.tables[table].cost(len(key) + len(value))
				return nil
			}))
			require.Equal(t, want, got)
		}
		require.Equal(t, cost, r.Bytes())
	})
}

// TestAdoptedMaps changes maps at random and goes on, again and again, with what a standby has taken of each checkpoint: members that came,
// went and came again are those that a plain map has.
func TestAdoptedMaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type change struct {
			key, value []byte
			deleted    bool
		}
		var changes []change // of all checkpoints
		scope := keyOf("")
		open := func() (*MapState[string, int], *States) {
			s := &States{operator: "op", scope: scope}
			return NewMap[string, int](s, "m"), s
		}
		m, states := open()
		model := map[string]map[string]int{"": {}, "a": {}, "b": {}}
		for range rapid.IntRange(0, 120).Draw(t, "operations") {
			of := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "map")
			*scope = *keyOf(of)
			member := rapid.StringMatching("[a-f]{0,2}").Draw(t, "member")
			switch rapid.IntRange(0, 6).Draw(t, "operation") {
			case 0, 1:
				v := rapid.Int().Draw(t, "value")
				m.Set(member, v)
				model[of][member] = v
			case 2, 3:
				m.Clear(member)
				delete(model[of], member)
			case 4:
				if rapid.IntRange(0, 4).Draw(t, "all") == 0 {
					m.ClearAll()
					clear(model[of])
				}
			case 5:
				require.Equal(t, len(model[of]), m.Len())
				require.Equal(t, model[of], maps.Collect(m.All()))
			case 6:
				frozen := states.tables[0].Freeze()
				require.NoError(t, frozen.Entries(func(key, value []byte, deleted bool) error {
					changes = append(changes, change{slices.Clone(key), slices.Clone(value), deleted})
					return nil
				}))
				if rapid.Bool().Draw(t, "goes on elsewhere") {
					standby := NewResident()
					for _, c := range changes {
						standby.Put(frozen.Table(), c.key, c.value, c.deleted)
					}
					m, states = open()
					require.NoError(t, standby.Restore(states.tables[0]))
					require.True(t, m.table.lists != nil || len(changes) == 0 || m.table.len() == 0)
					require.NoError(t, m.restored())
				}
			}
		}
		for of, want := range model {
			*scope = *keyOf(of)
			require.Equal(t, len(want), m.Len())
			require.Equal(t, want, maps.Collect(m.All()))
		}
	})
}

// A table that is not of maps and is called as if it were is taken for what it is.
func TestMisnamedTable(t *testing.T) {
	r, table := NewResident(), newTable("op/map x/state y", Codec[int](signedCodec[int]{}))
	for _, key := range []string{"\x01ab", "\x09"} {
		r.Put(table.ID(), []byte(key), []byte{2}, false)
	}
	r.Put(table.ID(), []byte("\x01ab"), nil, true)
	require.NoError(t, r.Restore(table))
	require.Nil(t, table.lists)
	require.Equal(t, []string{"\x09"}, table.keys())
}

// An entry that cannot be decoded is an error of the task when it is asked for, and no record is to blame; of a table that is loaded, it is one of the
// restart.
func TestUnreadableResident(t *testing.T) {
	r := NewResident()
	r.Put("t", []byte("k"), []byte("\xff"), false)
	r.Put("timers", []byte("short"), nil, false)
	table := newTable("t", Codec[bool](boolCodec{}))
	require.NoError(t, r.Restore(table))
	require.ErrorIs(t, r.Restore(newTimerTable("timers")), ErrEncoding)
	require.NoError(t, r.Entries("none", func(_, _ []byte) error { return errors.New("no entry") }))
	ask := func(key string) (ok bool, err error) {
		defer new(instance).guard(&err)
		_, ok = table.get(keyOf(key))
		return ok, nil
	}
	ok, err := ask("other")
	require.NoError(t, err)
	require.False(t, ok)
	_, err = ask("k")
	require.ErrorIs(t, err, ErrEncoding)
	require.ErrorContains(t, err, `table "t": reading back key "k"`)
	var user *UserError
	require.False(t, errors.As(err, &user))
}

// BenchmarkRestore restores 100,000 entries and looks at each hundredth.
func BenchmarkRestore(b *testing.B) {
	const entries = 100000
	key, value := make([]byte, 8), make([]byte, 24)
	each := func(do func(key, value []byte)) {
		for i := range uint64(entries) {
			binary.BigEndian.PutUint64(key, i*0x9e3779b97f4a7c15)
			do(key, value)
		}
	}
	looks := func(t *table[[]byte]) {
		for i := uint64(0); i < entries; i += 100 {
			binary.BigEndian.PutUint64(key, i*0x9e3779b97f4a7c15)
			if _, ok := t.get(keyOf(string(key))); !ok {
				b.Fatal("not there")
			}
		}
	}
	b.Run("loaded", func(b *testing.B) {
		for b.Loop() {
			t := newTable("t", Codec[[]byte](bytesCodec{}))
			each(func(key, value []byte) { _ = t.Load(key, value) })
			looks(t)
		}
	})
	b.Run("adopted", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			r, t := NewResident(), newTable("t", Codec[[]byte](bytesCodec{}))
			each(func(key, value []byte) { r.Put("t", key, value, false) })
			b.StartTimer()
			if err := r.Restore(t); err != nil {
				b.Fatal(err)
			}
			looks(t)
		}
	})
}

package operator

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

// cleaned is tables that are frozen, with what a restore would find.
type cleaned struct {
	tester
	tables  []*table[int]
	freezer *Freezer
	epoch   determinant.Epoch
	model   []map[string]int
	images  []cleanedImage // from the first on that is needed
}

type cleanedImage struct {
	epoch   determinant.Epoch
	entries []map[string]*int
}

func newCleaned(t tester, tables int) *cleaned {
	c := &cleaned{tester: t}
	var all []Table
	for i := range tables {
		tab := newTable(fmt.Sprintf("t%d", i), Codec[int](signedCodec[int]{}))
		c.tables, all, c.model = append(c.tables, tab), append(all, tab), append(c.model, map[string]int{})
	}
	c.freezer = NewFreezer(all, Cleaning{From: 1})
	return c
}

func (c *cleaned) set(i int, key string, v int) {
	c.tables[i].set(keyOf(key), v)
	c.model[i][key] = v
}

func (c *cleaned) clear(i int, key string) {
	c.tables[i].clear(keyOf(key))
	delete(c.model[i], key)
}

// freeze ends an epoch and drops the images that are not needed any more.
func (c *cleaned) freeze() Freezes {
	c.epoch++
	r := c.freezer.Freeze(c.epoch)
	im := cleanedImage{epoch: c.epoch}
	for _, f := range r.Frozen {
		entries := map[string]*int{}
		require.NoError(c, f.Entries(func(key, value []byte, deleted bool) error {
			v, err := signedCodec[int]{}.Decode(value)
			if entries[string(key)] = &v; deleted {
				entries[string(key)], err = nil, nil
			}
			return err
		}))
		im.entries = append(im.entries, entries)
	}
	c.images = append(c.images, im)
	for r.All && c.images[0].epoch <= r.Since {
		c.images = c.images[1:]
	}
	return r
}

// restored is what the images that are left hold of a table.
func (c *cleaned) restored(i int) map[string]int {
	state := map[string]int{}
	for _, im := range c.images {
		for k, v := range im.entries[i] {
			if v == nil {
				delete(state, k)
			} else {
				state[k] = *v
			}
		}
	}
	return state
}

func (c *cleaned) requireAll() {
	c.Helper()
	for i := range c.tables {
		require.Equal(c, c.model[i], c.restored(i))
	}
}

// written is how many entries the images that are left have.
func (c *cleaned) written() (n int) {
	for _, im := range c.images {
		for _, entries := range im.entries {
			n += len(entries)
		}
	}
	return n
}

// restart takes what is there over into new tables, entry by entry or all at once.
func (c *cleaned) restart(atOnce bool) *cleaned {
	next := newCleaned(c.tester, len(c.tables))
	next.epoch, next.images, next.model = c.epoch, c.images, c.model
	standby := NewResident()
	for i, tab := range next.tables {
		for k, v := range c.restored(i) {
			value, err := signedCodec[int]{}.Append(nil, v)
			require.NoError(c, err)
			if standby.Put(tab.id, []byte(k), value, false); !atOnce {
				require.NoError(c, tab.Load([]byte(k), value))
			}
		}
		if atOnce {
			require.NoError(c, standby.Restore(tab))
		}
	}
	return next
}

// TestFreezerAgainstModel changes tables at random, drops what a Freezer says is not needed, and wants that nothing is missing.
func TestFreezerAgainstModel(t *testing.T) {
	cleans := 0
	rapid.Check(t, func(t *rapid.T) {
		c := newCleaned(t, rapid.IntRange(1, 3).Draw(t, "tables"))
		keys := rapid.SampledFrom([]int{3, 40, 200}).Draw(t, "keys")
		for range rapid.IntRange(1, 40).Draw(t, "epochs") {
			for range rapid.IntRange(0, 30).Draw(t, "changes") {
				i, key := rapid.IntRange(0, len(c.tables)-1).Draw(t, "table"), fmt.Sprint(rapid.IntRange(0, keys).Draw(t, "key"))
				switch rapid.IntRange(0, 9).Draw(t, "change") {
				case 0, 1:
					c.clear(i, key)
				case 2:
					v, ok := c.tables[i].get(keyOf(key))
					want, known := c.model[i][key]
					require.Equal(t, known, ok)
					require.Equal(t, want, v)
				case 3:
					v, _, _ := c.tables[i].ref(keyOf(key))
					*v++
					c.model[i][key]++
				default:
					c.set(i, key, rapid.IntRange(0, 1000).Draw(t, "value"))
				}
			}
			if rapid.IntRange(0, 15).Draw(t, "restart") == 0 {
				for i := range c.tables { // to a checkpoint
					c.model[i] = c.restored(i)
				}
				c = c.restart(rapid.Bool().Draw(t, "at once"))
			}
			for _, tab := range c.tables {
				tab.copies = rapid.SampledFrom([]int{0, 5, 1000}).Draw(t, "copies")
			}
			if r := c.freeze(); r.All && r.Since+1 < c.epoch {
				cleans++
			}
			c.requireAll()
		}
	})
	require.Positive(t, cleans, "nothing was dropped but by all that was written anew")
}

// TestCleaning: however little of a state changes, and wherever, no more is kept than a few times the state; and an image has little more than
// what changed.
func TestCleaning(t *testing.T) {
	const keys = 20000
	for name, change := range map[string]func(epoch, i int) int{
		"everywhere":  func(epoch, i int) int { return int(hashKey(fmt.Appendf(nil, "%d-%d", epoch, i)) % keys) },
		"in a corner": func(epoch, i int) int { return int(hashKey(fmt.Appendf(nil, "%d-%d", epoch, i)) % (keys / 20)) },
		"in turns":    func(epoch, i int) int { return (epoch*400 + i) % keys },
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restored %v", name, restart), func(t *testing.T) {
				c := newCleaned(t, 2)
				for k := range keys {
					c.set(k%2, fmt.Sprint(k), k)
				}
				c.freeze()
				if restart {
					c = c.restart(true)
				}
				changed, written, most := 0, 0, 0
				for epoch := 1; epoch <= 300; epoch++ {
					for i := range 400 {
						k := change(epoch, i)
						c.set(k%2, fmt.Sprint(k), epoch)
					}
					r := c.freeze()
					require.InDelta(t, keys*6, r.State, keys*4)
					last := c.images[len(c.images)-1]
					if epoch > 150 {
						changed, written = changed+400, written+len(last.entries[0])+len(last.entries[1])
						require.True(t, r.All)
						most = max(most, c.written())
					}
				}
				c.requireAll()
				t.Logf("%.2f times the state, %.2f entries for each change", float64(most)/keys, float64(written)/float64(changed))
				require.Less(t, most, keys*7/2)
				require.Less(t, written, changed*13/10)
			})
		}
	}
}

// TestCleaningIsRight breaks a rule: the table forgets what it was restored with.
func TestCleaningIsRight(t *testing.T) {
	c := newCleaned(t, 1)
	for k := range 100 {
		c.set(0, fmt.Sprint(k), k)
	}
	c.freeze()
	c = c.restart(false)
	c.set(0, "1", 2)
	c.tables[0].census.old = lot{}
	require.True(t, c.freeze().All)
	require.NotEqual(t, c.model[0], c.restored(0))
}

// One entry that never changes does not keep the others from being cleaned.
func TestOneColdEntryIsCleaned(t *testing.T) {
	c := newCleaned(t, 2)
	c.set(1, "cold", 1)
	c.freeze()
	for k := range 2000 {
		c.set(0, fmt.Sprint(k), k)
	}
	for epoch := range 300 {
		for i := range 40 {
			c.set(0, fmt.Sprint((epoch*1117+i*53)%2000), epoch)
		}
		c.freeze()
		if epoch > 100 {
			require.Less(t, c.written(), 7*1000, "epoch %d", epoch)
		}
	}
	c.requireAll()
}

// TestCensusAgainstModel goes on for so many generations that they are joined.
func TestCensusAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := &census{}
	c.loaded(3)
	last := map[int]uint64{-1: 0, -2: 0, -3: 0} // by key
	for generation := uint64(1); generation <= 3*mostLots; generation++ {
		set, deleted := 0, 0
		for range rng.IntN(4) {
			key := rng.IntN(1 << (1 + rng.IntN(16)))
			if old, ok := last[key]; ok && old < generation {
				c.replaced(old)
				if rng.IntN(2) == 0 {
					delete(last, key)
					deleted++
					continue
				}
			} else if ok {
				continue
			}
			last[key] = generation
			set++
		}
		if generation == mostLots/2 {
			for key := -3; key < 0; key++ {
				c.replaced(0)
				delete(last, key)
			}
		}
		require.Equal(t, generation, c.present())
		c.froze(set, deleted)
		if generation%97 == 0 {
			requireCensus(t, c, last)
		}
	}
	require.Positive(t, c.joined)
	keys := slices.SortedFunc(maps.Keys(last), func(a, b int) int { return cmp.Compare(last[a], last[b]) })
	for i, key := range keys { // the oldest go first
		c.replaced(last[key])
		delete(last, key)
		if i%97 == 0 {
			requireCensus(t, c, last)
		}
	}
	oldest, all := c.oldest()
	require.True(t, all && oldest == c.present() && len(c.lots) == 0)
}

// requireCensus wants the counts to be those of the keys that are there, each with the generation in which it was last written.
func requireCensus(t *testing.T, c *census, last map[int]uint64) {
	t.Helper()
	got, all := c.oldest()
	require.LessOrEqual(t, len(c.lots), mostLots)
	live, oldest, counted := make(map[*lot]int), c.present(), c.old.live
	for _, g := range last {
		live[c.lotOf(g)]++
		oldest = min(oldest, g)
	}
	for i := range c.lots {
		require.Equal(t, live[&c.lots[i]], c.lots[i].live)
		counted += c.lots[i].live
	}
	require.Equal(t, live[&c.old], c.old.live)
	require.Equal(t, len(last), counted)
	require.Equal(t, c.old.live == 0, all)
	if all {
		require.LessOrEqual(t, got, oldest)
		require.Less(t, oldest-got, max(16, c.present()/32), "what is joined is of about the same age")
	}
}

// However long entries stay as they are, a Freezer does not remember every epoch since, and is right when they go.
func TestFreezerForgets(t *testing.T) {
	const every = 500
	c := newCleaned(t, 1)
	c.freezer.when.From = 1 << 40
	var cold []determinant.Epoch
	for epoch := range 3 * mostLots {
		if epoch%every == 0 {
			c.set(0, fmt.Sprint("cold", len(cold)), epoch)
			cold = append(cold, c.epoch+1)
		}
		c.set(0, fmt.Sprint(epoch%9), epoch)
		c.freeze()
		require.LessOrEqual(t, len(c.freezer.freezes), 2*mostLots)
	}
	require.Len(t, c.images, 3*mostLots)
	for i := range len(cold) - 1 {
		c.clear(0, fmt.Sprint("cold", i))
		r := c.freeze()
		require.True(t, r.All)
		require.Less(t, r.Since, cold[i+1])
		require.Greater(t, r.Since+every/2, cold[i+1], "about when the next was written")
		c.requireAll()
	}
}

// Timers that stay are written again when many others came and went.
func TestTimersAreCleaned(t *testing.T) {
	clock := newTimerTable("timers")
	for i := range 1000 {
		clock.queue.Register(1<<40+int64(i), fmt.Sprint(i), "")
	}
	requireCleaned(t, clock, func(epoch int) {
		for i := range 30 {
			clock.queue.Register(int64(epoch), fmt.Sprint(i), "")
			clock.queue.Pop(int64(epoch-1), noMark)
		}
	})
}

// Panes of keys that stay as they are are written again when others have changed often.
func TestPanesAreCleaned(t *testing.T) {
	p := newPanes("panes", Codec[string](stringCodec{}), Codec[int](signedCodec[int]{}))
	in, _ := p.pane(0, 1<<40)
	for i := range 500 {
		k, err := p.enter(keyOf(fmt.Sprint(i)))
		require.NoError(t, err)
		p.add(k, in, i)
	}
	requireCleaned(t, p, func(epoch int) {
		for i := range 20 {
			k := p.index.find(keyOf(fmt.Sprint(i)))
			p.set(k, k.part(0), epoch)
		}
	})
}

// requireCleaned changes a table, a little for each epoch, and wants that it is always known since when all was written, and that it was not long ago.
func requireCleaned(t *testing.T, table Table, change func(epoch int)) {
	f := NewFreezer([]Table{table}, Cleaning{From: 1})
	f.Freeze(1)
	for epoch := 2; epoch < 500; epoch++ {
		change(epoch)
		r := f.Freeze(determinant.Epoch(epoch))
		for _, f := range r.Frozen { // which tells how big entries are
			require.NoError(t, f.Entries(func(key, value []byte, deleted bool) error { return nil }))
		}
		require.True(t, r.All)
		require.Less(t, epoch-int(r.Since), 150)
	}
}

// one is a table that cannot be cleaned.
type one struct{ frozen *frozenEntries }

func (o *one) ID() string                   { return "one" }
func (o *one) Freeze() Frozen               { return o.frozen }
func (o *one) Load(key, value []byte) error { return nil }

// A table that cannot be cleaned keeps the others from it, unless it freezes all that it has.
func TestNothingIsCleanedBesideOthers(t *testing.T) {
	tab := newTable("t", Codec[int](signedCodec[int]{}))
	other := &one{frozenValue("one", "key", []byte("value"))}
	f := NewFreezer([]Table{tab, other}, Cleaning{From: 1})
	for k := range 1000 {
		tab.set(keyOf(fmt.Sprint(k)), k)
	}
	require.True(t, f.Freeze(1).All)
	require.True(t, f.Freeze(2).All)
	other.frozen.whole = false
	r := f.Freeze(3)
	require.False(t, r.All)
	require.Zero(t, f.Freeze(4).State)
	other.frozen.whole = true
	require.Zero(t, f.Freeze(5).State)
	r = f.Freeze(6)
	require.True(t, r.State > 0 && r.All)
}

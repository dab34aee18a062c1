package operator

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
)

// What has not changed for long is written again, a little in each checkpoint and from memory, so that the images in which it was written before
// are not needed any more: they need not be read again to be merged with newer ones. That is how a log-structured file system cleans its log
// (Rosenblum and Ousterhout, The Design and Implementation of a Log-Structured File System, 1992), from its oldest end. As long as what was
// written is no more than twice the state, about a fifth of what is come upon still counts, if all keys change equally often.
const (
	// cleanedBy is how many times the state a search for the oldest part wants to make good.
	cleanedBy = 0.75
	// cleanedLooks is how many entries are looked at, at most, for each that was changed, and mostLooks in one barrier: it stands still for that.
	cleanedLooks = 4
	mostLooks    = 64 << 10
	// cleanedTurn is how many of one table are, before it is found out again which has the oldest.
	cleanedTurn = 64
	// mostLots is how many generations a table tells apart.
	mostLots = 4096
)

// Cleaning says when a task writes again what has not changed for long. Zero values are the defaults.
type Cleaning struct {
	From int64   // about how many bytes of state it has for that; default 1 MiB: what is smaller is soon merged
	To   float64 // how many times the state may have been written before the oldest part is written again; default 2
}

// EnsureDefaults fills in the defaults.
func (c *Cleaning) EnsureDefaults() {
	if c.From == 0 {
		c.From = 1 << 20
	}
	if c.To == 0 {
		c.To = 2
	}
}

// Freezer freezes the tables of one task, at each of its barriers.
type Freezer struct {
	tables []Table
	when   Cleaning

	generation uint64              // how many times it froze. Invariant: the present one of each cleanable table is the next
	first      uint64              // the generation of the first of epochs
	epochs     []determinant.Epoch // that ended with the generations, from the oldest on that anybody may ask for
	partly     bool                // the last time, a table that cannot be cleaned did not freeze all that it had
}

// NewFreezer is for tables that are empty or have just been restored.
func NewFreezer(tables []Table, when Cleaning) *Freezer {
	when.EnsureDefaults()
	return &Freezer{tables: tables, when: when, first: 1}
}

// Freezes is what a Freezer gives at a barrier.
type Freezes struct {
	Frozen []Frozen // by table
	// Since says, if All, that all that is in the tables is in what they froze after that epoch.
	Since determinant.Epoch
	All   bool
	// Cleans tells whether what does not change is written again.
	Cleans bool
}

// cleanable is a Table that can write again what has not changed for long.
type cleanable interface {
	Table
	// past is what was written when.
	past() *census
	// volume is how many entries have changed since the last Freeze, how many there are, and how many bytes one of them has, about.
	volume() (fresh, live int, bytes float64)
	// clean goes on with a search for entries that were written up to generation past().until, looks at so many, and writes them again. At the end of
	// the search it sets that to 0.
	clean(looks int)
}

// Freeze freezes the tables at the barrier that ends epoch e.
func (f *Freezer) Freeze(e determinant.Epoch) Freezes {
	r := Freezes{Cleans: f.clean()}
	for _, t := range f.tables {
		r.Frozen = append(r.Frozen, t.Freeze())
	}
	f.generation++
	f.epochs = append(f.epochs, e)
	needed := f.generation
	r.All, f.partly = true, false
	for i, t := range f.tables {
		c, ok := t.(cleanable)
		if !ok {
			if !r.Frozen[i].Whole() {
				r.All, f.partly = false, true
			}
			continue
		}
		oldest, known := c.past().oldest()
		needed, r.All = min(needed, oldest), r.All && known
	}
	f.epochs, f.first = f.epochs[needed-f.first:], needed
	if r.All {
		r.Since = f.epochs[0] - 1
	}
	return r
}

// clean has what is oldest written again, as long as more was written than the state is worth.
func (f *Freezer) clean() bool {
	written, live, fresh := f.bytes()
	if f.partly || live < float64(f.when.From) {
		return false
	}
	for looks := min(cleanedLooks*fresh, mostLooks); looks > 0 && written > f.when.To*live; looks -= cleanedTurn {
		t := f.oldest()
		if p := t.past(); p.until == 0 {
			_, live, _ := t.volume()
			p.search(int(cleanedBy * float64(live)))
		}
		t.clean(cleanedTurn)
		written, live, _ = f.bytes()
	}
	return true
}

// bytes is how many have been written and may still count, and how many there are, about; and how many entries were changed.
func (f *Freezer) bytes() (written, live float64, fresh int) {
	for _, t := range f.tables {
		if c, ok := t.(cleanable); ok {
			now, n, bytes := c.volume()
			written, live, fresh = written+float64(c.past().written()+now)*bytes, live+float64(n)*bytes, fresh+now
		}
	}
	return written, live, fresh
}

// oldest is the table that has what was written first.
func (f *Freezer) oldest() (first cleanable) {
	var least uint64
	for _, t := range f.tables {
		if c, ok := t.(cleanable); ok {
			generation, known := c.past().oldest()
			if !known {
				generation = 0
			}
			if first == nil || generation < least {
				first, least = c, generation
			}
		}
	}
	return first
}

// census is how many entries of a table were written in each of its generations. They are numbered from 1, by how often it was frozen; what the
// table was restored with is of 0.
//
// Invariant: each entry of the table that was frozen counts once as live: in old if it was last written in base or before, otherwise in the lot of
// that generation.
type census struct {
	base uint64 // generations up to this one are not told apart
	old  lot
	lots []lot // of those after base, up to the last one that was frozen; the first has some that are live, if old has none
	all  int   // written, in lots

	until uint64 // what was written up to this generation is searched for, to be written again; 0: nothing is
	at    int    // where the search goes on
}

// lot is how many entries were written in a generation, deleted ones included, and how many of them still count.
type lot struct{ written, live int }

// present is the generation that is to be frozen next.
func (c *census) present() uint64 { return c.base + uint64(len(c.lots)) + 1 }

// loaded notes entries that the table was restored with.
func (c *census) loaded(entries int) {
	c.old.written += entries
	c.old.live += entries
}

// replaced notes that an entry that was last written in that generation is written again, or removed.
func (c *census) replaced(generation uint64) {
	l := &c.old
	if generation > c.base {
		l = &c.lots[generation-c.base-1]
	}
	if l.live--; l.live < 0 {
		panic(fmt.Sprintf("operator: assertion: more entries of generation %d are replaced than it had", generation))
	}
}

// froze ends the generation, in which so many entries were written, of which so many are live.
func (c *census) froze(written, live int) {
	c.lots = append(c.lots, lot{written, live})
	c.all += written
	if c.settle(); len(c.lots) > mostLots {
		for _, l := range c.lots[:mostLots/2] {
			c.old.written += l.written
			c.old.live += l.live
			c.all -= l.written
		}
		c.base += mostLots / 2
		c.lots = slices.Delete(c.lots, 0, mostLots/2)
		c.settle()
	}
}

// settle drops the oldest generations of which nothing is left.
func (c *census) settle() {
	if c.old.live > 0 {
		return
	}
	c.old = lot{}
	for len(c.lots) > 0 && c.lots[0].live == 0 {
		c.all -= c.lots[0].written
		c.lots = c.lots[1:]
		c.base++
	}
}

// written is how many entries were written since the first that counts, but for the present generation.
func (c *census) written() int {
	c.settle()
	return c.old.written + c.all
}

// oldest is the first generation after base of which something is left, the present one if there is no other. It is not known what the oldest is
// if something is left of base, or of those before.
func (c *census) oldest() (generation uint64, known bool) {
	c.settle()
	return c.base + 1, c.old.live == 0
}

// search begins a search for what was written first, so much of it, or a generation at least.
func (c *census) search(written int) {
	c.until, c.at = c.base, 0
	found := c.old.written
	for i := 0; i < len(c.lots) && (found < written || c.until == 0); i++ {
		c.until++
		found += c.lots[i].written
	}
}

// entrySize finds out how many bytes an entry of a table has in an image. It is for any goroutine.
type entrySize struct{ bytes, entries atomic.Int64 }

// sizeOf is how many entries count: older ones weigh half as much.
const sizeOf = 1 << 16

// someEntries are enough for an estimate.
const someEntries = 256

// saw notes entries with so many bytes.
func (s *entrySize) saw(bytes, entries int) {
	b, n := s.bytes.Add(int64(bytes)), s.entries.Add(int64(entries))
	if n >= sizeOf { // another may halve beside: it is an estimate
		s.bytes.Store(b / 2)
		s.entries.Store(n / 2)
	}
}

// mean is the mean of them, 0 if none was seen.
func (s *entrySize) mean() float64 {
	if n := s.entries.Load(); n > 0 {
		return float64(s.bytes.Load()) / float64(n)
	}
	return 0
}

// past implements cleanable.
func (t *table[T]) past() *census { return &t.census }

// volume implements cleanable.
func (t *table[T]) volume() (fresh, live int, bytes float64) {
	return len(t.dirty), t.len(), t.size.mean()
}

// clean implements cleanable. Entries move when others are removed, or the index grows, so some may be left for the next search; only resident
// ones, which come first, are searched for until none is left.
func (t *table[T]) clean(looks int) {
	c := &t.census
	for ; looks > 0; looks-- {
		if t.resident != nil {
			c.at %= len(t.resident.slots)
			if e := t.resident.slots[c.at].at; e != nil {
				k := keyBytes{bytes: []byte(e.key)}
				k.sum()
				t.rewrite(t.thaw(&k)) // another may take its place
			} else {
				c.at++
			}
			continue
		}
		if c.at >= len(t.cells.slots) {
			c.until = 0
			return
		}
		if e := t.cells.slots[c.at].at; e != nil && e.live && e.generation <= c.until {
			t.rewrite(e)
		}
		c.at++
	}
}

// rewrite writes a live entry again as it is.
func (t *table[T]) rewrite(c *cell[T]) {
	if now := t.change(c); now != c {
		now.value = c.value
	}
}

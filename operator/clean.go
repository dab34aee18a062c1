package operator

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
)

// What has not changed for long is written again, a little in each checkpoint and from memory, so that the images in which it was written before
// are not needed any more: they need not be read again to be merged with newer ones. That is how a log-structured file system cleans its log
// (Rosenblum and Ousterhout, The Design and Implementation of a Log-Structured File System, 1992), from its oldest end. If what was
// written is 2.5 times the state, about a tenth of what is come upon still counts, if all keys change equally often.
const (
	// cleanedBy is how many times the state a search for the oldest part wants to make good.
	cleanedBy = 0.75
	// cleanedLooks is how many entries are looked at, at most, for each that was changed, and mostLooks in one barrier: it stands still for that.
	cleanedLooks = 8
	mostLooks    = 64 << 10
	// cleanedTurn is how many of one table are, before it is found out again which has the oldest.
	cleanedTurn = 64
	// rewriteLooks are what it counts as more to write an entry again.
	rewriteLooks = 1
)

// Cleaning says when a task writes again what has not changed for long. Zero values are the defaults.
type Cleaning struct {
	From int64   // about how many bytes of state it has for that; default 1 MiB: what is smaller is soon merged
	To   float64 // how many times the state may have been written before the oldest part is written again; default 2.5
}

// EnsureDefaults fills in the defaults.
func (c *Cleaning) EnsureDefaults() {
	if c.From == 0 {
		c.From = 1 << 20
	}
	if c.To == 0 {
		c.To = 2.5
	}
}

// Freezer freezes the tables of one task, at each of its barriers.
type Freezer struct {
	tables []Table
	clean  []cleanable // of tables, those that are
	when   Cleaning

	generation uint64     // how many times it froze. Invariant: the present one of each cleanable table is the next
	freezes    []freezeOf // in order, not all of them, from the oldest on that anybody may ask for
	partly     bool       // the last time, a table that cannot be cleaned did not freeze all that it had
}

// NewFreezer is for tables that are empty or have just been restored.
func NewFreezer(tables []Table, when Cleaning) *Freezer {
	when.EnsureDefaults()
	f := &Freezer{tables: tables, when: when}
	for _, t := range tables {
		if c, ok := t.(cleanable); ok {
			f.clean = append(f.clean, c)
		}
	}
	return f
}

// freezeOf says which epoch ended with a generation.
type freezeOf struct {
	generation uint64
	epoch      determinant.Epoch
}

// Freezes is what a Freezer gives at a barrier.
type Freezes struct {
	Frozen []Frozen // by table
	// Since says, if All, that all that is in the tables is in what they froze after that epoch.
	Since determinant.Epoch
	All   bool
	// State is 0 unless what does not change is written again; then it is about how many bytes all has that is in the tables.
	State uint64
}

// cleanable is a Table that can write again what has not changed for long.
type cleanable interface {
	Table
	// past is what was written when.
	past() *census
	// volume is how many entries have changed since the last Freeze, how many there are, and how many bytes one of them has, about.
	volume() (fresh, live int, bytes float64)
	// clean goes on with a search for entries that were written up to generation past().until, looks at so many, and writes them again. It ends the
	// search when there are no others.
	clean(looks int)
}

// Freeze freezes the tables at the barrier that ends epoch e.
func (f *Freezer) Freeze(e determinant.Epoch) Freezes {
	r := Freezes{State: f.rewrite()}
	for _, t := range f.tables {
		r.Frozen = append(r.Frozen, t.Freeze())
	}
	f.generation++
	f.freezes = append(f.freezes, freezeOf{f.generation, e})
	needed := f.generation
	r.All, f.partly = true, false
	for i, t := range f.tables {
		if _, ok := t.(cleanable); !ok && !r.Frozen[i].Whole() {
			r.All, f.partly = false, true
		}
	}
	for _, t := range f.clean {
		oldest, all := t.past().oldest()
		needed, r.All = min(needed, oldest), r.All && all
	}
	if f.forget(needed); r.All {
		r.Since = f.freezes[0].epoch - 1
	}
	return r
}

// forget forgets the freezes before that of a generation. If there are very many left, it forgets every other one of the older half: what is asked of
// the one after it is answered by the one before, to be safe.
func (f *Freezer) forget(before uint64) {
	first := 0
	for first+1 < len(f.freezes) && f.freezes[first+1].generation <= before {
		first++
	}
	if f.freezes = f.freezes[first:]; len(f.freezes) > 2*mostLots {
		for i := range mostLots / 2 {
			f.freezes[i] = f.freezes[2*i]
		}
		f.freezes = slices.Delete(f.freezes, mostLots/2, mostLots)
	}
}

// rewrite has what is oldest written again, as long as more was written than the state is worth, of which it says how much that is; 0: it is not to be
// cleaned.
func (f *Freezer) rewrite() uint64 {
	written, live, fresh := f.bytes()
	if f.partly || live < float64(f.when.From) {
		return 0
	}
	for looks := min(cleanedLooks*fresh, mostLooks); looks > 0 && written > f.when.To*live; looks -= cleanedTurn {
		t := f.oldest()
		if p := t.past(); !p.on || p.found() {
			_, live, _ := t.volume()
			p.search(int(cleanedBy * float64(live)))
		}
		t.clean(cleanedTurn)
		written, live, _ = f.bytes()
	}
	return uint64(live)
}

// bytes is how many have been written and may still count, and how many there are, about; and how many entries were changed.
func (f *Freezer) bytes() (written, live float64, fresh int) {
	for _, t := range f.clean {
		now, n, bytes := t.volume()
		written, live, fresh = written+float64(t.past().written()+now)*bytes, live+float64(n)*bytes, fresh+now
	}
	return written, live, fresh
}

// oldest is the table that has what was written first.
func (f *Freezer) oldest() (first cleanable) {
	var least uint64
	for _, t := range f.clean {
		generation, all := t.past().oldest()
		if !all {
			generation = 0
		}
		if first == nil || generation < least {
			first, least = t, generation
		}
	}
	return first
}

// census is how many entries of a table were written in each of its generations. They are numbered from 1, by how often it was frozen; what the
// table was restored with is of 0.
//
// Invariant: each entry of the table that was frozen counts once as live: in old if the table was restored with it and it was not written since,
// otherwise in the lot that has the generation in which it was written last.
type census struct {
	old    lot
	lots   []lot  // in the order of their generations, up to the last that was frozen; the first has some that are live, if old has none
	joined int    // so many lots, the first ones, may have more than one generation
	frozen uint64 // generations
	all    int    // written, in lots

	until uint64 // what was written up to this generation is searched for, to be written again
	on    bool   // the search is under way
	at    int    // where it goes on
}

// lot is how many entries were written in some generations, and how many of them still count.
type lot struct {
	first         uint64 // generation; the last is the one before the next lot
	written, live int
}

const (
	// mostLots is how many lots a table has. Neighbours are joined before there are more.
	mostLots = 4096
	// restoredAs is how many times what a table is restored with counts as written: in the store it is more than once.
	restoredAs = 1.5
	// deletions count as written as one entry.
	deletions = 4
)

// present is the generation that is to be frozen next.
func (c *census) present() uint64 { return c.frozen + 1 }

// loaded notes entries that the table was restored with.
func (c *census) loaded(entries int) {
	c.old.live += entries
	c.old.written = int(restoredAs * float64(c.old.live))
}

// replaced notes that an entry that was last written in that generation is written again, or removed.
func (c *census) replaced(generation uint64) {
	l := c.lotOf(generation)
	if l.live--; l.live < 0 {
		panic(fmt.Sprintf("operator: assertion: more entries of generation %d are replaced than it had", generation))
	}
}

// lotOf is the lot that has a generation that was frozen.
func (c *census) lotOf(generation uint64) *lot {
	if generation == 0 {
		return &c.old
	}
	if single := c.lots[c.joined:]; len(single) > 0 && generation >= single[0].first {
		return &single[generation-single[0].first]
	}
	i, found := slices.BinarySearchFunc(c.lots[:c.joined], generation, func(l lot, g uint64) int { return cmp.Compare(l.first, g) })
	if !found {
		i--
	}
	return &c.lots[i]
}

// froze ends the generation, in which so many entries were set, and so many deleted.
func (c *census) froze(set, deleted int) {
	c.frozen++
	l := lot{first: c.frozen, written: set + deleted/deletions, live: set}
	c.lots, c.all = append(c.lots, l), c.all+l.written
	if c.settle(); len(c.lots) > mostLots {
		c.join()
	}
}

// join makes one lot of every two of the older half.
func (c *census) join() {
	n := len(c.lots) / 4
	for i := range n {
		a, b := c.lots[2*i], c.lots[2*i+1]
		c.lots[i] = lot{a.first, a.written + b.written, a.live + b.live}
	}
	c.lots = slices.Delete(c.lots, n, 2*n)
	c.joined = n + max(0, c.joined-2*n)
}

// settle drops the oldest generations of which nothing is left.
func (c *census) settle() {
	if c.old.live > 0 {
		return
	}
	c.old = lot{}
	gone := 0
	for gone < len(c.lots) && c.lots[gone].live == 0 {
		c.all -= c.lots[gone].written
		gone++
	}
	c.lots, c.joined = c.lots[gone:], max(0, c.joined-gone)
}

// written is how many entries were written since the first that counts, but for the present generation.
func (c *census) written() int {
	c.settle()
	return c.old.written + c.all
}

// oldest is the first generation of which something is left, the present one if there is none; that is not all if something is left that the table was
// restored with.
func (c *census) oldest() (generation uint64, all bool) {
	c.settle()
	if len(c.lots) > 0 {
		return c.lots[0].first, c.old.live == 0
	}
	return c.present(), c.old.live == 0
}

// found tells whether nothing is left of what is searched for.
func (c *census) found() bool {
	oldest, all := c.oldest()
	return all && oldest > c.until
}

// search begins a search for what was written first, so much of it, or a lot at least.
func (c *census) search(written int) {
	c.on, c.until, c.at = true, 0, 0
	found := c.old.written
	for i := 0; i < len(c.lots) && found < max(1, written); i++ {
		found += c.lots[i].written
		if c.until = c.frozen; i+1 < len(c.lots) {
			c.until = c.lots[i+1].first - 1
		}
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

// entryHeads is about how many bytes the lengths of an entry have in an image.
const entryHeads = 4

// of is about how many bytes so many entries have in an image, -1 if that is not known.
func (s *entrySize) of(entries int) int {
	mean := s.mean()
	if mean == 0 && entries > 0 {
		return -1
	}
	return int((mean + entryHeads) * float64(entries))
}

// past implements cleanable.
func (t *table[T]) past() *census { return &t.census }

// volume implements cleanable.
func (t *table[T]) volume() (fresh, live int, bytes float64) {
	return len(t.dirty) - t.deleted + len(t.again) + t.deleted/deletions, t.len(), t.size.mean()
}

// clean implements cleanable: resident entries, which are written again as the bytes that they are, and then cells. They move when others are
// removed, or an index grows, so some may be left for the next search.
func (t *table[T]) clean(looks int) {
	c, resident := &t.census, 0
	if t.resident != nil {
		resident = len(t.resident.slots)
	}
	for ; looks > 0 && c.at < resident+len(t.cells.slots); looks-- {
		if c.at < resident {
			if e := t.resident.slots[c.at].at; e != nil && e.generation <= c.until {
				c.replaced(e.generation)
				e.generation = t.generation
				t.again = append(t.again, e)
				looks -= rewriteLooks
			}
		} else if e := t.cells.slots[c.at-resident].at; e != nil && e.live && e.generation <= c.until {
			t.rewrite(e)
			looks -= rewriteLooks
		}
		c.at++
	}
	c.on = c.at < resident+len(t.cells.slots)
}

// rewrite writes a live entry again as it is.
func (t *table[T]) rewrite(c *cell[T]) {
	if now := t.change(c); now != c {
		now.value = c.value
	}
}

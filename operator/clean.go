package operator

import (
	"sync/atomic"

	"github.com/understudy-stream/understudy/determinant"
)

// What has not changed for long is written again, a little in each checkpoint and from memory, so that the images in which it was written before
// are not needed any more: they need not be read again to be merged with newer ones. That is how a log-structured file system cleans its log
// (Rosenblum and Ousterhout, The Design and Implementation of a Log-Structured File System, 1992), from its oldest end. As long as what was
// written is no more than twice the state, about a fifth of what is come upon still counts, if all keys change equally often.
const (
	// cleanedFrom is how many bytes a task's state has for that, about. What is smaller is soon merged.
	cleanedFrom = 1 << 20
	// cleanedTo is how many times the state may have been written before its oldest part is.
	cleanedTo = 2
	// cleanedLooks is how many entries are looked at, at most, for each that was changed, and mostLooks in one barrier: it stands still for that.
	cleanedLooks = 4
	mostLooks    = 64 << 10
	// cleanedTurn is how many of one table are, before it is found out again which has the oldest.
	cleanedTurn = 64
	// forgottenFrom is how many times the state was written when the order of that is forgotten: nobody cleans.
	forgottenFrom = 4
	// spareHashes are kept in memory for the next generation, and some for each entry that there is.
	spareHashes = 1024
)

// Freezer freezes the tables of one task, at each of its barriers.
type Freezer struct {
	tables []Table
	least  int64 // bytes of state that are cleaned

	generation uint64              // how many times it froze. Invariant: the present one of each cleanable table is the next
	first      uint64              // the generation of the first of epochs
	epochs     []determinant.Epoch // that ended with the generations, from the oldest on that anybody may ask for
	partly     bool                // the last time, a table that cannot be cleaned did not freeze all that it had
}

// NewFreezer is for tables that are empty or have just been restored. least is how many bytes of state are cleaned, about; 0 is the default.
func NewFreezer(tables []Table, least int64) *Freezer {
	if least == 0 {
		least = cleanedFrom
	}
	return &Freezer{tables: tables, least: least, first: 1}
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
	// written is how many entries were written that may still count and were not looked at again, of which so many are fresh: not frozen yet; live
	// is how many the table has, and bytes about what an entry has.
	written() (written, fresh, live int, bytes float64)
	// oldest is the first generation whose entries may still count, but for those that are older than all that is known; none tells that there
	// are no such.
	oldest() (generation uint64, none bool)
	// clean looks at so many of the oldest entries that were written, and writes those again that still count.
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
		oldest, none := c.oldest()
		needed, r.All = min(needed, oldest), r.All && none
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
	if f.partly || live < float64(f.least) {
		return false
	}
	for looks := min(cleanedLooks*fresh, mostLooks); looks > 0 && written > cleanedTo*live; looks -= cleanedTurn {
		f.oldest().clean(cleanedTurn)
		written, live, _ = f.bytes()
	}
	return true
}

// bytes is how many have been written and may still count, and how many there are, about; and how many entries were changed.
func (f *Freezer) bytes() (written, live float64, fresh int) {
	for _, t := range f.tables {
		if c, ok := t.(cleanable); ok {
			w, now, n, bytes := c.written()
			written, live, fresh = written+float64(w)*bytes, live+float64(n)*bytes, fresh+now
		}
	}
	return written, live, fresh
}

// oldest is the table that has what was written first.
func (f *Freezer) oldest() (first cleanable) {
	var least uint64
	for _, t := range f.tables {
		if c, ok := t.(cleanable); ok {
			generation, none := c.oldest()
			if !none {
				generation = 0
			}
			if first == nil || generation < least {
				first, least = c, generation
			}
		}
	}
	return first
}

// past is which entries of a table were written in which generation.
//
// Invariant: each entry of the table was last written in base or before, and then counts in old; or in the generation of a lot and is named there,
// at or behind its place; or in the present one, and is named in now.
type past struct {
	base uint64   // generations up to this one are not told apart: what the table was restored with is of 0
	old  int      // entries that were last written in those
	lump float64  // about how many were written in those and not looked for, whether they still count or not
	at   int      // the slot of the index where the search for them goes on
	lots []lot    // of the generations that were frozen after base, in order; the first has some that were not looked at
	rest int      // hashes in lots that were not
	now  []uint64 // hashes of the keys that were written in the present one
	free []uint64 // memory for the next
}

// lot has the hashes of the keys that were written in one generation.
type lot struct {
	generation uint64
	hashes     []uint64
	at         int // those before were looked at
}

// loaded notes entries that the table was restored with.
func (p *past) loaded(entries int) { p.old, p.lump = p.old+entries, p.lump+float64(entries) }

// wrote notes that an entry is written in the present generation.
func (p *past) wrote(hash uint64) { p.now = append(p.now, hash) }

// replaced notes that an entry that was last written in that generation is written again, or removed.
func (p *past) replaced(generation uint64) {
	if generation <= p.base {
		p.old--
	}
}

// froze ends the generation. all says that all entries of the table were written in it; live is how many it has.
func (p *past) froze(generation uint64, all bool, live int) {
	if all || live == 0 {
		p.base, p.old, p.rest = generation-1, 0, 0
		for i := range p.lots {
			p.lots[i].at = len(p.lots[i].hashes)
		}
	}
	p.settle()
	if live > 0 {
		p.lots = append(p.lots, lot{generation: generation, hashes: p.now})
		p.rest += len(p.now)
	} else {
		p.free = p.now
	}
	if p.written() > forgottenFrom*live+mostLooks {
		*p = past{base: generation, old: live, lump: float64(live)}
	}
	if p.now = nil; cap(p.free) <= spareHashes+4*live { // a burst's memory is not kept
		p.now = p.free[:0]
	}
	p.free = nil
}

// settle drops the lots that were looked at.
func (p *past) settle() {
	done := 0
	for done < len(p.lots) && p.lots[done].at == len(p.lots[done].hashes) {
		if cap(p.lots[done].hashes) > cap(p.free) {
			p.free = p.lots[done].hashes
		}
		p.lots[done].hashes = nil
		done++
	}
	p.lots = p.lots[done:]
}

// written is how many entries were written that may still count and were not looked at.
func (p *past) written() int {
	if p.old == 0 {
		return p.rest + len(p.now)
	}
	return p.rest + len(p.now) + max(p.old, int(p.lump))
}

// oldest is the first generation after base whose entries may still count, the present one if there is no other.
func (p *past) oldest(present uint64) uint64 {
	if len(p.lots) > 0 {
		return p.lots[0].generation
	}
	return present
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

// written implements cleanable.
func (t *table[T]) written() (written, fresh, live int, bytes float64) {
	return t.past.written(), len(t.past.now), t.len(), t.size.mean()
}

// oldest implements cleanable.
func (t *table[T]) oldest() (generation uint64, none bool) {
	return t.past.oldest(t.generation), t.past.old == 0
}

// clean implements cleanable.
func (t *table[T]) clean(looks int) {
	p := &t.past
	for ; looks > 0 && p.old > 0; looks-- {
		t.cleanSlot()
	}
	for looks > 0 && len(p.lots) > 0 {
		l := &p.lots[0]
		for ; looks > 0 && l.at < len(l.hashes); looks-- {
			for {
				c := t.cells.hashed(l.hashes[l.at], func(c *cell[T]) bool { return c.live && c.generation == l.generation })
				if c == nil {
					break
				}
				t.rewrite(c) // which may have others of the same hash move
			}
			l.at++
			p.rest--
		}
		p.settle()
	}
}

// cleanSlot goes on with the search for entries of base by one slot, those of the resident ones first. Entries move when others are removed, or the
// index grows, so the search begins again until it has found all.
func (t *table[T]) cleanSlot() {
	p := &t.past
	cells, resident := len(t.cells.slots), 0
	if t.resident != nil {
		resident = len(t.resident.slots)
	}
	if p.at >= max(cells, resident) {
		p.at = 0
	}
	if resident > 0 {
		p.at %= resident
		p.lump -= p.lump / float64(cells+resident-p.at)
		if e := t.resident.slots[p.at].at; e != nil {
			k := keyBytes{bytes: []byte(e.key)}
			k.sum()
			t.rewrite(t.thaw(&k)) // another may take its place
			return
		}
	} else {
		p.lump -= p.lump / float64(cells-p.at)
		if c := t.cells.slots[p.at].at; c != nil && c.live && c.generation <= p.base {
			t.rewrite(c)
		}
	}
	p.at++
}

// rewrite writes a live entry again as it is.
func (t *table[T]) rewrite(c *cell[T]) {
	if now := t.change(c); now != c {
		now.value = c.value
	}
}

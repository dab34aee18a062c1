package operator

import (
	"fmt"
	"iter"
	"slices"
)

// table is keyed state of one type: encoded key to value.
//
// Freezing is a swap, or, if little has changed, a copy of that as bytes. A cell that was swapped is not changed any more: the first change
// after that Freeze makes a new one, so that whoever encodes the frozen ones sees what was there at the barrier. What a value points to is
// changed by those only who ask by ref, and then the new cell's value is a copy.
type table[T any] struct {
	id    string
	codec Codec[T]
	cells keyIndex[cell[T], *cell[T]] // with those deleted in this generation, until it is frozen
	// resident has entries that nobody has asked for since the task was restored; nil: none. Invariant: no key is in both.
	resident *residentIndex
	lists    memberLists // what a Resident knew of the members of a map; nil: nothing
	census   census
	size     *entrySize // shared with what was frozen
	// Invariant: dirty holds each cell of the present generation once.
	dirty      []*cell[T]
	again      []*residentEntry // likewise those of resident, to be written as they are
	deleted    int              // how many cells are not live
	generation uint64
	shared     uint64 // the last generation whose cells were swapped
	copies     int    // entries that Freeze copies, at most
	much       int    // for so many times it does not try to, since it was too much
	buf        []byte // of copy, and of thaw
	seen       uint64 // what look read, so that it is read
}

type cell[T any] struct {
	key        string
	hash       uint64
	value      T
	generation uint64 // 0 if it was loaded
	// Invariant: a cell that is not live is of the present generation.
	live bool
	own  bool // the value shares no memory with any other: it was made by ref, and not replaced since
}

func (c *cell[T]) name() (key string, hash uint64) { return c.key, c.hash }

func newTable[T any](id string, codec Codec[T]) *table[T] {
	return &table[T]{id: id, codec: codec, generation: 1, copies: copiedEntries, size: &entrySize{}}
}

// adopt implements adopter.
func (t *table[T]) adopt(entries *residentTable) error {
	t.resident, t.lists = &entries.residentIndex, entries.lists
	t.census.loaded(entries.count)
	for e := range entries.all() {
		if t.size.saw(len(e.key)+len(e.value), 1); t.size.entries.Load() == someEntries {
			break
		}
	}
	return nil
}

// find gives the cell of a key, nil if there is none.
func (t *table[T]) find(key *keyBytes) *cell[T] {
	if c := t.cells.find(key); c != nil || t.resident == nil {
		return c
	}
	return t.thaw(key)
}

// thaw makes a cell of an entry that was not asked for before, as if it had been loaded; nil if there is none.
func (t *table[T]) thaw(key *keyBytes) *cell[T] {
	e := t.resident.find(key)
	if e == nil {
		return nil
	}
	t.buf = append(t.buf[:0], e.value...)
	v, err := t.codec.Decode(t.buf)
	if err != nil {
		panic(unreadable{fmt.Errorf("operator: table %q: reading back key %q: %w", t.id, key.bytes, err)})
	}
	if e.generation == t.generation {
		panic(fmt.Sprintf("operator: assertion: table %q is asked for key %q between its cleaning and its freeze", t.id, key.bytes))
	}
	c := &cell[T]{key: e.key, hash: e.hash, value: v, live: true, generation: e.generation}
	t.cells.put(c)
	if t.resident.remove(e); t.resident.count == 0 {
		t.resident = nil
	}
	return c
}

// get finds the value of a key. It is to be replaced, not changed, unless by ref.
func (t *table[T]) get(key *keyBytes) (v T, ok bool) {
	if c := t.find(key); c != nil && c.live {
		return c.value, true
	}
	return v, false
}

// set puts a value and returns its cell.
func (t *table[T]) set(key *keyBytes, v T) *cell[T] {
	c := t.find(key)
	switch {
	case c == nil:
		c = t.enter(&cell[T]{key: string(key.bytes), hash: key.hash, live: true})
	case c.generation != t.generation:
		c = t.change(c)
	case !c.live:
		c.live = true
		t.deleted--
	}
	c.value, c.own = v, false
	return c
}

// ref gives the value of a key to be changed in place, also what it points to: the zero value, from now on, if there is none. known tells
// whether there was one.
//
// Invariant: what it gives shares no memory with a frozen value, nor with any that was given out or set: so that is copied first.
func (t *table[T]) ref(key *keyBytes) (v *T, full string, known bool) {
	c := t.find(key)
	known = c != nil && c.live
	switch {
	case known && c.own && c.generation == t.generation:
	case known && c.own && t.unshared(c):
		c = t.change(c)
	default:
		var value T
		if known {
			value = t.copy(c)
		}
		c = t.set(key, value)
		c.own = true
	}
	return &c.value, c.key, known
}

// copy makes a value that shares no memory with the cell's.
func (t *table[T]) copy(c *cell[T]) T {
	var err error
	if t.buf, err = t.codec.Append(t.buf[:0], c.value); err != nil {
		panic(fmt.Errorf("operator: table %q: encoding key %q: %w", t.id, c.key, err))
	}
	v, err := t.codec.Decode(t.buf)
	if err != nil {
		panic(fmt.Errorf("operator: table %q: reading back key %q: %w", t.id, c.key, err))
	}
	return v
}

// clear deletes a key and tells whether it was there.
func (t *table[T]) clear(key *keyBytes) bool {
	c := t.find(key)
	if c == nil || !c.live {
		return false
	}
	if c.generation != t.generation {
		c = t.change(c)
	}
	var zero T
	c.value, c.live = zero, false
	t.deleted++
	return true
}

// enter puts a new cell of the present generation in the place of an older one, if there is one.
func (t *table[T]) enter(c *cell[T]) *cell[T] {
	t.cells.put(c)
	return t.touch(c)
}

// touch makes a cell one of the present generation.
func (t *table[T]) touch(c *cell[T]) *cell[T] {
	c.generation = t.generation
	t.dirty = append(t.dirty, c)
	return c
}

// unshared tells whether nobody may be encoding a live cell.
func (t *table[T]) unshared(c *cell[T]) bool { return c.generation > t.shared || c.generation == 0 }

// change gives what may be changed in the place of a cell of an older generation: a new one without value, or, if nobody may be encoding it, the
// cell itself.
func (t *table[T]) change(c *cell[T]) *cell[T] {
	t.census.replaced(c.generation)
	if t.unshared(c) {
		return t.touch(c)
	}
	return t.enter(&cell[T]{key: c.key, hash: c.hash, live: true})
}

// len is how many keys are live.
func (t *table[T]) len() int {
	n := t.cells.count - t.deleted
	if t.resident != nil {
		n += t.resident.count
	}
	return n
}

// all goes through the live keys, in no order. The table must not be looked at meanwhile.
func (t *table[T]) all() iter.Seq[string] {
	return func(yield func(string) bool) {
		for c := range t.cells.all() {
			if c.live && !yield(c.key) {
				return
			}
		}
		if t.resident == nil {
			return
		}
		for e := range t.resident.all() {
			if !yield(e.key) {
				return
			}
		}
	}
}

// keys lists the live keys in order. It costs the whole table.
func (t *table[T]) keys() []string { return slices.Sorted(t.all()) }

// ID implements Table.
func (t *table[T]) ID() string { return t.id }

// Freeze implements Table.
func (t *table[T]) Freeze() Frozen {
	f, whole := t.copied(), len(t.dirty)+len(t.again) == t.len()+t.deleted
	t.census.froze(len(t.dirty)-t.deleted+len(t.again), t.deleted)
	if t.deleted > 0 {
		for _, c := range t.dirty {
			if !c.live {
				t.cells.remove(c)
			}
		}
		t.deleted = 0
	}
	t.generation++
	if f != nil {
		clear(t.dirty)
		t.dirty, t.again = t.dirty[:0], nil
		f.whole = whole
		return f
	}
	swapped := &frozenTable[T]{id: t.id, codec: t.codec, cells: t.dirty, again: t.again, whole: whole, size: t.size}
	t.dirty, t.again, t.shared = nil, nil, t.generation-1
	return swapped
}

// Below so many entries and bytes, what has changed is copied at the barrier. It stands still for it, for less than a millisecond; but otherwise each
// first change after the barrier would make a new cell, in the middle of what the checkpoint costs anyway, and that takes several times as long.
const (
	copiedEntries = 4096
	copiedBytes   = 512 << 10
	muchAgain     = 16 // barriers after one at which the bytes were too many
)

// copied is what has changed, as bytes; nil if that is too much.
func (t *table[T]) copied() *frozenCopy {
	n := len(t.dirty) + len(t.again)
	if t.much > 0 || n > t.copies {
		t.much = max(0, t.much-1)
		return nil
	}
	f := &frozenCopy{id: t.id, keys: keysOf(n), values: keysOf(n), deleted: make([]bool, n)}
	for i := range n {
		f.err = t.copyTo(f, i)
		if f.err != nil {
			break
		}
		if len(f.keys.all)+len(f.values.all) > copiedBytes {
			t.much = muchAgain
			return nil
		}
	}
	t.size.saw(len(f.keys.all)+len(f.values.all), n)
	return f
}

// copyTo adds to a copy the i-th of what has changed.
func (t *table[T]) copyTo(f *frozenCopy, i int) (err error) {
	if k := i - len(t.dirty); k >= 0 {
		f.keys.all = append(f.keys.all, t.again[k].key...)
		f.values.all = append(f.values.all, t.again[k].value...)
	} else {
		c := t.dirty[i]
		f.keys.all = append(f.keys.all, c.key...)
		if f.deleted[i] = !c.live; c.live {
			if f.values.all, err = t.codec.Append(f.values.all, c.value); err != nil {
				return fmt.Errorf("operator: table %q: encoding key %q: %w", t.id, c.key, err)
			}
		}
	}
	f.keys.end()
	f.values.end()
	return nil
}

// Load implements Table.
func (t *table[T]) Load(key, value []byte) error {
	v, err := t.codec.Decode(value)
	if err != nil {
		return fmt.Errorf("operator: table %q: reading back key %q: %w", t.id, key, err)
	}
	k := keyBytes{bytes: key}
	k.sum()
	c := &cell[T]{key: string(key), hash: k.hash, value: v, live: true}
	t.cells.put(c)
	t.census.loaded(1)
	t.size.saw(len(key)+len(value), 1)
	return nil
}

// frozenTable is what changed in a table during one generation. Nothing changes it any more.
type frozenTable[T any] struct {
	id    string
	codec Codec[T]
	cells []*cell[T]
	again []*residentEntry
	whole bool
	size  *entrySize
}

// Table implements Frozen.
func (f *frozenTable[T]) Table() string { return f.id }

// Whole implements Frozen.
func (f *frozenTable[T]) Whole() bool { return f.whole }

// Bytes implements checkpoint.Sized.
func (f *frozenTable[T]) Bytes() int { return f.size.of(len(f.cells) + len(f.again)) }

// Entries implements Frozen; entries come in the order of their keys.
func (f *frozenTable[T]) Entries(yield func(key, value []byte, deleted bool) error) error {
	keys := keysOf(len(f.cells) + len(f.again))
	for _, c := range f.cells {
		keys.all = append(keys.all, c.key...)
		keys.end()
	}
	for _, e := range f.again {
		keys.all = append(keys.all, e.key...)
		keys.end()
	}
	var value []byte
	bytes, order := len(keys.all), keys.order()
	for n, r := range order {
		if n%lookAhead == 0 {
			f.look(order[n:min(n+lookAhead, len(order))])
		}
		value = value[:0]
		deleted := false
		if k := r.at - len(f.cells); k >= 0 {
			value = append(value, f.again[k].value...)
		} else if c := f.cells[r.at]; c.live {
			var err error
			if value, err = f.codec.Append(value, c.value); err != nil {
				return fmt.Errorf("operator: table %q: encoding key %q: %w", f.id, c.key, err)
			}
		} else {
			deleted = true
		}
		bytes += len(value)
		if err := yield(keys.key(r.at), value, deleted); err != nil {
			return err
		}
	}
	f.size.saw(bytes, len(f.cells)+len(f.again))
	return nil
}

// lookAhead is how many entries are looked at together before they are encoded. They are all over the memory; so its delays go by at once, as those
// of records do (foresight).
const lookAhead = 16

// look reads some of the memory of entries: all cells, and then of what they point to, if that is bytes, as much as has the processor fetch the rest.
// What it returns is of no use, but without it there would be nothing to read for.
//
//go:noinline
func (f *frozenTable[T]) look(next []ranked) (sum byte) {
	for _, r := range next {
		if r.at < len(f.cells) {
			sum += byte(f.cells[r.at].hash)
		}
	}
	for _, r := range next {
		if k := r.at - len(f.cells); k >= 0 {
			sum += glance(f.again[k].value)
			continue
		}
		switch v := any(&f.cells[r.at].value).(type) {
		case *[]byte:
			sum += glance(*v)
		case *string:
			sum += glance(*v)
		}
	}
	return sum
}

// glance reads a byte of every fourth cache line.
func glance[B []byte | string](b B) (sum byte) {
	for i := 0; i < len(b); i += 256 {
		sum += b[i]
	}
	return sum
}

// frozenCopy is what changed in a table during one generation, encoded.
type frozenCopy struct {
	id      string
	keys    keyList // in any order
	values  keyList // in that order
	deleted []bool
	whole   bool
	err     error
}

// Table implements Frozen.
func (f *frozenCopy) Table() string { return f.id }

// Whole implements Frozen.
func (f *frozenCopy) Whole() bool { return f.whole }

// Bytes implements checkpoint.Sized.
func (f *frozenCopy) Bytes() int {
	return len(f.keys.all) + len(f.values.all) + entryHeads*len(f.deleted)
}

// Entries implements Frozen; entries come in the order of their keys.
func (f *frozenCopy) Entries(yield func(key, value []byte, deleted bool) error) error {
	if f.err != nil {
		return f.err
	}
	for _, r := range f.keys.order() {
		if err := yield(f.keys.key(r.at), f.values.key(r.at), f.deleted[r.at]); err != nil {
			return err
		}
	}
	return nil
}

// entry is one key and value of a small table that is encoded when it is frozen.
type entry struct {
	key, value []byte
	deleted    bool
}

// frozenEntries is Frozen for such a table.
type frozenEntries struct {
	id      string
	entries []entry
	whole   bool
}

// frozenValue is what a table is that has one value, changed or not: it is shorter than to say that it is the same.
func frozenValue(id, key string, value []byte) *frozenEntries {
	return &frozenEntries{id: id, entries: []entry{{key: []byte(key), value: value}}, whole: true}
}

// Table implements Frozen.
func (f *frozenEntries) Table() string { return f.id }

// Whole implements Frozen.
func (f *frozenEntries) Whole() bool { return f.whole }

// Bytes implements checkpoint.Sized.
func (f *frozenEntries) Bytes() (n int) {
	for i := range f.entries {
		n += len(f.entries[i].key) + len(f.entries[i].value) + entryHeads
	}
	return n
}

// Entries implements Frozen.
func (f *frozenEntries) Entries(yield func(key, value []byte, deleted bool) error) error {
	for _, e := range f.entries {
		if err := yield(e.key, e.value, e.deleted); err != nil {
			return err
		}
	}
	return nil
}

package operator

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
)

// panes is the state of tumbling and sliding windows as a Table: the accumulators of each key, by the start of the pane. It has them by
// key, for records, and by pane, for windows that fire.
//
// The keys of a pane are in the order in which they came into it. This order is part of the checkpoint, since windows fire by it.
//
// Freezing copies what has changed. Accumulators are replaced and never changed, so the copy is shallow.
type panes[K comparable, A any] struct {
	id    string
	keys  Codec[K]
	codec Codec[A]

	index keyIndex[keyPanes[K, A], *keyPanes[K, A]]
	panes []*pane[K, A] // by start
	parts int           // how many there are
	next  uint64        // order of the next part
	seen  uint64        // what look read, so that it is read

	// Invariant: dirty has each part that has changed since the last Freeze once, at the part's dirty.
	dirty   []partRef[K, A]
	removed []partName // what was frozen, or restored, and is gone

	census census
	size   *entrySize

	free  []*keyPanes[K, A]
	spare []*keyPanes[K, A] // memory of a pane that is gone
}

// keyPanes is what one key has.
type keyPanes[K comparable, A any] struct {
	// key is decoded from its bytes, and not the one that came with a record: after a restore it can't be another.
	key   K
	bytes string
	hash  uint64
	// Invariant: parts are by start and at least one, and each is in the pane with its start.
	parts []part[A]
	first [1]part[A] // memory for parts, mostly enough
	round uint64     // the last firing that came by
}

// part is the accumulator of one key and pane.
type part[A any] struct {
	start int64
	acc   A
	order uint64 // among the keys of its pane
	dirty int32  // its place in panes.dirty, or -1
	kept  bool   // it was frozen, or restored

	generation uint64 // in which it was frozen last, if it was
}

type partRef[K comparable, A any] struct {
	of    *keyPanes[K, A]
	start int64
}

type partName struct {
	key   string
	start int64
}

// pane has the keys of one start.
type pane[K comparable, A any] struct {
	start   int64
	expires int64 // when it is to be dropped; see fixedWindow
	keys    []*keyPanes[K, A]
}

func newPanes[K comparable, A any](id string, keys Codec[K], codec Codec[A]) *panes[K, A] {
	return &panes[K, A]{id: id, keys: keys, codec: codec, size: &entrySize{}}
}

func (k *keyPanes[K, A]) name() (key string, hash uint64) { return k.bytes, k.hash }

// part finds the part with a start; nil if there is none.
func (k *keyPanes[K, A]) part(start int64) *part[A] {
	for i := len(k.parts) - 1; i >= 0; i-- {
		if k.parts[i].start <= start {
			if k.parts[i].start == start {
				return &k.parts[i]
			}
			return nil
		}
	}
	return nil
}

// enter makes an entry for a key that has none.
func (p *panes[K, A]) enter(key *keyBytes) (*keyPanes[K, A], error) {
	decoded, err := p.keys.Decode(key.bytes)
	if err != nil {
		return nil, err
	}
	var k *keyPanes[K, A]
	if n := len(p.free); n > 0 {
		k, p.free = p.free[n-1], p.free[:n-1]
	} else {
		k = new(keyPanes[K, A])
		k.parts = k.first[:0]
	}
	k.key, k.bytes, k.hash = decoded, string(key.bytes), key.hash
	p.index.put(k)
	return k, nil
}

// set puts an accumulator into a part that is there.
func (p *panes[K, A]) set(k *keyPanes[K, A], t *part[A], acc A) {
	t.acc = acc
	if t.dirty < 0 {
		p.touch(k, t)
	}
}

func (p *panes[K, A]) touch(k *keyPanes[K, A], t *part[A]) {
	if t.kept {
		p.census.replaced(t.generation)
	}
	t.dirty = int32(len(p.dirty))
	p.dirty = append(p.dirty, partRef[K, A]{k, t.start})
}

// add makes a part that is not there, in the pane that begins there.
func (p *panes[K, A]) add(k *keyPanes[K, A], in *pane[K, A], acc A) {
	p.touch(k, k.insert(part[A]{start: in.start, acc: acc, order: p.next}))
	in.keys = append(in.keys, k)
	p.parts++
	p.next++
}

func (k *keyPanes[K, A]) insert(t part[A]) *part[A] {
	i := len(k.parts)
	for i > 0 && k.parts[i-1].start > t.start {
		i--
	}
	k.parts = slices.Insert(k.parts, i, t)
	if len(k.parts) == len(k.first)+1 {
		clear(k.first[:]) // they have moved
	}
	return &k.parts[i]
}

// at is where the first pane is that begins at start or later.
func (p *panes[K, A]) at(start int64) int {
	if n := len(p.panes); n > 0 && p.panes[n-1].start <= start { // mostly
		if p.panes[n-1].start == start {
			return n - 1
		}
		return n
	}
	return sort.Search(len(p.panes), func(i int) bool { return p.panes[i].start >= start })
}

// pane finds a pane, or makes it.
func (p *panes[K, A]) pane(start, expires int64) (found *pane[K, A], made bool) {
	i := p.at(start)
	if i < len(p.panes) && p.panes[i].start == start {
		return p.panes[i], false
	}
	n := &pane[K, A]{start: start, expires: expires, keys: p.spare}
	p.spare = nil
	p.panes = slices.Insert(p.panes, i, n)
	return n, true
}

// drop removes the first pane with all its parts.
func (p *panes[K, A]) drop() {
	gone := p.panes[0]
	p.panes = slices.Delete(p.panes, 0, 1)
	for _, k := range gone.keys {
		p.dropPart(k, gone.start)
	}
	clear(gone.keys)
	p.spare = gone.keys[:0]
}

func (p *panes[K, A]) dropPart(k *keyPanes[K, A], start int64) {
	i := slices.IndexFunc(k.parts, func(t part[A]) bool { return t.start == start })
	t := &k.parts[i]
	if t.kept {
		p.removed = append(p.removed, partName{k.bytes, start})
	}
	if t.kept && t.dirty < 0 {
		p.census.replaced(t.generation)
	}
	if t.dirty >= 0 {
		last := len(p.dirty) - 1
		moved := p.dirty[last]
		p.dirty[t.dirty] = moved
		moved.of.part(moved.start).dirty = t.dirty
		p.dirty[last] = partRef[K, A]{}
		p.dirty = p.dirty[:last]
	}
	k.parts = slices.Delete(k.parts, i, i+1)
	p.parts--
	if len(k.parts) > 0 {
		return
	}
	p.index.remove(k)
	if len(p.free) <= p.index.count {
		var zero K
		k.key, k.bytes = zero, ""
		p.free = append(p.free, k)
	}
}

// ID implements Table.
func (p *panes[K, A]) ID() string { return p.id }

// Freeze implements Table.
func (p *panes[K, A]) Freeze() Frozen {
	f := &frozenPanes[A]{id: p.id, whole: len(p.dirty) == p.parts, codec: p.codec, size: p.size, parts: make([]frozenPart[A], 0, len(p.removed)+len(p.dirty))}
	for _, name := range p.removed {
		f.parts = append(f.parts, frozenPart[A]{partName: name, deleted: true})
	}
	for _, r := range p.dirty {
		t := r.of.part(r.start)
		t.dirty, t.kept, t.generation = -1, true, p.census.present()
		f.parts = append(f.parts, frozenPart[A]{partName: partName{r.of.bytes, t.start}, acc: t.acc, order: t.order})
	}
	p.census.froze(len(p.dirty), len(p.removed))
	p.dirty, p.removed = make([]partRef[K, A], 0, len(p.dirty)), nil
	return f
}

// past implements cleanable.
func (p *panes[K, A]) past() *census { return &p.census }

// volume implements cleanable.
func (p *panes[K, A]) volume() (fresh, live int, bytes float64) {
	return len(p.dirty) + len(p.removed)/deletions, p.parts, p.size.mean()
}

// clean implements cleanable.
func (p *panes[K, A]) clean(looks int) {
	c := &p.census
	for ; looks > 0 && c.at < len(p.index.slots); looks-- {
		if k := p.index.slots[c.at].at; k != nil {
			for i := range k.parts {
				if t := &k.parts[i]; t.dirty < 0 && t.generation <= c.until {
					p.touch(k, t)
					looks -= rewriteLooks
				}
			}
			looks -= len(k.parts) - 1
		}
		c.at++
	}
	c.on = c.at < len(p.index.slots)
}

// Load implements Table. Panes are made of what was loaded by restored.
func (p *panes[K, A]) Load(key, value []byte) error {
	k, start, err := readPartName(key)
	order, n := binary.Uvarint(value)
	if err == nil && n <= 0 {
		err = ErrEncoding
	}
	var acc A
	if err == nil {
		acc, err = p.codec.Decode(value[n:])
	}
	of := keyBytes{bytes: k}
	of.sum()
	into := p.index.find(&of)
	if err == nil && into == nil {
		into, err = p.enter(&of)
	}
	if err != nil {
		return fmt.Errorf("operator: table %q: reading back %x: %w", p.id, key, err)
	}
	into.insert(part[A]{start: start, acc: acc, order: order, dirty: -1, kept: true})
	p.dirty = append(p.dirty, partRef[K, A]{into, start}) // until restored
	p.next = max(p.next, order+1)
	p.parts++
	p.census.loaded(1)
	p.size.saw(len(key)+len(value), 1)
	return nil
}

// restored puts what was loaded into panes. expires says when one is to be dropped.
func (p *panes[K, A]) restored(expires func(start int64) int64) {
	loaded := p.dirty
	p.dirty = nil
	slices.SortFunc(loaded, func(a, b partRef[K, A]) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.of.part(a.start).order, b.of.part(b.start).order))
	})
	for _, r := range loaded {
		in, _ := p.pane(r.start, expires(r.start))
		in.keys = append(in.keys, r.of)
	}
}

// frozenPanes is what changed in panes between two freezes.
type frozenPanes[A any] struct {
	id    string
	codec Codec[A]
	size  *entrySize
	parts []frozenPart[A] // those that were deleted first
	whole bool
}

type frozenPart[A any] struct {
	partName
	acc     A
	order   uint64
	deleted bool
}

// Table implements Frozen.
func (f *frozenPanes[A]) Table() string { return f.id }

// Whole implements Frozen.
func (f *frozenPanes[A]) Whole() bool { return f.whole }

// Bytes implements checkpoint.Sized.
func (f *frozenPanes[A]) Bytes() int { return f.size.of(len(f.parts)) }

// Entries implements Frozen; a key is length, key and start of the pane, a value is the order in the pane and the accumulator.
func (f *frozenPanes[A]) Entries(yield func(key, value []byte, deleted bool) error) error {
	keys := keysOf(len(f.parts))
	for i := range f.parts {
		keys.all = f.parts[i].appendTo(keys.all)
		keys.end()
	}
	var value []byte
	bytes, order := len(keys.all), keys.order()
	for n, r := range order {
		t := &f.parts[r.at]
		if n+1 < len(order) && f.parts[order[n+1].at].partName == t.partName {
			continue // it was deleted and came again
		}
		if value = value[:0]; !t.deleted {
			var err error
			if value, err = f.codec.Append(binary.AppendUvarint(value, t.order), t.acc); err != nil {
				return fmt.Errorf("operator: table %q: encoding key %q: %w", f.id, keys.key(r.at), err)
			}
			bytes += len(value)
		}
		if err := yield(keys.key(r.at), value, t.deleted); err != nil {
			return err
		}
	}
	f.size.saw(bytes, len(f.parts))
	return nil
}

const startBytes = 8

func (n *partName) appendTo(dst []byte) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(n.key))), n.key...)
	return binary.BigEndian.AppendUint64(dst, uint64(n.start)^signBit)
}

func readPartName(b []byte) (key []byte, start int64, err error) {
	key, rest, err := cutSized(b)
	if err == nil && len(rest) != startBytes {
		err = ErrEncoding
	}
	if err != nil {
		return nil, 0, err
	}
	return key, int64(binary.BigEndian.Uint64(rest) ^ signBit), nil
}

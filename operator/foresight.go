package operator

import "slices"

// Foresight is how many records a keyed operator likes to know before they run. State that does not fit in the processor's caches costs
// several times the memory's delay for each record: a slot of the index, then the cell that it points to, then what that points to. One record after the
// other, each delay is waited for. Of records that are known beforehand, all slots are looked at first, then all cells, so that the
// delays go by at once (group prefetching: Chen, Ailamaki, Gibbons and Mowry, ICDE 2004).
//
// Invariant: it changes nothing that can be seen. Values are decoded and keys worked out, which are functions of their arguments, and memory
// is read; what fails is left for the record's own turn.
const foresight = 16

// worthForesight is from how many entries of state on it pays: less is in the caches anyway.
const worthForesight = 2048

// foreseer is a collector of records whose state is by their keys.
type foreseer[T any] interface {
	// worthwhile tells whether there is so much state.
	worthwhile() bool
	// foresee is told of the records that come next; none: those that it was told of may not come.
	foresee(values []T)
	// comes says that the next record is the i-th of them, or, with -1, none of them.
	comes(i int)
}

// aheadInput is a recordInput that may be told of records before they come.
type aheadInput interface {
	worthwhile(always bool) bool
	foresee(payloads [][]byte)
}

// Foresight implements Chain.
func (c *instance) Foresight(in int, always bool) int {
	if a, ok := c.inputs[in].(aheadInput); ok && a.worthwhile(always) {
		return foresight
	}
	return 0
}

// Foresee implements Chain.
func (c *instance) Foresee(in int, payloads [][]byte) {
	a, ok := c.inputs[in].(aheadInput)
	if !ok || !a.worthwhile(true) {
		return
	}
	if last := c.foreseen; last != nil && last != a {
		last.foresee(nil) // inputs of one operator share its keys
	}
	c.foreseen = a
	defer func() {
		if recover() != nil { // of a user's codec or function, which will do so again when it is the record's turn
			a.foresee(nil)
		}
	}()
	a.foresee(payloads)
}

// decoded are values of records that have not run yet, each with where its payload begins.
type decoded[T any] struct {
	values []T
	places []*byte
	next   int
}

func (d *decoded[T]) forget() {
	clear(d.values)
	clear(d.places)
	d.values, d.places, d.next = d.values[:0], d.places[:0], 0
}

// take gives the value of a payload if it is that of the next one, and its number.
func (d *decoded[T]) take(payload []byte) (i int, v T, ok bool) {
	if i = d.next; i < len(d.values) && len(payload) > 0 && d.places[i] == &payload[0] {
		d.next++
		return i, d.values[i], true
	}
	return 0, v, false
}

func (d *decoder[T]) worthwhile(always bool) bool {
	return d.ahead != nil && (always || d.ahead.worthwhile())
}

func (d *decoder[T]) foresee(payloads [][]byte) {
	d.decoded.forget()
	d.ahead.foresee(nil) // user code may keep it from the call below
	d.site.enter()
	for _, payload := range payloads {
		if len(payload) == 0 {
			break // it cannot be told from others
		}
		v, err := d.codec.Decode(payload)
		if err != nil {
			break
		}
		d.decoded.values, d.decoded.places = append(d.decoded.values, v), append(d.decoded.places, &payload[0])
	}
	if len(d.decoded.values) > 0 {
		d.ahead.foresee(d.decoded.values)
	}
}

// foreseenKeys are the keys of records that come next.
type foreseenKeys[K comparable] struct {
	keys  []keyBytes // at least n
	named []K
	n     int
	next  int // one more than the number of the record that comes; 0: it was not foreseen
}

// comes implements foreseer.
func (k *keyScope[K]) comes(i int) { k.ahead.next = i + 1 }

// foreseeKeys works out the keys of values, as far as they can be.
func foreseeKeys[K comparable, T any](k *keyScope[K], key func(T) K, values []T) []keyBytes {
	f := &k.ahead
	f.n, f.next = 0, 0
	clear(f.named)
	if short := len(values) - len(f.keys); short > 0 {
		f.keys, f.named = slices.Grow(f.keys, short)[:len(values)], slices.Grow(f.named, short)[:len(values)]
	}
	for i, v := range values {
		f.named[i] = key(v)
		of := &f.keys[i]
		var err error
		if of.bytes, err = k.codec.Append(of.bytes[:0], f.named[i]); err != nil {
			break
		}
		of.sum()
		f.n++
	}
	return f.keys[:f.n]
}

// enterKeyOf goes to the key of a record.
func enterKeyOf[K comparable, T any](k *keyScope[K], key func(T) K, v T) error {
	f := &k.ahead
	i := f.next - 1
	f.next = 0
	if i < 0 || i >= f.n {
		return k.enterKey(key(v))
	}
	k.keyBytes, f.keys[i] = f.keys[i], k.keyBytes // each keeps a buffer
	k.key = f.named[i]
	return nil
}

// foreseeable is state by keys that can be looked at beforehand.
type foreseeable interface {
	look(keys []keyBytes)
	held() int // entries that are looked for in the index
}

// anyWorthwhile tells whether one of them is worth it.
func anyWorthwhile(tables []foreseeable) bool {
	for _, t := range tables {
		if t.held() >= worthForesight {
			return true
		}
	}
	return false
}

// look reads the slots where the keys' own should be.
func (x *keyIndex[E, P]) look(keys []keyBytes) (sum uint64) {
	if len(x.slots) == 0 {
		return 0
	}
	mask := uint64(len(x.slots) - 1)
	for i := range keys {
		sum += x.slots[keys[i].hash&mask].hash
	}
	return sum
}

// look implements foreseeable: slots, cells, and the bytes that values are.
func (t *table[T]) look(keys []keyBytes) {
	sum := t.cells.look(keys)
	var cells [foresight]*cell[T]
	n := 0
	for i := range keys[:min(len(keys), foresight)] {
		if c := t.cells.find(&keys[i]); c != nil {
			cells[n] = c
			n++
		}
	}
	for _, c := range cells[:n] {
		sum += c.generation
	}
	for _, c := range cells[:n] {
		if b, ok := any(&c.value).(*[]byte); ok && len(*b) > 0 {
			sum += uint64((*b)[0])
		}
	}
	t.seen = sum
}

// held implements foreseeable.
func (t *table[T]) held() int { return t.cells.count }

// look implements foreseeable: slots, and the key's first pane.
func (p *panes[K, A]) look(keys []keyBytes) {
	sum := p.index.look(keys)
	for i := range keys {
		if k := p.index.find(&keys[i]); k != nil {
			sum += k.round
		}
	}
	p.seen = sum
}

// held implements foreseeable.
func (p *panes[K, A]) held() int { return p.index.count }

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

// foreseer foresees the records of an input by their keys; keysAhead is one.
type foreseer[T any] interface {
	// worthwhile tells whether there is so much state.
	worthwhile() bool
	// foresee is told of the records that come next, no more than foresight; none: those that it was told of may not come.
	foresee(values []T)
	// comes says that the next record is the i-th of them, or, with -1, none of them.
	comes(i int)
}

// withForesight is a collector of records whose state is by their keys.
type withForesight[T any] interface{ foresight() foreseer[T] }

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
	if !ok {
		return
	}
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
	if d.ahead == nil {
		return
	}
	d.decoded.forget()
	d.ahead.foresee(nil) // user code may keep it from the call below
	d.site.enter()
	for _, payload := range payloads[:min(len(payloads), foresight)] {
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

// foreseeable is state by keys that can be looked at beforehand.
type foreseeable interface {
	look(keys []keyBytes) // foresight of them at most
	held() int            // entries that are looked for in the index
}

// keysAhead has the keys of records that come next on one input of an operator.
type keysAhead[K comparable, T any] struct {
	scope *keyScope[K]
	key   func(T) K
	state []foreseeable
	keys  [foresight]keyBytes // the first n
	named [foresight]K
	n     int
}

// worthwhile implements foreseer.
func (a *keysAhead[K, T]) worthwhile() bool {
	return slices.ContainsFunc(a.state, func(s foreseeable) bool { return s.held() >= worthForesight })
}

// foresee implements foreseer: keys are worked out as far as they can be.
func (a *keysAhead[K, T]) foresee(values []T) {
	a.n = 0
	clear(a.named[:])
	for i, v := range values {
		a.named[i] = a.key(v)
		of := &a.keys[i]
		var err error
		if of.bytes, err = a.scope.codec.Append(of.bytes[:0], a.named[i]); err != nil {
			break
		}
		of.sum()
		a.n++
	}
	for _, s := range a.state {
		s.look(a.keys[:a.n])
	}
}

// comes implements foreseer.
func (a *keysAhead[K, T]) comes(i int) {
	if a.scope.entered = i >= 0 && i < a.n; a.scope.entered {
		a.scope.keyBytes, a.keys[i] = a.keys[i], a.scope.keyBytes // each keeps a buffer
		a.scope.key = a.named[i]
	}
}

// enterKeyOf goes to the key of a record, unless that was foreseen.
func enterKeyOf[K comparable, T any](k *keyScope[K], key func(T) K, v T) error {
	if k.entered {
		k.entered = false
		return nil
	}
	return k.enterKey(key(v))
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
	for i := range keys {
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

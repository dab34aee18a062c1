package operator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// States is where a [Processor] declares its keyed state, in Open. Every piece has a name and is, at any time, in the scope
// of the key of the record or timer at hand.
//
// State lives in memory as typed values. A value is replaced and never changed in place, except by way of Ref: what Get returned, and what
// was given to Set, must not be modified afterwards, not even what it points to, because a checkpoint may be encoding it.
type States struct {
	operator    string
	scope       *keyBytes
	names       []string
	tables      []Table
	foreseeable []foreseeable
	restore     []restorer
	err         error
}

// declare checks a name and finds the codec for a piece of state.
func declare[T any](s *States, kind, name string, given []Codec[T]) (id string, c Codec[T]) {
	id = s.operator + "/state " + name
	if kind == "Map" {
		id = s.operator + mapTable + name
	}
	fail := func(err error) {
		if s.err == nil {
			s.err = fmt.Errorf("%s %q: %w", kind, name, err)
		}
	}
	if s.scope == nil {
		panic("operator: " + kind + " " + name + " is declared outside of Open")
	}
	if slices.Contains(s.names, name) {
		fail(errors.New("the name is taken"))
	}
	s.names = append(s.names, name)
	if len(given) > 1 {
		fail(errors.New("more than one codec"))
	}
	if len(given) > 0 && given[0] != nil {
		return id, given[0]
	}
	c, err := MsgPack[T]()
	if err != nil {
		fail(err)
	}
	return id, c
}

// Value is one value of type T per key.
type Value[T any] struct {
	table *table[T]
	scope *keyBytes
}

// NewValue declares a Value. The codec is [MsgPack] unless one is given.
func NewValue[T any](s *States, name string, codec ...Codec[T]) *Value[T] {
	id, c := declare(s, "Value", name, codec)
	v := &Value[T]{table: newTable(id, c), scope: s.scope}
	s.tables, s.foreseeable = append(s.tables, v.table), append(s.foreseeable, v.table)
	return v
}

// Get returns the value, or the zero value and false if there is none.
func (v *Value[T]) Get() (T, bool) { return v.table.get(v.scope) }

// Set replaces the value.
func (v *Value[T]) Set(value T) { v.table.set(v.scope, value) }

// Ref returns the value to be changed in place, with all that it points to; if there is none, it is the zero value from now on. It is
// for values that cost something to make anew for each record: the first Ref of a key after a Set, or after a checkpoint that had much to store, copies
// the value, by its codec, and the others copy nothing.
//
// The pointer may be used until the method that asked for it returns, or clears the value. What is put into the value must not be kept
// elsewhere, such as in the value of another key. What Get returned after a Ref changes with the next one.
func (v *Value[T]) Ref() *T {
	value, _, _ := v.table.ref(v.scope)
	return value
}

// Clear removes the value.
func (v *Value[T]) Clear() { v.table.clear(v.scope) }

// List is a list of T per key. A checkpoint encodes the whole list of every key that changed, so keep them short; a Map with
// a number as its key is better for long ones.
type List[T any] struct {
	table *table[[]T]
	scope *keyBytes
}

// NewList declares a List. The codec, of one element, is [MsgPack] unless one is given.
func NewList[T any](s *States, name string, codec ...Codec[T]) *List[T] {
	id, c := declare(s, "List", name, codec)
	l := &List[T]{table: newTable(id, Codec[[]T](listCodec[T]{c})), scope: s.scope}
	s.tables, s.foreseeable = append(s.tables, l.table), append(s.foreseeable, l.table)
	return l
}

// Get returns the list. It must not be modified.
func (l *List[T]) Get() []T {
	values, _ := l.table.get(l.scope)
	return values[:len(values):len(values)]
}

// Append adds to the end of the list. A frozen list may share its memory with the present one, but ends before what is
// added.
func (l *List[T]) Append(values ...T) {
	if len(values) == 0 {
		return
	}
	present, _ := l.table.get(l.scope)
	l.table.set(l.scope, append(present, values...))
}

// Set replaces the list. An empty one is none.
func (l *List[T]) Set(values []T) {
	if len(values) == 0 {
		l.Clear()
		return
	}
	l.table.set(l.scope, slices.Clone(values))
}

// Clear removes the list.
func (l *List[T]) Clear() { l.table.clear(l.scope) }

type listCodec[T any] struct{ element Codec[T] }

// Append implements Codec: the number of elements, and each with its length before it.
func (c listCodec[T]) Append(dst []byte, v []T) ([]byte, error) {
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	var one []byte
	for _, e := range v {
		var err error
		if one, err = c.element.Append(one[:0], e); err != nil {
			return nil, err
		}
		dst = append(binary.AppendUvarint(dst, uint64(len(one))), one...)
	}
	return dst, nil
}

// Decode implements Codec.
func (c listCodec[T]) Decode(src []byte) ([]T, error) {
	count, n := binary.Uvarint(src)
	if n <= 0 || count > uint64(len(src)-n) {
		return nil, fmt.Errorf("%w: a list's length", ErrEncoding)
	}
	src = src[n:]
	v := make([]T, 0, count)
	for range count {
		one, rest, err := cutSized(src)
		if err != nil {
			return nil, err
		}
		e, err := c.element.Decode(one)
		if err != nil {
			return nil, err
		}
		v, src = append(v, e), rest
	}
	return v, whole(src, nil)
}

// cutSized reads bytes with their length before them.
func cutSized(src []byte) (one, rest []byte, err error) {
	size, n := binary.Uvarint(src)
	if n <= 0 || size > uint64(len(src)-n) {
		return nil, nil, fmt.Errorf("%w: a length is beyond the end", ErrEncoding)
	}
	return src[n : n+int(size)], src[n+int(size):], nil
}

// MapState is a map from M to V per key. Each entry is checkpointed by itself.
type MapState[M comparable, V any] struct {
	table    *table[V]
	scope    *keyBytes
	codec    Codec[M]
	contents memberLists
	buf      keyBytes // a table key: length of the key, key, encoded member
}

// mapTable is in the ids of tables of maps, which have the members' keys behind those of the maps.
const mapTable = "/map "

// memberLists has the members of maps, by the maps' keys.
type memberLists map[string]*members

// enter adds a member that was not there.
func (l memberLists) enter(key []byte, member string) {
	c := l[string(key)]
	if c == nil {
		c = &members{sorted: true}
		l[string(key)] = c
	}
	c.sorted = c.sorted && (len(c.keys) == 0 || c.keys[len(c.keys)-1] < member)
	c.keys = append(c.keys, member)
	c.live++
}

// leave takes one member away. It gives the list, if there are many in it that are there no longer.
func (l memberLists) leave(key []byte) (crowded *members) {
	c := l[string(key)]
	if c.live--; c.live == 0 {
		delete(l, string(key))
		return nil
	}
	if len(c.keys) > 2*c.live+16 {
		return c
	}
	return nil
}

// settle sorts the members of a key and drops those that are gone. It makes a new slice: an iteration may be walking the old one.
func (c *members) settle(has func(member string) bool) {
	keys := make([]string, 0, c.live)
	for _, member := range c.keys {
		if has(member) {
			keys = append(keys, member)
		}
	}
	slices.Sort(keys)
	c.keys, c.sorted = slices.Compact(keys), true
}

// members lists the entries of one key.
type members struct {
	// keys are encoded. Some may be there no longer, or twice. Its elements are never overwritten, only appended to.
	keys   []string
	sorted bool
	live   int
}

// NewMap declares a MapState. The codec, of the values, is [MsgPack] unless one is given.
func NewMap[M comparable, V any](s *States, name string, codec ...Codec[V]) *MapState[M, V] {
	id, c := declare(s, "Map", name, codec)
	kc, err := MsgPack[M]()
	if err != nil && s.err == nil {
		s.err = fmt.Errorf("Map %q: its key: %w", name, err)
	}
	m := &MapState[M, V]{table: newTable(id, c), scope: s.scope, codec: kc, contents: memberLists{}}
	s.tables = append(s.tables, m.table)
	s.restore = append(s.restore, m)
	return m
}

// locate makes the table key of a member and returns where the member's own bytes begin.
func (m *MapState[M, V]) locate(k M) int {
	start := m.prefix()
	buf, err := m.codec.Append(m.buf.bytes, k)
	if err != nil {
		panic(fmt.Errorf("operator: table %q: encoding a member's key: %w", m.table.id, err))
	}
	m.buf.bytes = buf
	m.buf.sum()
	return start
}

// Get returns the value of k, or the zero value and false if there is none.
func (m *MapState[M, V]) Get(k M) (V, bool) {
	m.locate(k)
	return m.table.get(&m.buf)
}

// Set replaces the value of k.
func (m *MapState[M, V]) Set(k M, v V) {
	start := m.locate(k)
	if _, known := m.table.get(&m.buf); known {
		m.table.set(&m.buf, v)
		return
	}
	m.contents.enter(m.scope.bytes, m.table.set(&m.buf, v).key[start:])
}

// Ref returns the value of k to be changed in place, as [Value.Ref] does. A member that was not there is there from now on.
func (m *MapState[M, V]) Ref(k M) *V {
	start := m.locate(k)
	v, full, known := m.table.ref(&m.buf)
	if !known {
		m.contents.enter(m.scope.bytes, full[start:])
	}
	return v
}

// Clear removes k.
func (m *MapState[M, V]) Clear(k M) {
	m.locate(k)
	if !m.table.clear(&m.buf) {
		return
	}
	if crowded := m.contents.leave(m.scope.bytes); crowded != nil {
		m.settle(crowded)
	}
}

// ClearAll removes every member.
func (m *MapState[M, V]) ClearAll() {
	c := m.contents[string(m.scope.bytes)]
	if c == nil {
		return
	}
	start := m.prefix()
	for _, member := range c.keys {
		m.member(start, member)
		m.table.clear(&m.buf)
	}
	delete(m.contents, string(m.scope.bytes))
}

// Len is how many members there are.
func (m *MapState[M, V]) Len() int {
	if c := m.contents[string(m.scope.bytes)]; c != nil {
		return c.live
	}
	return 0
}

// All goes through the members in the order of their encoded keys, which is the same in every run. The map may be changed
// meanwhile: what is removed is not visited any more, what is added is not visited yet.
func (m *MapState[M, V]) All() iter.Seq2[M, V] {
	return func(yield func(M, V) bool) {
		c := m.contents[string(m.scope.bytes)]
		if c == nil {
			return
		}
		if !c.sorted || len(c.keys) != c.live {
			m.settle(c)
		}
		for _, member := range c.keys {
			m.member(m.prefix(), member)
			v, ok := m.table.get(&m.buf)
			if !ok {
				continue
			}
			k, err := m.codec.Decode([]byte(member))
			if err != nil {
				panic(fmt.Errorf("operator: table %q: decoding a member's key: %w", m.table.id, err))
			}
			if !yield(k, v) {
				return
			}
		}
	}
}

// prefix begins a table key of the key at hand and returns where the member's own bytes go.
func (m *MapState[M, V]) prefix() int {
	m.buf.bytes = append(binary.AppendUvarint(m.buf.bytes[:0], uint64(len(m.scope.bytes))), m.scope.bytes...)
	return len(m.buf.bytes)
}

// member makes the table key of a member whose bytes go to start.
func (m *MapState[M, V]) member(start int, bytes string) {
	m.buf.bytes = append(m.buf.bytes[:start], bytes...)
	m.buf.sum()
}

func (m *MapState[M, V]) settle(c *members) {
	start := m.prefix()
	c.settle(func(member string) bool {
		m.member(start, member)
		_, ok := m.table.get(&m.buf)
		return ok
	})
}

// restored implements restorer: it finds which members each key has. They are sorted when somebody goes through them.
func (m *MapState[M, V]) restored() error {
	if lists := m.table.lists; lists != nil {
		m.contents, m.table.lists = lists, nil
		return nil
	}
	clear(m.contents)
	for full := range m.table.all() {
		key, member, err := cutSized([]byte(full))
		if err != nil {
			return fmt.Errorf("operator: table %q: %w", m.table.id, err)
		}
		m.contents.enter(key, full[len(full)-len(member):])
	}
	return nil
}

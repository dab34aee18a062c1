package operator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// residentCost is about what an entry of a Resident takes besides its bytes: itself and its slots in an index that is half full.
const residentCost = 128

// listedCost is about what a member of a map takes besides: its place in the list of the map's members, and a part of that.
const listedCost = 48

// Resident is the state of one task in memory, as the bytes of its checkpoints: a standby holds it ready, and the task that starts there takes
// it over. Tables with many entries take all over at once and decode each entry when it is first asked for, so that it takes no longer to
// restore a task the more state it has. It is for one goroutine at a time.
type Resident struct {
	tables map[string]*residentTable
	last   string         // the table of the last entry
	into   *residentTable // likewise
	bytes  int64
}

type residentIndex = keyIndex[residentEntry, *residentEntry]

type residentTable struct {
	residentIndex
	maps  bool        // it is called as if it were of maps
	lists memberLists // of a table of maps. Invariant: nil, or all that is in the index, and then the index has nothing else
}

type residentEntry struct {
	key, value string
	hash       uint64
	generation uint64 // of the table that has taken it over, in which it was written last; 0: in none
}

func (e *residentEntry) name() (key string, hash uint64) { return e.key, e.hash }

// NewResident is the empty state.
func NewResident() *Resident { return &Resident{tables: map[string]*residentTable{}} }

// Put takes an entry of a checkpoint's image: it replaces the one with that key, or deletes it, and says about how much memory that was
// about. Nothing that it is given is kept.
func (r *Resident) Put(table string, key, value []byte, deleted bool) int64 {
	if r.into == nil || r.last != table {
		if r.into = r.tables[table]; r.into == nil {
			table = strings.Clone(table)
			r.into = &residentTable{}
			if strings.Contains(table, mapTable) {
				r.into.maps, r.into.lists = true, memberLists{}
			}
			r.tables[table] = r.into
		}
		r.last = table
	}
	k := keyBytes{bytes: key}
	k.sum()
	e := r.into.find(&k)
	switch {
	case deleted && e != nil:
		r.bytes -= r.into.cost(len(key) + len(e.value))
		r.into.remove(e)
		r.into.left(key)
	case deleted:
	case e != nil:
		r.bytes += int64(len(value) - len(e.value))
		e.value = string(value)
	default:
		e = &residentEntry{key: string(key), value: string(value), hash: k.hash}
		r.bytes += r.into.cost(len(key) + len(value))
		r.into.put(e)
		r.into.entered(e.key)
	}
	return r.into.cost(len(key) + len(value))
}

func (t *residentTable) cost(bytes int) int64 {
	if t.maps {
		return int64(bytes) + residentCost + listedCost
	}
	return int64(bytes) + residentCost
}

// entered notes a new entry of a table of maps.
func (t *residentTable) entered(full string) {
	if t.lists == nil {
		return
	}
	key, member, err := cutSized([]byte(full))
	if err != nil {
		t.lists = nil // it is no table of maps
		return
	}
	t.lists.enter(key, full[len(full)-len(member):])
}

// left notes that an entry is gone.
func (t *residentTable) left(full []byte) {
	if t.lists == nil {
		return
	}
	key, member, err := cutSized(full)
	if err != nil {
		panic(fmt.Sprintf("operator: assertion: key %x is in a table of maps", full))
	}
	if crowded := t.lists.leave(key); crowded != nil {
		k, start := keyBytes{bytes: slices.Clone(full)}, len(full)-len(member)
		crowded.settle(func(member string) bool {
			k.bytes = append(k.bytes[:start], member...)
			k.sum()
			return t.find(&k) != nil
		})
	}
}

// Bytes is about how much memory it takes.
func (r *Resident) Bytes() int64 { return r.bytes }

// Tables lists the tables that have entries, in order.
func (r *Resident) Tables() []string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(r.tables)) {
		if r.tables[id].count > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// Entries goes through a table in the order of its keys. It costs the whole table.
func (r *Resident) Entries(table string, yield func(key, value []byte) error) error {
	if entries := r.tables[table]; entries != nil {
		return entries.eachSorted(yield)
	}
	return nil
}

func (t *residentTable) eachSorted(yield func(key, value []byte) error) error {
	list := make([]*residentEntry, 0, t.count)
	keys := keysOf(t.count)
	for e := range t.all() {
		list, keys.all = append(list, e), append(keys.all, e.key...)
		keys.end()
	}
	var value []byte
	for _, r := range keys.order() {
		value = append(value[:0], list[r.at].value...)
		if err := yield(keys.key(r.at), value); err != nil {
			return err
		}
	}
	return nil
}

// adopter is a Table that takes entries over all at once, in no order.
type adopter interface {
	adopt(entries *residentTable) error
}

// Restore gives its entries to the new, empty table t, in place of Load, and has them no longer: from then on it is only good for the other
// tables of the chain.
func (r *Resident) Restore(t Table) error {
	id := t.ID()
	entries := r.tables[id]
	if entries == nil || entries.count == 0 {
		return nil
	}
	delete(r.tables, id)
	r.into = nil
	if a, ok := t.(adopter); ok {
		return a.adopt(entries)
	}
	return entries.eachSorted(t.Load)
}

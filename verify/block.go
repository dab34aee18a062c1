package verify

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

const (
	entryBytes     = 2 * 16 // an entry and its place in the scratch of the sort
	insertionLimit = 48     // up to this many entries, insertion beats a radix pass
)

// block is a bounded piece of memory in which records gather and are sorted.
type block struct {
	size int // bytes, all told
	// arena holds the records as they are written to disk: length of key, length of value, key, value.
	arena   []byte
	entries []entry
	scratch []entry
}

// entry is a record's place in the arena, with the hash of its key.
type entry struct {
	rank   uint64
	offset uint32
}

func newBlock(size int) *block {
	n := size / 2 / entryBytes
	return &block{
		size:    size,
		arena:   make([]byte, 0, size-n*entryBytes),
		entries: make([]entry, 0, n),
		scratch: make([]entry, n),
	}
}

// add reports false if the record does not fit any more.
func (b *block) add(rank uint64, key, value []byte) bool {
	if len(b.entries) == cap(b.entries) || cap(b.arena)-len(b.arena) < len(key)+len(value)+maxFrame-MaxRecord {
		return false
	}
	b.entries = append(b.entries, entry{rank, uint32(len(b.arena))})
	b.arena = binary.AppendUvarint(b.arena, uint64(len(key)))
	b.arena = binary.AppendUvarint(b.arena, uint64(len(value)))
	b.arena = append(b.arena, key...)
	b.arena = append(b.arena, value...)
	return true
}

// copyFrom takes over the records of a smaller block.
func (b *block) copyFrom(small *block) {
	b.arena = append(b.arena, small.arena...)
	b.entries = append(b.entries, small.entries...)
}

func (b *block) empty() {
	b.arena, b.entries = b.arena[:0], b.entries[:0]
}

// record returns key and value of an entry. They belong to the arena.
func (b *block) record(e entry) (key, value []byte) {
	_, key, value = frame(b.arena[e.offset:])
	return key, value
}

// frame takes apart a record at the beginning of text. n is its length, 0 if text is too short to hold all of it.
func frame(text []byte) (n int, key, value []byte) {
	klen, a := binary.Uvarint(text)
	if a <= 0 {
		return 0, nil, nil
	}
	vlen, b := binary.Uvarint(text[a:])
	if b <= 0 || klen > MaxRecord || vlen > MaxRecord {
		return 0, nil, nil
	}
	k := a + b
	v := k + int(klen)
	n = v + int(vlen)
	if n > len(text) {
		return 0, nil, nil
	}
	return n, text[k:v:v], text[v:n:n]
}

// sort orders the entries by rank, then key, then value if so asked, then order of arrival.
func (b *block) sort(byValue bool) {
	radixSort(b.entries, b.scratch[:len(b.entries)], 56)
	for i := 0; i < len(b.entries); {
		j := i + 1
		for j < len(b.entries) && b.entries[j].rank == b.entries[i].rank {
			j++
		}
		if j > i+1 {
			b.sortTies(b.entries[i:j], byValue)
		}
		i = j
	}
}

// sortTies orders entries whose keys have one hash and are therefore, but for a collision, equal.
func (b *block) sortTies(ties []entry, byValue bool) {
	order := func(x, y entry) int {
		xk, xv := b.record(x)
		yk, yv := b.record(y)
		return compareRecords(xk, yk, xv, yv, byValue)
	}
	if !slices.IsSortedFunc(ties, order) {
		slices.SortStableFunc(ties, order)
	}
}

func compareRecords(xk, yk, xv, yv []byte, byValue bool) int {
	c := bytes.Compare(xk, yk)
	if c == 0 && byValue {
		c = bytes.Compare(xv, yv)
	}
	return c
}

// radixSort orders entries by rank, keeping the order of equals: one pass per byte from the top, as long as there are many.
func radixSort(entries, scratch []entry, shift int) {
	if len(entries) <= insertionLimit {
		insertionSort(entries)
		return
	}
	var ends [256]int
	for _, e := range entries {
		ends[byte(e.rank>>shift)]++
	}
	sum := 0
	for i, n := range ends {
		ends[i] = sum
		sum += n
	}
	for _, e := range entries {
		to := &ends[byte(e.rank>>shift)]
		scratch[*to] = e
		*to++
	}
	copy(entries, scratch)
	if shift == 0 {
		return
	}
	start := 0
	for _, end := range ends {
		if end-start > 1 {
			radixSort(entries[start:end], scratch[start:end], shift-8)
		}
		start = end
	}
}

func insertionSort(entries []entry) {
	for i := 1; i < len(entries); i++ {
		e := entries[i]
		j := i
		for ; j > 0 && cmp.Less(e.rank, entries[j-1].rank); j-- {
			entries[j] = entries[j-1]
		}
		entries[j] = e
	}
}

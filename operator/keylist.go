package operator

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// keyList has the encoded keys of what a table froze, one behind the other, and puts them in order. It goes by numbers: eight bytes of each key,
// from where the keys begin to differ, are read once, beside one another, and sorted by their bytes, the lowest first (Knuth, The Art of
// Computer Programming 3, 5.2.5, algorithm R). Keys in memory of their own would be looked up for each of the comparisons, which was most of
// what an image of many small entries cost.
//
// A key is appended to all, and ended by end.
type keyList struct {
	all  []byte
	ends []int
}

// keysOf makes a list with room for the ends of n keys.
func keysOf(n int) keyList { return keyList{ends: make([]int, 0, n)} }

// end ends the key that was appended to l.all.
func (l *keyList) end() { l.ends = append(l.ends, len(l.all)) }

// key is the i-th that was added.
func (l *keyList) key(i int) []byte {
	from := 0
	if i > 0 {
		from = l.ends[i-1]
	}
	return l.all[from:l.ends[i]]
}

// ranked is a key by its number in the list.
type ranked struct {
	rank uint64
	at   int
}

// order gives the numbers of all keys in the order of their bytes, and equal ones as they were added.
func (l *keyList) order() []ranked {
	skip := l.common()
	sorted := make([]ranked, len(l.ends))
	for i := range sorted {
		sorted[i] = ranked{rankOf(l.key(i)[skip:]), i}
	}
	sorted = byRank(sorted)
	for from := 0; from < len(sorted); {
		to := from + 1
		for to < len(sorted) && sorted[to].rank == sorted[from].rank {
			to++
		}
		if to-from > 1 { // they differ further back, or in the zeros that a short one does not have
			slices.SortFunc(sorted[from:to], func(a, b ranked) int {
				return cmp.Or(bytes.Compare(l.key(a.at), l.key(b.at)), cmp.Compare(a.at, b.at))
			})
		}
		from = to
	}
	return sorted
}

// common is how many bytes all keys begin with alike.
func (l *keyList) common() int {
	if len(l.ends) == 0 {
		return 0
	}
	first := l.key(0)
	for i := range l.ends {
		k := l.key(i)
		first = first[:min(len(first), len(k))]
		for n := range first {
			if first[n] != k[n] {
				first = first[:n]
				break
			}
		}
	}
	return len(first)
}

// rankOf is the first eight bytes as a number. One that is less belongs to less bytes; what is short counts as if zeros followed, so equal
// ones say nothing.
func rankOf(b []byte) uint64 {
	if len(b) >= 8 {
		return binary.BigEndian.Uint64(b)
	}
	var padded [8]byte
	copy(padded[:], b)
	return binary.BigEndian.Uint64(padded[:])
}

// byRank sorts by rank, and leaves those of equal rank as they come. It passes over bytes in which all are alike. It takes list's memory.
func byRank(list []ranked) []ranked {
	var differ uint64
	for i := range list {
		differ |= list[i].rank ^ list[0].rank
	}
	var other []ranked
	for shift := 0; differ>>shift != 0; shift += 8 {
		if byte(differ>>shift) == 0 {
			continue
		}
		if other == nil {
			other = make([]ranked, len(list))
		}
		var places [256]int // of the next one with this byte; how many have it, at first
		for i := range list {
			places[byte(list[i].rank>>shift)]++
		}
		next := 0
		for b, n := range places {
			places[b], next = next, next+n
		}
		for _, r := range list {
			p := &places[byte(r.rank>>shift)]
			other[*p] = r
			*p++
		}
		list, other = other, list
	}
	return list
}

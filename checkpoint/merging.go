package checkpoint

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
)

// merging walks several images of one task as if they were one: entries in (table, key) order, of those with the same key the newest.
type merging struct {
	heads  []*mergeHead // a heap; Invariant: each has an entry, the first the one that comes next
	begun  bool         // the first head's entry was returned
	files  []io.Closer
	meta   Meta   // of the newest image
	passed uint64 // bytes of entries that were walked over, those that do not count included
	pace   *pace
}

// mergeHead is one of the images.
type mergeHead struct {
	r          *imageReader
	rank       int // a newer image has a higher one
	key, value []byte
	deleted    bool
}

// newMerging opens the images of the files, from the oldest to the newest, to be walked at that pace. It closes the files, if it fails too.
func newMerging(files []partFile, pace *pace) (*merging, error) {
	m := &merging{pace: pace}
	for _, f := range files {
		m.files = append(m.files, f.file)
	}
	for rank := range files {
		f := &files[rank]
		r, err := f.open()
		if err == nil {
			h := &mergeHead{r: r, rank: rank}
			m.meta = r.meta
			var ok bool
			if ok, err = m.advance(h); ok {
				m.heads = append(m.heads, h)
			}
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", f.name(), err), m.close())
		}
	}
	for i := len(m.heads)/2 - 1; i >= 0; i-- {
		m.sink(i)
	}
	return m, nil
}

func (m *merging) close() error {
	var err error
	for _, f := range m.files {
		err = errors.Join(err, f.Close())
	}
	m.files = nil
	return err
}

// advance takes the image's next entry, if there is one.
func (m *merging) advance(h *mergeHead) (ok bool, err error) {
	h.key, h.value, h.deleted, ok, err = h.r.next()
	n := len(h.key) + len(h.value) + 4
	m.passed += uint64(n)
	m.pace.did(n)
	return ok, err
}

// compare gives the order of the entries' keys.
func (h *mergeHead) compare(o *mergeHead) int {
	if h.r.table != o.r.table {
		return strings.Compare(h.r.table, o.r.table)
	}
	return bytes.Compare(h.key, o.key)
}

// sink brings the heap in order below i, where an entry may come too late.
func (m *merging) sink(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(m.heads) {
				a, b := m.heads[child], m.heads[least]
				if cmp.Or(a.compare(b), b.rank-a.rank) < 0 {
					least = child
				}
			}
		}
		if least == i {
			return
		}
		m.heads[i], m.heads[least] = m.heads[least], m.heads[i]
		i = least
	}
}

// skip goes on from the entry at place i of the heap.
func (m *merging) skip(i int) error {
	ok, err := m.advance(m.heads[i])
	if err != nil {
		return err
	}
	if !ok {
		last := len(m.heads) - 1
		m.heads[i] = m.heads[last]
		m.heads = m.heads[:last]
	}
	m.sink(i)
	return nil
}

// next returns the next entry, or ok false at the end. The slices are valid until the following call.
func (m *merging) next() (table string, key, value []byte, deleted, ok bool, err error) {
	if m.begun {
		if err := m.skip(0); err != nil {
			return "", nil, nil, false, false, err
		}
	}
	m.begun = true
	if len(m.heads) == 0 {
		return "", nil, nil, false, false, nil
	}
	top := m.heads[0]
	for child := 1; child <= 2; child++ { // those that the newest overrides are at the top of what is left
		for child < len(m.heads) && m.heads[child].compare(top) == 0 {
			if err := m.skip(child); err != nil {
				return "", nil, nil, false, false, err
			}
		}
	}
	return top.r.table, top.key, top.value, top.deleted, true, nil
}

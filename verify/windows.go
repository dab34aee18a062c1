package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Keys of records sorted by window begin with what meets under them.
const (
	underNumber byte = 'n' // a window and its members
	underStart  byte = 's' // windows of one key and start
)

// Values of records under a window's number begin with what they are, the header first.
const (
	windowHeader byte = iota // place, count, sum, ids; key
	windowMember             // 1 if a draw is visible, what it drew
)

func windowNumber(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{underNumber}, n)
}

func memberRecord(visible bool, drawn uint64) []byte {
	b := []byte{windowMember, 0}
	if visible {
		b[1] = 1
	}
	return binary.BigEndian.AppendUint64(b, drawn)
}

// addWindow adds a window to the second sort, and its members to the first.
func (c *drawsCheck) addWindow(r *row) error {
	number := uint64(c.windows)
	c.windows++
	count, err := r.fields[drawCount].integer()
	if err != nil {
		return r.fail("field %q %w", c.opt.Names.Count, err)
	}
	sum, err := r.fields[drawSum].modular()
	if err != nil {
		return r.fail("field %q %w", c.opt.Names.Sum, err)
	}
	start, err := r.fields[drawStart].integer()
	if err != nil {
		return r.fail("field %q %w", c.opt.Names.Start, err)
	}
	if err := c.splitIDs(r); err != nil {
		return err
	}
	if err := c.addMembers(r, number); err != nil {
		return err
	}
	c.value = c.value[:0]
	if err := c.appendKey(r); err != nil {
		return err
	}
	c.key = append(binary.BigEndian.AppendUint64([]byte{underStart}, uint64(start)), c.value...)
	if err := c.byWindow.Add(c.key, appendSortedPlace(nil, r.at)); err != nil {
		return err
	}
	header := appendSortedPlace([]byte{windowHeader}, r.at)
	for _, n := range []uint64{uint64(count), sum, uint64(len(c.elements))} {
		header = binary.BigEndian.AppendUint64(header, n)
	}
	return c.byWindow.Add(windowNumber(number), append(header, c.value...))
}

func (c *drawsCheck) splitIDs(r *row) error {
	ids := r.fields[drawIDs]
	if ids.kind != kindCompound || ids.raw[0] != '[' {
		return r.fail("field %q is not an array", c.opt.Names.IDs)
	}
	var err error
	if c.elements, err = splitArray(ids.raw, c.elements[:0]); err != nil {
		return r.fail("field %q: %w", c.opt.Names.IDs, err)
	}
	return nil
}

func (c *drawsCheck) addMembers(r *row, number uint64) error {
	for _, id := range c.elements {
		var err error
		if c.key, err = id.appendText(c.key[:0]); err != nil {
			return r.fail("an id in field %q %w", c.opt.Names.IDs, err)
		}
		c.value = appendSortedPlace(append(c.value[:0], drawsMember), r.at)
		c.value = binary.AppendUvarint(c.value, number)
		if err := c.appendKey(r); err != nil {
			return err
		}
		if err := c.byID.Add(boundKey(c.key, 0), c.value); err != nil {
			return err
		}
	}
	return nil
}

// splitArray appends the elements of a JSON array.
func splitArray(raw []byte, elements []value) ([]value, error) {
	var found [1]value
	s := jsonScan{text: raw, at: 1, out: found[:]}
	want := fieldNode{slots: []int{0}}
	s.space()
	for s.peek() != ']' {
		if err := s.any(1, &want); err != nil {
			return elements, err
		}
		elements = append(elements, found[0])
		s.space()
		switch s.peek() {
		case ',':
			s.at++
			s.space()
		case ']':
		default:
			return elements, errors.New("malformed array")
		}
	}
	return elements, nil
}

// windowGroup is what is known of the records under one key of the second sort.
type windowGroup struct {
	any       bool
	at        place
	under     byte
	key       []byte // the window's key
	start     int64  // under underStart
	count     int64
	sum       uint64
	ids       int64
	added     uint64 // of the members so far
	invisible int64  // members without visible draw
}

// byWindowRecord takes one record of the second sort.
func (c *drawsCheck) byWindowRecord(r Record) error {
	if err := c.m.tick(); err != nil {
		return err
	}
	g := &c.window
	if r.First {
		c.finishWindow()
		*g = windowGroup{any: true, under: r.Key[0], key: g.key[:0]}
		if g.under == underStart {
			g.at, _ = takeSortedPlace(r.Value, sideOutput)
			g.start = int64(binary.BigEndian.Uint64(r.Key[1:]))
			g.key = append(g.key, r.Key[9:]...)
			return nil
		}
		var rest []byte
		g.at, rest = takeSortedPlace(r.Value[1:], sideOutput)
		g.count = int64(binary.BigEndian.Uint64(rest))
		g.sum = binary.BigEndian.Uint64(rest[8:])
		g.ids = int64(binary.BigEndian.Uint64(rest[16:]))
		g.key = append(g.key, rest[24:]...)
		return nil
	}
	if g.under == underStart {
		at, _ := takeSortedPlace(r.Value, sideOutput)
		first := g.at
		c.repeated.add(1, at, c.windowOffender(at, fmt.Sprintf("start %d, as in %s", g.start, c.output.where(first))))
		return nil
	}
	if r.Value[1] == 0 {
		g.invisible++
	}
	g.added += binary.BigEndian.Uint64(r.Value[2:])
	return nil
}

func (c *drawsCheck) windowOffender(at place, detail string) func() Offender {
	return func() Offender {
		return Offender{What: "window of key " + shorten(string(c.window.key)), Where: c.output.where(at), Detail: detail}
	}
}

func (c *drawsCheck) finishWindow() {
	g := &c.window
	if !g.any || g.under != underNumber {
		return
	}
	if g.count != g.ids {
		c.count.add(1, g.at, c.windowOffender(g.at, fmt.Sprintf("count is %d, but it has %d ids", g.count, g.ids)))
	}
	if g.sum != g.added && g.invisible == 0 {
		c.sums.add(1, g.at, c.windowOffender(g.at,
			fmt.Sprintf("sum is %d, but its draws add up to %d", int64(g.sum), int64(g.added))))
	}
}

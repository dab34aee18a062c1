package transport

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// MaxItem bounds one item, in bytes.
const MaxItem = 1 << 34

const itemAtOnce = 16 << 20 // an item gets so much memory before it has come

// outbox is the items of one class that a peer has not taken yet. They are one stream of bytes, each item its length as a
// varint and then itself, and whatever happens to connections is a matter of positions in that stream. It holds any number of
// items: Mesh.Backlog tells how much, and what is not to be sent any more goes with the peer.
type outbox struct {
	items []parcel
	taken uint64 // the peer has taken everything before
	sent  uint64 // everything before is under way
	once  uint64 // everything before was under way once, on this connection or a former one
	at    int    // index of the item that sent is in; len(items) if there is none
	end   uint64
}

// parcel is an item in an outbox.
type parcel struct {
	begin  uint64 // position of its length
	prefix [binary.MaxVarintLen64]byte
	n      int // bytes of prefix
	item   []byte
}

func (p *parcel) end() uint64 { return p.begin + uint64(p.n) + uint64(len(p.item)) }

// begin is the position of the first item that is still here.
func (o *outbox) begin() uint64 {
	if len(o.items) == 0 {
		return o.end
	}
	return o.items[0].begin
}

func (o *outbox) push(item []byte) {
	p := parcel{begin: o.end, item: item}
	p.n = binary.PutUvarint(p.prefix[:], uint64(len(item)))
	o.items = append(o.items, p)
	o.end = p.end()
}

// next gives the bytes that go next as parts, at most limit of them and none beyond the window of what may be under way.
func (o *outbox) next(parts [][]byte, limit int, window uint64) (pos uint64, out [][]byte) {
	pos = o.sent
	room := uint64(limit)
	if w := o.taken + window; w < pos+room {
		room = max(w, pos) - pos
	}
	for room > 0 && o.at < len(o.items) {
		p := &o.items[o.at]
		into := o.sent - p.begin
		rest := p.prefix[:p.n]
		if into >= uint64(p.n) {
			into -= uint64(p.n)
			rest = p.item
		}
		n := min(room, uint64(len(rest))-into)
		if n > 0 {
			parts = append(parts, rest[into:into+n])
		}
		o.sent += n
		room -= n
		if o.sent == p.end() {
			o.at++
		}
	}
	o.once = max(o.once, o.sent)
	return pos, parts
}

// acknowledge handles a peer's word that it has taken everything before pos. That may be more than was sent on this connection:
// what was still coming on the former one when the peer said where to go on from.
func (o *outbox) acknowledge(pos uint64) error {
	if pos > o.once {
		return fmt.Errorf("%w: items taken up to %d, sent up to %d", ErrCorrupt, pos, o.once)
	}
	if pos > o.sent {
		o.seek(pos)
	}
	o.taken = max(o.taken, pos)
	n := 0
	for n < len(o.items) && o.items[n].end() <= pos {
		o.items[n] = parcel{}
		n++
	}
	o.items, o.at = o.items[n:], o.at-n
	return nil
}

// resume goes on from pos, up to which the peer has everything.
func (o *outbox) resume(pos uint64) error {
	if pos < o.begin() || pos > o.end {
		return fmt.Errorf("%w: items are to go on from %d, of [%d,%d)", ErrCorrupt, pos, o.begin(), o.end)
	}
	o.taken = min(o.taken, pos)
	o.seek(pos)
	return nil
}

func (o *outbox) seek(pos uint64) {
	o.sent = pos
	o.at = sort.Search(len(o.items), func(i int) bool { return o.items[i].end() > pos })
}

// backlog is the bytes that the peer has not taken.
func (o *outbox) backlog() uint64 { return o.end - o.taken }

// inbox puts the items of one class together again.
type inbox struct {
	received uint64 // the stream came up to here
	length   []byte // of the next item, as far as it came
	missing  uint64 // bytes of item that are to come
	item     []byte // nil between items
}

// piece takes bytes of the stream that begin at pos, and hands each item that they complete to whole. size is what the item
// took in the stream. Bytes that came before are passed over.
func (in *inbox) piece(pos uint64, p []byte, whole func(item []byte, size uint64)) error {
	if pos > in.received {
		return fmt.Errorf("%w: items from %d on, expected from %d", ErrCorrupt, pos, in.received)
	}
	if pos+uint64(len(p)) <= in.received {
		return nil
	}
	p = p[in.received-pos:]
	in.received += uint64(len(p))
	for len(p) > 0 || in.item != nil && in.missing == 0 {
		if in.item == nil {
			var err error
			if p, err = in.header(p); err != nil {
				return err
			}
			continue
		}
		n := min(in.missing, uint64(len(p)))
		in.item = append(grow(in.item, n, in.missing), p[:n]...)
		p = p[n:]
		if in.missing -= n; in.missing == 0 {
			item := in.item
			size := uint64(len(in.length)) + uint64(len(item))
			in.item, in.length = nil, in.length[:0]
			whole(item, size)
		}
	}
	return nil
}

// header takes the bytes of an item's length, and makes room for the item when it is complete.
func (in *inbox) header(p []byte) (rest []byte, err error) {
	for i, b := range p {
		in.length = append(in.length, b)
		if b < 0x80 {
			d := decoder{p: in.length}
			in.missing = d.below(MaxItem + 1)
			if d.bad {
				return nil, fmt.Errorf("%w: length of an item", ErrCorrupt)
			}
			in.item = make([]byte, 0, min(in.missing, itemAtOnce))
			return p[i+1:], nil
		}
		if len(in.length) >= binary.MaxVarintLen64 {
			return nil, fmt.Errorf("%w: length of an item", ErrCorrupt)
		}
	}
	return nil, nil
}

// grow makes room for n bytes more, of missing: twice as much each time, since append alone copies a long item several times.
func grow(p []byte, n, missing uint64) []byte {
	if uint64(cap(p)-len(p)) >= n {
		return p
	}
	have := uint64(len(p))
	return append(make([]byte, 0, min(max(2*have, have+n), have+missing)), p...)
}

package operator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// partial is what the records of a key and slice in one step add up to.
type partial[K comparable, A any] struct {
	key K
	acc A
}

// partialCodec codes a partial: length of the key, key, accumulator.
type partialCodec[K comparable, A any] struct {
	key Codec[K]
	acc Codec[A]
}

// Append implements Codec.
func (c partialCodec[K, A]) Append(dst []byte, p partial[K, A]) (_ []byte, err error) {
	start := len(dst)
	if dst, err = c.key.Append(append(dst, 0), p.key); err != nil {
		return nil, err
	}
	if size := len(dst) - start - 1; size < 0x80 {
		dst[start] = byte(size)
	} else {
		length := binary.AppendUvarint(nil, uint64(size))
		dst = slices.Insert(dst, start+1, length[1:]...)
		dst[start] = length[0]
	}
	return c.acc.Append(dst, p.acc)
}

// Decode implements Codec.
func (c partialCodec[K, A]) Decode(src []byte) (p partial[K, A], err error) {
	size, n := binary.Uvarint(src)
	if n <= 0 || size > uint64(len(src)-n) {
		return p, fmt.Errorf("%w: a combined record of %d bytes", ErrEncoding, len(src))
	}
	src = src[n:]
	if p.key, err = c.key.Decode(src[:size]); err != nil {
		return p, err
	}
	p.acc, err = c.acc.Decode(src[size:])
	return p, err
}

// combine adds the records of ks up for a window.
func combine[K comparable, I, A, O any](ks KeyedStream[K, I], name string, w Windows, a Aggregator[K, I, A, O],
	state codecRef[A]) KeyedStream[K, partial[K, A]] {
	in := ks.stream.node
	n := in.job.add(&node{
		kind: "Combine", name: name + "/combine", inputs: []input{inputOf(ks.stream)}, ports: ports(1),
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[partial[K, A]](outs, 0)
			op := &combiner[K, I, A]{pass: pass{at, out}, key: ks.key, codec: ks.codec.codec, take: a.take, out: out}
			if !w.processing && w.slide > 0 {
				op.place.slice = w.slice()
			}
			return built{op: op, entries: []any{op}}, err
		},
	}, &options{parallelism: in.parallelism})
	codec := codecRef[partial[K, A]]{err: errors.Join(ks.codec.err, state.err)}
	if codec.err == nil {
		codec.codec = partialCodec[K, A]{key: ks.codec.codec, acc: state.codec}
	}
	return KeyedStream[K, partial[K, A]]{
		stream: Stream[partial[K, A]]{node: n, codec: codec}, key: func(p partial[K, A]) K { return p.key }, codec: ks.codec,
	}
}

// joinPartial takes a partial into an accumulator.
func joinPartial[K comparable, A any](merge func(a, b A) (A, error)) func(acc A, known bool, p partial[K, A]) (A, error) {
	return func(acc A, known bool, p partial[K, A]) (A, error) {
		if !known {
			return p.acc, nil
		}
		return merge(acc, p.acc)
	}
}

// combiner is the operator. See Combined for its invariant.
type combiner[K comparable, I, A any] struct {
	pass
	key   func(I) K
	codec Codec[K] // of keys, for their hash: equal keys have equal encodings
	buf   []byte
	take  func(acc A, known bool, v I) (A, error)
	out   collector[partial[K, A]]
	place place // of the record before; its slices are 0 ms long in processing time, which the window's task assigns

	held  []heldPartial[K, A] // in the order in which they go out
	index heldIndex[K, A]
	undo  []undone[A] // what the present element has changed, in order
	since uint64      // the element that undo is about
}

type heldPartial[K comparable, A any] struct {
	hash    uint64
	key     K
	start   int64 // of the slice
	acc     A
	ts      int64 // of one of its records: all fall into the same windows
	hasTime bool
}

// heldIndex finds what is held by key and slice: a hash table with linear probing that is emptied by counting on. What came last may be
// taken out again, and nothing else.
type heldIndex[K comparable, A any] struct {
	slots []heldSlot // a power of two, at most half of them in use
	round uint32     // Invariant: above that of the slots that are not in use
}

// heldSlot is in use if its round is the present one.
type heldSlot struct {
	round uint32
	at    int32 // in combiner.held
}

// find gives the slot of a key and slice, in use or where it would be.
func (x *heldIndex[K, A]) find(held []heldPartial[K, A], hash uint64, key K, start int64) *heldSlot {
	if 2*len(held) >= len(x.slots) {
		x.grow(held)
	}
	mask := uint64(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &x.slots[i]
		if s.round != x.round {
			return s
		}
		if h := &held[s.at]; h.hash == hash && h.key == key && h.start == start {
			return s
		}
	}
}

func (x *heldIndex[K, A]) grow(held []heldPartial[K, A]) {
	x.slots, x.round = make([]heldSlot, max(leastSlots, 2*len(x.slots))), 1
	mask := uint64(len(x.slots) - 1)
	for at := range held {
		i := held[at].hash & mask
		for x.slots[i].round == x.round {
			i = (i + 1) & mask
		}
		x.slots[i] = heldSlot{x.round, int32(at)}
	}
}

// forget takes out what came last.
func (x *heldIndex[K, A]) forget(hash uint64, at int) {
	mask := uint64(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if s := &x.slots[i]; s.round == x.round && int(s.at) == at {
			s.round = x.round - 1
			return
		}
	}
}

// empty forgets everything.
func (x *heldIndex[K, A]) empty() {
	if x.round++; x.round == 0 {
		clear(x.slots)
		x.round = 1
	}
}

// undone is an accumulator before a change, or none.
type undone[A any] struct {
	at    int
	acc   A
	known bool
}

func (c *combiner[K, I, A]) record(v I, ts int64, hasTime bool) error {
	c.begin(ts, hasTime)
	key, start := c.key(v), int64(0)
	if c.place.slice > 0 {
		if !hasTime {
			return c.failed("assigning a window", errNoTimestamp)
		}
		c.place.move(ts)
		start = c.place.start
	}
	var err error
	if c.buf, err = c.codec.Append(c.buf[:0], key); err != nil {
		return c.failed("encoding a key", err)
	}
	hash := hashKey(c.buf) ^ uint64(start)*sliceMix
	slot := c.index.find(c.held, hash, key, start)
	var old A
	known := slot.round == c.index.round
	if known {
		old = c.held[slot.at].acc
	}
	acc, err := c.take(old, known, v)
	if err != nil {
		return c.user(err)
	}
	if !known {
		*slot = heldSlot{c.index.round, int32(len(c.held))}
		c.held = append(c.held, heldPartial[K, A]{hash: hash, key: key, start: start, ts: ts, hasTime: hasTime})
	}
	c.held[slot.at].acc = acc
	if c.since != c.chain.element {
		clear(c.undo)
		c.since, c.undo = c.chain.element, c.undo[:0]
	}
	c.undo = append(c.undo, undone[A]{at: int(slot.at), acc: old, known: known})
	return nil
}

// sliceMix spreads the starts of slices over a hash: an odd number, from the golden ratio.
const sliceMix = 0x9e3779b97f4a7c15

// rewind takes back what the present element has changed.
func (c *combiner[K, I, A]) rewind() {
	if c.since != c.chain.element {
		return
	}
	for len(c.undo) > 0 {
		last := c.undo[len(c.undo)-1]
		c.undo = c.undo[:len(c.undo)-1]
		h := &c.held[last.at]
		if last.known {
			h.acc = last.acc
			continue
		}
		c.index.forget(h.hash, last.at)
		c.held = c.held[:last.at]
	}
}

// flush sends what is held.
func (c *combiner[K, I, A]) flush() error {
	if len(c.held) == 0 {
		return nil
	}
	for i := range c.held {
		h := &c.held[i]
		c.begin(h.ts, h.hasTime)
		if err := c.out.record(partial[K, A]{h.key, h.acc}, h.ts, h.hasTime); err != nil {
			return err
		}
	}
	clear(c.held)
	clear(c.undo)
	c.index.empty()
	c.held, c.undo = c.held[:0], c.undo[:0]
	return nil
}

func (c *combiner[K, I, A]) stepEnd() error { return c.flush() }

func (c *combiner[K, I, A]) watermark(wm int64) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.pass.watermark(wm)
}

func (c *combiner[K, I, A]) idle(idle bool) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.pass.idle(idle)
}

func (c *combiner[K, I, A]) end() error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.pass.end()
}

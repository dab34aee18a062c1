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
			op := &combiner[K, I, A]{pass: pass{at, out}, key: ks.key, take: a.take, out: out, index: map[pane[K]]int{}}
			if !w.processing && w.slide > 0 {
				op.slice = w.slice()
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
	take  func(acc A, known bool, v I) (A, error)
	out   collector[partial[K, A]]
	slice int64 // 0: of processing time, which the window's task assigns

	held  []heldPartial[K, A] // in the order in which they go out
	index map[pane[K]]int     // in held
	undo  []undone[A]         // what the present element has changed, in order
	since uint64              // the element that undo is about
}

type pane[K comparable] struct {
	key   K
	start int64
}

type heldPartial[K comparable, A any] struct {
	pane[K]
	acc     A
	ts      int64 // of one of its records: all fall into the same windows
	hasTime bool
}

// undone is an accumulator before a change, or none.
type undone[A any] struct {
	at    int
	acc   A
	known bool
}

func (c *combiner[K, I, A]) record(v I, ts int64, hasTime bool) error {
	c.begin(ts, hasTime)
	p := pane[K]{key: c.key(v)}
	if c.slice > 0 {
		if !hasTime {
			return c.failed("assigning a window", errNoTimestamp)
		}
		p.start = sliceOf(ts, c.slice)
	}
	at, known := c.index[p]
	var old A
	if known {
		old = c.held[at].acc
	}
	acc, err := c.take(old, known, v)
	if err != nil {
		return c.user(err)
	}
	if !known {
		at = len(c.held)
		c.index[p] = at
		c.held = append(c.held, heldPartial[K, A]{pane: p, ts: ts, hasTime: hasTime})
	}
	c.held[at].acc = acc
	if c.since != c.chain.element {
		clear(c.undo)
		c.since, c.undo = c.chain.element, c.undo[:0]
	}
	c.undo = append(c.undo, undone[A]{at: at, acc: old, known: known})
	return nil
}

// rewind takes back what the present element has changed.
func (c *combiner[K, I, A]) rewind() {
	if c.since != c.chain.element {
		return
	}
	for len(c.undo) > 0 {
		last := c.undo[len(c.undo)-1]
		c.undo = c.undo[:len(c.undo)-1]
		if last.known {
			c.held[last.at].acc = last.acc
			continue
		}
		delete(c.index, c.held[last.at].pane)
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
	clear(c.index)
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

package operator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ErrSourceChanged is returned when a split gives other records than it gave before the failure.
var ErrSourceChanged = errors.New("operator: the source gives other records than before")

// compactAhead is how many emitted records a split holds on to before it moves the others down.
const compactAhead = 1024

// From begins a stream with the records of a source.
func From[T any](j *Job, name string, s Source[T], o ...Option) Stream[T] {
	opts := collect(o)
	j.require(s != nil, "From", name, "its source")
	codec := codecFor(opts, defaultCodec[T])
	n := &node{
		kind: "From", name: name, ports: ports(1), head: true,
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[T](outs, 0)
			h := newSourceHead(at, s, out)
			h.codec = codec.codec
			return built{op: h, head: &pass{at, out}, source: h, state: []Table{h}}, err
		},
	}
	n.source = func(ctx context.Context) ([]string, error) {
		splits, err := s.Splits(ctx)
		if err != nil {
			return nil, fmt.Errorf("operator: source %q: %w", name, err)
		}
		return splits, nil
	}
	if namer, ok := any(s).(InputNamer); ok {
		n.inputOf = namer.InputOf
	}
	if growing, ok := any(s).(Growing); ok && growing.DiscoveryInterval() > 0 {
		n.growing = growing
	}
	return Stream[T]{node: j.add(n, opts), codec: codec}
}

// sourceHead is the SourceHead of a Source, and the Table of its splits and offsets.
type sourceHead[T any] struct {
	*site
	source Source[T]
	codec  Codec[T] // nil if records cannot leave the vertex
	out    collector[T]
	ctx    context.Context
	cancel context.CancelFunc
	splits []*split[T]
	open   int
	turn   int // the split that Poll looks at first; not state: which split is read is a choice of the step loop
	polled int // the split of which Poll holds records for the next Begin, -1 if none
	dirty  []uint32
	step   sourceStep
	wakes  wakes
	waits  waiters
}

// split is one split and what was read of it ahead.
type split[T any] struct {
	identity string
	offset   uint64 // after the last record that went into the chain
	removed  bool
	dirty    bool
	reader   Reader[T]
	ahead    []T      // read and not yet emitted
	offsets  []uint64 // after each of them
	taken    int      // how many of them were emitted
	err      error    // what Next said after the last of them: io.EOF or a failure
}

// sourceStep is the Source step under way.
type sourceStep struct {
	split uint32
	left  int
	until uint64
}

func newSourceHead[T any](at *site, s Source[T], out collector[T]) *sourceHead[T] {
	h := &sourceHead[T]{site: at, source: s, out: out, polled: -1}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Add implements SourceHead. The split is opened when it is first read.
func (h *sourceHead[T]) Add(identity string) error {
	h.splits = append(h.splits, &split[T]{identity: identity})
	h.touch(uint32(len(h.splits) - 1))
	h.open++
	return nil
}

// Remove implements SourceHead.
func (h *sourceHead[T]) Remove(i uint32) error {
	s, err := h.split(i)
	if err != nil {
		return err
	}
	if h.polled == int(i) {
		h.polled = -1
	}
	s.removed = true
	h.touch(i)
	h.open--
	if s.reader == nil {
		return nil
	}
	h.waits.remove(s.identity)
	err = s.reader.Close()
	s.reader, s.ahead, s.offsets = nil, nil, nil
	if err != nil {
		return h.broken(s, "closing", err)
	}
	return nil
}

// split finds an open split.
func (h *sourceHead[T]) split(i uint32) (*split[T], error) {
	if int(i) >= len(h.splits) || h.splits[i].removed {
		return nil, fmt.Errorf("operator: %q: split %d of %d is not open", h.name, i, len(h.splits))
	}
	return h.splits[i], nil
}

func (h *sourceHead[T]) touch(i uint32) {
	if s := h.splits[i]; !s.dirty {
		s.dirty = true
		h.dirty = append(h.dirty, i)
	}
}

func (h *sourceHead[T]) broken(s *split[T], doing string, err error) error {
	return fmt.Errorf("operator: %q: %s split %q at offset %d: %w", h.name, doing, s.identity, s.offset, err)
}

// Poll implements SourceHead. Splits are looked at in turn.
func (h *sourceHead[T]) Poll(max int) (i uint32, n int, offset uint64, done bool, err error) {
	defer h.chain.guard(&err)
	h.enter()
	if h.polled >= 0 {
		s := h.splits[h.polled]
		n = min(max, len(s.ahead)-s.taken)
		return uint32(h.polled), n, s.offsets[s.taken+n-1], false, nil
	}
	for k := range h.splits {
		at := (h.turn + k) % len(h.splits)
		s := h.splits[at]
		if s.removed {
			continue
		}
		if err := h.read(s, max); err != nil {
			return 0, 0, 0, false, err
		}
		if n = min(max, len(s.ahead)-s.taken); n > 0 {
			h.turn, h.polled = at, at
			return uint32(at), n, s.offsets[s.taken+n-1], false, nil
		}
		if s.err == io.EOF {
			return uint32(at), 0, s.offset, true, nil
		}
	}
	return 0, 0, 0, false, nil
}

// read reads ahead until max records are held, and returns a failure only when no record is held.
func (h *sourceHead[T]) read(s *split[T], max int) error {
	if err := h.opened(s); err != nil {
		return err
	}
	if s.taken == len(s.ahead) {
		clear(s.ahead) // let go of what they point to
		s.ahead, s.offsets, s.taken = s.ahead[:0], s.offsets[:0], 0
	} else if s.taken >= compactAhead {
		n := copy(s.ahead, s.ahead[s.taken:])
		clear(s.ahead[n:])
		s.ahead, s.offsets, s.taken = s.ahead[:n], append(s.offsets[:0], s.offsets[s.taken:]...), 0
	}
	for s.err == nil && len(s.ahead)-s.taken < max {
		v, next, err := s.reader.Next()
		if err == ErrNotReady {
			break
		}
		if err != nil {
			s.err = err
			break
		}
		s.ahead, s.offsets = append(s.ahead, v), append(s.offsets, next)
	}
	if len(s.ahead) == s.taken && s.err != nil && s.err != io.EOF {
		return h.broken(s, "reading", s.err)
	}
	return nil
}

// opened opens the reader of a split at its offset if that has not been done.
func (h *sourceHead[T]) opened(s *split[T]) error {
	if s.reader != nil {
		return nil
	}
	r, err := h.source.Open(h.ctx, s.identity, s.offset)
	if err != nil {
		return h.broken(s, "opening", err)
	}
	s.reader = r
	h.waits.add(s.identity, r)
	h.wakes.watch(h.ctx, r.Ready())
	return nil
}

// Begin implements SourceHead.
func (h *sourceHead[T]) Begin(i uint32, n int, offset uint64) (err error) {
	s, err := h.split(i)
	if err != nil {
		return err
	}
	if h.step.left > 0 {
		return fmt.Errorf("operator: %q: a step begins with %d records of the last one to come", h.name, h.step.left)
	}
	if held := len(s.ahead) - s.taken; n < 1 || n <= held && s.offsets[s.taken+n-1] != offset {
		return h.broken(s, fmt.Sprintf("taking %d records up to offset %d of", n, offset), ErrSourceChanged)
	}
	h.step = sourceStep{split: i, left: n, until: offset}
	if h.polled == int(i) {
		h.polled = -1
		h.turn = (h.turn + 1) % len(h.splits)
	}
	return nil
}

// next looks at the record that Emit or Discard is about and returns it with the offset after it. It stays held until pass.
func (h *sourceHead[T]) next() (s *split[T], v T, offset uint64, err error) {
	if h.step.left == 0 {
		return nil, v, 0, fmt.Errorf("operator: %q: no step of the source is under way", h.name)
	}
	s = h.splits[h.step.split]
	if s.taken == len(s.ahead) {
		if err = h.read(s, 1); err != nil {
			return nil, v, 0, err
		}
	}
	if s.taken == len(s.ahead) {
		if s.err == io.EOF {
			return nil, v, 0, h.broken(s, fmt.Sprintf("%d records are missing at the end of", h.step.left), ErrSourceChanged)
		}
		return nil, v, 0, ErrNotReady
	}
	v, offset = s.ahead[s.taken], s.offsets[s.taken]
	if h.step.left == 1 && offset != h.step.until {
		return nil, v, 0, h.broken(s, fmt.Sprintf("a record ends at %d and not at %d in", offset, h.step.until), ErrSourceChanged)
	}
	return s, v, offset, nil
}

// pass goes beyond the record that next returned.
func (h *sourceHead[T]) pass(s *split[T], offset uint64) {
	s.taken++
	s.offset = offset
	h.step.left--
	h.touch(h.step.split)
}

// Emit implements SourceHead.
func (h *sourceHead[T]) Emit(n int, through func() bool) (ran int, err error) {
	defer h.chain.guard(&err)
	for ran < n {
		h.enter()
		s, v, offset, err := h.next()
		if err != nil {
			if ran > 0 && err == ErrNotReady {
				err = nil
			}
			return ran, err
		}
		h.chain.element++
		if err = h.out.record(v, 0, false); err != nil {
			return ran, err
		}
		h.pass(s, offset)
		ran++
		if !through() {
			break
		}
	}
	return ran, nil
}

// Position implements SourceHead.
func (h *sourceHead[T]) Position() (split uint32, offset uint64) {
	if int(h.step.split) >= len(h.splits) {
		return h.step.split, 0
	}
	return h.step.split, h.splits[h.step.split].offset
}

// Show implements SourceHead.
func (h *sourceHead[T]) Show() []byte {
	if int(h.step.split) >= len(h.splits) {
		return nil
	}
	s := h.splits[h.step.split]
	if s.taken == len(s.ahead) && h.read(s, 1) != nil || s.taken == len(s.ahead) {
		return nil
	}
	v := s.ahead[s.taken]
	if h.codec != nil {
		if shown, err := h.codec.Append(nil, v); err == nil {
			return shown
		}
	}
	return fmt.Appendf(nil, "%+v", v)
}

// Discard implements SourceHead.
func (h *sourceHead[T]) Discard() (err error) {
	defer h.chain.guard(&err)
	h.enter()
	s, _, offset, err := h.next()
	if err != nil {
		return err
	}
	h.pass(s, offset)
	return nil
}

// Splits implements SourceHead.
func (h *sourceHead[T]) Splits() int { return len(h.splits) }

// Open implements SourceHead.
func (h *sourceHead[T]) Open() int { return h.open }

// Ready implements SourceHead.
func (h *sourceHead[T]) Ready() <-chan struct{} { return h.wakes.ready() }

// Waiting implements SourceHead.
func (h *sourceHead[T]) Waiting() string { return h.waits.why() }

// Close implements SourceHead.
func (h *sourceHead[T]) Close() error {
	h.cancel()
	h.wakes.wait()
	var errs []error
	for _, s := range h.splits {
		if s.reader != nil {
			h.waits.remove(s.identity)
			errs = append(errs, s.reader.Close())
			s.reader = nil
		}
	}
	return errors.Join(errs...)
}

// ID implements Table.
func (h *sourceHead[T]) ID() string { return h.name + "/splits" }

// Freeze implements Table. An entry is a split: its index; whether it was removed, its offset and identity.
func (h *sourceHead[T]) Freeze() Frozen {
	f := &frozenEntries{id: h.ID(), whole: len(h.dirty) == len(h.splits)}
	slices.Sort(h.dirty)
	for _, i := range h.dirty {
		s := h.splits[i]
		s.dirty = false
		value := []byte{0}
		if s.removed {
			value[0] = 1
		}
		value = append(binary.AppendUvarint(value, s.offset), s.identity...)
		f.entries = append(f.entries, entry{key: binary.BigEndian.AppendUint32(nil, i), value: value})
	}
	h.dirty = h.dirty[:0]
	return f
}

// Load implements Table.
func (h *sourceHead[T]) Load(key, value []byte) error {
	if len(key) != 4 || len(value) < 2 {
		return fmt.Errorf("%w: split %x of %q", ErrEncoding, key, h.name)
	}
	offset, n := binary.Uvarint(value[1:])
	i := int(binary.BigEndian.Uint32(key))
	if n <= 0 {
		return fmt.Errorf("%w: split %d of %q", ErrEncoding, i, h.name)
	}
	for len(h.splits) <= i {
		h.splits = append(h.splits, nil)
	}
	h.splits[i] = &split[T]{identity: string(value[1+n:]), offset: offset, removed: value[0] == 1}
	return nil
}

// restored implements restorer.
func (h *sourceHead[T]) restored() error {
	h.open = 0
	for i, s := range h.splits {
		if s == nil {
			return fmt.Errorf("%w: split %d of %d of %q is missing", ErrEncoding, i, len(h.splits), h.name)
		}
		if !s.removed {
			h.open++
		}
	}
	return nil
}

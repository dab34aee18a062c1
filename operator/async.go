package operator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// AsyncOptions bound the external calls of [AsyncMap].
type AsyncOptions struct {
	// Capacity is how many records may be under way at once, those included whose result waits for its turn. The default is
	// 100.
	Capacity int
	// Ordered emits results in the order of the records. Otherwise a result is emitted when it is there, but never moves
	// across a watermark.
	Ordered bool
	// Timeout bounds one call through its context. Zero means no bound.
	Timeout time.Duration
}

// EnsureDefaults fills in what was left zero.
func (o *AsyncOptions) EnsureDefaults() {
	if o.Capacity == 0 {
		o.Capacity = 100
	}
}

// Validate finds options that make no sense.
func (o *AsyncOptions) Validate() error {
	if o.Capacity < 1 {
		return fmt.Errorf("AsyncOptions.Capacity is %d: want at least 1", o.Capacity)
	}
	if o.Timeout < 0 {
		return fmt.Errorf("AsyncOptions.Timeout is %v: want no less than 0", o.Timeout)
	}
	return nil
}

// AsyncMap makes one value of each by a call to the outside, many at a time. The results are recorded: a replay repeats none
// of the calls that were answered, but calls that were under way when the task failed are made again. An error of f fails the
// task.
//
// f runs on other goroutines than the task's, possibly several at once, and must obey ctx.
func AsyncMap[I, O any](s Stream[I], name string, f func(ctx context.Context, v I) (O, error), a AsyncOptions,
	o ...Option) Stream[O] {
	j, opts := jobOf(s, "AsyncMap", name), collect(o)
	j.require(f != nil, "AsyncMap", name, "its function")
	a.EnsureDefaults()
	if err := a.Validate(); err != nil {
		j.fail(fmt.Errorf("operator: AsyncMap %q: %w", name, err))
	}
	codec := codecFor(opts, defaultCodec[O])
	n := j.add(&node{
		kind: "AsyncMap", name: name, inputs: []input{inputOf(s)}, ports: ports(1), head: true,
		checks: []func() error{s.codec.check(), codec.check()},
		build: func(_ *builder, at *site, outs []any) (built, error) {
			out, err := portOf[O](outs, 0)
			op := &asyncMap[I, O]{pass: pass{at, out}, options: a, f: f, in: s.codec.codec, result: codec.codec, out: out,
				calls: newTable(name+"/calls", Codec[asyncEntry](asyncCodec{}))}
			return built{op: op, entries: []any{op}, state: []Table{op.calls}}, err
		},
	}, opts)
	return Stream[O]{node: n, codec: codec}
}

// asyncEntry is one element on its way through an AsyncMap: a record, or what control elements came between two records.
type asyncEntry struct {
	record bool
	done   bool // data is the result, not the input
	// hasTime and ts belong to a record; in a control entry hasTime says that there is a watermark, ts.
	hasTime bool
	ts      int64
	idle    idleness
	end     bool
	data    []byte
}

type idleness uint8

const (
	idleUnsaid idleness = iota
	idleYes
	idleNo
)

// asyncMap is the operator. It heads its vertex, so that the bytes of a record can be its state.
type asyncMap[I, O any] struct {
	pass
	options AsyncOptions
	f       func(context.Context, I) (O, error)
	in      Codec[I]
	result  Codec[O]
	out     collector[O]

	key   keyBytes
	calls *table[asyncEntry] // by sequence number: the elements under way
	next  uint64             // sequence number of the next element
	// Derived from calls:
	queue       []uint64 // elements under way, in order
	controls    []uint64 // those that are control entries, in order
	outstanding []uint64 // those that wait for an answer, in order
	records     int      // how many of queue are records
}

// recordBytes implements recordInput.
func (m *asyncMap[I, O]) recordBytes(payload []byte, ts int64, hasTime bool) error {
	m.begin(ts, hasTime)
	v, err := m.in.Decode(payload)
	if err != nil {
		return m.failed("decoding its input", err)
	}
	data := slices.Clone(payload)
	seq := m.push(asyncEntry{record: true, hasTime: hasTime, ts: ts, data: data})
	m.outstanding = append(m.outstanding, seq)
	m.records++
	m.issue(v, data)
	return nil
}

func (m *asyncMap[I, O]) push(e asyncEntry) uint64 {
	seq := m.next
	m.next++
	m.put(seq, e)
	m.queue = append(m.queue, seq)
	return seq
}

func (m *asyncMap[I, O]) put(seq uint64, e asyncEntry) { m.calls.set(m.name(seq), e) }

func (m *asyncMap[I, O]) get(seq uint64) asyncEntry {
	e, _ := m.calls.get(m.name(seq))
	return e
}

func (m *asyncMap[I, O]) drop(seq uint64) { m.calls.clear(m.name(seq)) }

// name makes the table key of an entry.
func (m *asyncMap[I, O]) name(seq uint64) *keyBytes {
	m.key.bytes = binary.BigEndian.AppendUint64(m.key.bytes[:0], seq)
	m.key.sum()
	return &m.key
}

// issue makes the call. What runs later uses nothing of the operator but its function and codec.
func (m *asyncMap[I, O]) issue(v I, data []byte) {
	f, codec, timeout := m.f, m.result, m.options.Timeout
	m.rt.Issue(xxhash.Sum64(data), func(ctx context.Context) (result []byte, err error) {
		defer func() {
			if r := recover(); r != nil {
				err = panicked(r)
			}
		}()
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		w, err := f(ctx, v)
		if err != nil {
			return nil, err
		}
		return codec.Append(nil, w)
	})
}

// asyncDone implements asyncHead.
func (m *asyncMap[I, O]) asyncDone(k int, result []byte, failed bool) error {
	m.enter()
	if k < 0 || k >= len(m.outstanding) {
		return m.failed("completing a call", fmt.Errorf("call %d of %d", k, len(m.outstanding)))
	}
	if failed {
		return m.user(errors.New(string(result)))
	}
	seq := m.outstanding[k]
	m.outstanding = slices.Delete(m.outstanding, k, k+1)
	e := m.get(seq)
	e.done, e.data = true, slices.Clone(result)
	if !m.options.Ordered && (len(m.controls) == 0 || seq < m.controls[0]) {
		at, _ := slices.BinarySearch(m.queue, seq)
		m.queue = slices.Delete(m.queue, at, at+1)
		if err := m.emit(seq, e); err != nil {
			return err
		}
		return m.advance()
	}
	m.put(seq, e)
	return m.advance()
}

// advance lets go what nothing holds back any more: control entries and results at the head of the queue, and, where the order
// of records does not count, results that such a control entry held back. It looks at no others: many calls are under way.
func (m *asyncMap[I, O]) advance() error {
	for len(m.queue) > 0 {
		seq := m.queue[0]
		e := m.get(seq)
		switch {
		case !e.record:
			m.queue, m.controls = m.queue[1:], m.controls[1:]
			m.drop(seq)
			if err := m.control(e); err != nil {
				return err
			}
			if err := m.emitFreed(); err != nil {
				return err
			}
		case e.done:
			m.queue = m.queue[1:]
			if err := m.emit(seq, e); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// emitFreed emits the results before the first control entry, where the order of the records does not count.
func (m *asyncMap[I, O]) emitFreed() error {
	if m.options.Ordered {
		return nil
	}
	end := len(m.queue)
	if len(m.controls) > 0 {
		end, _ = slices.BinarySearch(m.queue, m.controls[0])
	}
	var done, waiting []uint64
	for _, seq := range m.queue[:end] {
		if m.get(seq).done {
			done = append(done, seq)
		} else {
			waiting = append(waiting, seq)
		}
	}
	m.queue = slices.Concat(waiting, m.queue[end:])
	for _, seq := range done {
		if err := m.emit(seq, m.get(seq)); err != nil {
			return err
		}
	}
	return nil
}

// emit emits the result of a record that has left the queue.
func (m *asyncMap[I, O]) emit(seq uint64, e asyncEntry) error {
	m.drop(seq)
	m.records--
	m.enter()
	w, err := m.result.Decode(e.data)
	if err != nil {
		return m.failed("decoding a result", err)
	}
	return m.out.record(w, e.ts, e.hasTime)
}

func (m *asyncMap[I, O]) control(e asyncEntry) error {
	if e.idle == idleNo {
		if err := m.down.idle(false); err != nil {
			return err
		}
	}
	if e.hasTime {
		m.wm = e.ts
		if err := m.down.watermark(e.ts); err != nil {
			return err
		}
	}
	if e.idle == idleYes {
		if err := m.down.idle(true); err != nil {
			return err
		}
	}
	if e.end {
		return m.down.end()
	}
	return nil
}

// behind puts a control element after what is under way. Those between two records become one entry, so that entries are
// bounded by the capacity.
func (m *asyncMap[I, O]) behind(add func(*asyncEntry)) error {
	if n := len(m.queue); n > 0 {
		if e := m.get(m.queue[n-1]); !e.record {
			add(&e)
			m.put(m.queue[n-1], e)
			return nil
		}
	}
	var e asyncEntry
	add(&e)
	if len(m.queue) == 0 {
		return m.control(e)
	}
	m.controls = append(m.controls, m.push(e))
	return nil
}

func (m *asyncMap[I, O]) watermark(wm int64) error {
	return m.behind(func(e *asyncEntry) { e.hasTime, e.ts = true, wm })
}

func (m *asyncMap[I, O]) idle(idle bool) error {
	return m.behind(func(e *asyncEntry) {
		e.idle = idleNo
		if idle {
			e.idle = idleYes
		}
	})
}

func (m *asyncMap[I, O]) end() error { return m.behind(func(e *asyncEntry) { e.end = true }) }

// room and drained implement asyncHead.
func (m *asyncMap[I, O]) room() int     { return max(0, m.options.Capacity-m.records) }
func (m *asyncMap[I, O]) drained() bool { return len(m.queue) == 0 }

// restored implements restorer: it issues what waits for an answer again, in order.
func (m *asyncMap[I, O]) restored() error {
	m.queue, m.controls, m.outstanding, m.records = nil, nil, nil, 0
	for _, key := range m.calls.keys() {
		if len(key) != 8 {
			return m.failed("reading back a call", fmt.Errorf("%w: key %x", ErrEncoding, key))
		}
		seq := binary.BigEndian.Uint64([]byte(key))
		m.queue = append(m.queue, seq)
		m.next = seq + 1
		e := m.get(seq)
		if !e.record {
			m.controls = append(m.controls, seq)
			continue
		}
		m.records++
		if e.done {
			continue
		}
		m.outstanding = append(m.outstanding, seq)
		v, err := m.in.Decode(e.data)
		if err != nil {
			return m.failed("reading back a call", err)
		}
		m.issue(v, e.data)
	}
	return nil
}

// asyncCodec encodes an entry: flags, the time if there is one, and data.
type asyncCodec struct{}

const (
	flagRecord = 1 << iota
	flagDone
	flagTime
	flagEnd
	flagIdle // two bits
)

// Append implements Codec.
func (asyncCodec) Append(dst []byte, e asyncEntry) ([]byte, error) {
	flags := byte(e.idle) * flagIdle
	for _, f := range []struct {
		set bool
		bit byte
	}{{e.record, flagRecord}, {e.done, flagDone}, {e.hasTime, flagTime}, {e.end, flagEnd}} {
		if f.set {
			flags |= f.bit
		}
	}
	return append(binary.AppendVarint(append(dst, flags), e.ts), e.data...), nil
}

// Decode implements Codec.
func (asyncCodec) Decode(src []byte) (asyncEntry, error) {
	if len(src) == 0 {
		return asyncEntry{}, fmt.Errorf("%w: an entry of AsyncMap is empty", ErrEncoding)
	}
	flags := src[0]
	ts, n := binary.Varint(src[1:])
	if n <= 0 || flags >= 3*flagIdle {
		return asyncEntry{}, fmt.Errorf("%w: an entry of AsyncMap: %x", ErrEncoding, src)
	}
	return asyncEntry{
		record: flags&flagRecord != 0, done: flags&flagDone != 0, hasTime: flags&flagTime != 0, end: flags&flagEnd != 0,
		ts: ts, idle: idleness(flags / flagIdle), data: slices.Clone(src[1+n:]),
	}, nil
}

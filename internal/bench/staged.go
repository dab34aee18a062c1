package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-stream/understudy/operator"
)

// The kinds of access to a key.
const (
	look  = 0 // read its value
	alter = 1 // read it and put another in its place
	fill  = 2 // put its first value
)

// access is a record: what to do with a key, and when it was due, in microseconds since the Unix epoch; 0: nobody waits for it.
type access struct {
	Key  uint64
	Kind byte
	Due  int64
}

// stage is what the source does for some time. It does not change, but for ended. With a rate and an until it gives all that is due before that,
// however late, and then nothing: what was held up when the time was over must show in what is measured.
type stage struct {
	kind    byte         // fill: each key once; otherwise accesses without end
	halted  bool         // nothing
	over    bool         // the source ends
	start   time.Time    // when the first record is due
	rate    float64      // records per second; 0: as fast as they are taken
	changes float64      // keys changed per second, by the clock
	from    int64        // microseconds; what is due from here
	until   int64        // to before here
	late    *histogram   // is measured by this
	ended   atomic.Int64 // readers that have given all that is due before until
}

// staged is a source that does what the stage at hand says. It is for jobs that nothing befalls: what it gives depends on the clock, and
// cannot be read again.
type staged struct {
	parts int
	keys  uint64
	stage atomic.Pointer[stage]
	mu    struct {
		sync.Mutex
		readers []*stagedReader
	}
}

func newStaged(parts int, keys uint64) *staged {
	s := &staged{parts: parts, keys: keys}
	s.stage.Store(&stage{halted: true})
	return s
}

// enter begins a stage.
func (s *staged) enter(st *stage) {
	s.stage.Store(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.mu.readers {
		r.notify()
	}
}

// given is how many records were given out.
func (s *staged) given() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.mu.readers {
		n += r.given.Load()
	}
	return n
}

// Splits implements operator.Source.
func (s *staged) Splits(context.Context) (splits []string, err error) {
	for i := range s.parts {
		splits = append(splits, strconv.Itoa(i))
	}
	return splits, nil
}

// errReadAgain is why a measurement is void.
var errReadAgain = errors.New("bench: the source was opened again while it was measured")

// Open implements operator.Source.
func (s *staged) Open(_ context.Context, split string, offset uint64) (operator.Reader[access], error) {
	part, err := strconv.ParseUint(split, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("bench: split %q: %w", split, err)
	}
	if offset > 0 {
		return nil, errReadAgain
	}
	r := &stagedReader{source: s, part: part, ready: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.readers = append(s.mu.readers, r)
	return r, nil
}

type stagedReader struct {
	source  *staged
	part    uint64
	given   atomic.Uint64
	stage   *stage
	n       uint64 // records of the stage
	ended   bool   // all that the stage has for this reader is given
	altered uint64 // keys changed in the stage
	changed uint64 // keys ever changed
	now     time.Time
	ready   chan struct{}
	timer   *time.Timer
}

// clockEvery is how many records are given at full rate between two looks at the clock.
const clockEvery = 64

// Next implements operator.Reader.
func (r *stagedReader) Next() (access, uint64, error) {
	s := r.source
	if st := s.stage.Load(); st != r.stage {
		r.stage, r.n, r.altered, r.ended, r.now = st, 0, 0, false, time.Now()
	}
	st := r.stage
	place := r.n*uint64(s.parts) + r.part // among the stage's records
	switch {
	case st.over:
		return access{}, 0, io.EOF
	case st.halted || st.kind == fill && place >= s.keys:
		return access{}, 0, operator.ErrNotReady
	case st.kind == fill:
		return r.give(access{Key: place, Kind: fill})
	}
	var due int64
	if st.rate > 0 {
		at := st.start.Add(time.Duration(float64(place) / st.rate * float64(time.Second)))
		if due = at.UnixMicro(); st.until > 0 && due >= st.until {
			if !r.ended {
				r.ended = true
				st.ended.Add(1)
			}
			return access{}, 0, operator.ErrNotReady
		}
		if at.After(r.now) {
			r.now = time.Now()
		}
		if wait := at.Sub(r.now); wait > 0 {
			r.wake(wait)
			return access{}, 0, operator.ErrNotReady
		}
	} else if r.n%clockEvery == 0 {
		r.now = time.Now()
	}
	if float64(r.altered*uint64(s.parts)) < st.changes*r.now.Sub(st.start).Seconds() {
		key := scatter(^(r.changed*uint64(s.parts) + r.part)) % s.keys
		r.altered, r.changed = r.altered+1, r.changed+1
		return r.give(access{Key: key, Kind: alter, Due: due})
	}
	return r.give(access{Key: scatter(r.given.Load()*uint64(s.parts)+r.part) % s.keys, Kind: look, Due: due})
}

func (r *stagedReader) give(a access) (access, uint64, error) {
	r.n++
	return a, r.given.Add(1), nil
}

// wake says that there is more after some time, and not before a millisecond has gone.
func (r *stagedReader) wake(after time.Duration) {
	after = max(after, time.Millisecond)
	if r.timer != nil {
		r.timer.Reset(after)
		return
	}
	r.timer = time.AfterFunc(after, r.notify)
}

func (r *stagedReader) notify() {
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// Ready implements operator.Reader.
func (r *stagedReader) Ready() <-chan struct{} { return r.ready }

// Close implements operator.Reader.
func (r *stagedReader) Close() error {
	if r.timer != nil {
		r.timer.Stop()
	}
	return nil
}

// accessCodec is a byte, 8 bytes and a varint.
type accessCodec struct{}

// Append implements operator.Codec.
func (accessCodec) Append(dst []byte, a access) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint64(append(dst, a.Kind), uint64(a.Due))
	return binary.AppendUvarint(dst, a.Key), nil
}

// Decode implements operator.Codec.
func (accessCodec) Decode(src []byte) (a access, err error) {
	if len(src) < 10 {
		return a, fmt.Errorf("bench: a record of %d bytes is too short", len(src))
	}
	a.Kind, a.Due = src[0], int64(binary.LittleEndian.Uint64(src[1:]))
	key, n := binary.Uvarint(src[9:])
	if n <= 0 {
		return a, errors.New("bench: a record without a key")
	}
	a.Key = key
	return a, nil
}

// holder is the keyed operator: a value of some bytes for each key, which begins with the key and how often it was changed.
type holder struct {
	size  int
	state *operator.Value[[]byte]
}

// valueHeader is the key and the number of changes.
const valueHeader = 16

// Open implements operator.Processor.
func (h *holder) Open(s *operator.States) error {
	h.state = operator.NewValue[[]byte](s, "value", bytesCodec{})
	return nil
}

// Process implements operator.Processor. It emits when the record was due.
func (h *holder) Process(_ operator.KeyedContext[uint64], a access, emit func(int64)) error {
	emit(a.Due)
	if a.Kind == fill {
		h.state.Set(firstValue(a.Key, h.size))
		return nil
	}
	v, ok := h.state.Get()
	if !ok || binary.LittleEndian.Uint64(v) != a.Key {
		return fmt.Errorf("bench: assertion: key %d has the value of another, or none", a.Key)
	}
	if a.Kind == alter {
		next := append(make([]byte, 0, len(v)), v...)
		binary.LittleEndian.PutUint64(next[8:], binary.LittleEndian.Uint64(v[8:])+1)
		h.state.Set(next)
	}
	return nil
}

// firstValue is a value that no compression makes smaller.
func firstValue(key uint64, size int) []byte {
	v := make([]byte, 0, size)
	v = binary.LittleEndian.AppendUint64(v, key)
	v = binary.LittleEndian.AppendUint64(v, 0)
	for x := key; len(v) < size; x++ {
		v = binary.LittleEndian.AppendUint64(v, scatter(x*0x9e3779b97f4a7c15+1))
	}
	return v[:size:size]
}

// Timer implements operator.Processor.
func (h *holder) Timer(operator.KeyedContext[uint64], operator.Timer, func(int64)) error { return nil }

// dueCodec is 8 bytes.
type dueCodec struct{}

// Append implements operator.Codec.
func (dueCodec) Append(dst []byte, due int64) ([]byte, error) {
	return binary.LittleEndian.AppendUint64(dst, uint64(due)), nil
}

// Decode implements operator.Codec.
func (dueCodec) Decode(src []byte) (int64, error) {
	if len(src) != 8 {
		return 0, fmt.Errorf("bench: a row of %d bytes", len(src))
	}
	return int64(binary.LittleEndian.Uint64(src)), nil
}

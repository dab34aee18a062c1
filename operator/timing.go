package operator

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/understudy-stream/understudy/timers"
)

// timerTable is a queue of timers as a Table. A key is time, encoded key and tag; a value is the registration number, which
// orders timers of the same time.
type timerTable struct {
	id     string
	queue  *timers.Queue
	census census
	size   *entrySize
}

func newTimerTable(id string) *timerTable {
	return &timerTable{id: id, queue: timers.NewQueue(), size: &entrySize{}}
}

// ID implements Table.
func (t *timerTable) ID() string { return t.id }

// Freeze implements Table.
func (t *timerTable) Freeze() Frozen {
	f := &frozenTimers{id: t.id, size: t.size, changes: t.queue.Freeze(t.census.present(), t.census.replaced)}
	there := 0
	for i := range f.changes {
		if !f.changes[i].Removed {
			there++
		}
	}
	f.whole = there == t.queue.Len()
	t.census.froze(there, len(f.changes)-there)
	return f
}

// past implements cleanable.
func (t *timerTable) past() *census { return &t.census }

// volume implements cleanable.
func (t *timerTable) volume() (fresh, live int, bytes float64) {
	set, removed := t.queue.Changed()
	return set + removed/deletions, t.queue.Len(), t.size.mean()
}

// clean implements cleanable.
func (t *timerTable) clean(looks int) {
	c := &t.census
	c.at = t.queue.Again(c.at, looks, c.until, c.replaced)
	c.on = c.at > 0
}

// Load implements Table.
func (t *timerTable) Load(key, value []byte) error {
	timer, err := readTimer(key, value)
	if err != nil {
		return fmt.Errorf("operator: table %q: %w", t.id, err)
	}
	t.queue.Restore(timer)
	t.census.loaded(1)
	t.size.saw(len(key)+len(value), 1)
	return nil
}

// adopt implements adopter: timers fire in the same order, whatever the order in which they are restored.
func (t *timerTable) adopt(entries *residentTable) error {
	for e := range entries.all() {
		if err := t.Load([]byte(e.key), []byte(e.value)); err != nil {
			return err
		}
	}
	return nil
}

type frozenTimers struct {
	id      string
	changes []timers.Change
	whole   bool
	size    *entrySize
}

// Table implements Frozen.
func (f *frozenTimers) Table() string { return f.id }

// Whole implements Frozen.
func (f *frozenTimers) Whole() bool { return f.whole }

// Bytes implements checkpoint.Sized.
func (f *frozenTimers) Bytes() int { return f.size.of(len(f.changes)) }

// Entries implements Frozen.
func (f *frozenTimers) Entries(yield func(key, value []byte, deleted bool) error) error {
	keys := keysOf(len(f.changes))
	for i := range f.changes {
		keys.all = appendTimer(keys.all, &f.changes[i].Timer)
		keys.end()
	}
	f.size.saw(len(keys.all), len(f.changes))
	var value []byte
	for _, r := range keys.order() {
		c := &f.changes[r.at]
		if value = value[:0]; !c.Removed {
			value = binary.AppendUvarint(value, c.Reg)
		}
		if err := yield(keys.key(r.at), value, c.Removed); err != nil {
			return err
		}
	}
	return nil
}

// signBit makes signed numbers sort as unsigned big-endian bytes.
const signBit = 1 << 63

func appendTimer(key []byte, t *timers.Timer) []byte {
	key = binary.BigEndian.AppendUint64(key, uint64(t.Time)^signBit)
	key = binary.AppendUvarint(key, uint64(len(t.Key)))
	return append(append(key, t.Key...), t.Tag...)
}

func readTimer(key, value []byte) (timers.Timer, error) {
	if len(key) < 9 {
		return timers.Timer{}, fmt.Errorf("%w: a timer's key has %d bytes", ErrEncoding, len(key))
	}
	t := timers.Timer{Time: int64(binary.BigEndian.Uint64(key) ^ signBit)}
	size, n := binary.Uvarint(key[8:])
	if n <= 0 || size > uint64(len(key)-8-n) {
		return timers.Timer{}, fmt.Errorf("%w: timer %x", ErrEncoding, key)
	}
	rest := key[8+n:]
	t.Key, t.Tag = string(rest[:size]), string(rest[size:])
	reg, n := binary.Uvarint(value)
	if n <= 0 || n != len(value) {
		return timers.Timer{}, fmt.Errorf("%w: registration %x of a timer", ErrEncoding, value)
	}
	t.Reg = reg
	return t, nil
}

// clocks are the two queues of an operator with timers.
type clocks struct {
	processing *timerTable
	event      *timerTable
}

func newClocks(name string) clocks {
	return clocks{newTimerTable(name + "/processing timers"), newTimerTable(name + "/event timers")}
}

func (c *clocks) tables() []Table { return []Table{c.processing, c.event} }

func (c *clocks) nextTimer() (int64, bool) { return c.processing.queue.Next() }
func (c *clocks) mark() uint64             { return c.processing.queue.Mark() }

// noMark is a bound that holds no timer back.
const noMark = math.MaxUint64

// due fires what is due in one of the queues. Event-time timers that are registered meanwhile fire in the same rise of the
// watermark; processing-time timers wait for the next step.
func due(q *timers.Queue, until int64, before uint64, fire func(t timers.Timer) error) error {
	for {
		t, ok := q.Pop(until, before)
		if !ok {
			return nil
		}
		if err := fire(t); err != nil {
			return err
		}
	}
}

package inflightlog

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
)

// machine drives a log and a naive model of it with random calls.
type machine struct {
	l      *Log
	h      *history
	budget *Budget
	files  *memFiles
	limit  int64
	retain bool
	failed bool     // a write may have failed: memory is not bounded
	loose  [][]byte // appended and not committed
	sealed determinant.Seq
	base   determinant.Seq
	sub    struct {
		active, ahead, wrong bool
		next                 determinant.Seq
	}
	sent []mark
	held []heldBatch
}

// heldBatch is a batch that a consumer keeps, and what it looked like when it was handed out.
type heldBatch struct {
	b    *Batch
	copy string
}

func newMachine(t *rapid.T) *machine {
	m := &machine{files: newMemFiles(), retain: rapid.IntRange(0, 3).Draw(t, "retain") > 0}
	m.limit = rapid.SampledFrom([]int64{0, 600, 5000, math.MaxInt64}).Draw(t, "memory")
	m.budget = NewBudget(m.limit, math.MaxInt64, 0, m.files)
	start := rapid.SampledFrom([]determinant.Cursor{Origin, {Next: 100, Epoch: 7}, {Next: 5, Epoch: 2, Bytes: 30, CRC: 9}}).Draw(t, "start")
	m.l = NewLog(start, Options{
		Retain:       m.retain,
		Budget:       m.budget,
		SealBytes:    rapid.SampledFrom([]int{1, 50, 300}).Draw(t, "seal"),
		SegmentBytes: rapid.SampledFrom([]int64{1, 400, 2000}).Draw(t, "segment"),
		ReadAhead:    rapid.SampledFrom([]int{1, 500}).Draw(t, "ahead"),
		OnSeal:       m.onSeal,
	})
	m.h = newHistory(start)
	m.sealed, m.base = start.Next, start.Next
	return m
}

func (m *machine) onSeal(_ *Log, b *Batch) {
	m.sealed = b.End.Next
	if m.sub.ahead && m.sealed >= m.sub.next {
		m.sub.ahead = false
	}
}

func (m *machine) commit() {
	for _, b := range m.loose {
		m.h.add(b)
	}
	m.loose = nil
}

func (m *machine) Append(t *rapid.T) {
	for range rapid.IntRange(1, 5).Draw(t, "n") {
		e := Element{Kind: Record, Payload: make([]byte, rapid.IntRange(0, 90).Draw(t, "size"))}
		if rapid.Bool().Draw(t, "control") {
			e = Element{Kind: rapid.SampledFrom([]Kind{Watermark, Idle, Active}).Draw(t, "kind"), Time: 77}
			if e.Kind != Watermark {
				e.Time = 0
			}
			m.l.Control(e)
		} else {
			for i := range e.Payload {
				e.Payload[i] = byte(len(m.h.at) + i)
			}
			m.l.Record(0, false, e.Payload)
		}
		m.loose = append(m.loose, encode(e))
	}
	if rapid.IntRange(0, 3).Draw(t, "commit") > 0 {
		m.commit()
		m.l.Commit()
	}
}

func (m *machine) Rewind(*rapid.T) {
	m.l.Rewind()
	m.loose = nil
}

func (m *machine) Seal(*rapid.T) { m.l.Seal() }

func (m *machine) EndEpoch(t *rapid.T) {
	m.commit()
	e := Element{Kind: rapid.SampledFrom([]Kind{Barrier, Skip, End}).Draw(t, "kind")}
	if e.Kind != End {
		e.Epoch = m.h.end().Epoch
	}
	m.h.add(encode(e))
	m.l.Control(e)
}

func (m *machine) Truncate(t *rapid.T) {
	c := m.h.cursor(m.sealed)
	e := determinant.Epoch(rapid.Uint64Range(uint64(m.h.start.Epoch), uint64(c.Epoch)).Draw(t, "epoch")) - 1
	for m.base < m.sealed && m.h.epochs[m.base-m.h.start.Next] <= e {
		m.base++
	}
	m.l.Truncate(e)
}

func (m *machine) Subscribe(t *rapid.T) {
	last := m.h.end().Next
	i := rapid.Uint64Range(uint64(m.h.start.Next), uint64(last)).Draw(t, "seq")
	c := m.h.cursor(determinant.Seq(i))
	if wrong := rapid.IntRange(0, 9).Draw(t, "wrong") == 0; wrong {
		c.CRC ^= 1
		m.sub.wrong = true
	} else {
		m.sub.wrong = false
	}
	m.sub.active, m.sub.ahead, m.sub.next, m.sent = true, c.Next > m.sealed, c.Next, nil
	err := m.l.Subscribe(c)
	switch {
	case c.Next < m.base:
		require.ErrorIs(t, err, ErrBelow)
		m.sub.active, m.sub.ahead = false, false
	case m.sub.wrong && !m.sub.ahead:
		require.ErrorIs(t, err, ErrMismatch)
		m.sub.active = false
	default:
		require.NoError(t, err)
	}
}

func (m *machine) Adopt(*rapid.T) {
	m.sub.active, m.sub.ahead, m.sub.wrong, m.sub.next, m.sent = true, false, false, m.base, nil
	if got := m.l.Adopt(); got != m.h.cursor(m.base) {
		panic("adopt")
	}
}

func (m *machine) Unsubscribe(*rapid.T) {
	m.sub.active, m.sub.ahead, m.sent = false, false, nil
	m.l.Unsubscribe()
}

func (m *machine) Next(t *rapid.T) {
	window := rapid.SampledFrom([]int{-1, 0, 40, 200}).Draw(t, "window")
	outstanding := m.l.Outstanding()
	b, err := m.l.Next(window)
	switch {
	case !m.sub.active || m.sub.ahead:
		require.NoError(t, err)
		require.Nil(t, b)
	case m.sub.wrong:
		require.ErrorIs(t, err, ErrMismatch)
	case m.sub.next == m.sealed:
		require.NoError(t, err)
		require.Nil(t, b)
	case m.sub.next < m.base:
		require.ErrorIs(t, err, ErrBelow)
	case b == nil:
		require.NoError(t, err)
		require.GreaterOrEqual(t, window, 0)
		require.Greater(t, outstanding, window/CreditShare)
	default:
		require.NoError(t, err)
		m.h.check(t, b, m.sub.next)
		require.True(t, window < 0 || outstanding+len(b.Payload) <= window || outstanding <= window/CreditShare)
		m.sub.next = b.End.Next
		m.sent = append(m.sent, mark{b.End.Next, len(b.Payload)})
		m.held = append(m.held, heldBatch{b, string(b.Payload)})
	}
}

func (m *machine) Grant(t *rapid.T) {
	to := m.h.start.Next + determinant.Seq(rapid.IntRange(0, len(m.h.bytes)).Draw(t, "seq"))
	m.l.Grant(to)
	for len(m.sent) > 0 && m.sent[0].end <= to {
		m.sent = m.sent[1:]
	}
}

func (m *machine) DiskFails(*rapid.T) {
	m.files.failWith(errNoSpace)
	m.failed = true
}

func (m *machine) DiskWorks(*rapid.T) { m.files.failWith(nil) }

// dropped follows a log that does not retain: what it drops when depends on where batches were cut, but it must not be what
// no consumer has passed.
func (m *machine) dropped(t *rapid.T) {
	base := m.l.base().Next
	if base == m.base {
		return
	}
	require.False(t, m.retain)
	require.True(t, m.sub.active)
	require.Greater(t, base, m.base)
	require.LessOrEqual(t, base, min(m.sub.next, m.sealed))
	m.base = base
}

// Check is called after every action.
func (m *machine) Check(t *rapid.T) {
	m.dropped(t)
	require.Equal(t, m.h.end(), m.l.End())
	require.Equal(t, m.h.cursor(m.sealed), m.l.Sealed())
	require.Equal(t, m.sealed < m.h.end().Next, m.l.Pending())
	require.Equal(t, m.sub.active, m.l.Subscribed())
	require.Equal(t, m.sub.ahead && m.sub.next > m.h.end().Next, m.l.Ahead())
	unsent, outstanding := 0, 0
	if m.sub.active && !m.sub.ahead && !m.sub.wrong {
		unsent = len(m.h.join(m.sub.next, m.sealed))
	}
	for _, s := range m.sent {
		outstanding += s.bytes
	}
	require.Equal(t, unsent, m.l.Unsent())
	require.GreaterOrEqual(t, m.l.Excess(), 0)
	require.LessOrEqual(t, m.l.Excess(), unsent)
	require.Equal(t, outstanding, m.l.Outstanding())
	memory, disk := m.l.Retained()
	usedMemory, usedDisk := m.budget.Used()
	require.Equal(t, memory, usedMemory)
	require.Equal(t, disk, usedDisk)
	require.True(t, m.failed || memory <= m.limit)
	for _, k := range m.held {
		require.Equal(t, k.copy, string(k.b.Payload))
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		t.Repeat(rapid.StateMachineActions(m))
		m.files.failWith(nil)
		m.l.Seal()
		at := m.l.Adopt()
		require.Equal(t, m.h.cursor(m.l.base().Next), at)
		for {
			b, err := m.l.Next(-1)
			require.NoError(t, err)
			if b == nil {
				break
			}
			m.h.check(t, b, at.Next)
			at = b.End
		}
		require.Equal(t, m.h.cursor(m.sealed), at)
		require.NoError(t, m.l.Close())
		memory, disk := m.budget.Used()
		n, _ := m.files.size()
		require.Zero(t, memory+disk+int64(n))
	})
}

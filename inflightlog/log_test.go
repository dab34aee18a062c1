package inflightlog

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

func TestNothingIsVisibleBeforeSeal(t *testing.T) {
	l := NewLog(Origin, Options{Retain: true})
	require.NoError(t, l.Subscribe(Origin))
	h := newHistory(Origin)
	l.Record(7, true, []byte("a"))
	require.False(t, l.Pending())
	l.Seal()
	require.Equal(t, Origin, l.End())
	l.Commit()
	h.add(AppendRecord(nil, 7, true, []byte("a")))
	require.True(t, l.Pending())
	require.Equal(t, h.end(), l.End())
	require.Equal(t, Origin, l.Sealed())
	b, err := l.Next(-1)
	require.NoError(t, err)
	require.Nil(t, b)
	l.Record(0, false, []byte("open"))
	l.Seal()
	require.False(t, l.Pending())
	require.Equal(t, h.end(), l.Sealed())
	b, err = l.Next(-1)
	require.NoError(t, err)
	h.check(t, b, 0)
	l.Commit()
	l.Seal()
	h.add(AppendRecord(nil, 0, false, []byte("open")))
	h.drain(t, l, b.End)
}

func TestRewindLeavesNothingBehind(t *testing.T) {
	l := NewLog(Origin, Options{Retain: true, SealBytes: 64})
	require.NoError(t, l.Subscribe(Origin))
	h := newHistory(Origin)
	at := Origin
	for i := range 200 {
		h.put(l, bytes.Repeat([]byte{byte(i)}, i%50))
		before := l.End()
		for range i % 7 {
			l.Record(0, false, bytes.Repeat([]byte("x"), i))
			l.Control(Element{Kind: Watermark, Time: 5})
			_ = l.End()
		}
		if i%3 == 0 {
			l.Seal()
		}
		l.Rewind()
		require.Equal(t, before, l.End())
		at = h.drain(t, l, at)
	}
	l.Seal()
	at = h.drain(t, l, at)
	require.Equal(t, h.end(), at)
}

func TestEpochBorderIsOnePosition(t *testing.T) {
	l := NewLog(Origin, Options{Retain: true})
	h := newHistory(Origin)
	h.put(l, []byte("a"))
	h.barrier(l)
	border := determinant.Cursor{Next: 2, Epoch: 2}
	require.Equal(t, border, l.End())
	require.NoError(t, l.Subscribe(border), "at the end of the log")
	h.put(l, []byte("b"))
	l.Seal()
	require.NoError(t, l.Subscribe(border), "between two batches")
	require.Equal(t, h.end(), h.drain(t, l, border))
	l.Truncate(1)
	require.NoError(t, l.Subscribe(border), "at the start of the log")
	require.ErrorIs(t, l.Subscribe(Origin), ErrBelow)
	require.Equal(t, border, l.Adopt())
	h.control(l, Element{Kind: Skip, Epoch: 2})
	l.Truncate(2)
	require.Equal(t, determinant.Cursor{Next: 4, Epoch: 3}, l.Adopt())
	require.Panics(t, func() { l.Control(Element{Kind: Barrier, Epoch: 2}) })
	require.Panics(t, func() { NewLog(determinant.Cursor{}, Options{}) })
}

func TestControlElementsCutBatches(t *testing.T) {
	var sealed []*Batch
	l := NewLog(Origin, Options{Retain: true, OnSeal: func(_ *Log, b *Batch) { sealed = append(sealed, b) }})
	h := newHistory(Origin)
	h.put(l, []byte("a"))
	h.control(l, Element{Kind: Watermark, Time: 9})
	h.control(l, Element{Kind: Idle})
	h.control(l, Element{Kind: Active})
	require.Empty(t, sealed)
	h.control(l, Element{Kind: End})
	h.barrier(l)
	h.control(l, Element{Kind: Skip, Epoch: 2})
	require.Len(t, sealed, 3)
	from := determinant.Seq(0)
	for _, b := range sealed {
		require.True(t, b.Control)
		h.check(t, b, from)
		from = b.End.Next
	}
	require.EqualValues(t, 5, sealed[0].Count)
}

func TestSubscribeChecksEveryFieldAtEveryElement(t *testing.T) {
	for _, start := range []determinant.Cursor{Origin, {Next: 40, Epoch: 9, Bytes: 77, CRC: 0xabcd}} {
		l := NewLog(start, Options{Retain: true, SealBytes: 100, Channel: 3})
		h := newHistory(start)
		for i := range 60 {
			h.put(l, bytes.Repeat([]byte{byte(i)}, i))
			if i%20 == 19 {
				h.barrier(l)
			}
		}
		l.Seal()
		require.Equal(t, h.end(), l.Sealed())
		for _, c := range h.at {
			require.NoError(t, l.Subscribe(c))
			require.Equal(t, int(sizeFrom(h, c.Next)), l.Unsent())
			require.Equal(t, h.end(), h.drain(t, l, c))
			for _, wrong := range []determinant.Cursor{
				{Next: c.Next, Epoch: c.Epoch + 1, Bytes: c.Bytes, CRC: c.CRC},
				{Next: c.Next, Epoch: c.Epoch, Bytes: c.Bytes + 1, CRC: c.CRC},
				{Next: c.Next, Epoch: c.Epoch, Bytes: c.Bytes, CRC: c.CRC ^ 1},
			} {
				err := l.Subscribe(wrong)
				require.ErrorIs(t, err, ErrMismatch)
				require.Equal(t, &Mismatch{Channel: 3, Have: c, Want: wrong}, err)
				require.False(t, l.Subscribed())
			}
		}
	}
}

func sizeFrom(h *history, from determinant.Seq) uint64 {
	return uint64(len(h.join(from, h.end().Next)))
}

// A promoted producer is behind its consumer until its replay arrives there.
func TestConsumerAhead(t *testing.T) {
	h := newHistory(Origin)
	old := NewLog(Origin, Options{})
	for i := range 30 {
		if i == 14 {
			h.barrier(old)
			continue
		}
		h.put(old, bytes.Repeat([]byte{byte(i)}, 10))
	}
	for _, retain := range []bool{true, false} {
		for _, c := range h.at {
			for _, wrong := range []bool{false, true} {
				want := c
				if wrong {
					want.CRC ^= 1
				}
				l := NewLog(Origin, Options{Retain: retain, SealBytes: 64})
				err := l.Subscribe(want)
				require.Equal(t, c.Next > 0, l.Ahead())
				if c.Next == 0 {
					require.Equal(t, wrong, err != nil)
					continue
				}
				require.NoError(t, err)
				require.True(t, l.Subscribed())
				for i := range h.bytes {
					if i == 14 {
						l.Control(Element{Kind: Barrier, Epoch: 1, Depth: determinant.Full})
					} else {
						l.Record(7, true, bytes.Repeat([]byte{byte(i)}, 10))
						require.Equal(t, i < int(c.Next), l.Ahead(), "appended, not committed")
					}
					l.Commit()
					require.Equal(t, i+1 < int(c.Next), l.Ahead(), "committed and perhaps not sealed")
					if l.Sealed().Next < c.Next {
						require.Zero(t, l.Unsent())
						b, err := l.Next(-1)
						require.NoError(t, err)
						require.Nil(t, b)
					}
				}
				l.Seal()
				if wrong {
					require.Zero(t, l.Unsent())
					_, err := l.Next(-1)
					require.Equal(t, &Mismatch{Have: c, Want: want}, err)
					continue
				}
				require.Equal(t, int(sizeFrom(h, c.Next)), l.Unsent())
				require.Equal(t, h.end(), h.drain(t, l, c))
			}
		}
	}
}

func TestCursorUncheckedMutation(t *testing.T) {
	l := NewLog(Origin, Options{Retain: true, Mutations: mutation.CursorUnchecked})
	h := newHistory(Origin)
	h.put(l, []byte("a"))
	h.put(l, []byte("b"))
	l.Seal()
	require.NoError(t, l.Subscribe(determinant.Cursor{Next: 1, CRC: 99}))
	require.Equal(t, h.end(), h.drain(t, l, h.cursor(1)))
	require.NoError(t, l.Subscribe(determinant.Cursor{Next: 1000}))
	require.False(t, l.Ahead())
	require.Equal(t, h.end(), h.drain(t, l, h.end()))
}

// What was sealed while the consumer was away does not count as excess, as long as the consumer gains on the producer.
func TestExcessLeavesOutWhatTheConsumerWasBehind(t *testing.T) {
	l := NewLog(Origin, Options{Retain: true, SealBytes: 100})
	h := newHistory(Origin)
	put := func(n int) {
		for range n {
			h.put(l, make([]byte, 200))
		}
	}
	put(8)
	size := len(h.bytes[0])
	require.NoError(t, l.Subscribe(Origin))
	require.Equal(t, 8*size, l.Unsent())
	require.Zero(t, l.Excess())
	put(1)
	require.Equal(t, size+size/debtShare, l.Excess())
	for range 2 {
		_, err := l.Next(-1)
		require.NoError(t, err)
	}
	require.Equal(t, 7*size, l.Unsent())
	require.Zero(t, l.Excess(), "it has gained")
	put(7 * debtShare)
	require.InDelta(t, l.Unsent(), l.Excess(), 7*debtShare, "a consumer that does not gain loses what was left out")
	h.drain(t, l, h.cursor(2))
	put(1)
	require.Equal(t, size, l.Excess(), "nothing is left out once it has caught up")
}

func TestCreditAndBackpressure(t *testing.T) {
	l := NewLog(Origin, Options{Retain: true, SealBytes: 100})
	h := newHistory(Origin)
	for range 3 {
		h.put(l, make([]byte, 200))
	}
	size := len(h.bytes[0])
	require.Zero(t, l.Unsent(), "nobody to send to")
	require.NoError(t, l.Subscribe(Origin))
	require.Equal(t, 3*size, l.Unsent())
	first, err := l.Next(0)
	require.NoError(t, err)
	require.NotNil(t, first, "nothing is outstanding: any size may go")
	require.Equal(t, 2*size, l.Unsent())
	require.Equal(t, size, l.Outstanding())
	b, err := l.Next(2*size - 1)
	require.NoError(t, err)
	require.Nil(t, b)
	b, err = l.Next(2 * size)
	require.NoError(t, err)
	h.check(t, b, 1)
	require.Equal(t, 2*size, l.Outstanding())
	l.Grant(1)
	require.Equal(t, size, l.Outstanding())
	l.Grant(1)
	l.Grant(2)
	require.Zero(t, l.Outstanding())
	b, err = l.Next(0)
	require.NoError(t, err)
	h.check(t, b, 2)
	h.put(l, make([]byte, 200))
	b, err = l.Next(CreditShare*size - 1)
	require.NoError(t, err)
	require.NotNil(t, b, "there is room")
	h.put(l, make([]byte, 2000))
	b, err = l.Next(2*CreditShare*size - 1)
	require.NoError(t, err)
	require.Nil(t, b, "a big one waits")
	b, err = l.Next(2 * CreditShare * size)
	require.NoError(t, err)
	require.NotNil(t, b, "so little may be outstanding for ever")
	l.Unsubscribe()
	require.Zero(t, l.Outstanding())
	b, err = l.Next(-1)
	require.NoError(t, err)
	require.Nil(t, b)
	require.NoError(t, l.Subscribe(Origin), "sent batches are retained")
	require.Equal(t, h.end(), h.drain(t, l, Origin))
	h.check(t, first, 0)
}

func TestWithoutRetentionABatchGoesWhenSent(t *testing.T) {
	l := NewLog(Origin, Options{SealBytes: 100})
	h := newHistory(Origin)
	h.put(l, make([]byte, 200))
	h.put(l, make([]byte, 200))
	memory, _ := l.Retained()
	require.EqualValues(t, 2*(len(h.bytes[0])+BatchOverhead), memory)
	require.NoError(t, l.Subscribe(Origin))
	require.Equal(t, h.end(), h.drain(t, l, Origin))
	memory, _ = l.Retained()
	require.Zero(t, memory)
	require.ErrorIs(t, l.Subscribe(Origin), ErrBelow)
	require.NoError(t, l.Subscribe(h.end()))

	// The mode changes with the epoch.
	require.Panics(t, func() { l.Retain(true) })
	l.Rewind()
	h.barrier(l)
	l.Retain(true)
	border := h.end()
	at := h.drain(t, l, h.cursor(2))
	require.Equal(t, border, at)
	h.put(l, []byte("kept"))
	h.barrier(l)
	l.Retain(false)
	h.put(l, []byte("behind what is kept"))
	l.Seal()
	require.Equal(t, h.end(), h.drain(t, l, border))
	require.NoError(t, l.Subscribe(border))
	require.Equal(t, h.end(), h.drain(t, l, border))
	l.Truncate(2)
	memory, _ = l.Retained()
	require.Zero(t, memory)
}

func TestTruncationUnderAReader(t *testing.T) {
	l := NewLog(Origin, Options{Retain: true, SealBytes: 50})
	h := newHistory(Origin)
	for range 3 {
		for i := range 10 {
			h.put(l, bytes.Repeat([]byte{byte(i)}, 30))
		}
		h.barrier(l)
	}
	require.NoError(t, l.Subscribe(Origin))
	b, err := l.Next(-1)
	require.NoError(t, err)
	l.Truncate(2)
	h.check(t, b, 0)
	_, err = l.Next(-1)
	require.ErrorIs(t, err, ErrBelow, "truncated although the consumer had not got it: the caller broke its word")
	c := h.cursor(22)
	require.NoError(t, l.Subscribe(c))
	require.Equal(t, h.end(), h.drain(t, l, c))
	require.NoError(t, l.Close())
	_, err = l.Next(-1)
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, l.Subscribe(c), ErrClosed)
	memory, disk := l.Retained()
	require.Zero(t, memory+disk)
}

func TestBatchFromAndCheck(t *testing.T) {
	var b *Batch
	tag := new(int)
	l := NewLog(Origin, Options{Retain: true,
		Tag:    func(*Log, *Batch) any { return tag },
		OnSeal: func(_ *Log, s *Batch) { b = s }})
	h := newHistory(Origin)
	for i := range 20 {
		h.put(l, bytes.Repeat([]byte{byte(i)}, i))
	}
	h.barrier(l)
	for seq := b.First; seq < b.End.Next; seq++ {
		rest, err := b.From(seq)
		require.NoError(t, err)
		h.check(t, rest, seq)
		require.Same(t, tag, rest.Tag)
		require.Same(t, &b.Payload[len(b.Payload)-1], &rest.Payload[len(rest.Payload)-1])
	}
	_, err := b.From(b.End.Next)
	require.ErrorIs(t, err, ErrOutside)
	_, err = b.From(b.End.Next + 1)
	require.ErrorIs(t, err, ErrOutside)
	end, err := b.At(b.End.Next)
	require.NoError(t, err)
	require.Equal(t, b.End, end)

	require.ErrorIs(t, b.Check(0, determinant.Cursor{Next: 1, Epoch: 1}), ErrMismatch)
	for _, spoil := range []func(*Batch){
		func(b *Batch) { b.Count++ },
		func(b *Batch) { b.Epoch++ },
		func(b *Batch) { b.First++ },
		func(b *Batch) { b.End.Bytes++ },
		func(b *Batch) { b.Control = false },
	} {
		bad := *b
		spoil(&bad)
		require.ErrorIs(t, bad.Check(0, Origin), ErrMismatch)
	}
	bad := *b
	bad.Payload = []byte{1, 5}
	_, err = bad.From(3)
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestBigElementsAndChunkSharing(t *testing.T) {
	l := NewLog(Origin, Options{Retain: true})
	require.NoError(t, l.Subscribe(Origin))
	h := newHistory(Origin)
	at := Origin
	for i := range 400 {
		h.put(l, bytes.Repeat([]byte{byte(i)}, (i*i*97)%150000))
		if i%3 == 0 {
			l.Seal()
			at = h.drain(t, l, at)
		}
	}
	l.Seal()
	require.Equal(t, h.end(), h.drain(t, l, at))
	require.NoError(t, l.Subscribe(Origin), "nothing overwrote a sealed batch")
	require.Equal(t, h.end(), h.drain(t, l, Origin))
}

func TestOptionsValidate(t *testing.T) {
	require.Error(t, (&Options{SealBytes: -1}).Validate())
	require.Panics(t, func() { NewLog(Origin, Options{ReadAhead: -1}) })
}

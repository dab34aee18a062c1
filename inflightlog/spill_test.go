package inflightlog

import (
	"bytes"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// A stalled consumer, a tiny budget: memory stays within it at every moment, and everything comes back byte-equal.
func TestStalledConsumerStaysWithinBudget(t *testing.T) {
	osDir, err := OSFiles(t.TempDir())
	require.NoError(t, err)
	for name, files := range map[string]Files{"memory": newMemFiles(), "os": osDir} {
		for _, limit := range []int64{0, 3000, 50_000} {
			b := NewBudget(limit, math.MaxInt64, 0, files)
			l := NewLog(Origin, Options{Retain: true, Budget: b, SealBytes: 1000, SegmentBytes: 20_000, ReadAhead: 5000})
			h := newHistory(Origin)
			random := rand.New(rand.NewSource(1))
			require.NoError(t, l.Subscribe(Origin))
			for i := range 3000 {
				payload := make([]byte, random.Intn(200))
				random.Read(payload)
				h.put(l, payload)
				if random.Intn(5) == 0 {
					l.Seal()
				}
				if i%1000 == 999 {
					h.barrier(l)
				}
				memory, disk := l.Retained()
				usedMemory, usedDisk := b.Used()
				require.Equal(t, memory, usedMemory)
				require.Equal(t, disk, usedDisk)
				require.LessOrEqual(t, memory, limit, name)
				if m, ok := files.(*memFiles); ok {
					_, bytes := m.size()
					require.Equal(t, disk, bytes)
				}
			}
			require.Equal(t, int(sizeFrom(h, 0)), l.Unsent())
			require.False(t, b.Full())
			require.Equal(t, h.end(), h.drain(t, l, Origin))
			for _, c := range h.at {
				if random.Intn(500) == 0 {
					require.NoError(t, l.Subscribe(c))
					require.Equal(t, h.end(), h.drain(t, l, c))
				}
			}
			memory, _ := b.Used()
			require.LessOrEqual(t, memory, limit, "what is read ahead counts too")
			before, _ := l.Retained()
			l.Truncate(1)
			c := h.cursor(1001)
			require.NoError(t, l.Subscribe(c))
			require.Equal(t, h.end(), h.drain(t, l, c))
			after, _ := l.Retained()
			require.LessOrEqual(t, after, max(before, limit))
			require.NoError(t, l.Close())
			memory, disk := b.Used()
			require.Zero(t, memory+disk)
			require.NoError(t, b.Err())
		}
		if m, ok := files.(*memFiles); ok {
			n, _ := m.size()
			require.Zero(t, n)
		}
	}
}

// fill makes a log of three epochs whose batches are all on disk.
func fill(t *testing.T, files Files, o Options) (*Log, *history) {
	t.Helper()
	o.Retain, o.Budget, o.SealBytes = true, NewBudget(0, math.MaxInt64, 0, files), 500
	l := NewLog(Origin, o)
	h := newHistory(Origin)
	for range 3 {
		for i := range 50 {
			h.put(l, bytes.Repeat([]byte{byte(i)}, 100))
		}
		h.barrier(l)
	}
	return l, h
}

func TestSegmentFilesGoWithTheirEpoch(t *testing.T) {
	files := newMemFiles()
	l, h := fill(t, files, Options{SegmentBytes: 2000})
	n, _ := files.size()
	require.Greater(t, n, 6)
	for e := determinant.Epoch(1); e <= 3; e++ {
		before, _ := files.size()
		l.Truncate(e)
		after, size := files.size()
		require.Less(t, after, before)
		_, disk := l.Retained()
		require.Equal(t, size, disk)
	}
	n, _ = files.size()
	require.Zero(t, n, "the file being written goes too")
	h.put(l, []byte("next"))
	l.Seal()
	c := determinant.Cursor{Next: 153, Epoch: 4}
	require.NoError(t, l.Subscribe(c))
	require.Equal(t, h.end(), h.drain(t, l, c))
}

func TestReplayReadsAhead(t *testing.T) {
	reads := func(readAhead int) int {
		files := newMemFiles()
		l, h := fill(t, files, Options{ReadAhead: readAhead})
		l.o.Budget.memory = 1 << 20
		require.NoError(t, l.Subscribe(Origin))
		require.Equal(t, h.end(), h.drain(t, l, Origin))
		memory, _ := l.Retained()
		require.Zero(t, memory)
		n := 0
		for _, f := range files.mu.files {
			n += f.mu.reads
		}
		return n
	}
	require.Greater(t, reads(1), 30)
	require.Equal(t, 3, reads(1<<20), "one read for each epoch's file")
}

// Truncation in the middle of a read or a write pulls nothing from under it.
func TestTruncationDuringReadAndWrite(t *testing.T) {
	files := newMemFiles()
	l, h := fill(t, files, Options{ReadAhead: 1})
	require.NoError(t, l.Subscribe(Origin))
	files.during = func() { l.Truncate(1) }
	b, err := l.Next(-1)
	require.NoError(t, err)
	h.check(t, b, 0)
	_, err = l.Next(-1)
	require.ErrorIs(t, err, ErrBelow)

	c := h.cursor(60)
	l.Adopt()
	files.during = func() {
		files.during = nil
		require.NoError(t, l.Subscribe(c))
	}
	b, err = l.Next(-1)
	require.NoError(t, err)
	require.Nil(t, b, "the subscription was replaced while its batch was read")
	require.Equal(t, h.end(), h.drain(t, l, c))

	files.during = func() {
		files.during = nil
		l.Unsubscribe()
	}
	require.ErrorIs(t, l.Subscribe(h.cursor(62)), ErrReplaced)
	require.False(t, l.Subscribed())

	h.put(l, make([]byte, 100))
	l.Seal()
	files.during = func() {
		files.during = nil
		l.Truncate(4) // what the file holds goes, and what is being written to it
	}
	h.put(l, make([]byte, 100))
	l.Seal()
	h.barrier(l)
	require.Zero(t, l.o.Budget.Failures())
	l.Truncate(3)
	n, _ := files.size()
	require.Equal(t, 1, n, "of epoch 4: the barrier")
	c = h.cursor(155)
	require.NoError(t, l.Subscribe(c))
	require.Equal(t, h.end(), h.drain(t, l, c))
	require.NoError(t, l.Close())
	memory, disk := l.o.Budget.Used()
	require.Zero(t, memory+disk)
}

// A batch that is sent, and so dropped, while it is being written leaves a dead frame.
func TestSendingDuringWrite(t *testing.T) {
	files := newMemFiles()
	l := NewLog(Origin, Options{
		SealBytes: 100,
		Budget:    NewBudget(4*(BatchOverhead+103), math.MaxInt64, 0, files),
	})
	h := newHistory(Origin)
	for range 3 {
		h.put(l, make([]byte, 101))
	}
	require.NoError(t, l.Subscribe(Origin))
	at := Origin
	files.during = func() {
		files.during = nil
		b, err := l.Next(-1)
		require.NoError(t, err)
		h.check(t, b, 0)
		at = b.End
	}
	h.put(l, make([]byte, 101))
	require.Nil(t, files.during)
	_, disk := l.Retained()
	require.Zero(t, disk)
	h.put(l, make([]byte, 101))
	require.Equal(t, h.end(), h.drain(t, l, at))
	require.NoError(t, l.o.Budget.Err())
	memory, disk := l.Retained()
	require.Zero(t, memory+disk)
}

func TestReadAheadIsForgottenWithTheSubscription(t *testing.T) {
	l, h := fill(t, newMemFiles(), Options{})
	l.o.Budget.memory = 1 << 20
	require.NoError(t, l.Subscribe(Origin))
	_, err := l.Next(-1)
	require.NoError(t, err)
	memory, _ := l.Retained()
	require.NotZero(t, memory)
	l.Unsubscribe()
	memory, _ = l.Retained()
	require.Zero(t, memory)
	c := h.cursor(17)
	require.NoError(t, l.Subscribe(c))
	require.Equal(t, h.end(), h.drain(t, l, c))
}

func TestSmallBatchesSpillAsOne(t *testing.T) {
	for _, tagged := range []bool{false, true} {
		files := newMemFiles()
		o := Options{Retain: true, Budget: NewBudget(100*(BatchOverhead+10), math.MaxInt64, 0, files)}
		if tagged {
			o.Tag = func(_ *Log, b *Batch) any { return b.First }
		}
		l := NewLog(Origin, o)
		h := newHistory(Origin)
		for range 1000 {
			h.put(l, []byte("x"))
			l.Seal()
		}
		if tagged {
			require.Greater(t, len(l.mu.held.disk), 800)
		} else {
			require.Less(t, len(l.mu.held.disk), 20)
		}
		require.NoError(t, l.Subscribe(Origin))
		require.Equal(t, h.end(), h.drain(t, l, Origin))
		require.NoError(t, l.Subscribe(Origin))
		for tagged {
			b, err := l.Next(-1)
			require.NoError(t, err)
			if b == nil {
				break
			}
			require.Equal(t, b.First, b.Tag)
		}
	}
}

// A failed write keeps the batches in memory, is reported, and makes the budget full until there is room again.
func TestDiskFull(t *testing.T) {
	files := newMemFiles()
	b := NewBudget(5000, math.MaxInt64, 3000, files)
	l := NewLog(Origin, Options{Retain: true, Budget: b, SealBytes: 500})
	h := newHistory(Origin)
	put := func(n int) {
		for range n {
			h.put(l, make([]byte, 90))
		}
		l.Seal()
	}
	put(100)
	require.False(t, b.Full())
	_, onDisk := b.Used()
	require.NotZero(t, onDisk)
	files.failWith(errNoSpace)
	put(10)
	require.ErrorIs(t, b.Err(), errNoSpace)
	require.NotZero(t, b.Failures())
	require.True(t, b.Full())
	require.False(t, b.Exhausted(), "others go on in the reserve")
	_, disk := b.Used()
	require.Equal(t, onDisk, disk)
	put(50)
	require.True(t, b.Exhausted())
	require.NoError(t, l.Subscribe(Origin))
	require.Equal(t, h.end(), h.drain(t, l, Origin))

	// There is room again: the next batch spills all that is over.
	files.failWith(nil)
	put(1)
	require.NoError(t, b.Err())
	require.False(t, b.Full())
	memory, _ := b.Used()
	require.LessOrEqual(t, memory, int64(5000))
	require.NoError(t, l.Subscribe(Origin))
	require.Equal(t, h.end(), h.drain(t, l, Origin))

	// Or truncation makes room although nothing is ever written again.
	files.failWith(errNoSpace)
	put(50)
	require.True(t, b.Full())
	h.barrier(l)
	l.Truncate(1)
	require.False(t, b.Full())
	require.False(t, b.Exhausted())
	n, _ := files.size()
	require.Zero(t, n)
}

// Beyond the disk budget sources stop, others use the reserve, and beyond that nothing is lost but the job must roll back.
func TestDiskBudgetThenReserveThenExhausted(t *testing.T) {
	files := newMemFiles()
	b := NewBudget(2000, 20_000, 10_000, files)
	l := NewLog(Origin, Options{Retain: true, Budget: b, SealBytes: 500})
	h := newHistory(Origin)
	var fullAt, exhaustedAt int64
	for !b.Exhausted() {
		h.put(l, make([]byte, 90))
		_, disk := b.Used()
		require.LessOrEqual(t, disk, int64(30_000))
		if b.Full() && fullAt == 0 {
			fullAt = disk
		}
		exhaustedAt = disk
	}
	require.Greater(t, fullAt, int64(20_000))
	require.Less(t, fullAt, int64(21_000))
	require.Greater(t, exhaustedAt, int64(29_000))
	require.NoError(t, b.Err(), "a budget is no failure")
	for range 100 {
		h.put(l, make([]byte, 90))
	}
	l.Seal()
	require.NoError(t, l.Subscribe(Origin))
	require.Equal(t, h.end(), h.drain(t, l, Origin))
	require.NoError(t, l.Close())
	require.False(t, b.Full())
}

func TestWithoutFilesNothingSpills(t *testing.T) {
	b := NewBudget(1000, 0, 1000, nil)
	l := NewLog(Origin, Options{Retain: true, Budget: b, SealBytes: 100})
	h := newHistory(Origin)
	h.put(l, make([]byte, 500))
	require.False(t, b.Full())
	h.put(l, make([]byte, 500))
	require.True(t, b.Full())
	require.False(t, b.Exhausted())
	h.put(l, make([]byte, 1000))
	require.True(t, b.Exhausted())
	require.NoError(t, l.Subscribe(Origin))
	require.Equal(t, h.end(), h.drain(t, l, Origin))
}

func TestCorruptSpillNamesFileAndOffset(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"payload": func(d []byte) []byte { d[700] ^= 1; return d },
		"header":  func(d []byte) []byte { d[620] ^= 0x10; return d },
		"torn":    func(d []byte) []byte { return d[:700] },
		"another batch": func(d []byte) []byte {
			n := len(d) / 2
			copy(d[n:], d[:n])
			return d
		},
	} {
		files := newMemFiles()
		l, h := fill(t, files, Options{})
		l.o.Budget.memory = 1 << 20
		files.each(spoil)
		require.NoError(t, l.Subscribe(Origin))
		at := determinant.Seq(0)
		for {
			b, err := l.Next(-1)
			if err == nil {
				h.check(t, b, at)
				at = b.End.Next
				continue
			}
			require.ErrorIs(t, err, ErrCorrupt, name)
			var c *Corruption
			require.ErrorAs(t, err, &c)
			require.Contains(t, err.Error(), c.File)
			require.Positive(t, c.Offset, name)
			require.NotNil(t, files.mu.files[c.File])
			_, again := l.Next(-1)
			require.Equal(t, err, again)
			break
		}
		require.NoError(t, l.Close())
		memory, disk := l.o.Budget.Used()
		require.Zero(t, memory+disk)
	}
}

func TestOSFilesClearsLeftovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spill")
	files, err := OSFiles(dir)
	require.NoError(t, err)
	f, err := files.Create("channel-1-1" + spillSuffix)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = files.Create("channel-1-1" + spillSuffix)
	require.Error(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o600))
	_, err = OSFiles(dir)
	require.NoError(t, err)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, "other", left[0].Name())
	_, err = OSFiles(filepath.Join(dir, "other"))
	require.Error(t, err)
}

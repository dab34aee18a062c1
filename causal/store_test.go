package causal_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	. "github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
)

type task = determinant.TaskID

func grow(s *Store, t task, n offset) {
	l := s.Log(t)
	l.Append(content(t, l.End(), l.End()+n))
}

func TestDeltaFormatIsFrozen(t *testing.T) {
	s := NewStore(301)
	s.Log(300).Append([]byte{0x0c, 0x01, 0x21, 0x64})
	s.Reset(2, 4096).Append([]byte{0x0c, 0x09})
	cursor := make([]offset, 301)
	delta := s.Delta([]byte("frame"), []task{300, 5, 2}, cursor)
	const want = "d1" + "ac02" + "00" + "00" + "04" + "0c012164" + "02" + "01" + "8020" + "02" + "0c09" + "473d9d0d"
	if got := hex.EncodeToString(delta[len("frame"):]); got != want {
		t.Errorf("delta %s, frozen as %s", got, want)
	}
	if again := s.Delta(nil, []task{300, 5, 2}, cursor); again != nil {
		t.Errorf("nothing new gives % x", again)
	}
}

// TestDeltasSpreadLogs lets workers grow, truncate and tell each other over connections that lose their memory. Whatever
// happens, every log held anywhere is a true copy, and a merge never fails.
func TestDeltasSpreadLogs(t *testing.T) {
	const tasks, workers = 4, 3
	rapid.Check(t, func(t *rapid.T) {
		var stores [workers]*Store
		var cursors [workers][workers][]offset
		for w := range workers {
			stores[w] = NewStore(tasks)
			for peer := range workers {
				cursors[w][peer] = make([]offset, tasks)
			}
		}
		home := func(id task) *Store { return stores[int(id)%workers] }
		order := []task{3, 2, 1, 0}
		committed := make([]offset, tasks)
		worker, id := rapid.IntRange(0, workers-1), rapid.Uint32Range(0, tasks-1)
		t.Repeat(map[string]func(*rapid.T){
			"grow": func(t *rapid.T) {
				x := task(id.Draw(t, "task"))
				grow(home(x), x, offset(rapid.Uint64Range(1, 9000).Draw(t, "bytes")))
			},
			"tell": func(t *rapid.T) {
				from, to := worker.Draw(t, "from"), worker.Draw(t, "to")
				delta := stores[from].Delta(nil, order, cursors[from][to])
				if err := stores[to].Merge(delta); err != nil {
					t.Fatalf("%d tells %d: %v", from, to, err)
				}
				for x, end := range stores[to].Ends() {
					if l := stores[from].Log(task(x)); l.Bytes() > 0 && end < l.End() {
						t.Fatalf("task %d: told up to %d, has %d", x, l.End(), end)
					}
				}
			},
			"reconnect": func(t *rapid.T) {
				from, to := worker.Draw(t, "from"), worker.Draw(t, "to")
				cursors[from][to] = stores[to].Ends()
			},
			"commit": func(*rapid.T) {
				for x := range committed {
					committed[x] = home(task(x)).Log(task(x)).End()
				}
			},
			"truncate": func(t *rapid.T) { stores[worker.Draw(t, "worker")].Truncate(committed) },
			"": func(t *rapid.T) {
				for _, s := range stores {
					var sum int64
					for x := range task(tasks) {
						l := s.Log(x)
						checkContent(t, l, x, l.Base(), l.End())
						sum += l.Bytes()
					}
					if s.Bytes() != sum {
						t.Fatalf("store of %d bytes, logs of %d", s.Bytes(), sum)
					}
				}
			},
		})
	})
}

func TestMergeTakesAllOrNothing(t *testing.T) {
	source := NewStore(3)
	for x := range task(3) {
		grow(source, x, 100)
	}
	for _, c := range []struct {
		what  string
		spoil func(s *Store)
		err   error
	}{
		{"gap", func(s *Store) { s.Reset(0, 0) }, ErrGap},
		{"difference", func(s *Store) { s.Reset(0, 0).Append(content(7, 0, 60)); s.Log(0).SetOwn(false) }, ErrDiffers},
		{"own log", func(s *Store) { s.Log(0).SetOwn(true) }, ErrOwned},
	} {
		s := NewStore(3)
		if err := s.Merge(source.Delta(nil, []task{2, 1, 0}, make([]offset, 3))); err != nil {
			t.Fatal(err)
		}
		s.Cut([]offset{50, 50, 50})
		cursor := s.Ends()
		c.spoil(s)
		before := s.Ends()
		err := s.Merge(source.Delta(nil, []task{2, 1, 0}, cursor))
		if !errors.Is(err, c.err) {
			// A difference below the cursor shows only when the overlap is sent.
			err = s.Merge(source.Delta(nil, []task{2, 1, 0}, make([]offset, 3)))
		}
		mustFail(t, err, c.err)
		if after := s.Ends(); !slices.Equal(after, before) {
			t.Errorf("%s: ends went from %v to %v", c.what, before, after)
		}
	}
}

func TestCoveredDeltaRestartsTheLog(t *testing.T) {
	sender, receiver := NewStore(1), NewStore(1)
	grow(sender, 0, 100)
	if err := receiver.Merge(sender.Delta(nil, []task{0}, make([]offset, 1))); err != nil {
		t.Fatal(err)
	}
	grow(sender, 0, 100)
	sender.Truncate([]offset{200})
	cursor := receiver.Ends()
	if delta := sender.Delta(nil, []task{0}, cursor); delta != nil || cursor[0] != 100 {
		t.Errorf("nothing to tell, yet % x, cursor %d", delta, cursor[0])
	}
	grow(sender, 0, 50)
	if err := receiver.Merge(sender.Delta(nil, []task{0}, cursor)); err != nil {
		t.Fatal(err)
	}
	checkContent(t, receiver.Log(0), 0, 200, 250)
	if cursor[0] != 250 {
		t.Errorf("cursor %d", cursor[0])
	}
}

func TestDeltaLeavesCursorsAhead(t *testing.T) {
	s := NewStore(1)
	grow(s, 0, 10)
	cursor := []offset{30} // the peer has more than we do, from somebody else
	if delta := s.Delta(nil, []task{0}, cursor); delta != nil || cursor[0] != 30 {
		t.Errorf("delta % x, cursor %d", delta, cursor[0])
	}
}

// TestDeltaIsCausallyClosed has a chain of tasks on one worker, each of which chooses on what its upstream neighbour chose:
// its log is never longer. Another worker learns by deltas and, while it merges, tells a third: there, too, no log is longer
// than the one upstream of it. Small appends race with the capture, big ones with the merge.
func TestDeltaIsCausallyClosed(t *testing.T) {
	t.Run("capture", func(t *testing.T) { chain(t, 20_000, 7) })
	t.Run("merge", func(t *testing.T) { chain(t, 100, 100_000) })
}

func chain(t *testing.T, rounds, size int) {
	const tasks = 4
	first, second, third := NewStore(tasks), NewStore(tasks), NewStore(tasks)
	order := []task{3, 2, 1, 0} // task 0 is the most upstream
	p := make([]byte, size)
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		for range rounds {
			for x := range task(tasks) {
				first.Log(x).Append(p)
			}
		}
	})
	relay := func(from, to *Store) {
		wg.Go(func() {
			cursor := make([]offset, tasks)
			for last := false; !last; {
				last = done.Load()
				if err := to.Merge(from.Delta(nil, order, cursor)); err != nil {
					t.Error(err)
					return
				}
				previous := offset(0)
				for _, x := range order {
					end := to.Log(x).End()
					if end < previous {
						t.Errorf("task %d has %d, downstream of it %d", x, end, previous)
						return
					}
					previous = end
				}
			}
		})
	}
	relay(first, second)
	relay(second, third)
	wg.Wait()
}

func TestCopyAndReset(t *testing.T) {
	s := NewStore(2)
	grow(s, 1, 10)
	if c := s.Copy(1); c.Task != 1 || c.Base != 0 || c.End() != 10 || !bytes.Equal(c.Bytes, content(1, 0, 10)) {
		t.Errorf("copy %+v", c)
	}
	if l := s.Reset(1, 5); l != s.Log(1) || l.Base() != 5 || l.End() != 5 || l.Own() {
		t.Error("not reset")
	}
}

func TestDeltaDoesNotAllocate(t *testing.T) {
	s := NewStore(8)
	order := []task{7, 6, 5, 4, 3, 2, 1, 0}
	cursor := make([]offset, 8)
	buf := make([]byte, 0, 1024)
	other := NewStore(8)
	p := content(0, 0, 16)
	if n := testing.AllocsPerRun(100, func() {
		for x := range task(8) {
			s.Log(x).Append(p)
		}
		buf = s.Delta(buf[:0], order, cursor)
		if err := other.Merge(buf); err != nil {
			t.Fatal(err)
		}
	}); n > 0.5 { // a new segment now and then
		t.Errorf("%v allocations", n)
	}
}

// seal puts the frame of a delta around a body.
func seal(body []byte) []byte {
	p := append([]byte{0xd1}, body...)
	return binary.LittleEndian.AppendUint32(p, crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
}

func TestDecodeDeltaRefuses(t *testing.T) {
	good := seal([]byte("\x01\x00\x05\x02ab"))
	if err := DecodeDelta(good, func(x task, from offset, covered bool, p []byte) error {
		if x != 1 || from != 5 || covered || string(p) != "ab" {
			t.Errorf("task %d from %d %v %q", x, from, covered, p)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{
		"short":            {0xd1, 0, 0, 0, 0},
		"flipped":          append([]byte{0xd1, 2}, good[2:]...),
		"torn":             good[:len(good)-1],
		"other format":     {0xd2, 0, 0, 0, 0, 0, 0},
		"task over 32 bit": seal([]byte("\xff\xff\xff\xff\x1f\x00\x05\x02ab")),
		"no flags":         seal([]byte("\x01")),
		"unknown flags":    seal([]byte("\x01\x02\x05\x02ab")),
		"no offset":        seal([]byte("\x01\x00")),
		"no length":        seal([]byte("\x01\x00\x05")),
		"empty part":       seal([]byte("\x01\x00\x05\x00")),
		"long part":        seal([]byte("\x01\x00\x05\x03ab")),
		"long varint":      seal([]byte("\x81\x00\x00\x05\x02ab")),
		"end overflows":    seal([]byte("\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02ab")),
		"second part bad":  seal([]byte("\x01\x00\x05\x02ab\x02")),
	}
	for what, delta := range cases {
		err := DecodeDelta(delta, func(task, offset, bool, []byte) error { t.Errorf("%s: called", what); return nil })
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		mustFail(t, NewStore(9).Merge(delta), ErrCorrupt)
	}
	s := NewStore(2)
	mustFail(t, s.Merge(seal([]byte("\x02\x00\x00\x02ab"))), ErrCorrupt)
	mustFail(t, s.Merge(seal([]byte("\x01\x00\x00\x02ab\x01\x00\x02\x02ab"))), ErrCorrupt)
	if s.Bytes() != 0 {
		t.Error("something was merged")
	}
	stop := errors.New("stop")
	mustFail(t, DecodeDelta(good, func(task, offset, bool, []byte) error { return stop }), stop)
	if err := s.Merge(nil); err != nil {
		t.Error(err)
	}
}

// FuzzDecodeDelta decodes and merges any body, with a right checksum so that it gets past it, and any bytes as they are.
func FuzzDecodeDelta(f *testing.F) {
	s := NewStore(4)
	for x := range task(4) {
		grow(s, x, 20)
	}
	f.Add(s.Delta(nil, []task{3, 2, 1, 0}, make([]offset, 4)))
	f.Add([]byte("\x01\x00\x05\x02ab"))
	f.Add([]byte("\x01\x01\x05\x02ab\x02\x00\x00\x01x"))
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, delta := range [][]byte{p, seal(p)} {
			again := []byte{}
			err := DecodeDelta(delta, func(x task, from offset, covered bool, p []byte) error {
				again = binary.AppendUvarint(again, uint64(x))
				again = append(again, 0)
				if covered {
					again[len(again)-1] = 1
				}
				again = binary.AppendUvarint(again, uint64(from))
				again = binary.AppendUvarint(again, uint64(len(p)))
				again = append(again, p...)
				return nil
			})
			if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			if err == nil && len(delta) > 0 && !bytes.Equal(seal(again), delta) {
				t.Fatalf("% x encodes to % x", delta, seal(again))
			}
			store := NewStore(4)
			if store.Merge(delta) != nil && store.Bytes() != 0 {
				t.Fatal("merged in part")
			}
		}
	})
}

func BenchmarkDelta(b *testing.B) {
	s, other := NewStore(32), NewStore(32)
	cursor := make([]offset, 32)
	var order []task
	for x := range task(32) {
		order = append(order, 31-x)
	}
	p := make([]byte, 30)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		for x := range task(32) {
			s.Log(x).Append(p)
		}
		buf = s.Delta(buf[:0], order, cursor)
		if err := other.Merge(buf); err != nil {
			b.Fatal(err)
		}
		if s.Log(0).Bytes() > 1<<16 {
			s.Truncate(cursor)
			other.Truncate(cursor)
		}
	}
}

package causal_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	. "github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
)

type offset = determinant.LogOffset

// content gives the bytes that the true log of a task has in [from, to).
func content(task determinant.TaskID, from, to offset) []byte {
	p := make([]byte, 0, to-from)
	for at := from; at < to; at++ {
		p = append(p, byte(at)^byte(at>>8)*31^byte(task)*17)
	}
	return p
}

// read reads all that l holds and checks that it is true.
func checkContent(t interface {
	Helper()
	Fatalf(string, ...any)
}, l *Log, task determinant.TaskID, base, end offset) {
	t.Helper()
	if l.Base() != base || l.End() != end || l.Bytes() != int64(end-base) {
		t.Fatalf("log holds [%d, %d), %d bytes, want [%d, %d)", l.Base(), l.End(), l.Bytes(), base, end)
	}
	got, err := l.Read([]byte("x"), base, end)
	if err != nil || !bytes.Equal(got[1:], content(task, base, end)) {
		t.Fatalf("reading [%d, %d) gives other bytes (%v)", base, end, err)
	}
}

// TestLogIsLikeASlice does anything to a log and to the two numbers that say what it should hold.
func TestLogIsLikeASlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := offset(rapid.Uint64Range(0, 20_000).Draw(t, "base"))
		end := base
		l := NewLog(base)
		own := false
		near := rapid.Custom(func(t *rapid.T) offset { // an offset inside or a little outside
			low := offset(max(int64(base)-9000, 0))
			return low + offset(rapid.Uint64Range(0, uint64(end-low)+9000).Draw(t, "offset"))
		})
		size := rapid.OneOf(rapid.Uint64Range(0, 40), rapid.Uint64Range(0, 20_000))
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				after := end + offset(size.Draw(t, "size"))
				if got := l.Append(content(1, end, after)); got != after {
					t.Fatalf("appended up to %d, want %d", got, after)
				}
				end, own = after, true
			},
			"disown": func(*rapid.T) { l.SetOwn(false); own = false },
			"merge": func(t *rapid.T) {
				from := near.Draw(t, "from")
				after := from + offset(size.Draw(t, "size"))
				covered := rapid.Bool().Draw(t, "covered")
				err := l.Merge(from, content(1, from, after), covered)
				switch {
				case own && after > end:
					mustFail(t, err, ErrOwned)
				case from > end && !covered:
					mustFail(t, err, ErrGap)
				case err != nil:
					t.Fatalf("%v", err)
				case from > end:
					base, end = from, after
				default:
					end = max(end, after)
				}
			},
			"differ": func(t *rapid.T) {
				if base == end {
					t.Skip("empty")
				}
				at := base + offset(rapid.Uint64Range(0, uint64(end-base-1)).Draw(t, "at"))
				p := content(1, base, end)
				p[at-base] ^= 1
				mustFail(t, l.Merge(base, p, rapid.Bool().Draw(t, "covered")), ErrDiffers)
			},
			"truncate": func(t *rapid.T) {
				to := near.Draw(t, "to")
				l.Truncate(to)
				if own {
					to = min(to, end)
				}
				base = max(base, to)
				end = max(end, base)
			},
			"cut": func(t *rapid.T) {
				to := near.Draw(t, "to")
				l.Cut(to)
				if to <= base || to > end {
					base = to
				}
				end = to
			},
			"read": func(t *rapid.T) {
				from, to := near.Draw(t, "from"), near.Draw(t, "to")
				got, err := l.Read(nil, from, to)
				switch {
				case from < base:
					mustFail(t, err, ErrTruncated)
				case from > to || to > end:
					mustFail(t, err, ErrBeyond)
				case err != nil || !bytes.Equal(got, content(1, from, to)):
					t.Fatalf("reading [%d, %d): %v", from, to, err)
				}
			},
			"": func(t *rapid.T) {
				if l.Own() != own {
					t.Fatalf("owned: %v", l.Own())
				}
				checkContent(t, l, 1, base, end)
			},
		})
	})
}

func mustFail(t interface{ Fatalf(string, ...any) }, err, want error) {
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func TestMergeBeyondAllOffsets(t *testing.T) {
	mustFail(t, NewLog(0).Merge(^offset(0), []byte("xx"), true), ErrBeyond)
}

// TestAppenderReadersTruncater has them all at work at once: whatever a reader sees is whole and true, and no reader sees
// an end without the bytes below it.
func TestAppenderReadersTruncater(t *testing.T) {
	const total = 3_000_000
	store := NewStore(1)
	l := store.Log(0)
	l.SetOwn(true)
	var done atomic.Bool
	var failures sync.Map
	var wg sync.WaitGroup
	run := func(f func() error) {
		wg.Go(func() {
			for last := false; !last; {
				last = done.Load()
				if err := f(); err != nil {
					failures.Store(err.Error(), true)
					return
				}
			}
		})
	}
	truth := content(0, 0, total)
	wg.Go(func() {
		defer done.Store(true)
		for at, n := 0, 1; at < total; n = n*7%1009 + 1 {
			after := min(at+n, total)
			l.Append(truth[at:after])
			at = after
		}
	})
	for range 2 {
		var buf []byte
		run(func() error {
			from, to := l.Base(), l.End()
			var err error
			buf, err = l.Read(buf[:0], from, to)
			if errors.Is(err, ErrTruncated) {
				return nil
			}
			if err != nil || !bytes.Equal(buf, truth[from:to]) {
				return fmt.Errorf("read of [%d, %d): %w", from, to, err)
			}
			return nil
		})
	}
	run(func() error {
		if c := store.Copy(0); !bytes.Equal(c.Bytes, truth[c.Base:c.End()]) {
			return fmt.Errorf("copy of [%d, %d)", c.Base, c.End())
		}
		return nil
	})
	run(func() error { l.Truncate(l.End() - min(l.End(), 20_000)); return nil })
	truncations := 0
	run(func() error {
		if truncations++; truncations%1000 == 0 {
			l.Truncate(l.End() + 1) // all that there is
		}
		return nil
	})
	other, cursor := NewStore(1), make([]offset, 1)
	run(func() error { return other.Merge(store.Delta(nil, []determinant.TaskID{0}, cursor)) })
	wg.Wait()
	failures.Range(func(err, _ any) bool { t.Error(err); return true })
	if l.End() != total {
		t.Errorf("end %d", l.End())
	}
	checkContent(t, other.Log(0), 0, other.Log(0).Base(), other.Log(0).End())
}

func BenchmarkLogAppend(b *testing.B) {
	for _, size := range []int{3, 30, 300} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			l := NewLog(0)
			p := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if end := l.Append(p); end-l.Base() > 1<<20 {
					l.Truncate(end)
				}
			}
		})
	}
}

// BenchmarkAppendBeside has two tasks of a worker append at once, each to its log.
func BenchmarkAppendBeside(b *testing.B) {
	store, p := NewStore(2), make([]byte, 36)
	var wg sync.WaitGroup
	for t := range determinant.TaskID(2) {
		l := store.Log(t)
		wg.Go(func() {
			for range b.N {
				if end := l.Append(p); end-l.Base() > 1<<20 {
					l.Truncate(end)
				}
			}
		})
	}
	wg.Wait()
}

package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

var ctx = context.Background()

const epochRecords = 10 // an epoch of the tests' stream

// cursorAt is the cursor of the tests' stream before record n: epochs of ten records, no barriers counted.
func cursorAt(n int) determinant.Cursor {
	return determinant.Cursor{
		Next: determinant.Seq(n), Epoch: determinant.Epoch(1 + n/epochRecords), Bytes: uint64(n % epochRecords),
		CRC: uint32(n % epochRecords * 7),
	}
}

// script is output as a generation makes it: a rollback to record n changes what comes from n on.
type script []int

func (s script) record(n int) []byte {
	generation := 0
	for g, from := range s {
		if n >= from {
			generation = g + 1
		}
	}
	return []byte(fmt.Sprintf(`{"n":%d,"g":%d,"x":"%s"}`, n, generation, strings.Repeat("x", n%7)))
}

// text is the output of the first n records.
func (s script) text(n int) string {
	var b strings.Builder
	for i := range n {
		b.Write(s.record(i))
		b.WriteByte('\n')
	}
	return b.String()
}

// write is the write of records from..to, with a delta that says so.
func (s script) write(from, to int) operator.StoreWrite {
	w := operator.StoreWrite{Start: cursorAt(from), End: cursorAt(to), Delta: []byte(fmt.Sprintf("%d %d", from, to))}
	for n := from; n < to; n++ {
		w.Records = append(w.Records, s.record(n))
	}
	return w
}

// toldOf lists the records that the deltas tell of.
func toldOf(t require.TestingT, deltas [][]byte) map[int]bool {
	told := make(map[int]bool)
	for _, d := range deltas {
		var a, b int
		_, err := fmt.Sscanf(string(d), "%d %d", &a, &b)
		require.NoError(t, err)
		for n := a; n < b; n++ {
			told[n] = true
		}
	}
	return told
}

// covers checks that the deltas tell of every record in from..to.
func covers(t require.TestingT, deltas [][]byte, from, to int) {
	told := toldOf(t, deltas)
	for n := from; n < to; n++ {
		require.True(t, told[n], "record %d is visible without determinants in %q", n, deltas)
	}
}

func open(t require.TestingT, dir string, o SinkOptions) operator.CausalStore {
	s, err := Sink(dir, o).Open(ctx, 3, 4)
	require.NoError(t, err)
	return s
}

func fence(t require.TestingT, s operator.CausalStore, i determinant.Incarnation) operator.Stored {
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: i})
	require.NoError(t, err)
	return stored
}

func shown(t require.TestingT, dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, "part-00003.jsonl"))
	require.NoError(t, err)
	return string(data)
}

func segmentNames(t require.TestingT, dir string) []string {
	names, err := filepath.Glob(filepath.Join(dir, ".understudy", "part-00003.det.*"))
	require.NoError(t, err)
	return names
}

var shared = SinkOptions{Identity: "job", Patience: time.Millisecond}

func TestWriteAndReadBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, SinkOptions{})
	require.Equal(t, operator.Stored{}, fence(t, s, 1))
	var str script
	for n := 0; n < 30; n += 5 {
		require.NoError(t, s.Write(ctx, 1, str.write(n, n+5)))
		require.Equal(t, str.text(n+5), shown(t, dir), "visible at once")
	}
	stored := fence(t, s, 1)
	require.Equal(t, cursorAt(30), stored.Cursor)
	require.Len(t, stored.Deltas, 6)
	require.NoError(t, s.Write(ctx, 1, str.write(30, 31)), "a read beside the writer does not stop it")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Write(ctx, 1, str.write(31, 32)), os.ErrClosed)

	s = open(t, dir, SinkOptions{})
	stored = fence(t, s, 2)
	require.Equal(t, cursorAt(31), stored.Cursor)
	covers(t, stored.Deltas, 0, 31)
	require.NoError(t, s.Write(ctx, 2, str.write(31, 40)))
	require.Equal(t, str.text(40), shown(t, dir))
	require.NoError(t, s.Close())
}

func TestWhatAWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, SinkOptions{})
	defer s.Close()
	var str script
	require.ErrorIs(t, s.Write(ctx, 1, str.write(0, 1)), ErrUnfenced)
	fence(t, s, 2)
	require.ErrorIs(t, s.Write(ctx, 1, str.write(0, 1)), operator.ErrFenced)
	require.ErrorIs(t, s.Write(ctx, 3, str.write(0, 1)), ErrUnfenced)
	_, err := s.Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, operator.ErrFenced)
	require.NoError(t, s.Write(ctx, 2, str.write(0, 5)))
	require.ErrorIs(t, s.Write(ctx, 2, str.write(4, 6)), ErrGap)
	require.ErrorIs(t, s.Write(ctx, 2, str.write(6, 7)), ErrGap)
	w := str.write(5, 6)
	w.Start.CRC++
	require.ErrorIs(t, s.Write(ctx, 2, w), operator.ErrContradiction)
	w = str.write(5, 6)
	w.Records[0] = []byte("a\nb")
	require.ErrorIs(t, s.Write(ctx, 2, w), ErrNewline)
	require.Equal(t, str.text(5), shown(t, dir))
	w = operator.StoreWrite{Start: cursorAt(5), End: cursorAt(5), Delta: []byte("5 5")}
	require.NoError(t, s.Write(ctx, 2, w), "determinants alone")
	require.NoError(t, s.Write(ctx, 2, str.write(5, 6)))
	require.Equal(t, str.text(6), shown(t, dir))
	_, err = Sink(dir, SinkOptions{}).Open(ctx, 4, 4)
	require.Error(t, err)
}

func TestATornLineIsCompletedAndNotRewritten(t *testing.T) {
	dir := t.TempDir()
	var str script
	prepare := func() operator.CausalStore {
		require.NoError(t, os.RemoveAll(dir))
		s := open(t, dir, shared)
		fence(t, s, 1)
		require.NoError(t, s.Write(ctx, 1, str.write(0, 5)))
		require.NoError(t, s.Write(ctx, 1, str.write(5, 9)))
		require.NoError(t, s.Close())
		require.NoError(t, os.Truncate(filepath.Join(dir, "part-00003.jsonl"), int64(len(str.text(7))+14)))
		s = open(t, dir, shared)
		stored := fence(t, s, 2)
		require.Equal(t, cursorAt(5), stored.Cursor, "the last write that is visible whole")
		covers(t, stored.Deltas, 0, 9)
		return s
	}
	s := prepare()
	for n := 5; n < 12; n++ { // batches are cut elsewhere
		require.NoError(t, s.Write(ctx, 2, str.write(n, n+1)))
		require.Equal(t, str.text(max(n+1, 7)), shown(t, dir)[:len(str.text(max(n+1, 7)))])
	}
	require.Equal(t, str.text(12), shown(t, dir))
	require.NoError(t, s.Close())

	s = prepare()
	before := shown(t, dir)
	err := s.Write(ctx, 2, script{7}.write(5, 9))
	require.ErrorIs(t, err, operator.ErrContradiction)
	require.ErrorContains(t, err, fmt.Sprintf("byte %d", len(str.text(7))+len(`{"n":7,"g":`)))
	require.Equal(t, before, shown(t, dir))
	require.NoError(t, s.Close())
}

func TestDamageIsNoticed(t *testing.T) {
	var str script
	for name, damage := range map[string]func(t *testing.T, dir string){
		"output beyond determinants": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "part-00003.jsonl"), str.text(12)+"{}\n")
		},
		"output lost": func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, "part-00003.jsonl"), 9))
		},
		"frame of an earlier segment": func(t *testing.T, dir string) {
			name := segmentNames(t, dir)[0]
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			data[len(data)-1] ^= 1
			write(t, name, string(data))
		},
		"frame of the newest segment with output beyond it": func(t *testing.T, dir string) {
			name := segmentNames(t, dir)[1]
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			data[len(data)-1] ^= 1
			write(t, name, string(data))
		},
		"earlier segment gone": func(t *testing.T, dir string) { require.NoError(t, os.Remove(segmentNames(t, dir)[0])) },
		"earlier segment shorter": func(t *testing.T, dir string) {
			require.NoError(t, os.Truncate(segmentNames(t, dir)[0], 40))
		},
		"head": func(t *testing.T, dir string) { write(t, segmentNames(t, dir)[1], "x") },
		"segments swapped": func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(segmentNames(t, dir)[0], segmentNames(t, dir)[1]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, shared)
			fence(t, s, 1)
			require.NoError(t, s.Write(ctx, 1, str.write(0, 5)))
			fence(t, s, 2)
			require.NoError(t, s.Write(ctx, 2, str.write(5, 12)))
			require.NoError(t, s.Close())
			require.Len(t, segmentNames(t, dir), 2)
			damage(t, dir)
			files := map[string]string{}
			for _, n := range append(segmentNames(t, dir), filepath.Join(dir, "part-00003.jsonl")) {
				data, err := os.ReadFile(n)
				require.NoError(t, err)
				files[n] = string(data)
			}
			s = open(t, dir, shared)
			defer s.Close()
			_, err := s.Fence(ctx, operator.Fence{Incarnation: 3})
			require.ErrorIs(t, err, ErrCorrupt)
			for n, was := range files {
				data, err := os.ReadFile(n)
				require.NoError(t, err)
				require.Equal(t, was, string(data), "nothing is overwritten")
			}
		})
	}
}

func TestTornFrameIsForgotten(t *testing.T) {
	var str script
	dir := t.TempDir()
	s := open(t, dir, shared)
	fence(t, s, 1)
	require.NoError(t, s.Write(ctx, 1, str.write(0, 5)))
	require.NoError(t, s.Close())
	f, err := os.OpenFile(segmentNames(t, dir)[0], os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	torn := appendFrame(nil, &frame{Incarnation: 1, Pieces: []piece{{"", 1, 10}}, Delta: []byte("abc")})
	_, err = f.Write(torn[:len(torn)-1])
	require.NoError(t, err)
	require.NoError(t, f.Close())

	s = open(t, dir, shared)
	require.NoError(t, s.Write(ctx, 1, str.write(5, 6)), "the same incarnation writes over it")
	stored := fence(t, s, 2)
	require.Equal(t, cursorAt(6), stored.Cursor)
	require.Len(t, stored.Deltas, 2)
	require.NoError(t, s.Close())
}

func TestCut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shared)
	defer s.Close()
	fence(t, s, 1)
	before, after := script{}, script{20}
	for n := 0; n < 30; n += 5 {
		require.NoError(t, s.Write(ctx, 1, before.write(n, n+5)))
		if n == 15 {
			require.NoError(t, s.Truncate(ctx, 1, nil))
		}
	}
	_, err := s.Fence(ctx, operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{Cursor: cursorAt(17)}})
	require.ErrorIs(t, err, ErrCorrupt, "no write ended there")
	cut := operator.Fence{Incarnation: 2, Generation: 1, Cut: &operator.Cut{Cursor: cursorAt(20)}}
	for range 2 {
		stored, err := s.Fence(ctx, cut)
		require.NoError(t, err)
		require.Equal(t, operator.Stored{Cursor: cursorAt(20)}, stored)
		require.Equal(t, before.text(20), shown(t, dir))
	}
	require.ErrorIs(t, s.Write(ctx, 1, before.write(30, 35)), operator.ErrFenced)
	require.NoError(t, s.Write(ctx, 2, after.write(20, 25)))
	stored, err := s.Fence(ctx, cut)
	require.NoError(t, err, "a cut that was applied is not applied again")
	require.Equal(t, cursorAt(25), stored.Cursor)
	cut.Incarnation = 3
	stored, err = s.Fence(ctx, cut)
	require.NoError(t, err)
	require.Equal(t, cursorAt(25), stored.Cursor)
	require.Equal(t, after.text(25), shown(t, dir))
	_, err = s.Fence(ctx, operator.Fence{Incarnation: 4})
	require.ErrorIs(t, err, operator.ErrFenced, "an older generation")

	stored, err = s.Fence(ctx, operator.Fence{Incarnation: 4, Generation: 2, Cut: &operator.Cut{}})
	require.NoError(t, err, "to the empty checkpoint")
	require.Equal(t, operator.Stored{}, stored)
	require.Empty(t, shown(t, dir))
}

func TestTruncateBoundsTheSidecar(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, shared)
	defer s.Close()
	fence(t, s, 1)
	var str script
	for n := 0; n < 1000; n += 5 {
		require.NoError(t, s.Write(ctx, 1, str.write(n, n+5)))
		if n%epochRecords == 0 && n > 0 {
			require.NoError(t, s.Truncate(ctx, determinant.Epoch(n/epochRecords), nil))
		}
		stored := fence(t, s, 1)
		require.Equal(t, cursorAt(n+5), stored.Cursor)
		require.LessOrEqual(t, len(stored.Deltas), 8)
		require.LessOrEqual(t, len(segmentNames(t, dir)), 5)
		covers(t, stored.Deltas, max(0, n-epochRecords), n+5)
	}
	for e := range determinant.Epoch(10) {
		require.NoError(t, s.Truncate(ctx, 200+e, nil))
	}
	require.Len(t, segmentNames(t, dir), 1, "an idle sink does not go on making segments")
	require.Equal(t, cursorAt(1000), fence(t, s, 2).Cursor)
	require.NoError(t, s.Truncate(ctx, 300, nil), "not the writer: nothing happens")
	require.Equal(t, str.text(1000), shown(t, dir))
}

func TestDirectoryOfSomeoneElse(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "mine.jsonl"), "{}\n")
	_, err := Sink(dir, SinkOptions{}).Open(ctx, 0, 1)
	require.ErrorIs(t, err, ErrForeign)
	_, err = os.Stat(filepath.Join(dir, ".understudy"))
	require.ErrorIs(t, err, os.ErrNotExist, "nothing was made")

	dir = t.TempDir()
	s := open(t, dir, SinkOptions{Identity: "a"})
	_, err = Sink(dir, SinkOptions{Identity: "b"}).Open(ctx, 3, 4)
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, fmt.Sprintf(`pid %d, job "a"`, os.Getpid()))
	_, err = Sink(dir, SinkOptions{}).Open(ctx, 3, 4)
	require.ErrorIs(t, err, ErrInUse)
	other := open(t, dir, SinkOptions{Identity: "a"})
	require.NoError(t, other.Close())
	require.NoError(t, s.Close())
	_, err = Sink(dir, SinkOptions{Identity: "b"}).Open(ctx, 3, 4)
	require.ErrorIs(t, err, ErrJob)
	d := Sink(dir, SinkOptions{})
	require.NoError(t, d.Identify("a"))
	s, err = d.Open(ctx, 3, 4)
	require.NoError(t, err)
	require.ErrorIs(t, d.Identify("c"), ErrInUse)
	require.NoError(t, s.Close())

	write(t, filepath.Join(dir, "part-00003.jsonl"), "{}\n")
	s = open(t, dir, SinkOptions{Identity: "a"})
	_, err = s.Fence(ctx, operator.Fence{Incarnation: 1})
	require.ErrorIs(t, err, ErrForeign, "a part without determinants")
	require.NoError(t, s.Close())
}

// TestMain lets the test binary be another process: one that holds a directory until its input ends.
func TestMain(m *testing.M) {
	if dir := os.Getenv("FILE_TEST_HOLD"); dir != "" {
		_, err := Sink(dir, SinkOptions{Identity: os.Getenv("FILE_TEST_JOB")}).Open(ctx, 3, 4)
		fmt.Println(err)
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSecondProcess(t *testing.T) {
	dir := t.TempDir()
	hold := func(job string) (first string, kill func()) {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "FILE_TEST_HOLD="+dir, "FILE_TEST_JOB="+job)
		_, err := c.StdinPipe()
		require.NoError(t, err)
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start())
		line := make([]byte, 1000)
		n, err := out.Read(line)
		require.NoError(t, err)
		return string(line[:n]), func() { require.NoError(t, c.Process.Kill()); _ = c.Wait() }
	}
	for _, job := range []string{"", "a"} {
		require.NoError(t, os.RemoveAll(dir))
		first, kill := hold(job)
		require.Equal(t, "<nil>\n", first)
		_, err := Sink(dir, SinkOptions{Identity: "b"}).Open(ctx, 3, 4)
		require.ErrorIs(t, err, ErrInUse)
		require.NotContains(t, strings.Split(err.Error(), ";")[0], fmt.Sprint(os.Getpid()))
		again, kill2 := hold(job)
		if job == "" {
			require.Contains(t, again, ErrInUse.Error())
		} else {
			require.Equal(t, "<nil>\n", again)
		}
		kill2()
		kill()
		s := open(t, dir, SinkOptions{Identity: job})
		require.NoError(t, s.Close())
	}
}

// TestFenceUnderConcurrency has writers that do not know when they are replaced, in one Directory and in several.
func TestFenceUnderConcurrency(t *testing.T) {
	for _, apart := range []bool{false, true} {
		dir := t.TempDir()
		d := Sink(dir, SinkOptions{Identity: "job"})
		var str script
		var wg sync.WaitGroup
		const incarnations = 8
		for i := determinant.Incarnation(1); i <= incarnations; i++ {
			if apart {
				d = Sink(dir, SinkOptions{Identity: "job"})
			}
			s, err := d.Open(ctx, 3, 4)
			require.NoError(t, err)
			stored := fence(t, s, i)
			n := int(stored.Cursor.Next)
			covers(t, stored.Deltas, 0, n)
			enough := make(chan struct{})
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer s.Close()
				for start := n; ; n += 3 {
					err := s.Write(ctx, i, str.write(n, n+3))
					if n == start+9 {
						close(enough)
					}
					if errors.Is(err, operator.ErrFenced) || n > start+300 {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			}()
			<-enough
		}
		wg.Wait()
		s := open(t, dir, SinkOptions{Identity: "job"})
		stored := fence(t, s, incarnations+1)
		require.Equal(t, str.text(int(stored.Cursor.Next)), shown(t, dir))
		require.NoError(t, s.Close())
	}
}

func TestMutationsAreNoticed(t *testing.T) {
	var str script
	t.Run("fence missing at sink", func(t *testing.T) {
		for _, mutant := range []bool{false, true} {
			dir := t.TempDir()
			o := shared
			if mutant {
				o.Mutations = mutation.FenceMissingAtSink
			}
			zombie, next := open(t, dir, o), open(t, dir, o)
			fence(t, zombie, 1)
			require.NoError(t, zombie.Write(ctx, 1, str.write(0, 5)))
			stored := fence(t, next, 2)
			err := zombie.Write(ctx, 1, str.write(5, 9))
			require.Equal(t, mutant, err == nil)
			require.NoError(t, next.Close())
			_ = stored
			s := open(t, dir, shared)
			_, err = s.Fence(ctx, operator.Fence{Incarnation: 3})
			require.Equal(t, mutant, errors.Is(err, ErrCorrupt), "output whose determinants nobody was told of")
			require.NoError(t, s.Close())
			require.NoError(t, zombie.Close())
		}
	})
	t.Run("fence missing at store read", func(t *testing.T) {
		for _, mutant := range []bool{false, true} {
			dir := t.TempDir()
			o := shared
			if mutant {
				o.Mutations = mutation.FenceMissingAtStoreRead
			}
			s := open(t, dir, o)
			fence(t, s, 1)
			stored := fence(t, s, 2)
			err := s.Write(ctx, 1, str.write(0, 5))
			require.Equal(t, mutant, err == nil, "visible, and not in what was read: %v", stored)
			require.NoError(t, s.Close())
		}
	})
}

func TestHeadAndFrameRoundTrip(t *testing.T) {
	h := head{Task: 1, Number: 2, Incarnation: 3, Generation: 4, Turn: 5, Committed: 6, Cut: true, Cursor: cursorAt(7),
		Kept: []kept{{Number: 1, Length: 2, Last: 3}}, Streams: []place{{"", 8, 9, 1}, {"a%20b", 1, 1, 2}}}
	var again head
	data := appendHead(nil, &h)
	n, err := decodeHead(data, &again)
	require.NoError(t, err)
	require.Equal(t, len(data), n)
	require.Equal(t, h, again)
	f := frame{Incarnation: 1, Pieces: []piece{{"", 2, 3}, {"k", 0, 1}}, Start: cursorAt(4), End: cursorAt(55), Delta: []byte("delta")}
	var back frame
	data = appendFrame(nil, &f)
	_, err = decodeFrame(data, &back)
	require.NoError(t, err)
	require.Equal(t, f, back)
	for i := range data {
		_, err := decodeFrame(data[:i], &back)
		require.Error(t, err)
		damaged := bytes.Clone(data)
		damaged[i] ^= 0x10
		_, err = decodeFrame(damaged, &back)
		require.Error(t, err, "byte %d", i)
	}
}

func FuzzSidecar(f *testing.F) {
	f.Add(appendHead(nil, &head{Number: 1, Kept: []kept{{}}, Streams: []place{{Folder: "x"}}}), true)
	f.Add(appendFrame(nil, &frame{Delta: []byte("x"), Pieces: []piece{{Folder: "x"}}}), true)
	f.Add([]byte{1, 2, 3}, false)
	f.Fuzz(func(t *testing.T, data []byte, wrap bool) {
		if !wrap { // past the checksum
			for _, magic := range []uint32{headMagic, frameMagic} {
				sidecarRoundTrip(t, endChunk(append(beginChunk(nil), data...), 0, magic))
			}
		}
		sidecarRoundTrip(t, data)
	})
}

func sidecarRoundTrip(t *testing.T, data []byte) {
	var h, h2 head
	if _, err := decodeHead(data, &h); err == nil {
		if _, err := decodeHead(appendHead(nil, &h), &h2); err != nil || fmt.Sprint(h) != fmt.Sprint(h2) {
			t.Fatal(h, h2, err)
		}
	}
	var f, f2 frame
	if _, err := decodeFrame(data, &f); err == nil {
		if _, err := decodeFrame(appendFrame(nil, &f), &f2); err != nil || fmt.Sprint(f) != fmt.Sprint(f2) {
			t.Fatal(f, f2, err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, sync := range []bool{false, true} {
		b.Run(fmt.Sprintf("records=100/bytes=100/sync=%v", sync), func(b *testing.B) {
			s := open(b, b.TempDir(), SinkOptions{Sync: sync})
			defer s.Close()
			fence(b, s, 1)
			w := operator.StoreWrite{Delta: make([]byte, 200)}
			for range 100 {
				w.Records = append(w.Records, bytes.Repeat([]byte("x"), 99))
			}
			b.SetBytes(100 * 100)
			for b.Loop() {
				w.End.Next += 100
				w.End.Epoch = 1
				if err := s.Write(ctx, 1, w); err != nil {
					b.Fatal(err)
				}
				w.Start = w.End
			}
		})
	}
}

func TestRestartKeepsWhatIsShownAndDropsATornLine(t *testing.T) {
	dir := t.TempDir()
	d := Sink(dir, SinkOptions{Identity: "job"})
	store, err := d.Open(t.Context(), 0, 1)
	require.NoError(t, err)
	at := determinant.Cursor{Epoch: 1}
	_, err = store.Fence(t.Context(), operator.Fence{Incarnation: 1, Restart: &at})
	require.NoError(t, err)
	end := determinant.Cursor{Next: 2, Epoch: 1, Bytes: 10, CRC: 7}
	require.NoError(t, store.Write(t.Context(), 1, operator.StoreWrite{Start: at, End: end, Records: [][]byte{[]byte("a"), []byte("bcd")}}))
	name := filepath.Join(dir, "part-00000.jsonl")
	require.NoError(t, os.Truncate(name, 4)) // the second line is torn

	stored, err := store.Fence(t.Context(), operator.Fence{Incarnation: 2, Restart: &at})
	require.NoError(t, err)
	require.Equal(t, at, stored.Cursor)
	require.NoError(t, store.Write(t.Context(), 2, operator.StoreWrite{Start: at, End: end, Records: [][]byte{[]byte("a"), []byte("bcd")}}))
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "a\na\nbcd\n", string(got))
	require.NoError(t, store.Close())
}

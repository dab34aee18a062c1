package file

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

var errCrash = errors.New("crash")

// moment is where around a system call a crash falls.
type moment int

const (
	before  moment = iota
	halfway        // a write that is cut short
	after
	moments
)

// crashDisk dies at a call: that call and every later one fails. With once set only that call fails.
type crashDisk struct {
	osDisk
	mu    sync.Mutex
	calls int
	at    int // 0: never
	when  moment
	once  bool
	trace []string
	stop  func(what, name string) // called before each call if set
}

// do makes a call, or part of it.
func (d *crashDisk) do(what, name string, call func() error, half func() error) error {
	if d.stop != nil {
		d.stop(what, name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	d.trace = append(d.trace, what+" "+filepath.Base(name))
	switch {
	case d.at == 0 || d.calls < d.at || d.once && d.calls > d.at:
		return call()
	case d.calls > d.at || d.when == before:
		return errCrash
	case d.when == halfway && half != nil:
		return errors.Join(errCrash, half())
	}
	return errors.Join(errCrash, call())
}

func (d *crashDisk) Open(name string, flag int) (h handle, err error) {
	if flag&os.O_TRUNC == 0 && flag&os.O_CREATE == 0 {
		h, err = d.osDisk.Open(name, flag)
	} else {
		err = d.do("open", name, func() error { h, err = d.osDisk.Open(name, flag); return err }, nil)
		if err != nil && h != nil {
			h.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return &crashHandle{handle: h, disk: d, name: name}, nil
}

func (d *crashDisk) Rename(from, to string) error {
	return d.do("rename", to, func() error { return d.osDisk.Rename(from, to) }, nil)
}

func (d *crashDisk) Remove(name string) error {
	return d.do("remove", name, func() error { return d.osDisk.Remove(name) }, nil)
}

func (d *crashDisk) Link(from, to string) error {
	return d.do("link", to, func() error { return d.osDisk.Link(from, to) }, nil)
}

func (d *crashDisk) Mkdir(name string) error {
	return d.do("mkdir", name, func() error { return d.osDisk.Mkdir(name) }, nil)
}

func (d *crashDisk) SyncDir(name string) error {
	return d.do("sync", name, func() error { return nil }, nil)
}

type crashHandle struct {
	handle
	disk *crashDisk
	name string
}

func (h *crashHandle) Write(p []byte) (n int, err error) {
	err = h.disk.do("write", h.name, func() error { n, err = h.handle.Write(p); return err },
		func() error { n, err = h.handle.Write(p[:len(p)/2]); return err })
	return n, err
}

func (h *crashHandle) Truncate(size int64) error {
	return h.disk.do("truncate", h.name, func() error { return h.handle.Truncate(size) }, nil)
}

func (h *crashHandle) Sync() error {
	return h.disk.do("sync", h.name, func() error { return nil }, nil)
}

// history is a run of the tests' job over several lives of its process. It knows what a ledger would know.
type history struct {
	dir         string
	options     SinkOptions
	incarnation determinant.Incarnation
	generation  determinant.Generation
	cut         *operator.Cut
	committed   int // records up to the last committed checkpoint
	before      int // and up to the one before it
	stream      script
	clock       time.Time // goes on by a second at each look
}

// newHistory begins in a directory that has been this job's before, so that no test waits for a real fsync.
func newHistory(t require.TestingT, dir string, o SinkOptions) *history {
	o.Identity = "job"
	require.NoError(t, open(t, dir, o).Close())
	return &history{dir: dir, options: o, clock: time.Unix(1e9, 0)}
}

// live lets one process run until it has shown n records or the disk fails. choose gives the sizes of writes; rollbackAt is
// the record from which it rolls back to the last checkpoint once.
func (h *history) live(t require.TestingT, d disk, n, rollbackAt int, choose func() int) error {
	h.incarnation++
	dir := Sink(h.dir, h.options)
	dir.disk = d
	dir.now = func() time.Time { h.clock = h.clock.Add(time.Second); return h.clock }
	s, err := dir.Open(ctx, 3, 4)
	if err != nil {
		return err
	}
	defer s.Close()
	at, err := h.fence(t, s)
	if err != nil {
		return err
	}
	for at < n {
		if at >= rollbackAt && h.generation == 0 && h.committed > 0 {
			h.generation, h.incarnation = 1, h.incarnation+1
			h.cut = &operator.Cut{Cursor: cursorAt(h.committed)}
			h.stream = script{h.committed}
			if at, err = h.fence(t, s); err != nil {
				return err
			}
			require.Equal(t, h.committed, at)
		}
		to := min(at+choose(), n, (at/epochRecords+1)*epochRecords)
		if err := s.Write(ctx, h.incarnation, h.stream.write(at, to)); err != nil {
			return err
		}
		visible := h.view(t)
		for folder, text := range h.expect(to) {
			require.True(t, strings.HasPrefix(visible[folder], text), "%q shows\n%s", folder, visible[folder])
		}
		at = to
		if at%epochRecords == 0 && at > h.committed {
			h.before, h.committed = h.committed, at
			if err := s.Truncate(ctx, determinant.Epoch(at/epochRecords), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// view is what the files show, by folder. It checks that each file begins where the one before it ends, and at a line.
func (h *history) view(t require.TestingT) map[string]string {
	visible := map[string]string{}
	names, err := filepath.Glob(filepath.Join(h.dir, "part-00003*.jsonl"))
	require.NoError(t, err)
	more, err := filepath.Glob(filepath.Join(h.dir, "*", "part-00003*.jsonl"))
	require.NoError(t, err)
	for _, name := range append(names, more...) { // sorted within a folder
		folder, err := filepath.Rel(h.dir, filepath.Dir(name))
		require.NoError(t, err)
		if folder == "." {
			folder = ""
		}
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		if before := visible[folder]; before != "" {
			var start int
			_, err := fmt.Sscanf(filepath.Base(name), "part-00003-%d", &start)
			require.NoError(t, err, name)
			require.Equal(t, len(before), start, name)
			require.True(t, strings.HasSuffix(before, "\n"), "%s begins within a line", name)
		}
		if most := h.options.RollBytes; most > 0 && int64(len(data)) > most {
			require.LessOrEqual(t, strings.Count(string(data), "\n"), 1, "%s has %d bytes", name, len(data))
		}
		visible[folder] += string(data)
	}
	return visible
}

// folderOfRecord is where record n belongs.
func (h *history) folderOfRecord(n int) string {
	if h.options.Key == nil {
		return ""
	}
	key, err := h.options.Key(h.stream.record(n))
	if err != nil {
		panic(err)
	}
	folder, err := folderOf(key)
	if err != nil {
		panic(err)
	}
	return folder
}

// expect is what n records show, by folder.
func (h *history) expect(n int) map[string]string {
	all := map[string]string{}
	for i := range n {
		all[h.folderOfRecord(i)] += string(h.stream.record(i)) + "\n"
	}
	return all
}

// fence fences and checks what the store says against what is visible.
func (h *history) fence(t require.TestingT, s operator.CausalStore) (int, error) {
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: h.incarnation, Generation: h.generation, Cut: h.cut})
	if err != nil {
		return 0, err
	}
	at := int(stored.Cursor.Next)
	require.GreaterOrEqual(t, at, h.committed, "committed output is not visible")
	visible, all := h.view(t), h.expect(100)
	for folder, text := range visible {
		require.True(t, strings.HasPrefix(all[folder], text), "%q is not that of one execution:\n%s", folder, text)
	}
	for folder, text := range h.expect(at) {
		require.LessOrEqual(t, len(text), len(visible[folder]), "the cursor is beyond the output of %q", folder)
	}
	from := h.before
	if h.cut != nil {
		from = max(from, int(h.cut.Cursor.Next))
	}
	told := toldOf(t, stored.Deltas)
	begins := map[string]int{}
	for n := range 100 {
		folder := h.folderOfRecord(n)
		if begins[folder] < len(visible[folder]) && n >= from {
			require.True(t, told[n], "record %d is visible without determinants in %q", n, stored.Deltas)
		}
		begins[folder] += len(h.stream.record(n)) + 1
	}
	return at, nil
}

func random(seed uint64) func() int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func() int { return 1 + r.IntN(6) }
}

// layouts are the ways in which a sink can lay out its files.
var layouts = map[string]SinkOptions{
	"one file":       {},
	"synced":         {Sync: true},
	"by size":        {RollBytes: 100},
	"by age":         {RollEvery: 3 * time.Second},
	"by key":         {Key: keyOfN},
	"by key and all": {Key: keyOfN, RollBytes: 70, RollEvery: 7 * time.Second},
	"shared":         {Shared: true, RollBytes: 100},
	"shared by key":  {Shared: true, Key: keyOfN, RollBytes: 70},
}

// keyOfN is a key of the tests' records: one of three, of which one is empty and one must be escaped.
func keyOfN(record []byte) (string, error) {
	var n int
	_, err := fmt.Sscanf(string(record), `{"n":%d`, &n)
	return []string{"", "a", "./é b"}[n%3], err
}

// everyCall makes the tests that go through all calls leave none out. It takes minutes.
var everyCall = os.Getenv("UNDERSTUDY_EVERY_CALL") != ""

// pointsOf lists calls at which a process dies or stops: all of them, or some from the first to the last.
func pointsOf(calls int) (points []int) {
	step := 1
	if !everyCall {
		step += calls / 25
	}
	for at := 1; at <= calls; at += step {
		points = append(points, at)
	}
	return points
}

// TestCrashAtSystemCalls kills the process before, in the middle of, or after a call it makes, and again at a call of its
// recovery.
func TestCrashAtSystemCalls(t *testing.T) {
	for name, o := range layouts {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			count := &crashDisk{}
			require.NoError(t, newHistory(t, filepath.Join(dir, "count"), o).live(t, count, 32, 23, random(1)))
			for _, at := range pointsOf(count.calls) {
				for when := range moments {
					if !everyCall && int(when) != at/2%int(moments) {
						continue
					}
					h := newHistory(t, filepath.Join(dir, fmt.Sprint(at, when)), o)
					err := h.live(t, &crashDisk{at: at, when: when}, 32, 23, random(1))
					require.ErrorIs(t, err, errCrash)
					second := 1 + (3*at+int(when))%17
					name := fmt.Sprintf("%s (call %d, %d), then call %d", count.trace[at-1], at, when, second)
					err = h.live(t, &crashDisk{at: second, when: when}, 32, 23, random(2))
					require.True(t, err == nil || errors.Is(err, errCrash), "%s: %v", name, err)
					require.NoError(t, h.live(t, &crashDisk{}, 32, 23, random(3)), name)
					require.Equal(t, h.expect(32), h.view(t), name)
					require.NoError(t, os.RemoveAll(h.dir))
				}
			}
		})
	}
}

// zombieT fails the goroutine of a stopped process.
type zombieT struct {
	mu       sync.Mutex
	failures []string
}

func (z *zombieT) Errorf(format string, args ...any) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.failures = append(z.failures, fmt.Sprintf(format, args...))
}

func (z *zombieT) FailNow() { runtime.Goexit() }

// TestAProcessStoppedAtSystemCalls stops a process of a shared directory at a call, whatever it does, lets another take over, and then
// lets it go on. There is no lock that would keep it from anything.
func TestAProcessStoppedAtSystemCalls(t *testing.T) {
	for _, name := range []string{"shared", "shared by key"} {
		t.Run(name, func(t *testing.T) {
			o, dir := layouts[name], t.TempDir()
			count := &crashDisk{}
			require.NoError(t, newHistory(t, filepath.Join(dir, "count"), o).live(t, count, 32, 23, random(1)))
			for _, at := range pointsOf(count.calls) {
				name := fmt.Sprintf("stopped before %s (call %d)", count.trace[at-1], at)
				z := newHistory(t, filepath.Join(dir, fmt.Sprint(at)), o)
				d := &crashDisk{}
				stopped, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
				calls := 0
				d.stop = func(string, string) {
					if calls++; calls == at {
						close(stopped)
						<-goOn
					}
				}
				zt := &zombieT{}
				var result error
				go func() {
					defer close(ended)
					result = z.live(zt, d, 32, 23, random(1))
				}()
				<-stopped
				h := *z
				if at%2 == 1 { // the successor dies, too, before the stopped process goes on
					err := h.live(t, &crashDisk{at: 1 + at%23, when: after}, 32, 23, random(2))
					require.True(t, err == nil || errors.Is(err, errCrash), "%s: %v", name, err)
				}
				require.NoError(t, h.live(t, &crashDisk{}, 27, 23, random(3)), name)
				close(goOn)
				<-ended
				require.Empty(t, zt.failures, name)
				if result == nil {
					require.GreaterOrEqual(t, at, count.calls-2, "%s: nobody told it", name)
				} else {
					require.ErrorIs(t, result, operator.ErrFenced, name)
				}
				require.NoError(t, h.live(t, &crashDisk{}, 32, 23, random(3)), name)
				require.Equal(t, h.expect(32), h.view(t), name)
				require.NoError(t, os.RemoveAll(h.dir))
			}
		})
	}
}

// TestAFailedCallLeavesTheStoreUsable has one call fail, as on a full disk, and the same writer try again.
func TestAFailedCallLeavesTheStoreUsable(t *testing.T) {
	var str script
	for at := 1; at < 30; at++ {
		for when := range moments {
			dir := t.TempDir()
			d := Sink(dir, shared)
			d.disk = &crashDisk{at: at, when: when, once: true}
			s, err := d.Open(ctx, 3, 4)
			require.NoError(t, err)
			failures := 0
			retry := func(f func() error) {
				err := f()
				for errors.Is(err, errCrash) {
					failures++
					err = f()
				}
				require.NoError(t, err)
			}
			n := 0
			retry(func() error { _, err := s.Fence(ctx, operator.Fence{Incarnation: 1}); return err })
			for n < 40 {
				retry(func() error {
					err := s.Write(ctx, 1, str.write(n, n+5))
					if err != nil { // the write may have come to pass all the same: ask
						n = int(fence(t, s, 1).Cursor.Next)
						return err
					}
					n += 5
					return nil
				})
				if n%epochRecords == 0 {
					retry(func() error { return s.Truncate(ctx, determinant.Epoch(n/epochRecords), nil) })
				}
			}
			require.Equal(t, 1, failures)
			require.Equal(t, str.text(n), shown(t, dir))
			require.NoError(t, s.Close())
		}
	}
}

func TestDeterminantsAreOnDiskFirst(t *testing.T) {
	var str script
	for _, o := range []SinkOptions{{}, {Sync: true}, {Mutations: mutation.OutputBeforeDeterminants}} {
		dir := t.TempDir()
		c := &crashDisk{}
		d := Sink(dir, o)
		d.disk = c
		s, err := d.Open(ctx, 3, 4)
		require.NoError(t, err)
		fence(t, s, 1)
		require.NoError(t, s.Write(ctx, 1, str.write(0, 5)))
		c.trace = nil
		require.NoError(t, s.Write(ctx, 1, str.write(5, 9)))
		switch {
		case o.Sync:
			require.Equal(t, []string{"write part-00003.det.000001", "sync part-00003.det.000001", "write part-00003.jsonl",
				"sync part-00003.jsonl"}, c.trace)
		case o.Mutations != 0:
			require.Equal(t, []string{"write part-00003.jsonl", "write part-00003.det.000001"}, c.trace)
			c.at, c.when = c.calls+2, before
			require.ErrorIs(t, s.Write(ctx, 1, str.write(9, 10)), errCrash)
			c.at = 0
			_, err := s.Fence(ctx, operator.Fence{Incarnation: 2})
			require.ErrorIs(t, err, ErrCorrupt, "noticed")
		default:
			require.Equal(t, []string{"write part-00003.det.000001", "write part-00003.jsonl"}, c.trace)
		}
		require.NoError(t, s.Close())
	}
}

// TestStoppedWriter stops a process at each call of a write, replaces it, and lets it go on.
func TestStoppedWriter(t *testing.T) {
	for _, where := range []string{"part-00003.det.000001", "part-00003.jsonl"} {
		for _, rollback := range []bool{false, true} {
			dir := t.TempDir()
			var str script
			stopped, goOn, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			c := &crashDisk{}
			d := Sink(dir, shared)
			d.disk = c
			zombie, err := d.Open(ctx, 3, 4)
			require.NoError(t, err)
			fence(t, zombie, 1)
			require.NoError(t, zombie.Write(ctx, 1, str.write(0, 10)))
			var once sync.Once
			c.stop = func(what, name string) {
				if what == "write" && filepath.Base(name) == where {
					once.Do(func() { close(stopped); <-goOn })
				}
			}
			go func() { result <- zombie.Write(ctx, 1, str.write(10, 15)) }()
			<-stopped

			next := open(t, dir, shared)
			require.Equal(t, cursorAt(10), fence(t, next, 1).Cursor, "a reader is not held up")
			f := operator.Fence{Incarnation: 2}
			if rollback {
				str = script{10}
				f.Generation, f.Cut = 1, &operator.Cut{Cursor: cursorAt(10)}
			}
			stored, err := next.Fence(ctx, f)
			require.NoError(t, err)
			require.Equal(t, cursorAt(10), stored.Cursor)
			require.NoError(t, next.Write(ctx, 2, str.write(10, 12)))
			stored, err = next.Fence(ctx, operator.Fence{Incarnation: 3, Generation: f.Generation})
			require.NoError(t, err)
			require.Equal(t, cursorAt(12), stored.Cursor)
			require.NoError(t, next.Write(ctx, 3, str.write(12, 14)))

			close(goOn)
			require.ErrorIs(t, <-result, operator.ErrFenced)
			require.ErrorIs(t, zombie.Write(ctx, 1, str.write(15, 20)), operator.ErrFenced)
			require.NoError(t, next.Write(ctx, 3, str.write(14, 20)))
			require.Equal(t, str.text(20), shown(t, dir))
			stored, err = zombie.Fence(ctx, operator.Fence{Incarnation: 4, Generation: f.Generation})
			require.NoError(t, err)
			require.Equal(t, cursorAt(20), stored.Cursor)
			require.NoError(t, zombie.Close())
			require.NoError(t, next.Close())
		}
	}
}

// TestAWriterThatSleptThroughSeveralLives wakes up when the segment after its own has come and gone.
func TestAWriterThatSleptThroughSeveralLives(t *testing.T) {
	dir := t.TempDir()
	var str script
	zombie, next := open(t, dir, shared), open(t, dir, shared)
	fence(t, zombie, 1)
	require.NoError(t, zombie.Write(ctx, 1, str.write(0, 10)))
	fence(t, next, 2)
	fence(t, next, 3)
	require.ErrorIs(t, zombie.Write(ctx, 1, str.write(10, 12)), operator.ErrFenced)
	require.NoError(t, next.Write(ctx, 3, str.write(10, 20)))
	for e := determinant.Epoch(1); e < 4; e++ {
		n := int(e+1) * epochRecords
		require.NoError(t, next.Truncate(ctx, e, nil))
		require.NoError(t, next.Write(ctx, 3, str.write(n, n+epochRecords)))
	}
	require.NoError(t, zombie.Truncate(ctx, 4, nil))
	require.ErrorIs(t, zombie.Write(ctx, 1, str.write(10, 12)), operator.ErrFenced)
	require.Equal(t, str.text(50), shown(t, dir))
	require.NoError(t, zombie.Close())
	require.NoError(t, next.Close())
}

// TestModel lets processes live, die at drawn calls, and come back, with drawn batches and rollbacks.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	run := 0
	names := slices.Sorted(maps.Keys(layouts))
	rapid.Check(t, func(t *rapid.T) {
		run++
		o := layouts[rapid.SampledFrom(names).Draw(t, "layout")]
		o.Patience = time.Millisecond
		h := newHistory(t, filepath.Join(dir, fmt.Sprint(run)), o)
		defer os.RemoveAll(h.dir)
		choose := func() int { return rapid.IntRange(1, 12).Draw(t, "batch") }
		rollbackAt := rapid.IntRange(0, 120).Draw(t, "rollback")
		for range rapid.IntRange(0, 8).Draw(t, "crashes") {
			d := &crashDisk{at: rapid.IntRange(1, 40).Draw(t, "call"), when: moment(rapid.IntRange(0, 2).Draw(t, "when"))}
			if err := h.live(t, d, 80, rollbackAt, choose); err != nil {
				require.ErrorIs(t, err, errCrash)
			}
		}
		require.NoError(t, h.live(t, &crashDisk{}, 80, rollbackAt, choose))
		require.Equal(t, h.expect(80), h.view(t))
	})
}

func TestDeadLetters(t *testing.T) {
	name := filepath.Join(t.TempDir(), "dead.jsonl")
	d := DeadLetters(name)
	require.NoError(t, d.Put(DeadLetter{Operator: "parse", Channel: 3, Seq: 118, Err: "no \"x\"", Record: []byte("{}\n")}))
	require.NoError(t, d.Close())
	require.NoError(t, d.Close())
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	write(t, name, string(data)+`{"operator":"torn`)
	require.NoError(t, d.Put(DeadLetter{Operator: "parse", Channel: 3, Seq: 119, Err: "bad", Record: []byte{0xff}}))
	require.NoError(t, d.Close())
	data, err = os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, `{"operator":"parse","channel":3,"seq":118,"error":"no \"x\"","text":"{}\n"}
{"operator":"torn
{"operator":"parse","channel":3,"seq":119,"error":"bad","base64":"/w=="}
`, string(data))
}

package file

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
}

// newHistory begins in a directory that has been this job's before, so that no test waits for a real fsync.
func newHistory(t require.TestingT, dir string, o SinkOptions) *history {
	require.NoError(t, open(t, dir, shared).Close())
	return &history{dir: dir, options: o}
}

// live lets one process run until it has shown n records or the disk fails. choose gives the sizes of writes; rollbackAt is
// the record from which it rolls back to the last checkpoint once.
func (h *history) live(t require.TestingT, d disk, n, rollbackAt int, choose func() int) error {
	h.incarnation++
	dir := Sink(h.dir, h.options)
	dir.disk = d
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
		require.Equal(t, h.stream.text(to), h.output(t)[:len(h.stream.text(to))])
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

func (h *history) output(t require.TestingT) string {
	data, err := os.ReadFile(filepath.Join(h.dir, "part-00003.jsonl"))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	return string(data)
}

// fence fences and checks what the store says against what is visible.
func (h *history) fence(t require.TestingT, s operator.CausalStore) (int, error) {
	stored, err := s.Fence(ctx, operator.Fence{Incarnation: h.incarnation, Generation: h.generation, Cut: h.cut})
	if err != nil {
		return 0, err
	}
	visible := h.output(t)
	require.True(t, strings.HasPrefix(h.stream.text(200), visible), "the output is not that of one execution:\n%s", visible)
	at := int(stored.Cursor.Next)
	require.LessOrEqual(t, len(h.stream.text(at)), len(visible), "the cursor is beyond the output")
	require.GreaterOrEqual(t, at, h.committed, "committed output is not visible")
	shown := strings.Count(visible, "\n")
	if !strings.HasSuffix(visible, "\n") && visible != "" {
		shown++
	}
	from := h.before
	if h.cut != nil {
		from = max(from, int(h.cut.Cursor.Next))
	}
	covers(t, stored.Deltas, from, shown)
	return at, nil
}

func random(seed uint64) func() int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func() int { return 1 + r.IntN(6) }
}

// TestCrashAtEverySystemCall kills the process before, in the middle of, and after each call it makes, and again at each
// call of its recovery.
func TestCrashAtEverySystemCall(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []SinkOptions{shared, {Identity: "job", Sync: true}} {
		count := &crashDisk{}
		require.NoError(t, newHistory(t, filepath.Join(dir, fmt.Sprint(o.Sync)), o).live(t, count, 32, 23, random(1)))
		for at := 1; at <= count.calls; at++ {
			for when := range moments {
				for _, second := range []int{0, 1 + at%7} {
					if o.Sync && second > 0 {
						continue
					}
					h := newHistory(t, filepath.Join(dir, fmt.Sprint(at, when, second, o.Sync)), o)
					name := fmt.Sprintf("sync=%v %s (call %d, %d), then call %d", o.Sync, count.trace[at-1], at, when, second)
					err := h.live(t, &crashDisk{at: at, when: when}, 32, 23, random(1))
					require.ErrorIs(t, err, errCrash, name)
					if second > 0 {
						err := h.live(t, &crashDisk{at: second, when: when}, 32, 23, random(2))
						require.True(t, err == nil || errors.Is(err, errCrash), "%s: %v", name, err)
					}
					require.NoError(t, h.live(t, &crashDisk{}, 32, 23, random(3)), name)
					require.Equal(t, h.stream.text(32), h.output(t), name)
					require.NoError(t, os.RemoveAll(h.dir))
				}
			}
		}
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
	rapid.Check(t, func(t *rapid.T) {
		run++
		h := newHistory(t, filepath.Join(dir, fmt.Sprint(run)), SinkOptions{
			Identity: "job", Sync: rapid.Bool().Draw(t, "sync"), Patience: time.Millisecond,
		})
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
		require.Equal(t, h.stream.text(80), h.output(t))
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

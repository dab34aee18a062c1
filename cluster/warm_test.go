package cluster

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/connector/file"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

const (
	warmKeys = 20_000 // of each split
)

// tally is how often a key came.
type tally struct {
	Key   int64
	Count int64
	Pad   string `json:"-"`
}

// tallies counts keys, with a state that is large and hardly changes once all keys have come.
type tallies struct {
	count *operator.Value[tally]
	timed *operator.MapState[string, int64]
}

func (p *tallies) Open(s *operator.States) error {
	p.count = operator.NewValue[tally](s, "count")
	p.timed = operator.NewMap[string, int64](s, "members")
	return nil
}

func (p *tallies) Process(ctx operator.KeyedContext[int64], _ int64, emit func(tally)) error {
	c, _ := p.count.Get()
	c.Key, c.Pad = ctx.Key(), strings.Repeat("x", 50)
	c.Count++
	p.count.Set(c)
	member := string(rune('a' + c.Count%3))
	last, _ := p.timed.Get(member)
	p.timed.Set(member, last+1)
	if c.Count%7 == 6 {
		p.timed.Clear(member) // a checkpoint has deletions
	}
	var sum int64
	for _, n := range p.timed.All() {
		sum += n
	}
	c.Count = 1000*c.Count + sum
	emit(c)
	return nil
}

func (p *tallies) Timer(operator.KeyedContext[int64], operator.Timer, func(tally)) error { return nil }

// warmRun runs the job, and act when all keys have come and a worker or more hold state ready.
func warmRun(t *testing.T, memory int64, act func(l *Local, v *valve)) (Summary, map[tally]int) {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	v := &valve{n: warmKeys + 4000}
	job := operator.NewJob("tallies")
	all := operator.From(job, "numbers", v, operator.WithCodec[uint64](numberCodec{}))
	keys := operator.Map(all, "keys", func(_ operator.Context, n uint64) (int64, error) {
		if at := int64(n % v.n); at >= warmKeys {
			return at % 16, nil
		}
		return int64(n), nil
	})
	counted := operator.Process(operator.KeyBy(keys, func(k int64) int64 { return k }), "count",
		func() operator.Processor[int64, int64, tally] { return &tallies{} })
	operator.To(counted, "output", file.Sink(out, file.SinkOptions{Identity: "tallies"}), operator.WithCodec(operator.JSON[tally]()))
	plan, err := job.Plan(2)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sum, err := RunLocal(ctx, plan, LocalOptions{
		StateDir: filepath.Join(dir, "state"), CheckpointInterval: 20 * time.Millisecond, StandbyMemory: memory, BalanceAfter: -1,
		Started: func(l *Local) {
			go func() {
				v.open(warmKeys)
				act(l, v)
				v.open(v.n)
			}()
		},
	})
	require.NoError(t, err)
	return sum, seenRows[tally](t, out)
}

// A task that dies is taken over by a standby that has its large state in memory, and that goes for each further death: what it gives is
// what it gives when nobody dies, whether state is held ready or not.
func TestLargeStateIsHeldReady(t *testing.T) {
	_, want := warmRun(t, -1, func(*Local, *valve) {})
	require.Len(t, want, 2*(warmKeys+4000))
	for name, memory := range map[string]int64{"held": 0, "no room": 1 << 20, "none": -1} {
		t.Run(name, func(t *testing.T) {
			var warm int64
			sum, seen := warmRun(t, memory, func(l *Local, v *valve) {
				counts := []determinant.TaskID{2, 3}
				k := &killer{t: t, l: l, valve: v, ctx: t.Context(), moved: warmKeys}
				for round := range 3 {
					v.open(warmKeys + uint64(round+1)*500)
					task := counts[round%2]
					if memory == 0 {
						var ready *warmState
						var since determinant.Epoch
						k.until("state that is held ready and takes each checkpoint", func() bool {
							l.Checkpoint()
							for _, w := range l.workers() {
								warm = max(warm, w.worker.WarmBytes())
							}
							s, at := heldReady(l, task)
							if s != ready || !runs(l, task) {
								ready, since = s, at
							}
							return ready != nil && at > since
						})
					}
					k.kill(task)
				}
			})
			require.Equal(t, want, seen)
			taken := 0
			for _, r := range sum.Recoveries {
				if r.WarmBytes > 0 {
					taken++
					require.Greater(t, r.WarmBytes, warmFrom)
				}
			}
			require.Positive(t, sum.Kills)
			if memory != 0 {
				require.Zero(t, taken)
				return
			}
			require.Equal(t, 3, taken, "%+v", sum.Recoveries)
			require.Greater(t, warm, int64(2*warmFrom))
		})
	}
}

// runs tells whether a task runs and has caught up.
func runs(l *Local, t determinant.TaskID) bool {
	return slices.ContainsFunc(l.workers(), func(w *localWorker) bool {
		h := w.worker.tasks[t].Load()
		return h != nil && !h.recovering.Load()
	})
}

// heldReady gives the state of a task that a worker has in memory, and the checkpoint that it is at.
func heldReady(l *Local, t determinant.TaskID) (*warmState, determinant.Epoch) {
	for _, w := range l.workers() {
		if s := w.worker.warmOf(t); s != nil {
			s.Lock()
			phase, epoch := s.phase, s.epoch
			s.Unlock()
			if phase == warmReady {
				return s, epoch
			}
		}
	}
	return nil, 0
}

// words is a table of which all words are there.
type words []string

func (words) Table() string { return "words" }

func (w words) Entries(yield func(key, value []byte, deleted bool) error) error {
	for _, word := range w {
		if err := yield([]byte(word), []byte{1}, false); err != nil {
			return err
		}
	}
	return nil
}

// A full image is all that there is, whatever was held before; one that is not adds to that.
func TestAFullImageReplacesWhatIsHeldReady(t *testing.T) {
	s := &warmState{phase: warmReady, state: operator.NewResident(), epoch: 1}
	s.state.Put("words", []byte("first"), []byte{1}, false)
	take := func(e determinant.Epoch, full bool, word string) {
		meta := checkpoint.Meta{Task: 1, Incarnation: 1, Epoch: e, Base: e - 1}
		image, err := checkpoint.Encode(meta, full, []checkpoint.Frozen{words{word}})
		require.NoError(t, err)
		_, err = s.apply(warmImage{meta: meta, full: full, bytes: image})
		require.NoError(t, err)
	}
	take(2, false, "second")
	require.Equal(t, "words \"first\" \"\\x01\"\nwords \"second\" \"\\x01\"\n", dump(s.state))
	take(3, true, "third")
	require.Equal(t, "words \"third\" \"\\x01\"\n", dump(s.state))
}

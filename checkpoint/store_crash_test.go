package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/understudy-stream/understudy/determinant"
)

// modelImage and model are the naive Store: maps.
type modelImage struct {
	meta    Meta
	full    bool
	entries map[string]string // "" deletes
}

type modelState struct {
	meta    Meta
	entries map[string]string
	written map[string]determinant.Epoch // by key, the checkpoint whose image has the value
}

type model struct {
	held   map[determinant.TaskID]modelState
	images map[imageID]modelImage
	late   bool // images say that they have all since a checkpoint that is one too late
}

func newModel() *model {
	return &model{held: map[determinant.TaskID]modelState{}, images: map[imageID]modelImage{}}
}

func (m *model) clone() *model { return &model{maps.Clone(m.held), maps.Clone(m.images), m.late} }

func (m *model) fold(im modelImage) {
	next, written := map[string]string{}, map[string]determinant.Epoch{}
	if !im.full {
		maps.Copy(next, m.held[im.meta.Task].entries)
		maps.Copy(written, m.held[im.meta.Task].written)
	}
	for k, v := range im.entries {
		next[k], written[k] = v, im.meta.Epoch
		if v == "" {
			delete(next, k)
			delete(written, k)
		}
	}
	m.held[im.meta.Task] = modelState{im.meta, next, written}
}

func (m *model) drop(drop func(id imageID) bool) {
	maps.DeleteFunc(m.images, func(id imageID, _ modelImage) bool { return drop(id) })
}

func (m *model) put(im modelImage) error {
	held, id := m.held[im.meta.Task].meta, imageID{im.meta.Task, im.meta.Epoch}
	old, ok := m.images[id]
	switch {
	case held.Epoch == im.meta.Epoch && held.Incarnation == im.meta.Incarnation, ok && old.meta.Incarnation == im.meta.Incarnation:
		return nil
	case held.Epoch >= im.meta.Epoch, ok && old.meta.Incarnation > im.meta.Incarnation:
		return ErrStale
	case !im.full && im.meta.Base > held.Epoch:
		return ErrBase
	}
	m.images[id] = im
	return nil
}

func (m *model) commit(e determinant.Epoch, lives []Life) error {
	for _, l := range lives {
		im, ok := m.images[imageID{l.Task, e}]
		held := m.held[l.Task].meta.Epoch
		if ok && im.meta.Incarnation == l.Incarnation && held < e && (im.full || im.meta.Base <= held) {
			m.fold(im)
		}
	}
	m.drop(func(id imageID) bool { return id.epoch <= e })
	return nil
}

func (m *model) restoreAt(t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation) error {
	im, ok := m.images[imageID{t, e}]
	held := m.held[t].meta.Epoch
	if ok && im.meta.Incarnation == inc && held < e && (im.full || im.meta.Base <= held) {
		m.fold(im)
		m.drop(func(id imageID) bool { return id.task == t && id.epoch <= e })
	}
	if e != 0 && m.held[t].meta.Epoch != e {
		return ErrNotHeld
	}
	return nil
}

func (m *model) importFull(im modelImage) error {
	if m.held[im.meta.Task].meta.Epoch > im.meta.Epoch {
		return ErrStale
	}
	if m.held[im.meta.Task].meta.Epoch < im.meta.Epoch {
		m.fold(im)
	}
	m.drop(func(id imageID) bool { return id.task == im.meta.Task && id.epoch <= im.meta.Epoch })
	return nil
}

// storeOp is one call, on a store and on the model.
type storeOp struct {
	name  string
	store func(*Store) error
	model func(*model) error
}

const crashTasks = 4

// crashSeeds is how many runs TestStoreCrashes makes.
const crashSeeds = 250

// randomOp draws a call that often makes sense in the state m.
func randomOp(t *testing.T, rng *rand.Rand, m *model) storeOp {
	task := determinant.TaskID(rng.IntN(crashTasks))
	held := m.held[task].meta.Epoch
	top := determinant.Epoch(0)
	for _, h := range m.held {
		top = max(top, h.meta.Epoch)
	}
	epoch := top + determinant.Epoch(rng.IntN(4))
	inc := determinant.Incarnation(1 + rng.IntN(3))
	switch n := rng.IntN(100); {
	case n < 55:
		im := randomImage(rng, Meta{Task: task, Incarnation: inc, Epoch: max(epoch, 1), Base: held})
		if rng.IntN(10) == 0 || im.meta.Base >= im.meta.Epoch {
			im.meta.Base = im.meta.Epoch - 1
		} else if im.meta.State = []uint64{0, 4 << 10, 1 << 20, 1 << 20}[rng.IntN(4)]; im.meta.State > 0 {
			m.clean(rng, &im)
		}
		b := im.encode(t)
		return storeOp{"put", func(s *Store) error { return s.Put(b) }, func(m *model) error { return m.put(im) }}
	case n < 80:
		var lives []Life
		for id := range determinant.TaskID(crashTasks) {
			life := Life{id, inc}
			if im, ok := m.images[imageID{id, epoch}]; ok && rng.IntN(8) > 0 {
				life.Incarnation = im.meta.Incarnation
			}
			lives = append(lives, life)
		}
		return storeOp{"commit", func(s *Store) error { return s.Commit(epoch, lives) }, func(m *model) error { return m.commit(epoch, lives) }}
	case n < 88:
		im := randomImage(rng, Meta{Task: task, Incarnation: inc, Epoch: max(epoch, 1), Since: determinant.Epoch(rng.IntN(9))})
		im.full = true
		b := im.encode(t)
		return storeOp{"import", func(s *Store) error { return s.Import(b) }, func(m *model) error { return m.importFull(im) }}
	case n < 94:
		return storeOp{"restore", func(s *Store) error {
			var meta Meta
			return s.RestoreAt(task, epoch, inc, &meta, func(string, []byte, []byte) error { return nil })
		}, func(m *model) error { return m.restoreAt(task, epoch, inc) }}
	case n < 97:
		return storeOp{"drop", func(s *Store) error { return s.Drop(task) }, func(m *model) error {
			delete(m.held, task)
			m.drop(func(id imageID) bool { return id.task == task })
			return nil
		}}
	}
	return storeOp{"drop above", func(s *Store) error { return s.DropAbove(epoch) }, func(m *model) error {
		m.drop(func(id imageID) bool { return id.epoch > epoch })
		return nil
	}}
}

func randomImage(rng *rand.Rand, meta Meta) modelImage {
	im := modelImage{meta: meta, full: rng.IntN(5) == 0, entries: map[string]string{}}
	im.meta.Records = rng.Uint64N(1000)
	for range rng.IntN(8) {
		value := strings.Repeat(fmt.Sprint(rng.IntN(10)), rng.IntN(3000))
		im.entries[fmt.Sprintf("k%d", rng.IntN(20))] = value
	}
	return im
}

// clean writes some values again that have not changed for longest, in an image that is relative to what is held, and has it say since when all is in
// the images. That holds on top of what comes between as well.
func (m *model) clean(rng *rand.Rand, im *modelImage) {
	held := m.held[im.meta.Task]
	keys := slices.SortedFunc(maps.Keys(held.entries), func(a, b string) int {
		return cmp.Or(cmp.Compare(held.written[a], held.written[b]), strings.Compare(a, b))
	})
	again := rng.IntN(6)
	since := im.meta.Base
	for _, k := range keys {
		if _, ok := im.entries[k]; ok {
			continue
		}
		if again--; again >= 0 {
			im.entries[k] = held.entries[k]
			continue
		}
		since = min(since, held.written[k])
	}
	if since = max(since, 1) - 1; m.late && since+1 < im.meta.Base {
		since++
	}
	im.meta.Since = since
}

func (im modelImage) encode(t *testing.T) []byte {
	var items []item
	for k, v := range im.entries {
		items = append(items, item{k, v, v == ""})
	}
	b, err := Encode(im.meta, im.full, frozen(table{"t", items}))
	require.NoError(t, err)
	return b
}

// agrees tells whether the store has of the task what the model has.
func (m *model) agrees(t *testing.T, s *Store, task determinant.TaskID) bool {
	want := m.held[task]
	if s.Held(task) != want.meta.Epoch {
		return false
	}
	got := map[string]string{}
	var meta Meta
	require.NoError(t, s.Restore(task, want.meta.Epoch, &meta, func(_ string, k, v []byte) error {
		got[string(k)] = string(v)
		return nil
	}))
	return want.meta.Epoch == 0 || meta.Incarnation == want.meta.Incarnation && meta.Records == want.meta.Records && maps.Equal(got, want.entries)
}

// crashFS takes a copy of its filesystem as a crash would leave it, before the n-th write from now. Or the process is killed there: whatever it
// would still write fails, and what the next one finds has not reached the disk for that.
type crashFS struct {
	kills bool
	flaky bool // a write fails now and then, and does not if it is tried again
	mu    sync.Mutex
	mem   *vfs.MemFS
	left  int
	spare int // files that were written anew
	rng   *rand.Rand
	clone *vfs.MemFS
}

func (c *crashFS) String() string { return "crash" }

func (c *crashFS) MaybeError(op errorfs.Op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if op.Kind == errorfs.OpReuseForWrite {
		c.spare++
	}
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
		if c.left--; c.kills && c.left <= 0 {
			return errorfs.ErrInjected
		} else if c.left == 0 {
			// All or nothing of what is not synced: a rename is one change to a file system, and the clone would make two of it.
			c.clone = c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * c.rng.IntN(2), RNG: c.rng})
		}
		// An image of a lower incarnation that cannot be removed may come back, which the model does not know.
		if c.flaky && c.rng.IntN(40) == 0 && !(op.Kind == errorfs.OpRemove && strings.HasSuffix(op.Path, imageSuffix)) {
			return errorfs.ErrInjected
		}
	}
	return nil
}

// crashed is what a crash has left; nil if there was none.
func (c *crashFS) crashed() *vfs.MemFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed() {
		return c.mem
	}
	return c.clone
}

func (c *crashFS) killed() bool { return c.kills && c.left <= 0 }

// TestStoreCrashes runs random calls with crashes and kills between any two writes and compares with the model: what a call had
// done when it returned is there, the call that the crash interrupted has been done for each task wholly or not at all,
// and doing it again gives what it would have given.
func TestStoreCrashes(t *testing.T) {
	seeds := crashSeeds
	if testing.Short() {
		seeds = min(seeds, 8)
	}
	calls, crashes := map[string]int{}, 0
	for seed := range seeds {
		crashes += crashRun(t, uint64(seed), calls)
	}
	t.Logf("%d crashes, calls %v", crashes, calls)
	require.Greater(t, calls["merged"], seeds, "stores whose parts were merged")
	require.Greater(t, calls["dropped"], seeds, "chains whose first parts were dropped")
	require.Greater(t, calls["flaky"], seeds, "calls that failed once")
	require.Greater(t, calls["spare"], seeds, "files that were written anew")
	require.Greater(t, crashes, seeds)
}

func crashRun(t *testing.T, seed uint64, calls map[string]int) (crashes int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	mem := vfs.NewCrashableMem()
	m := newModel()
	open := func() (*Store, *crashFS) {
		for {
			c := &crashFS{
				kills: rng.IntN(2) == 0, flaky: rng.IntN(2) == 0,
				mem: mem, left: 1 + rng.IntN(150), rng: rand.New(rand.NewPCG(seed, rng.Uint64())),
			}
			s, err := OpenStore("w/store", StoreOptions{FS: errorfs.Wrap(mem, c), Identity: "job", MergeBytes: 4 << 10})
			if err != nil && (c.killed() || errors.Is(err, errorfs.ErrInjected)) {
				continue
			}
			require.NoError(t, err, "seed %d", seed)
			s.maxParts, s.maxCleaned = 3, 5
			return s, c
		}
	}
	s, c := open()
	for i := range 60 {
		op := randomOp(t, rng, m)
		calls[op.name]++
		before := m.clone()
		want, got := op.model(m), op.store(s)
		for errors.Is(got, errorfs.ErrInjected) && !c.killed() {
			calls["flaky"]++
			got = op.store(s)
		}
		require.True(t, cmp.Or(want == nil && got == nil, want != nil && errors.Is(got, want), c.killed()),
			"seed %d call %d %s: %v, want %v", seed, i, op.name, got, want)
		for clone := c.crashed(); clone != nil; clone = c.crashed() {
			crashes++
			err := s.Close()
			require.True(t, err == nil || c.killed() || c.flaky, "%v", err)
			calls["spare"] += c.spare
			mem = clone
			s, c = open()
			for task := range determinant.TaskID(crashTasks) {
				require.True(t, before.agrees(t, s, task) || m.agrees(t, s, task), "seed %d call %d %s: task %d after the crash", seed, i, op.name, task)
			}
			got := op.store(s)
			for errors.Is(got, errorfs.ErrInjected) && !c.killed() {
				got = op.store(s)
			}
			if want == nil && c.crashed() == nil {
				require.NoError(t, got, "seed %d call %d %s again", seed, i, op.name)
			}
		}
		for task := range m.held {
			if len(s.mu.chains[task]) == 1 && len(before.held) > 0 && s.mu.merged == task && op.name == "commit" {
				calls["merged"]++
			}
			if chain := s.mu.chains[task]; len(chain) > 0 && chain[0].from > 0 {
				calls["dropped"]++
			}
		}
		tasks := slices.Sorted(maps.Keys(m.held))
		for _, task := range tasks {
			require.True(t, m.agrees(t, s, task), "seed %d call %d %s: task %d", seed, i, op.name, task)
		}
	}
	if err := s.Close(); !c.killed() && !c.flaky {
		require.NoError(t, err)
	}
	return crashes
}

// Images that say a checkpoint too late lose what was written last just before it, and the comparison with the model shows it.
func TestModelNoticesALateSince(t *testing.T) {
	for _, late := range []bool{false, true} {
		lost := false
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 1))
			m, s := newModel(), openMerging(t, vfs.NewMem(), 4<<10)
			m.late = late
			for range 60 {
				op := randomOp(t, rng, m)
				require.ErrorIs(t, op.store(s), op.model(m))
			}
			for task := range determinant.TaskID(crashTasks) {
				lost = lost || !m.agrees(t, s, task)
			}
			require.NoError(t, s.Close())
		}
		require.Equal(t, late, lost)
	}
}

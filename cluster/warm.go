package cluster

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// What is worth to be held ready: a restore takes about a millisecond for a thousand entries, and so does taking over changes.
const (
	DefaultStandbyMemory = 512 << 20 // bytes of state
	warmFrom             = 512 << 10 // bytes of an image of the whole state
	warmShare            = 8         // at most one part in so many changes from checkpoint to checkpoint
	coldShare            = 4         // it is held no longer when more than one in so many does
	mostWarmImages       = 4         // epochs whose images wait for their commit: that of one before the newest may still come, others were abandoned
	entriesPerTurn       = 512       // are taken over before others run: a fraction of a millisecond
)

// standbyMemory is the default of an option: 0 stands for it, and a negative number for none.
func standbyMemory(bytes int64) int64 {
	if bytes == 0 {
		return DefaultStandbyMemory
	}
	return max(0, bytes)
}

// warmStates are the states of tasks that this worker is a standby of and holds ready in memory, since they are large and little of them
// changes: a task that starts here takes over its own and loads nothing. What is small, or changes all the time, is read when it is needed.
//
// Invariant: what takeWarm gives is what the worker's store has of the task at that checkpoint, and it is given once.
type warmStates struct {
	sync.Mutex
	states  map[determinant.TaskID]*warmState
	refused map[determinant.TaskID]warmRefusal // those that turned out to have no room
}

// warmRefusal is how large a state was that had no room: in memory, at least, and on disk.
type warmRefusal struct {
	bytes int64
	whole uint64
}

// warmState is one of them. It takes each image that is stored here, and applies it when its checkpoint is committed.
type warmState struct {
	taken atomic.Int64 // about how many bytes of memory
	whole uint64       // bytes that it took on disk when it was begun with
	sync.Mutex
	phase  warmPhase
	state  *operator.Resident
	epoch  determinant.Epoch       // committed, and what the state is at
	inc    determinant.Incarnation // whose image that is
	images []warmImage             // Invariant: from the first that is here on, none that may still be committed is missing
	due    []warmImage             // committed while the state was read, and to be applied
}

type warmImage struct {
	meta  checkpoint.Meta
	full  bool
	bytes []byte
}

// warmPhase is how far a state is. It begins with images alone: when the first of them is committed, all that come after it are here too, and
// what the store has then is read.
type warmPhase int

const (
	warmListening warmPhase = iota
	warmReading
	warmReady
	warmGone // taken over, or not worth it any more
)

// errCold means that a state is not held ready any longer.
var errCold = errors.New("cluster: a state is not held ready any longer")

// warmUp begins to hold the state of a task ready, which takes so many bytes on disk, if there is room.
func (w *Worker) warmUp(t determinant.TaskID, s *warmState, whole uint64) (begun bool) {
	w.warm.Lock()
	s.whole = whole
	s.taken.Store(int64(whole))
	if r := w.warm.refused[t]; whole >= r.whole/2 {
		s.taken.Store(max(int64(whole), r.bytes))
	}
	was := w.warm.states[t]
	w.warm.states[t] = s
	if w.warm.bytes() > w.opts.StandbyMemory {
		delete(w.warm.states, t)
		s = nil
	}
	w.warm.Unlock()
	if was != nil {
		was.Lock()
		defer was.Unlock()
		was.end()
	}
	return s != nil
}

// bytes is about what all states take. w.warm is locked.
func (w *warmStates) bytes() (n int64) {
	for _, s := range w.states { //lint:sorted a sum
		n += s.taken.Load()
	}
	return n
}

// fits tells whether there is room for a state that has grown to so many bytes; if not, how large it is will be remembered.
func (w *Worker) fits(t determinant.TaskID, s *warmState, bytes int64) bool {
	w.warm.Lock()
	defer w.warm.Unlock()
	if w.warm.bytes()-s.taken.Load()+bytes > w.opts.StandbyMemory {
		w.warm.refused[t] = warmRefusal{bytes, s.whole}
		return false
	}
	s.taken.Store(bytes)
	delete(w.warm.refused, t)
	return true
}

// warmOf is what is held ready of a task, nil if it is not.
func (w *Worker) warmOf(t determinant.TaskID) *warmState {
	w.warm.Lock()
	defer w.warm.Unlock()
	return w.warm.states[t]
}

// cool forgets a state, if it still is what is held ready of the task.
func (w *Worker) cool(t determinant.TaskID, s *warmState) {
	w.warm.Lock()
	if w.warm.states[t] == s {
		delete(w.warm.states, t)
	}
	w.warm.Unlock()
	s.Lock()
	defer s.Unlock()
	s.end()
}

// end drops what it has. s is locked.
func (s *warmState) end() { s.phase, s.state, s.images, s.due = warmGone, nil, nil, nil }

// count works out what it takes when it is ready. s is locked.
func (s *warmState) count() {
	if s.phase != warmReady {
		return
	}
	n := s.state.Bytes()
	for _, i := range s.images {
		n += int64(len(i.bytes))
	}
	s.taken.Store(n)
}

// WarmBytes is about how much memory the states take that are held ready.
func (w *Worker) WarmBytes() int64 {
	w.warm.Lock()
	defer w.warm.Unlock()
	return w.warm.bytes()
}

// holdReady begins to hold the committed state of a task ready that this worker is to stand by for, if it is worth it, and calls then when it does,
// or does not: a task is moved here only when that was said.
func (w *Worker) holdReady(t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation, then func()) {
	s := &warmState{phase: warmReading, epoch: e, inc: inc}
	if whole, worth := w.worthwhile(t); !worth || w.warmOf(t) != nil || !w.warmUp(t, s, whole) {
		then()
		return
	}
	w.env.Background(func() {
		w.readWarm(s, t, e, inc)
		then()
	})
}

// stored takes an image that was stored here.
func (w *Worker) stored(meta checkpoint.Meta, full bool, image []byte) {
	s := w.warmOf(meta.Task)
	if s == nil {
		return
	}
	s.Lock()
	defer s.Unlock()
	if w.opts.Mutations.Has(mutation.StandbyAhead) && s.phase == warmReady {
		_, _ = s.put(image)
	}
	if s.phase == warmGone {
		return
	}
	s.images = slices.DeleteFunc(s.images, func(i warmImage) bool {
		return i.meta.Epoch+mostWarmImages <= meta.Epoch || i.meta.Epoch == meta.Epoch && i.meta.Incarnation <= meta.Incarnation
	})
	s.images = append(s.images, warmImage{meta: meta, full: full, bytes: image})
	s.count()
}

// keepWarm takes a committed checkpoint to what is held ready, and sees what else is worth it. It runs among the disk jobs, behind the commit.
func (w *Worker) keepWarm(c *checkpoint.Complete) {
	if w.opts.StandbyMemory <= 0 {
		return
	}
	w.mu.Lock()
	mine := w.standsBy()
	promoted := func(t determinant.TaskID) bool { return w.mu.view.Places[t].Worker == w.id && w.tasks[t].Load() == nil }
	stale := map[determinant.TaskID]*warmState{}
	w.warm.Lock()
	for t, s := range w.warm.states { //lint:sorted each is forgotten by itself
		if !slices.Contains(mine, t) && !promoted(t) {
			stale[t] = s
		}
	}
	w.warm.Unlock()
	w.mu.Unlock()
	for t, s := range stale { //lint:sorted each is forgotten by itself
		w.cool(t, s)
	}
	for _, done := range c.Tasks {
		s := w.warmOf(done.Task)
		switch {
		case s == nil:
			whole, worth := w.worthwhile(done.Task)
			if worth && slices.Contains(mine, done.Task) && w.opts.State.Held(done.Task) == c.Epoch {
				w.warmUp(done.Task, &warmState{}, whole)
			}
		case !w.commitWarm(s, done.Task, c.Epoch, done.Incarnation):
			w.cool(done.Task, s)
		}
	}
}

// worthwhile tells whether the committed state of a task is large and little of it changes, and how many bytes it takes on disk.
func (w *Worker) worthwhile(t determinant.TaskID) (whole uint64, is bool) {
	if w.opts.StandbyMemory <= 0 || w.opts.Mutations.Has(mutation.RestoreUncommitted) {
		return 0, false
	}
	whole, newest := w.opts.State.Sizes(t) // if newest is 0, the next checkpoint will tell
	return whole, w.opts.AllWarm || whole >= warmFrom && newest <= whole/warmShare
}

// commitWarm takes the image of a committed checkpoint to a state; false if it cannot, or the state changes too much to be worth it.
func (w *Worker) commitWarm(s *warmState, t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation) bool {
	s.Lock()
	defer s.Unlock()
	if n := len(s.due); e <= s.epoch || n > 0 && e <= s.due[n-1].meta.Epoch {
		return true
	}
	image, ok := s.find(e, inc)
	if s.phase == warmReady {
		if !ok || image.full && !w.opts.AllWarm { // all of it has changed
			return false
		}
		before := s.taken.Load()
		changed, err := s.apply(image)
		after := s.taken.Load()
		return err == nil && (w.opts.AllWarm || changed <= after/coldShare) && (after <= before || w.fits(t, s, after))
	}
	if s.phase == warmListening {
		if ok { // else it was stored before this began to listen
			s.phase, s.epoch, s.inc = warmReading, e, inc
			w.env.Background(func() {
				w.readWarm(s, t, e, inc)
				w.refreshed(t) // what was to be reported meanwhile
			})
		}
		return true
	}
	if ok && s.phase == warmReading {
		s.due = append(s.due, image)
	}
	return ok && s.phase == warmReading
}

// find takes the image of a checkpoint out, and drops those before it.
func (s *warmState) find(e determinant.Epoch, inc determinant.Incarnation) (found warmImage, ok bool) {
	s.images = slices.DeleteFunc(s.images, func(i warmImage) bool {
		if i.meta.Epoch == e && i.meta.Incarnation == inc {
			found, ok = i, true
		}
		return i.meta.Epoch <= e
	})
	return found, ok
}

// readWarm reads a state from the store, which had just committed checkpoint e, and applies what was committed meanwhile.
func (w *Worker) readWarm(s *warmState, t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation) {
	state := operator.NewResident()
	var meta checkpoint.Meta
	n := 0
	err := w.opts.State.Read(t, e, &meta, func(table string, key, value []byte) error {
		state.Put(table, key, value, false)
		if n++; n%entriesPerTurn == 0 {
			runtime.Gosched()
			if s.is(warmGone) || w.ended.Load() {
				return errCold
			}
			if bytes := state.Bytes(); bytes > s.taken.Load() && !w.fits(t, s, bytes) {
				return errCold
			}
		}
		return nil
	})
	if err == nil && meta.Incarnation != inc {
		err = errCold
	}
	s.Lock()
	if err == nil && s.phase == warmReading {
		s.phase, s.state = warmReady, state
		due := s.due
		s.due = nil
		for _, image := range due {
			if _, err = s.apply(image); err != nil {
				break
			}
		}
		s.count()
	}
	s.Unlock()
	if err == nil && !w.fits(t, s, s.taken.Load()) {
		err = errCold
	}
	if err != nil {
		w.cool(t, s) // it is tried again after a later checkpoint; if the store is damaged, that is said when it is needed
	}
}

func (s *warmState) is(phase warmPhase) bool {
	s.Lock()
	defer s.Unlock()
	return s.phase == phase
}

// apply takes a committed image, and says about how many bytes it changed. s is locked.
func (s *warmState) apply(i warmImage) (changed int64, err error) {
	if i.full {
		s.state = operator.NewResident()
	} else if i.meta.Base > s.epoch {
		return 0, errCold
	}
	if changed, err = s.put(i.bytes); err != nil {
		s.end()
		return 0, err
	}
	s.epoch, s.inc = i.meta.Epoch, i.meta.Incarnation
	s.count()
	return changed, nil
}

// put changes the state. s is locked.
func (s *warmState) put(image []byte) (changed int64, err error) {
	n := 0
	err = checkpoint.Entries(image, func(table string, key, value []byte, deleted bool) error {
		changed += s.state.Put(table, key, value, deleted)
		if n++; n%entriesPerTurn == 0 {
			runtime.Gosched()
		}
		return nil
	})
	return changed, err
}

// takeWarm gives what is held ready of a task, if that is checkpoint e as taken by incarnation inc, to the task that starts here; nil if it is
// not, and then the state is to be read.
func (w *Worker) takeWarm(t determinant.TaskID, e determinant.Epoch, inc determinant.Incarnation) *operator.Resident {
	s := w.warmOf(t)
	if s == nil {
		return nil
	}
	defer w.cool(t, s)
	s.Lock()
	defer s.Unlock()
	if s.phase != warmReady {
		return nil
	}
	if image, ok := s.find(e, inc); ok && e > s.epoch { // the commit is among the disk jobs
		if _, err := s.apply(image); err != nil {
			return nil
		}
	}
	if s.epoch != e || s.inc != inc {
		return nil
	}
	state := s.state
	s.end() // a later life may ask here before it is forgotten
	if w.opts.Probe != nil && !w.opts.Mutations.Has(mutation.StandbyAhead) && !w.auditWarm(t, e, state) {
		return nil
	}
	return state
}

// auditWarm asserts the invariant of warmStates; false if the store cannot be read. Only the simulator has the time.
func (w *Worker) auditWarm(t determinant.TaskID, e determinant.Epoch, state *operator.Resident) bool {
	stored := operator.NewResident()
	var meta checkpoint.Meta
	if err := w.opts.State.Restore(t, e, &meta, func(table string, key, value []byte) error {
		stored.Put(table, key, value, false)
		return nil
	}); err != nil {
		return false // then the task is to say so
	}
	if want, have := dump(stored), dump(state); want != have {
		panic(fmt.Sprintf("cluster: assertion failed: state of task %d at checkpoint %d: held ready is\n%sstored is\n%s", t, e, have, want))
	}
	return true
}

func dump(r *operator.Resident) string {
	var b []byte
	for _, table := range r.Tables() {
		_ = r.Entries(table, func(key, value []byte) error { // it fails only where this function does
			b = fmt.Appendf(b, "%s %q %q\n", table, key, value)
			return nil
		})
	}
	return string(b)
}

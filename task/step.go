package task

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// Step makes one choice and runs it, or goes on with the step under way. It returns false when there is nothing to do until
// something arrives, a timer is due, or an output has room again. After an error the task is dead.
func (t *Task) Step() (progress bool, err error) {
	if t.done {
		return false, nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = t.recovered(r)
		}
		if err != nil {
			t.done = true
			t.rewind()
			err = t.explain(err)
		}
	}()
	if t.step.active {
		progress, err = t.resume()
	} else {
		progress, err = t.begin()
	}
	if err == nil && !progress {
		t.sealUnlessHeld()
	}
	return progress, err
}

// unwind carries an error from Runtime.Now, Rand or Call through user code to Step.
type unwind struct{ err error }

// Unwind marks the panic as one that operators must let pass.
func (unwind) Unwind() {}

func (t *Task) recovered(r any) error {
	if u, ok := r.(unwind); ok {
		return u.err
	}
	return fmt.Errorf("task: %s: panic: %v\n%s", t, r, debug.Stack())
}

// explain adds where the task was to a divergence.
func (t *Task) explain(err error) error {
	var d *causal.Divergence
	if errors.As(err, &d) {
		d.Task, d.Vertex, d.Epoch = t.cfg.ID, t.String(), t.epoch
	}
	return err
}

func (t *Task) assertion(format string, args ...any) error {
	return fmt.Errorf("task: assertion failed: %s incarnation %d: %s", t, t.cfg.Incarnation, fmt.Sprintf(format, args...))
}

// begin asks for the next step's header and runs the step.
func (t *Task) begin() (bool, error) {
	t.slowed = false
	if t.overBound() {
		return false, nil
	}
	if t.cfg.Mutations.Has(mutation.SkipUnlogged) {
		if d, ok := t.proposeSkip(); ok {
			return true, t.run(&d)
		}
	}
	c, err := t.stepChoices()
	if c == nil || err != nil {
		return false, err
	}
	d, ok, err := c.Next(t)
	if !ok || err != nil {
		return false, err
	}
	t.steps++
	t.progress.Store(t.steps)
	return true, t.run(&d)
}

// stepChoices is choices, except that a task with nothing to choose yet is not an orphan: it is asked again.
func (t *Task) stepChoices() (causal.Choices, error) {
	c, err := t.choices()
	if errors.Is(err, ErrOrphan) {
		if _, ok, perr := t.Propose(); perr != nil || !ok {
			return nil, perr
		}
	}
	return c, err
}

// run carries out the step that header d began.
func (t *Task) run(d *determinant.Determinant) error {
	t.step = step{kind: d.Kind, active: true}
	switch d.Kind {
	case determinant.KindInput:
		if int(d.Channel) >= len(t.in) || d.N == 0 {
			return t.diverged("input channel %d, %d elements", d.Channel, d.N)
		}
		t.step.input, t.step.left = int(d.Channel), d.N
		_, err := t.resume()
		return err
	case determinant.KindSource:
		if t.source == nil {
			return t.diverged("a Source step in a task without source")
		}
		if err := t.source.Begin(d.Split, int(d.N), d.Offset); err != nil {
			return err
		}
		t.step.left = d.N
		_, err := t.resume()
		return err
	case determinant.KindTimers:
		t.lastTime, t.step.now, t.step.hasNow = d.Time, d.Time, true
		if err := t.chain.ProcessingTime(d.Time); err != nil {
			return t.userFailure(err)
		}
	case determinant.KindAsync:
		if err := t.completeAsync(d); err != nil {
			return err
		}
	case determinant.KindSplit:
		if err := t.changeSplit(d); err != nil {
			return err
		}
	case determinant.KindCheckpoint, determinant.KindSkipCheckpoint:
		if t.source == nil {
			return t.endBySkip(d)
		}
		return t.sourceBarrier(d)
	default:
		return t.diverged("step header %s", d)
	}
	return t.endStep()
}

// resume processes elements of the step until it is complete, an element is missing, or an output is over its bound.
func (t *Task) resume() (progress bool, err error) {
	for n := uint64(0); t.step.left > 0; {
		limit := t.step.left
		if slice := uint64(t.cfg.Slice); slice > 0 {
			if n == slice {
				return true, nil
			}
			limit = min(limit, slice-n)
		}
		if t.sealed || n == 0 {
			t.sealed = false
			if t.overBound() {
				return progress, nil
			}
		}
		ran, err := t.next(limit)
		if err != nil {
			return false, err
		}
		if ran == 0 {
			return progress, nil
		}
		progress = true
		n += ran
	}
	if !t.step.active {
		return true, nil
	}
	return true, t.endStep()
}

// next processes the step's next elements or records, limit of them at most, until an output has sealed a batch. It returns how many
// it did; 0 means that the next one has not come yet.
func (t *Task) next(limit uint64) (uint64, error) {
	if t.step.kind == determinant.KindInput {
		return t.takeInput(t.in[t.step.input], limit)
	}
	if !t.step.aside && len(t.cfg.SkipAt) == 0 && (t.replayer == nil || t.replayer.StepOver()) {
		return t.emit(limit)
	}
	split, offset := t.source.Position()
	p := Position{Channel: split, Seq: determinant.Seq(offset)}
	var err error
	if !t.step.aside { // otherwise it was set aside when its reader was not ready
		if t.step.aside, err = t.setAside(p, nil); err != nil {
			return 0, err
		}
	}
	if !t.step.aside {
		return t.emit(1)
	}
	err = t.source.Discard()
	if errors.Is(err, operator.ErrNotReady) {
		return 0, nil
	}
	t.step.aside = false
	if err != nil {
		return 0, err
	}
	t.passed(1)
	return 1, nil
}

// emit runs records of the source through the chain, limit of them at most. One that fails and is set aside counts.
func (t *Task) emit(limit uint64) (uint64, error) {
	n, err := t.source.Emit(int(min(limit, math.MaxInt)), t.through)
	ran := uint64(n)
	if err != nil && !errors.Is(err, operator.ErrNotReady) {
		split, offset := t.source.Position()
		if err = t.recordFailed(Position{Channel: split, Seq: determinant.Seq(offset)}, nil, err); err == nil {
			err = t.source.Discard()
		}
		if err != nil {
			return 0, err
		}
		ran++
	}
	t.passed(ran)
	return ran, nil
}

// passed counts records of a source.
func (t *Task) passed(n uint64) {
	t.step.left -= n
	t.taken += n
	t.records.Store(t.taken)
}

// committed is called after each record of a source. It tells whether the next may follow at once.
func (t *Task) committed() bool {
	t.commit()
	return !t.sealed
}

// endStep lets the chain emit what it holds until a step's end. A step that ended an epoch has done so before its barrier.
func (t *Task) endStep() error {
	if !t.step.active {
		return nil
	}
	if err := t.chain.StepEnd(); err != nil {
		return t.userFailure(err)
	}
	t.finishEnd()
	t.commit()
	t.step.active = false
	if t.unsealed++; t.unsealed >= sealEvery {
		t.seal()
	}
	return nil
}

// Propose is what the task would do next if it is free to choose. It implements causal.Proposer.
func (t *Task) Propose() (determinant.Determinant, bool, error) {
	if d, ok := t.proposeBarrier(); ok {
		return d, true, nil
	}
	if t.chainTimerDue() {
		return determinant.Determinant{Kind: determinant.KindTimers, Time: t.clock()}, true, nil
	}
	if d, ok := t.async.propose(); ok {
		return d, true, nil
	}
	if t.source != nil {
		return t.proposeSource()
	}
	room := t.chain.Room()
	if room == 0 {
		return determinant.Determinant{}, false, nil
	}
	first := t.robin
	if t.cfg.Pick != nil {
		first = t.cfg.Pick(len(t.in))
	}
	for i := range t.in {
		c := (first + i) % len(t.in)
		n := t.in[c].ready(min(joined, uint64(t.cfg.MaxElements)))
		if n == 0 || t.in[c].blocked {
			continue
		}
		t.robin = c + 1
		if t.cfg.Mutations.Has(mutation.InputAcrossBarrier) {
			n = t.in[c].waiting()
		}
		n = min(n, uint64(t.cfg.MaxElements))
		if room > 0 {
			n = min(n, uint64(room))
		}
		return determinant.Determinant{Kind: determinant.KindInput, Channel: uint32(c), N: n}, true, nil
	}
	return determinant.Determinant{}, false, nil
}

func (t *Task) chainTimerDue() bool {
	at, ok := t.chain.NextTimer()
	return ok && at <= t.clock()
}

// clock is the processing time, which never goes back, also across incarnations on different machines.
func (t *Task) clock() int64 {
	if t.cfg.Mutations.Has(mutation.TimeGoesBack) {
		return t.cfg.Clock()
	}
	return max(t.cfg.Clock(), t.lastTime)
}

func (t *Task) proposeSource() (d determinant.Determinant, ok bool, err error) {
	if d, ok := t.nextSplit(); ok {
		return d, true, nil
	}
	if t.ending {
		return d, false, nil
	}
	if t.source.Open() == 0 {
		if !t.mayEnd() {
			return d, false, nil
		}
		return determinant.Determinant{Kind: determinant.KindSplit, Split: determinant.NoSplit, Removed: true}, true, nil
	}
	if b := t.cfg.Budget; b != nil && b.Exhausted() {
		return d, false, ErrExhausted
	}
	if t.cfg.Gated != nil && t.cfg.Gated() {
		return d, false, nil
	}
	limit := t.cfg.MaxElements
	if room := t.chain.Room(); room >= 0 {
		limit = min(limit, room)
	}
	if t.cfg.Allow != nil && limit > 0 {
		limit = t.cfg.Allow(limit)
		t.slowed = limit == 0
	}
	if limit == 0 {
		return d, false, nil
	}
	split, n, offset, done, err := t.source.Poll(limit)
	if err != nil {
		return d, false, fmt.Errorf("task: %s: %w", t, err)
	}
	if n > 0 {
		return determinant.Determinant{Kind: determinant.KindSource, Split: split, N: uint64(n), Offset: offset}, true, nil
	}
	return determinant.Determinant{Kind: determinant.KindSplit, Split: split, Removed: true}, done, nil
}

func (t *Task) changeSplit(d *determinant.Determinant) error {
	switch {
	case t.source == nil:
		return t.diverged("a Split step in a task without source")
	case !d.Removed:
		if err := t.addSplit(d); err != nil {
			return err
		}
	case d.Split != determinant.NoSplit:
		if err := t.source.Remove(d.Split); err != nil {
			return err
		}
	default:
		if err := t.beginEnd(); err != nil {
			return t.userFailure(err)
		}
	}
	if err := t.tellIdle(); err != nil {
		return t.userFailure(err)
	}
	return nil
}

// diverged is the error for a choice that was replayed last and does not fit.
func (t *Task) diverged(format string, args ...any) error {
	if t.replayer != nil {
		return t.replayer.Diverged(fmt.Sprintf(format, args...))
	}
	return &causal.Divergence{
		Task: t.cfg.ID, Vertex: t.String(), Epoch: t.epoch, Step: t.steps,
		Expected: "a step that the task can take", Got: fmt.Sprintf(format, args...),
	}
}

// boundary is the end of an epoch.
type boundary struct {
	epoch determinant.Epoch
	skip  bool
	mode  determinant.Mode // of the next epoch
	depth determinant.Depth
}

func (t *Task) sourceBarrier(d *determinant.Determinant) error {
	if d.Epoch != t.epoch {
		return t.diverged("barrier or skip %d in epoch %d", d.Epoch, t.epoch)
	}
	t.triggers.drop(d.Epoch)
	return t.endEpoch(boundary{epoch: d.Epoch, skip: d.Kind == determinant.KindSkipCheckpoint, mode: d.Mode, depth: d.Depth})
}

// endEpoch closes the step and the epoch: what the chain still holds goes out, the mark of the next epoch goes into the log,
// the state is frozen, and only then the barrier goes to the outputs.
func (t *Task) endEpoch(b boundary) error {
	if err := t.tellIdle(); err != nil {
		return t.userFailure(err)
	}
	if err := t.chain.StepEnd(); err != nil {
		return t.userFailure(err)
	}
	t.finishEnd()
	t.commit()
	t.step.active = false
	if err := t.markEpoch(&b); err != nil {
		return err
	}
	kind := inflightlog.Barrier
	if b.skip {
		kind = inflightlog.Skip
	}
	t.control(inflightlog.Element{Kind: kind, Epoch: b.epoch, Mode: b.mode, Depth: b.depth})
	t.commit()
	t.openEpoch(&b)
	if !b.skip {
		t.cfg.Host.Snapshot(t, t.snapshot(b.epoch))
	}
	return nil
}

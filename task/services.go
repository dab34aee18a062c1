package task

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Call is an external call.
type Call func(context.Context) ([]byte, error)

// Task names the task. Part of operator.Runtime, like all exported methods of this file but Trigger.
func (t *Task) Task() operator.TaskInfo { return t.cfg.Info }

// Output is the i-th outgoing edge.
func (t *Task) Output(i int) operator.Output { return t.outputs[i] }

// External is the channel to the sink, or nil.
func (t *Task) External() operator.Output {
	if t.ext == nil {
		return nil
	}
	return t.ext
}

// Now reads the clock once per step and records it only if it was read.
func (t *Task) Now() int64 {
	if !t.step.hasNow {
		d := t.choose(determinant.KindTime, t.makeTime)
		t.step.now, t.step.hasNow = d.Time, true
		t.lastTime = d.Time
	}
	return t.step.now
}

func (t *Task) chooseTime() determinant.Determinant {
	return determinant.Determinant{Kind: determinant.KindTime, Time: t.clock()}
}

// Rand is this epoch's generator, seeded by a determinant at its first use in the epoch.
func (t *Task) Rand() *rand.Rand {
	if t.rand == nil {
		d := t.choose(determinant.KindRandom, t.makeSeed)
		t.rand = rand.New(rand.NewPCG(d.Seed, uint64(t.epoch)))
	}
	return t.rand
}

func (t *Task) chooseSeed() determinant.Determinant {
	return determinant.Determinant{Kind: determinant.KindRandom, Seed: t.cfg.Entropy()}
}

// Call makes a synchronous external call, or answers it from the log.
func (t *Task) Call(hash uint64, do func(context.Context) ([]byte, error)) ([]byte, error) {
	d := t.choose(determinant.KindCall, func() determinant.Determinant {
		return t.answer(determinant.Determinant{Kind: determinant.KindCall, Hash: hash}, do)
	})
	if d.Hash != hash {
		panic(unwind{t.diverged("a call with request hash %016x where the log has %016x", hash, d.Hash)})
	}
	if d.Failed {
		return nil, errors.New(string(d.Bytes))
	}
	return d.Bytes, nil
}

// answer runs a call and puts its result, or its error, into d.
func (t *Task) answer(d determinant.Determinant, do Call) determinant.Determinant {
	result, err := do(t.cfg.Context)
	d.Bytes = result
	if err != nil {
		d.Failed, d.Bytes = true, []byte(err.Error())
	}
	return d
}

// choose makes or replays a choice inside the step. It leaves the step by a panic when that is impossible.
func (t *Task) choose(kind determinant.Kind, make func() determinant.Determinant) determinant.Determinant {
	c, err := t.choices()
	if err != nil {
		panic(unwind{err})
	}
	d, err := c.Choose(kind, make)
	if err != nil {
		panic(unwind{err})
	}
	return d
}

// async is the task's outstanding external calls, in order of issue.
type async struct {
	outstanding []*asyncCall
}

type asyncCall struct {
	hash   uint64
	do     Call
	result struct {
		sync.Mutex
		ready  bool
		bytes  []byte
		failed bool
	}
}

// Issue starts an external call, or notes it while the task replays.
func (t *Task) Issue(hash uint64, do func(context.Context) ([]byte, error)) {
	c := &asyncCall{hash: hash, do: do}
	t.async.outstanding = append(t.async.outstanding, c)
	if t.replayer == nil {
		c.start(t.cfg.Calls)
	}
}

// start makes the calls that the replayed log left without an answer.
func (a *async) start(calls Calls) {
	for _, c := range a.outstanding {
		c.start(calls)
	}
}

func (c *asyncCall) start(calls Calls) {
	calls.Start(c.do, func(result []byte, err error) {
		c.result.Lock()
		defer c.result.Unlock()
		c.result.ready, c.result.bytes = true, result
		if err != nil {
			c.result.failed, c.result.bytes = true, []byte(err.Error())
		}
	})
}

// propose offers the first outstanding call that has completed.
func (a *async) propose() (determinant.Determinant, bool) {
	for k, c := range a.outstanding {
		c.result.Lock()
		ready, bytes, failed := c.result.ready, c.result.bytes, c.result.failed
		c.result.Unlock()
		if ready {
			return determinant.Determinant{
				Kind: determinant.KindAsync, Pending: uint32(k), Hash: c.hash, Bytes: bytes, Failed: failed,
			}, true
		}
	}
	return determinant.Determinant{}, false
}

func (t *Task) completeAsync(d *determinant.Determinant) error {
	a := &t.async
	if int(d.Pending) >= len(a.outstanding) || a.outstanding[d.Pending].hash != d.Hash {
		return t.diverged("completion %d of a call with hash %016x", d.Pending, d.Hash)
	}
	a.outstanding = append(a.outstanding[:d.Pending], a.outstanding[d.Pending+1:]...)
	if err := t.chain.AsyncDone(int(d.Pending), d.Bytes, d.Failed); err != nil {
		return t.userFailure(err)
	}
	return nil
}

// triggers are the checkpoints that a source was told to begin or skip, in rising order of epoch.
type triggers struct {
	mu struct {
		sync.Mutex
		queue []checkpoint.Trigger
	}
}

// Trigger tells a source to end its epoch. Triggers of epochs that it has ended are ignored, repeats too. Any goroutine.
func (t *Task) Trigger(tr checkpoint.Trigger) {
	t.triggers.mu.Lock()
	defer t.triggers.mu.Unlock()
	for i, have := range t.triggers.mu.queue {
		if have.Epoch == tr.Epoch {
			t.triggers.mu.queue[i] = tr
			return
		}
	}
	t.triggers.mu.queue = append(t.triggers.mu.queue, tr)
}

// Abandoned tells the task that the checkpoint of epoch e will not be completed, so that it need not wait for the barriers that are
// missing. A source is told by a Trigger. Any goroutine.
//
// Invariant: the epochs up to e that the task has not ended are all abandoned: one that is completed, every task has ended.
func (t *Task) Abandoned(e determinant.Epoch) {
	for last := t.abandoned.Load(); uint64(e) > last && !t.abandoned.CompareAndSwap(last, uint64(e)); last = t.abandoned.Load() {
	}
}

// Completed tells the task that the checkpoint of epoch e is complete: no producer will start again from an earlier one. Any goroutine,
// but one at a time.
func (t *Task) Completed(e determinant.Epoch) { t.completed.Store(uint64(e)) }

func (t *Task) proposeBarrier() (d determinant.Determinant, ok bool) {
	if t.source == nil {
		return t.proposeSkip()
	}
	t.triggers.mu.Lock()
	defer t.triggers.mu.Unlock()
	for _, tr := range t.triggers.mu.queue {
		if tr.Epoch != t.epoch {
			continue
		}
		d = determinant.Determinant{Kind: determinant.KindCheckpoint, Epoch: tr.Epoch, Mode: tr.Mode, Depth: tr.Depth}
		if tr.Skip {
			d.Kind = determinant.KindSkipCheckpoint
		}
		return d, true
	}
	return d, false
}

// proposeSkip ends an epoch that was abandoned and whose barrier has come by some inputs only.
func (t *Task) proposeSkip() (d determinant.Determinant, ok bool) {
	if t.abandoned.Load() < uint64(t.epoch) {
		return d, false
	}
	in := t.anyBlocked()
	if in == nil || !t.mayMix(&in.border) {
		return d, false
	}
	return determinant.Determinant{Kind: determinant.KindSkipCheckpoint, Epoch: t.epoch, Mode: t.mode, Depth: t.depth}, true
}

// drop forgets the triggers up to epoch e.
func (tr *triggers) drop(e determinant.Epoch) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	kept := tr.mu.queue[:0]
	for _, q := range tr.mu.queue {
		if q.Epoch > e {
			kept = append(kept, q)
		}
	}
	tr.mu.queue = kept
}

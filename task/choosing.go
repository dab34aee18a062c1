package task

import (
	"fmt"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// choices is who makes the next choice. This is the one line where replay turns into recording.
func (t *Task) choices() (causal.Choices, error) {
	if t.replayer != nil && t.replayer.Done() {
		if err := t.takeOver(); err != nil {
			return nil, err
		}
	}
	if t.replayer != nil {
		return t.replayer, nil
	}
	return t.recorder, t.mayChoose()
}

func (t *Task) current() causal.Choices {
	if t.replayer != nil {
		return t.replayer
	}
	return t.recorder
}

// takeOver ends the replay: the log is used up, possibly in the middle of a step.
func (t *Task) takeOver() error {
	t.recorder, t.replayer = t.newRecorder(t.replayer), nil
	t.replays.Store(false)
	t.async.start(t.cfg.Calls)
	t.cfg.Host.Replayed(t)
	return nil
}

func (t *Task) newRecorder(r *causal.Replayer) causal.Choices {
	return r.Recorder(t.cfg.Log, causal.Options{Mutations: t.cfg.Mutations})
}

// mayChoose is the orphan rule: no new choice while a consumer is ahead, since it has seen the effects of another one.
func (t *Task) mayChoose() error {
	if t.mode.Logs() && t.Ahead() {
		return fmt.Errorf("%w: %s, epoch %d", ErrOrphan, t, t.epoch)
	}
	return nil
}

// logs tells whether the task logs its choices in an epoch of that mode.
func (t *Task) logs(m determinant.Mode) bool {
	return m.Logs() && !t.cfg.Mutations.Has(mutation.DeterminantsOff)
}

// markEpoch writes the mark of the epoch that begins, if it or the one that ends is logged, and changes who makes the choices
// if only one of them is. An epoch that is not logged adds nothing to the log: the next one that is goes on where the log
// ends, with delta coding restarted.
//
// Invariant: no replay goes on in an epoch that was not logged. A recovery is causal only if every epoch since the checkpoint
// is exactly-once, and none of another mode begins while a task recovers.
func (t *Task) markEpoch(b *boundary) error {
	was, is := t.logs(t.mode), t.logs(b.mode)
	if is && !was {
		t.recorder = causal.NewRecorder(t.cfg.Log, determinant.Encoder{}, causal.Options{Mutations: t.cfg.Mutations})
	}
	c, err := t.choices() // the replayed log may end between the header of this step and the mark
	if err != nil {
		return err
	}
	if err := c.Mark(b.epoch + 1); err != nil {
		return err
	}
	if is || !was {
		return nil
	}
	if t.replayer != nil {
		return t.assertion("it replays up to epoch %d, which is %v and has no log", b.epoch+1, b.mode)
	}
	t.recorder = &causal.Unlogged{At: t.recorder.Offset()}
	return nil
}

// openEpoch puts the epoch behind the boundary in force, right behind the barrier in every output. What the outputs keep
// belongs to an epoch too.
func (t *Task) openEpoch(b *boundary) {
	t.epoch, t.mode, t.depth, t.rand = b.epoch+1, b.mode, b.depth, nil
	t.sharing.Store(uint32(b.depth))
	for _, o := range t.outs {
		o.Retain(b.mode.Retains())
	}
}

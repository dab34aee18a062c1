package task

import (
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
)

// output is an outgoing edge as the chain sees it. It implements operator.Output.
type output struct {
	logs []*inflightlog.Log
	ext  bool
}

func (t *Task) openOutputs() {
	for _, edge := range t.cfg.Edges {
		o := &output{}
		for _, c := range edge {
			o.logs = append(o.logs, t.openLog(c))
		}
		t.outputs = append(t.outputs, o)
	}
	if t.cfg.External {
		t.ext = &output{logs: []*inflightlog.Log{t.openLog(t.cfg.ExternalID)}, ext: true}
	}
}

func (t *Task) openLog(c determinant.ChannelID) *inflightlog.Log {
	start := determinant.Cursor{Epoch: 1}
	if t.cfg.Meta.Epoch > 0 {
		start = t.cfg.Meta.Outputs[len(t.outs)]
	}
	o := inflightlog.Options{
		Channel: c, Budget: t.cfg.Budget, Retain: t.mode.Retains(), Mutations: t.cfg.Mutations,
		OnSeal: func(_ *inflightlog.Log, b *inflightlog.Batch) {
			t.sealed = true
			t.cfg.Host.Sealed(c, b)
		},
	}
	if probe := t.cfg.Probe; probe != nil {
		o.Tag = func(_ *inflightlog.Log, b *inflightlog.Batch) any { return probe.Tag(t, c, b) }
	}
	log := inflightlog.NewLog(start, o)
	t.outs = append(t.outs, log)
	return log
}

// Fanout is the number of channels.
func (o *output) Fanout() int { return len(o.logs) }

// Record appends a record to channel c.
func (o *output) Record(c int, ts int64, hasTime bool, payload []byte) {
	o.logs[c].Record(ts, hasTime, payload)
}

// Watermark appends a watermark to all channels. A causal sink is shown records only.
func (o *output) Watermark(wm int64) {
	o.control(inflightlog.Element{Kind: inflightlog.Watermark, Time: wm})
}

// Idle appends the change to all channels.
func (o *output) Idle(idle bool) {
	kind := inflightlog.Active
	if idle {
		kind = inflightlog.Idle
	}
	o.control(inflightlog.Element{Kind: kind})
}

func (o *output) control(e inflightlog.Element) {
	if o.ext {
		return
	}
	for _, l := range o.logs {
		l.Control(e)
	}
}

// control puts a control element on every channel of every edge, the external one too.
func (t *Task) control(e inflightlog.Element) {
	for _, l := range t.outs {
		l.Control(e)
	}
}

// commit says that what the present input element caused is complete.
func (t *Task) commit() {
	for _, l := range t.outs {
		l.Commit()
	}
}

// rewind drops what the present input element has put out, and what it has left in the chain.
func (t *Task) rewind() {
	t.chain.Rewind()
	for _, l := range t.outs {
		l.Rewind()
	}
}

// Soon tells whether a task that has nothing to do is to be stepped again soon, although nothing comes. Task's goroutine.
func (t *Task) Soon() bool { return t.slowed || t.pending() }

// pending tells whether something that was put out waits to be sealed.
func (t *Task) pending() bool {
	for _, l := range t.outs {
		if l.Pending() {
			return true
		}
	}
	return false
}

// sealUnlessHeld seals what is pending, unless the host has the task wait for more. One that replays is waited for.
func (t *Task) sealUnlessHeld() {
	if t.pending() && (t.replayer != nil || t.cfg.Hold == nil || !t.cfg.Hold()) {
		t.seal()
	}
}

// Flush seals what is pending: the host calls it when the task has been busy for long. Task's goroutine, between two calls of Step.
func (t *Task) Flush() {
	if !t.done && t.pending() {
		t.seal()
	}
}

// seal makes everything committed visible to the link writers.
func (t *Task) seal() {
	t.unsealed = 0
	for _, l := range t.outs {
		l.Seal()
	}
}

// Held tells whether the task waits for a live consumer to take its output. Any goroutine.
func (t *Task) Held() bool {
	if t.Replaying() {
		return false
	}
	for _, l := range t.outs {
		if l.Excess() > t.cfg.MaxUnsent {
			return true
		}
	}
	return false
}

// overBound tells whether some live consumer has too much waiting for it. It never holds a task that replays, or that repeats
// epochs which others have passed.
func (t *Task) overBound() bool {
	if t.replayer != nil || t.epoch <= t.cfg.Passed {
		return false
	}
	for _, l := range t.outs {
		if l.Excess() > t.cfg.MaxUnsent {
			return true
		}
	}
	return false
}

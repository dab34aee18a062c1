package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

// hosted is a task that runs on this worker, with what the worker keeps for it.
type hosted struct {
	w      *Worker
	task   *task.Task
	inc    determinant.Incarnation
	warm   int // bytes of its state, if that was held ready here
	in     []inbound
	starts []determinant.Seq // by output: where it began in this life
	dead   atomic.Bool       // evicted: it may finish the step under way, but nothing that it does counts

	stepping atomic.Bool   // a step is under way
	stepped  atomic.Uint64 // steps begun, to tell one that hangs from one after the other
	pace     sourcePace    // of a source; the task's goroutine only
	drift    drift         // likewise: it and others stay together
	watched  watchedStep   // under the worker's mu

	ended      bool        // its end was reported; the task's goroutine only
	recovering atomic.Bool // counts as failed until CaughtUp was reported
	silent     atomic.Bool // nothing new has left the task in this life, and it is not the first
	accused    bool        // a rollback was asked for in its name

	// What follows is guarded by the worker's mu.
	base   determinant.Epoch // committed checkpoint that frozen is relative to
	frozen []frozenEpoch
	acks   []*pendingAck
	sink   *sink
}

// watchedStep is the step that was under way when somebody last looked.
type watchedStep struct {
	step  uint64
	since int64 // milliseconds
}

// busy is how long the present step has been seen to take, in milliseconds. The worker's mu is held.
func (h *hosted) busy(now int64) int64 {
	if !h.stepping.Load() {
		h.watched = watchedStep{}
		return 0
	}
	if n := h.stepped.Load(); n != h.watched.step {
		h.watched = watchedStep{step: n, since: now}
	}
	return now - h.watched.since
}

// inbound is one input channel of a hosted task, as its worker sees it.
type inbound struct {
	channel  determinant.ChannelID
	number   uint64             // of the current subscription
	received determinant.Cursor // Invariant: received but not yet processed counts as received
	adopting bool               // the next frame restarts the numbering (at-least-once)
	adopted  uint64             // how many did; the task may not have got there yet
	taken    atomic.Uint64      // next element that the task will take
	untold   atomic.Int64       // bytes taken since the producer was told of it
	granted  determinant.Seq    // what the producer was told of taken
}

// frozenEpoch is what a task changed in one epoch, until a checkpoint that contains it is committed.
type frozenEpoch struct {
	epoch  determinant.Epoch
	tables []operator.Frozen
	anew   bool // they and what was frozen after them are the whole state
}

// pendingAck is an acknowledgement that waits for the image to be on disk and, for a sink, for everything before the
// barrier to be stored outside.
type pendingAck struct {
	ack     checkpoint.Ack
	image   []byte // as stored, for standbys that come into place before the checkpoint is committed
	stored  bool
	sent    bool
	barrier determinant.Seq
}

// Step runs the next step of a task, if it is still the one that runs here. It is called by one goroutine per task.
func (w *Worker) Step(t *task.Task) (progress bool) {
	h := w.tasks[t.ID()].Load()
	if h == nil || h.task != t || h.dead.Load() {
		return false
	}
	h.stepped.Add(1)
	h.stepping.Store(true)
	progress, err := h.task.Step()
	h.stepping.Store(false)
	h.drift.look(h.task)
	if h.dead.Load() {
		return false
	}
	if err != nil {
		w.failed(h, err)
		return false
	}
	if h.recovering.Load() && !h.task.Replaying() {
		w.checkCaughtUp(h)
	}
	if !h.ended && h.task.Ended() {
		h.ended = true
		w.report(Report{Ended: &Ended{Task: t.ID(), Incarnation: h.inc}})
	}
	return progress
}

// failed reports the end of a task by an error of its own.
func (w *Worker) failed(h *hosted, err error) {
	id := h.task.ID()
	if errors.Is(err, task.ErrOrphan) || errors.Is(err, task.ErrExhausted) {
		w.report(Report{Rollback: &standby.RollbackWanted{Task: id, Incarnation: h.inc, Cause: err.Error()}})
		return
	}
	w.mu.Lock()
	if w.tasks[id].Load() == h {
		w.evict(id)
	}
	w.mu.Unlock()
	w.report(Report{Failed: &TaskFailure{Task: id, Incarnation: h.inc, Worker: w.id, Err: err}})
}

// checkCaughtUp reports a recovery's end: the log has run out, every consumer has resubscribed and none is ahead.
func (w *Worker) checkCaughtUp(h *hosted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := h.task.ID()
	if h.dead.Load() || h.task.Ahead() {
		return
	}
	spec := &w.job.Tasks[id]
	for _, edge := range spec.Edges {
		for _, ch := range edge {
			s := &w.mu.subs[ch]
			if !s.attached || s.consumer != w.mu.view.Places[w.job.Channels[ch].To].Incarnation {
				return
			}
		}
	}
	h.recovering.Store(false)
	w.env.Observe(Observation{Task: id, Incarnation: h.inc, Phase: Recovered})
	w.report(Report{CaughtUp: &standby.CaughtUp{Task: id, Incarnation: h.inc}})
}

// evict drops a task. Its subscriptions end and its log is detached. w.mu is held.
func (w *Worker) evict(t determinant.TaskID) {
	h := w.tasks[t].Load()
	if h != nil {
		h.dead.Store(true)
		w.mu.fallen[t] = h.inc
		for ch := range w.mu.subs {
			// One that names a later incarnation has come before its decision, and waits.
			s := &w.mu.subs[ch]
			if w.job.Channels[ch].From == t && s.active && (s.producer <= h.inc || w.opts.Mutations.Has(mutation.EarlySubscriptionDropped)) {
				w.unsubscribe(determinant.ChannelID(ch))
			}
		}
		w.tasks[t].Store(nil)
		w.env.WakeTask(t)
	}
	w.detach(t)
}

// detach makes the log of a task that ran here, or was about to, one that nobody here appends to: a copy, since the dead
// task may still be in the middle of a step, or a stale start in the middle of loading. w.mu is held.
func (w *Worker) detach(t determinant.TaskID) {
	if !w.mu.logs.Log(t).Own() {
		return
	}
	own := w.mu.logs.Copy(t)
	log := w.mu.logs.Reset(t, own.Base)
	if err := log.Merge(own.Base, own.Bytes, true); err != nil {
		panic(fmt.Sprintf("cluster: assertion failed: a log cannot be merged into an empty one: %v", err))
	}
}

// suppressed is how many elements of output o the consumer has already, although the task makes them again.
func (h *hosted) suppressed(s *subscription, o int) uint64 {
	start := h.starts[o]
	if s.adopt || s.cursor.Next < start {
		return 0
	}
	return uint64(s.cursor.Next - start)
}

// Dead tells a driver whether the task that it steps was dropped.
func (w *Worker) Dead(t *task.Task) bool {
	h := w.tasks[t.ID()].Load()
	return h == nil || h.task != t
}

// Snapshot takes over a task's state at a barrier: the image is encoded and written in the background, shipped to the
// standbys, and then acknowledged. Part of task.Host.
func (h *hosted) Snapshot(t *task.Task, s task.Snapshot) {
	w := h.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.dead.Load() || w.mu.closed {
		return
	}
	if began := w.mu.startedAt; began > 0 && !h.recovering.Load() {
		waited := max(0, w.opts.Clock()-began)
		w.env.Observe(Observation{Task: t.ID(), Incarnation: h.inc, Phase: Aligned, Elements: uint64(waited)})
	}
	s.Meta.Base = h.base
	tables, full := h.changed(&s)
	p := &pendingAck{ack: checkpoint.Ack{
		Task: t.ID(), Incarnation: h.inc, Epoch: s.Meta.Epoch, Worker: w.id, Primary: true, Ended: s.Meta.Ended, Log: s.Meta.Log,
	}}
	if h.sink != nil {
		external := s.Meta.Outputs[len(s.Meta.Outputs)-1]
		p.ack.External, p.barrier = &external, external.Next
	}
	h.acks = append(h.acks, p)
	if w.opts.Mutations.Has(mutation.TruncateBeforeCommit) {
		for _, o := range t.Outputs() {
			o.Truncate(s.Meta.Epoch)
		}
	}
	w.env.DiskBeside(func() { w.store(h, p, s.Meta, full, tables) })
}

// changed takes what a task froze at a barrier, and gives what its image consists of: all that has changed since the checkpoint that it is
// relative to, or, if all of the state has been written since, that as a full image: it needs no other, and no other need be read or merged with it.
// Otherwise the image says since when it was.
//
// Invariant: what was frozen before is forgotten only for a full image. Another one has to say what was deleted since its base.
func (h *hosted) changed(s *task.Snapshot) (tables []checkpoint.Frozen, full bool) {
	since, all := s.Since, s.All
	switch m := h.w.opts.Mutations; {
	case m.Has(mutation.PartForWhole):
		since, all = s.Meta.Epoch-1, true
	case m.Has(mutation.SinceTooLate) && all:
		since = min(since+1, s.Meta.Epoch-1)
	}
	h.frozen = append(h.frozen, frozenEpoch{epoch: s.Meta.Epoch, tables: s.Frozen})
	if all && since >= h.base {
		h.frozen = slices.DeleteFunc(h.frozen, func(f frozenEpoch) bool { return f.epoch <= since })
		h.frozen[0].anew = true
	} else if all {
		s.Meta.Since = since
	}
	for _, f := range h.frozen {
		for _, table := range f.tables {
			tables = append(tables, table)
		}
	}
	return tables, h.frozen[0].anew
}

// store encodes an image, ships it to the standbys and writes the same bytes here: both wait for a disk at the same time.
func (w *Worker) store(h *hosted, p *pendingAck, meta checkpoint.Meta, full bool, tables []checkpoint.Frozen) {
	image, err := checkpoint.Encode(meta, full, tables)
	if err == nil && w.shipped(h, p, meta.Task, image) {
		err = w.opts.State.PutEncoded(image)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.dead.Load() || w.mu.closed || errors.Is(err, checkpoint.ErrStale) {
		return
	}
	if err != nil {
		w.report(Report{AckFailed: &checkpoint.Failed{
			Task: meta.Task, Incarnation: h.inc, Epoch: meta.Epoch, Worker: w.id, Err: err.Error(),
		}})
		return
	}
	p.stored, p.ack.Bytes = true, int64(len(image))
	w.sendAcks(h)
}

// shipped sends an image to the standbys of its task, unless that is not this worker's any more.
func (w *Worker) shipped(h *hosted, p *pendingAck, t determinant.TaskID, image []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.dead.Load() || w.mu.closed {
		return false
	}
	p.image = image
	w.ship(t, image)
	return true
}

// ship sends an image to the standbys of its task. w.mu is held.
func (w *Worker) ship(t determinant.TaskID, image []byte) {
	for _, s := range w.mu.view.Places[t].Standbys {
		w.env.Tell(s, Control{From: w.id, Image: w.imageOf(t, image)})
	}
}

// sendAcks reports every acknowledgement that has nothing left to wait for.
//
// Invariant: a sink acknowledges a checkpoint only when everything before its barrier is stored outside, or prepared, since
// nobody replays it to the sink after truncation.
func (w *Worker) sendAcks(h *hosted) {
	for _, p := range h.acks {
		if p.sent || !p.stored || h.sink != nil && h.sink.stored < p.barrier && !w.acknowledgesEarly(h) {
			continue
		}
		p.sent = true
		ack := p.ack
		if h.sink != nil && h.sink.held != nil {
			ack.Prepared = h.sink.held.named(ack.Epoch, w.acknowledgesEarly(h))
		}
		w.report(Report{Ack: &ack})
	}
}

// acknowledgesEarly tells whether a mutation has the task's sink acknowledge what is not outside.
func (w *Worker) acknowledgesEarly(h *hosted) bool {
	m := w.opts.Mutations
	return m.Has(mutation.SinkAcknowledgesEarly) || m.Has(mutation.AckBeforePrepare) && h.sink.held != nil
}

// Sealed wakes the writer of the link to the consumer. Part of task.Host.
func (h *hosted) Sealed(c determinant.ChannelID, _ *inflightlog.Batch) {
	if h.w.job.Channels[c].External {
		h.w.env.WakeSink(h.task.ID())
		return
	}
	if peer := h.w.consumer[c].Load(); peer != 0 {
		h.w.env.WakeLink(determinant.WorkerID(peer))
	}
}

// Taken notes what may be granted to the producer. Part of task.Host.
//
// Invariant: what the producer has to hear of is less than a CreditShare-th of the window, or on its way. So the producer, which
// counts with that, never waits for ever.
func (h *hosted) Taken(c determinant.ChannelID, next determinant.Seq, bytes int) {
	spec := &h.w.job.Channels[c]
	in := &h.in[spec.Input]
	in.taken.Store(uint64(next))
	if in.untold.Add(int64(bytes)) < int64(h.w.opts.Window/inflightlog.CreditShare) {
		return
	}
	if producer := h.w.places[spec.From].Load(); producer != 0 {
		h.w.env.WakeLink(determinant.WorkerID(producer))
	}
}

// sentSomething notes the first output of a new life that no former one had sent.
func (h *hosted) sentSomething() {
	if h.silent.Load() && !h.task.Replaying() && h.silent.CompareAndSwap(true, false) {
		h.w.env.Observe(Observation{Task: h.task.ID(), Incarnation: h.inc, Phase: FirstOutput})
	}
}

// Replayed is told that the log ran out. Part of task.Host.
func (h *hosted) Replayed(t *task.Task) {
	h.w.env.Observe(Observation{Task: t.ID(), Incarnation: h.inc, Phase: Replayed})
}

// SetAside stores a poisoned record. Part of task.Host.
func (h *hosted) SetAside(_ *task.Task, p task.Poison) error {
	if h.w.opts.DeadLetter == nil {
		return errors.New("cluster: the job has no dead-letter output")
	}
	return h.w.opts.DeadLetter(p)
}

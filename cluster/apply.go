package cluster

import (
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/standby"
)

// Apply takes the next entry that took effect in the ledger. Entries come in order, each whole between two network writes.
func (w *Worker) Apply(e Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed {
		return
	}
	w.mu.view.Index = e.Index
	switch {
	case e.Decision != nil:
		w.decided(e.Decision)
	case e.Assign != nil:
		w.assigned(e.Assign)
	case e.Release != nil:
		w.released(e.Release)
	case e.Recover != nil:
		p := &w.mu.view.Places[e.Recover.Task]
		p.Recovering, p.From = false, 0
	case e.Start != nil:
		w.mu.view.started(e.Start)
		w.mu.startedAt = w.opts.Clock()
		w.resendAcks(e.Start.Epoch) // a barrier may have come, by a link or by a replay, before the word that it was started
	case e.Complete != nil:
		w.completed(e.Complete)
	case e.Abandon != nil:
		w.abandoned(e.Abandon.Epoch)
	case e.Aside != nil:
		w.mu.view.setAside(*e.Aside)
	case e.Admit != nil:
		w.mu.view.admit(*e.Admit)
	case e.Grow != nil:
		w.grown(e.Grow)
	}
	w.noteLosses()
}

// Control handles a message from another worker or from the coordinator.
func (w *Worker) Control(m Control) {
	switch {
	case m.Answer != nil:
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.mu.closed {
			w.answered(m.Answer)
		}
	case m.Image != nil:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.imageCame(m)
	case m.Want != nil:
		w.env.Disk(func() { w.export(m.From, m.Want.Task) })
	case m.Trigger != nil:
		w.triggered(m.Trigger)
	case m.Poll != nil:
		w.repeatAcks(m.Poll.Epoch)
	}
}

// triggered hands a source the word that a checkpoint was started. It may have passed the entries before it: then it is dropped, since
// it comes again, and a source passes a barrier only when it knows the splits of the epoch behind it.
func (w *Worker) triggered(tr *checkpoint.Trigger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := tr.Epoch <= w.mu.view.newest() || w.opts.Mutations.Has(mutation.TriggerBeforeEntry)
	if h := w.tasks[tr.Task].Load(); known && h != nil && h.inc == tr.Incarnation {
		h.task.Trigger(*tr)
		w.env.WakeTask(tr.Task)
	}
}

// repeatAcks sends every acknowledgement of an epoch again, for a new leader of the coordinator.
func (w *Worker) repeatAcks(e determinant.Epoch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resendAcks(e)
}

// resendAcks repeats what the coordinator may not have counted: this worker's acknowledgements of epoch e, and the images of its
// tasks to their standbys, which acknowledge them again. w.mu is held.
func (w *Worker) resendAcks(e determinant.Epoch) {
	for t := range w.tasks {
		h := w.tasks[t].Load()
		if h == nil {
			continue
		}
		for _, p := range h.acks {
			if p.ack.Epoch != e || p.image == nil {
				continue
			}
			p.sent = false
			w.ship(determinant.TaskID(t), p.image)
		}
		w.sendAcks(h)
	}
}

// decided applies one decision: it fences, drops what is superseded, answers for the dead, and starts or collects what it
// was given. This is one fence: nothing else happens at this worker in between.
func (w *Worker) decided(d *standby.Decision) {
	v := &w.mu.view
	skip := w.opts.Mutations.Has(mutation.FenceMissingAtWorker)
	before := slices.Clone(v.Places)
	rolledBack := d.Generation > v.Generation
	changed := v.place(d)
	for t, p := range v.Places {
		w.places[t].Store(uint64(p.Worker))
	}
	if rolledBack {
		w.rollBack()
	}
	for _, t := range changed {
		if !skip {
			w.evict(t)
		}
	}
	w.fenceSubscriptions()
	for peer := range w.mu.conns { //lint:sorted each is dropped by itself
		if v.dead(peer) {
			delete(w.mu.conns, peer)
		}
		if c := w.mu.conns[peer]; c != nil {
			c.stale = true
		}
	}
	w.answerAll(d)
	w.readStores(d)
	w.takePlaces(d)
	w.resubscribe(before, d.Collect)
	if rolledBack {
		w.reached()
	}
}

// reached takes what came here before this worker had reached its generation.
func (w *Worker) reached() {
	v := &w.mu.view
	early, images := w.mu.early, w.mu.images
	w.mu.early, w.mu.images = nil, nil
	for _, m := range early {
		switch {
		case m.Generation > v.Generation:
			w.mu.early = append(w.mu.early, m)
		case !v.dead(m.From):
			w.receive(m)
		}
	}
	for _, m := range images {
		w.imageCame(m)
	}
}

// rollBack drops everything above the checkpoint: tasks, logs, links, promotions, images.
func (w *Worker) rollBack() {
	for t := range w.tasks {
		w.evict(determinant.TaskID(t))
		w.mu.promos[t] = nil
	}
	for t, offset := range w.mu.view.Cut.Logs {
		w.mu.logs.Reset(determinant.TaskID(t), offset)
	}
	for ch := range w.mu.subs {
		w.mu.subs[ch] = subscription{}
		w.consumer[ch].Store(0)
	}
	clear(w.mu.conns)
	w.mu.postpone, w.mu.waiting = nil, nil
	epoch := w.mu.view.committed()
	w.env.Disk(func() {
		if err := w.opts.State.DropAbove(epoch); err != nil {
			w.diskFailed(err)
		}
	})
}

// unfenced tells whether a mutation lets this worker listen to the dead.
func (w *Worker) unfenced() bool {
	return w.opts.Mutations.Has(mutation.FenceMissingAtReceiver | mutation.FenceMissingAtWorker)
}

// fenceSubscriptions ends the subscriptions of dead incarnations, so that no reader pins batches for ever.
func (w *Worker) fenceSubscriptions() {
	if w.unfenced() {
		return
	}
	v := &w.mu.view
	for ch := range w.mu.subs {
		s, spec := &w.mu.subs[ch], &w.job.Channels[ch]
		if !s.active {
			continue
		}
		if s.producer < v.Places[spec.From].Incarnation || !spec.External && s.consumer < v.Places[spec.To].Incarnation || v.dead(s.worker) {
			w.unsubscribe(determinant.ChannelID(ch))
		}
	}
}

// answerAll sends to each worker at which tasks recover this worker's copies of their logs and of every log that they may depend on.
func (w *Worker) answerAll(d *standby.Decision) {
	if _, heard := slices.BinarySearch(d.Hear, w.id); !heard || !d.Collect {
		return
	}
	for _, host := range recoverers(d) {
		w.env.Tell(host, Control{From: w.id, Answer: answerFor(host, w.mu.logs, w.job, d, standby.FromWorker(w.id))})
	}
}

// takePlaces starts, or begins to collect for, every task that the decision gives to this worker.
func (w *Worker) takePlaces(d *standby.Decision) {
	for _, p := range d.Tasks {
		if p.Worker != w.id {
			w.mu.promos[p.Task] = nil
			continue
		}
		if p.Incarnation <= w.mu.fallen[p.Task] && !w.opts.Mutations.Has(mutation.FallenStartAgain) {
			continue // it has died here, and the decision about that is still to come
		}
		if h := w.tasks[p.Task].Load(); h != nil && h.inc == p.Incarnation {
			continue
		}
		if pr := w.mu.promos[p.Task]; pr != nil && pr.inc == p.Incarnation && pr.started {
			continue
		}
		w.promote(d, p)
	}
	answers := w.mu.answers
	w.mu.answers = nil
	for _, a := range answers {
		w.answered(a)
	}
}

// resubscribe renews the subscriptions of tasks that run here to every producer that has a new incarnation or place. A new
// life that does not repeat the choices of the former one numbers its output anew, and its consumers adopt that, whatever
// mode they are in themselves: what counts is how the producer recovers.
func (w *Worker) resubscribe(before []standby.Placement, causal bool) {
	for t := range w.tasks {
		h := w.tasks[t].Load()
		if h == nil {
			continue
		}
		for i := range h.in {
			src := w.job.Channels[h.in[i].channel].From
			now, was := w.mu.view.Places[src], before[src]
			if now.Incarnation != was.Incarnation || now.Worker != was.Worker {
				w.subscribe(h, i, now.Incarnation != was.Incarnation && !causal)
			}
		}
	}
}

// completed takes a committed checkpoint: only now is anything truncated.
func (w *Worker) completed(c *checkpoint.Complete) {
	w.mu.view.completed(c)
	w.committed.Store(uint64(c.Epoch))
	w.mu.logs.Truncate(w.mu.view.offsets())
	for t := range w.tasks {
		h := w.tasks[t].Load()
		if h == nil {
			continue
		}
		if h.base < c.Epoch {
			h.base = c.Epoch
		}
		h.frozen = slices.DeleteFunc(h.frozen, func(f frozenEpoch) bool { return f.epoch <= c.Epoch })
		h.acks = slices.DeleteFunc(h.acks, func(p *pendingAck) bool { return p.ack.Epoch <= c.Epoch })
		for _, o := range h.task.Outputs() {
			o.Truncate(c.Epoch)
		}
		h.task.Completed(c.Epoch)
		w.env.WakeTask(determinant.TaskID(t))
		if h.sink != nil {
			w.checkpointed(h, c.Epoch)
		}
	}
	w.env.Disk(func() { w.fold(c) })
}

// livesOf names whose images a completed checkpoint consists of.
func livesOf(c *checkpoint.Complete) []checkpoint.Life {
	lives := make([]checkpoint.Life, 0, len(c.Tasks))
	for _, t := range c.Tasks {
		lives = append(lives, checkpoint.Life{Task: t.Task, Incarnation: t.Incarnation})
	}
	return lives
}

// abandoned forgets the acknowledgements of a checkpoint that will not be completed, and lets tasks wait no longer for its barrier. What
// was frozen for it goes with the next one.
func (w *Worker) abandoned(e determinant.Epoch) {
	w.mu.abandoned = e
	for t := range w.tasks {
		if h := w.tasks[t].Load(); h != nil {
			h.acks = slices.DeleteFunc(h.acks, func(p *pendingAck) bool { return p.ack.Epoch == e })
			h.task.Abandoned(e)
			w.env.WakeTask(determinant.TaskID(t))
		}
	}
}

// diskFailed reports that the worker's state directory does not take what it must.
func (w *Worker) diskFailed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed {
		return
	}
	for t := range w.tasks {
		if h := w.tasks[t].Load(); h != nil {
			w.report(Report{Failed: &TaskFailure{Task: determinant.TaskID(t), Incarnation: h.inc, Worker: w.id, Err: err}})
		}
	}
}

package cluster

import (
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/transport"
)

// Write makes the next message to peer; nil if there is nothing to say. The frames are fixed first; then the delta of the
// determinants that they may depend on is captured, logs of downstream tasks before those upstream. The delta is written over
// what buf holds, if it fits: the Delta of a former message that nobody needs any more, or nil.
//
// Invariant: no frame goes out on a link before the peer has said what it holds.
func (w *Worker) Write(peer determinant.WorkerID, buf []byte) *transport.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed {
		return nil
	}
	c := w.conn(peer)
	if c == nil {
		return nil
	}
	m := &transport.Message{From: w.id, Generation: w.mu.view.Generation}
	m.Subscriptions, c.subs = c.subs, nil
	m.Credits = w.credits(peer, c)
	if c.ready {
		m.Frames = w.frames(peer)
	}
	if len(m.Frames) > 0 && peer != w.id && !w.opts.Mutations.Has(mutation.NoDelta) {
		m.Delta = w.delta(c, peer, buf[:0])
	}
	if c.report || len(m.Credits) > 0 && peer != w.id {
		m.Have, c.report = w.mu.logs.Ends(), false
	}
	if len(m.Subscriptions)+len(m.Credits)+len(m.Frames) == 0 && m.Have == nil {
		return nil
	}
	return m
}

func (w *Worker) delta(c *conn, peer determinant.WorkerID, dst []byte) []byte {
	if depth := w.sharing(); c.stale || depth != c.depth {
		consumers := make([]bool, len(w.job.Tasks))
		for ch := range w.mu.subs {
			if s := &w.mu.subs[ch]; s.active && s.worker == peer {
				consumers[w.job.Channels[ch].To] = true
			}
		}
		c.order, c.depth, c.stale = w.job.relevant(consumers, depth), depth, false
		if w.opts.Mutations.Has(mutation.DeltaUpstreamFirst) {
			for i, j := 0, len(c.order)-1; i < j; i, j = i+1, j-1 {
				c.order[i], c.order[j] = c.order[j], c.order[i]
			}
		}
	}
	return w.mu.logs.Delta(dst, c.order, c.cursor)
}

// frames takes the next batches of every channel that the peer has subscribed to, within bounds.
func (w *Worker) frames(peer determinant.WorkerID) []transport.Frame {
	var frames []transport.Frame
	bytes := 0
	for ch := range w.mu.subs {
		s := &w.mu.subs[ch]
		if !s.active || !s.attached || s.worker != peer {
			continue
		}
		h := w.tasks[w.job.Channels[ch].From].Load()
		log := h.task.Outputs()[w.job.Channels[ch].Output]
		for len(frames) < framesPerWrite && bytes < bytesPerWrite {
			b, err := log.Next(w.opts.Window)
			if err != nil {
				w.contradicted(h, determinant.ChannelID(ch), err)
				break
			}
			if b == nil {
				break
			}
			frames = append(frames, transport.Frame{
				Channel: determinant.ChannelID(ch), Number: s.number, Producer: s.producer, Consumer: s.consumer, Batch: b,
			})
			bytes += len(b.Payload)
			h.sentSomething()
			w.env.WakeTask(h.task.ID()) // it may have been waiting for room
		}
	}
	if len(frames) == framesPerWrite || bytes >= bytesPerWrite {
		w.env.WakeLink(peer)
	}
	return frames
}

// contradicted handles a consumer whose cursor does not fit what its producer made: determinants were lost, or user code is
// not deterministic.
func (w *Worker) contradicted(h *hosted, ch determinant.ChannelID, err error) {
	if h.accused {
		return
	}
	h.accused = true
	w.report(Report{Rollback: &standby.RollbackWanted{
		Task: h.task.ID(), Incarnation: h.inc, Cause: fmt.Sprintf("channel %d: %v", ch, err),
	}})
}

// credits lists the channels from the peer of which something was taken since the last message. They go with whatever is said; on their
// own they are worth a message only when much was taken (hosted.Taken).
func (w *Worker) credits(peer determinant.WorkerID, c *conn) []transport.Credit {
	var credits []transport.Credit
	for t := range w.tasks {
		h := w.tasks[t].Load()
		if h == nil {
			continue
		}
		for i := range h.in {
			in := &h.in[i]
			if w.mu.view.Places[w.job.Channels[in.channel].From].Worker != peer {
				continue
			}
			if in.adopted != h.task.Adopted(i) {
				continue // what was taken last is numbered by the producer's former life
			}
			in.untold.Store(0) // before taken is read: what is added to it from now on may be told twice, and never not at all
			if taken := determinant.Seq(in.taken.Load()); taken > in.granted {
				in.granted = taken
				credits = append(credits, transport.Credit{Channel: in.channel, Number: in.number, Consumer: h.inc, Taken: taken})
			}
		}
	}
	return credits
}

// keptDelta is how big a buffer for deltas is kept: one after an outage may be megabytes.
const keptDelta = 1 << 20

// reusable returns the memory of a delta that nobody needs any more, unless it is big.
func reusable(delta []byte) []byte {
	if cap(delta) > keptDelta {
		return nil
	}
	return delta
}

// Receive handles a message. The delta is merged, whole, before any element of the frames can be chosen. Its bytes may be
// written over afterwards.
func (w *Worker) Receive(m *transport.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed {
		return
	}
	if w.mu.view.dead(m.From) && !w.unfenced() {
		w.refused.messages.Add(1)
		return
	}
	if m.Generation > w.mu.view.Generation {
		if len(w.mu.early) < maxEarly {
			late := *m
			late.Delta = slices.Clone(m.Delta)
			w.mu.early = append(w.mu.early, &late)
		}
		return
	}
	w.receive(m)
}

func (w *Worker) receive(m *transport.Message) {
	if m.Generation < w.mu.view.Generation && !w.opts.Mutations.Has(mutation.GenerationUnchecked) {
		w.refused.messages.Add(1)
		return
	}
	if m.Have != nil {
		w.heard(m)
	}
	for _, s := range m.Subscriptions {
		w.subscribed(m.From, s)
	}
	for _, c := range m.Credits {
		s := &w.mu.subs[c.Channel]
		if s.active && s.attached && s.consumer == c.Consumer && s.number == c.Number {
			w.logOf(c.Channel).Grant(c.Taken)
			w.env.WakeLink(m.From)
		}
	}
	if len(m.Delta) > 0 && !w.merge(m) {
		return
	}
	for i := range m.Frames {
		w.frame(&m.Frames[i])
	}
}

func (w *Worker) merge(m *transport.Message) bool {
	if w.opts.Mutations.Has(mutation.DeltaMergedLate) {
		w.mu.postpone = append(w.mu.postpone, slices.Clone(m.Delta))
		return true
	}
	if err := w.mu.logs.Merge(m.Delta); err != nil {
		w.report(Report{Rollback: w.ownComplaint(fmt.Sprintf("delta of worker %d: %v", m.From, err))})
		return false
	}
	return true
}

// MergePostponed merges what the mutation DeltaMergedLate held back.
func (w *Worker) MergePostponed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.mu.postpone {
		if err := w.mu.logs.Merge(d); err != nil {
			continue
		}
	}
	w.mu.postpone = nil
}

// ownComplaint asks for a rollback in the name of any task that runs here.
func (w *Worker) ownComplaint(cause string) *standby.RollbackWanted {
	for t := range w.tasks {
		if h := w.tasks[t].Load(); h != nil {
			return &standby.RollbackWanted{Task: determinant.TaskID(t), Incarnation: h.inc, Cause: cause}
		}
	}
	return &standby.RollbackWanted{Cause: cause}
}

// heard takes a peer's word for what it holds. On a new link the cursors restart there; later it only spares bytes.
func (w *Worker) heard(m *transport.Message) {
	c := w.conn(m.From)
	if c == nil || len(m.Have) != len(w.job.Tasks) {
		return
	}
	if c.cursor == nil || !c.ready {
		c.cursor = append([]determinant.LogOffset(nil), m.Have...)
		c.ready = true
		w.env.WakeLink(m.From)
		return
	}
	for t, have := range m.Have {
		c.cursor[t] = max(c.cursor[t], have)
	}
}

func (w *Worker) logOf(ch determinant.ChannelID) *inflightlog.Log {
	spec := &w.job.Channels[ch]
	return w.tasks[spec.From].Load().task.Outputs()[spec.Output]
}

// subscribed handles a consumer's subscription. It may come before the decision that it belongs to: then it waits for the
// producer to be started here.
func (w *Worker) subscribed(from determinant.WorkerID, m transport.Subscription) {
	spec := &w.job.Channels[m.Channel]
	v := &w.mu.view
	if spec.External { // no worker consumes it
		return
	}
	if m.Consumer < v.Places[spec.To].Incarnation || m.Producer < v.Places[spec.From].Incarnation {
		return
	}
	s := &w.mu.subs[m.Channel]
	if s.active && (s.consumer > m.Consumer || s.producer > m.Producer) {
		return
	}
	if s.active {
		w.unsubscribe(m.Channel)
	}
	*s = subscription{
		active: true, worker: from, number: m.Number, producer: m.Producer, consumer: m.Consumer, cursor: m.Cursor, adopt: m.Adopt,
	}
	w.consumer[m.Channel].Store(uint64(from))
	if c := w.conn(from); c != nil {
		c.stale = true
	}
	w.attach(m.Channel)
}

// attach connects a subscription with the producing task's log, once both are there.
func (w *Worker) attach(ch determinant.ChannelID) {
	s := &w.mu.subs[ch]
	h := w.tasks[w.job.Channels[ch].From].Load()
	if !s.active || s.attached || h == nil || h.inc != s.producer {
		return
	}
	log := w.logOf(ch)
	if s.adopt {
		log.Adopt()
	} else if err := log.Subscribe(s.cursor); err != nil {
		w.contradicted(h, ch, err)
		return
	}
	s.attached = true
	if h.recovering.Load() {
		w.env.Observe(Observation{Task: h.task.ID(), Incarnation: h.inc, Phase: Suppressed, Elements: h.suppressed(s, w.job.Channels[ch].Output)})
	}
	w.env.WakeLink(s.worker)
	w.env.WakeTask(h.task.ID())
}

// unsubscribe ends a subscription. w.mu is held.
func (w *Worker) unsubscribe(ch determinant.ChannelID) {
	s := &w.mu.subs[ch]
	if s.attached {
		if h := w.tasks[w.job.Channels[ch].From].Load(); h != nil {
			w.logOf(ch).Unsubscribe()
			w.env.WakeTask(h.task.ID())
		}
	}
	if c := w.mu.conns[s.worker]; c != nil {
		c.stale = true
	}
	*s = subscription{}
	w.consumer[ch].Store(0)
}

// frame hands a batch to its consumer if it is what the consumer expects next.
func (w *Worker) frame(f *transport.Frame) {
	spec := &w.job.Channels[f.Channel]
	h := w.tasks[spec.To].Load()
	if h == nil || spec.External { // that has no consumer here: To means nothing
		return
	}
	in := &h.in[spec.Input]
	fenced := f.Consumer != h.inc || f.Producer < w.mu.view.Places[spec.From].Incarnation || f.Number != in.number
	if fenced && !w.unfenced() {
		w.refused.frames.Add(1)
		return
	}
	renumber := in.adopting
	if renumber {
		in.received, in.adopting = f.Batch.Start, false
	}
	if err := f.Batch.Check(f.Channel, in.received); err != nil {
		if w.opts.Mutations.Has(mutation.CursorUnchecked) || w.unfenced() {
			renumber = true
		} else {
			w.report(Report{Rollback: &standby.RollbackWanted{Task: spec.To, Incarnation: h.inc, Cause: err.Error()}})
			return
		}
	}
	in.received = f.Batch.End
	if renumber {
		in.granted = f.Batch.First
		in.adopted++
	}
	h.task.Deliver(spec.Input, f.Batch, renumber)
	w.env.WakeTask(spec.To)
}

// subscribe asks for input i of a task from where it stands. adopt: the producer has a new life, which does not number its
// output as the former one did.
func (w *Worker) subscribe(h *hosted, i int, adopt bool) {
	in := &h.in[i]
	p := w.mu.view.Places[w.job.Channels[in.channel].From]
	in.number++
	in.adopting = in.adopting || adopt
	c := w.conn(p.Worker)
	if p.Worker == 0 || c == nil {
		return // waits; the decision that places the producer subscribes again
	}
	s := transport.Subscription{
		Channel: in.channel, Number: in.number, Producer: p.Incarnation, Consumer: h.inc, Cursor: in.received, Adopt: in.adopting,
	}
	if w.opts.Mutations.Has(mutation.CursorUnchecked) {
		s.Cursor.Next = determinant.Seq(in.taken.Load())
	}
	c.subs = append(c.subs, s)
	c.report = true
	w.env.WakeLink(p.Worker)
}

var errClosed = errors.New("cluster: worker is closed")

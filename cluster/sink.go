package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/causal"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/inflightlog"
	"github.com/understudy-stream/understudy/operator"
)

// sink is the writing end of a task's external output. A causal store is one more neighbour, which holds determinants like a
// peer; a transactional one holds the output back.
type sink struct {
	store   operator.CausalStore // nil: held is there
	held    *heldOutput          // nil: store is there
	log     *inflightlog.Log
	order   []determinant.TaskID    // logs that the store keeps, downstream first
	depth   determinant.Depth       // within so many hops
	cursor  []determinant.LogOffset // by task; what the store holds of each log
	stored  determinant.Seq         // everything below is visible outside, or held back and prepared as far as epochs have ended
	shown   uint64                  // records visible outside since the job's start
	delta   []byte                  // memory for the determinants of the next write
	records [][]byte                // and for its records
	writing bool
	failed  bool
}

// takeUpOutput opens the external end of a task and takes up the output there. h is not running yet.
func (w *Worker) takeUpOutput(h *hosted, v *View, repeats bool) (*sink, error) {
	if w.job.Tasks[h.task.ID()].Transactional {
		return w.openHeld(h, v)
	}
	return w.openSink(h, v, repeats)
}

// openSink fences the store for this incarnation and takes up where its output ends, or, for a life that repeats what former
// ones may have shown, where its own output begins. h is not running yet.
func (w *Worker) openSink(h *hosted, v *View, repeats bool) (*sink, error) {
	t := h.task.ID()
	outs := h.task.Outputs()
	s := &sink{log: outs[len(outs)-1], cursor: make([]determinant.LogOffset, len(v.Places))}
	fence := v.fence(t)
	if repeats {
		start := s.log.End()
		fence.Restart = &start
	}
	stored, err := w.fenceStore(t, fence)
	if err != nil {
		return nil, err
	}
	if s.store, err = w.causalStore(t); err != nil {
		return nil, err
	}
	for _, delta := range stored.Deltas {
		err := causal.DecodeDelta(delta, func(t determinant.TaskID, from determinant.LogOffset, _ bool, p []byte) error {
			s.cursor[t] = max(s.cursor[t], from+determinant.LogOffset(len(p)))
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("cluster: store of sink task %d: %w", t, err)
		}
	}
	if stored.Cursor == (determinant.Cursor{}) {
		stored.Cursor = inflightlog.Origin // nothing is stored yet
	}
	if err := s.log.Subscribe(stored.Cursor); err != nil {
		return nil, fmt.Errorf("%w: %w", operator.ErrContradiction, err)
	}
	s.stored, s.shown = stored.Cursor.Next, recordsBelow(stored.Cursor)
	if start := s.log.End().Next; h.recovering.Load() && s.stored > start {
		w.env.Observe(Observation{Task: t, Incarnation: h.inc, Phase: Suppressed, Elements: uint64(s.stored - start)})
	}
	return s, nil
}

// recordsBelow counts the records of an external channel. Its other elements are the barrier or skip that ends each epoch.
func recordsBelow(c determinant.Cursor) uint64 {
	return uint64(c.Next) - min(uint64(c.Next), uint64(c.Epoch)-1)
}

// WriteSink writes what the sink task t has sealed to its store: the determinants that it depends on first. What a transactional
// store gets is prepared where an epoch ends. It returns false if there was nothing to write or another call is writing.
//
// Invariant: no output is visible beyond its stored determinants.
func (w *Worker) WriteSink(ctx context.Context, t determinant.TaskID) (bool, error) {
	h, write, err := w.takeOutput(t)
	if h == nil || err != nil {
		return false, err
	}
	var ended *preparedEpoch
	if held := h.sink.held; held != nil {
		ended, err = held.write(ctx, h.inc, &write)
	} else if err = h.sink.store.Write(ctx, h.inc, write); err == nil {
		w.env.Observe(Observation{Task: t, Incarnation: h.inc, Phase: Written, Elements: uint64(len(write.Records))})
	}
	if err == nil {
		h.sentSomething()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	h.sink.writing, h.sink.records = false, write.Records[:0]
	clear(write.Records) // lets go of the batches
	w.countFenced(err)
	if h.dead.Load() || w.mu.closed || errors.Is(err, operator.ErrFenced) {
		return false, nil
	}
	if err != nil {
		h.sink.failed = true
		w.report(Report{Failed: &TaskFailure{Task: t, Incarnation: h.inc, Worker: w.id, Err: err}})
		return false, fmt.Errorf("cluster: store of sink task %d: %w", t, err)
	}
	h.sink.stored = write.End.Next
	if h.sink.held == nil {
		h.sink.shown += uint64(len(write.Records))
	} else if ended != nil {
		h.sink.held.add(*ended)
	}
	h.sink.log.Grant(write.End.Next)
	w.sendAcks(h)
	w.env.WakeTask(t)
	return true, nil
}

// countFenced counts a write that a store has refused because another worker has taken over.
func (w *Worker) countFenced(err error) {
	if errors.Is(err, operator.ErrFenced) {
		w.refused.writes.Add(1)
	}
}

// takeOutput fixes what is written next, and then the determinants.
func (w *Worker) takeOutput(t determinant.TaskID) (*hosted, operator.StoreWrite, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var write operator.StoreWrite
	h := w.tasks[t].Load()
	if h == nil || h.sink == nil || h.sink.writing || h.sink.failed || w.mu.closed {
		return nil, write, nil
	}
	s, bytes := h.sink, 0
	write.Records = s.records
	if s.held != nil && s.held.behind() >= maxUncommitted {
		return nil, write, nil
	}
	for bytes < bytesPerStore {
		b, err := s.log.Next(-1)
		if err != nil {
			w.contradicted(h, w.job.Tasks[t].ExtID, err)
			return nil, write, nil
		}
		if b == nil {
			break
		}
		if write.End.Next == 0 && len(write.Records) == 0 && bytes == 0 {
			write.Start = b.Start
		}
		if write.Records, err = appendRecords(write.Records, b); err != nil {
			return nil, write, err
		}
		write.End = b.End
		bytes += len(b.Payload)
		if b.End.Epoch != b.Epoch {
			break // a write ends at an epoch's border: a rollback may cut there
		}
	}
	if bytes == 0 {
		return nil, write, nil
	}
	if s.held == nil {
		if depth := w.sharing(); depth != s.depth {
			s.order, s.depth = w.job.storeOrder(t, depth), depth
		}
		write.Delta = w.mu.logs.Delta(s.delta[:0], s.order, s.cursor)
		s.delta = reusable(write.Delta)
	}
	s.writing = true
	return h, write, nil
}

// appendRecords takes the records out of a batch; control elements stay inside.
func appendRecords(records [][]byte, b *inflightlog.Batch) ([][]byte, error) {
	var e inflightlog.Element
	for at := 0; at < len(b.Payload); {
		n, err := inflightlog.Decode(b.Payload[at:], &e)
		if err != nil {
			return nil, fmt.Errorf("cluster: output of a sink task: %w", err)
		}
		if e.Kind == inflightlog.Record {
			records = append(records, e.Payload)
		}
		at += n
	}
	return records, nil
}

// checkpointed lets a sink's store know of a committed checkpoint. w.mu is held.
func (w *Worker) checkpointed(h *hosted, e determinant.Epoch) {
	if h.sink.held != nil {
		w.commitHeld(h, e)
		return
	}
	w.truncateStore(h, e)
}

// truncateStore tells a causal store what a committed checkpoint covers. w.mu is held.
func (w *Worker) truncateStore(h *hosted, e determinant.Epoch) {
	offsets, store, t := w.mu.view.offsets(), h.sink.store, h.task.ID()
	w.env.Background(func() {
		if err := store.Truncate(context.Background(), e, offsets); err != nil && !h.dead.Load() {
			w.report(Report{Failed: &TaskFailure{Task: t, Incarnation: h.inc, Worker: w.id, Err: err}})
		}
	})
}

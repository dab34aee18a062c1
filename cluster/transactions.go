package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// maxUncommitted is how many transactions of completed checkpoints may wait for their commit before no more output is taken.
const maxUncommitted = 4

// heldOutput is the output of one life of a transactional sink's task. Its fields, but for store, are guarded by the worker's mu.
//
// Nothing outside depends on what the life has written since the last completed checkpoint: a successor begins at the checkpoint,
// has that output dropped, and writes its own. So no determinants are stored with it, and to everybody else the task is one whose
// output goes nowhere (standby.Topology.Open).
//
// Invariants:
//   - a life writes only when all that the last completed checkpoint names is committed and all else that was prepared is
//     aborted (openHeld);
//   - a task acknowledges a checkpoint only with the transactions of all epochs up to it that are not known to be committed,
//     its own included, each prepared (named);
//   - a transaction is committed only when a checkpoint that covers it is completed, in the order of epochs (commitHeld);
//   - the job is over only when all are committed (Coordinator.end).
type heldOutput struct {
	store      operator.TransactionalStore
	mutations  mutation.Set
	written    uint64            // records since the last Prepare; the writing goroutine's only
	prepared   []preparedEpoch   // Invariant: by rising epoch, without gap; none was committed
	next       determinant.Epoch // the next to be prepared
	due        determinant.Epoch // the last completed checkpoint
	committing bool
}

// preparedEpoch is the output of one epoch.
type preparedEpoch struct {
	operator.Transaction
	records uint64
}

// openHeld fences the store, settles what former lives have left there, and begins at the checkpoint. h is not running yet.
func (w *Worker) openHeld(h *hosted, v *View) (*sink, error) {
	t, outs, ctx := h.task.ID(), h.task.Outputs(), context.Background()
	s := &sink{log: outs[len(outs)-1]}
	start := s.log.End()
	if start.Epoch != v.committed()+1 {
		panic(fmt.Sprintf("cluster: assertion failed: sink task %d begins at %v, the checkpoint is %d", t, start, v.committed()))
	}
	w.stores.Lock()
	store, err := openOnce(w, w.stores.held, t, w.opts.OpenTransactions)
	w.stores.Unlock()
	if err != nil {
		return nil, err
	}
	s.held = &heldOutput{store: store, mutations: w.opts.Mutations, next: start.Epoch, due: v.committed()}
	if err := s.held.settle(ctx, h.inc, v.prepared(t)); err != nil {
		return nil, fmt.Errorf("cluster: transactions of sink task %d: %w", t, err)
	}
	if err := s.log.Subscribe(start); err != nil {
		return nil, fmt.Errorf("%w: %w", operator.ErrContradiction, err)
	}
	s.stored, s.shown = start.Next, recordsBelow(start)
	if v.committed() > 0 {
		w.report(Report{Shown: &Shown{Task: t, Epoch: v.committed()}})
	}
	return s, nil
}

// settle raises the fence, commits what the checkpoint names, and aborts what else there is: the checkpoint does not know it, so a life
// that is dead wrote it for one that was never completed. A commit that was carried out before is repeated: only the store knows.
func (o *heldOutput) settle(ctx context.Context, inc determinant.Incarnation, named []operator.Transaction) error {
	listed, err := o.store.Fence(ctx, inc)
	if err != nil {
		return err
	}
	for _, t := range named {
		if o.mutations.Has(mutation.CommitNotRepeated) {
			break
		}
		if err := o.store.Commit(ctx, inc, t); err != nil {
			return fmt.Errorf("epoch %d: %w", t.Epoch, err)
		}
	}
	if o.mutations.Has(mutation.AbortLeftOut) {
		return nil
	}
	for _, t := range listed {
		if slices.ContainsFunc(named, func(n operator.Transaction) bool { return n.Handle == t.Handle }) {
			continue
		}
		if err := o.store.Abort(ctx, inc, t); err != nil {
			return fmt.Errorf("epoch %d: %w", t.Epoch, err)
		}
	}
	return nil
}

// prepared lists the transactions of sink task t that the last completed checkpoint makes visible.
func (v *View) prepared(t determinant.TaskID) []operator.Transaction {
	if v.Complete == nil {
		return nil
	}
	var all []operator.Transaction
	for _, p := range v.Complete.Tasks[t].Prepared {
		all = append(all, operator.Transaction(p))
	}
	return all
}

// write hands one write over. Where it ends an epoch, it gives what was prepared.
func (o *heldOutput) write(ctx context.Context, inc determinant.Incarnation, w *operator.StoreWrite) (*preparedEpoch, error) {
	if len(w.Records) > 0 {
		if err := o.store.Write(ctx, inc, w.Records); err != nil {
			return nil, err
		}
		o.written += uint64(len(w.Records))
	}
	e := w.Start.Epoch
	if w.End.Epoch == e {
		return nil, nil
	}
	ended := &preparedEpoch{Transaction: operator.Transaction{Epoch: e}, records: o.written}
	if !o.mutations.Has(mutation.PrepareLeftOut) {
		t, err := o.store.Prepare(ctx, inc, e)
		if err != nil {
			return nil, err
		}
		if t.Epoch != e || t.Handle == "" && o.written > 0 {
			return nil, fmt.Errorf("%w: %d records of epoch %d were prepared as transaction %q of epoch %d",
				operator.ErrPermanent, o.written, e, t.Handle, t.Epoch)
		}
		ended.Transaction = t
	}
	o.written = 0
	if o.mutations.Has(mutation.CommitBeforeComplete) {
		return ended, o.store.Commit(ctx, inc, ended.Transaction)
	}
	return ended, nil
}

// add takes a prepared epoch in.
func (o *heldOutput) add(p preparedEpoch) {
	early := o.mutations.Has(mutation.AckBeforePrepare | mutation.SinkAcknowledgesEarly)
	if p.Epoch != o.next || p.Epoch <= o.due && !early {
		panic(fmt.Sprintf("cluster: assertion failed: epoch %d is prepared after %d, and checkpoint %d is complete", p.Epoch, o.next-1, o.due))
	}
	o.prepared, o.next = append(o.prepared, p), o.next+1
}

// named lists what an acknowledgement of checkpoint e names: all that is prepared up to it and not known to be committed.
func (o *heldOutput) named(e determinant.Epoch, early bool) []checkpoint.Transaction {
	if e >= o.next && !early {
		panic(fmt.Sprintf("cluster: assertion failed: checkpoint %d is acknowledged, only epoch %d is prepared", e, o.next-1))
	}
	var all []checkpoint.Transaction
	for _, p := range o.prepared {
		if p.Epoch <= e {
			all = append(all, checkpoint.Transaction(p.Transaction))
		}
	}
	return all
}

// behind counts the transactions whose checkpoint is complete and which are not committed.
func (o *heldOutput) behind() int {
	n, found := slices.BinarySearchFunc(o.prepared, o.due, func(p preparedEpoch, e determinant.Epoch) int { return cmp.Compare(p.Epoch, e) })
	if found {
		n++
	}
	return n
}

// commitHeld has everything up to the completed checkpoint e committed. w.mu is held.
func (w *Worker) commitHeld(h *hosted, e determinant.Epoch) {
	held := h.sink.held
	held.due = max(held.due, e)
	if !held.committing {
		held.committing = true
		w.env.Background(func() { w.commitAll(h) })
	}
}

// commitAll commits, one after the other, until nothing is due, and then says so.
func (w *Worker) commitAll(h *hosted) {
	held, t := h.sink.held, h.task.ID()
	for {
		next := w.nextCommit(h)
		if next == nil {
			return
		}
		err := held.store.Commit(context.Background(), h.inc, next.Transaction)
		if err == nil {
			w.env.Observe(Observation{Task: t, Incarnation: h.inc, Phase: Written, Elements: next.records})
		}
		if !w.committedOne(h, next, err) {
			return
		}
		w.env.WakeSink(t)
	}
}

// nextCommit gives the first transaction that is due; nil if there is none.
func (w *Worker) nextCommit(h *hosted) *preparedEpoch {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := h.sink.held
	if h.dead.Load() || w.mu.closed {
		return nil // the successor commits what the checkpoint names
	}
	if held.behind() > 0 {
		next := held.prepared[0]
		return &next
	}
	held.committing = false
	w.report(Report{Shown: &Shown{Task: h.task.ID(), Epoch: held.due}})
	return nil
}

// committedOne takes the outcome of a commit; false if no more may follow in this life.
func (w *Worker) committedOne(h *hosted, p *preparedEpoch, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countFenced(err)
	if h.dead.Load() || w.mu.closed || errors.Is(err, operator.ErrFenced) {
		return false
	}
	if err != nil {
		h.sink.failed = true
		w.report(Report{Failed: &TaskFailure{
			Task: h.task.ID(), Incarnation: h.inc, Worker: w.id,
			Err: fmt.Errorf("cluster: transactions of sink task %d, epoch %d: %w", h.task.ID(), p.Epoch, err),
		}})
		return false
	}
	h.sink.held.prepared = h.sink.held.prepared[1:]
	h.sink.shown += p.records
	return true
}

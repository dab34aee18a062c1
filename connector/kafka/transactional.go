package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// TransactionalTopic shows the output of a job's sink tasks in a topic, that of each epoch when its checkpoint is committed. It implements
// operator.TransactionalSink.
type TransactionalTopic struct{ *outlet }

var (
	_ operator.TransactionalSink = (*TransactionalTopic)(nil)
	_ operator.SinkIdentifier    = (*TransactionalTopic)(nil)
)

// Transactional shows output in a topic, to readers of committed records. Records are encoded by JSON unless operator.WithCodec says
// otherwise.
func Transactional(topic string, o SinkOptions) *TransactionalTopic {
	return &TransactionalTopic{newOutlet(topic, o)}
}

// Lines makes JSON the default encoding of records.
func (*TransactionalTopic) Lines() {}

// OpenTransactions opens the store of one task. It does not talk to the brokers: Fence does first.
func (t *TransactionalTopic) OpenTransactions(ctx context.Context, task, n int) (operator.TransactionalStore, error) {
	p, done, err := t.open(ctx, task, n, func(life context.Context, b *brokers, identity string) shutter {
		return &desk{outlet: t.outlet, task: task, tasks: n, identity: identity, life: life, journal: t.journal(b, task), turn: newTurn()}
	})
	if err != nil {
		return nil, err
	}
	return &transactions{desk: p.(*desk), done: done}, nil
}

// transactions is one OpenTransactions of a desk.
type transactions struct {
	desk *desk
	done func() error
}

// Waiting implements operator.Waiter: why a call of the task in this process waits for the brokers.
func (s *transactions) Waiting() string { return s.desk.waits.Waiting() }

func (s *transactions) Fence(ctx context.Context, i determinant.Incarnation) ([]operator.Transaction, error) {
	var listed []operator.Transaction
	err := s.desk.call(ctx, func(ctx context.Context) error {
		return s.desk.persist(ctx, func() (err error) { listed, err = s.desk.fence(ctx, i); return err })
	})
	return listed, err
}

func (s *transactions) Write(ctx context.Context, i determinant.Incarnation, records [][]byte) error {
	return s.desk.call(ctx, func(ctx context.Context) error { return s.desk.write(ctx, i, records) })
}

func (s *transactions) Prepare(ctx context.Context, i determinant.Incarnation, e determinant.Epoch) (t operator.Transaction, err error) {
	err = s.desk.call(ctx, func(ctx context.Context) (err error) { t, err = s.desk.prepare(ctx, i, e); return err })
	return t, err
}

func (s *transactions) Commit(ctx context.Context, i determinant.Incarnation, t operator.Transaction) error {
	return s.desk.call(ctx, func(ctx context.Context) error { return s.desk.end(ctx, i, t, true) })
}

func (s *transactions) Abort(ctx context.Context, i determinant.Incarnation, t operator.Transaction) error {
	return s.desk.call(ctx, func(ctx context.Context) error { return s.desk.end(ctx, i, t, false) })
}

func (s *transactions) Close() error { return s.done() }

// desk has the transactions of one sink task. All stores of the task in this process that one TransactionalTopic opened share it.
//
// A transaction keeps its transactional id, a slot, from its first record until the register says how it ended; so several may be
// prepared while the next is open. A slot belongs to an incarnation: whoever fences earlier ones, however late, touches no slot of
// a later one.
//
// Invariant: a slot that has a prepared transaction in the register is never given a new producer.
type desk struct {
	*outlet
	task, tasks int
	identity    string
	life        context.Context // ends when the last store is closed
	journal     *journal
	waits       operator.Waits
	partitions  int // of the topic; 0 if that was not asked yet
	turn        turn

	// Guarded by turn:
	known   register
	entries int                     // how many were read; 0 if known says nothing
	next    int64                   // offset from which the journal was not read yet
	fenced  determinant.Incarnation // by this process, and its leftovers are undone
	open    *transaction            // what is being written
}

// transaction is one that this process writes.
type transaction struct {
	slot     slot
	producer *kgo.Client
	id       int64
	epoch    int16
	began    time.Time // the brokers count from a little later
}

// call runs f with the lock, after a look at the topics.
func (d *desk) call(ctx context.Context, f func(context.Context) error) error {
	ctx, done, err := d.turn.take(ctx, d.life)
	if err != nil {
		return err
	}
	defer done()
	if d.partitions == 0 {
		err := d.persist(ctx, func() (err error) {
			d.partitions, err = d.prepareTopics(ctx, d.journal.brokers, d.tasks)
			return err
		})
		if err != nil {
			return err
		}
	}
	return f(ctx)
}

func (d *desk) persist(ctx context.Context, do func() error) error {
	return persist(ctx, d.calls.begin(&d.waits), func(err error) { d.options.Waiting(d.journal.at.String(), err) }, do)
}

// shut waits for calls that are under way, which end by themselves now.
func (d *desk) shut() {
	d.turn <- struct{}{}
	d.drop()
	d.journal.release()
	<-d.turn
}

// drop forgets the open transaction. Its slot is undone by the next Fence.
func (d *desk) drop() {
	if d.open != nil {
		d.open.producer.Close()
		d.open = nil
	}
}

// refresh reads what has come to the journal since it was read last.
func (d *desk) refresh(ctx context.Context) error {
	start, next, err := d.journal.read(ctx, d.next, false, d.take)
	if errors.Is(err, errOutdated) { // the register that counts is whole, whatever was before it
		start, next, err = d.journal.read(ctx, 0, false, d.take)
	}
	d.next = next // what was read before an error was taken in
	if err != nil {
		return err
	}
	if d.entries == 0 && start > 0 {
		return fmt.Errorf("%w: the records of %v were removed up to offset %d, all of them", ErrCorrupt, d.journal.at, start)
	}
	return nil
}

// take takes in an entry of the journal.
func (d *desk) take(offset int64, data []byte) error {
	r, err := decodeRegister(data)
	if err != nil {
		return fmt.Errorf("%v at offset %d: %w", d.journal.at, offset, err)
	}
	switch {
	case r.Identity != d.identity:
		return fmt.Errorf("%w: %v is that of job %q, this is job %q: nothing was written", ErrJob, d.journal.at, r.Identity, d.identity)
	case r.Task != uint64(d.task), d.entries > 0 && r.Serial <= d.known.Serial:
		return fmt.Errorf("%w: %v holds register %d of task %d behind %d of task %d", ErrCorrupt, d.journal.at, r.Serial, r.Task,
			d.known.Serial, d.task)
	}
	d.known = r
	d.entries++
	return nil
}

// admit compares the incarnation of a call with that of the register.
func (d *desk) admit(i determinant.Incarnation) error {
	switch {
	case i < d.known.Incarnation:
		return fmt.Errorf("%w: incarnation %d of task %d, now %d", operator.ErrFenced, i, d.task, d.known.Incarnation)
	case i > d.known.Incarnation || d.entries == 0:
		return fmt.Errorf("%w: incarnation %d of task %d, fenced is %d", ErrUnfenced, i, d.task, d.known.Incarnation)
	}
	return nil
}

// change writes the register after edit, for a call of incarnation i. edit is called on the newest register; if it says that there is
// nothing to do, nothing is written.
func (d *desk) change(ctx context.Context, i determinant.Incarnation, edit func(*register) bool) error {
	return d.persist(ctx, func() error {
		if d.journal.producer == nil {
			if err := d.refresh(ctx); err != nil {
				return err
			}
			if err := d.admit(i); err != nil {
				return err // without taking the right to write from whoever has it now
			}
			if err := d.acquire(ctx); err != nil {
				return err
			}
		}
		if err := d.admit(i); err != nil {
			return err
		}
		return d.put(ctx, edit)
	})
}

// acquire takes the right to write to the journal and reads what had come to pass by then.
func (d *desk) acquire(ctx context.Context) error {
	if err := d.journal.acquire(ctx); err != nil {
		return err
	}
	err := d.refresh(ctx)
	if err != nil {
		d.journal.release()
	}
	return err
}

// put writes the register after edit. The journal is acquired.
func (d *desk) put(ctx context.Context, edit func(*register) bool) error {
	r := d.known.clone()
	if !edit(&r) {
		return nil
	}
	r.Identity, r.Task, r.Serial = d.identity, uint64(d.task), d.known.Serial+1
	offset, next, err := d.journal.commit(ctx, nil, appendRegister(nil, &r))
	if err != nil {
		return err
	}
	d.known, d.next = r, next
	d.entries++
	if r.Serial%tidyEvery == 0 && offset > 0 {
		if err := d.journal.brokers.remove(ctx, d.journal.at, offset); err != nil {
			if errors.Is(err, operator.ErrPermanent) {
				return err
			}
			d.options.Waiting(d.journal.at.String(), err) // the next time removes them
		}
	}
	return nil
}

// tidyEvery is after how many entries those before the last one are removed from the journal.
const tidyEvery = 64

func (r *register) clone() register {
	c := *r
	c.Former, c.Prepared, c.Aborted = slices.Clone(r.Former), slices.Clone(r.Prepared), slices.Clone(r.Aborted)
	return c
}

// fence raises the fence, undoes what was not prepared, and lists what was.
func (d *desk) fence(ctx context.Context, i determinant.Incarnation) ([]operator.Transaction, error) {
	if err := d.refresh(ctx); err != nil {
		return nil, err
	}
	if i < d.known.Incarnation {
		return nil, d.admit(i)
	}
	d.drop()
	if err := d.acquire(ctx); err != nil {
		return nil, err
	}
	if i < d.known.Incarnation {
		return nil, d.admit(i)
	}
	if i > d.known.Incarnation || d.entries == 0 {
		err := d.put(ctx, func(r *register) bool {
			if r.Slots > 0 {
				r.Former = append(r.Former, slot{r.Incarnation, r.Slots})
			}
			r.Incarnation, r.Slots = i, 0
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	if err := d.undo(ctx); err != nil {
		return nil, err
	}
	d.fenced = i
	var listed []operator.Transaction
	for _, p := range d.known.Prepared {
		listed = append(listed, operator.Transaction{Epoch: p.Epoch, Handle: p.handle(d.slotID(p.Slot))})
	}
	slices.SortStableFunc(listed, func(a, b operator.Transaction) int { return cmp.Compare(a.Epoch, b.Epoch) })
	return listed, nil
}

// undo gives a new producer to every slot that may have an open transaction, but for those that are prepared: what was open is aborted,
// and whoever wrote it is fenced off.
func (d *desk) undo(ctx context.Context) error {
	former := slices.Clone(d.known.Former)
	former = append(former, slot{d.known.Incarnation, d.known.Slots})
	for _, f := range former {
		for k := range f.Index {
			s := slot{f.Incarnation, k}
			if d.known.has(s) {
				continue
			}
			if err := d.journal.brokers.initProducer(ctx, d.slotID(s), d.slotTimeout()); err != nil {
				return err
			}
		}
	}
	if len(d.known.Former) == 0 {
		return nil
	}
	// Slots of former incarnations that are still prepared stay listed: they are never written again, and once they have ended there
	// is nothing in them to undo.
	return d.put(ctx, func(r *register) bool { r.Former = nil; return true })
}

// has tells whether a slot has a prepared transaction.
func (r *register) has(s slot) bool {
	return slices.ContainsFunc(r.Prepared, func(p prepared) bool { return p.Slot == s })
}

func (d *desk) slotID(s slot) string {
	return fmt.Sprintf("%s-%d-%d", d.journal.txid, s.Incarnation, s.Index)
}

func (d *desk) slotTimeout() int32 { return int32(d.options.TransactionTimeout.Milliseconds()) }

// write adds records to the open transaction.
func (d *desk) write(ctx context.Context, i determinant.Incarnation, encoded [][]byte) error {
	if err := d.ready(ctx, i); err != nil {
		return err
	}
	records, err := d.options.records(d.topic, d.task, d.partitions, encoded)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return d.confirm(ctx, i)
	}
	if d.open == nil {
		if err := d.begin(ctx, i); err != nil {
			return err
		}
	}
	closing := d.open.producer
	stop := context.AfterFunc(ctx, func() { closing.Close() })
	err = d.open.producer.ProduceSync(ctx, records...).FirstErr()
	if stop() && err == nil {
		return nil
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return d.lost(ctx, i, d.journal.ended(ctx, err))
}

// lost drops the open transaction after an error, and says whether a later incarnation is the cause.
func (d *desk) lost(ctx context.Context, i determinant.Incarnation, err error) error {
	d.drop()
	d.fenced = 0
	if context.Cause(ctx) != nil || errors.Is(err, operator.ErrPermanent) {
		return err
	}
	if again := d.confirm(ctx, i); again != nil {
		return again
	}
	return fmt.Errorf("%w: %w", ErrAborted, err)
}

// ready tells whether incarnation i may write here.
func (d *desk) ready(ctx context.Context, i determinant.Incarnation) error {
	if d.fenced == i && i > 0 {
		return nil
	}
	if err := d.confirm(ctx, i); err != nil {
		return err
	}
	return fmt.Errorf("%w: incarnation %d of task %d, in this process", ErrUnfenced, i, d.task)
}

// confirm asks the journal whether incarnation i is the newest.
func (d *desk) confirm(ctx context.Context, i determinant.Incarnation) error {
	if err := d.persist(ctx, func() error { return d.refresh(ctx) }); err != nil {
		return err
	}
	return d.admit(i)
}

// maxSlots bounds how many transactions of a task may be open and prepared at once.
const maxSlots = 64

// begin begins a transaction in a free slot.
func (d *desk) begin(ctx context.Context, i determinant.Incarnation) error {
	at := slot{Incarnation: i}
	for at.Index < d.known.Slots && d.known.has(at) {
		at.Index++
	}
	if at.Index >= maxSlots {
		return fmt.Errorf("kafka: %d transactions of task %d are prepared and not committed", maxSlots, d.task)
	}
	// The register first: an incarnation to come must know of the slot before there is anything in it.
	if at.Index >= d.known.Slots {
		err := d.change(ctx, i, func(r *register) bool {
			if r.Slots > at.Index {
				return false
			}
			r.Slots = at.Index + 1
			return true
		})
		if err != nil {
			return err
		}
	}
	err := d.persist(ctx, func() error {
		p, err := d.options.Client.NewClient(
			kgo.TransactionalID(d.slotID(at)), kgo.TransactionTimeout(d.options.TransactionTimeout), kgo.ProducerLinger(0),
			kgo.ProducerBatchMaxBytes(int32(d.options.MaxMessageBytes)), kgo.RecordPartitioner(chosenPartition{}),
			kgo.ProducerBatchCompression(d.options.codec()), kgo.UnknownTopicRetries(-1), kgo.MaxBufferedRecords(bufferedRecords),
			kgo.MaxVersions(outletVersions()),
		)
		if err != nil {
			return err
		}
		id, epoch, err := p.ProducerID(ctx)
		if err == nil {
			err = p.BeginTransaction()
		}
		if err != nil {
			p.Close()
			return judged(fmt.Errorf("transactional id %q: %w", d.slotID(at), err))
		}
		d.open = &transaction{slot: at, producer: p, id: id, epoch: epoch, began: time.Now()}
		return nil
	})
	if err == nil {
		err = d.confirm(ctx, i) // a replaced writer must not open what nobody would abort for long
	}
	return err
}

// prepare registers the open transaction. All its records are with the brokers: Write has waited for them.
func (d *desk) prepare(ctx context.Context, i determinant.Incarnation, e determinant.Epoch) (operator.Transaction, error) {
	if err := d.ready(ctx, i); err != nil {
		return operator.Transaction{}, err
	}
	if d.open == nil {
		return operator.Transaction{Epoch: e}, d.confirm(ctx, i)
	}
	if age := time.Since(d.open.began); age >= d.options.TransactionTimeout {
		return operator.Transaction{}, d.lost(ctx, i, fmt.Errorf("it was open for %v, more than %v", age, d.options.TransactionTimeout))
	}
	p := prepared{Epoch: e, Slot: d.open.slot, Producer: d.open.id, Fencing: d.open.epoch}
	err := d.change(ctx, i, func(r *register) bool {
		if k := slices.IndexFunc(r.Prepared, func(q prepared) bool { return q.Slot == p.Slot }); k >= 0 {
			p.Number = r.Prepared[k].Number
			return false // an earlier try had come to pass
		}
		p.Number = r.Next
		r.Next++
		r.Prepared = append(r.Prepared, p)
		return true
	})
	if err != nil {
		return operator.Transaction{}, err
	}
	t := operator.Transaction{Epoch: e, Handle: p.handle(d.slotID(p.Slot))}
	d.drop() // its producer has done its part; whoever commits needs but the handle
	return t, nil
}

// handle names the transaction. Its number, which comes first, belongs to no other.
func (p *prepared) handle(txid string) string {
	return fmt.Sprintf("%d of %s, producer %d/%d", p.Number, txid, p.Producer, p.Fencing)
}

// number gives a handle's number.
func number(handle string) (uint64, error) {
	digits, _, _ := strings.Cut(handle, " ")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: not the handle of a transaction: %q", ErrCorrupt, handle)
	}
	return n, nil
}

// maxAborted bounds how many aborted transactions are remembered; the oldest are forgotten first.
const maxAborted = 1024

// end commits or aborts a transaction that was prepared, in whichever process, and registers that.
func (d *desk) end(ctx context.Context, i determinant.Incarnation, t operator.Transaction, commit bool) error {
	if err := d.confirm(ctx, i); err != nil || t.Handle == "" {
		return err
	}
	n, err := number(t.Handle)
	if err != nil {
		return err
	}
	k := slices.IndexFunc(d.known.Prepared, func(p prepared) bool { return p.Number == n })
	if k < 0 {
		return d.ended(t, n, commit)
	}
	p := d.known.Prepared[k]
	if p.handle(d.slotID(p.Slot)) != t.Handle {
		return fmt.Errorf("%w: %q is asked for, %q is prepared", ErrCorrupt, t.Handle, p.handle(d.slotID(p.Slot)))
	}
	committed := commit
	err = d.persist(ctx, func() error {
		err := d.journal.brokers.endTransaction(ctx, d.slotID(p.Slot), p.Producer, p.Fencing, commit)
		if !fencedOff(err) {
			return err
		}
		if commit {
			return fmt.Errorf("%w: %s of epoch %d: %w", ErrExpired, t.Handle, t.Epoch, err)
		}
		committed = errors.Is(err, kerr.InvalidTxnState) // it was, and nobody could write that down; else the brokers have dropped it
		return nil
	})
	if errors.Is(err, ErrExpired) {
		return d.whyExpired(ctx, i, err)
	}
	if err != nil {
		return err
	}
	return d.change(ctx, i, func(r *register) bool { return r.ended(n, committed) })
}

// ended tells what a call about a transaction comes to that is not prepared any more.
func (d *desk) ended(t operator.Transaction, n uint64, commit bool) error {
	if _, aborted := slices.BinarySearch(d.known.Aborted, n); commit && (aborted || n >= d.known.Next) {
		return fmt.Errorf("%w: %s of epoch %d was aborted, or never prepared", ErrExpired, t.Handle, t.Epoch)
	}
	return nil
}

// whyExpired tells whether a later incarnation has ended the transaction.
func (d *desk) whyExpired(ctx context.Context, i determinant.Incarnation, expired error) error {
	if err := d.confirm(ctx, i); err != nil {
		return err
	}
	return expired
}

// ended takes a transaction off the list. It is false if it was not there.
func (r *register) ended(n uint64, committed bool) bool {
	k := slices.IndexFunc(r.Prepared, func(p prepared) bool { return p.Number == n })
	if k < 0 {
		return false
	}
	r.Prepared = slices.Delete(r.Prepared, k, k+1)
	if !committed {
		at, _ := slices.BinarySearch(r.Aborted, n)
		r.Aborted = slices.Insert(r.Aborted, at, n)
		r.Aborted = r.Aborted[max(0, len(r.Aborted)-maxAborted):]
	}
	return true
}

package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// Topic shows the output of a job's sink tasks in a topic, each record within milliseconds. It implements operator.CausalSink.
type Topic struct{ *outlet }

var (
	_ operator.LineSink       = (*Topic)(nil)
	_ operator.SinkIdentifier = (*Topic)(nil)
)

// Sink shows output in a topic, to readers of committed records. Records are encoded by JSON unless operator.WithCodec says
// otherwise.
func Sink(topic string, o SinkOptions) *Topic { return &Topic{newOutlet(topic, o)} }

// Lines makes JSON the default encoding of records.
func (*Topic) Lines() {}

// Open opens the store of one task. It does not talk to the brokers: Fence does first.
func (t *Topic) Open(ctx context.Context, task, n int) (operator.CausalStore, error) {
	p, done, err := t.open(ctx, task, n, func(life context.Context, b *brokers, identity string) shutter {
		return &part{outlet: t.outlet, task: task, tasks: n, identity: identity, life: life, journal: t.journal(b, task), turn: newTurn()}
	})
	if err != nil {
		return nil, err
	}
	return &store{part: p.(*part), done: done}, nil
}

// store is one Open of a part.
type store struct {
	part *part
	done func() error
}

func (s *store) Fence(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	return s.part.fence(ctx, f)
}

func (s *store) Write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	return s.part.write(ctx, incarnation, w)
}

func (s *store) Truncate(ctx context.Context, e determinant.Epoch, _ []determinant.LogOffset) error {
	return s.part.truncate(ctx, e)
}

// Waiting implements operator.Waiter: why a call of the task in this process waits for the brokers.
func (s *store) Waiting() string { return s.part.waits.Waiting() }

func (s *store) Close() error { return s.done() }

// part is the output of one sink task. All stores of the task in this process that one Topic opened share it.
//
// Invariant: a transaction holds records and the entry with the determinants that they depend on, or neither.
type part struct {
	*outlet
	task, tasks int
	identity    string
	life        context.Context // ends when the last store is closed
	journal     *journal
	waits       operator.Waits
	partitions  int // of the topic; 0 if that was not asked yet
	turn        turn
	known       ledger    // guarded by turn, as far as it was read
	wrote       bool      // this process writes; guarded by turn
	last        time.Time // when the last transaction ended; guarded by turn

	mu struct {
		sync.Mutex
		newest  determinant.Incarnation // that a Fence of this process has asked for
		writing determinant.Incarnation // of the Write under way, 0 if there is none
		stop    context.CancelCauseFunc // ends it
	}
}

// enter takes the part's lock and looks after the topics when it is taken first.
func (p *part) enter(ctx context.Context) (context.Context, func(), error) {
	both, done, err := p.turn.take(ctx, p.life)
	if err != nil {
		return nil, nil, err
	}
	if p.partitions > 0 {
		return both, done, nil
	}
	err = persist(both, p.calls.begin(&p.waits), p.waiting, func() (err error) {
		p.partitions, err = p.prepareTopics(both, p.journal.brokers, p.tasks)
		return err
	})
	if err != nil {
		done()
		return nil, nil, err
	}
	return both, done, nil
}

func (p *part) waiting(err error) { p.options.Waiting(p.journal.at.String(), err) }

// fence raises the fence if f is beyond it, and gives what is stored.
func (p *part) fence(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	p.announce(f.Incarnation)
	ctx, done, err := p.enter(ctx)
	if err != nil {
		return operator.Stored{}, err
	}
	defer done()
	var stored operator.Stored
	err = persist(ctx, p.calls.begin(&p.waits), p.waiting, func() (err error) {
		if stored, err = p.tryFence(ctx, f); err != nil {
			p.journal.release() // what is known may be half read: a Write must read the rest first
		}
		return err
	})
	return stored, err
}

// shut waits for calls that are under way, which end by themselves now.
func (p *part) shut() {
	p.turn <- struct{}{}
	p.journal.release()
	<-p.turn
}

// announce lets a Write of an earlier incarnation that waits for the brokers in this process give up.
func (p *part) announce(i determinant.Incarnation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.newest = max(p.mu.newest, i)
	if p.mu.stop != nil && p.mu.writing < i {
		p.mu.stop(fmt.Errorf("%w: incarnation %d of task %d, now %d", operator.ErrFenced, p.mu.writing, p.task, i))
	}
}

func (p *part) tryFence(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	// First a look that disturbs nobody: a fence of the past must not take the right to write away from the present.
	p.known = ledger{}
	if err := p.refresh(ctx, false); err != nil {
		return operator.Stored{}, err
	}
	raised, err := p.compare(f)
	if err != nil {
		return operator.Stored{}, err
	}
	if raised {
		return p.beside(ctx, f)
	}
	p.wrote = false
	if err := p.acquire(ctx); err != nil {
		return operator.Stored{}, err
	}
	if raised, err = p.compare(f); err != nil {
		return operator.Stored{}, err
	}
	if !raised {
		if err := p.raise(ctx, f); err != nil {
			return operator.Stored{}, err
		}
	}
	return p.stored(f), nil
}

// compare tells whether the fence is there already. It is an error if it is higher.
func (p *part) compare(f operator.Fence) (bool, error) {
	have := &p.known.last
	if f.Incarnation < have.Incarnation || f.Generation < have.Generation {
		return false, fmt.Errorf("%w: fence for incarnation %d, generation %d of task %d, which is at %d, %d", operator.ErrFenced,
			f.Incarnation, f.Generation, p.task, have.Incarnation, have.Generation)
	}
	return p.known.entries > 0 && f.Incarnation == have.Incarnation && f.Generation == have.Generation, nil
}

// beside reads what is stored while the writer may go on: everything that can be seen when it begins, and perhaps more.
func (p *part) beside(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	err := p.refresh(ctx, true)
	if errors.Is(err, errOpen) { // the writer is stopped, or dead, in the middle of a transaction
		err = p.acquire(ctx)
	}
	if err != nil {
		return operator.Stored{}, err
	}
	if _, err := p.compare(f); err != nil {
		return operator.Stored{}, err
	}
	return p.stored(f), nil
}

// acquire takes the right to write and reads what had come to pass by then.
func (p *part) acquire(ctx context.Context) error {
	if err := p.journal.acquire(ctx); err != nil {
		return err
	}
	err := p.refresh(ctx, false)
	if err != nil {
		p.journal.release()
	}
	return err
}

// raise writes the entry that is the fence.
func (p *part) raise(ctx context.Context, f operator.Fence) error {
	e := p.known.last
	cut := f.Cut != nil && (p.known.entries == 0 || f.Generation > e.Generation)
	e.Incarnation, e.Generation, e.Shown, e.Begins, e.Delta = f.Incarnation, f.Generation, 0, false, nil
	e.Start = e.End
	switch {
	case f.Restart != nil:
		e.Begins, e.Start, e.End = true, *f.Restart, *f.Restart
	case cut:
		count, ok := p.known.countAt(f.Cut.Cursor)
		if !ok {
			return fmt.Errorf("%w: %v cannot be cut to %v: no write ended there", ErrCorrupt, p.journal.at, f.Cut.Cursor)
		}
		e.Begins, e.Start, e.End, e.Shown = true, f.Cut.Cursor, f.Cut.Cursor, e.Count-count
	}
	return p.append(ctx, &e, nil)
}

// append commits records with an entry, of which it sets what is the same for all. After an error that may pass, what has come of
// it is not known.
func (p *part) append(ctx context.Context, e *entry, records [][]byte) error {
	output, err := p.options.records(p.topic, p.task, p.partitions, records)
	if err != nil {
		return err
	}
	e.Identity, e.Task, e.Serial = p.identity, uint64(p.task), p.known.last.Serial+1
	e.Keep = p.known.keep()
	e.Count += uint64(len(records))
	offset, next, err := p.journal.commit(ctx, output, appendEntry(nil, e))
	p.last = time.Now()
	if err != nil {
		return err
	}
	p.known.next = next
	return p.known.add(offset, e)
}

func (p *part) stored(f operator.Fence) operator.Stored {
	s := operator.Stored{Cursor: p.known.last.End, Deltas: p.known.deltas}
	if f.Cut != nil {
		s.Shown = p.known.last.Shown
	}
	p.known.deltas = nil // the caller's now, and nobody needs them until the next Fence
	return s
}

// refresh reads what has come to the journal since it was read last.
func (p *part) refresh(ctx context.Context, all bool) error {
	err := p.catchUp(ctx, all)
	if errors.Is(err, errOutdated) { // this process slept through a few checkpoints
		p.known = ledger{}
		err = p.catchUp(ctx, all)
	}
	return err
}

func (p *part) catchUp(ctx context.Context, all bool) error {
	start, next, err := p.journal.read(ctx, p.known.next, all, func(offset int64, data []byte) error {
		e, err := decodeEntry(data)
		if err != nil {
			return fmt.Errorf("%v at offset %d: %w", p.journal.at, offset, err)
		}
		if e.Identity != p.identity {
			return fmt.Errorf("%w: %v is that of job %q, this is job %q: nothing was written", ErrJob, p.journal.at, e.Identity, p.identity)
		}
		if e.Task != uint64(p.task) {
			return fmt.Errorf("%w: %v holds an entry of task %d", ErrCorrupt, p.journal.at, e.Task)
		}
		return p.known.add(offset, &e)
	})
	p.known.next = next // what was read before an error was taken in
	if err != nil {
		return err
	}
	if err := p.known.check(start); err != nil {
		return fmt.Errorf("%v: %w", p.journal.at, err)
	}
	return nil
}

// write shows w, and returns when it is visible, also if that takes as long as an outage of the brokers.
func (p *part) write(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite) error {
	ctx, done, err := p.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, stop := p.begin(ctx, incarnation)
	defer stop()
	if err := sleep(ctx, p.options.Interval-time.Since(p.last)); err != nil {
		return err
	}
	serial := uint64(0) // of the entry that may have come to pass
	return persist(ctx, p.calls.begin(&p.waits), p.waiting, func() error { return p.tryWrite(ctx, incarnation, w, &serial) })
}

// begin notes the Write under way.
func (p *part) begin(ctx context.Context, incarnation determinant.Incarnation) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.writing, p.mu.stop = incarnation, stop
	return ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mu.writing, p.mu.stop = 0, nil
		stop(nil)
	}
}

func (p *part) tryWrite(ctx context.Context, incarnation determinant.Incarnation, w operator.StoreWrite, serial *uint64) error {
	if p.journal.producer == nil {
		if err := p.refresh(ctx, false); err != nil {
			return err
		}
		if err := p.admit(incarnation); err != nil {
			return err
		}
		if err := p.acquire(ctx); err != nil {
			return err
		}
	}
	if err := p.admit(incarnation); err != nil {
		return err
	}
	if *serial > 0 && p.known.last.Serial >= *serial {
		return nil // an earlier try had come to pass: entries of this incarnation are written by nobody else
	}
	if err := follows(p.known.last.End, w.Start, w.End); err != nil {
		return fmt.Errorf("%v: %w", p.journal.at, err)
	}
	e := p.known.last
	e.Incarnation, e.Begins, e.Start, e.End, e.Delta = incarnation, false, w.Start, w.End, w.Delta
	e.Committed = max(e.Committed, p.known.committed)
	*serial = p.known.last.Serial + 1
	err := p.append(ctx, &e, w.Records)
	p.wrote = p.wrote || err == nil
	p.known.deltas = nil
	return err
}

// admit compares a writer's incarnation with that which the store was fenced for.
func (p *part) admit(incarnation determinant.Incarnation) error {
	fenced := p.known.last.Incarnation
	switch {
	case incarnation < fenced:
		return fmt.Errorf("%w: incarnation %d of task %d, now %d", operator.ErrFenced, incarnation, p.task, fenced)
	case incarnation > fenced || p.known.entries == 0:
		return fmt.Errorf("%w: incarnation %d of task %d, fenced is %d", ErrUnfenced, incarnation, p.task, fenced)
	}
	return nil
}

// truncate removes from the journal what is no longer needed, if this process is the one that writes; elsewhere it does nothing. What
// it removes, an entry written before has declared unneeded: so it can be told from what somebody else removes.
func (p *part) truncate(ctx context.Context, e determinant.Epoch) error {
	_, done, err := p.enter(ctx)
	if err != nil {
		return err
	}
	if !p.wrote {
		done()
		return nil
	}
	p.known.truncate(e)
	below := int64(p.known.last.Keep)
	done()
	if below == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, removePatience, errOverdue)
	defer cancel()
	stop := context.AfterFunc(p.life, cancel)
	defer stop()
	err = p.journal.brokers.remove(ctx, p.journal.at, below)
	if err != nil && !errors.Is(err, operator.ErrPermanent) {
		p.waiting(err) // the next checkpoint removes it
		return nil
	}
	return err
}

// removePatience bounds how long a checkpoint's removal of old entries may take.
const removePatience = 10 * time.Second

package connectortest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
)

// failer is what the suite needs of a test; a *rapid.T is one too.
type failer interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

const sinkTasks = 3 // parallel tasks of the suite's sinks

// causalWorld is one sink task of a job with all its processes, and what must be seen of its output: the plain model that an
// implementation is compared with.
//
// Invariant: what is seen is shown, and behind it a first part of beyond that is at least sure records long.
type causalWorld struct {
	t        failer
	patience time.Duration
	place    CausalPlace
	job      string
	task     int
	out      *output

	shown  []string          // seen for good
	beyond []string          // what writes that failed may have shown behind it
	sure   int               // how much of beyond was seen
	at     determinant.Seq   // where the store's output ends: after shown
	tries  []determinant.Seq // where it may end instead, once all before it is seen: ends of writes that failed
	failed bool              // a write has, since the last Fence
	given  [][]byte          // deltas that may be stored, in order

	unordered bool // several lives wrote at a time: nobody knows the order of what they gave

	writer      *life   // nil before the first, and between two
	replaced    []*life // that may wake up
	incarnation determinant.Incarnation
	generation  determinant.Generation
	committed   determinant.Epoch
	cut         *operator.Cut
	restart     *determinant.Cursor // what the next Fence asks for
	cutting     bool                // no Fence with the cut of this generation, or the restart, has been answered
	tried       bool                // one has failed, and may have done it all the same
	kept        int                 // how much of shown is left when it is done
}

// process is one process of the job: what it has opened.
type process struct {
	store  operator.CausalStore
	fault  *fault // nil if none of its steps can fail
	closed bool
}

// life is an incarnation of the task in a process: it writes, until another replaces it.
type life struct {
	w           *causalWorld
	p           *process
	incarnation determinant.Incarnation
	at          determinant.Seq
	sent        offsets             // what the store was given of each log
	late        operator.StoreWrite // what it was about to write when it was replaced
}

func newWorld(t failer, s *causalSuite, place CausalPlace, task int) *causalWorld {
	return &causalWorld{t: t, patience: s.patience, place: place, job: "the suite's job", task: task, out: newOutput(place.Record)}
}

func (w *causalWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%v", err)
	}
}

// call makes a call that must return in time.
func (w *causalWorld) call(f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), w.patience)
	defer cancel()
	return f(ctx)
}

// open opens the store in a process that was just started.
func (w *causalWorld) open(sink operator.CausalSink) (*process, error) {
	if err := w.identify(sink); err != nil {
		return nil, err
	}
	p := &process{}
	err := w.call(func(ctx context.Context) (err error) {
		p.store, err = sink.Open(ctx, w.task, sinkTasks)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	w.t.Cleanup(func() { _ = p.store.Close() }) // of a process that was dropped: whether that works says nothing
	return p, nil
}

// identify tells the sink whose it is, if it asks.
func (w *causalWorld) identify(sink operator.CausalSink) error {
	id, ok := sink.(operator.SinkIdentifier)
	if !ok {
		return nil
	}
	if err := id.Identify(w.job); err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	return nil
}

// process starts a process in which nothing fails.
func (w *causalWorld) process() *process {
	w.t.Helper()
	p, err := w.open(w.place.Sink())
	w.must(err)
	return p
}

// fence is the fence that the job's ledger asks for now.
func (w *causalWorld) fence() operator.Fence {
	return operator.Fence{Incarnation: w.incarnation, Generation: w.generation, Cut: w.cut, Restart: w.restart}
}

// raise sends the present fence by a process, checks what comes back, and tells how far each log is stored.
func (w *causalWorld) raise(p *process) (at offsets, err error) {
	w.t.Helper()
	var stored operator.Stored
	err = w.call(func(ctx context.Context) (err error) {
		stored, err = p.store.Fence(ctx, w.fence())
		return err
	})
	if err != nil {
		w.tried = true
		return at, fmt.Errorf("fence of incarnation %d, generation %d: %w", w.incarnation, w.generation, err)
	}
	at = w.settle(stored)
	for _, d := range stored.Deltas {
		scribble(d) // they are the caller's
	}
	return at, nil
}

// look lets a process raise the fence that is there already, to read what is stored.
func (w *causalWorld) look(p *process) {
	w.t.Helper()
	_, err := w.raise(p)
	w.must(err)
}

// begin lets a new incarnation take over in a process.
func (w *causalWorld) begin(p *process) (*life, error) {
	w.t.Helper()
	w.leave()
	w.incarnation++
	l := &life{w: w, p: p, incarnation: w.incarnation}
	if err := l.again(); err != nil {
		return nil, err
	}
	w.writer = l
	return l, nil
}

// leave ends the writer's time. It does not know, and is about to write.
func (w *causalWorld) leave() {
	if l := w.writer; l != nil && !w.failed {
		l.late = l.compose(l.upTo(3))
		w.replaced = append(w.replaced, l)
	}
	w.writer = nil
}

// close closes what a process has open.
func (p *process) close() error {
	p.closed = true
	return p.store.Close()
}

// mustBegin is begin in a process in which nothing fails.
func (w *causalWorld) mustBegin(p *process) *life {
	w.t.Helper()
	l, err := w.begin(p)
	w.must(err)
	return l
}

// again is what a writer does after a call that failed: it fences, and goes on from what the store says.
func (l *life) again() (err error) {
	l.w.t.Helper()
	if l.sent, err = l.w.raise(l.p); err == nil {
		l.at = l.w.at
	}
	return err
}

// upTo is n elements behind what the life has written, or the end of the epoch.
func (l *life) upTo(n determinant.Seq) determinant.Seq { return l.w.out.upTo(l.at, n) }

// compose makes the write of the elements up to a position, and of all determinants there are.
func (l *life) compose(to determinant.Seq) operator.StoreWrite {
	o := l.w.out
	o.produce(to)
	write := operator.StoreWrite{Start: o.cursors[l.at], End: o.cursors[to], Delta: o.logs.Delta(nil, storeOrder, l.sent[:])}
	for _, e := range o.elements[l.at:to] {
		if e != nil {
			write.Records = append(write.Records, bytes.Clone(e))
		}
	}
	return write
}

// write writes the elements up to a position and checks what is seen then. After an error the life must call again.
func (l *life) write(to determinant.Seq) error {
	l.w.t.Helper()
	return l.send(context.Background(), l.compose(to), to)
}

// send writes what compose made.
func (l *life) send(ctx context.Context, write operator.StoreWrite, to determinant.Seq) error {
	w := l.w
	w.t.Helper()
	w.given = append(w.given, bytes.Clone(write.Delta))
	err := l.store(ctx, write)
	records := w.out.records(l.at, to)
	if err != nil {
		w.tries, w.failed = append(w.tries, to), true
		if len(records) > len(w.beyond) {
			w.beyond = records
		}
		w.watch()
		return err
	}
	n := len(records)
	w.shown = append(w.shown, records...)
	w.beyond, w.sure = w.beyond[min(n, len(w.beyond)):], max(0, w.sure-n)
	w.at, l.at = to, to
	w.watch()
	return nil
}

// store makes the call, and writes over what was the store's only as long as it lasted.
func (l *life) store(ctx context.Context, write operator.StoreWrite) error {
	ctx, cancel := context.WithTimeout(ctx, l.w.patience)
	defer cancel()
	err := l.p.store.Write(ctx, l.incarnation, write)
	for _, r := range write.Records {
		scribble(r)
	}
	clear(write.Records)
	scribble(write.Delta)
	if err != nil {
		return fmt.Errorf("write of incarnation %d from %v to %v: %w", l.incarnation, write.Start, write.End, err)
	}
	return nil
}

func scribble(p []byte) {
	for i := range p {
		p[i] = '#'
	}
}

// mustWrite is write in a process in which nothing fails.
func (l *life) mustWrite(to determinant.Seq) {
	l.w.t.Helper()
	l.w.must(l.write(to))
}

// wakes is a life that was replaced and does not know: it writes what it was about to write.
func (l *life) wakes() {
	l.w.t.Helper()
	late := l.late
	late.Delta = bytes.Clone(late.Delta)
	late.Records = nil
	for _, r := range l.late.Records {
		late.Records = append(late.Records, bytes.Clone(r))
	}
	l.fenced(l.store(context.Background(), late))
	l.w.watch()
}

// fenced checks the answer that a replaced incarnation gets.
func (l *life) fenced(err error) {
	l.w.t.Helper()
	if err == nil {
		l.w.t.Fatalf("a Write of incarnation %d succeeded after a Fence for incarnation %d", l.incarnation, l.w.incarnation)
	}
	if !errors.Is(err, operator.ErrFenced) && !l.p.excused() {
		l.w.t.Fatalf("a Write of incarnation %d after a Fence for incarnation %d must give ErrFenced: %v", l.incarnation,
			l.w.incarnation, err)
	}
}

// commit commits the checkpoint of epoch e, which the output must have reached, and tells the store by a process.
func (w *causalWorld) commit(p *process, e determinant.Epoch) error {
	if e > w.committed {
		w.committed = e
		w.out.commit(e)
	}
	return w.truncate(p, e)
}

// truncate tells the store of a checkpoint.
func (w *causalWorld) truncate(p *process, e determinant.Epoch) error {
	at := slices.Clone(w.out.needs[w.out.border(e)][:])
	return w.call(func(ctx context.Context) error {
		if err := p.store.Truncate(ctx, e, at); err != nil {
			return fmt.Errorf("truncate to epoch %d: %w", e, err)
		}
		return nil
	})
}

// rollBack decides a global rollback to the last committed checkpoint: the next Fence is to do it.
func (w *causalWorld) rollBack() {
	w.goBack()
	w.out.rollBack(w.committed)
	w.generation++
	at := w.out.needs[w.out.border(w.committed)]
	w.cut = &operator.Cut{Cursor: w.out.cursors[w.out.border(w.committed)], Logs: slices.Clone(at[:])}
}

// repeat decides that the next life makes choices of its own from the last checkpoint on, at least once.
func (w *causalWorld) repeat() {
	w.goBack()
	w.must(w.out.anew(w.committed))
	at := w.out.cursors[w.out.border(w.committed)]
	w.restart = &at
}

func (w *causalWorld) goBack() {
	w.leave()
	w.kept = len(w.shown) - len(w.out.records(w.out.border(w.committed), w.at))
	w.cutting, w.tried = true, false
}

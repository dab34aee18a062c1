package http

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Why a request is not taken. Nothing of it is in the log then, except after errDoubt.
var (
	errNotReady = errors.New("http: this server cannot take requests now")
	errFull     = errors.New("http: the job does not keep up")
	errOther    = errors.New("http: the idempotency key was used for another request")
	errEnded    = errors.New("http: the log has ended")
	errDoubt    = errors.New("http: not yet durable on two servers: the request may be taken later")
)

// phase is what an owner does.
type phase string

const (
	phaseJoining phase = "joining" // compares its log with the copy; takes nothing yet
	phaseReady   phase = "ready"
	phaseAlone   phase = "alone" // the keeper of the copy does not answer; takes nothing more
	phaseOver    phase = "over"  // replaced by a later owner, closed, or its disk has failed
)

// taking is a request on its way into the log.
type taking struct {
	kind  kind
	body  []byte
	lines uint64
	key   string
	first uint64        // set before done is closed
	err   error         // set before done is closed
	done  chan struct{} // closed when the request is durable everywhere, or err says that it is not in the log
}

// owner writes one log: it is the only one that does, as far as the keeper of the copy is concerned.
//
// Invariant: what is in the log but not in the copy has not been acknowledged, and nobody has read it.
type owner struct {
	log     *lineLog
	keeper  *keeper // nil if there is only this server
	options *ServerOptions
	wake    chan struct{}
	term    uint64 // of this life; run only
	mu      struct {
		sync.Mutex
		phase  phase
		why    error
		queue  []*taking
		queued int                // bytes of the queue
		open   map[string]*taking // with a key, not yet acknowledged
		read   uint64             // where the job's reader is
		copied uint64             // end of the copy, as far as known
	}
}

const (
	shipBytes  = 4 << 20 // of one batch for the disk, and of one call to the keeper
	retryFirst = 10 * time.Millisecond
	retryLast  = time.Second
)

func newOwner(log *lineLog, k *keeper, o *ServerOptions) *owner {
	w := &owner{log: log, keeper: k, options: o, wake: make(chan struct{}, 1)}
	w.mu.phase = phaseJoining
	w.mu.open = make(map[string]*taking)
	w.mu.read = log.state().Head.Base
	return w
}

// submit queues a request, or finds the same one. If it is in the log already, done is closed and duplicate is true.
func (w *owner) submit(t *taking) (same *taking, duplicate bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.key != "" {
		if known, dup, err := w.known(t); known != nil || err != nil {
			return known, dup, err
		}
	}
	if w.mu.phase != phaseReady {
		return nil, false, fmt.Errorf("%w: %s", errNotReady, w.reason())
	}
	if s := w.log.state(); s.Ended {
		return nil, false, errEnded
	} else if unread := s.End - min(w.mu.read, s.End) + uint64(w.mu.queued+len(t.body)); t.kind == kindLines && unread > uint64(w.options.MaxUnread) {
		return nil, false, fmt.Errorf("%w: %d bytes are unread", errFull, unread)
	}
	t.done = make(chan struct{})
	w.mu.queue, w.mu.queued = append(w.mu.queue, t), w.mu.queued+len(t.body)
	if t.key != "" {
		w.mu.open[t.key] = t
	}
	notify(w.wake)
	return t, false, nil
}

// known finds the request that has the key of t. The caller holds mu.
func (w *owner) known(t *taking) (*taking, bool, error) {
	r := record{Body: t.body}
	if other := w.mu.open[t.key]; other != nil {
		if o := (record{Body: other.body}); o.sum() != r.sum() {
			return nil, false, errOther
		}
		return other, true, nil
	}
	found, readable, ok := w.log.found(t.key)
	switch {
	case !ok:
		return nil, false, nil
	case found.sum != r.sum():
		return nil, false, errOther
	case !readable: // of a former life, and not yet compared with the copy
		return nil, false, fmt.Errorf("%w: %s", errNotReady, w.reason())
	}
	done := make(chan struct{})
	close(done)
	return &taking{first: found.first, lines: found.lines, done: done}, true, nil
}

// reason says what the owner waits for. The caller holds mu.
func (w *owner) reason() string {
	switch {
	case w.mu.why != nil:
		return w.mu.why.Error()
	case w.mu.phase == phaseJoining:
		return "it compares its log with the copy"
	}
	return string(w.mu.phase)
}

func (w *owner) enter(p phase, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.phase != phaseOver {
		w.mu.phase, w.mu.why = p, why
	}
}

// run writes the log until ctx ends or it cannot go on. The error is nil in the first case.
func (w *owner) run(ctx context.Context) error {
	err := w.serve(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	why := err
	if why == nil {
		why = errors.New("http: the server is closed")
	}
	w.enter(phaseOver, why)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.mu.queue { // not in the log
		t.err = fmt.Errorf("%w: %w", errNotReady, why)
		close(t.done)
	}
	w.mu.queue = nil
	return err
}

func (w *owner) serve(ctx context.Context) error {
	if err := w.join(ctx); err != nil {
		return err
	}
	w.enter(phaseReady, nil)
	for {
		batch := w.take()
		if len(batch) == 0 {
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := w.log.append(w.encode(batch)); err != nil {
			w.drop(batch, err)
			return err
		}
		if err := w.ship(ctx); err != nil {
			return err // what waits for the batch runs into its own timeout: it is in doubt
		}
		w.acknowledge(batch)
	}
}

// take takes what is written next off the queue.
func (w *owner) take() []*taking {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, bytes := 0, 0
	for n < len(w.mu.queue) && (n == 0 || bytes+len(w.mu.queue[n].body) <= shipBytes) {
		bytes += len(w.mu.queue[n].body)
		n++
		if w.mu.queue[n-1].kind == kindEnd {
			for _, t := range w.mu.queue[n:] {
				t.err = errEnded
				close(t.done)
				delete(w.mu.open, t.key)
			}
			w.mu.queue = w.mu.queue[:n]
		}
	}
	batch := append([]*taking(nil), w.mu.queue[:n]...)
	w.mu.queue = append(w.mu.queue[:0], w.mu.queue[n:]...)
	w.mu.queued = 0
	for _, t := range w.mu.queue {
		w.mu.queued += len(t.body)
	}
	return batch
}

// encode makes records of a batch and gives them their line numbers.
func (w *owner) encode(batch []*taking) []byte {
	lines, now := w.log.state().Lines, time.Now().UnixMilli()
	var data []byte
	for _, t := range batch {
		t.first = lines
		data = appendRecord(data, &record{Kind: t.kind, Term: w.term, Time: now, First: lines, Lines: t.lines, Key: t.key, Body: t.body})
		lines += t.lines
	}
	return data
}

// drop answers a batch that could not be written. It may be on disk all the same, so it is in doubt.
func (w *owner) drop(batch []*taking, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range batch {
		t.err = fmt.Errorf("%w: %w", errDoubt, err)
		close(t.done)
	}
}

// acknowledge answers a batch that is in the log and in the copy.
func (w *owner) acknowledge(batch []*taking) {
	w.log.allow(w.log.state().End)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range batch {
		delete(w.mu.open, t.key)
		close(t.done)
	}
}

// progress notes where the job's reader is.
func (w *owner) progress(position uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.read = position
}

// standing is where an owner stands, for status and upkeep.
type standing struct {
	phase        phase
	why          string
	read, copied uint64
	queued       int
}

func (w *owner) standing() standing {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := standing{phase: w.mu.phase, read: w.mu.read, copied: w.mu.copied, queued: w.mu.queued}
	if w.mu.phase != phaseReady {
		s.why = w.reason()
	}
	return s
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

package inflightlog

import (
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// subscription is where the one consumer of a log is. It is under the log's mutex.
type subscription struct {
	number uint64 // rises with each change of subscription
	active bool
	// next is the position of the next element to send; while ahead, the position where the consumer wants to start. Only
	// its Next counts after the cursor was checked.
	next determinant.Cursor
	at   uint64 // bytes sealed before next since the log was made
	// ahead: next is beyond what is sealed and will be checked once production reaches it.
	ahead       bool
	err         error // the check failed
	outstanding int
	sent        []mark // batches sent and not granted, oldest first
	// debt is what Excess leaves out: bytes that the consumer was behind when it began, and has to make good.
	debt uint64
	// cache holds batches that were read ahead, in order. Their memory is charged.
	cache []*Batch
}

// mark is a batch on its way.
type mark struct {
	end   determinant.Seq
	bytes int
}

// Subscribe sets the position of the log's one consumer and ends the subscription before. All four fields of the cursor must
// agree with the log; if not, there is no subscription afterwards. A position beyond what is sealed is accepted: the consumer
// is ahead, gets nothing until production arrives there, and is checked then, with the result in Next.
//
// Errors: ErrBelow, *Mismatch, ErrReplaced, ErrClosed, or that a spilled batch could not be read.
func (l *Log) Subscribe(c determinant.Cursor) error {
	l.mu.Lock()
	defer l.unlock()
	l.unsubscribe()
	if l.mu.closed {
		return ErrClosed
	}
	sub := &l.mu.sub
	unchecked := l.o.Mutations.Has(mutation.CursorUnchecked)
	if unchecked {
		c.Next = min(max(c.Next, l.base().Next), l.mu.end.Next)
	}
	if c.Next > l.mu.end.Next {
		sub.next, sub.ahead = c, true
		l.activate()
		return nil
	}
	if base := l.base(); c.Next < base.Next {
		return fmt.Errorf("%w: channel %d: consumer is at %v, log starts at %v", ErrBelow, l.o.Channel, c, base)
	}
	number := sub.number
	have, at, err := l.locate(c.Next)
	switch {
	case sub.number != number:
		return ErrReplaced
	case err != nil:
		return err
	case have != c && !unchecked:
		return &Mismatch{Channel: l.o.Channel, Have: have, Want: c}
	}
	sub.next, sub.at = have, at
	l.activate()
	return nil
}

// Adopt subscribes from the start of the log, whatever the consumer has, and returns that position: at-least-once, where a
// consumer takes over the numbering of the producer's new incarnation.
func (l *Log) Adopt() determinant.Cursor {
	l.mu.Lock()
	defer l.unlock()
	l.unsubscribe()
	sub := &l.mu.sub
	sub.next = l.base()
	sub.at = l.mu.total
	if l.mu.held.len() > 0 {
		sub.at = l.mu.held.get(0).at
	}
	l.activate()
	return sub.next
}

// Unsubscribe ends the subscription: the consumer is gone or being replaced. Nothing is sent and nothing counts as unsent or
// outstanding until the next one.
func (l *Log) Unsubscribe() {
	l.mu.Lock()
	defer l.unlock()
	l.unsubscribe()
}

// Subscribed tells whether there is a consumer, one that is ahead or failed its check included.
func (l *Log) Subscribed() bool { return l.subscribed.Load() }

// Next gives the next batch for the consumer, or nil if there is none or it must wait. Of window bytes, which are what may be
// outstanding, a batch waits for room; it may always be sent, however big it is, when no more than a CreditShare-th of the window is
// outstanding, since a consumer may keep that much to itself. Negative window: no limit. The batch counts as sent. It shares its bytes
// with the log and stays valid for as long as anyone refers to it.
//
// Errors are final for this subscription, except that reading a spilled batch may be tried again: *Mismatch, ErrBelow (the
// position was truncated), *Corruption, ErrClosed, or a read error.
func (l *Log) Next(window int) (*Batch, error) {
	l.mu.Lock()
	defer l.unlock()
	sub := &l.mu.sub
	switch {
	case l.mu.closed:
		return nil, ErrClosed
	case !sub.active:
		return nil, nil
	case sub.err != nil:
		return nil, sub.err
	case sub.ahead || sub.next.Next == l.mu.end.Next:
		return nil, nil
	case sub.next.Next < l.base().Next:
		return nil, fmt.Errorf("%w: channel %d: consumer is at %v, log starts at %v", ErrBelow, l.o.Channel, sub.next, l.base())
	}
	e := l.mu.held.get(l.mu.held.find(sub.next.Next))
	size := int(e.at + uint64(e.bytes) - sub.at)
	if window >= 0 && size > window-sub.outstanding && sub.outstanding > window/CreditShare {
		return nil, nil
	}
	number := sub.number
	b, err := l.load(sub.next.Next)
	if sub.number != number {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if b, err = b.From(sub.next.Next); err != nil {
		return nil, err
	}
	assert(len(b.Payload) == size && b.First == sub.next.Next, "channel %d: sending %d bytes at %d, want %d at %v",
		l.o.Channel, len(b.Payload), b.First, size, sub.next)
	sub.next = b.End
	sub.at += uint64(size)
	sub.outstanding += size
	sub.sent = append(sub.sent, mark{b.End.Next, size})
	l.dropSent()
	l.countUnsent()
	return b, nil
}

// CreditShare is which part of the window a consumer may have taken without saying so.
const CreditShare = 4

// Grant says that the consumer has taken everything below seq. Batches that it has taken whole are no longer outstanding.
func (l *Log) Grant(seq determinant.Seq) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sub := &l.mu.sub
	n := 0
	for n < len(sub.sent) && sub.sent[n].end <= seq {
		sub.outstanding -= sub.sent[n].bytes
		n++
	}
	sub.sent = sub.sent[n:]
}

// Outstanding gives the bytes that were sent and not granted.
func (l *Log) Outstanding() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.sub.outstanding
}

// Unsent gives the bytes that are sealed and not sent. It is 0 without a consumer and while the consumer is ahead: towards a
// consumer that is being replaced there is no backpressure. It takes no lock.
func (l *Log) Unsent() int { return int(l.unsent.Load()) }

// Excess is Unsent without what the consumer was behind when it subscribed: a producer that waited for a task to make good what
// was sent while it was down would keep all its other consumers waiting too. The consumer has to gain on the producer: of each
// byte that is sealed meanwhile, a part of debtShare counts against what is left out. It takes no lock.
func (l *Log) Excess() int { return int(l.excess.Load()) }

// debtShare is how much faster than production a consumer must be, if it is not to hold the producer while it is behind: by one part
// in so many.
const debtShare = 4

// activate lets the subscription begin. The mutex is held.
func (l *Log) activate() {
	sub := &l.mu.sub
	sub.active = true
	if sub.ahead {
		l.expected.Store(uint64(sub.next.Next))
	}
	l.subscribed.Store(true)
	l.dropSent()
	if !sub.ahead {
		sub.debt = l.mu.total - sub.at
	}
	l.countUnsent()
}

// unsubscribe ends the subscription. The mutex is held.
func (l *Log) unsubscribe() {
	sub := &l.mu.sub
	for _, b := range sub.cache {
		l.uncharge(memoryOf(b))
	}
	*sub = subscription{number: sub.number + 1, sent: sub.sent[:0]}
	l.expected.Store(0)
	l.subscribed.Store(false)
	l.countUnsent()
}

// meet checks a consumer that is ahead against the batch that was just sealed, if production has arrived where it is. The
// mutex is held.
func (l *Log) meet(b *Batch) {
	sub := &l.mu.sub
	if !sub.ahead || sub.next.Next > b.End.Next {
		return
	}
	have, err := b.At(sub.next.Next)
	assert(err == nil, "channel %d: walking a sealed batch: %v", l.o.Channel, err)
	if have != sub.next {
		sub.err = &Mismatch{Channel: l.o.Channel, Have: have, Want: sub.next}
	}
	sub.ahead = false
	sub.at = l.mu.total
	if have.Next != b.End.Next {
		sub.at -= uint64(len(b.Payload)) - (have.Bytes - b.Start.Bytes)
	}
	l.expected.Store(0)
}

// countUnsent brings unsent up to date. The mutex is held.
func (l *Log) countUnsent() {
	var n uint64
	sub := &l.mu.sub
	if sub.active && !sub.ahead && sub.err == nil {
		n = l.mu.total - sub.at
	}
	sub.debt = min(sub.debt, n)
	l.unsent.Store(int64(n))
	l.excess.Store(int64(n - sub.debt))
}

// locate gives the position of element seq, which the log holds or ends with, and the bytes sealed before it. The mutex is
// held, but given up while a spilled batch is read.
func (l *Log) locate(seq determinant.Seq) (determinant.Cursor, uint64, error) {
	if seq == l.mu.end.Next {
		return l.mu.end, l.mu.total, nil
	}
	e := *l.mu.held.get(l.mu.held.find(seq))
	if seq == e.batch.First {
		return e.batch.Start, e.at, nil
	}
	b, err := l.load(seq)
	if err != nil {
		return determinant.Cursor{}, 0, err
	}
	c, err := b.At(seq)
	return c, e.at + c.Bytes - b.Start.Bytes, err
}

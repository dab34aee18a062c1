package nats

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
	"github.com/understudy-stream/understudy/operator"
)

// A fence is a new head, stored on the condition that the stream's last message is the one that was last when the stream was
// looked at. So the head tells exactly what is before it, and from then on no message of a lower incarnation is stored: each names a
// message before the head as the one that it follows.

// fence raises the fence if f is beyond it, and gives what is stored.
func (p *part) fence(ctx context.Context, f operator.Fence) (operator.Stored, error) {
	w := wait{requests: &p.requests, doing: "fencing"}
	defer w.over()
	for {
		s, err := p.scan(ctx)
		if err != nil {
			return operator.Stored{}, err
		}
		if s.head != nil {
			if f.Incarnation < s.head.Incarnation || f.Generation < s.head.Generation {
				return operator.Stored{}, fmt.Errorf("%w: fence for incarnation %d, generation %d of task %d, which is at %d, %d",
					operator.ErrFenced, f.Incarnation, f.Generation, p.task, s.head.Incarnation, s.head.Generation)
			}
			if s.uncut {
				if err := p.cut(ctx, s.position, s.headAt); err != nil {
					return operator.Stored{}, err
				}
			}
			there := f.Incarnation == s.head.Incarnation && f.Generation == s.head.Generation
			if there && p.astray != f.Incarnation || p.sink.options.Mutations.Has(mutation.FenceMissingAtStoreRead) {
				// Its writer may go on; a read beside it sees what it had shown when the read began.
				return operator.Stored{Cursor: s.cursor, Deltas: s.deltas}, nil
			}
			if there {
				f.Restart = nil // that was done when the fence was raised; this head only ends what is astray
			}
		}
		h, err := p.headFor(s, &f)
		if err != nil {
			return operator.Stored{}, err
		}
		p.forget()
		err = p.send(ctx, s.last, []outgoing{p.entry(appendHead(nil, h))}, true)
		switch {
		case err == nil:
			p.astray = 0
			if h.Cut {
				err = p.cut(ctx, h.Position, s.last.sequence+1)
			}
			return operator.Stored{Cursor: h.Cursor, Deltas: s.deltas}, err
		case ctx.Err() != nil:
			return operator.Stored{}, context.Cause(ctx)
		case !refused(err) && !passing(err) && !errors.Is(err, errElsewhere):
			return operator.Stored{}, err
		}
		// Someone else was faster, or the answer was lost. The stream tells.
		if err := w.pause(ctx, err); err != nil {
			return operator.Stored{}, err
		}
	}
}

// headFor makes the head that begins f behind what the stream holds.
func (p *part) headFor(s *state, f *operator.Fence) (*head, error) {
	h := &head{Job: p.identity(), Task: uint64(p.task)}
	if s.head != nil {
		*h = *s.head
	}
	before := h.Generation
	if s.head == nil {
		h.Origin = s.last.sequence + 1
	}
	h.Incarnation, h.Generation, h.Cut = f.Incarnation, f.Generation, false
	h.Cursor, h.Position, h.Index, h.Ahead = s.cursor, s.position, s.index, s.ahead
	h.First, h.Next = s.next-uint64(len(s.frames)), s.next
	switch {
	case f.Restart != nil:
		// What is shown already may be shown again: the writer numbers from here, and nothing is compared.
		h.Cursor, h.Position, h.Index, h.Ahead, h.First = *f.Restart, s.last.sequence, s.index+s.ahead, 0, h.Next
		h.Origin = s.last.sequence + 1
		s.deltas = nil
	case f.Cut != nil && (s.head == nil || f.Generation > before):
		b, ok := s.find(f.Cut.Cursor)
		if !ok {
			return nil, fmt.Errorf("%w: %s cannot be cut to %v: no write ended there", ErrLost, p.stream, f.Cut.Cursor)
		}
		h.Cut, h.Cursor, h.Position, h.Index, h.Ahead, h.First = true, f.Cut.Cursor, b.position, b.index, 0, h.Next
		h.Origin = s.last.sequence + 1
		s.deltas = nil
	}
	return h, nil
}

// cutTogether is how many sequences a cut looks at together: it keeps their messages in memory.
const cutTogether = 1 << 12

// cut removes the records between a position and the head that takes them back: the one place where visible output goes away. It may
// be repeated, also by a process that slept meanwhile: no record that counts is ever between them.
//
// Invariant: the last goes first, so that a reader who looks meanwhile, or after a crash, finds an output without its end and without
// a hole.
func (p *part) cut(ctx context.Context, position, head uint64) error {
	var back []uint64
	for from := position + 1; from < head; from += cutTogether {
		some, err := p.records(ctx, from, min(from+cutTogether, head)-1)
		if err != nil {
			return err
		}
		for _, m := range some {
			back = append(back, m.Sequence)
		}
	}
	return p.persist(ctx, "cutting", func() error {
		for len(back) > 0 {
			if err := p.remove(ctx, back[len(back)-1]); err != nil {
				return err
			}
			back = back[:len(back)-1]
		}
		return nil
	})
}

// Truncate forgets what is no longer needed, if this process is the one that writes; elsewhere it does nothing. A frame of
// epoch e may hold determinants of later epochs of tasks that were ahead when it was written, and deltas are opaque here. So
// frames go only up to the checkpoint before: its barriers had all arrived before those of e set out.
func (s *store) Truncate(ctx context.Context, e determinant.Epoch, _ []determinant.LogOffset) error {
	return s.do(ctx, func(ctx context.Context) error {
		err := s.part.truncate(ctx, e)
		if err != nil {
			s.part.forget()
		}
		if errors.Is(err, operator.ErrFenced) {
			return nil // whoever writes now will be told too
		}
		return err
	})
}

func (p *part) truncate(ctx context.Context, e determinant.Epoch) error {
	if p.wrote == 0 {
		return nil
	}
	if err := p.enter(ctx, p.wrote); err != nil {
		return err
	}
	s := p.state
	if e <= s.head.Committed || len(s.frames) == 0 {
		return nil
	}
	drop := 0
	for drop < len(s.frames) && s.frames[drop].last <= s.head.Committed {
		drop++
	}
	h := *s.head
	h.Committed, h.Cut = e, false
	h.Cursor, h.Position, h.Index, h.Ahead = s.cursor, s.position, s.index, s.ahead
	h.First, h.Next = s.next-uint64(len(s.frames)-drop), s.next
	if err := p.deliver(ctx, p.wrote, []outgoing{p.entry(appendHead(nil, &h))}); err != nil {
		return err
	}
	s.head, s.headAt, s.frames, s.heads = &h, s.last.sequence, s.frames[drop:], append(s.heads, s.last.sequence)
	// The head before the first frame that is kept stays too: a rollback may go back to where it stands.
	for len(s.heads) > 1 && (len(s.frames) == 0 || s.heads[1] < s.frames[0].at) {
		s.heads = s.heads[1:]
	}
	return p.persist(ctx, "truncating", func() error { return p.purge(ctx, p.hidden, s.heads[0]) })
}

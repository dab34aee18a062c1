package nats

import (
	"context"
	"errors"
	"fmt"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/internal/mutation"
)

// deliver stores a plan behind the last message that the writer knows, and returns when it is stored whole. It waits for as long as
// the server does not answer. An answer that is lost is made up for by looking what is there: every message has one place, so that
// what was sent twice cannot be there twice.
func (p *part) deliver(ctx context.Context, incarnation determinant.Incarnation, plan []outgoing) (err error) {
	defer func() {
		if err != nil {
			p.astray = incarnation
		}
	}()
	w := wait{requests: &p.requests, doing: "writing"}
	defer w.over()
	fenced := !p.sink.options.Mutations.Has(mutation.FenceMissingAtSink)
	together := maxUnacknowledged
	for refusals := 0; len(plan) > 0; {
		piece := plan[:min(len(plan), together)]
		err := p.send(ctx, p.state.last, piece, fenced)
		if err == nil {
			p.state.last = place{p.state.last.sequence + uint64(len(piece)), piece[len(piece)-1].id}
			plan, refusals, together = plan[len(piece):], 0, min(10*together, maxUnacknowledged)
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		again := refused(err) || errors.Is(err, errElsewhere)
		if !again && !passing(err) {
			return err
		}
		n, ferr := p.found(ctx, incarnation, plan)
		if ferr != nil {
			return ferr
		}
		plan = p.rename(incarnation, plan[n:])
		together = 1 // only the last of several is answered, and not with what the first was refused for
		if n > 0 {
			refusals = 0
			continue
		}
		if refusals++; again && refusals > 1 {
			p.state.last.id = "" // a server that was started again may not know the last message's id; its sequence is enough
		}
		if err := w.pause(ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// rename gives the messages that are sent again other ids: a server may refuse one that it has seen, although it did not store it.
func (p *part) rename(incarnation determinant.Incarnation, plan []outgoing) []outgoing {
	p.tries++
	for i := range plan {
		if m := &plan[i]; m.record > 0 {
			m.id = p.recordID(incarnation, m.record)
		} else {
			m.id = p.entryID()
		}
	}
	return plan
}

// found tells how many messages of a plan are stored, and moves on behind them.
func (p *part) found(ctx context.Context, incarnation determinant.Incarnation, plan []outgoing) (n int, err error) {
	err = p.persist(ctx, "writing", func() error {
		n, err = p.foundOnce(ctx, incarnation, plan)
		return err
	})
	return n, err
}

func (p *part) foundOnce(ctx context.Context, incarnation determinant.Incarnation, plan []outgoing) (int, error) {
	info, err := p.info(ctx)
	if err != nil {
		return 0, err
	}
	at := p.state.last
	if info.State.LastSeq < at.sequence {
		return 0, fmt.Errorf("%w: %s ends with message %d, message %d was acknowledged", ErrLost, p.stream, info.State.LastSeq, at.sequence)
	}
	// Whatever is there by now that is not of the plan has come before this question.
	if err := p.stillMine(ctx, incarnation); err != nil {
		return 0, err
	}
	n := 0
	for ; at.sequence < info.State.LastSeq; n++ {
		m, err := p.message(ctx, question{Seq: at.sequence + 1})
		if err != nil {
			return 0, err
		}
		if m == nil {
			return 0, fmt.Errorf("%w: message %d of %s, which came last", ErrLost, at.sequence+1, p.stream)
		}
		if n == len(plan) || !m.same(&plan[n]) {
			return 0, fmt.Errorf("%w: message %d of %s, on subject %q", ErrForeign, m.Sequence, p.stream, m.Subject)
		}
		at = place{m.Sequence, m.id()}
	}
	p.state.last = at
	return n, nil
}

// stillMine tells whether no later incarnation has begun.
func (p *part) stillMine(ctx context.Context, incarnation determinant.Incarnation) error {
	m, err := p.message(ctx, question{LastFor: p.hidden})
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("%w: %s has no determinants any more", ErrLost, p.stream)
	}
	h, f, err := decodeEntry(m.Data)
	if err != nil {
		return fmt.Errorf("%w: message %d of %s: %w", ErrForeign, m.Sequence, p.stream, err)
	}
	switch {
	case p.sink.options.Mutations.Has(mutation.FenceMissingAtSink):
		return nil
	case f != nil && f.Incarnation > incarnation:
		return p.fencedOff(incarnation, f.Incarnation)
	case h != nil && (h.Incarnation > incarnation || h.Generation > p.state.head.Generation):
		return p.fencedOff(incarnation, h.Incarnation)
	}
	return nil
}

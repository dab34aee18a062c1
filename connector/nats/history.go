package nats

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// history reads the hidden subject, up to the last message that the stream has.
//
// Invariant: what it gives is what the subject had at one moment, that of the last look at its beginning. A writer removes messages from
// the subject's beginning only, after it has stored a head that does without them. So if the beginning has moved since the end was looked
// at, what was removed is left out, and what has come since, the head among it, is read too, until it does not move.
func (p *part) history(ctx context.Context) (all []*stored, last uint64, err error) {
	begin, err := p.first(ctx)
	single := false
	for err == nil && begin != nil {
		if last, err = p.lastOf(ctx, p.info); err != nil {
			break
		}
		if all = from(all, begin.Sequence); len(all) == 0 {
			all = []*stored{begin}
		}
		whole := true
		if single {
			all, err = p.singles(ctx, p.hidden, all, last)
		} else {
			all, whole, err = p.batches(ctx, p.hidden, all, last)
		}
		if err != nil {
			break
		}
		before := begin.Sequence
		if begin, err = p.first(ctx); err != nil {
			break
		}
		still := begin != nil && begin.Sequence == before
		if still && whole {
			return all, last, nil
		}
		single = still // no truncation was in the way: a replica has not what the leader has
	}
	return nil, last, err
}

// from leaves out the messages below a sequence.
func from(all []*stored, sequence uint64) []*stored {
	return slices.DeleteFunc(all, func(m *stored) bool { return m.Sequence < sequence })
}

// first asks the leader for the first message on the hidden subject, nil if there is none.
func (p *part) first(ctx context.Context) (*stored, error) {
	return p.ask(ctx, question{Seq: 1, NextFor: p.hidden})
}

// batches reads the messages of a subject behind the last of all and up to a sequence, many with each request, and gives them behind all.
// What it gives has no gaps; it is whole unless the servers do not answer so, or the one that did lacks something: then the leader is to
// be asked for the rest.
//
// Any replica may answer, one that is behind the leader or, since messages may be removed, before it. But each has taken in the same
// messages in the same order, without those that were removed from the beginning of the subject. So a batch that begins with a message that
// the stream is known to have, one that the leader gave or that ended the batch before, lacks nothing up to its last message; and
// it is known to be over when there is the message that the leader said is the last.
//
// Invariant: all is not empty, and the leader has its first message, or had it when it was asked last.
func (p *part) batches(ctx context.Context, subject string, all []*stored, to uint64) (_ []*stored, whole bool, err error) {
	newest := all[len(all)-1]
	if newest.Sequence >= to {
		return all, true, nil
	}
	if !p.direct || p.deaf != nil && p.deaf == p.link.current() {
		return all, false, nil
	}
	end, err := p.ask(ctx, question{LastFor: subject})
	if err != nil || end == nil {
		return all, false, err
	}
	for newest.Sequence < min(to, end.Sequence) {
		session := p.link.current()
		more, err := p.someBehind(ctx, subject, newest)
		switch {
		case errors.Is(err, errSilent):
			p.deaf = session
			return upTo(all, to), false, nil
		case errors.Is(err, errUnanswered):
			return upTo(all, to), false, nil
		case err != nil:
			return nil, false, err
		}
		all = append(all, more...)
		newest = all[len(all)-1]
	}
	return upTo(all, to), true, nil
}

// someBehind is batch, and waits for the server. What came before a connection broke counts.
func (p *part) someBehind(ctx context.Context, subject string, m *stored) (more []*stored, err error) {
	err = p.persist(ctx, "reading", func() error {
		var err error
		if more, err = p.batch(ctx, subject, m); len(more) > 0 {
			return nil
		}
		return err
	})
	return more, err
}

// upTo leaves out the messages beyond a sequence.
func upTo(all []*stored, sequence uint64) []*stored {
	for len(all) > 0 && all[len(all)-1].Sequence > sequence {
		all = all[:len(all)-1]
	}
	return all
}

// The leader gives one message with each request; several are asked for at a time, since each answer takes its time.
const (
	readTogether = 16
	leastRead    = 64 // sequences that are worth a reader
)

// singles is batches of the leader alone, one by one.
func (p *part) singles(ctx context.Context, subject string, all []*stored, to uint64) ([]*stored, error) {
	from := all[len(all)-1].Sequence + 1
	if from > to {
		return all, nil
	}
	readers := min(max((to-from+1)/leastRead, 1), readTogether)
	each := (to - from + readers) / readers
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	found := make([][]*stored, readers)
	var done sync.WaitGroup
	for i := range readers {
		done.Go(func() {
			var err error
			begin := from + i*each
			if found[i], err = p.chain(ctx, subject, begin, min(begin+each-1, to)); err != nil {
				fail(err)
			}
		})
	}
	done.Wait()
	return append(all, slices.Concat(found...)...), context.Cause(ctx)
}

// chain reads the messages of a subject with sequences from..to, one after the other.
func (p *part) chain(ctx context.Context, subject string, from, to uint64) (all []*stored, err error) {
	for from <= to {
		m, err := p.ask(ctx, question{Seq: from, NextFor: subject})
		if err != nil {
			return nil, err
		}
		if m == nil || m.Sequence > to {
			break
		}
		all, from = append(all, m), m.Sequence+1
	}
	return all, nil
}

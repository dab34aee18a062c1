package http

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/operator"
)

// join makes this process the log's owner and its log and the copy equal. The copy decides: what a former owner has acknowledged is in it.
func (w *owner) join(ctx context.Context) error {
	s := w.log.state()
	w.term = s.Term + 1
	if w.keeper == nil {
		w.log.allow(s.End)
		return nil
	}
	wait := backoff{first: retryFirst, longest: retryLast}
	for {
		err := w.compare(ctx)
		if err == nil {
			w.log.allow(w.log.state().End)
			return nil
		}
		// A keeper that does not know the log, or the token, may be one that starts with a list that is being changed.
		final := errors.Is(err, operator.ErrPermanent) && !errors.Is(err, ErrAccess) && !errors.Is(err, ErrUnknownLog)
		if final || errors.Is(err, ErrReplaced) || w.log.failed() != nil || ctx.Err() != nil {
			return err
		}
		w.enter(phaseJoining, err)
		pause(ctx, wait.next(), nil)
	}
}

// compare raises the copy's fence to this owner's term, and then makes log and copy equal.
func (w *owner) compare(ctx context.Context) error {
	held, err := w.keeper.fence(ctx, w.term)
	if errors.Is(err, errStale) && held.Fence >= w.term {
		w.term = held.Fence + 1
		held, err = w.keeper.fence(ctx, w.term)
	}
	if err != nil {
		return err
	}
	own := w.log.state()
	if own.empty() && (held.End > held.Base || held.Base > own.Head.Base) {
		if err := w.log.reset(segmentHead{Base: held.Base, Line: held.BaseLine, Term: held.BaseTerm}); err != nil {
			return err
		}
		own = w.log.state()
	}
	if held.End > held.Base {
		if err := w.adopt(ctx, &own, &held); err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.mu.copied = held.End
	w.mu.Unlock()
	return w.ship(ctx)
}

// adopt takes over what the copy has beyond the log.
func (w *owner) adopt(ctx context.Context, own *state, held *copyState) error {
	same, ok := agreement(own.Terms, own.End, held.TermStarts, held.End)
	if !ok && own.empty() {
		same, ok = own.End, own.End >= held.Base
	}
	if !ok || same < own.Head.Base || same < held.Base {
		return fmt.Errorf("%w: the log has %d to %d, the copy %d to %d", ErrDiverged, own.Head.Base, own.End, held.Base, held.End)
	}
	if held.End == same {
		return nil // the log may have more, which the copy gets now
	}
	if own.End > same {
		if err := w.log.cut(same); err != nil {
			return err
		}
	}
	for at := same; at < held.End; {
		data, err := w.keeper.read(ctx, at)
		if err != nil {
			return err
		}
		if len(data) == 0 || eachRecord(data, func(int, *record) error { return nil }) != nil {
			return fmt.Errorf("http: %d bytes of the copy at position %d are not whole records", len(data), at)
		}
		if err := w.log.append(data); err != nil {
			return err
		}
		at += uint64(len(data))
	}
	return nil
}

// agreement gives the position up to which two logs hold the same: in one term one owner wrote, and one log only, so they agree up to the
// end of the newest term that both have, as far as both have it.
func agreement(a []termStart, aEnd uint64, b []termStart, bEnd uint64) (uint64, bool) {
	for i := len(a) - 1; i >= 0; i-- {
		j := slices.IndexFunc(b, func(t termStart) bool { return t.Term == a[i].Term })
		if j < 0 {
			continue
		}
		if i+1 < len(a) {
			aEnd = a[i+1].Start
		}
		if j+1 < len(b) {
			bEnd = b[j+1].Start
		}
		return min(aEnd, bEnd), true
	}
	return 0, false
}

// ship sends the keeper what it lacks, for as long as it takes, and returns when it has synced everything.
func (w *owner) ship(ctx context.Context) error {
	if w.keeper == nil {
		return nil
	}
	wait := backoff{first: retryFirst, longest: retryLast}
	w.mu.Lock()
	at := w.mu.copied
	w.mu.Unlock()
	for {
		own := w.log.state()
		if at == own.End {
			return nil
		}
		if at < own.Head.Base {
			at = own.Head.Base // of an empty copy: see shipOnce
		}
		held, err := w.shipOnce(ctx, &own, at)
		switch {
		case err == nil, errors.Is(err, errStale) && held.Fence <= w.term:
			if held.End > own.End || held.End < own.Head.Base && held.End > held.Base {
				return fmt.Errorf("%w: the log has %d to %d, the copy %d to %d", ErrDiverged, own.Head.Base, own.End, held.Base, held.End)
			}
			if held.End == at { // it took nothing, and says nothing of why
				pause(ctx, wait.next(), nil)
				continue
			}
			at = held.End
			w.arrived(at)
			wait.reset()
		case errors.Is(err, errStale):
			return fmt.Errorf("%w: its term is %d, this one's %d", ErrReplaced, held.Fence, w.term)
		case ctx.Err() != nil:
			return ctx.Err()
		case w.log.failed() != nil:
			return w.log.failed()
		default:
			w.alone(fmt.Errorf("%s, which keeps the copy, does not take it: %w", w.keeper.node.Name, err))
			pause(ctx, wait.next(), nil)
		}
	}
}

func (w *owner) shipOnce(ctx context.Context, own *state, at uint64) (copyState, error) {
	data, err := w.log.readAt(at, shipBytes)
	if err != nil {
		return copyState{}, err
	}
	return w.keeper.append(ctx, w.term, at, own.Head, data)
}

// arrived notes how far the copy is.
func (w *owner) arrived(at uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.copied = at
	if w.mu.phase == phaseAlone {
		w.mu.phase, w.mu.why = phaseReady, nil
	}
}

// alone says that the copy cannot be reached. While the owner joins, it goes on joining.
func (w *owner) alone(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.why = why
	if w.mu.phase == phaseReady {
		w.mu.phase = phaseAlone
	}
}

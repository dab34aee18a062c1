package operator

import (
	"context"
	"sync"
	"sync/atomic"
)

// wakes joins the Ready channels of a source's readers into one. It only wakes a task that has nothing to do: no output
// depends on when, or whether, it does, so this file alone in the package may start goroutines.
type wakes struct {
	ch      atomic.Pointer[chan struct{}]
	running sync.WaitGroup
}

// watch forwards what a reader's channel gets, until ctx ends. A nil channel is a reader that need not be waited for.
func (w *wakes) watch(ctx context.Context, ready <-chan struct{}) {
	if ready == nil {
		return
	}
	if w.ch.Load() == nil {
		ch := make(chan struct{}, 1)
		w.ch.Store(&ch)
	}
	out := *w.ch.Load()
	w.running.Add(1)
	go w.forward(ctx, ready, out)
}

func (w *wakes) forward(ctx context.Context, ready <-chan struct{}, out chan<- struct{}) {
	defer w.running.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-ready:
			select {
			case out <- struct{}{}:
			default:
			}
			if !ok {
				return
			}
		}
	}
}

// ready gives the joined channel, nil if no reader has one.
func (w *wakes) ready() <-chan struct{} {
	if ch := w.ch.Load(); ch != nil {
		return *ch
	}
	return nil
}

// wait returns when nothing is forwarded any more; the context must have ended.
func (w *wakes) wait() { w.running.Wait() }

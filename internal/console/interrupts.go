package console

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Interrupts watches for Ctrl-C and SIGTERM. The first one ends the context that it returns, so that the work can stop where it can
// go on later; a second one closes abort. The caller must call stop.
func Interrupts(ctx context.Context) (_ context.Context, abort <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	aborted, done := make(chan struct{}), make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for n := 0; n < 2; n++ {
			select {
			case <-signals:
			case <-done:
				return
			}
			if n == 0 {
				cancel()
			} else {
				close(aborted)
			}
		}
	})
	return ctx, aborted, func() {
		signal.Stop(signals)
		close(done)
		watching.Wait()
		cancel()
	}
}

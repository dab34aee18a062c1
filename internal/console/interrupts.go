package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/understudy-stream/understudy/cluster"
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

// Terminable returns a context that Ctrl-C and SIGTERM end. A second one kills the process. The caller must call stop.
func Terminable(ctx context.Context) (_ context.Context, stop func()) {
	ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// NodeCodes says how processes of a cluster exit.
const NodeCodes = `
Exit codes: 0 the job is done, or the process was sent away by stop or drain, 1 failed, 2 unusable arguments, 130 interrupted (the same
command continues).`

// Farewell says why a process ends that was sent away, which is no error.
func Farewell(out io.Writer, err error) error {
	for _, end := range []struct {
		is   bool
		text string
	}{
		{err == nil, "the job is done"},
		{errors.Is(err, cluster.ErrStopped), "the cluster was told to stop; the job goes on when its processes are started again"},
		{errors.Is(err, cluster.ErrDrained), "this worker was drained"},
	} {
		if end.is {
			_, err := fmt.Fprintln(out, end.text)
			return err
		}
	}
	return err
}

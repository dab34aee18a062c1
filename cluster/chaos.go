package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
)

// startChaos kills until the returned function is called.
func (l *Local) startChaos(ctx context.Context) (stop func()) {
	c := l.opts.Chaos
	if c == nil || c.Kill == 0 || l.complete {
		return func() {}
	}
	targets := c.Targets(TargetTask)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		rng := rand.New(rand.NewPCG(c.Seed, c.Seed))
		for kills := 0; c.Limit == 0 || kills < c.Limit; {
			wait := time.NewTimer(time.Duration(rng.ExpFloat64() * float64(c.Kill)))
			select {
			case <-ctx.Done():
				wait.Stop()
				return
			case <-wait.C:
			}
			killed := false
			if targets[rng.IntN(len(targets))] == TargetWorker {
				killed = l.KillWorker(rng.IntN(l.opts.Workers))
			} else {
				killed = l.KillTask(determinant.TaskID(rng.IntN(len(l.job.Tasks))))
			}
			if killed {
				kills++
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// KillTask kills one task where it runs; false if it does not run now.
func (l *Local) KillTask(t determinant.TaskID) bool {
	l.stats.measure(l) // what was counted dies with it
	for _, w := range l.workers() {
		if w != nil && w.worker.Kill(t, "chaos") {
			l.stats.killed("task")
			return true
		}
	}
	return false
}

// KillWorker kills the worker on a state directory with all that it has in memory, and starts another in its place. It
// returns when the new one has joined; false if none is there.
func (l *Local) KillWorker(dir int) bool {
	workers := l.workers()
	if dir >= len(workers) || workers[dir] == nil {
		return false
	}
	l.stats.measure(l)
	w := workers[dir]
	l.stats.killed("worker")
	now := time.Now()
	for t := range l.job.Tasks {
		if w.worker.Task(determinant.TaskID(t)) != nil {
			l.stats.noticed(determinant.TaskID(t), now)
		}
	}
	l.replace(w)
	return true
}

// replace stops a worker, which is declared dead, and starts another on its directory; false if the job was over before that.
func (l *Local) replace(w *localWorker) bool {
	if err := w.worker.Close(); err != nil {
		l.log("closing a stopped worker's stores", err)
	}
	l.do(func() { l.coord.Dead(w.worker.ID()) })
	if err := w.kill(); err != nil {
		l.log("closing a stopped worker's state", err)
	}
	return l.call(func() {
		if l.workers()[w.dir] != w {
			return // another kill of the same worker has replaced it
		}
		next, err := l.startWorker(w.dir)
		if err != nil {
			l.finish(fmt.Errorf("cluster: a worker cannot be started again: %w", err))
			return
		}
		l.coord.Join(next.worker.ID(), next.worker.Holdings())
	})
}

func taskName(vertex string, index int) string { return fmt.Sprintf("%s[%d]", vertex, index) }

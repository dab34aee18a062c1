package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/understudy-stream/understudy/determinant"
)

// Target is what chaos kills.
type Target string

// The targets. A task is killed alone, as by a panic; a worker with everything in it, as by kill -9: tasks, standbys, logs.
const (
	TargetTask   Target = "task"
	TargetWorker Target = "worker"
)

// Chaos kills at random, at a mean interval (exponentially distributed), so that recovery can be watched at work.
type Chaos struct {
	Kill   time.Duration
	Target Target
	Seed   uint64
	Limit  int // kills at most; 0 means no bound
}

// ParseChaos reads the form "kill=200ms,target=task,limit=10", of which only kill is required.
func ParseChaos(text string) (*Chaos, error) {
	c := &Chaos{Target: TargetTask}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "kill":
			d, err := time.ParseDuration(value)
			if err != nil || d <= 0 {
				return nil, fmt.Errorf("cluster: chaos: kill=%q is not a positive duration such as 200ms", value)
			}
			c.Kill = d
		case "target":
			c.Target = Target(value)
			if c.Target != TargetTask && c.Target != TargetWorker {
				return nil, fmt.Errorf("cluster: chaos: target=%q: want task or worker", value)
			}
		case "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("cluster: chaos: limit=%q: want a number from 1", value)
			}
			c.Limit = n
		default:
			return nil, fmt.Errorf("cluster: chaos: unknown key %q: want kill=DURATION,target=task|worker,limit=N", key)
		}
	}
	if c.Kill == 0 {
		return nil, fmt.Errorf("cluster: chaos: %q names no kill=DURATION", text)
	}
	return c, nil
}

// startChaos kills until the returned function is called.
func (l *Local) startChaos(ctx context.Context) (stop func()) {
	c := l.opts.Chaos
	if c == nil || l.complete {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		rng := rand.New(rand.NewPCG(c.Seed, c.Seed))
		for kills := 0; c.Limit == 0 || kills < c.Limit; kills++ {
			wait := time.NewTimer(time.Duration(rng.ExpFloat64() * float64(c.Kill)))
			select {
			case <-ctx.Done():
				wait.Stop()
				return
			case <-wait.C:
			}
			if c.Target == TargetWorker {
				l.KillWorker(rng.IntN(l.opts.Workers))
			} else {
				l.KillTask(determinant.TaskID(rng.IntN(len(l.job.Tasks))))
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
	for _, w := range l.workers() {
		if w != nil && w.worker.Kill(t, "chaos") {
			l.stats.killed("task")
			return true
		}
	}
	return false
}

// KillWorker kills the worker on a state directory with all that it has in memory, and starts another in its place. It
// returns when the new one has joined.
func (l *Local) KillWorker(dir int) {
	workers := l.workers()
	if dir >= len(workers) || workers[dir] == nil {
		return
	}
	w := workers[dir]
	l.stats.killed("worker")
	now := time.Now()
	for t := range l.job.Tasks {
		if w.worker.Task(determinant.TaskID(t)) != nil {
			l.stats.noticed(determinant.TaskID(t), now)
		}
	}
	if err := w.worker.Close(); err != nil {
		l.log("closing a killed worker's stores", err)
	}
	l.do(func() { l.coord.Dead(w.worker.ID()) })
	if err := w.kill(); err != nil {
		l.log("closing a killed worker's state", err)
	}
	done := make(chan struct{})
	l.do(func() {
		defer close(done)
		if l.workers()[dir] != w {
			return // another kill of the same worker has replaced it
		}
		next, err := l.startWorker(dir)
		if err != nil {
			l.finish(fmt.Errorf("cluster: a worker cannot be started again: %w", err))
			return
		}
		l.coord.Join(next.worker.ID(), next.worker.Holdings())
	})
	select {
	case <-done:
	case <-l.finished: // after a ledger that broke no job is run any more
	case <-l.events.done:
	}
}

func taskName(vertex string, index int) string { return fmt.Sprintf("%s[%d]", vertex, index) }

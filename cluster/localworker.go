package cluster

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/task"
)

// localWorker is a worker with the goroutines that drive it: one per task, one per link, one per sink, one for control
// messages and one for its disk. It implements Environment.
type localWorker struct {
	local   *Local
	worker  *Worker
	dir     int // which state directory it has
	control *mailbox
	disk    *mailbox
	ctx     context.Context // ends when the worker dies
	cancel  context.CancelFunc
	running sync.WaitGroup
	started time.Time
	once    sync.Once // of kill
	killed  error

	tasks []taskRunner   // by task
	sinks []atomic.Value // chan struct{}, by task; there when its goroutine runs
	mu    struct {
		sync.Mutex
		dead  bool
		links map[determinant.WorkerID]chan struct{}
	}
}

// taskRunner is the goroutine of one task.
type taskRunner struct {
	mu   sync.Mutex
	task *task.Task
	wake chan struct{}
}

// spawn runs f on a goroutine of the worker, unless it is dead.
func (lw *localWorker) spawn(f func()) {
	lw.mu.Lock()
	defer lw.mu.Unlock()
	if lw.mu.dead {
		return
	}
	lw.running.Go(f)
}

// WakeTask steps the task, on a goroutine of its own.
func (lw *localWorker) WakeTask(t determinant.TaskID) {
	r := &lw.tasks[t]
	r.mu.Lock()
	defer r.mu.Unlock()
	current := lw.worker.Task(t)
	if current != r.task && current != nil {
		if r.wake != nil {
			notify(r.wake) // the old one's goroutine sees that it is dead
		}
		r.task, r.wake = current, make(chan struct{}, 1)
		wake := r.wake
		lw.spawn(func() { lw.runTask(current, wake) })
	}
	if r.wake != nil {
		notify(r.wake)
	}
}

// runTask steps a task until it is dropped, and parks it while there is nothing to do.
func (lw *localWorker) runTask(t *task.Task, wake chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for lw.ctx.Err() == nil {
		if lw.worker.Step(t) {
			// With more busy tasks than processors, whoever carries control messages would otherwise wait for a full time
			// slice of each of them, some 10 ms: a recovery has half a dozen such hops.
			runtime.Gosched()
			continue
		}
		if lw.worker.Dead(t) {
			break
		}
		if at, ok := t.NextTimer(); ok { // false while a due timer could not fire: what it waits for wakes the task
			timer.Reset(time.Duration(max(0, at-lw.local.opts.Clock())) * time.Millisecond)
		}
		select {
		case <-wake:
		case <-timer.C:
		case <-t.Ready():
		case <-lw.ctx.Done():
		}
	}
	if err := t.Close(); err != nil {
		lw.local.log("closing a task", err)
	}
}

// WakeSink writes a sink task's output, on a goroutine of its own.
func (lw *localWorker) WakeSink(t determinant.TaskID) {
	wake, _ := lw.sinks[t].Load().(chan struct{})
	if wake == nil {
		wake = make(chan struct{}, 1)
		if lw.sinks[t].CompareAndSwap(nil, wake) {
			lw.spawn(func() { lw.runSink(t, wake) })
		} else {
			wake = lw.sinks[t].Load().(chan struct{})
		}
	}
	notify(wake)
}

func (lw *localWorker) runSink(t determinant.TaskID, wake chan struct{}) {
	for {
		select {
		case <-wake:
		case <-lw.ctx.Done():
			return
		}
		for lw.ctx.Err() == nil {
			wrote, err := lw.worker.WriteSink(lw.ctx, t)
			if err != nil {
				lw.local.log("writing to a sink", err)
			}
			if !wrote {
				break
			}
		}
	}
}

// WakeLink sends what there is for a peer, on a goroutine of its own.
func (lw *localWorker) WakeLink(peer determinant.WorkerID) {
	lw.mu.Lock()
	wake := lw.mu.links[peer]
	if wake == nil && !lw.mu.dead {
		wake = make(chan struct{}, 1)
		lw.mu.links[peer] = wake
		w := wake
		lw.running.Go(func() { lw.runLink(peer, w) })
	}
	lw.mu.Unlock()
	if wake != nil {
		notify(wake)
	}
}

func (lw *localWorker) runLink(peer determinant.WorkerID, wake chan struct{}) {
	for {
		select {
		case <-wake:
		case <-lw.ctx.Done():
			return
		}
		for lw.ctx.Err() == nil {
			m := lw.worker.Write(peer)
			if m == nil {
				break
			}
			if to := lw.local.worker(peer); to != nil {
				to.worker.Receive(m)
			}
		}
	}
}

// Tell delivers a control message.
func (lw *localWorker) Tell(to determinant.WorkerID, m Control) {
	if peer := lw.local.worker(to); peer != nil {
		peer.control.post(func() { peer.worker.Control(m) })
	}
}

// Report delivers an event to the coordinator.
func (lw *localWorker) Report(r Report) { lw.local.report(lw.worker.ID(), r) }

// Disk runs a job after all earlier ones.
func (lw *localWorker) Disk(job func()) { lw.disk.post(job) }

// Background runs a job on a goroutine of its own.
func (lw *localWorker) Background(job func()) { lw.spawn(job) }

// Observe counts what happens.
func (lw *localWorker) Observe(o Observation) { lw.local.stats.observe(o, time.Now()) }

// kill ends the worker as a kill -9 would: nothing that it has under way counts.
func (lw *localWorker) kill() error {
	lw.once.Do(func() { lw.killed = lw.end() })
	return lw.killed
}

func (lw *localWorker) end() error {
	// The worker first: no task is installed any more, and none of those that run closes logs that are still read.
	err := lw.worker.Close()
	lw.mu.Lock()
	lw.mu.dead = true
	lw.mu.Unlock()
	lw.cancel()
	lw.control.close()
	lw.disk.close()
	lw.running.Wait()
	if cerr := lw.worker.opts.State.Close(); err == nil {
		err = cerr
	}
	return err
}

// calls runs the external calls of one task.
type calls struct {
	lw   *localWorker
	task determinant.TaskID
}

// Start runs do on a goroutine of its own. How many run at once is bounded by the operator that issues them.
func (c *calls) Start(do task.Call, done func(result []byte, err error)) {
	c.lw.spawn(func() {
		done(do(c.lw.ctx))
		c.lw.WakeTask(c.task)
	})
}

func entropy() uint64 { return rand.Uint64() }

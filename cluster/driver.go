package cluster

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/task"
)

// driver has the goroutines of a worker that do not depend on where its peers are: one per task, one per sink, one for
// control messages and one for its disk. It is the inner half of an Environment.
type driver struct {
	worker  *Worker // set once, before anything is woken
	clock   func() int64
	log     func(what string, err error)
	control *mailbox
	disk    *diskQueue
	ctx     context.Context // ends when the worker dies
	cancel  context.CancelFunc
	running sync.WaitGroup
	once    sync.Once // of kill
	killed  error

	tasks []taskRunner   // by task
	sinks []atomic.Value // chan struct{}, by task; there when its goroutine runs
	mu    struct {
		sync.Mutex
		dead bool
	}
}

// taskRunner is the goroutine of one task.
type taskRunner struct {
	mu   sync.Mutex
	task *task.Task
	wake chan struct{}
	// sealed is when the task last sealed because it had nothing else to do, in nanoseconds; see Hold.
	sealed atomic.Int64
	slow   atomic.Bool // its last step took longer than a linger
}

// linger is how long a task may keep what it has put out. It is for tasks that are busy without being late: each would cut what it gets
// in little pieces into pieces that are smaller still, and a piece costs as much to send and to take as dozens of records.
const linger = 4 * time.Millisecond

// busy is how long a task that has always something to do may keep what it has put out. Its steps are as large as what waits for it: those in
// which a task makes up for a recovery take some milliseconds each, and nobody sees anything of a query with few rows for as long.
const busy = 10 * time.Millisecond

// turn is how long a task that replays may go on without making way for others. Its steps are as small as they were when they were logged, and
// after each it would wait for a turn of everything that restores or exports state in the background.
const turn = 2 * time.Millisecond

// Hold lets a task that has nothing else to do seal once in a linger: at once after a pause, so that nothing is late when little
// happens. One whose user's code takes its time seals at once too: the next step may begin in a moment, and nothing is sealed before it
// ends.
func (d *driver) Hold(t determinant.TaskID) bool {
	r, now := &d.tasks[t], time.Since(driversBegan)
	if !r.slow.Load() && now-time.Duration(r.sealed.Load()) < linger {
		return true
	}
	r.sealed.Store(int64(now))
	return false
}

// driversBegan is where the monotonic time of Hold begins: long enough ago that the first seal is never held.
var driversBegan = time.Now().Add(-linger)

func newDriver(tasks int, clock func() int64, log func(what string, err error)) *driver {
	ctx, cancel := context.WithCancel(context.Background())
	return &driver{
		clock: clock, log: log, control: newMailbox(), disk: newDiskQueue(), ctx: ctx, cancel: cancel,
		tasks: make([]taskRunner, tasks), sinks: make([]atomic.Value, tasks),
	}
}

// spawn runs f on a goroutine of the worker, unless it is dead.
func (d *driver) spawn(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.dead {
		return
	}
	d.running.Go(f)
}

// WakeTask steps the task, on a goroutine of its own.
func (d *driver) WakeTask(t determinant.TaskID) {
	r := &d.tasks[t]
	r.mu.Lock()
	defer r.mu.Unlock()
	current := d.worker.Task(t)
	if current != r.task && current != nil {
		if r.wake != nil {
			notify(r.wake) // the old one's goroutine sees that it is dead
		}
		r.task, r.wake = current, make(chan struct{}, 1)
		wake := r.wake
		d.spawn(func() { d.runTask(current, wake) })
	}
	if r.wake != nil {
		notify(r.wake)
	}
}

// runTask steps a task until it is dropped, and parks it while there is nothing to do.
func (d *driver) runTask(t *task.Task, wake chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	slow := &d.tasks[t.ID()].slow
	fresh, since := true, time.Time{} // whether a turn begins, and when the last did
	flushed := time.Now()
	for d.ctx.Err() == nil {
		began := time.Now()
		if fresh {
			fresh, since = false, began
		}
		if d.worker.Step(t) {
			ended := time.Now()
			slow.Store(ended.Sub(began) > linger)
			if ended.Sub(flushed) > busy {
				t.Flush()
				flushed = ended
			}
			if t.Replaying() && ended.Sub(since) < turn {
				continue
			}
			fresh = true
			// With more busy tasks than processors, whoever carries control messages would otherwise wait for a full time
			// slice of each of them, some 10 ms: a recovery has half a dozen such hops.
			runtime.Gosched()
			continue
		}
		if d.worker.Dead(t) {
			break
		}
		wait := time.Duration(math.MaxInt64)
		if at, ok := t.NextTimer(); ok { // false while a due timer could not fire: what it waits for wakes the task
			wait = time.Duration(max(0, at-d.clock())) * time.Millisecond
		}
		if t.Soon() {
			wait = min(wait, linger)
		}
		if wait < math.MaxInt64 {
			timer.Reset(wait)
		}
		fresh = true
		select {
		case <-wake:
		case <-timer.C:
		case <-t.Ready():
		case <-d.ctx.Done():
		}
		flushed = time.Now()
	}
	if err := t.Close(); err != nil {
		d.log("closing a task", err)
	}
}

// WakeSink writes a sink task's output, on a goroutine of its own.
func (d *driver) WakeSink(t determinant.TaskID) {
	wake, _ := d.sinks[t].Load().(chan struct{})
	if wake == nil {
		wake = make(chan struct{}, 1)
		if d.sinks[t].CompareAndSwap(nil, wake) {
			d.spawn(func() { d.runSink(t, wake) })
		} else {
			wake = d.sinks[t].Load().(chan struct{})
		}
	}
	notify(wake)
}

func (d *driver) runSink(t determinant.TaskID, wake chan struct{}) {
	for {
		select {
		case <-wake:
		case <-d.ctx.Done():
			return
		}
		for d.ctx.Err() == nil {
			wrote, err := d.worker.WriteSink(d.ctx, t)
			if err != nil {
				d.log("writing to a sink", err)
			}
			if !wrote {
				break
			}
		}
	}
}

// Disk runs a job after all earlier ones.
func (d *driver) Disk(job func()) { d.disk.alone(job) }

// DiskBeside runs a job after all earlier ones of Disk.
func (d *driver) DiskBeside(job func()) { d.disk.beside(job) }

// Background runs a job on a goroutine of its own.
func (d *driver) Background(job func()) { d.spawn(job) }

// kill ends the worker as a kill -9 would: nothing that it has under way counts.
func (d *driver) kill() error {
	d.once.Do(func() { d.killed = d.end() })
	return d.killed
}

func (d *driver) end() error {
	// The worker first: no task is installed any more, and none of those that run closes logs that are still read.
	err := d.worker.Close()
	d.mu.Lock()
	d.mu.dead = true
	d.mu.Unlock()
	d.cancel()
	d.control.close()
	d.disk.close()
	d.running.Wait()
	if cerr := d.worker.opts.State.Close(); err == nil {
		err = cerr
	}
	return err
}

// calls runs the external calls of one task.
type calls struct {
	driver *driver
	task   determinant.TaskID
}

// Start runs do on a goroutine of its own. How many run at once is bounded by the operator that issues them.
func (c *calls) Start(do task.Call, done func(result []byte, err error)) {
	c.driver.spawn(func() {
		done(do(c.driver.ctx))
		c.driver.WakeTask(c.task)
	})
}

func entropy() uint64 { return rand.Uint64() }

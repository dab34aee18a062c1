package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// imageKeeper is a worker that stores images of a task. That it stores those of another says nothing: they may be smaller than the room
// that is left.
type imageKeeper struct {
	worker determinant.WorkerID
	task   determinant.TaskID
}

// unstored is what a worker could not store of a task since it stored an image of it.
type unstored struct {
	tries int
	epoch determinant.Epoch // the newest of which it could not
	err   string
}

// stores tells whether a worker is counted on to store images of a task.
func (c *Coordinator) stores(w determinant.WorkerID, t determinant.TaskID) bool {
	return c.unstored[imageKeeper{w, t}].tries < maxUnstored
}

// imageStored forgets what a worker could not store of a task. That it had stored an older image it may say again when it registers.
func (c *Coordinator) imageStored(a *checkpoint.Ack) {
	keeper := imageKeeper{a.Worker, a.Task}
	u, known := c.unstored[keeper]
	if !known || a.Epoch < u.epoch {
		return
	}
	delete(c.unstored, keeper)
	if u.tries >= maxUnstored {
		c.recovery(standby.Unkept{Worker: a.Worker, Task: a.Task, Off: true})
	}
}

// imageFailed handles a worker that cannot store what checkpoints need. After a few tries a standby is not counted on until it
// stores an image of the task again, and another is put beside it; a primary has failed: its task moves to another worker.
func (c *Coordinator) imageFailed(f *checkpoint.Failed) {
	keeper := imageKeeper{f.Worker, f.Task}
	last := c.unstored[keeper]
	u := unstored{last.tries + 1, max(last.epoch, f.Epoch), f.Err}
	c.unstored[keeper] = u
	if u.tries <= maxUnstored { // from then on Unstored lists it
		c.waiting(fmt.Sprintf("worker %d cannot store checkpoint %d of task %d: %s", f.Worker, f.Epoch, f.Task, f.Err))
	}
	if u.tries < maxUnstored {
		c.checkpoints(*f)
		return
	}
	if u.tries == maxUnstored {
		c.recovery(standby.Unkept{Worker: f.Worker, Task: f.Task})
	}
	if c.view.Places[f.Task].Worker == f.Worker {
		c.checkpoints(*f)
		c.taskFailed(&TaskFailure{Task: f.Task, Incarnation: f.Incarnation, Worker: f.Worker, Err: errors.New(f.Err)})
		return
	}
	c.placed()
}

// Unstored lists which standbys are not counted on, because they cannot store images of their task, and why.
func (c *Coordinator) Unstored() []string {
	var why []string
	for k, u := range c.unstored { //lint:sorted sorted below
		if u.tries >= maxUnstored && slices.Contains(c.view.Places[k.task].Standbys, k.worker) {
			why = append(why, fmt.Sprintf("worker %d cannot store checkpoints of %s, and does not count as its standby: %s",
				k.worker, nameOf(c.job, k.task), u.err))
		}
	}
	slices.Sort(why)
	return why
}

// fullDisk is what a worker process itself cannot store, for its log and its health.
type fullDisk struct {
	sync.Mutex
	errs map[determinant.TaskID]checkpoint.Failed // the newest of each task, unless an image of it was stored since
}

// note takes what the worker reports. It tells whether it is the first of its task that was not stored.
func (d *fullDisk) note(r *Report) bool {
	d.Lock()
	defer d.Unlock()
	switch {
	case r.Ack != nil:
		if f, known := d.errs[r.Ack.Task]; known && r.Ack.Epoch >= f.Epoch {
			delete(d.errs, r.Ack.Task)
		}
	case r.AckFailed != nil:
		last, known := d.errs[r.AckFailed.Task]
		if d.errs == nil {
			d.errs = map[determinant.TaskID]checkpoint.Failed{}
		}
		if last.Epoch <= r.AckFailed.Epoch {
			d.errs[r.AckFailed.Task] = *r.AckFailed
		}
		return !known
	}
	return false
}

// why says what is wrong with the disk; empty if nothing is.
func (d *fullDisk) why() string {
	d.Lock()
	defer d.Unlock()
	least, found := determinant.TaskID(0), false
	for t := range d.errs { //lint:sorted the least is taken
		if !found || t < least {
			least, found = t, true
		}
	}
	if !found {
		return ""
	}
	return fmt.Sprintf("checkpoints of %d tasks cannot be stored: %s", len(d.errs), d.errs[least].Err)
}

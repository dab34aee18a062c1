package cluster

import (
	"errors"
	"fmt"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// maxWaiting bounds the images that wait for their base to be committed here.
const maxWaiting = 64

// asking is a question for the committed state of a task, as of a checkpoint.
type asking struct {
	worker      determinant.WorkerID
	incarnation determinant.Incarnation
	epoch       determinant.Epoch
}

// owing is an answer that this worker could not give yet.
type owing struct {
	to   determinant.WorkerID
	task determinant.TaskID
}

// covers tells whether the answer to a question makes another one needless: it is on its way, and with the images that come beside it, it is enough.
func (a asking) covers(o asking) bool {
	return a.worker == o.worker && a.incarnation == o.incarnation && o.epoch <= a.epoch+1
}

// assigned notes a new standby. If it is this worker it gets the committed state, unless it has it.
func (w *Worker) assigned(a *standby.AssignStandby) {
	p := &w.mu.view.Places[a.Task]
	if a.Incarnation != p.Incarnation || slices.Contains(p.Standbys, a.Worker) {
		return
	}
	p.Standbys = append(slices.Clone(p.Standbys), a.Worker)
	slices.Sort(p.Standbys)
	if a.Worker == w.id {
		w.mu.untold[a.Task] = true
		w.env.Disk(func() { w.refresh(a.Task) })
	}
	h := w.tasks[a.Task].Load()
	if h == nil || h.inc != a.Incarnation {
		return
	}
	for _, p := range h.acks {
		if p.image != nil { // otherwise it is shipped when it is made
			w.env.Tell(a.Worker, Control{From: w.id, Image: w.imageOf(a.Task, p.image)})
		}
	}
}

// released forgets a standby that is not needed any more. What it holds stays on its disk.
func (w *Worker) released(r *standby.ReleaseStandby) {
	if p := &w.mu.view.Places[r.Task]; r.Incarnation == p.Incarnation {
		p.Standbys = slices.DeleteFunc(slices.Clone(p.Standbys), func(id determinant.WorkerID) bool { return id == r.Worker })
		if s := w.warmOf(r.Task); s != nil && r.Worker == w.id {
			w.env.Background(func() { w.cool(r.Task, s) }) // which may wait for an image that is applied
		}
	}
}

// imageOf puts an image into an envelope. w.mu is held.
func (w *Worker) imageOf(t determinant.TaskID, image []byte) *Image {
	return &Image{Task: t, Generation: w.mu.view.Generation, Bytes: image}
}

// imageCame takes an image that came for this worker as a standby. One that was made after a rollback which has not come
// here yet waits for it: otherwise it would be acknowledged, and then dropped by the rollback. w.mu is held.
func (w *Worker) imageCame(m Control) {
	switch generation := w.mu.view.Generation; {
	case m.Image.Full:
		w.env.Disk(func() { w.keep(m.From, m.Image) })
	case m.Image.Generation == generation:
		w.env.DiskBeside(func() { w.keep(m.From, m.Image) })
	case m.Image.Generation > generation && len(w.mu.images) < maxWaiting:
		w.mu.images = append(w.mu.images, m)
	}
}

// refresh reports that the committed state of task t is here, or asks its primary for it. It runs among the disk jobs.
func (w *Worker) refresh(t determinant.TaskID) {
	held := w.opts.State.Held(t)
	w.mu.Lock()
	p := w.mu.view.Places[t]
	_, inc := w.mu.view.base(t)
	committed := w.mu.view.committed()
	mine, current := !w.mu.closed && slices.Contains(p.Standbys, w.id), held == committed
	if ask := (asking{p.Worker, p.Incarnation, committed}); mine && !current && w.mu.view.live(p.Worker) && !w.mu.asked[t].covers(ask) {
		w.mu.asked[t] = ask
		w.env.Tell(p.Worker, Control{From: w.id, Want: &Want{Task: t}})
	}
	w.mu.Unlock()
	if mine && current {
		w.holdReady(t, held, inc, func() { w.refreshed(t) })
	}
}

// export sends a new standby the committed state of a task.
func (w *Worker) export(to determinant.WorkerID, t determinant.TaskID) {
	_, steady := w.worthwhile(t)
	image, err := w.opts.State.Export(t)
	if errors.Is(err, checkpoint.ErrNotHeld) { // it will be when the next checkpoint is folded
		if o := (owing{to, t}); !slices.Contains(w.owed, o) {
			w.owed = append(w.owed, o)
		}
		return
	}
	if err != nil {
		w.diskFailed(err)
		return
	}
	w.env.Tell(to, Control{From: w.id, Image: &Image{Task: t, Bytes: image, Full: true, Steady: steady}})
}

// keep stores an image beside the committed state, as a standby, and acknowledges it.
func (w *Worker) keep(from determinant.WorkerID, m *Image) {
	meta, full, err := checkpoint.DecodeMeta(m.Bytes)
	if m.Full {
		w.mu.Lock()
		w.mu.asked[m.Task] = asking{}
		w.mu.Unlock()
	}
	if err == nil && meta.Task != m.Task {
		err = fmt.Errorf("%w: an image of task %d, sent as one of task %d", errMalformed, meta.Task, m.Task)
	}
	if err == nil {
		if m.Full {
			err = w.opts.State.Import(m.Bytes)
		} else {
			err = w.opts.State.Put(m.Bytes)
		}
	}
	switch {
	case err == nil && m.Full:
		if refreshed := func() { w.refreshed(m.Task) }; m.Steady {
			w.holdReady(m.Task, meta.Epoch, meta.Incarnation, refreshed)
		} else {
			refreshed()
		}
		w.retryWaiting()
	case err == nil:
		w.stored(meta, full, m.Bytes)
		w.report(Report{Ack: &checkpoint.Ack{
			Task: m.Task, Incarnation: meta.Incarnation, Epoch: meta.Epoch, Worker: w.id, Ended: meta.Ended, Log: meta.Log,
			Bytes: int64(len(m.Bytes)),
		}})
	case errors.Is(err, checkpoint.ErrBase):
		w.mu.Lock()
		if len(w.mu.waiting) < maxWaiting {
			w.mu.waiting = append(w.mu.waiting, m.Bytes)
		}
		w.mu.Unlock()
		w.refresh(m.Task)
	case errors.Is(err, checkpoint.ErrStale):
		w.refreshed(m.Task)
	default:
		w.report(Report{AckFailed: &checkpoint.Failed{
			Task: m.Task, Incarnation: meta.Incarnation, Epoch: meta.Epoch, Worker: w.id, Err: err.Error(),
		}})
	}
}

// refreshed reports what is held of a task after an import. What is about to be held ready is reported when it is.
func (w *Worker) refreshed(t determinant.TaskID) {
	if s := w.warmOf(t); s != nil && s.is(warmReading) {
		return
	}
	w.mu.Lock()
	delete(w.mu.untold, t)
	w.mu.Unlock()
	w.report(Report{Holding: &standby.Holding{Worker: w.id, Task: t, Epoch: w.opts.State.Held(t)}})
}

// retryWaiting offers the images again whose base was not here. One whose checkpoint was committed meanwhile is committed, too.
func (w *Worker) retryWaiting() {
	w.mu.Lock()
	waiting, complete := w.mu.waiting, w.mu.view.Complete
	w.mu.waiting = nil
	committed := w.mu.view.committed()
	w.mu.Unlock()
	var late []determinant.TaskID
	for _, image := range waiting {
		meta, _, err := checkpoint.DecodeMeta(image)
		if err != nil || meta.Epoch < w.folded {
			continue
		}
		w.keep(0, &Image{Task: meta.Task, Bytes: image})
		if meta.Epoch == w.folded {
			late = append(late, meta.Task)
		}
	}
	if len(late) == 0 || committed != w.folded { // another commit is about to come
		return
	}
	if err := w.opts.State.Commit(committed, livesOf(complete)); err != nil {
		w.diskFailed(err)
		return
	}
	w.keepWarm(complete)
	for _, t := range late {
		if w.opts.State.Held(t) == committed {
			w.refreshed(t)
		}
	}
}

// fold makes checkpoint c the committed state of every task that this worker holds. A standby that has missed an image asks
// for the whole; one that has an image which the checkpoint does not count on, from a former process on its directory, says
// so.
func (w *Worker) fold(c *checkpoint.Complete) {
	e := c.Epoch
	if err := w.opts.State.Commit(e, livesOf(c)); err != nil {
		w.diskFailed(err)
		return
	}
	w.folded = e
	for _, t := range c.Tasks {
		if !slices.Contains(t.Holders, w.id) && w.opts.State.Held(t.Task) == e {
			w.refreshed(t.Task)
		}
	}
	w.retryWaiting()
	w.mu.Lock()
	mine, committed := w.standsBy(), w.mu.view.committed()
	w.mu.Unlock()
	w.keepWarm(c)
	for _, t := range mine {
		switch held := w.opts.State.Held(t); {
		case committed == e && held < e:
			w.refresh(t)
		case held == e && w.isUntold(t):
			w.refreshed(t)
		}
	}
	owed := w.owed
	w.owed = nil
	for _, o := range owed {
		w.export(o.to, o.task)
	}
}

// standsBy lists the tasks that this worker is a standby of. w.mu is held.
func (w *Worker) standsBy() (mine []determinant.TaskID) {
	for t, p := range w.mu.view.Places {
		if slices.Contains(p.Standbys, w.id) {
			mine = append(mine, determinant.TaskID(t))
		}
	}
	return mine
}

// isUntold tells whether the state of a task that this worker has become a standby of is still to be reported.
func (w *Worker) isUntold(t determinant.TaskID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.untold[t]
}

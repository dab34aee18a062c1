package sim

import (
	"context"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
)

// patience is how many steps a job may take to end after the last fault.
const patience = 200_000

// tick makes one step: faults that are due, then one action.
func (w *World) tick() {
	w.step++
	w.faults.tick()
	w.drains.tick()
	w.modes.tick()
	w.act()
	w.growth.tick()
	w.checks.tick()
	if w.step%64 > 0 {
		return
	}
	w.history.bury()
	switch quiet := w.faults.quiet(); {
	case w.opts.NoCheckpoints && quiet >= w.opts.Settle:
		w.over = true
	case quiet > w.opts.Patience:
		w.violate("no-progress", "%s", w.stuck())
	}
}

// act picks one action by the seed. One that finds nothing to do is a step all the same.
func (w *World) act() {
	x := w.rng.IntN(100 + w.plan.disk)
	switch {
	case x < 30:
		w.stepTask()
	case x < 46:
		w.writeLink()
	case x < 62:
		w.deliver()
	case x < 65:
		w.deliverLetters()
	case x < 68:
		w.deliverOrders()
	case x < 74:
		w.deliverNotices()
	case x < 79:
		w.metadata.step()
	case x < 85:
		w.applyEntry()
	case x < 90:
		w.writeSink()
	case x < 92:
		w.background()
	case x < 94:
		w.answerCall()
	case x < 97:
		w.metadata.tick()
	case x < 100:
		w.now += w.rng.Int64N(4)
	default:
		w.diskJob()
	}
}

// pickProcess picks a worker that acts now; nil if it finds none.
func (w *World) pickProcess() *process {
	if p := w.pickAny(); p != nil && p.worker != nil {
		return p
	}
	return nil
}

// pickAny picks a process that acts now, also one that has no worker yet; nil if it finds none.
func (w *World) pickAny() *process {
	var list []*process
	for _, p := range w.processes {
		if p.alive && p.pausedUntil <= w.step {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[w.rng.IntN(len(list))]
}

func (w *World) stepTask() {
	p := w.pickProcess()
	if p == nil {
		return
	}
	first := w.rng.IntN(len(w.job.Tasks))
	for i := range w.job.Tasks {
		id := determinant.TaskID((first + i) % len(w.job.Tasks))
		t := p.worker.Task(id)
		if t == nil {
			continue
		}
		progress := p.worker.Step(t)
		w.history.stepped(p, t)
		if progress {
			return
		}
	}
}

func (w *World) writeSink() {
	p := w.pickProcess()
	if p == nil || w.inside {
		return
	}
	sinks := w.sinks()
	t := sinks[w.rng.IntN(len(sinks))]
	w.writing = p
	_, err := p.worker.WriteSink(context.Background(), t)
	w.writing = nil
	if err != nil {
		w.trace("worker %d: sink %d: %v", p.id, t, err)
	}
}

// sinks lists the tasks that have an external output.
func (w *World) sinks() []determinant.TaskID {
	var ids []determinant.TaskID
	for _, t := range w.job.Tasks {
		if t.External {
			ids = append(ids, t.ID)
		}
	}
	return ids
}

// meanwhile lets the world go on in the middle of a call of a store.
func (w *World) meanwhile(t determinant.TaskID) {
	if w.inside || !w.chance(6) {
		return
	}
	w.inside = true
	n := w.rng.IntN(60)
	if w.chance(5) {
		n = w.rng.IntN(600)
	}
	w.trace("store of task %d is slow", t)
	writer := w.writing
	for range n {
		w.tick()
	}
	w.writing = writer
	w.inside = false
}

// torn says how many records of a write become visible before it is interrupted: because the writer died in the middle, or
// by a fault. It is negative for a write that succeeds.
func (w *World) torn(writer *process, n int) int {
	if !writer.alive || w.faults.breakWrite() {
		k := w.rng.IntN(n + 1)
		w.trace("a store write of worker %d breaks off after %d of %d records", writer.id, k, n)
		return k
	}
	return -1
}

func (w *World) applyEntry() {
	p := w.pickAny()
	switch {
	case p == nil:
	case p.session == nil:
		p.connect()
	default:
		p.applyNext()
	}
}

func (w *World) diskJob() {
	if p := w.pickProcess(); p != nil && len(p.disk) > 0 && p.diskUntil <= w.step && !p.diskBusy {
		first := slices.IndexFunc(p.disk, func(j diskJob) bool { return !j.beside }) // it waits for those before it
		if first < 0 {
			first = len(p.disk)
		}
		i := w.rng.IntN(max(1, first))
		job := p.disk[i]
		p.disk = slices.Delete(p.disk, i, i+1)
		p.diskBusy = true
		job.run()
		p.diskBusy = false
	}
}

// diskJob is one for a worker's disk. Several that may run beside one another run in any order.
type diskJob struct {
	run    func()
	beside bool
}

func (w *World) background() {
	if p := w.pickProcess(); p != nil && len(p.jobs) > 0 {
		i := w.rng.IntN(len(p.jobs))
		job := p.jobs[i]
		p.jobs = append(p.jobs[:i:i], p.jobs[i+1:]...)
		job()
	}
}

func (w *World) answerCall() {
	if p := w.pickProcess(); p != nil && len(p.calls) > 0 {
		i := w.rng.IntN(len(p.calls))
		c := p.calls[i]
		p.calls = append(p.calls[:i:i], p.calls[i+1:]...)
		c.done(c.do(context.Background()))
	}
}

package sim

import (
	"math/rand/v2"
	"slices"

	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/standby"
)

// gentle are the faults that cost nobody its life.
const gentle = Pause | SlowDisk | BreakLink | CutLink | BreakSession |
	ChangeLeader | KillLeader | KillCoordinator | PauseLeader | ChangeWhileDeciding

// Bounds of drains, in steps.
const (
	drainRetry    = 100     // after which whoever wants a drain asks again
	drainPatience = 150_000 // after which a drain must be done if nothing else is wrong
)

// drains frees workers for maintenance, one here and one there, by a seed of their own: runs without them stay as they are. A
// worker that is drained is mostly stopped, and started again as another; some drains are taken back.
type drains struct {
	world *World
	rng   *rand.Rand
	due   []int // steps, rising
	open  []*drain
	calm  bool // nobody dies in this run, but after a drain

	stopped []determinant.WorkerID // after they were drained
}

// drain is the wish to stop a worker.
type drain struct {
	process *process
	began   int
	asked   int
	revoke  int // step at which it is taken back; 0: never
	stop    int // step at which the drained worker is stopped; 0: not drained yet
}

func newDrains(w *World) *drains {
	o := &w.opts
	d := &drains{
		world: w, rng: rand.New(rand.NewPCG(o.Seed, 20250619)),
		calm: o.Script == nil && o.Kinds != 0 && o.Kinds&^gentle == 0,
	}
	for range o.Drains {
		d.due = append(d.due, 50+d.rng.IntN(4000))
	}
	slices.Sort(d.due)
	return d
}

// tick asks for drains that are due and follows those that were asked for.
func (d *drains) tick() {
	w := d.world
	for len(d.due) > 0 && d.due[0] <= w.step {
		d.due = d.due[1:]
		d.begin()
	}
	d.open = slices.DeleteFunc(d.open, d.follow)
}

func (d *drains) begin() {
	w := d.world
	sound := slices.DeleteFunc(w.faults.sound(), func(p *process) bool {
		return slices.ContainsFunc(d.open, func(o *drain) bool { return o.process == p })
	})
	if len(sound) == 0 {
		return
	}
	o := &drain{process: sound[d.rng.IntN(len(sound))], began: w.step, asked: w.step - drainRetry}
	if d.rng.IntN(5) == 0 {
		o.revoke = w.step + 1 + d.rng.IntN(2000)
	}
	d.open = append(d.open, o)
	w.trace("worker %d is to be drained", o.process.id)
}

// follow asks until the drain is done, and then stops the worker; true when the drain is over.
func (d *drains) follow(o *drain) (over bool) {
	w, leader := d.world, d.world.metadata.leader()
	if !o.process.sound() {
		return true // it has died, as workers do
	}
	if leader == nil {
		return false
	}
	c := leader.coordinator
	i := slices.IndexFunc(c.Drains(), func(s standby.DrainStatus) bool { return s.Worker == o.process.id })
	switch {
	case o.revoke > 0 && o.revoke <= w.step:
		if i < 0 {
			return true
		}
		if w.step >= o.asked+drainRetry {
			o.asked = w.step
			w.trace("the drain of worker %d is taken back", o.process.id)
			return c.Undrain(o.process.id) != nil
		}
	case i < 0:
		o.stop = 0
		if w.step >= o.asked+drainRetry {
			o.asked = w.step
			return c.Drain(o.process.id) != nil
		}
	case !c.Drains()[i].Done:
		o.stop = 0
		if w.step > max(o.began, w.faults.last)+drainPatience && d.calm && len(w.faults.sound()) > len(d.open) {
			w.violate("drain", "worker %d is not drained: %s", o.process.id, c.Drains()[i].Why)
		}
	case o.stop == 0 && leader.applied < len(w.metadata.entries): // the ledger may say otherwise by now
	case o.stop == 0:
		d.check(o.process)
		o.stop = w.step + d.rng.IntN(300)
		w.result.Drained++
		w.trace("worker %d is drained", o.process.id)
	case o.stop <= w.step:
		d.stopped = append(d.stopped, o.process.id)
		w.kill(o.process)
		return true
	}
	return false
}

// check checks that nothing depends on a worker that was drained.
func (d *drains) check(p *process) {
	for _, place := range d.world.metadata.places {
		if place.Worker == p.id || place.From == p.id || slices.Contains(place.Standbys, p.id) {
			d.world.violate("drain", "worker %d is drained, and yet: %v", p.id, place)
		}
	}
}

// decided checks a decision: a planned hand-over touches no task of another worker, and the end of a drained worker none at all.
func (d *drains) decided(before []standby.Placement, e *standby.Decision) {
	w := d.world
	rollback := e.Generation > w.metadata.generation
	for t, p := range e.Tasks {
		was := before[t]
		if was.Incarnation == 0 || p.Incarnation == was.Incarnation {
			continue
		}
		planned := p.From != 0 && p.From != was.From
		if planned {
			w.result.Moved++
			w.checks.moved = true
		}
		switch {
		case planned && (p.From != was.Worker || was.Recovering):
			w.violate("drain", "%v was handed over as %v", was, p)
		case d.calm && e.Collect && !planned:
			w.violate("drain", "nothing has failed, and yet %v became %v, rollback %v", was, p, rollback)
		case d.calm && slices.Contains(d.stopped, was.Worker):
			w.violate("drain", "worker %d was drained before it was stopped, and yet %v became %v", was.Worker, was, p)
		}
	}
}

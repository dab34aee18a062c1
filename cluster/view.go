package cluster

import (
	"bytes"
	"errors"
	"slices"

	"github.com/understudy-stream/understudy/checkpoint"
	"github.com/understudy-stream/understudy/determinant"
	"github.com/understudy-stream/understudy/operator"
	"github.com/understudy-stream/understudy/standby"
	"github.com/understudy-stream/understudy/task"
)

// View is what a worker knows of the ledger: the job, where tasks are, who is dead, the last completed checkpoint. It
// changes only by entries, so every worker that has applied the same entries has the same.
type View struct {
	Index      uint64
	Splits     [][]string          // per vertex, of sources; grows at its ends only
	Stages     [][]Stage           // per vertex, of sources that grow
	Mode       determinant.Mode    // of the first epoch
	Depth      determinant.Depth   // likewise
	Base       standby.EpochMode   // of the epoch after the last completed checkpoint
	Opened     []standby.EpochMode // of each further epoch that was started, in order
	Configured standby.EpochMode   // what the processes were last started with; what was asked for since is not in it
	Round      determinant.Round
	Generation determinant.Generation
	Dead       []determinant.WorkerID // sorted
	Hear       []determinant.WorkerID // sorted
	Places     []standby.Placement    // by task
	Complete   *checkpoint.Complete   // the last completed checkpoint; nil: none yet
	Cut        *Cut                   // of the last global rollback; nil: none yet
	Asides     []Aside
	Anew       []determinant.Incarnation // by task; its last life that began without its predecessor's determinants; 0: none
	Members    []Admit                   // workers in processes of their own that are not dead, by id
}

// Aside is a record that the poison policy sets aside.
type Aside struct {
	Task     determinant.TaskID
	Position task.Position
	Record   []byte // as it was on its channel
	Operator string // that failed on it
	Err      string
	// Incarnation is the life that failed on it. ByRecord: the record tells which it is, its position no longer does.
	Incarnation determinant.Incarnation
	Source      bool // of a source, whose records always have the same positions; Invariant: then not ByRecord
	ByRecord    bool
}

// NewView is the view before the first entry.
func NewView(job *Job, splits [][]string, mode determinant.Mode, depth determinant.Depth) View {
	v := View{Splits: splits, Mode: mode, Depth: depth, Base: standby.EpochMode{Mode: mode, Depth: depth}}
	v.Configured, v.Stages = v.Base, stagesOf(job, splits)
	for t := range job.Tasks {
		v.Places = append(v.Places, standby.Placement{Task: determinant.TaskID(t)})
	}
	return v
}

func (v *View) clone() View {
	c := *v
	c.Places = slices.Clone(v.Places)
	c.Asides = slices.Clone(v.Asides)
	c.Opened = slices.Clone(v.Opened)
	c.Anew = slices.Clone(v.Anew)
	c.Members = slices.Clone(v.Members)
	return c
}

func (v *View) dead(w determinant.WorkerID) bool {
	_, found := slices.BinarySearch(v.Dead, w)
	return found
}

// committed is the epoch of the last completed checkpoint.
func (v *View) committed() determinant.Epoch {
	if v.Complete == nil {
		return 0
	}
	return v.Complete.Epoch
}

// base is where the epoch after the last completed checkpoint begins in the log of task t, and the life that the
// checkpoint's state is from.
func (v *View) base(t determinant.TaskID) (determinant.LogOffset, determinant.Incarnation) {
	if v.Complete == nil {
		return 0, 0
	}
	s := v.Complete.Tasks[t]
	return s.Log, s.Incarnation
}

// offsets are the log offsets of the last completed checkpoint, by task.
func (v *View) offsets() []determinant.LogOffset {
	offsets := make([]determinant.LogOffset, len(v.Places))
	if v.Complete != nil {
		for t := range offsets {
			offsets[t] = v.Complete.Tasks[t].Log
		}
	}
	return offsets
}

// place takes a committed decision. It returns the tasks whose incarnation rose.
func (v *View) place(d *standby.Decision) []determinant.TaskID {
	var changed []determinant.TaskID
	for i, p := range d.Tasks {
		if p.Incarnation > v.Places[i].Incarnation {
			changed = append(changed, p.Task)
		}
	}
	if d.Generation > v.Generation {
		v.Cut = v.cut()
	}
	v.parted(d, changed)
	v.Round, v.Generation, v.Dead, v.Hear = d.Round, d.Generation, d.Dead, d.Hear
	v.Members = slices.DeleteFunc(slices.Clone(v.Members), func(m Admit) bool { return v.dead(m.Worker) })
	v.Places = slices.Clone(d.Tasks)
	return changed
}

// admit takes a worker in; false if its id was used before.
func (v *View) admit(a Admit) bool {
	for _, m := range v.Members {
		if m.Worker >= a.Worker {
			return false
		}
	}
	if len(v.Dead) > 0 && v.Dead[len(v.Dead)-1] >= a.Worker {
		return false
	}
	v.Members = append(slices.Clone(v.Members), a)
	return true
}

// member finds a worker that is not dead.
func (v *View) member(w determinant.WorkerID) (Admit, bool) {
	for _, m := range v.Members {
		if m.Worker == w {
			return m, true
		}
	}
	return Admit{}, false
}

// Cut is the checkpoint that a global rollback went back to.
type Cut struct {
	Logs    []determinant.LogOffset // by task
	Cursors []determinant.Cursor    // by task; of the external channel, where there is one
}

// cut is the point that a rollback decided now goes back to: the last completed checkpoint.
func (v *View) cut() *Cut {
	c := &Cut{Logs: v.offsets(), Cursors: make([]determinant.Cursor, len(v.Places))}
	for t := range c.Cursors {
		c.Cursors[t] = determinant.Cursor{Epoch: 1}
		if v.Complete != nil && v.Complete.Tasks[t].External != nil {
			c.Cursors[t] = *v.Complete.Tasks[t].External
		}
	}
	return c
}

// fence is who may write to the store of sink task t.
func (v *View) fence(t determinant.TaskID) operator.Fence {
	f := operator.Fence{Incarnation: v.Places[t].Incarnation, Generation: v.Generation}
	if v.Cut != nil {
		f.Cut = &operator.Cut{Cursor: v.Cut.Cursors[t], Logs: v.Cut.Logs}
	}
	return f
}

// live tells whether a worker is none of the dead.
func (v *View) live(w determinant.WorkerID) bool { return w != 0 && !v.dead(w) }

// isAside tells whether a record is set aside already.
func (v *View) isAside(a *Aside) bool {
	return slices.ContainsFunc(v.Asides, func(b Aside) bool {
		if a.ByRecord || b.ByRecord {
			return a.Task == b.Task && bytes.Equal(a.Record, b.Record)
		}
		return a.Task == b.Task && a.Position == b.Position
	})
}

// asides are the records of task t to be set aside.
func (v *View) asides(t determinant.TaskID) []task.Poison {
	var records []task.Poison
	for _, a := range v.Asides {
		if a.Task == t {
			records = append(records, task.Poison{
				Task: t, Position: a.Position, Record: a.Record, ByRecord: a.ByRecord, Operator: a.Operator, Err: errors.New(a.Err),
			})
		}
	}
	return records
}
